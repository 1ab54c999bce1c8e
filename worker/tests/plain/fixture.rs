//! The real worker binary as a plain user: a uid that no account has, with or without the engine's group, in a home on
//! a shared or a private mount. The tests themselves are root: they make the home, and look from outside.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use kit::{clock::SystemClock, digest::Digest, id::new_uuid};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use prost::Message as _;
use proto::v1::{
    Event, Finished, InputFile, InputRole, Limits, PrepareImageRequest, PutBlobRequest, RunSpec,
    StartRunRequest, WatchRunRequest, event::Kind, watch_run_response::Message,
};
use worker::sandbox::{
    Backend as _,
    docker::{DockerBackend, DockerOptions},
};

pub use crate::connect::Client;
use crate::connect::connect;

pub const OWNER: &str = "scratch-controller";
const SOCKET: &str = "/var/run/docker.sock";
/// Nobody's.
const UID: u32 = 12_345;
const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// What the home of the user lies on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// What a helper container mounts is seen outside.
    OnSharedMount,
    /// It is not.
    OnPrivateMount,
}

/// Which groups the user is in.
#[derive(Clone, Copy)]
pub enum Groups {
    /// The one that owns the engine's socket.
    Engine,
    /// None but the user's own.
    Own,
}

/// A user, and at most one worker of theirs.
pub struct PlainUser {
    folder: PathBuf,
    groups: Groups,
    worker: Option<Child>,
}

