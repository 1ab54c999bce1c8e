//! The part of a sandbox's volume that needs root: loop devices, mounts, owners, append-only flags, allocation; and at
//! the end the unmounts. A worker that is root runs this as its child, any other has it run in a short container. So
//! there is one way in which a volume is made, and a worker of a plain user never holds these rights itself.
//!
//! ```text
//! volume make FOLDER WORKER_UID WORKER_GID SLOT_UID STDOUT_BYTES STDERR_BYTES METRICS_BYTES [LAYER_IMAGE…]
//! volume remove FOLDER
//! ```
//!
//! `FOLDER` is the sandbox's folder: the worker has put the file system's image there, made with `mkfs.ext4`, and the
//! empty folders to mount on. It ends with 0, or with 1 and one line on standard error. `sandbox/volume.rs` of the
//! worker has the other half, and the same names; change them together.

use std::{
    ffi::{CString, OsStr, OsString, c_char, c_int, c_uint, c_ulong, c_void},
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown},
        },
    },
    path::{Path, PathBuf},
    process, ptr, thread,
    time::Duration,
};

/// All that a program may call by a name: itself. An engine gives a container without a network an empty one.
pub(crate) const HOSTS: &[u8] = b"127.0.0.1 localhost\n::1 localhost\n";
const IMAGE: &str = "volume.ext4";
const VOLUME: &str = "volume";
/// The same file system without links that are followed and programs that run: the worker reads artifacts through it.
const VIEW: &str = "view";
const LAYER: &str = "layer-";
const STREAMS: [&str; 3] = ["stdout", "stderr", "metrics"];

// linux/loop.h
const LOOP_CTL_GET_FREE: c_ulong = 0x4C82;
const LOOP_CONFIGURE: c_ulong = 0x4C0A; // since Linux 5.8
const LOOP_SET_FD: c_ulong = 0x4C00;
const LOOP_CLR_FD: c_ulong = 0x4C01;
const LOOP_SET_STATUS64: c_ulong = 0x4C04;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
// linux/fs.h
const FS_IOC_GETFLAGS: c_ulong = 0x8008_6601;
const FS_IOC_SETFLAGS: c_ulong = 0x4008_6602;
const FS_APPEND_FL: c_int = 0x20;
const FALLOC_FL_KEEP_SIZE: c_int = 1;
// sys/mount.h, linux/mount.h
const MS_RDONLY: c_ulong = 1;
const MS_NOSUID: c_ulong = 2;
const MS_NODEV: c_ulong = 4;
const MS_NOEXEC: c_ulong = 8;
const MS_NOSYMFOLLOW: c_ulong = 256; // since Linux 5.10; older ones take no notice of it
const MS_NOATIME: c_ulong = 1024;
const MS_REMOUNT: c_ulong = 32;
const MS_BIND: c_ulong = 4096;
const MNT_DETACH: c_int = 2;
const UMOUNT_NOFOLLOW: c_int = 8;

const EBUSY: i32 = 16;
const ENXIO: i32 = 6;
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;

#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    real_device: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names: [u8; 160],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    file: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

unsafe extern "C" {
    fn ioctl(descriptor: c_int, request: c_ulong, ...) -> c_int;
    fn fallocate(descriptor: c_int, mode: c_int, offset: i64, length: i64) -> c_int;
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
}

/// What was tried, and what the kernel said.
type Outcome<T> = Result<T, String>;

fn failed(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> String {
    let what = format!("cannot {verb} {}", path.display());
    move |error| format!("{what}: {error}")
}

/// The role; never returns. The two words before these arguments are the program's own name and the role's.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ! {
    let arguments: Vec<OsString> = arguments.collect();
    let code = match run(&arguments) {
        Ok(()) => 0,
        Err(words) => {
            // Where standard error is closed, the exit code is all there is.
            writeln!(io::stderr(), "{}", words.replace('\n', " ")).ok();
            1
        }
    };
    process::exit(code)
}

