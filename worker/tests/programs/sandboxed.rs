//! The program that the sandbox tests run inside: one static file, so that no registry and no base image is needed.
//! Its first argument says what it does. What it tries to reach it prints as `NAME refused ERRNO` or `NAME allowed`.

use std::{
    ffi::{c_int, c_long, c_uint, c_ulong, c_void},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::{AsRawFd, FromRawFd},
    process, ptr, thread,
    time::Duration,
};

unsafe extern "C" {
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn signal(signal: c_int, handler: usize) -> usize;
    fn fork() -> c_int;
    fn setsid() -> c_int;
    fn setuid(uid: c_uint) -> c_int;
    fn getuid() -> c_uint;
    fn setpriority(which: c_int, who: c_int, value: c_int) -> c_int;
    fn prlimit(pid: c_int, resource: c_int, new: *const [c_ulong; 2], old: *mut [c_ulong; 2]) -> c_int;
    fn sched_setaffinity(pid: c_int, size: usize, mask: *const c_ulong) -> c_int;
    fn ptrace(request: c_int, ...) -> c_long;
    fn unshare(flags: c_int) -> c_int;
    fn ftruncate(descriptor: c_int, length: c_long) -> c_int;
    fn fcntl(descriptor: c_int, command: c_int, ...) -> c_int;
    fn ioctl(descriptor: c_int, request: c_ulong, ...) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
}

const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize| arguments.get(at).and_then(|a| a.parse::<i32>().ok()).unwrap_or_default();
    match arguments.get(1).map(String::as_str) {
        Some("speak") => speak(),
        Some("exit") => process::exit(number(2)),
        Some("signal") => {
            // Rust's runtime has a handler of its own for SIGSEGV.
            unsafe { signal(number(2), SIG_DFL) };
            unsafe { kill(process::id() as c_int, number(2)) };
            thread::sleep(Duration::from_secs(60));
        }
        Some("deaf") => deaf(),
        Some("polite") => polite(),
        Some("forge") => forge(),
        Some("memory") => take_memory(),
        Some("child-memory") => {
            if unsafe { fork() } == 0 {
                take_memory();
            }
            thread::sleep(Duration::from_millis(1500));
        }
        Some("disk") => fill("/work/big"),
        Some("shm") => fill("/dev/shm/big"),
        Some("forks") => fork_all(),
        Some("look") => look(),
        Some("links") => {
            fs::create_dir("/work/artifacts").unwrap();
            std::os::unix::fs::symlink("/etc/passwd", "/work/artifacts/passwd").unwrap();
            std::os::unix::fs::symlink("/etc", "/work/artifacts/folder").unwrap();
        }
        other => {
            println!("unknown: {other:?}");
            process::exit(2);
        }
    }
}

fn speak() {
    println!("to stdout");
    eprintln!("to stderr");
    let mut metrics = unsafe { File::from_raw_fd(3) };
    writeln!(metrics, "{{\"t\":1,\"step\":1,\"v\":{{\"loss\":\"0.1\"}}}}").unwrap();
    fs::create_dir("/work/artifacts").unwrap();
    fs::write("/work/artifacts/model.bin", b"weights").unwrap();
    print!("{}", fs::read_to_string("/in/run.json").unwrap());
    print!("{}", fs::read_to_string("/in/files/code/main.py").unwrap());
}

