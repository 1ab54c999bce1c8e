//! The launcher of the native backend: the same program under its first argument `launch`. It builds a sandbox's walls
//! around a child, which then becomes PID 1 of it (`main.rs`), and stays as its supervisor, so that nothing of a
//! sandbox hangs on the worker's life. One thread, nothing but the standard library.
//!
//! It reads its orders from standard input (one `key<TAB>value…` a line, `sandbox/native/spec.rs` of the worker writes
//! them) and answers one line: `started<TAB>PID` when the child has become PID 1's program, or
//! `failed<TAB>STEP<TAB>ERRNO`. After PID 1's end it adds a last line to PID 1's reports: how that ended.
//!
//! What is bound into the sandbox is given by the worker, never by a run. Where a step fails the child ends, and with it
//! its namespaces and every mount in them.

use std::{
    ffi::{CString, OsStr, c_char, c_int, c_long, c_uint, c_ulong, c_void},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, RawFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt, fs::symlink},
    },
    path::{Component, Path, PathBuf},
    process, ptr,
};

use super::{pump, Failure, O_CLOEXEC, O_NOFOLLOW, _exit, dup2, errno, fork, move_up, os_error, pipe2, prctl, setgroups, setsid, umask, waitpid};

// linux/mount.h, linux/sched.h, linux/prctl.h, linux/capability.h, linux/sockios.h: the same on every architecture.
pub(crate) const MS_RDONLY: c_ulong = 1;
pub(crate) const MS_NOSUID: c_ulong = 2;
pub(crate) const MS_NODEV: c_ulong = 4;
pub(crate) const MS_NOEXEC: c_ulong = 8;
pub(crate) const MS_REMOUNT: c_ulong = 32;
pub(crate) const MS_NOATIME: c_ulong = 1024;
pub(crate) const MS_BIND: c_ulong = 4096;
pub(crate) const MS_REC: c_ulong = 16384;
const MS_PRIVATE: c_ulong = 1 << 18;
pub(crate) const MS_SLAVE: c_ulong = 1 << 19;
const MNT_DETACH: c_int = 2;
pub(crate) const CLONE_NEWNS: c_int = 0x0002_0000;
pub(crate) const CLONE_NEWUSER: c_int = 0x1000_0000;
const CLONE_NEWCGROUP: c_int = 0x0200_0000;
const CLONE_NEWUTS: c_int = 0x0400_0000;
const CLONE_NEWIPC: c_int = 0x0800_0000;
const CLONE_NEWPID: c_int = 0x2000_0000;
const CLONE_NEWNET: c_int = 0x4000_0000;
const PR_SET_SECCOMP: c_int = 22;
const PR_CAPBSET_DROP: c_int = 24;
const PR_SET_NO_NEW_PRIVS: c_int = 38;
const PR_CAP_AMBIENT: c_int = 47;
const PR_CAP_AMBIENT_CLEAR_ALL: c_ulong = 4;
const SECCOMP_MODE_FILTER: c_ulong = 2;
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// KILL, SETGID and SETUID.
const CAPABILITIES: u32 = 0b1110_0000;
const RLIMIT_CORE: c_int = 4;
const RLIMIT_NOFILE: c_int = 7;
const AF_INET: c_int = 2;
const SOCK_DGRAM: c_int = 2;
const SIOCGIFFLAGS: c_ulong = 0x8913;
const SIOCSIFFLAGS: c_ulong = 0x8914;
const IFF_UP: i16 = 1;
const EINVAL: i32 = 22;
const EIO: i32 = 5;
const SYS_CLOSE_RANGE: c_long = 436;
#[cfg(target_arch = "x86_64")]
const SYS_KEYCTL: c_long = 250;
#[cfg(not(target_arch = "x86_64"))]
const SYS_KEYCTL: c_long = 219;
const KEYCTL_JOIN_SESSION_KEYRING: c_long = 1;

/// What the kernel shows of itself that is nobody's business, as runc has it; files and folders.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/kmsg",
];
/// What a root without capabilities could still write to.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Of the whole /sys, where a GPU's libraries need it.
const MASKED_SYS: [&str; 6] = [
    "/sys/block",
    "/sys/devices/virtual/block",
    "/sys/devices/virtual/dmi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel",
];
/// What libraries count CPUs and memory nodes by; all of /sys that a sandbox without a GPU sees.
const SYS_FOLDERS: [&str; 2] = ["/sys/devices/system/cpu", "/sys/devices/system/node"];
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