fn run(arguments: &[OsString]) -> Outcome<()> {
    let words: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    match words.as_slice() {
        [verb, folder, worker_uid, worker_gid, slot_uid, stdout, stderr, metrics, layers @ ..]
            if *verb == "make" =>
        {
            let layout = Layout {
                worker: (number(worker_uid)?, number(worker_gid)?),
                slot: number(slot_uid)?,
                log_bytes: [number(stdout)?, number(stderr)?, number(metrics)?],
            };
            make(Path::new(folder), &layout, layers)
        }
        [verb, folder] if *verb == "remove" => remove(Path::new(folder)),
        _ => {
            Err("wrong arguments for a volume: the worker and this program are of different builds"
                .to_owned())
        }
    }
}

fn number<T: std::str::FromStr>(word: &OsStr) -> Outcome<T> {
    word.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| format!("{word:?} is no number"))
}

/// Whose things are on the volume.
struct Layout {
    worker: (c_uint, c_uint),
    slot: c_uint,
    log_bytes: [i64; 3],
}

fn make(folder: &Path, layout: &Layout, layers: &[&OsStr]) -> Outcome<()> {
    let volume = folder.join(VOLUME);
    let common = MS_NOSUID | MS_NODEV | MS_NOATIME;
    // Held until all is mounted: a loop device lets go of its file at its last user's end, also at a SIGKILL.
    let device = Loop::attach(&folder.join(IMAGE), 0)?;
    device.mount(&volume, common, "noinit_itable")?;
    let lost = volume.join("lost+found");
    fs::remove_dir(&lost).map_err(failed("remove", &lost))?;
    furnish(&volume, layout)?;
    view(&device, &folder.join(VIEW), common)?;
    for (number, image) in layers.iter().enumerate() {
        let device = Loop::attach(Path::new(image), LO_FLAGS_READ_ONLY)?;
        device.mount(&folder.join(format!("{LAYER}{number}")), common | MS_RDONLY, "noload")?;
    }
    Ok(())
}

/// Twice at the same place: a mount's copies in other name spaces (the host's, where this is a container) have the options
/// that it was made with, and a bind has those of what is bound. It is no bind of the volume: what is mounted on one of
/// two binds of a shared mount is mounted on the other, too.
fn view(device: &Loop, place: &Path, common: c_ulong) -> Outcome<()> {
    let walls = common | MS_NOEXEC | MS_NOSYMFOLLOW;
    device.mount(place, walls, "noinit_itable")?;
    call_mount(Path::new("none"), place, MS_REMOUNT | MS_BIND | MS_RDONLY | walls, "")?;
    call_mount(place, place, MS_BIND, "")
}

fn call_mount(source: &Path, target: &Path, flags: c_ulong, data: &str) -> Outcome<()> {
    let word = |bytes: &[u8]| CString::new(bytes).map_err(|_| "a path has a zero in it".to_owned());
    let (from, place) = (word(source.as_os_str().as_bytes())?, word(target.as_os_str().as_bytes())?);
    let data = word(data.as_bytes())?;
    // SAFETY: strings that live until the call is over. The kind is left aside where something is bound.
    check(unsafe { mount(from.as_ptr(), place.as_ptr(), c"ext4".as_ptr(), flags, data.as_ptr().cast()) })
        .map_err(failed("mount a volume at", target))
}

