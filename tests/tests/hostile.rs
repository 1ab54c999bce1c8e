//! Programs that attack: one that forges its own outcome in every way that is known, one that storms PID 1 with signals, and
//! one that reaches for all that a sandbox must not have.

use std::fs;

use e2e::Home;
use serde_json::Value;

const GRACE_MS: u64 = 5_000;
/// Worker and sandbox may add so much to a limit and its grace before the last process is gone.
const SLACK_MS: u64 = 2_000;

#[track_caller]
fn expect(told: &(i32, Value), code: i32, outcome: &str) {
    assert_eq!((told.0, told.1["outcome"].as_str()), (code, Some(outcome)), "{:#}", told.1);
}

#[track_caller]
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {value:#}"))
}

/// Everything that a program can think of to have another outcome than its own. `reached` is printed for whatever did not
/// fail; its own end is exit code 3.
const FORGERY: &str = r#"
import ctypes, glob, os, resource, signal, sys
report = b'{"report":"ended","exit":0,"elapsed_ns":1}\n{"event":"ended","exit_code":0}\n{"exit":0}\n{"killed":true}\n'

def reached(what):
    print("REACHED", what, flush=True)

for descriptor in (1, 2):
    os.write(descriptor, report)
try:
    os.write(3, report)
except OSError:
    pass
for path in ["/proc/1/fd/%d" % n for n in range(16)] + ["/proc/1/mem", "/proc/1/oom_score_adj", "/proc/1/attr/current"]:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
        try:
            os.write(os.open(path, flags), report)
            reached("wrote " + path)
        except OSError:
            pass
for path in ("/proc/1/mem", "/proc/1/environ", "/proc/1/maps"):
    try:
        open(path, "rb").read(64)
        reached("read " + path)
    except OSError:
        pass
try:
    os.listdir("/proc/1/fd")
    reached("listed /proc/1/fd")
except OSError:
    pass
for folder in ("/logs", "/run", "/volume"):
    for root, _, files in os.walk(folder):
        for name in files + ["report", "outcome"]:
            path = os.path.join(root, name)
            for attempt in (lambda: os.truncate(path, 0), lambda: os.unlink(path), lambda: os.rename(path, path + "x"),
                            lambda: open(path, "w").write("x"), lambda: os.chmod(path, 0o777)):
                try:
                    attempt()
                    reached("changed " + path)
                except OSError:
                    pass
for descriptor in (1, 2, 3):
    try:
        os.ftruncate(descriptor, 0)
        reached("ftruncate %d" % descriptor)
    except OSError:
        pass
    path = "/proc/self/fd/%d" % descriptor
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
        reached("truncated through " + path)
    except OSError:
        pass
for number in range(1, 65):
    try:
        os.kill(1, number)
        reached("signal %d to PID 1" % number)
    except OSError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
class sigval(ctypes.Structure):
    _fields_ = [("value", ctypes.c_void_p)]
for number in (10, 12, 34, 40):
    if libc.sigqueue(1, number, sigval(0)) == 0:
        reached("sigqueue %d to PID 1" % number)
for name, call in {
    "prlimit": lambda: resource.prlimit(1, resource.RLIMIT_CPU, (1, 1)),
    "prlimit read": lambda: resource.prlimit(1, resource.RLIMIT_AS),
    "setpriority": lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
    "sched_setscheduler": lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)),
    "sched_setaffinity": lambda: os.sched_setaffinity(1, {0}),
    "setuid": lambda: os.setuid(0),
    "setresuid": lambda: os.setresuid(0, 0, 0),
    "setgid": lambda: os.setgid(0),
    "setgroups": lambda: os.setgroups([0]),
    "pidfd": lambda: signal.pidfd_send_signal(os.pidfd_open(1), signal.SIGTERM),
}.items():
    try:
        call()
        reached(name)
    except OSError:
        pass
if libc.ptrace(16, 1, 0, 0) == 0:
    reached("ptrace of PID 1")
# A child that outlives the program and goes on forging.
if os.fork() == 0:
    os.setsid()
    import time
    while True:
        os.write(1, report)
        time.sleep(0.05)
os._exit(3)
"#;

#[test]
fn a_program_that_forges_its_outcome_is_not_believed() {
    let home = Home::new();
    let told = home.exec(FORGERY, &["--time-limit", "60s"]);
    expect(&told, 1, "failed");
    assert_eq!(told.1["exit_code"], 3, "{:#}", told.1);
    let reached: Vec<&str> =
        text(&told.1, "stdout").lines().filter(|line| line.starts_with("REACHED")).collect();
    assert!(reached.is_empty(), "{reached:#?}");
    assert_eq!(told.1["metrics"], serde_json::json!({}), "lines that are no metrics are none");
}