#[repr(C)]
struct FilterProgram {
    length: u16,
    instructions: *const u8,
}

#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

unsafe extern "C" {
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_char,
    ) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn pivot_root(new: *const c_char, old: *const c_char) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn setns(descriptor: c_int, kind: c_int) -> c_int;
    fn sethostname(name: *const c_char, length: usize) -> c_int;
    fn setdomainname(name: *const c_char, length: usize) -> c_int;
    fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn ioctl(descriptor: c_int, request: c_ulong, ...) -> c_int;
    fn setrlimit(resource: c_int, limit: *const [c_ulong; 2]) -> c_int;
    fn capset(header: *const [u32; 2], data: *const [u32; 6]) -> c_int;
    fn execve(path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
}

/// One thing of the host that is seen inside.
struct Bind {
    folder: bool,
    read_only: bool,
    target: PathBuf,
    source: PathBuf,
}

#[derive(Default)]
struct Spec {
    /// An empty folder of the host, for the time that the new root is built.
    place: PathBuf,
    /// The image: never written to.
    image: PathBuf,
    /// Where PID 1's reports go.
    reports: PathBuf,
    /// `cgroup.procs` files: the supervisor's, and the sandbox's.
    supervisor: Vec<PathBuf>,
    cgroups: Vec<PathBuf>,
    binds: Vec<Bind>,
    /// Names below /dev of the host, besides those of every sandbox.
    devices: Vec<String>,
    /// Where all of /sys is needed.
    whole_sys: bool,
    host_name: String,
    shm: (u64, u64),
    oom_score: i32,
    open_files: u64,
    /// The system calls that are let through.
    filter: Vec<u8>,
    program: PathBuf,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// Whose namespaces of users and mounts all this is in; 0 is the host's (`hold.rs`).
    holder: u32,
    /// Logs that come through pipes.
    streams: Vec<pump::Order>,
    /// For tests: the step of this number fails.
    fault: usize,
}

impl Spec {
    fn parse(text: &str) -> Option<Self> {
        let mut spec = Self::default();
        for line in text.lines() {
            let (key, value) = line.split_once('\t')?;
            match key {
                "place" => spec.place = value.into(),
                "image" => spec.image = value.into(),
                "reports" => spec.reports = value.into(),
                "supervisor" => spec.supervisor.push(value.into()),
                "cgroup" => spec.cgroups.push(value.into()),
                "bind" => {
                    let mut words = value.split('\t');
                    let folder = words.next()? == "folder";
                    let read_only = words.next()? != "rw";
                    let (target, source) = (words.next()?.into(), words.next()?.into());
                    spec.binds.push(Bind { folder, read_only, target, source });
                }
                "device" => spec.devices.push(value.to_owned()),
                "sys" => spec.whole_sys = value == "whole",
                "host" => value.clone_into(&mut spec.host_name),
                "shm" => {
                    let (bytes, inodes) = value.split_once('\t')?;
                    spec.shm = (bytes.parse().ok()?, inodes.parse().ok()?);
                }
                "oom_score" => spec.oom_score = value.parse().ok()?,
                "open_files" => spec.open_files = value.parse().ok()?,
                "filter" => spec.filter = hex(value)?,
                "program" => spec.program = value.into(),
                "argument" => spec.arguments.push(CString::new(value).ok()?),
                "environment" => spec.environment.push(CString::new(value).ok()?),
                "holder" => spec.holder = value.parse().ok()?,
                "stream" => {
                    let mut words = value.split('\t');
                    let limit = words.next()?.parse().ok()?;
                    let (pipe, file) = (words.next()?.into(), words.next()?.into());
                    spec.streams.push(pump::Order { limit, pipe, file });
                }
                "fault" => spec.fault = value.parse().ok()?,
                _ => return None,
            }
        }
        let paths = [&spec.place, &spec.image, &spec.reports, &spec.program];
        let targets = spec.binds.iter().flat_map(|b| [&b.target, &b.source]);
        let plain = |path: &&PathBuf| path.is_absolute() && !path.components().any(|c| c == Component::ParentDir);
        let whole = paths.into_iter().chain(targets).all(|path| plain(&path));
        let names = spec.devices.iter().all(|name| !name.contains("..") && !name.starts_with('/'));
        // Eight bytes an instruction, and none is no filter at all.
        let filtered = !spec.filter.is_empty() && spec.filter.len().is_multiple_of(8);
        (whole && names && filtered && !spec.cgroups.is_empty()).then_some(spec)
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if digits.len() % 2 == 0 { digits.chunks(2).map(byte).collect() } else { None }
}

/// Never returns: it ends when PID 1 has.
pub(crate) fn main() -> ! {
    // SAFETY: it fails only for the leader of a group, which is detached then already.
    unsafe { setsid() };
    let code = match run() {
        Ok(()) => 0,
        Err((step, errno)) => {
            answer(&format!("failed\t{step}\t{errno}"));
            1
        }
    };
    process::exit(code)
}

/// One line. A worker that is gone has no ear, and nothing hangs on it.
fn answer(line: &str) {
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).ok();
}

