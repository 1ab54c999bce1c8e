//! PID 1 of every sandbox: one static program, no threads, nothing but the standard library, so that it can be
//! read in one sitting. It is the only thing in the sandbox that the worker believes.
//!
//! It holds two gates. Before the start gate nothing runs; `start` opens it, and the program becomes a child with
//! another uid, no capability and the log files as its descriptors 1, 2 and 3. After the program's end it kills
//! whatever is left and waits at the end gate, so that the cgroup is still there for the worker's last reading.
//!
//! It takes orders only from outside: a signal that a process of this pid namespace sends carries its sender's
//! pid, one from outside carries 0. It reports on its standard output, one JSON object a line, which is the
//! container's log and which the program cannot reach: it has another uid, and this process is not dumpable.
//!
//! Under its first argument `volume` it is the part of the worker that needs root (`volume.rs`), under `launch` the
//! launcher of a sandbox (`launch.rs`, `pump.rs`), under `hold` what holds a plain user's volume (`hold.rs`), under `probe` the program of a self-test (`probe.rs`).
//!
//! The words of both files (`init`, the reports) and the numbers of the orders are `sandbox/init.rs` and
//! `sandbox/report.rs` of the worker; change them together.

mod hold;
mod launch;
mod probe;
mod pump;
mod volume;

use std::{
    ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_ulong, c_void},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    process, ptr,
    time::{Duration, Instant},
};

// What libc's headers say for Linux on every architecture that the worker is built for (64 bit, little endian).
const SIGKILL: c_int = 9;
const SIGPIPE: c_int = 13;
const SIGCHLD: c_int = 17;
const SI_USER: c_int = 0;
const SIG_SETMASK: c_int = 2;
const SIG_DFL: usize = 0;
const WNOHANG: c_int = 1;
const STOPPED: c_int = 0x7f; // the low byte of a status that is no end
const PR_SET_DUMPABLE: c_int = 4;
const O_APPEND: c_int = 0o2000;
const O_NOFOLLOW: c_int = 0o400_000;
const O_CLOEXEC: c_int = 0o2_000_000;
const EINTR: i32 = 4;

// Orders. All below SIGRTMIN: when the queue of real-time signals is full, their sender is lost.
const ORDER_START: c_int = 10; // SIGUSR1
const ORDER_KILL: c_int = 12; // SIGUSR2
const ORDER_TERMINATE: c_int = 15; // SIGTERM
const ORDER_END: c_int = 2; // SIGINT

/// Written by the worker before the start gate; root may read it, the program's uid may not.
const SETTINGS: &str = "/in/init";
const SHARED_MEMORY: &CStr = c"/dev/shm";
const LOGS: [&str; 3] = ["/logs/stdout", "/logs/stderr", "/logs/metrics"];
/// How long the start gate stays shut for a sandbox that nobody wants any more.
const GATE_SECONDS: u64 = 600;
/// How long the end gate stays shut for a worker that is away.
const END_GATE: Duration = Duration::from_secs(24 * 3600);
/// The worker's own clock comes first; this one is for a worker that is dead.
const BACKSTOP: Duration = Duration::from_secs(10);
/// The kernel's first choice, so that it never picks this process (which has the container's, 500).
const CHILD_OOM_SCORE: &str = "1000";
/// Exit codes of PID 1 itself: 0 after the end gate, these otherwise.
const EXIT_UNWANTED: i32 = 71;
const EXIT_CANNOT_START: i32 = 72;
const EXIT_NOT_PID_1: i32 = 73;

#[repr(C)]
struct SignalSet([c_ulong; 16]);

/// The head of `siginfo_t`; for a signal of kill(2) the union begins with the sender.
#[repr(C, align(8))]
struct SignalInfo {
    number: c_int,
    errno: c_int,
    code: c_int,
    padding: c_int,
    sender: c_int,
    uid: c_uint,
    rest: [u8; 104],
}

#[repr(C)]
struct TimeSpec {
    seconds: c_long,
    nanoseconds: c_long,
}