impl PlainUser {
    pub fn new(home: Home, groups: Groups) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests become another user: run them as root");
        let folder = std::env::temp_dir().join(format!("plain-{}", new_uuid()));
        let user = Self { folder, groups, worker: None };
        fs::create_dir_all(user.home()).unwrap();
        let none: Option<&str> = None;
        let flags = match home {
            Home::OnSharedMount => MsFlags::MS_SHARED,
            Home::OnPrivateMount => MsFlags::MS_PRIVATE,
        };
        mount(Some(&user.home()), &user.home(), none, MsFlags::MS_BIND, none).unwrap();
        mount(none, &user.home(), none, flags, none).unwrap();
        // The build's folder may be closed to others.
        let built = Path::new(env!("CARGO_BIN_EXE_autoresearch-worker"));
        if fs::hard_link(built, user.program()).is_err() {
            fs::copy(built, user.program()).unwrap();
        }
        for place in ["data", "cache", "run"] {
            fs::create_dir(user.home().join(place)).unwrap();
            chown(user.home().join(place), Some(UID), Some(UID)).unwrap();
        }
        chown(user.home(), Some(UID), Some(UID)).unwrap();
        user
    }

    /// A worker of a user with all that it takes, listening, its image found.
    pub async fn ready() -> (Self, Client) {
        let mut user = Self::new(Home::OnSharedMount, Groups::Engine);
        let mut client = user.serve().await;
        let request = PrepareImageRequest { name: "lite".into(), backend: String::new() };
        let mut steps = client.prepare_image(request).await.unwrap().into_inner();
        while steps.message().await.unwrap().is_some() {}
        (user, client)
    }

    fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    fn program(&self) -> PathBuf {
        self.folder.join("autoresearch-worker")
    }

    fn data_dir(&self) -> PathBuf {
        self.home().join("data/autoresearch/worker")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let uid = UID.to_string();
        let group = match self.groups {
            Groups::Engine => fs::metadata(SOCKET).unwrap().gid(),
            Groups::Own => UID,
        };
        assert_ne!(group, 0, "{SOCKET} belongs to root's group: no plain user may use it");
        let home = self.home();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid, "--regid", &uid, "--groups", &group.to_string()]);
        command.arg(self.program()).args(arguments).args(["--log", "error"]);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", &home);
        command.env("XDG_DATA_HOME", home.join("data")).env("XDG_CACHE_HOME", home.join("cache"));
        command.env("XDG_RUNTIME_DIR", home.join("run")).env("AUTORESEARCH_WORKER_SLOTS", "1");
        command.current_dir(home).stdin(Stdio::null());
        command
    }

    /// Runs a command of the worker's to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts the worker; as soon as it listens.
    pub async fn serve(&mut self) -> Client {
        self.worker = Some(self.command(&["serve"]).spawn().unwrap());
        connect(&self.data_dir().join("worker.sock"), PATIENCE).await
    }

    /// SIGKILL to the worker.
    pub fn kill(&mut self) {
        let mut worker = self.worker.take().unwrap();
        worker.kill().unwrap();
        worker.wait().unwrap();
    }

    fn worker_id(&self) -> String {
        fs::read_to_string(self.data_dir().join("worker-id")).unwrap_or_default().trim().to_owned()
    }

    /// The names of this worker's containers, helpers among them.
    pub fn containers(&self) -> Vec<String> {
        let label = format!("label=autoresearch={}", self.worker_id());
        let output = Command::new("docker")
            .args(["ps", "-a", "--no-trunc", "--format", "{{.Names}}", "--filter", &label])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// The sandboxes' folders.
    pub fn sandboxes(&self) -> Vec<String> {
        let entries = fs::read_dir(self.data_dir().join("sandboxes")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Every trace of this worker's sandboxes, by the kernel's and the engine's own lists. A loop device shows only the
    /// end of its file's path, so it is asked for by the ids of the sandboxes that there were.
    pub fn traces(&self, sandboxes: &BTreeSet<String>) -> Vec<String> {
        let mut traces = self.containers();
        let below = self.data_dir().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        traces.extend(mounts.lines().filter(|line| line.contains(&below)).map(str::to_owned));
        for device in fs::read_dir("/sys/block").unwrap().flatten() {
            let backing = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
            if sandboxes.iter().any(|id| backing.contains(id)) {
                traces.push(format!("{:?} holds {backing}", device.file_name()));
            }
        }
        traces.extend(self.sandboxes());
        traces
    }

    /// Waits until nothing is left.
    pub async fn until_nothing_is_left(&self, sandboxes: &BTreeSet<String>) {
        until("something is left", || match self.traces(sandboxes) {
            traces if traces.is_empty() => Ok(()),
            traces => Err(format!("{traces:?}")),
        })
        .await;
    }
}

/// Also where a test fails: nothing of it stays.
impl Drop for PlainUser {
    fn drop(&mut self) {
        if let Some(worker) = &mut self.worker {
            worker.kill().ok();
            worker.wait().ok();
        }
        // Containers by their label, mounts by their place: root needs no helper for them.
        for name in self.containers().iter().filter(|_| !self.worker_id().is_empty()) {
            Command::new("docker").args(["rm", "-f", "-v", name]).output().ok();
        }
        let (worker_id, sandboxes_dir) = (self.worker_id(), self.data_dir().join("sandboxes"));
        let clean = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let clock = SystemClock::shared();
            let options = DockerOptions { worker_id, sandboxes_dir, docker_host: None, runtime: None, clock };
            runtime.block_on(async move {
                if let Ok(backend) = DockerBackend::connect(options).await {
                    backend.sweep(&BTreeSet::new()).await.ok();
                }
            });
        };
        if self.data_dir().is_dir() {
            std::thread::spawn(clean).join().ok();
        }
        umount2(&self.home(), MntFlags::MNT_DETACH).ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// Asks until there is an answer.
pub async fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let limit = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(seen) => assert!(Instant::now() < limit, "{what}: {seen}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Starts a program under limits that a test can afford, and gives its run's id.
pub async fn start(client: &mut Client, program: &str, limits: Limits) -> String {
    let bytes = program.as_bytes().to_vec();
    let (digest, size_bytes) = (Digest::of(&bytes).to_string(), bytes.len() as u64);
    let header = proto::v1::BlobHeader { digest: digest.clone(), size_bytes, offset: 0 };
    let message = PutBlobRequest { header: Some(header), data: bytes.into() };
    client.put_blob(tokio_stream::iter([message])).await.unwrap();
    let role = InputRole::Program.into();
    let spec = RunSpec {
        image: "lite".into(),
        files: vec![InputFile { path: "main.py".into(), digest, size_bytes, role }],
        limits: Some(limits),
        ..RunSpec::default()
    };
    let request = StartRunRequest {
        run_id: new_uuid().to_string(),
        controller_id: OWNER.into(),
        spec: spec.encode_to_vec().into(),
    };
    client.start_run(request).await.unwrap().into_inner().run.unwrap().run_id
}

pub fn limits() -> Limits {
    Limits {
        time_ms: 60_000,
        grace_ms: 1000,
        memory_bytes: 256 * MIB,
        disk_bytes: 64 * MIB,
        shm_bytes: 16 * MIB,
        stdout_bytes: 4 * MIB,
        stderr_bytes: 4 * MIB,
        metrics_bytes: 4 * MIB,
        artifact_bytes: 16 * MIB,
        ..Limits::default()
    }
}

/// All events until one is enough, or the last.
pub async fn watch(client: &mut Client, run_id: &str, mut enough: impl FnMut(&Event) -> bool) -> Vec<Event> {
    let request = WatchRunRequest { run_id: run_id.into(), controller_id: OWNER.into(), after_sequence: 0 };
    let mut stream = client.watch_run(request).await.unwrap().into_inner();
    let mut events = Vec::new();
    let reading = async {
        while let Some(message) = stream.message().await.unwrap() {
            let Some(Message::Event(event)) = message.message else { continue };
            let stop = enough(&event) || matches!(event.kind, Some(Kind::Finished(_)));
            events.push(event);
            if stop {
                return;
            }
        }
        panic!("the stream ended before the run: {events:?}");
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the run does not get there");
    events
}

/// What the last event says, and all that went to standard output.
pub async fn watch_to_end(client: &mut Client, run_id: &str) -> (Finished, String, Vec<Event>) {
    let events = watch(client, run_id, |_| false).await;
    let Some(Kind::Finished(finished)) = events.last().and_then(|event| event.kind.clone()) else {
        panic!("the last event is not the end: {events:?}");
    };
    (finished, stdout(&events), events)
}

pub fn stdout(events: &[Event]) -> String {
    let frames = events.iter().filter_map(|event| match &event.kind {
        Some(Kind::Frame(frame)) if frame.stream() == proto::v1::Stream::Stdout => Some(&frame.data),
        _ => None,
    });
    String::from_utf8_lossy(&frames.flatten().copied().collect::<Vec<u8>>()).into_owned()
}