fn run() -> Result<(), Failure> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|e| ("read the orders", os_error(&e)))?;
    let spec = Spec::parse(&text).ok_or(("understand the orders", EINVAL))?;
    let mut steps = Steps { done: 0, fault: spec.fault };
    steps.take("open the reports", || open_append(&spec.reports).map(drop))?;
    steps.take("join the supervisor's cgroup", || spec.supervisor.iter().try_for_each(|path| fs::write(path, "0")))?;
    if spec.holder != 0 {
        steps.take("join the user namespace", || join(spec.holder, "user", CLONE_NEWUSER))?;
        steps.take("join the mount namespace", || join(spec.holder, "mnt", CLONE_NEWNS))?;
    }
    let mut pump = pump::Pump::open(&spec.streams).map_err(|e| ("open the streams", os_error(&e)))?;
    // SAFETY: plain numbers; it is the next child that this is about.
    steps.take("make a pid namespace", || done(unsafe { unshare(CLONE_NEWPID) }))?;
    let mut ends: [c_int; 2] = [0; 2];
    // SAFETY: two descriptors, owned below.
    steps.take("make a pipe", || done(unsafe { pipe2(ends.as_mut_ptr(), O_CLOEXEC) }))?;
    // SAFETY: as above.
    let (mut read, write) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
    // SAFETY: there is one thread, so the child may do whatever the parent may.
    let pid = match unsafe { fork() } {
        -1 => return Err(("fork", errno())),
        0 => {
            drop(read);
            let pipe = move_up(write.as_raw_fd());
            let (step, errno) = become_pid_1(&spec, &mut steps, pipe);
            let word = [&errno.to_le_bytes(), step.as_bytes()].concat();
            // SAFETY: the copy that was left open. Where the write fails, the exit code is all there is.
            unsafe { File::from_raw_fd(pipe) }.write_all(&word).ok();
            // SAFETY: the child's end.
            unsafe { _exit(72) }
        }
        pid => pid,
    };
    drop(write);
    let mut word = Vec::new();
    let told = read.read_to_end(&mut word);
    match (told, word.split_first_chunk::<4>()) {
        (Err(error), _) => answer(&format!("failed\thear from PID 1\t{}", os_error(&error))),
        // exec closed the pipe, or something killed the child: then its end is reported next.
        (Ok(_), None) => answer(&format!("started\t{pid}")),
        (Ok(_), Some((errno, step))) => {
            answer(&format!("failed\t{}\t{}", String::from_utf8_lossy(step), i32::from_le_bytes(*errno)));
        }
    }
    close_answers();
    if !spec.streams.is_empty() {
        pump.run(pid, || note(&spec.reports, "{\"event\":\"drained\"}\n"));
    }
    let mut status: c_int = 0;
    // SAFETY: the status is ours.
    while unsafe { waitpid(pid, &mut status, 0) } < 0 && errno() == super::EINTR {}
    let code = match status & 0x7f {
        0 => (status >> 8) & 0xff,
        signal => 128 + signal,
    };
    let mut reports = open_append(&spec.reports).map_err(|e| ("open the reports", os_error(&e)))?;
    let line = format!("{{\"event\":\"left\",\"exit\":{code}}}\n");
    reports.write_all(line.as_bytes()).map_err(|e| ("write the last report", os_error(&e)))
}

/// One more line of the reports; where it cannot be written its reader waits until PID 1 is gone.
fn note(reports: &Path, line: &str) {
    open_append(reports).and_then(|mut file| file.write_all(line.as_bytes())).ok();
}