/// `struct statvfs`: block size, fragment size, blocks, free blocks, available blocks, inodes, free inodes, …
#[repr(C)]
struct FileSystem([u64; 16]);

unsafe extern "C" {
    fn statvfs(path: *const c_char, answer: *mut FileSystem) -> c_int;
    fn sigfillset(set: *mut SignalSet) -> c_int;
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, signal: c_int) -> c_int;
    fn sigprocmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn sigtimedwait(set: *const SignalSet, info: *mut SignalInfo, timeout: *const TimeSpec) -> c_int;
    fn signal(signal: c_int, handler: usize) -> usize;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn fork() -> c_int;
    fn setsid() -> c_int;
    fn setgroups(size: usize, list: *const c_uint) -> c_int;
    fn setresgid(real: c_uint, effective: c_uint, saved: c_uint) -> c_int;
    fn setresuid(real: c_uint, effective: c_uint, saved: c_uint) -> c_int;
    fn prctl(option: c_int, ...) -> c_int;
    fn pipe2(ends: *mut c_int, flags: c_int) -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn close(descriptor: c_int) -> c_int;
    fn execv(path: *const c_char, arguments: *const *const c_char) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn umask(mask: c_uint) -> c_uint;
    fn _exit(code: c_int) -> !;
}

fn main() {
    let word = std::env::args_os().nth(1).unwrap_or_default();
    match word.to_str() {
        Some("volume") => volume::main(std::env::args_os().skip(2)),
        Some("hold") => hold::main(std::env::args_os().skip(2)),
        Some("launch") => launch::main(),
        Some("probe") => probe::main(),
        _ => {}
    }
    let gate = word.to_str().and_then(|text| text.parse().ok()).unwrap_or(GATE_SECONDS);
    // SAFETY: plain numbers; nobody may open this process's memory or descriptors.
    unsafe { prctl(PR_SET_DUMPABLE, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) };
    if process::id() != 1 {
        report("\"event\":\"failed\",\"step\":\"be PID 1\",\"errno\":0");
        process::exit(EXIT_NOT_PID_1);
    }
    // SAFETY: plain numbers. What PID 1 makes is nobody else's business; the program sets its own.
    unsafe { umask(0o077) };
    let all = SignalSet::full();
    all.block();
    let mut init =
        Init { state: State::Gate { until: Instant::now() + Duration::from_secs(gate) }, said_killed: false };
    report("\"event\":\"ready\"");
    loop {
        let left = init.deadline().saturating_duration_since(Instant::now());
        match all.wait(left) {
            Some(info) if info.number == SIGCHLD => init.reap_all(),
            Some(info) if info.code == SI_USER && info.sender == 0 => init.obey(info.number),
            Some(_) => {} // from inside, or from the kernel: no order
            None => init.deadline_passed(),
        }
    }
}

enum State {
    /// Before the start gate.
    Gate { until: Instant },
    /// The program runs.
    Running { pid: c_int, since: Instant, backstop: Instant },
    /// Behind the end gate.
    Ended { until: Instant },
}

struct Init {
    state: State,
    said_killed: bool,
}

impl Init {
    fn deadline(&self) -> Instant {
        let limit = match self.state {
            State::Gate { until } | State::Ended { until } => until,
            State::Running { backstop, .. } => backstop,
        };
        // sigtimedwait measures a clock that may be coarser than ours: never sleep for less than a while.
        limit.max(Instant::now() + Duration::from_millis(1))
    }

    fn obey(&mut self, order: c_int) {
        match (order, &self.state) {
            (ORDER_START, State::Gate { .. }) => self.start(),
            (ORDER_TERMINATE, State::Running { pid, .. }) => {
                // SAFETY: the program was not reaped yet, so the number is still its own. It may have left its group.
                unsafe {
                    if kill(-pid, ORDER_TERMINATE) != 0 {
                        kill(*pid, ORDER_TERMINATE);
                    }
                }
                report("\"event\":\"terminating\"");
            }
            (ORDER_KILL, _) => self.kill_all(),
            (ORDER_END, _) => {
                self.kill_all();
                process::exit(0);
            }
            _ => {} // repeated, or too late
        }
    }

