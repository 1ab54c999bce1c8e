//! A laptop with a controller and a machine with a worker, as far as one host can have both: two folders (each a file
//! system of its own where a test fills it), two programs, and a proxy between them. The proxy's socket lies where the
//! controller looks for a worker of its own, and the lock beside it is held, so that it never starts one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

use kit::folder::Lock;
use nix::sys::signal::{Signal, kill};

use super::{clock::Clock, disk::Disk, halts::Halts, process, proxy::Proxy};
use crate::{Home, Ran, leftovers, wait_for, worker::WorkerProcess};

/// After SIGKILL of everything: an engine takes a while to forget.
const GONE: Duration = Duration::from_secs(60);

/// What a test needs besides the two programs.
#[derive(Debug, Clone, Default)]
pub struct Wishes<'a> {
    /// "native" or "docker".
    pub backend: &'a str,
    /// Where the controller stops itself.
    pub controller_points: &'a [&'a str],
    /// Where the worker stops itself.
    pub worker_points: &'a [&'a str],
    /// The laptop's disk, where it is to be filled.
    pub laptop_mebibytes: Option<u32>,
    /// The machine's disk, where it is to be filled.
    pub machine_mebibytes: Option<u32>,
    /// Another engine than the host's own, like `unix:///…`.
    pub engine: Option<String>,
    /// More variables of the worker.
    pub worker_environment: &'a [(&'a str, &'a str)],
}

/// Both, and the way between them. Its fields are dropped in this order: nothing outlives what it lies on.
#[derive(Debug)]
pub struct Site {
    /// Where programs stop.
    pub halts: Halts,
    /// The way between them.
    pub proxy: Proxy,
    /// The machine's program.
    pub worker: WorkerProcess,
    /// The laptop's wall clock.
    pub laptop_clock: Clock,
    /// The machine's wall clock.
    pub machine_clock: Clock,
    /// The laptop's disk.
    pub laptop_disk: Option<Disk>,
    /// The machine's disk.
    pub machine_disk: Option<Disk>,
    engine: Option<String>,
    controller_points: Vec<String>,
    _lock: Lock,
    /// The laptop.
    pub home: Home,
    machine: tempfile::TempDir,
    aside: tempfile::TempDir,
}

/// A command that runs; killed where a test fails before its end.
#[derive(Debug)]
pub struct Command {
    child: Child,
    /// What it prints and says.
    said: tempfile::TempDir,
}