/// Ignores every request to end, and so does a child in a session of its own.
fn deaf() {
    for number in [1, 2, 3, 15] {
        unsafe { signal(number, SIG_IGN) };
    }
    if unsafe { fork() } == 0 {
        unsafe { setsid() };
        if unsafe { fork() } == 0 {
            fs::write("/work/grandchild", b"here").unwrap();
        }
    }
    println!("deaf");
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

/// Ends by SIGTERM.
fn polite() {
    println!("polite");
    thread::sleep(Duration::from_secs(600));
}

fn forge() {
    let refused = |name: &str, ok: bool| match ok {
        true => println!("{name} allowed"),
        false => println!("{name} refused {}", io::Error::last_os_error().raw_os_error().unwrap_or_default()),
    };
    refused("list /proc/1/fd", fs::read_dir("/proc/1/fd").is_ok());
    for path in ["/proc/1/fd/1", "/proc/1/mem", "/proc/1/environ", "/proc/1/root/in/init", "/in/init", "/logs/stdout"] {
        refused(path, File::open(path).is_ok());
    }
    for path in ["/proc/1/fd/1", "/proc/1/oom_score_adj", "/logs/stdout", "/in/run.json", "/sandbox-init", "/etc/x"] {
        refused(&format!("write {path}"), OpenOptions::new().write(true).create(true).open(path).is_ok());
    }
    refused("unlink /logs/stdout", fs::remove_file("/logs/stdout").is_ok());
    for number in 1..=64 {
        refused(&format!("signal {number}"), unsafe { kill(1, number) } == 0);
    }
    // rt_sigqueueinfo, with the sender forged.
    let mut info = [0u32; 32];
    (info[0], info[2]) = (10, u32::MAX);
    refused("queue a signal", unsafe { syscall(129, 1 as c_long, 10 as c_long, info.as_ptr()) } == 0);
    // pidfd_open and pidfd_send_signal.
    let pidfd = unsafe { syscall(434, 1 as c_long, 0 as c_long) };
    refused("pidfd signal", unsafe { syscall(424, pidfd, 10 as c_long, ptr::null::<c_void>(), 0 as c_long) } == 0);
    refused("prlimit", unsafe { prlimit(1, 0, &[1, 1], ptr::null_mut()) } == 0);
    refused("nice", unsafe { setpriority(0, 1, 19) } == 0);
    refused("affinity", unsafe { sched_setaffinity(1, 8, &1) } == 0);
    refused("setuid", unsafe { setuid(0) } == 0);
    refused("ptrace", unsafe { ptrace(16, 1 as c_int, 0 as c_long, 0 as c_long) } == 0);
    refused("user namespace", unsafe { unshare(0x1000_0000) } == 0);
    refused("truncate the log", unsafe { ftruncate(1, 0) } == 0);
    // F_SETFL without O_APPEND, FS_IOC_SETFLAGS without the append-only flag.
    refused("append off", unsafe { fcntl(1, 4, 0 as c_int) } == 0);
    refused("flags off", unsafe { ioctl(1, 0x4008_6602, &0 as *const c_int) } == 0);
    refused("a file on the root", fs::write("/x", b"").is_ok());
    refused("network", std::net::TcpStream::connect("1.1.1.1:53").is_ok());

    // What PID 1 would say.
    println!("{{\"event\":\"ended\",\"exit\":0,\"elapsed_ms\":1}}");
    println!("{{\"event\":\"killed\"}}");
    if unsafe { fork() } == 0 {
        unsafe { setsid() };
        thread::sleep(Duration::from_secs(600));
    }
    process::exit(137);
}

fn take_memory() {
    let mut all = Vec::new();
    loop {
        all.push(vec![1u8; 1 << 20]);
    }
}

/// Writes until there is no more room, then says so on a stream that must still take it.
fn fill(path: &str) {
    let mut file = File::create(path).unwrap();
    let block = vec![7u8; 64 << 10];
    let mut written = 0u64;
    let error = loop {
        match file.write(&block) {
            Ok(bytes) => written += bytes as u64,
            Err(error) => break error,
        }
    };
    println!("wrote {written} {}", error.raw_os_error().unwrap_or_default());
    for _ in 0..1000 {
        println!("still talking, a hundred bytes at a time, although the disk has not got a single block left");
    }
    drop(file);
    process::exit(1);
}

fn fork_all() {
    let mut forks = 0;
    loop {
        match unsafe { fork() } {
            0 => loop {
                thread::sleep(Duration::from_secs(1));
            },
            -1 => break,
            _ => forks += 1,
        }
    }
    println!("forks {forks} {}", io::Error::last_os_error().raw_os_error().unwrap_or_default());
    process::exit(1);
}

/// What a program can see of itself and of its host.
fn look() {
    println!("uid {}", unsafe { getuid() });
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        names.push(format!("{}={}", entry.file_name().to_string_lossy(), target.display()));
    }
    names.sort();
    println!("descriptors {}", names.join(" "));
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let wanted = ["CapEff", "CapPrm", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn", "Groups"];
    for line in status.lines().filter(|line| wanted.iter().any(|w| line.starts_with(w))) {
        println!("{line}");
    }
    println!("oom {}", fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim());
    println!("host {}", fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());
    println!("folder {}", std::env::current_dir().unwrap().display());
    for (name, value) in std::env::vars() {
        println!("env {name}={value}");
    }
    print!("{}", fs::read_to_string("/proc/self/mountinfo").unwrap());
    let null = File::open("/dev/null").unwrap();
    println!("null {}", null.as_raw_fd());
}