/// The program's uid owns `work/` and `tmp/` and nothing else. The worker writes `in/`, and PID 1, which is root without
/// the right to pass over modes, reads its settings there by its group. In `logs/` the files are root's, for PID 1 to
/// append to, and the worker reads them by its group.
fn furnish(volume: &Path, layout: &Layout) -> Outcome<()> {
    let ((uid, gid), slot) = (layout.worker, layout.slot);
    for (name, owner, group, mode) in [
        ("work", slot, slot, 0o755),
        ("tmp", slot, slot, 0o755),
        ("in", uid, slot, 0o755),
        ("logs", 0, gid, 0o750),
        ("init", 0, 0, 0o700),
    ] {
        let path = volume.join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .and_then(|()| chown(&path, Some(owner), Some(group)))
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(mode)))
            .map_err(failed("create", &path))?;
    }
    let this = Path::new("/proc/self/exe");
    let program = fs::read(this).map_err(failed("read", this))?;
    let mut copy = new_file(&volume.join("init/sandbox-init"), (0, 0), 0o500)?;
    copy.write_all(&program).map_err(failed("write", &volume.join("init/sandbox-init")))?;
    new_file(&volume.join("init/hosts"), (0, 0), 0o444)?
        .write_all(HOSTS)
        .map_err(failed("write", &volume.join("init/hosts")))?;
    new_file(&volume.join("in/init"), (uid, 0), 0o640)?;
    new_file(&volume.join("ballast"), (uid, gid), 0o600)?;
    for (name, bytes) in STREAMS.iter().zip(layout.log_bytes) {
        let path = volume.join("logs").join(name);
        let file = new_file(&path, (0, gid), 0o640)?;
        if bytes > 0 {
            // SAFETY: plain numbers, and a file that is open.
            check(unsafe { fallocate(file.as_raw_fd(), FALLOC_FL_KEEP_SIZE, 0, bytes) })
                .map_err(failed("allocate", &path))?;
        }
        append_only(&file).map_err(failed("make append-only", &path))?;
    }
    Ok(())
}

/// The mode is what it says whatever the umask is.
fn new_file(path: &Path, (owner, group): (c_uint, c_uint), mode: u32) -> Outcome<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|file| chown(path, Some(owner), Some(group)).map(|()| file))
        .and_then(|file| file.set_permissions(Permissions::from_mode(mode)).map(|()| file))
        .map_err(failed("create", path))
}

fn append_only(file: &File) -> io::Result<()> {
    let mut flags: c_int = 0;
    // SAFETY: the number is ours, and the kernel reads and writes an int, whatever the request's name says.
    unsafe {
        check(ioctl(file.as_raw_fd(), FS_IOC_GETFLAGS, &raw mut flags))?;
        flags |= FS_APPEND_FL;
        check(ioctl(file.as_raw_fd(), FS_IOC_SETFLAGS, &raw const flags))
    }
}