impl Command {
    /// Its process id.
    ///
    /// # Panics
    /// Where it is none.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Whether it still runs, else how it ended.
    ///
    /// # Errors
    /// Its end in words.
    pub fn is_running(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            other => Err(format!("the command has ended ({other:?}): {}", self.text("stderr"))),
        }
    }

    fn text(&self, name: &str) -> String {
        let bytes = fs::read(self.said.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// SIGKILL, seen to have been its end.
    ///
    /// # Panics
    /// Where it had ended by itself.
    pub fn kill(self) -> Ran {
        process::signal(self.pid(), Signal::SIGKILL);
        let ran = self.finish(GONE);
        assert_eq!(ran.code, -1, "it was killed and did not end by itself: {ran:?}");
        ran
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it takes longer, with what it said so far.
    #[must_use]
    pub fn finish(mut self, longest: Duration) -> Ran {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it was started here") {
                let code = status.code().unwrap_or(-1);
                return Ran { code, stdout: self.text("stdout"), stderr: self.text("stderr") };
            }
            if since.elapsed() > longest {
                panic!("the command did not end within {longest:?}: {}", self.text("stderr"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.text("stderr")
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Site {
    /// Both, with the worker started.
    ///
    /// # Panics
    /// Where something of it cannot be made.
    #[must_use]
    pub fn new(wishes: &Wishes<'_>) -> Self {
        let home = if wishes.backend == "docker" { Home::new() } else { Home::without_engine() };
        let folder =
            |name: &str| tempfile::Builder::new().prefix(name).tempdir().expect("a temporary folder");
        let (machine, aside) = (folder("ar-machine-"), folder("ar-aside-"));
        let laptop_disk = wishes.laptop_mebibytes.map(|size| Disk::mount(home.path(), size));
        let machine_disk = wishes.machine_mebibytes.map(|size| Disk::mount(machine.path(), size));
        // What a test itself writes lies on neither disk.
        let halts = Halts::new(&aside.path().join("halts"));
        let laptop_clock = Clock::new(aside.path().join("laptop-clock"));
        let machine_clock = Clock::new(aside.path().join("machine-clock"));

        let mut environment = vec![
            ("AUTORESEARCH_WORKER_SLOTS".to_owned(), "2".to_owned()),
            ("AUTORESEARCH_WORKER_BACKEND".to_owned(), wishes.backend.to_owned()),
            halts.variable(wishes.worker_points),
        ];
        environment.extend(machine_clock.environment());
        environment.extend(wishes.engine.iter().map(|host| ("DOCKER_HOST".to_owned(), host.clone())));
        environment.extend(wishes.worker_environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        let far = machine.path().join("worker");
        let worker = WorkerProcess::start_at(&home, &far, &machine.path().join("worker.log"), environment);
        let near = home.data_dir().join("worker");
        fs::create_dir_all(&near).expect("the folder of a local worker");
        let lock = Lock::take(&near.join("lock")).expect("nobody has it");
        let proxy = Proxy::start(&near.join("worker.sock"), &far.join("worker.sock"));
        let site = Self {
            halts,
            proxy,
            worker,
            laptop_clock,
            machine_clock,
            laptop_disk,
            machine_disk,
            engine: wishes.engine.clone(),
            controller_points: wishes.controller_points.iter().map(|point| (*point).to_owned()).collect(),
            _lock: lock,
            home,
            machine,
            aside,
        };
        site.until_the_worker_listens();
        site
    }

    /// The worker's state.
    #[must_use]
    pub fn far(&self) -> PathBuf {
        self.machine.path().join("worker")
    }

    /// What the worker said.
    #[must_use]
    pub fn worker_log(&self) -> String {
        fs::read_to_string(self.machine.path().join("worker.log")).unwrap_or_default()
    }

    /// Waits until the worker listens.
    ///
    /// # Panics
    /// Where it does not.
    pub fn until_the_worker_listens(&self) {
        wait_for("the worker's socket", GONE, || {
            std::os::unix::net::UnixStream::connect(self.far().join("worker.sock"))
                .map(drop)
                .map_err(|error| format!("{error}; it says: {}", self.worker_log()))
        });
    }

    /// Starts a command on the laptop: its clock and, for the first one, the points at which it stops.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Command {
        let points: Vec<&str> = self.controller_points.iter().map(String::as_str).collect();
        let mut command = self.home.command(arguments);
        command.envs(self.laptop_clock.environment()).envs([self.halts.variable(&points)]);
        // Files and no pipes: nobody reads while it runs, and whoever writes into a full pipe stands still.
        let said =
            tempfile::Builder::new().prefix("command-").tempdir_in(self.aside.path()).expect("a folder");
        let file = |name: &str| fs::File::create(said.path().join(name)).expect("a file");
        command.stdin(std::process::Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        Command { child: command.spawn().expect("the binary starts"), said }
    }

    /// The machine is gone with everything on it, and comes back with an empty disk: another worker.
    ///
    /// # Panics
    /// Where the worker does not start anew.
    pub fn wipe_the_machine(&mut self) {
        let before = leftovers::worker_id(self.machine.path());
        self.worker.kill();
        self.remove_sandboxes();
        fs::remove_dir_all(self.far()).expect("the worker's folder");
        assert!(!self.far().exists(), "the disk is empty");
        self.worker.restart(&self.home);
        self.until_the_worker_listens();
        let now = leftovers::worker_id(self.machine.path());
        assert!(before.is_some() && now.is_some() && before != now, "another worker: {before:?}, {now:?}");
    }

    /// What a machine that goes takes with it.
    fn remove_sandboxes(&self) {
        leftovers::remove(self.machine.path());
        wait_for("the machine's sandboxes to be gone", GONE, || {
            let left = leftovers::on_engine(self.machine.path(), self.engine.as_deref());
            let left: Vec<_> = left.into_iter().filter(|line| !line.starts_with("folder ")).collect();
            let left: Vec<_> = left.into_iter().filter(|line| !line.starts_with("socket ")).collect();
            if left.is_empty() {
                return Ok(());
            }
            leftovers::remove(self.machine.path());
            Err(left.join("; "))
        });
    }

    /// Waits until nothing of the campaign's sandboxes is on the machine, while its worker still runs.
    ///
    /// # Panics
    /// With what is left.
    pub fn assert_no_sandbox_left(&self) {
        let worker = format!("process {} ", self.worker.pid());
        wait_for("no sandbox is left", GONE, || {
            let left = leftovers::on_engine(self.machine.path(), self.engine.as_deref());
            let own = |line: &String| line.starts_with(&worker) || line.starts_with("socket ");
            let disk = |line: &String| line.starts_with("mount ar-test ");
            let left: Vec<_> = left.into_iter().filter(|line| !own(line) && !disk(line)).collect();
            if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
        });
    }

    /// Ends the worker well, and waits until nothing of either program is on this host.
    ///
    /// # Panics
    /// With what is left.
    pub fn assert_nothing_left(&mut self) {
        self.assert_no_sandbox_left();
        self.worker.stop();
        wait_for("nothing of ours is left", GONE, || {
            let mut left = leftovers::on_engine(self.machine.path(), self.engine.as_deref());
            // The proxy's socket is the test's own.
            let near = format!("socket {}", self.home.data_dir().join("worker/worker.sock").display());
            left.extend(leftovers::of(&self.home.data_dir()).into_iter().filter(|line| *line != near));
            left.retain(|line| !line.starts_with("mount ar-test "));
            if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
        });
    }

    /// A file of the campaign on the laptop.
    #[must_use]
    pub fn campaign_folder(&self, id: &str) -> PathBuf {
        self.home.data_dir().join("campaigns").join(id)
    }

    /// The machine's folder.
    #[must_use]
    pub fn machine(&self) -> &Path {
        self.machine.path()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            kill(nix::unistd::Pid::from_raw(self.worker.pid()), Signal::SIGKILL).ok();
            leftovers::remove(self.machine.path());
        }
        // A disk is not unmounted under a folder that is being removed.
        (self.laptop_disk, self.machine_disk) = (None, None);
    }
}