/// The namespace of another process of this user's.
fn join(holder: u32, name: &str, kind: c_int) -> io::Result<()> {
    let space = File::open(format!("/proc/{holder}/ns/{name}"))?;
    // SAFETY: the descriptor is open.
    done(unsafe { setns(space.as_raw_fd(), kind) })
}

/// Into new namespaces.
pub(crate) fn leave(kinds: c_int) -> io::Result<()> {
    // SAFETY: plain numbers.
    done(unsafe { unshare(kinds) })
}

/// The worker reads until this end is closed.
fn close_answers() {
    if let Ok(null) = File::open("/dev/null") {
        // SAFETY: both are open.
        unsafe { dup2(null.as_raw_fd(), 1) };
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).custom_flags(O_NOFOLLOW | O_CLOEXEC).open(path)
}

/// Counts what is done, so that a test can have each step fail.
struct Steps {
    done: usize,
    fault: usize,
}

impl Steps {
    fn take(&mut self, name: &'static str, step: impl FnOnce() -> io::Result<()>) -> Result<(), Failure> {
        self.done += 1;
        if self.done == self.fault {
            return Err((name, EIO));
        }
        step().map_err(|e| (name, os_error(&e)))
    }
}

/// In the child. Returns only where something failed.
fn become_pid_1(spec: &Spec, steps: &mut Steps, pipe: RawFd) -> Failure {
    match build(spec, steps, pipe) {
        Err(failure) => failure,
        Ok(()) => ("exec PID 1", EIO),
    }
}

fn build(spec: &Spec, steps: &mut Steps, pipe: RawFd) -> Result<(), Failure> {
    let reports = open_append(&spec.reports).map_err(|e| ("open the reports", os_error(&e)))?;
    // SAFETY: plain numbers.
    unsafe {
        setsid();
        umask(0o022);
    }
    steps.take("join the cgroups", || spec.cgroups.iter().try_for_each(|path| fs::write(path, "0")))?;
    steps.take("set the oom score", || fs::write("/proc/self/oom_score_adj", spec.oom_score.to_string()))?;
    let spaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP;
    // SAFETY: plain numbers.
    steps.take("make the namespaces", || done(unsafe { unshare(spaces) }))?;
    // What the host unmounts in the meantime goes here too; nothing comes back.
    steps.take("cut the mounts off", || change(Path::new("/"), MS_SLAVE | MS_REC))?;
    steps.take("make the root", || root(spec))?;
    for bind in &spec.binds {
        steps.take("bind a folder", || bind_in(spec, bind))?;
    }
    steps.take("make /dev", || devices(spec))?;
    steps.take("make /dev/shm", || shared_memory(spec))?;
    steps.take("make /proc", || processes(spec))?;
    steps.take("make /sys", || system(spec))?;
    steps.take("change the root", || enter(&spec.place))?;
    steps.take("name the host", || host_name(&spec.host_name))?;
    steps.take("bring up the loopback", loopback)?;
    // The worker's keys are its own.
    // SAFETY: no name is given; a kernel without keys has none to give away.
    unsafe { syscall(SYS_KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<c_char>()) };
    steps.take("limit open files", || limit(RLIMIT_NOFILE, spec.open_files))?;
    steps.take("limit core dumps", || limit(RLIMIT_CORE, 0))?;
    steps.take("place the descriptors", || descriptors(&reports, pipe))?;
    steps.take("drop the privileges", privileges)?;
    steps.take("filter the system calls", || filter(&spec.filter))?;
    steps.take("exec PID 1", || exec(spec))
}