fn check(answer: c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A loop device that is held open.
struct Loop {
    path: PathBuf,
    _device: File,
}

impl Loop {
    /// Takes a free one. Another process may be quicker, and then the next is taken.
    fn attach(image: &Path, flags: u32) -> Outcome<Self> {
        const TRIES: u32 = 200;
        let read_only = flags & LO_FLAGS_READ_ONLY != 0;
        let file =
            OpenOptions::new().read(true).write(!read_only).open(image).map_err(failed("open", image))?;
        let control = Path::new("/dev/loop-control");
        let control =
            OpenOptions::new().read(true).write(true).open(control).map_err(failed("open", control))?;
        let mut last = String::new();
        for _ in 0..TRIES {
            // SAFETY: no argument.
            let number = unsafe { ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            check(number).map_err(failed("find a free loop device for", image))?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let taken =
                OpenOptions::new().read(true).write(!read_only).open(&path).and_then(|device| {
                    configure(&device, &file, flags | LO_FLAGS_AUTOCLEAR).map(|()| device)
                });
            match taken {
                Ok(device) => return Ok(Self { path, _device: device }),
                // Taken by another, or not there yet.
                Err(e)
                    if matches!(e.raw_os_error(), Some(EBUSY | ENXIO))
                        || e.kind() == io::ErrorKind::NotFound =>
                {
                    last = failed("take", &path)(e);
                    thread::sleep(Duration::from_millis(10));
                }
                Err(e) => return Err(failed("take", &path)(e)),
            }
        }
        Err(last)
    }

    fn mount(&self, target: &Path, flags: c_ulong, data: &str) -> Outcome<()> {
        call_mount(&self.path, target, flags, data)
    }
}

fn configure(device: &File, file: &File, flags: u32) -> io::Result<()> {
    let info = || LoopInfo {
        device: 0,
        inode: 0,
        real_device: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags,
        names: [0; 160],
        init: [0; 2],
    };
    let config = LoopConfig { file: file.as_raw_fd() as u32, block_size: 0, info: info(), reserved: [0; 8] };
    // SAFETY: the structures are ours and have the kernel's size; both files are open.
    unsafe {
        match check(ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config)) {
            Err(e) if matches!(e.raw_os_error(), Some(EINVAL | ENOTTY)) => {}
            done => return done,
        }
        // A kernel before 5.8: in two steps. Between them a kill would leave the device taken; a sweep frees it.
        check(ioctl(device.as_raw_fd(), LOOP_SET_FD, file.as_raw_fd()))?;
        let info = info();
        let set = check(ioctl(device.as_raw_fd(), LOOP_SET_STATUS64, &raw const info));
        if set.is_err() {
            check(ioctl(device.as_raw_fd(), LOOP_CLR_FD, ptr::null::<c_void>()))?;
        }
        set
    }
}

fn remove(folder: &Path) -> Outcome<()> {
    let mut places = vec![folder.join(VIEW), folder.join(VOLUME)];
    match fs::read_dir(folder) {
        Ok(entries) => {
            let layer = |name: OsString| name.to_str().is_some_and(|name| name.starts_with(LAYER));
            places.extend(entries.flatten().filter(|e| layer(e.file_name())).map(|e| e.path()));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("list", folder)(error)),
    }
    for place in &places {
        unmount(place)?;
    }
    let_go(folder)
}

fn unmount(place: &Path) -> Outcome<()> {
    const TRIES: u32 = 50;
    let name =
        CString::new(place.as_os_str().as_bytes()).map_err(|_| "a path has a zero in it".to_owned())?;
    for attempt in 0..TRIES {
        // Lazily in the end: the name goes now, the device when its last user has gone.
        let flags = if attempt + 5 < TRIES { UMOUNT_NOFOLLOW } else { UMOUNT_NOFOLLOW | MNT_DETACH };
        // SAFETY: a string that lives until the call is over.
        match check(unsafe { umount2(name.as_ptr(), flags) }) {
            Ok(()) => {}
            // Nothing is mounted there, or any more.
            Err(e) if e.raw_os_error() == Some(EINVAL) || e.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            Err(e) if e.raw_os_error() == Some(EBUSY) => thread::sleep(Duration::from_millis(20)),
            Err(e) => return Err(failed("unmount", place)(e)),
        }
    }
    Err(format!("{} is still mounted", place.display()))
}

/// Waits until no loop device holds the image. It lets go by itself at the last unmount; an order helps where not.
fn let_go(folder: &Path) -> Outcome<()> {
    const TRIES: u32 = 100;
    let Some(name) = folder.file_name() else { return Err("a sandbox's folder has no name".to_owned()) };
    let image = Path::new(name).join(IMAGE);
    for attempt in 0..TRIES {
        let Some(device) = holder(&image) else { return Ok(()) };
        if attempt % 10 == 5
            && let Ok(device) = File::open(&device)
        {
            // SAFETY: no argument. Where it fails, the next look tells.
            unsafe { ioctl(device.as_raw_fd(), LOOP_CLR_FD, ptr::null::<c_void>()) };
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(format!("a loop device still holds {}", image.display()))
}

/// By the end of the path: a file that was opened in a container that is gone has only the part below its mount.
fn holder(image: &Path) -> Option<PathBuf> {
    fs::read_dir("/sys/block").ok()?.flatten().find_map(|entry| {
        let backing = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        let backing = backing.trim_end_matches('\n');
        let backing = backing.strip_suffix(" (deleted)").unwrap_or(backing);
        Path::new(backing).ends_with(image).then(|| Path::new("/dev").join(entry.file_name()))
    })
}