    fn deadline_passed(&mut self) {
        match self.state {
            State::Gate { until } | State::Ended { until } if Instant::now() >= until => {
                report("\"event\":\"unwanted\"");
                process::exit(EXIT_UNWANTED);
            }
            State::Running { backstop, .. } if Instant::now() >= backstop => {
                report("\"event\":\"backstop\"");
                self.kill_all();
            }
            _ => {}
        }
    }

    fn start(&mut self) {
        let started = Settings::read().and_then(|settings| {
            let pid = settings.spawn()?;
            Ok((pid, settings.limit + settings.grace + BACKSTOP))
        });
        match started {
            Ok((pid, limit)) => {
                let since = Instant::now();
                let backstop = since.checked_add(limit).unwrap_or(since + END_GATE);
                self.state = State::Running { pid, since, backstop };
                report("\"event\":\"started\"");
            }
            Err((step, errno)) => {
                report(&format!("\"event\":\"failed\",\"step\":\"{step}\",\"errno\":{errno}"));
                process::exit(EXIT_CANNOT_START);
            }
        }
    }

    /// Takes every child that has ended; false where there is none left at all.
    fn reap(&mut self) -> bool {
        loop {
            let mut status: c_int = 0;
            // SAFETY: the status is ours.
            match unsafe { waitpid(-1, &mut status, WNOHANG) } {
                0 => return true,
                child if child > 0 => self.child_ended(child, status),
                _ if errno() == EINTR => {}
                _ => return false,
            }
        }
    }

    fn reap_all(&mut self) {
        self.reap();
        if matches!(self.state, State::Ended { .. }) {
            self.kill_all();
        }
    }

    fn child_ended(&mut self, child: c_int, status: c_int) {
        let State::Running { pid, since, .. } = self.state else { return };
        if child != pid || status & 0xff == STOPPED {
            return; // an orphan that PID 1 inherited, or a program that asked to be traced: it has not ended
        }
        let elapsed = since.elapsed().as_millis();
        // wait(2): the low seven bits are the signal, 0 for an exit whose code is the second byte.
        let how = match status & 0x7f {
            0 => format!("\"exit\":{}", (status >> 8) & 0xff),
            signal => format!("\"signal\":{signal}"),
        };
        // It is gone with what is left of the program, and a worker that is not root cannot look at it.
        if shared_memory_is_full() {
            report("\"event\":\"shm_full\"");
        }
        report(&format!("\"event\":\"ended\",{how},\"elapsed_ms\":{elapsed}"));
        self.state = State::Ended { until: Instant::now() + END_GATE };
    }

    /// Everything but this process, until the kernel says that it has no child left: an orphan of any session
    /// becomes its child, and a process that is being killed cannot fork.
    fn kill_all(&mut self) {
        let child_signal = SignalSet::only(SIGCHLD);
        loop {
            // SAFETY: -1 is every process of this pid namespace but PID 1 itself.
            unsafe { kill(-1, SIGKILL) };
            if !self.reap() {
                break;
            }
            child_signal.wait(Duration::from_millis(5));
        }
        if let State::Gate { .. } = self.state {
            self.state = State::Ended { until: Instant::now() + END_GATE }; // a start that comes later is too late
        }
        if !self.said_killed {
            self.said_killed = true;
            report("\"event\":\"killed\"");
        }
    }
}

