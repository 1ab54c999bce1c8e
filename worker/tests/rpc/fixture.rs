//! A worker process of the real binary on a folder of its own, a client on its socket, and the proof that nothing
//! of it is left.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use kit::{clock::SystemClock, digest::Digest, id::new_uuid};
use prost::Message as _;
use proto::v1::{
    Event, Finished, GetWorkerRequest, InputFile, InputRole, Limits, PrepareImageRequest, PutBlobRequest,
    RunSpec, StartRunRequest, WatchRunRequest, event::Kind, watch_run_response::Message,
};
use tonic::Status;
use worker::sandbox::{
    Backend as _,
    docker::{DockerBackend, DockerOptions},
    native::{NativeBackend, NativeOptions},
};

pub use crate::connect::Client;
use crate::connect::connect;

pub const OWNER: &str = "scratch-controller";
const MIB: u64 = 1 << 20;

pub struct WorkerProcess {
    child: Child,
    folder: PathBuf,
    docker_host: Option<String>,
}

impl WorkerProcess {
    /// With one slot, so that one run fills it.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    pub async fn start_with(docker_host: Option<String>) -> Self {
        let folder = std::env::temp_dir().join(format!("scratch-{}", new_uuid()));
        let child = spawn(&folder, docker_host.as_deref(), None);
        let process = Self { child, folder, docker_host };
        process.client().await;
        process
    }

    /// SIGTERM, and its own end.
    pub fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
    }

    /// A new process on the same folder, which stops itself once at a point (`kit::halt`).
    pub async fn restart_halting(&mut self, point: &str) -> Client {
        fs::create_dir_all(self.folder.join("halts")).unwrap();
        let halt = format!("{}:{point}", self.folder.join("halts").display());
        self.child = spawn(&self.folder, self.docker_host.as_deref(), Some(&halt));
        self.client().await
    }

    /// Waits until it has stopped itself there.
    pub async fn halted(&self, point: &str) {
        let stat = format!("/proc/{}/stat", self.child.id());
        for _ in 0..1800 {
            let stopped = fs::read_to_string(&stat).is_ok_and(|text| text.contains(") T "));
            if stopped && self.folder.join("halts").join(point).exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{point} was never passed");
    }

    /// What is on disk of runs.
    pub fn runs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.join("runs")).unwrap().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// SIGKILL, as the kernel or a person would do it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A new process on the same folder.
    pub async fn restart(&mut self) -> Client {
        self.child = spawn(&self.folder, self.docker_host.as_deref(), None);
        self.client().await
    }

    /// As soon as the worker listens.
    pub async fn client(&self) -> Client {
        connect(&self.folder.join("worker.sock"), Duration::from_secs(60)).await
    }

    /// With the image prepared that the programs of these tests run in.
    pub async fn ready(&self) -> Client {
        self.ready_on("").await
    }

    /// As [`WorkerProcess::ready`], on one of its backends.
    pub async fn ready_on(&self, backend: &str) -> Client {
        let mut client = self.client().await;
        let request = PrepareImageRequest { name: "lite".into(), backend: backend.into() };
        let mut steps = client.prepare_image(request).await.unwrap().into_inner();
        while steps.message().await.unwrap().is_some() {}
        client
    }

    fn worker_id(&self) -> String {
        fs::read_to_string(self.folder.join("worker-id")).unwrap().trim().to_owned()
    }

    /// Every trace of this worker's sandboxes that there is, by the kernel's and the engine's own lists.
    pub fn traces(&self) -> Vec<String> {
        let mut traces = self.containers();
        let name = self.folder.to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        traces.extend(mounts.lines().filter(|line| line.contains(&name)).map(str::to_owned));
        for device in fs::read_dir("/sys/block").unwrap().flatten() {
            let backing = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
            if backing.contains(&name) {
                traces.push(format!("{:?} holds {backing}", device.file_name()));
            }
        }
        for folder in ["sandboxes", "sandboxes-native"] {
            let sandboxes = fs::read_dir(self.folder.join(folder));
            traces
                .extend(sandboxes.into_iter().flatten().flatten().map(|entry| format!("{:?}", entry.path())));
        }
        traces
    }

    pub fn containers(&self) -> Vec<String> {
        let label = format!("label=autoresearch={}", self.worker_id());
        let output = Command::new("docker")
            .args(["ps", "-a", "-q", "--no-trunc", "--filter", &label])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

fn spawn(folder: &Path, docker_host: Option<&str>, halt: Option<&str>) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_autoresearch-worker"));
    command.args(["serve", "--log", "error", "--data-dir"]).arg(folder);
    command.env("AUTORESEARCH_WORKER_SLOTS", "1").stdin(Stdio::null());
    if let Some(halt) = halt {
        command.env(kit::halt::VARIABLE, halt);
    }
    if let Some(host) = docker_host {
        command.args(["--docker-host", host]);
    }
    command.spawn().unwrap()
}

