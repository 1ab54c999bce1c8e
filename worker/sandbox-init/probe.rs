//! The program of a self-test: the same program under its first argument `probe`, as a sandbox's program, not as PID 1.
//! It tries every wall and prints one line for each, `NAME<TAB>held` or `NAME<TAB>open<TAB>WHAT`, then waits to be
//! killed. `sandbox/native/prove.rs` of the worker starts and reads it.

use std::{
    ffi::{c_char, c_int, c_long, c_uint, c_ulong},
    fs::{self, File},
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    ptr, thread,
    time::Duration,
};

use super::{SIGKILL, _exit, errno, fork, kill, signal, waitpid};

const SIGSYS: c_int = 31;
const SIGTERM: c_int = 15;
const SIG_IGN: usize = 1;
const EAGAIN: i32 = 11;
const ENOSPC: i32 = 28;
const ENETUNREACH: i32 = 101;
/// Beyond any limit of a self-test.
const MOST_FORKS: u32 = 4096;
const MOST_BYTES: usize = 1 << 30;
const BLOCK: usize = 64 << 10;

unsafe extern "C" {
    fn getuid() -> c_uint;
    fn mount(source: *const c_char, target: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_char) -> c_int;
    fn mknod(path: *const c_char, mode: c_uint, device: c_ulong) -> c_int;
    #[cfg(target_arch = "x86_64")]
    fn syscall(number: c_long, ...) -> c_long;
}

pub(crate) fn main() -> ! {
    // SAFETY: plain numbers. Only the worker's order may end it.
    unsafe { signal(SIGTERM, SIG_IGN) };
    let walls: [(&str, fn() -> Result<(), String>); 8] = [
        ("identity", identity),
        ("files", files),
        ("network", network),
        ("devices", devices),
        ("seccomp", foreign_call),
        ("disk", disk),
        ("processes", processes),
        ("memory", memory),
    ];
    for (name, wall) in walls {
        match wall() {
            Ok(()) => say(&format!("{name}\theld")),
            Err(what) => say(&format!("{name}\topen\t{what}")),
        }
    }
    say("done\t");
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn say(line: &str) {
    // The worker waits for the lines; where they cannot be written it says that they never came.
    io::stdout().lock().write_all(format!("{line}\n").as_bytes()).ok();
}

fn held(holds: bool, what: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}

fn identity() -> Result<(), String> {
    // SAFETY: no arguments.
    held(unsafe { getuid() } >= 1000, "the program is root")?;
    let status = fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    let value = |name: &str| {
        status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim().to_owned()
    };
    for name in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        held(value(name).bytes().all(|b| b == b'0') && !value(name).is_empty(), format!("{name} is {}", value(name)))?;
    }
    held(value("NoNewPrivs") == "1", "new privileges can be had")?;
    held(value("Seccomp") == "2", "no filter of system calls")?;
    // SAFETY: plain numbers.
    held(unsafe { kill(1, SIGKILL) } != 0, "PID 1 takes a signal from inside")?;
    held(fs::read_dir("/proc/1/fd").is_err(), "PID 1's descriptors can be seen")?;
    held(File::open("/in/init").is_err(), "PID 1's settings can be read")
}

fn files() -> Result<(), String> {
    for path in ["/x", "/etc/x", "/in/x", "/logs/x", "/dev/x", "/proc/sys/kernel/hostname"] {
        held(File::create(path).is_err(), format!("{path} can be written"))?;
    }
    // SAFETY: strings that live on.
    let answer = unsafe { mount(c"x".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, ptr::null()) };
    held(answer != 0, "a file system can be mounted")
}

fn network() -> Result<(), String> {
    // An address that is nobody's (RFC 5737); without a network it is unreachable at once.
    let nobody = SocketAddr::from(([192, 0, 2, 1], 9));
    match TcpStream::connect_timeout(&nobody, Duration::from_secs(2)) {
        Err(e) if e.raw_os_error() == Some(ENETUNREACH) => Ok(()),
        Err(e) => Err(format!("an address outside answers with {e}, not as unreachable")),
        Ok(_) => Err("an address outside answers".to_owned()),
    }
}

fn devices() -> Result<(), String> {
    // SAFETY: a string that lives on; a character device, the kernel's memory.
    let answer = unsafe { mknod(c"/work/mem".as_ptr(), 0o020_666, (1 << 8) | 1) };
    held(answer != 0, "a device node can be made")?;
    let known = ["null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "shm"];
    let seen = fs::read_dir("/dev").map_err(|e| format!("/dev: {e}"))?;
    let strange = seen.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).find(|n| !known.contains(&n.as_str()));
    strange.map_or(Ok(()), |name| Err(format!("/dev/{name} is there")))
}

/// Runs in a child; gives the child's wait status.
fn in_child(work: impl FnOnce()) -> Result<c_int, String> {
    // SAFETY: there is one thread, so the child may do whatever the parent may; the status is ours.
    unsafe {
        match fork() {
            -1 => Err(format!("fork: {}", io::Error::last_os_error())),
            0 => {
                work();
                _exit(0)
            }
            pid => {
                let mut status: c_int = 0;
                while waitpid(pid, &mut status, 0) < 0 && errno() == super::EINTR {}
                Ok(status)
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn foreign_call() -> Result<(), String> {
    // getpid by the numbers of x32, which a table for x86_64 says nothing about.
    // SAFETY: no arguments.
    let status = in_child(|| unsafe {
        syscall(0x4000_0000 | 39);
    })?;
    held(status & 0x7f == SIGSYS, format!("a call by another numbering ends with status {status}"))
}

#[cfg(not(target_arch = "x86_64"))]
fn foreign_call() -> Result<(), String> {
    Ok(()) // one numbering only; `identity` has seen the filter
}

fn disk() -> Result<(), String> {
    let mut file = File::create("/work/fill").map_err(|e| format!("/work: {e}"))?;
    let block = vec![7u8; BLOCK];
    let mut written = 0;
    let error = loop {
        match file.write(&block) {
            Ok(bytes) if written < MOST_BYTES => written += bytes,
            Ok(_) => return Err("there is no end of it".to_owned()),
            Err(error) => break error,
        }
    };
    fs::remove_file("/work/fill").map_err(|e| format!("/work: {e}"))?;
    held(error.raw_os_error() == Some(ENOSPC), format!("it ends with {error}"))
}

fn processes() -> Result<(), String> {
    let mut forks = 0;
    let refused = loop {
        // SAFETY: as above; a child only waits to be killed.
        match unsafe { fork() } {
            -1 => break errno(),
            0 => loop {
                thread::sleep(Duration::from_secs(3600));
            },
            _ if forks < MOST_FORKS => forks += 1,
            _ => break 0,
        }
    };
    // SAFETY: -1 is everything but this process and PID 1, which refuses; the status is ours.
    unsafe {
        kill(-1, SIGKILL);
        let mut status: c_int = 0;
        while waitpid(-1, &mut status, 0) > 0 || errno() == super::EINTR {}
    }
    held(refused == EAGAIN, format!("{forks} forks, then error {refused}"))
}

fn memory() -> Result<(), String> {
    let status = in_child(|| {
        let mut all = Vec::new();
        while all.len() * (1 << 20) < MOST_BYTES {
            all.push(vec![1u8; 1 << 20]);
        }
    })?;
    held(status & 0x7f == SIGKILL, format!("a program that takes all ends with status {status}"))
}
