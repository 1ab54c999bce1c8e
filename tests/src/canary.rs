//! Things of this host that no program in a sandbox may reach, touch or change, and the proof that none did: a secret file, a
//! server on the loopback, an abstract socket, a process of the programs' own uid, a System V segment, the clock, and the
//! kernel's settings. Programs are told where they are (`ar.params`), so that they try the real thing.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            net::{SocketAddr, UnixListener, UnixStream},
            process::CommandExt as _,
        },
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// The uid of the first slot's program.
const PROGRAM_UID: u32 = 50_000;
/// The wall clock may be put right by the host meanwhile, by no more than this.
const CLOCK_SLACK: Duration = Duration::from_secs(30);
/// Settings of the kernel that programs try to change.
const SETTINGS: [&str; 4] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/overcommit_memory",
];

static SHARED: Mutex<Weak<Canaries>> = Mutex::new(Weak::new());

/// What a program may not reach.
#[derive(Debug)]
pub struct Canaries {
    folder: tempfile::TempDir,
    secret: String,
    port: u16,
    abstract_name: String,
    visits: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    process: Child,
    settings: Vec<(&'static str, String)>,
    boot_to_wall: i128,
}

impl Canaries {
    /// One set for all programs that run at a time.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let made = Arc::new(Self::set_out());
            *shared = Arc::downgrade(&made);
            made
        })
    }

    fn set_out() -> Self {
        let folder = tempfile::Builder::new().prefix("ar-canary-").tempdir().expect("a temporary folder");
        let secret = format!("canary-{}", kit::id::new_uuid().simple());
        fs::write(folder.path().join("secret"), &secret).expect("the canary's file");
        open_to_all(&folder.path().join("secret"));
        open_to_all(folder.path());
        let (visits, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a loopback server");
        let port = tcp.local_addr().expect("its address").port();
        count(Arc::clone(&visits), Arc::clone(&over), move || tcp.accept().is_ok());
        let abstract_name = format!("ar-canary-{}", kit::id::new_uuid().simple());
        let unix = UnixListener::bind_addr(&abstract_address(&abstract_name)).expect("an abstract socket");
        count(Arc::clone(&visits), Arc::clone(&over), move || unix.accept().is_ok());
        // It waits for the end of a pipe that this process holds, so that it never outlives the tests.
        let mut waiting = Command::new("cat");
        waiting.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Of the programs' own uid where these tests may choose it: then only the namespaces are between them.
        if nix::unistd::geteuid().is_root() {
            waiting.uid(PROGRAM_UID).gid(PROGRAM_UID);
        }
        let process = waiting.spawn().expect("a process to be left alone");
        let settings = SETTINGS.map(|path| (path, fs::read_to_string(path).unwrap_or_default())).to_vec();
        let boot_to_wall = boot_to_wall();
        Self { folder, secret, port, abstract_name, visits, over, process, settings, boot_to_wall }
    }

    /// Where they are, for `ar.params`.
    #[must_use]
    pub fn told(&self) -> Value {
        json!({
            "file": self.file(),
            "tcp_port": self.port,
            "abstract": self.abstract_name,
            "pid": self.process.id(),
        })
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// What the secret file says: whoever prints it has read it.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// One line for each canary that was touched.
    #[must_use]
    pub fn touched(&self) -> Vec<String> {
        let mut touched = Vec::new();
        let names: Vec<_> = fs::read_dir(self.folder.path()).into_iter().flatten().flatten().collect();
        if names.len() != 1 || fs::read_to_string(self.file()).ok().as_deref() != Some(&self.secret) {
            touched.push("the canary's file was changed".to_owned());
        }
        if self.visits.load(Ordering::Relaxed) > 0 {
            touched.push("the host's loopback or abstract socket had a visitor".to_owned());
        }
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        if !status.contains("State:\tS") {
            touched.push(format!("the canary's process is not asleep any more: {status}"));
        }
        for (path, before) in &self.settings {
            let now = fs::read_to_string(path).unwrap_or_default();
            if now != *before {
                touched.push(format!("{path} was {before:?} and is {now:?}"));
            }
        }
        let moved = (boot_to_wall() - self.boot_to_wall).unsigned_abs();
        if moved > CLOCK_SLACK.as_nanos() {
            touched.push(format!("the wall clock moved by {moved} ns"));
        }
        touched
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        self.over.store(true, Ordering::Relaxed);
        // So that both counters look and end.
        TcpStream::connect(("127.0.0.1", self.port)).ok();
        UnixStream::connect_addr(&abstract_address(&self.abstract_name)).ok();
    }
}

fn abstract_address(name: &str) -> SocketAddr {
    SocketAddr::from_abstract_name(name).expect("a short name")
}

/// Counts visitors on a thread of its own until it is over.
fn count(visits: Arc<AtomicU64>, over: Arc<AtomicBool>, mut accept: impl FnMut() -> bool + Send + 'static) {
    std::thread::spawn(move || {
        while accept() && !over.load(Ordering::Relaxed) {
            visits.fetch_add(1, Ordering::Relaxed);
        }
    });
}

fn open_to_all(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = if path.is_dir() { 0o777 } else { 0o666 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("open to everybody");
}

fn boot_to_wall() -> i128 {
    let nanoseconds = |clock| {
        let time = clock_gettime(clock).expect("a clock");
        i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec())
    };
    nanoseconds(ClockId::CLOCK_REALTIME) - nanoseconds(ClockId::CLOCK_BOOTTIME)
}
