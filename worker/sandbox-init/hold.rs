//! What holds a sandbox's volume for a worker that is not root: the same program under its first argument `hold`. It makes a
//! user namespace and a mount namespace in it, mounts the volume there and waits to be killed: with it goes the volume,
//! whatever the program left on it, because a plain user can neither mount on the host nor remove another uid's files.
//!
//! ```text
//! hold FOLDER SLOT_UID DISK_BYTES SPARE_BYTES
//! ```
//!
//! It says `map<TAB>PID` and waits for `mapped`: only `newuidmap` may give it more than one uid, and only from outside.
//! Then it answers `ready`, or `failed<TAB>STEP<TAB>ERRNO`. Inside, uid 0 is the worker's own and all others are of the
//! user's range, so the program is nobody whom the host knows. The worker and the launcher come in through /proc/PID.
//!
//! ```text
//! FOLDER/disk      tmpfs of exactly the disk limit: work/, tmp/
//!        volume    tmpfs: in/, init/, logs/ with a FIFO for each stream; work/ and tmp/ bound from disk
//!        view      disk again, read-only, with no link followed and nothing run: artifacts are read through it
//! ```
//!
//! The logs are no files here: without root no file can be made that takes no truncation from who may write to it. The
//! program gets the ends of pipes; `pump.rs` writes the files, which no sandbox sees.
//! `sandbox/native/holder.rs` of the worker has the other half; change both together.

use std::{
    ffi::{CString, OsString, c_char, c_int, c_uint, c_ulong},
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown},
        },
    },
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use super::{Failure, dup2, fork, launch, os_error, setsid, umask, volume};

const MS_NOSYMFOLLOW: c_ulong = 256; // since Linux 5.10
const STREAMS: [&str; 3] = ["stdout", "stderr", "metrics"];
/// As on a volume of ext4: one inode for 16 KiB.
const BYTES_PER_INODE: u64 = 16 << 10;
/// Of the part that the worker fills: its own few and the run's input files.
const SPARE_INODES: u64 = 16 << 10;
const EINVAL: i32 = 22;

unsafe extern "C" {
    fn mkfifo(path: *const c_char, mode: c_uint) -> c_int;
}

struct Order {
    folder: PathBuf,
    slot: c_uint,
    disk_bytes: u64,
    spare_bytes: u64,
}

fn parse(arguments: &[OsString]) -> Option<Order> {
    let [folder, slot, disk, spare] = arguments else { return None };
    let number = |word: &OsString| word.to_str()?.parse::<u64>().ok();
    Some(Order {
        folder: folder.into(),
        slot: number(slot)?.try_into().ok()?,
        disk_bytes: number(disk)?,
        spare_bytes: number(spare)?,
    })
}

/// Never returns.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ! {
    let arguments: Vec<OsString> = arguments.collect();
    // SAFETY: plain numbers; there is one thread. A child of nobody: no worker has to take its end.
    match unsafe { fork() } {
        0 => {}
        pid if pid > 0 => process::exit(0),
        _ => process::exit(1),
    }
    // SAFETY: plain numbers; a child is no leader of a group.
    unsafe {
        setsid();
        umask(0o022);
    }
    if let Err((step, errno)) = run(&arguments) {
        answer(&format!("failed\t{step}\t{errno}"));
        process::exit(1);
    }
    answer("ready");
    if let Ok(null) = File::open("/dev/null") {
        // SAFETY: all are open.
        unsafe {
            dup2(null.as_raw_fd(), 0);
            dup2(null.as_raw_fd(), 1);
        }
    }
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn answer(line: &str) {
    let mut out = io::stdout().lock();
    // A worker that is gone has closed standard input too, and then this ends.
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).ok();
}

fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let order = parse(arguments).ok_or(("understand its arguments", EINVAL))?;
    step("make a user namespace", launch::leave(launch::CLONE_NEWUSER))?;
    answer(&format!("map\t{}", process::id()));
    let mut word = [0u8; 7];
    step("hear that it has its uids", io::stdin().read_exact(&mut word))?;
    if word != *b"mapped\n" {
        return Err(("hear that it has its uids", EINVAL));
    }
    step("make a mount namespace", launch::leave(launch::CLONE_NEWNS))?;
    step("cut the mounts off", launch::change(Path::new("/"), launch::MS_SLAVE | launch::MS_REC))?;
    step("mount the disk", disk(&order))?;
    step("mount the volume", volume(&order))?;
    step("make the logs", logs(&order))?;
    step("mount the view", view(&order))
}

fn step(name: &'static str, done: io::Result<()>) -> Result<(), Failure> {
    done.map_err(|e| (name, os_error(&e)))
}

const COMMON: c_ulong = launch::MS_NOSUID | launch::MS_NODEV | launch::MS_NOATIME;

fn disk(order: &Order) -> io::Result<()> {
    let place = order.folder.join("disk");
    let inodes = (order.disk_bytes / BYTES_PER_INODE).max(1024);
    let options = format!("size={},nr_inodes={inodes},mode=755", order.disk_bytes);
    launch::mount_at("sandbox", &place, "tmpfs", COMMON, &options)?;
    for name in ["work", "tmp"] {
        folder(&place.join(name), order.slot, 0o755)?;
    }
    Ok(())
}

fn volume(order: &Order) -> io::Result<()> {
    let place = order.folder.join("volume");
    let options = format!("size={},nr_inodes={SPARE_INODES},mode=755", order.spare_bytes);
    launch::mount_at("sandbox", &place, "tmpfs", COMMON, &options)?;
    for (name, mode) in [("work", 0o755), ("tmp", 0o755), ("in", 0o755), ("logs", 0o700), ("init", 0o700)] {
        folder(&place.join(name), 0, mode)?;
    }
    for name in ["work", "tmp"] {
        launch::bind_to(&order.folder.join("disk").join(name), &place.join(name))?;
    }
    let program = fs::read("/proc/self/exe")?;
    file(&place.join("init/sandbox-init"), 0o500, &program)?;
    file(&place.join("init/hosts"), 0o444, volume::HOSTS)?;
    // PID 1's settings, which the worker writes: both are uid 0 here.
    file(&place.join("in/init"), 0o600, b"")
}

/// The program's uid may not open one again, by whatever name: so it can neither read what is in it nor be its reader.
fn logs(order: &Order) -> io::Result<()> {
    for name in STREAMS {
        let path = order.folder.join("volume/logs").join(name);
        let text = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a string that lives on.
        launch::done(unsafe { mkfifo(text.as_ptr(), 0o600) })?;
    }
    Ok(())
}

fn view(order: &Order) -> io::Result<()> {
    let place = order.folder.join("view");
    launch::bind_to(&order.folder.join("disk"), &place)?;
    let walls = launch::MS_RDONLY | launch::MS_NOEXEC | MS_NOSYMFOLLOW | COMMON;
    launch::change(&place, launch::MS_REMOUNT | launch::MS_BIND | walls)
}

fn folder(path: &Path, owner: c_uint, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    chown(path, Some(owner), Some(owner))?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn file(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))
}