/// What failed, and its errno.
type Failure = (&'static str, i32);

struct Settings {
    uid: c_uint,
    limit: Duration,
    grace: Duration,
    folder: CString,
    arguments: Vec<CString>,
}

impl Settings {
    fn read() -> Result<Self, Failure> {
        let text = fs::read_to_string(SETTINGS).map_err(|e| ("read the settings", os_error(&e)))?;
        Self::parse(&text).ok_or(("understand the settings", 0))
    }

    /// One `key value` a line; `argument` as often as there are arguments.
    fn parse(text: &str) -> Option<Self> {
        let (mut uid, mut limit, mut grace, mut folder, mut arguments) = (None, None, None, None, Vec::new());
        for line in text.lines() {
            let (key, value) = line.split_once(' ')?;
            match key {
                "uid" => uid = Some(value.parse().ok()?),
                "limit_ms" => limit = Some(Duration::from_millis(value.parse().ok()?)),
                "grace_ms" => grace = Some(Duration::from_millis(value.parse().ok()?)),
                "folder" => folder = Some(CString::new(value).ok()?),
                "argument" => arguments.push(CString::new(value).ok()?),
                _ => return None,
            }
        }
        let settings = Self { uid: uid?, limit: limit?, grace: grace?, folder: folder?, arguments };
        // The program is never root, whatever the file says.
        (settings.uid >= 1000 && !settings.arguments.is_empty()).then_some(settings)
    }

    /// Starts the program and returns when it was exec'ed: a pipe that exec closes carries the failure.
    fn spawn(&self) -> Result<c_int, Failure> {
        let null = File::open("/dev/null").map_err(|e| ("open /dev/null", os_error(&e)))?;
        let mut logs = Vec::new();
        for path in LOGS {
            let log = OpenOptions::new().append(true).custom_flags(O_APPEND | O_NOFOLLOW).open(path);
            logs.push(log.map_err(|e| ("open the logs", os_error(&e)))?);
        }
        let mut ends: [c_int; 2] = [0; 2];
        // SAFETY: two descriptors, owned below.
        if unsafe { pipe2(ends.as_mut_ptr(), O_CLOEXEC) } != 0 {
            return Err(("make a pipe", errno()));
        }
        // SAFETY: as above.
        let (mut read, write) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
        // SAFETY: there is one thread, so the child may do whatever the parent may.
        match unsafe { fork() } {
            -1 => Err(("fork", errno())),
            0 => {
                // The program takes the numbers 0 to 3, so the pipe is moved out of the way first.
                let pipe = move_up(write.as_raw_fd());
                let (step, errno) = self.become_program(&null, &logs, pipe);
                let mut word = errno.to_le_bytes().to_vec();
                word.push(STEPS.iter().position(|s| *s == step).unwrap_or_default() as u8);
                // SAFETY: the copy that was left open. Where the write fails, the exit code is all there is.
                unsafe { File::from_raw_fd(pipe) }.write_all(&word).ok();
                // SAFETY: the child's end.
                unsafe { _exit(127) }
            }
            pid => {
                drop(write);
                let mut word = Vec::new();
                read.read_to_end(&mut word).map_err(|e| ("read the pipe", os_error(&e)))?;
                match word.as_slice() {
                    [] => Ok(pid),
                    [a, b, c, d, step] => Err((
                        STEPS.get(usize::from(*step)).copied().unwrap_or("start the program"),
                        i32::from_le_bytes([*a, *b, *c, *d]),
                    )),
                    _ => Err(("start the program", 0)),
                }
            }
        }
    }

    /// In the child. Returns only where something failed.
    fn become_program(&self, null: &File, logs: &[File], pipe: RawFd) -> Failure {
        let wanted = [null.as_raw_fd(), logs[0].as_raw_fd(), logs[1].as_raw_fd(), logs[2].as_raw_fd()];
        let wanted = wanted.map(move_up);
        let mut arguments: Vec<*const c_char> = self.arguments.iter().map(|a| a.as_ptr()).collect();
        arguments.push(ptr::null());
        // SAFETY: plain numbers, and strings that live until exec.
        unsafe {
            if setsid() < 0 {
                return (STEPS[1], errno());
            }
            for (number, from) in wanted.iter().enumerate() {
                if dup2(*from, number as c_int) < 0 {
                    return (STEPS[2], errno());
                }
            }
            // Everything of ours closes at exec; what the engine may have left open does not.
            for descriptor in 4..256 {
                if descriptor != pipe {
                    close(descriptor);
                }
            }
            if setgroups(0, ptr::null()) != 0 || setresgid(self.uid, self.uid, self.uid) != 0 {
                return (STEPS[3], errno());
            }
            if setresuid(self.uid, self.uid, self.uid) != 0 {
                return (STEPS[3], errno());
            }
            // Without this the files in /proc/self still belong to root.
            prctl(PR_SET_DUMPABLE, 1 as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong);
            if let Err(e) = fs::write("/proc/self/oom_score_adj", CHILD_OOM_SCORE) {
                return (STEPS[4], os_error(&e));
            }
            umask(0o022);
            if let Err(e) = std::env::set_current_dir(self.folder.to_str().unwrap_or("/")) {
                return (STEPS[5], os_error(&e));
            }
            signal(SIGPIPE, SIG_DFL); // Rust's runtime ignores it, and that is inherited, as the mask is
            SignalSet::empty().block();
            execv(arguments[0], arguments.as_ptr());
            (STEPS[6], errno())
        }
    }
}

/// What the child can fail at, so that the parent can name it.
const STEPS: [&str; 7] = [
    "start the program",
    "make a session",
    "place the descriptors",
    "change the uid",
    "raise the oom score",
    "enter the folder",
    "exec the program",
];

/// A copy of a descriptor beyond those that the program gets; it closes at exec.
fn move_up(descriptor: RawFd) -> RawFd {
    const F_DUPFD_CLOEXEC: c_int = 1030;
    unsafe extern "C" {
        fn fcntl(descriptor: c_int, command: c_int, ...) -> c_int;
    }
    // SAFETY: plain numbers. On an error the old number is used, and dup2 reports it.
    match unsafe { fcntl(descriptor, F_DUPFD_CLOEXEC, 16 as c_int) } {
        -1 => descriptor,
        copy => copy,
    }
}

impl SignalSet {
    fn full() -> Self {
        let mut set = Self([0; 16]);
        // SAFETY: the set is ours and as large as libc's.
        unsafe { sigfillset(&mut set) };
        set
    }

    fn empty() -> Self {
        let mut set = Self([0; 16]);
        // SAFETY: as above.
        unsafe { sigemptyset(&mut set) };
        set
    }

    fn only(number: c_int) -> Self {
        let mut set = Self::empty();
        // SAFETY: as above.
        unsafe { sigaddset(&mut set, number) };
        set
    }

    /// Makes it the process's mask.
    fn block(&self) {
        // SAFETY: as above; the old mask is not asked for.
        unsafe { sigprocmask(SIG_SETMASK, self, ptr::null_mut()) };
    }

    /// The next signal of the set, or nothing after `limit`.
    fn wait(&self, limit: Duration) -> Option<SignalInfo> {
        let limit = limit.min(Duration::from_secs(3600)); // the caller looks at its deadline again
        let time = TimeSpec {
            seconds: limit.as_secs() as c_long,
            nanoseconds: c_long::from(limit.subsec_nanos() as i32),
        };
        let mut info =
            SignalInfo { number: 0, errno: 0, code: 0, padding: 0, sender: 0, uid: 0, rest: [0; 104] };
        // SAFETY: the set and the time are ours, and the information is 128 bytes as libc's.
        (unsafe { sigtimedwait(self, &mut info, &time) } > 0).then_some(info)
    }
}

/// One line, in one write. A report that cannot be written has no reader.
fn report(fields: &str) {
    let line = format!("{{{fields}}}\n");
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).ok();
}

/// Without a free block or inode; false where there is none at all.
fn shared_memory_is_full() -> bool {
    let mut answer = FileSystem([0; 16]);
    // SAFETY: a string, and room for more than the structure has.
    let answered = unsafe { statvfs(SHARED_MEMORY.as_ptr(), &mut answer) } == 0;
    let [_, _, blocks, free_blocks, _, _, free_inodes, ..] = answer.0;
    answered && blocks > 0 && (free_blocks == 0 || free_inodes == 0)
}

fn errno() -> i32 {
    os_error(&io::Error::last_os_error())
}

fn os_error(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_default()
}

const _: () = assert!(
    size_of::<SignalInfo>() == 128 && size_of::<SignalSet>() == 128 && size_of::<*const c_void>() == 8
);