fn root(spec: &Spec) -> io::Result<()> {
    let place = &spec.place;
    mount_at("sandbox", place, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,nr_inodes=512,mode=755")?;
    let points = place.join("points");
    fs::create_dir(&points)?;
    for folder in ["dev", "proc", "sys", "etc"] {
        fs::create_dir(points.join(folder))?;
    }
    // What every image must have, and says nothing of the host.
    let name = &spec.host_name;
    fs::write(points.join("etc/hosts"), format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {name}\n"))?;
    fs::write(points.join("etc/hostname"), format!("{name}\n"))?;
    fs::write(points.join("etc/resolv.conf"), "")?;
    for bind in &spec.binds {
        let point = below(&points, &bind.target);
        if bind.folder {
            fs::create_dir_all(&point)?;
            continue;
        }
        point.parent().map_or(Ok(()), fs::create_dir_all)?;
        File::create(&point)?;
    }
    // Two lower layers and no upper one: nothing can be written. The layers are named by descriptors, because the
    // names are seen inside.
    let (points, image) = (File::open(&points)?, File::open(&spec.image)?);
    let layers = format!("lowerdir=/proc/self/fd/{}:/proc/self/fd/{}", points.as_raw_fd(), image.as_raw_fd());
    mount_at("sandbox", place, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, &layers)
}

fn bind_in(spec: &Spec, bind: &Bind) -> io::Result<()> {
    let target = below(&spec.place, &bind.target);
    bind_to(&bind.source, &target)?;
    let writing = if bind.read_only { MS_RDONLY } else { 0 };
    change(&target, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_NOATIME | writing)
}

fn devices(spec: &Spec) -> io::Result<()> {
    let dev = spec.place.join("dev");
    mount_at("sandbox", &dev, "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k,nr_inodes=128,mode=755")?;
    for name in DEVICES.into_iter().chain(spec.devices.iter().map(String::as_str)) {
        let target = dev.join(name);
        target.parent().map_or(Ok(()), fs::create_dir_all)?;
        File::create(&target)?;
        bind_to(&Path::new("/dev").join(name), &target)?;
        change(&target, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NOEXEC)?;
    }
    for (name, target) in DEVICE_LINKS {
        symlink(target, dev.join(name))?;
    }
    fs::create_dir(dev.join("shm"))?;
    change(&dev, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC)
}

fn shared_memory(spec: &Spec) -> io::Result<()> {
    let (bytes, inodes) = spec.shm;
    let options = format!("size={bytes},nr_inodes={inodes},mode=1777");
    mount_at("shm", &spec.place.join("dev/shm"), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, &options)
}

fn processes(spec: &Spec) -> io::Result<()> {
    mount_at("proc", &spec.place.join("proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "")?;
    MASKED.iter().try_for_each(|path| mask(spec, path))?;
    for path in READ_ONLY {
        let target = below(&spec.place, Path::new(path));
        if target.exists() {
            bind_to(&target, &target)?;
            change(&target, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)?;
        }
    }
    Ok(())
}

fn mask(spec: &Spec, path: &str) -> io::Result<()> {
    let target = below(&spec.place, Path::new(path));
    match fs::symlink_metadata(&target) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(what) if what.is_dir() => {
            let flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
            mount_at("sandbox", &target, "tmpfs", flags, "size=0,nr_inodes=2")
        }
        Ok(_) => bind_to(&spec.place.join("dev/null"), &target),
    }
}

fn system(spec: &Spec) -> io::Result<()> {
    let sys = spec.place.join("sys");
    let closed = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if spec.whole_sys {
        mount_at("sysfs", &sys, "sysfs", closed, "")?;
        return MASKED_SYS.iter().try_for_each(|path| mask(spec, path));
    }
    mount_at("sandbox", &sys, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=64k,nr_inodes=32,mode=755")?;
    for path in SYS_FOLDERS {
        let (source, target) = (Path::new(path), below(&spec.place, Path::new(path)));
        if source.is_dir() {
            fs::create_dir_all(&target)?;
            bind_to(source, &target)?;
            change(&target, MS_REMOUNT | MS_BIND | closed)?;
        }
    }
    change(&sys, MS_REMOUNT | MS_BIND | closed)
}

fn enter(place: &Path) -> io::Result<()> {
    std::env::set_current_dir(place)?;
    let here = c".".as_ptr();
    // The old root comes to lie on the new one, and is taken away from there.
    // SAFETY: strings that live on.
    done(unsafe { pivot_root(here, here) })?;
    done(unsafe { umount2(here, MNT_DETACH) })?;
    std::env::set_current_dir("/")?;
    change(Path::new("/"), MS_PRIVATE | MS_REC)
}

fn host_name(name: &str) -> io::Result<()> {
    // SAFETY: as many bytes as are said.
    done(unsafe { sethostname(name.as_ptr().cast(), name.len()) })?;
    done(unsafe { setdomainname(name.as_ptr().cast(), 0) })
}

fn loopback() -> io::Result<()> {
    // SAFETY: the descriptor is owned below; the request is 40 bytes as the kernel's.
    let descriptor = unsafe { socket(AF_INET, SOCK_DGRAM | O_CLOEXEC, 0) };
    done(descriptor)?;
    let socket = unsafe { File::from_raw_fd(descriptor) };
    let mut request = InterfaceRequest { name: [0; 16], flags: 0, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    done(unsafe { ioctl(socket.as_raw_fd(), SIOCGIFFLAGS, ptr::from_mut(&mut request)) })?;
    request.flags |= IFF_UP;
    done(unsafe { ioctl(socket.as_raw_fd(), SIOCSIFFLAGS, ptr::from_mut(&mut request)) })
}

fn limit(resource: c_int, value: u64) -> io::Result<()> {
    // SAFETY: two numbers of ours.
    done(unsafe { setrlimit(resource, &[value, value]) })
}

/// Standard input and error are nothing, standard output is the reports; all else is closed.
fn descriptors(reports: &File, pipe: RawFd) -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let (null, reports) = (move_up(null.as_raw_fd()), move_up(reports.as_raw_fd()));
    for (from, to) in [(null, 0), (reports, 1), (null, 2)] {
        // SAFETY: all are open.
        done(unsafe { dup2(from, to) })?;
    }
    let close = |first: c_uint, last: c_uint| -> io::Result<()> {
        // SAFETY: plain numbers. The pipe stays, and closes at exec.
        match unsafe { syscall(SYS_CLOSE_RANGE, first, last, 0 as c_uint) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let pipe = pipe as c_uint;
    close(3, pipe - 1)?;
    close(pipe + 1, c_uint::MAX)
}

fn privileges() -> io::Result<()> {
    // SAFETY: plain numbers and structures of ours, as large as the kernel's.
    unsafe {
        done(setgroups(0, ptr::null()))?;
        // Beyond the last one that the kernel knows it answers with an error.
        for capability in (0..64).filter(|c| CAPABILITIES & 1u32.checked_shl(*c).unwrap_or(0) == 0) {
            if prctl(PR_CAPBSET_DROP, capability as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) != 0 {
                if errno() == EINVAL {
                    break;
                }
                return Err(io::Error::last_os_error());
            }
        }
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong);
        // Effective, permitted, inheritable; twice, for the upper half.
        done(capset(&[CAPABILITY_VERSION, 0], &[CAPABILITIES, CAPABILITIES, 0, 0, 0, 0]))?;
        done(prctl(PR_SET_NO_NEW_PRIVS, 1 as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong))
    }
}

fn filter(bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len() / 8).map_err(|_| io::Error::from_raw_os_error(EINVAL))?;
    let program = FilterProgram { length, instructions: bytes.as_ptr() };
    // SAFETY: as many instructions as are said.
    done(unsafe { prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ptr::from_ref(&program), 0 as c_ulong, 0 as c_ulong) })
}

fn exec(spec: &Spec) -> io::Result<()> {
    let program = c_path(&spec.program)?;
    let list = |first: &[*const c_char], all: &[CString]| -> Vec<*const c_char> {
        first.iter().copied().chain(all.iter().map(|a| a.as_ptr())).chain([ptr::null()]).collect()
    };
    let arguments = list(&[program.as_ptr()], &spec.arguments);
    let environment = list(&[], &spec.environment);
    // SAFETY: strings that live until exec.
    unsafe { execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// A path inside as it lies in the new root.
fn below(place: &Path, target: &Path) -> PathBuf {
    place.join(target.strip_prefix("/").unwrap_or(target))
}

pub(crate) fn bind_to(source: &Path, target: &Path) -> io::Result<()> {
    mount_raw(source.as_os_str(), target, "", MS_BIND, "")
}

pub(crate) fn change(target: &Path, flags: c_ulong) -> io::Result<()> {
    mount_raw(OsStr::new(""), target, "", flags, "")
}

pub(crate) fn mount_at(source: &str, target: &Path, kind: &str, flags: c_ulong, options: &str) -> io::Result<()> {
    mount_raw(OsStr::new(source), target, kind, flags, options)
}

fn mount_raw(source: &OsStr, target: &Path, kind: &str, flags: c_ulong, options: &str) -> io::Result<()> {
    let (source, target) = (CString::new(source.as_bytes())?, c_path(target)?);
    let (kind, options) = (CString::new(kind)?, CString::new(options)?);
    // SAFETY: strings that live on.
    done(unsafe { mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr()) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

pub(crate) fn done(answer: c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const _: () = assert!(size_of::<InterfaceRequest>() == 40 && size_of::<FilterProgram>() == 2 * size_of::<*const c_void>());
