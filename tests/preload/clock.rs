//! Loaded before libc into one program (LD_PRELOAD): its wall clock is off by what a test writes into a file, from that
//! instant on. The file is two numbers of 8 bytes: by how many seconds, and how often this program was told a time that
//! was off, which is the proof that the fault happened. The kernel's other clocks are left alone, as a clock that is set
//! leaves them.

use std::{
    ffi::{c_char, c_int, c_long, c_void},
    sync::atomic::{AtomicI64, AtomicPtr, Ordering},
};

#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

#[repr(C)]
pub struct Timeval {
    seconds: i64,
    microseconds: i64,
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn getenv(name: *const c_char) -> *const c_char;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn mmap(at: *mut c_void, length: usize, protection: c_int, flags: c_int, fd: c_int, from: i64)
    -> *mut c_void;
}

#[cfg(target_arch = "x86_64")]
const CLOCK_GETTIME: c_long = 228;
#[cfg(target_arch = "aarch64")]
const CLOCK_GETTIME: c_long = 113;
const REALTIME: c_int = 0;
const REALTIME_COARSE: c_int = 5;

/// The file in memory; null before the first call.
static CELLS: AtomicPtr<AtomicI64> = AtomicPtr::new(std::ptr::null_mut());
/// Where there is no file.
static NONE: [AtomicI64; 2] = [const { AtomicI64::new(0) }; 2];

fn cells() -> &'static [AtomicI64; 2] {
    let mut at = CELLS.load(Ordering::Acquire);
    if at.is_null() {
        at = map().unwrap_or(NONE.as_ptr().cast_mut());
        CELLS.store(at, Ordering::Release);
    }
    // SAFETY: two aligned numbers that are never unmapped.
    unsafe { &*at.cast::<[AtomicI64; 2]>() }
}

fn map() -> Option<*mut AtomicI64> {
    // SAFETY: plain calls of libc with valid arguments; each result is looked at.
    unsafe {
        let path = getenv(c"TEST_WALL_CLOCK".as_ptr());
        if path.is_null() {
            return None;
        }
        let fd = open(path, 2 | 0o2_000_000);
        let at = mmap(std::ptr::null_mut(), 16, 3, 1, fd, 0);
        (fd >= 0 && at as isize != -1).then_some(at.cast())
    }
}

fn offset(clock: c_int) -> i64 {
    if clock != REALTIME && clock != REALTIME_COARSE {
        return 0;
    }
    let [by, told] = cells();
    let by = by.load(Ordering::Relaxed);
    if by != 0 {
        told.fetch_add(1, Ordering::Relaxed);
    }
    by
}

/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    // SAFETY: the caller's pointer is handed on, and read only after the kernel wrote to it.
    unsafe {
        let result = syscall(CLOCK_GETTIME, clock as c_long, time);
        if result == 0 {
            (*time).seconds += offset(clock);
        }
        result as c_int
    }
}

/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(time: *mut Timeval, _zone: *mut c_void) -> c_int {
    let mut now = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: as above.
    unsafe {
        let result = clock_gettime(REALTIME, &mut now);
        if result == 0 && !time.is_null() {
            *time = Timeval { seconds: now.seconds, microseconds: now.nanoseconds / 1000 };
        }
        result
    }
}

/// # Safety
/// As libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(into: *mut i64) -> i64 {
    let mut now = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: as above.
    unsafe {
        clock_gettime(REALTIME, &mut now);
        if !into.is_null() {
            *into = now.seconds;
        }
    }
    now.seconds
}
