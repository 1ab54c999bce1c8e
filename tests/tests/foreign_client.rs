//! A gRPC client that nobody here wrote, over the worker program itself: Python's grpcio with reflection starts a run, watches
//! it twice, fetches an artifact and releases the run (`foreign/client.py`).

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use e2e::{Home, home::binary, wait_for};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The first run of this test fetches three wheels.
const INSTALL: Duration = Duration::from_secs(300);
/// A worker that is asked to stop is out within so long (WORKER.md §6).
const STOP: Duration = Duration::from_secs(5);
/// `RunOutcome` of the protocol.
const SUCCEEDED: i64 = 1;

fn foreign(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign").join(name)
}

/// The Python with the client's packages: made once in the build folder, under a lock, named by what it holds.
fn python(home: &Home) -> PathBuf {
    let wanted = fs::read(foreign("requirements.txt")).expect("the list of packages");
    let digest = kit::digest::Digest::of(&wanted);
    let target = binary("autoresearch-worker");
    let folder = target.parent().and_then(Path::parent).expect("the build folder").join("foreign-python");
    fs::create_dir_all(&folder).expect("a folder in the build folder");
    let lock = File::create(folder.join("lock")).expect("a lock file");
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("the lock");
    let venv = folder.join(&digest.hex()[..16]);
    let (ready, python) = (venv.join("ready"), venv.join("bin/python"));
    if !ready.exists() {
        fs::remove_dir_all(&venv).or_else(absent).expect("a half-made environment goes");
        step(home, Command::new("python3").args(["-m", "venv"]).arg(&venv));
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--only-binary=:all:", "-r"])
            .arg(foreign("requirements.txt"));
        step(home, &mut pip);
        fs::write(&ready, "").expect("a mark");
    }
    python
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// One command of the set-up; a test without its client is no test, so a failure is one.
fn step(home: &Home, command: &mut Command) {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let ran = home.finish(child.unwrap_or_else(|e| panic!("{command:?}: {e}")), INSTALL);
    assert_eq!(ran.code, 0, "{command:?}: {ran:?}");
}

struct Worker(Child);

impl Worker {
    fn start(home: &Home, folder: &Path) -> Self {
        let mut command = Command::new(binary("autoresearch-worker"));
        home.dress(&mut command);
        command.args(["serve", "--data-dir"]).arg(folder);
        let log = File::create(home.path().join("worker.log")).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        Self(command.spawn().expect("the worker starts"))
    }

    fn stop(&mut self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).expect("it runs");
        wait_for("the worker's end after SIGTERM", STOP, || match self.0.try_wait() {
            Ok(Some(status)) if status.success() => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_client_that_learns_the_protocol_by_reflection_runs_watches_fetches_and_releases() {
    let home = Home::new();
    let python = python(&home);
    // Where the local worker of this home would be, so that what it leaves is seen.
    let folder = home.data_dir().join("worker");
    fs::create_dir_all(&folder).expect("a folder");
    let mut worker = Worker::start(&home, &folder);
    let socket = folder.join("worker.sock");
    let log = home.path().join("worker.log");
    wait_for("the worker's socket", Duration::from_secs(20), || {
        if socket.exists() { Ok(()) } else { Err(fs::read_to_string(&log).unwrap_or_default()) }
    });

    let mut client = Command::new(&python);
    home.dress(&mut client);
    client
        .arg(foreign("client.py"))
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // The image is built here where no other test has done so yet.
    let ran = home.finish(client.spawn().expect("Python starts"), Duration::from_secs(300));
    assert_eq!(ran.code, 0, "{ran:?}\n{}", fs::read_to_string(&log).unwrap_or_default());
    let told = ran.json();
    assert_eq!(told["outcome"].as_i64(), Some(SUCCEEDED), "{told}");
    assert_eq!(
        (told["lines"].as_u64(), told["points"].as_u64()),
        (Some(300), Some(300)),
        "each line and point once: {told}"
    );
    assert!(told["events"].as_u64().is_some_and(|n| n > 5), "states, frames and the end: {told}");
    assert_eq!(told["artifact"], "hello from the sandbox\n");
    worker.stop();
}
