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
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
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
        Some("count") => {
            for line in 0..number(2) {
                println!("line {line:05}");
                thread::sleep(Duration::from_millis(number(3) as u64));
            }
        }
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
            // However slow the machine is.
            unsafe { waitpid(-1, std::ptr::null_mut(), 0) };
        }
        Some("disk") => fill("/work/big"),
        Some("shm") => fill("/dev/shm/big"),
        Some("forks") => fork_all(),
        Some("look") => look(),
        Some("calls") => calls(),
        Some("foreign") => foreign(arguments.get(2).map(String::as_str).unwrap_or_default()),
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

/// Tries what the table of system calls refuses, by number, so that no library stands between. Each line is `NAME ERRNO`,
/// 0 where it was let through.
#[cfg(target_arch = "x86_64")]
fn calls() {
    let tried = |name: &str, result: c_long| {
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or_default();
        println!("{name} {}", if result < 0 { errno } else { 0 });
    };
    // SAFETY: numbers, or pointers to what lives on; what is let through fails harmlessly.
    let call = |number: c_long, a: [c_long; 5]| unsafe { syscall(number, a[0], a[1], a[2], a[3], a[4]) };
    let one = |name: &str, number: c_long, first: c_long| tried(name, call(number, [first, 0, 0, 0, 0]));
    let parameters = [0u64; 32];
    let pointer = parameters.as_ptr() as c_long;
    tried("io_uring_setup", call(425, [4, pointer, 0, 0, 0]));
    one("io_uring_enter", 426, 0);
    one("io_uring_register", 427, 0);
    tried("clone3", call(435, [pointer, 88, 0, 0, 0]));
    one("userfaultfd", 323, 0);
    one("keyctl", 250, 0);
    one("add_key", 248, pointer);
    one("request_key", 249, pointer);
    tried("bpf", call(321, [0, pointer, 120, 0, 0]));
    tried("perf_event_open", call(298, [pointer, 0, -1, -1, 0]));
    one("unshare", 272, 0x1000_0000);
    one("setns", 308, 0);
    tried("mount", call(165, [pointer, pointer, pointer, 0, 0]));
    one("umount2", 166, pointer);
    one("pivot_root", 155, pointer);
    one("chroot", 161, pointer);
    one("open_tree", 428, 0);
    one("move_mount", 429, 0);
    one("fsopen", 430, pointer);
    one("mount_setattr", 442, 0);
    one("ptrace", 101, 0);
    one("process_vm_readv", 310, 0);
    one("process_vm_writev", 311, 0);
    one("pidfd_getfd", 438, 0);
    one("kcmp", 312, 0);
    one("kexec_load", 246, 0);
    one("open_by_handle_at", 304, 0);
    one("quotactl", 179, 0);
    one("swapon", 167, pointer);
    one("reboot", 169, 0);
    one("settimeofday", 164, 0);
    one("clock_settime", 227, 0);
    one("sethostname", 170, pointer);
    one("init_module", 175, 0);
    one("fanotify_init", 300, 0);
    one("personality", 135, 0x004_0000);
    one("file_setattr", 469, 0);
    one("splice", 275, 0);
    one("not a call", 600, 0);
    for (name, socket) in [
        ("AF_ALG", [38, 5, 0]),
        ("AF_VSOCK", [40, 1, 0]),
        ("AF_PACKET", [17, 3, 0]),
        ("AF_BLUETOOTH", [31, 3, 0]),
        ("raw socket", [2, 3, 255]),
        ("SCTP", [2, 1, 132]),
        ("netfilter", [16, 3, 12]),
        ("AF_UNIX", [1, 5, 0]),
        ("TCP", [2, 1, 0]),
        ("UDP", [10, 2, 17]),
        ("NETLINK_ROUTE", [16, 3, 0]),
    ] {
        tried(name, call(41, [socket[0], socket[1], socket[2], 0, 0]));
    }
    // clone with a new user namespace, and one with a namespace's flag and a bit that the kernel cuts off.
    one("clone a namespace", 56, 0x1000_0011);
    let file = File::create("/work/attributes").unwrap();
    for (name, request) in [
        ("FSSETXATTR", 0x401c_5820),
        ("SETFLAGS", 0x4008_6602),
        ("SETFLAGS of 32 bits", 0x4004_6602),
        ("SETFLAGS with a bit above", 0x1_4008_6602),
        ("TIOCSTI", 0x5412),
        ("TIOCLINUX", 0x541c),
        ("GETFLAGS", 0x8008_6601),
    ] {
        tried(name, call(16, [file.as_raw_fd().into(), request, pointer, 0, 0]));
    }
    thread::spawn(|| println!("a thread runs")).join().unwrap();
    let said = process::Command::new("/sandboxed").arg("exit").arg("9").status().unwrap();
    println!("a child ended with {:?}", said.code());
}

#[cfg(not(target_arch = "x86_64"))]
fn calls() {
    println!("the numbers are those of x86_64");
}

/// Calls by another numbering than the processor's own: getpid, which does no harm where it is let through.
fn foreign(which: &str) {
    println!("before");
    #[cfg(target_arch = "x86_64")]
    match which {
        // SAFETY: no arguments.
        "x32" => println!("x32 {}", unsafe { syscall(0x4000_0000 | 39) }),
        "i386" => {
            let answer: u64;
            // SAFETY: getpid of i386's numbers, no arguments; the old gate spoils r8 to r11.
            unsafe {
                std::arch::asm!("int 0x80", inlateout("rax") 20u64 => answer,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _);
            }
            println!("i386 {answer}");
        }
        _ => {}
    }
    println!("after {which}");
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
