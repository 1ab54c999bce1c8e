//! Two network namespaces with a wire between them: a laptop and a GPU machine on one host. Only the network is another one:
//! files, mounts and the engine are the host's. Everything in them is ended with the test.

use std::{
    ffi::OsStr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use e2e::{Home, Ran, home::binary, wait_for};

/// Of the laptop, in every pair: each pair has a wire of its own.
pub const LAPTOP: &str = "10.99.0.1";
/// Of the GPU machine.
pub const GPU: &str = "10.99.0.2";
/// A command that uses a worker, on a busy machine.
pub const COMMAND: Duration = Duration::from_secs(300);

/// A namespace.
pub struct Space {
    name: String,
}

/// Both, and their homes.
pub struct Pair {
    /// The controller's data.
    pub laptop: Home,
    /// The worker's data.
    pub gpu: Home,
    /// Where the controller runs. After the homes: what is in it is ended last.
    pub here: Space,
    /// Where the worker runs.
    pub there: Space,
}

/// Fails the test loudly where a tool is missing; Debian's package is installed if that can be done.
pub fn require(tool: &str, package: &str) {
    let there = || {
        Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output()
            .is_ok_and(|o| o.status.success())
    };
    // Tests run beside each other, and apt takes one at a time.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if there() {
        return;
    }
    let install = format!("apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends {package}");
    let install = format!("{install} || {{ apt-get update && {install}; }}");
    let done = Command::new("sh").args(["-c", &install]).env("DEBIAN_FRONTEND", "noninteractive").output();
    assert!(there(), "these tests need {tool}, and `{install}` did not help: {done:?}");
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).output().expect("ip (iproute2)");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {}: {said} (these tests need root)", arguments.join(" "));
}

impl Pair {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        require("ip", "iproute2");
        require("nsenter", "util-linux");
        let unique = format!("{:x}-{:x}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let space = |side: &str| {
            let name = format!("ar{side}{unique}");
            ip(&["netns", "add", &name]);
            let space = Space { name };
            ip(&["-n", &space.name, "link", "set", "lo", "up"]);
            space
        };
        let (here, there) = (space("l"), space("g"));
        let wire = ("wire", "wire");
        ip(&[
            "link",
            "add",
            wire.0,
            "netns",
            &here.name,
            "type",
            "veth",
            "peer",
            "name",
            wire.1,
            "netns",
            &there.name,
        ]);
        for (space, address) in [(&here, LAPTOP), (&there, GPU)] {
            ip(&["-n", &space.name, "address", "add", &format!("{address}/24"), "dev", "wire"]);
            ip(&["-n", &space.name, "link", "set", "wire", "up"]);
        }
        Self { laptop: Home::new(), gpu: Home::new(), here, there }
    }

    /// `autoresearch …` on the laptop.
    pub fn autoresearch<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = self.here.command(binary("autoresearch"));
        self.laptop.dress(&mut command);
        command.args(arguments);
        command
    }

    /// The same, to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ran {
        finish(self.autoresearch(arguments))
    }

    /// `autoresearch-worker …` on the GPU machine.
    pub fn worker_command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = self.there.command(binary("autoresearch-worker"));
        self.gpu.dress(&mut command);
        command.args(arguments).env("AUTORESEARCH_WORKER_DATA_DIR", self.worker_folder());
        command
    }

    /// Where the worker's state is: where the end of the test looks for what is left.
    pub fn worker_folder(&self) -> PathBuf {
        self.gpu.data_dir().join("worker")
    }

    /// `autoresearch-worker serve …` on the GPU machine, which listens.
    pub fn serve(&self, arguments: &[&str]) -> Worker {
        std::fs::create_dir_all(self.worker_folder()).expect("the worker's folder");
        let log = self.gpu.path().join("worker.log");
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("a log");
        let mut command = self.worker_command(&["serve", "--log", "info"]);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a log")).stderr(file);
        let child = command.spawn().expect("the worker starts");
        let socket = self.worker_folder().join("worker.sock");
        wait_for("the worker's socket", Duration::from_secs(60), || {
            if socket.exists() { Ok(()) } else { Err(std::fs::read_to_string(&log).unwrap_or_default()) }
        });
        Worker { child, log }
    }

    /// `exec` of a program on the small image, as JSON.
    pub fn exec(&self, source: &str) -> (i32, serde_json::Value) {
        let program = self.laptop.file("program.py", source);
        let ran = self.run(&[
            OsStr::new("exec"),
            program.as_os_str(),
            "--image".as_ref(),
            "lite".as_ref(),
            "--output".as_ref(),
            "json".as_ref(),
        ]);
        (ran.code, ran.json())
    }

    /// The wire is cut, or mended.
    pub fn wire(&self, state: &str) {
        ip(&["-n", &self.here.name, "link", "set", "wire", state]);
    }
}

/// A worker that serves.
pub struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    /// What it said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGTERM, and its end.
    pub fn stop(mut self) {
        self.terminate();
    }

    fn terminate(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        // One that has ended is as good.
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        wait_for("the worker's end", Duration::from_secs(30), || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

impl Drop for Worker {
    #[allow(clippy::print_stderr, reason = "whoever reads why a test failed wants the worker's words")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the worker's log ---\n{}", self.log());
            self.child.kill().ok();
            self.child.wait().ok();
        } else {
            self.terminate();
        }
    }
}

impl Space {
    /// A program in this namespace. Not `ip netns exec`: that has mounts of its own, and a sandbox's volume would not be seen
    /// by the engine.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command
    }

    /// Does something on this network, on a thread of its own.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                let space = std::fs::File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
                nix::sched::setns(space, nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
                work()
            });
            there.join().expect("the work on the other network")
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let listed = Command::new("ip").args(["netns", "pids", &self.name]).output();
        let pids = listed.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
        }
        Command::new("ip").args(["netns", "del", &self.name]).output().ok();
    }
}

/// Runs a command to its end, at most [`COMMAND`] long.
pub fn finish(mut command: Command) -> Ran {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish_child(command.spawn().expect("the binary starts"))
}

/// The same for one that was started.
pub fn finish_child(child: Child) -> Ran {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let (over, stop) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if stop.recv_timeout(COMMAND).is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout) {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
        }
    });
    let output = child.wait_with_output().expect("the command ends");
    drop(over);
    watchdog.join().expect("the watchdog");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}