/// Also where a test fails: nothing of it stays.
impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        let (folder, worker_id) = (self.folder.clone(), fs::read_to_string(self.folder.join("worker-id")));
        let clean = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let options = DockerOptions {
                worker_id: worker_id.unwrap_or_default().trim().to_owned(),
                sandboxes_dir: folder.join("sandboxes"),
                docker_host: None,
                runtime: None,
                clock: SystemClock::shared(),
            };
            let native = NativeOptions {
                worker_id: options.worker_id.clone(),
                sandboxes_dir: folder.join("sandboxes-native"),
                rootfs_dir: folder.join("rootfs"),
                clock: SystemClock::shared(),
            };
            runtime.block_on(async move {
                NativeBackend::new(native).sweep(&BTreeSet::new()).await.ok();
                if let Ok(backend) = DockerBackend::connect(options).await {
                    backend.sweep(&BTreeSet::new()).await.ok();
                }
            });
            fs::remove_dir_all(folder).ok();
        };
        std::thread::spawn(clean).join().ok();
    }
}

/// The spec of a program, stored first, under limits that a test can afford.
pub async fn spec(client: &mut Client, program: &str) -> RunSpec {
    let bytes = program.as_bytes().to_vec();
    let digest = Digest::of(&bytes).to_string();
    let size_bytes = bytes.len() as u64;
    let header = proto::v1::BlobHeader { digest: digest.clone(), size_bytes, offset: 0 };
    let message = PutBlobRequest { header: Some(header), data: bytes.into() };
    let answer = client.put_blob(tokio_stream::iter([message])).await.unwrap().into_inner();
    assert_eq!((answer.digest.as_str(), answer.received_bytes), (digest.as_str(), size_bytes));
    let limits = Limits {
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
    };
    RunSpec {
        image: "lite".into(),
        files: vec![InputFile {
            path: "main.py".into(),
            digest,
            size_bytes,
            role: InputRole::Program.into(),
        }],
        limits: Some(limits),
        ..RunSpec::default()
    }
}

pub fn request(spec: &RunSpec) -> StartRunRequest {
    StartRunRequest {
        run_id: new_uuid().to_string(),
        controller_id: OWNER.into(),
        spec: spec.encode_to_vec().into(),
    }
}

/// Starts a program and gives its run's id.
pub async fn start(client: &mut Client, program: &str) -> String {
    let request = request(&spec(client, program).await);
    client.start_run(request).await.unwrap().into_inner().run.unwrap().run_id
}

/// The events of a run after a sequence, until one is the last, or one that is asked for.
pub async fn watch(
    client: &mut Client,
    run_id: &str,
    after_sequence: u64,
    mut enough: impl FnMut(&Event) -> bool,
) -> Vec<Event> {
    let request = WatchRunRequest { run_id: run_id.into(), controller_id: OWNER.into(), after_sequence };
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
    tokio::time::timeout(Duration::from_secs(90), reading).await.expect("the run does not get there");
    events
}

/// All events to the end, and what the last one says.
pub async fn watch_to_end(client: &mut Client, run_id: &str, after_sequence: u64) -> (Vec<Event>, Finished) {
    let events = watch(client, run_id, after_sequence, |_| false).await;
    let Some(Kind::Finished(finished)) = events.last().and_then(|event| event.kind.clone()) else {
        panic!("the last event is not the end: {events:?}");
    };
    (events, finished)
}

pub async fn backends(client: &mut Client) -> Vec<proto::v1::Backend> {
    client.get_worker(GetWorkerRequest {}).await.unwrap().into_inner().backends
}

/// The reason that a program would act on.
pub fn reason(status: &Status) -> String {
    use tonic_types::StatusExt as _;
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}