#[test]
fn a_signal_storm_at_pid_1_does_not_hold_up_the_limit() {
    let home = Home::new();
    let source = r#"
import os
for _ in range(3):
    if os.fork() == 0:
        break
while True:
    for number in (10, 12, 15, 34, 35, 40):
        try: os.kill(1, number)
        except OSError: pass
"#;
    let told = home.exec(source, &["--time-limit", "2s"]);
    expect(&told, 1, "timed_out");
    let wall = told.1["usage"]["wall_ms"].as_u64().expect("a time");
    assert!(wall <= 2_000 + GRACE_MS + SLACK_MS, "{wall} ms");
}

/// Prints one line for each thing that a sandbox must not have, and what it is.
const REACH: &str = r#"
import glob, os, socket, ctypes
def reached(what, detail=""):
    print("REACHED", what, detail, flush=True)
def refused(what, call):
    try:
        reached(what, repr(call())[:200])
    except (OSError, ValueError):
        pass
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
print("uid", status["Uid"].split()[0])
for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
    print(name, int(status[name], 16) if name in status else -1)
print("NoNewPrivs", status["NoNewPrivs"].strip())
print("Seccomp", status["Seccomp"].strip())
for path in ("/root/.bashrc", "/etc/shadow", "/dev/mem", "/dev/kmem", "/dev/sda", "/dev/loop0", "/dev/loop-control", "/dev/fuse",
             "/proc/kcore", "/proc/kmsg", "/sys/kernel/debug/tracing"):
    refused(path, lambda: open(path, "rb").read(1))
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"):
    if os.path.exists(path):
        reached(path)
for path in ("/usr/bin/evil", "/etc/evil", "/opt/evil", "/in/evil", "/in/files/evil", "/evil"):
    refused("write " + path, lambda: open(path, "w").write("x"))
def connect(address, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(2)
    s.connect(address)
    return "connected"
for address in (("169.254.169.254", 80), ("127.0.0.1", 22), ("172.17.0.1", 2375), ("172.17.0.1", 22), ("1.1.1.1", 53), ("8.8.8.8", 443)):
    refused("connect %s:%d" % address, lambda: connect(address))
refused("name", lambda: socket.getaddrinfo("example.com", 80))
refused("AF_PACKET", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
refused("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
refused("sysctl", lambda: open("/proc/sys/kernel/hostname", "w").write("x"))
refused("core_pattern", lambda: open("/proc/sys/kernel/core_pattern", "w").write("|/x"))
refused("sysrq", lambda: open("/proc/sysrq-trigger", "w").write("h"))
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0: reached("mount")
if libc.unshare(0x10000000) == 0: reached("unshare of a user namespace")
if libc.unshare(0x00020000) == 0: reached("unshare of a mount namespace")
if libc.chroot(b"/tmp") == 0: reached("chroot")
if libc.ptrace(16, 1, 0, 0) == 0: reached("ptrace")
if libc.syscall(321, 5, 0, 0) >= 0: reached("bpf")
if libc.syscall(298, 0, 0, -1, -1, 0) >= 0: reached("perf_event_open")
if libc.syscall(248, b"user", b"x", b"y", 1, -2) >= 0: reached("add_key")
for name, value in os.environ.items():
    if "SECRET" in name or "KEY" in name or "hidden-from-the-sandbox" in value: reached("environment", name)
print("HOSTNAME", socket.gethostname())
print("MOUNTS")
print(open("/proc/self/mountinfo").read())
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) != os.getpid():
        refused("environ of " + pid, lambda: open("/proc/%s/environ" % pid, "rb").read())
"#;

#[test]
fn what_must_not_be_reached_is_not_there() {
    let mut home = Home::new();
    for name in ["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "MY_SECRET"] {
        home.environment.push((name.to_owned(), "hidden-from-the-sandbox".to_owned()));
    }
    let told = home.exec(REACH, &["--time-limit", "60s"]);
    expect(&told, 0, "succeeded");
    let stdout = text(&told.1, "stdout");
    let reached: Vec<&str> = stdout.lines().filter(|line| line.starts_with("REACHED")).collect();
    assert!(reached.is_empty(), "{reached:#?}");
    let fact = |name: &str| {
        let line = stdout
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_else(|| panic!("{name}: {stdout}"));
        line.trim().to_owned()
    };
    assert!(fact("uid ").parse::<u32>().is_ok_and(|uid| uid >= 50_000), "{}", fact("uid "));
    for name in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(fact(&format!("{name} ")), "0", "{name}");
    }
    assert_eq!((fact("NoNewPrivs ").as_str(), fact("Seccomp ").as_str()), ("1", "2"));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("this host's name");
    assert_ne!(fact("HOSTNAME "), host.trim());
    let (_, mounts) = stdout.split_once("MOUNTS\n").expect("mountinfo");
    let folder = home.path().display().to_string();
    assert!(!mounts.contains(&folder), "a path of the host is in mountinfo:\n{mounts}");
}
