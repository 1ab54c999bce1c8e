//! A worker of the real binary on a folder of its own, and what a controller says to it over its socket. It may be killed and
//! started again on the same folder; dropping it kills it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use kit::digest::Digest;
use prost::Message as _;
use proto::v1::{
    BlobHeader, Event, Finished, InputFile, InputRole, Limits, PrepareImageRequest, PutBlobRequest,
    ReleaseRunRequest, RunSpec, StartRunRequest, WatchRunRequest, event::Kind, watch_run_response::Message,
    worker_service_client::WorkerServiceClient,
};
use tokio::net::UnixStream;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::{Home, home::binary};

/// Of the worker's service.
pub type Client = WorkerServiceClient<Channel>;

/// Until it listens.
const START: Duration = Duration::from_secs(60);
/// After SIGTERM it is out within 5 s (WORKER.md §6); a busy machine may be later.
const STOP: Duration = Duration::from_secs(15);
const MIB: u64 = 1 << 20;

/// A worker process.
#[derive(Debug)]
pub struct WorkerProcess {
    child: Child,
    /// Where its state lies: where the local worker of the home would have it, so that what it leaves is seen.
    pub folder: PathBuf,
    log: PathBuf,
    environment: Vec<(String, String)>,
}

impl WorkerProcess {
    /// In a home, with these `AUTORESEARCH_WORKER_*` settings.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start(home: &Home, environment: &[(&str, &str)]) -> Self {
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::start_at(home, &home.data_dir().join("worker"), &home.path().join("worker.log"), environment)
    }

    /// The same with its state and its log where a test wants them: on another machine, so to say.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start_at(home: &Home, folder: &Path, log: &Path, environment: Vec<(String, String)>) -> Self {
        std::fs::create_dir_all(folder).expect("the worker's folder");
        let child = spawn(home, folder, log, &environment);
        Self { child, folder: folder.to_owned(), log: log.to_owned(), environment }
    }

    /// Its process id.
    ///
    /// # Panics
    /// Where it is none.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// Where there is nothing to kill.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was started here");
    }

    /// A new process on the same folder.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn restart(&mut self, home: &Home) {
        std::fs::create_dir_all(&self.folder).expect("the worker's folder");
        self.child = spawn(home, &self.folder, &self.log, &self.environment);
    }

    /// Resident memory, in bytes.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
        let kib: u64 = line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number");
        kib << 10
    }

    /// A client, as soon as the worker listens.
    ///
    /// # Panics
    /// Where it does not within a minute.
    pub async fn client(&self) -> Client {
        client_of(&self.folder).await
    }

    /// Asks it to stop, and waits for that.
    ///
    /// # Panics
    /// Where it does not, or not well.
    pub fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
        crate::wait_for("the worker's end after SIGTERM", STOP, || match self.child.try_wait() {
            Ok(Some(status)) if status.success() => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// A client of a worker that has the small image.
    ///
    /// # Panics
    /// Where the image cannot be prepared.
    pub async fn ready(&self, backend: &str) -> Client {
        let mut client = self.client().await;
        let request = PrepareImageRequest { name: "lite".into(), backend: backend.into() };
        let mut steps = client.prepare_image(request).await.expect("an image").into_inner();
        while steps.message().await.expect("the image's steps").is_some() {}
        client
    }
}

/// A client of the worker of this folder, as soon as it listens: also one that is being started again.
///
/// # Panics
/// Where it does not within a minute.
pub async fn client_of(folder: &Path) -> Client {
    let socket = folder.join("worker.sock");
    let since = Instant::now();
    loop {
        match connect(&socket).await {
            Ok(client) => return client,
            Err(error) => assert!(since.elapsed() < START, "the worker does not listen: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(home: &Home, folder: &Path, log: &Path, environment: &[(String, String)]) -> Child {
    let mut command = Command::new(binary("autoresearch-worker"));
    home.dress(&mut command);
    command.args(["serve", "--log", "warn", "--data-dir"]).arg(folder);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let log = File::options().create(true).append(true).open(log).expect("a log");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
    command.spawn().expect("the worker starts")
}

async fn connect(socket: &Path) -> Result<Client, tonic::transport::Error> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await?;
    Ok(Client::new(channel).max_decoding_message_size(proto::MESSAGE_BYTES_MAX))
}

/// The backend that `limits` and `endurance` run on: AUTORESEARCH_TEST_BACKEND, else the worker's own choice.
#[must_use]
pub fn backend() -> String {
    std::env::var("AUTORESEARCH_TEST_BACKEND").unwrap_or_default()
}

/// Limits that a small program needs and a test can afford.
#[must_use]
pub fn small_limits() -> Limits {
    Limits {
        time_ms: 60_000,
        grace_ms: 1000,
        memory_bytes: 128 * MIB,
        cpu_millis: 1000,
        pids: 64,
        disk_bytes: 32 * MIB,
        shm_bytes: 16 * MIB,
        stdout_bytes: MIB,
        stderr_bytes: MIB,
        metrics_bytes: MIB,
        artifact_bytes: 4 * MIB,
        ..Limits::default()
    }
}

/// Stores a program and gives the spec that runs it on the small image.
///
/// # Errors
/// Of the call.
pub async fn spec(client: &mut Client, program: &str, limits: Limits) -> Result<RunSpec, Status> {
    let bytes = program.as_bytes().to_vec();
    let (digest, size_bytes) = (Digest::of(&bytes).to_string(), bytes.len() as u64);
    let header = BlobHeader { digest: digest.clone(), size_bytes, offset: 0 };
    let message = PutBlobRequest { header: Some(header), data: bytes.into() };
    client.put_blob(tokio_stream::iter([message])).await?;
    let path = "program.py".to_owned();
    let files = vec![InputFile { path, digest, size_bytes, role: InputRole::Program.into() }];
    Ok(RunSpec {
        image: "lite".into(),
        backend: backend(),
        files,
        params_json: "{}".into(),
        limits: Some(limits),
        ..RunSpec::default()
    })
}

/// The request that starts a run of this spec.
#[must_use]
pub fn request(owner: &str, spec: &RunSpec) -> StartRunRequest {
    StartRunRequest {
        run_id: kit::id::new_uuid().to_string(),
        controller_id: owner.into(),
        spec: spec.encode_to_vec().into(),
    }
}

/// Starts a run; waits where the worker has no room yet.
///
/// # Errors
/// Every other refusal.
pub async fn start(client: &mut Client, request: &StartRunRequest) -> Result<(), Status> {
    loop {
        match client.start_run(request.clone()).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::ResourceExhausted => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(status) => return Err(status),
        }
    }
}

/// A run's events after a sequence, as far as the stream goes: whole only where the last one is the end.
///
/// # Errors
/// Of the call or the stream; what came before is in `events` all the same.
pub async fn watch(
    client: &mut Client,
    owner: &str,
    run_id: &str,
    events: &mut Vec<Event>,
) -> Result<(), Status> {
    let after_sequence = events.last().map_or(0, |event| event.sequence);
    let request = WatchRunRequest { run_id: run_id.into(), controller_id: owner.into(), after_sequence };
    let mut stream = client.watch_run(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        if let Some(Message::Event(event)) = message.message {
            events.push(event);
        }
    }
    Ok(())
}

/// The end of a run, where these events have it.
#[must_use]
pub fn finished(events: &[Event]) -> Option<&Finished> {
    match events.last()?.kind.as_ref()? {
        Kind::Finished(finished) => Some(finished),
        _ => None,
    }
}

/// Runs a program to its end and forgets it on the worker.
///
/// # Panics
/// Where the worker fails: for tests in which it must not.
pub async fn run(client: &mut Client, owner: &str, spec: &RunSpec) -> (Vec<Event>, Finished) {
    let request = request(owner, spec);
    start(client, &request).await.expect("a run");
    let mut events = Vec::new();
    watch(client, owner, &request.run_id, &mut events).await.expect("its events");
    let finished = finished(&events).unwrap_or_else(|| panic!("no end in {events:?}")).clone();
    release(client, owner, &request.run_id, &finished).await.expect("its release");
    (events, finished)
}

/// Lets the worker forget a run.
///
/// # Errors
/// Of the call.
pub async fn release(client: &mut Client, owner: &str, run_id: &str, end: &Finished) -> Result<(), Status> {
    let request = ReleaseRunRequest {
        run_id: run_id.into(),
        controller_id: owner.into(),
        last_sequence: end.last_sequence,
    };
    client.release_run(request).await.map(|_| ())
}
