//! A worker at the protocol: it keeps runs, events, blobs and tombstones as a worker does, runs nothing, and fails when it
//! is told to. Its state outlives its connections, which can be cut. Used by the tests here and by `benches/fleet.rs`,
//! so it knows nothing of the controller but what its parent module names.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    os::fd::AsFd as _,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use kit::{digest::Digest, task::CancellationToken};
use prost::Message as _;
use proto::v1::{
    self,
    event::Kind,
    worker_service_server::{WorkerService, WorkerServiceServer},
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming, transport::Channel};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{Dialer, FleetError, over};

const BEAT: Duration = Duration::from_millis(250);

/// What the worker is.
#[derive(Debug, Clone)]
pub struct Shape {
    pub name: String,
    pub slots: u32,
    /// Of each slot.
    pub gpus: u32,
    pub gpu: &'static str,
    pub cpu: &'static str,
    /// Events of a run between `running` and `finished`.
    pub frames: u32,
    /// The shortest and the longest run.
    pub run_time: (Duration, Duration),
    pub retry: Duration,
}

impl Shape {
    pub fn cpu(name: &str, slots: u32) -> Self {
        Self {
            name: name.to_owned(),
            slots,
            gpus: 0,
            gpu: "",
            cpu: "Fake CPU",
            frames: 3,
            run_time: (Duration::from_millis(5), Duration::from_millis(20)),
            retry: Duration::from_millis(30),
        }
    }
}

/// What it does wrong, and when.
#[derive(Debug, Default)]
pub struct Faults {
    /// Answers of the next `StartRun` calls.
    pub start: VecDeque<Status>,
    /// So many `StartRun` calls are done and never answered: the connection is cut.
    pub start_unanswered: u32,
    /// The next runs end so.
    pub lost: VecDeque<v1::LostCause>,
    /// Artifacts are cut off after so many bytes, each number once.
    pub artifact_cuts: VecDeque<usize>,
    /// More bytes than were announced.
    pub artifact_surplus: bool,
    /// Streams say nothing, and questions are not answered.
    pub mute: bool,
    /// Nobody answers a dial.
    pub away: bool,
    pub draining: bool,
    pub protocol: Option<(u32, u32)>,
    /// Slots that other controllers have.
    pub foreign: u32,
    /// Runs do not end by themselves.
    pub endless: bool,
}

#[derive(Default)]
struct Disk {
    worker_id: String,
    boot_id: String,
    runs: BTreeMap<String, FakeRun>,
    tombstones: BTreeSet<String>,
    blobs: BTreeSet<Digest>,
    images: BTreeSet<String>,
}

struct FakeRun {
    spec: Bytes,
    controller: String,
    events: Arc<Mutex<Vec<v1::Event>>>,
    count: watch::Sender<u64>,
    cancel: CancellationToken,
}

/// What happened at this worker, over all its lives.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// How often each run was begun.
    pub begun: BTreeMap<String, u32>,
    pub released: BTreeSet<String>,
    pub cancelled: BTreeSet<String>,
    pub dials: u32,
    pub uploads: u32,
    pub watches: u32,
    pub most_at_once: usize,
    /// Offsets that artifacts were asked from.
    pub offsets: Vec<u64>,
    /// Variants in the order of their starts.
    pub variants: Vec<String>,
}

/// The worker. A clone is the same.
#[derive(Clone)]
pub struct FakeWorker {
    pub shape: Arc<Shape>,
    pub artifacts: Arc<Mutex<Vec<(String, Bytes)>>>,
    disk: Arc<Mutex<Disk>>,
    faults: Arc<Mutex<Faults>>,
    seen: Arc<Mutex<Seen>>,
    connections: Arc<Mutex<Vec<std::os::unix::net::UnixStream>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refusal(code: Code, reason: &str, mut details: ErrorDetails) -> Status {
    details.set_error_info(reason, "autoresearch", std::collections::HashMap::new());
    Status::with_error_details(code, reason.to_lowercase(), details)
}

impl FakeWorker {
    pub fn new(shape: Shape) -> Self {
        let disk = Disk {
            worker_id: format!("{}-1", shape.name),
            boot_id: "boot-1".to_owned(),
            images: BTreeSet::from(["lite".to_owned()]),
            ..Disk::default()
        };
        Self {
            shape: Arc::new(shape),
            artifacts: Arc::default(),
            disk: Arc::new(Mutex::new(disk)),
            faults: Arc::default(),
            seen: Arc::default(),
            connections: Arc::default(),
        }
    }

    /// To change what it does wrong.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    pub fn worker_id(&self) -> String {
        lock(&self.disk).worker_id.clone()
    }

    /// Runs that it still knows.
    pub fn held(&self) -> usize {
        lock(&self.disk).runs.len()
    }

    /// Forgets that an image is prepared.
    pub fn unprepare(&self) {
        lock(&self.disk).images.clear();
    }

    /// Every connection ends at this instruction.
    pub fn cut(&self) {
        for connection in lock(&self.connections).drain(..) {
            connection.shutdown(std::net::Shutdown::Both).ok();
        }
    }

    pub fn go_away(&self) {
        self.faults().away = true;
        self.cut();
    }

    pub fn come_back(&self) {
        self.faults().away = false;
    }

    /// The machine comes back with an empty disk.
    pub fn wipe(&self) {
        {
            let mut disk = lock(&self.disk);
            for run in disk.runs.values() {
                run.cancel.cancel();
            }
            let number: u32 = disk.worker_id.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(1);
            *disk = Disk {
                worker_id: format!("{}-{}", self.shape.name, number + 1),
                boot_id: format!("boot-{}", number + 1),
                ..Disk::default()
            };
        }
        self.cut();
    }

    /// A way to it within this process.
    pub fn dialer(&self) -> Box<dyn Dialer> {
        Box::new(self.clone())
    }

    /// Serves one connection until it ends.
    pub async fn serve(&self, stream: UnixStream) {
        if let Ok(copy) = stream.as_fd().try_clone_to_owned() {
            let mut connections = lock(&self.connections);
            connections.retain(|c| c.take_error().is_ok() && c.peer_addr().is_ok());
            connections.push(copy.into());
        }
        lock(&self.seen).dials += 1;
        let incoming = futures_util::stream::iter([Ok::<_, std::io::Error>(stream)]);
        let service = WorkerServiceServer::new(self.clone())
            .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
        let server = tonic::transport::Server::builder().add_service(service);
        server.serve_with_incoming(incoming.chain(futures_util::stream::pending())).await.ok();
    }

    /// Listens on a socket for ever.
    #[allow(dead_code, reason = "the bench does")]
    pub async fn listen(&self, socket: &Path) -> std::io::Result<()> {
        let listener = UnixListener::bind(socket)?;
        loop {
            let (stream, _) = listener.accept().await?;
            if self.faults().away {
                continue;
            }
            let worker = self.clone();
            kit::task::spawn("connection", async move { worker.serve(stream).await });
        }
    }

    fn describe(&self) -> v1::GetWorkerResponse {
        let (shape, faults) = (&self.shape, self.faults());
        let disk = lock(&self.disk);
        let (protocol_min, protocol_max) =
            faults.protocol.unwrap_or((proto::PROTOCOL_VERSION, proto::PROTOCOL_VERSION));
        let slot = |index| v1::Slot {
            index,
            gpu_uuids: (0..shape.gpus).map(|gpu| format!("GPU-{index}-{gpu}")).collect(),
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            ..v1::Slot::default()
        };
        let gpu = v1::Gpu { name: shape.gpu.to_owned(), memory_bytes: 80 << 30, ..v1::Gpu::default() };
        let image = v1::Image {
            name: "lite".to_owned(),
            backend: "fake".to_owned(),
            prepared: disk.images.contains("lite"),
            ..v1::Image::default()
        };
        v1::GetWorkerResponse {
            worker_id: disk.worker_id.clone(),
            boot_id: disk.boot_id.clone(),
            protocol_min,
            protocol_max,
            machine: Some(v1::Machine {
                cpu_model: shape.cpu.to_owned(),
                gpus: (shape.gpus > 0).then_some(gpu).into_iter().collect(),
                ..v1::Machine::default()
            }),
            slots: (0..shape.slots).map(slot).collect(),
            images: vec![image],
            default_limits: Some(v1::Limits { time_ms: 60_000, grace_ms: 1_000, ..v1::Limits::default() }),
            largest_limits: Some(v1::Limits {
                time_ms: 3_600_000,
                memory_bytes: 1 << 30,
                ..v1::Limits::default()
            }),
            backends: vec![v1::Backend {
                name: "fake".to_owned(),
                available: true,
                ..v1::Backend::default()
            }],
            draining: faults.draining,
            ..v1::GetWorkerResponse::default()
        }
    }

    fn finished_of(&self, run: &FakeRun) -> Option<v1::Finished> {
        lock(&run.events).last().and_then(|event| match &event.kind {
            Some(Kind::Finished(finished)) => Some(finished.clone()),
            _ => None,
        })
    }

    fn running(&self, disk: &Disk) -> usize {
        disk.runs.values().filter(|run| self.finished_of(run).is_none()).count()
    }

    fn accept(&self, request: &v1::StartRunRequest) -> Result<(), Status> {
        if let Some(refused) = self.faults().start.pop_front() {
            return Err(refused);
        }
        let (foreign, draining, endless) = {
            let faults = self.faults();
            (faults.foreign, faults.draining, faults.endless)
        };
        let spec =
            v1::RunSpec::decode(request.spec.as_ref()).map_err(|_| Status::invalid_argument("no spec"))?;
        let mut disk = lock(&self.disk);
        if let Some(run) = disk.runs.get(&request.run_id) {
            let same = run.spec == request.spec;
            return if same { Ok(()) } else { Err(Status::already_exists("other bytes")) };
        }
        if disk.tombstones.contains(&request.run_id) {
            return Err(refusal(Code::FailedPrecondition, "RUN_FORGOTTEN", ErrorDetails::new()));
        }
        if draining {
            return Err(refusal(Code::Unavailable, "DRAINING", ErrorDetails::new()));
        }
        let mut missing = ErrorDetails::new();
        if !disk.images.contains(&spec.image) {
            missing.add_precondition_failure_violation("IMAGE", &spec.image, "is not there");
        }
        for file in &spec.files {
            if !file.digest.parse().is_ok_and(|digest| disk.blobs.contains(&digest)) {
                missing.add_precondition_failure_violation("BLOB", &file.digest, "is not there");
            }
        }
        if missing.precondition_failure().is_some_and(|p| !p.violations.is_empty()) {
            return Err(refusal(Code::FailedPrecondition, "MISSING", missing));
        }
        let running = self.running(&disk);
        if running + foreign as usize >= self.shape.slots as usize {
            let mut details = ErrorDetails::new();
            details.set_retry_info(Some(self.shape.retry));
            return Err(refusal(Code::ResourceExhausted, "NO_SLOT", details));
        }
        let run = FakeRun {
            spec: request.spec.clone(),
            controller: request.controller_id.clone(),
            events: Arc::default(),
            count: watch::Sender::new(0),
            cancel: CancellationToken::new(),
        };
        {
            let mut seen = lock(&self.seen);
            *seen.begun.entry(request.run_id.clone()).or_default() += 1;
            seen.most_at_once = seen.most_at_once.max(running + 1);
            let variant = spec.labels.iter().find(|l| l.key == "variant").map(|l| l.value.clone());
            seen.variants.push(variant.unwrap_or_default());
        }
        let lost = self.faults().lost.pop_front();
        let life = self.live(&run, lost, endless, Digest::of(request.run_id.as_bytes()));
        disk.runs.insert(request.run_id.clone(), run);
        kit::task::spawn("fake run", life);
        Ok(())
    }

    /// Its events, as time passes.
    fn live(
        &self,
        run: &FakeRun,
        lost: Option<v1::LostCause>,
        endless: bool,
        random: Digest,
    ) -> impl Future<Output = ()> + use<> {
        let (events, count, cancel) = (run.events.clone(), run.count.clone(), run.cancel.clone());
        let (shape, artifacts) = (self.shape.clone(), lock(&self.artifacts).clone());
        let draw = u32::from_str_radix(&random.hex()[..6], 16).unwrap_or(0);
        let (shortest, longest) = shape.run_time;
        let time = shortest + (longest - shortest).mul_f64(f64::from(draw) / f64::from(1 << 24));
        let push = move |kind| {
            let mut events = lock(&events);
            let sequence = events.len() as u64 + 1;
            events.push(v1::Event { sequence, wall_time_ns: 1, elapsed_ns: sequence, kind: Some(kind) });
            count.send_replace(sequence);
            sequence
        };
        async move {
            let mut last = push(Kind::StateChange(v1::StateChange {
                state: v1::RunState::Running.into(),
                ..Default::default()
            }));
            let mut offset = 0;
            for step in 0..shape.frames {
                tokio::select! {
                    () = tokio::time::sleep(time / shape.frames.max(1)) => {}
                    () = cancel.cancelled() => break,
                }
                let data = Bytes::from(format!("step {step}\n"));
                let point = v1::MetricPoint {
                    name: "loss".to_owned(),
                    value: f64::from(step),
                    step: Some(i64::from(step)),
                    elapsed_ns: u64::from(step),
                };
                let size = data.len() as u64;
                last = push(Kind::Frame(v1::Frame {
                    stream: v1::Stream::Metrics.into(),
                    offset,
                    data,
                    points: vec![point],
                }));
                offset += size;
            }
            if endless {
                cancel.cancelled().await;
            }
            let kind = match lost {
                _ if cancel.is_cancelled() => v1::OutcomeKind::Cancelled,
                Some(_) => v1::OutcomeKind::Lost,
                None => v1::OutcomeKind::Succeeded,
            };
            let outcome = v1::Outcome {
                kind: kind.into(),
                lost_cause: lost.unwrap_or_default().into(),
                message: "as told".to_owned(),
                ..v1::Outcome::default()
            };
            let artifact = |(name, bytes): &(String, Bytes)| v1::Artifact {
                name: name.clone(),
                size_bytes: bytes.len() as u64,
                digest: Digest::of(bytes).to_string(),
            };
            let finished = v1::Finished {
                outcome: Some(outcome),
                usage: Some(v1::UsageTotals { wall_ms: 1, complete: true, ..Default::default() }),
                artifacts: artifacts.iter().map(artifact).collect(),
                last_sequence: last + 1,
                ..v1::Finished::default()
            };
            push(Kind::Finished(finished));
        }
    }

    async fn hang_if_mute(&self) {
        while self.faults().mute {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn with_run<T>(&self, id: &str, controller: &str, work: impl FnOnce(&FakeRun) -> T) -> Result<T, Status> {
        let disk = lock(&self.disk);
        match disk.runs.get(id).filter(|run| run.controller == controller) {
            Some(run) => Ok(work(run)),
            None if disk.tombstones.contains(id) => {
                Err(refusal(Code::FailedPrecondition, "RUN_FORGOTTEN", ErrorDetails::new()))
            }
            None => Err(refusal(Code::NotFound, "NO_SUCH_RUN", ErrorDetails::new())),
        }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl WorkerService for FakeWorker {
    async fn get_worker(
        &self,
        _: Request<v1::GetWorkerRequest>,
    ) -> Result<Response<v1::GetWorkerResponse>, Status> {
        self.hang_if_mute().await;
        Ok(Response::new(self.describe()))
    }

    type PrepareImageStream = Answers<v1::PrepareImageResponse>;

    async fn prepare_image(
        &self,
        request: Request<v1::PrepareImageRequest>,
    ) -> Result<Response<Self::PrepareImageStream>, Status> {
        use v1::prepare_image_response::Message;
        let name = request.into_inner().name;
        if name != "lite" {
            return Err(Status::not_found(format!("no image {name}")));
        }
        lock(&self.disk).images.insert(name.clone());
        let package = v1::Package { name: "numpy".to_owned(), version: "2".to_owned() };
        let image = v1::Image {
            name,
            image_id: "sha256:1".to_owned(),
            packages: vec![package],
            ..v1::Image::default()
        };
        let step = v1::ImageStep { name: "base".to_owned(), ..v1::ImageStep::default() };
        let messages = [Message::Step(step), Message::Image(image)];
        let answers = messages.map(|message| Ok(v1::PrepareImageResponse { message: Some(message) }));
        Ok(Response::new(Box::pin(futures_util::stream::iter(answers))))
    }

    async fn find_missing_blobs(
        &self,
        request: Request<v1::FindMissingBlobsRequest>,
    ) -> Result<Response<v1::FindMissingBlobsResponse>, Status> {
        let disk = lock(&self.disk);
        let there = |digest: &String| digest.parse().is_ok_and(|digest| disk.blobs.contains(&digest));
        let missing = request.into_inner().digests.into_iter().filter(|digest| !there(digest)).collect();
        Ok(Response::new(v1::FindMissingBlobsResponse { missing }))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<v1::PutBlobRequest>>,
    ) -> Result<Response<v1::PutBlobResponse>, Status> {
        let mut stream = request.into_inner();
        let (mut header, mut bytes) = (v1::BlobHeader::default(), Vec::new());
        while let Some(message) = stream.message().await? {
            header = message.header.unwrap_or(header);
            bytes.extend_from_slice(&message.data);
        }
        let digest = Digest::of(&bytes);
        if digest.to_string() != header.digest {
            return Err(Status::invalid_argument("WRONG_DIGEST"));
        }
        lock(&self.disk).blobs.insert(digest);
        lock(&self.seen).uploads += 1;
        Ok(Response::new(v1::PutBlobResponse { digest: header.digest, received_bytes: bytes.len() as u64 }))
    }

    async fn start_run(
        &self,
        request: Request<v1::StartRunRequest>,
    ) -> Result<Response<v1::StartRunResponse>, Status> {
        self.hang_if_mute().await;
        self.accept(&request.into_inner())?;
        let unanswered = {
            let mut faults = self.faults();
            let unanswered = faults.start_unanswered > 0;
            faults.start_unanswered = faults.start_unanswered.saturating_sub(1);
            unanswered
        };
        if unanswered {
            self.cut();
            std::future::pending::<()>().await;
        }
        Ok(Response::new(v1::StartRunResponse::default()))
    }

    type WatchRunStream = Answers<v1::WatchRunResponse>;

    async fn watch_run(
        &self,
        request: Request<v1::WatchRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        use v1::watch_run_response::Message;
        let request = request.into_inner();
        let (events, mut count) = self.with_run(&request.run_id, &request.controller_id, |run| {
            (run.events.clone(), run.count.subscribe())
        })?;
        if request.after_sequence > lock(&events).len() as u64 {
            return Err(refusal(Code::OutOfRange, "PAST_END", ErrorDetails::new()));
        }
        lock(&self.seen).watches += 1;
        let (sender, receiver) = mpsc::channel(4);
        let worker = self.clone();
        kit::task::spawn("fake watch", async move {
            let mut next = usize::try_from(request.after_sequence).unwrap_or(usize::MAX);
            loop {
                worker.hang_if_mute().await;
                count.borrow_and_update();
                let event = lock(&events).get(next).cloned();
                let message = match event {
                    Some(event) => {
                        next += 1;
                        Message::Event(event)
                    }
                    None => match tokio::time::timeout(BEAT, count.changed()).await {
                        Ok(Ok(())) => continue,
                        // The worker forgot the run: the stream breaks.
                        Ok(Err(_)) => return,
                        Err(_) => Message::Heartbeat(v1::Heartbeat { last_sequence: next as u64 }),
                    },
                };
                let last =
                    matches!(&message, Message::Event(v1::Event { kind: Some(Kind::Finished(_)), .. }));
                let sent = sender.send(Ok(v1::WatchRunResponse { message: Some(message) })).await;
                if last || sent.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_run(
        &self,
        request: Request<v1::GetRunRequest>,
    ) -> Result<Response<v1::GetRunResponse>, Status> {
        let request = request.into_inner();
        let run = self.with_run(&request.run_id, &request.controller_id, |run| {
            let finished = self.finished_of(run);
            let state = if finished.is_some() { v1::RunState::Finished } else { v1::RunState::Running };
            let last_sequence = lock(&run.events).len() as u64;
            v1::Run {
                run_id: request.run_id.clone(),
                state: state.into(),
                last_sequence,
                finished,
                ..v1::Run::default()
            }
        })?;
        Ok(Response::new(v1::GetRunResponse { run: Some(run) }))
    }

    async fn list_runs(
        &self,
        _: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        Ok(Response::new(v1::ListRunsResponse::default()))
    }

    async fn cancel_run(
        &self,
        request: Request<v1::CancelRunRequest>,
    ) -> Result<Response<v1::CancelRunResponse>, Status> {
        let request = request.into_inner();
        lock(&self.seen).cancelled.insert(request.run_id.clone());
        let known = self.with_run(&request.run_id, &request.controller_id, |run| run.cancel.cancel());
        if known.is_err() {
            lock(&self.disk).tombstones.insert(request.run_id);
        }
        Ok(Response::new(v1::CancelRunResponse::default()))
    }

    type ReadArtifactStream = Answers<v1::ReadArtifactResponse>;

    async fn read_artifact(
        &self,
        request: Request<v1::ReadArtifactRequest>,
    ) -> Result<Response<Self::ReadArtifactStream>, Status> {
        let request = request.into_inner();
        self.with_run(&request.run_id, &request.controller_id, |_| ())?;
        let found = lock(&self.artifacts).iter().find(|(name, _)| *name == request.name).cloned();
        let Some((_, mut bytes)) = found else { return Err(Status::not_found("NO_SUCH_ARTIFACT")) };
        lock(&self.seen).offsets.push(request.offset);
        let (surplus, cut) = {
            let mut faults = self.faults();
            (faults.artifact_surplus, faults.artifact_cuts.pop_front())
        };
        if surplus {
            bytes = [bytes.as_ref(), b"more"].concat().into();
        }
        let from = usize::try_from(request.offset).unwrap_or(usize::MAX);
        if from > bytes.len() {
            return Err(refusal(Code::OutOfRange, "PAST_END", ErrorDetails::new()));
        }
        let to = cut.map_or(bytes.len(), |cut| cut.clamp(from, bytes.len()));
        let sent = bytes.slice(from..to);
        let chunks: Vec<_> = sent
            .chunks(proto::CHUNK_BYTES)
            .map(|chunk| Ok(v1::ReadArtifactResponse { artifact: None, data: Bytes::copy_from_slice(chunk) }))
            .collect();
        let worker = self.clone();
        let end = futures_util::stream::once(async move {
            if cut.is_some() {
                // What was sent arrives before the cut.
                tokio::time::sleep(Duration::from_millis(30)).await;
                worker.cut();
            }
            None
        });
        let answers = futures_util::stream::iter(chunks.into_iter().map(Some)).chain(end);
        Ok(Response::new(Box::pin(answers.filter_map(std::future::ready))))
    }

    async fn release_run(
        &self,
        request: Request<v1::ReleaseRunRequest>,
    ) -> Result<Response<v1::ReleaseRunResponse>, Status> {
        let request = request.into_inner();
        let last = self.with_run(&request.run_id, &request.controller_id, |run| {
            let finished = self.finished_of(run).is_some();
            finished.then(|| lock(&run.events).len() as u64)
        });
        match last {
            Ok(Some(last)) if last == request.last_sequence => {
                let mut disk = lock(&self.disk);
                disk.runs.remove(&request.run_id);
                disk.tombstones.insert(request.run_id.clone());
                lock(&self.seen).released.insert(request.run_id);
                Ok(Response::new(v1::ReleaseRunResponse {}))
            }
            Ok(_) => Err(refusal(Code::FailedPrecondition, "WRONG_LAST_SEQUENCE", ErrorDetails::new())),
            Err(status) if status.code() == Code::FailedPrecondition => {
                Ok(Response::new(v1::ReleaseRunResponse {}))
            }
            Err(status) => Err(status),
        }
    }

    async fn join(&self, _: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        Err(Status::unimplemented("nobody joins this worker"))
    }

    async fn leave(&self, _: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        Err(Status::unimplemented("nobody joined this worker"))
    }

    async fn drain(&self, _: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        self.faults().draining = true;
        Ok(Response::new(v1::DrainResponse::default()))
    }
}

#[tonic::async_trait]
impl Dialer for FakeWorker {
    async fn dial(&self) -> Result<Channel, FleetError> {
        let unreachable =
            |detail: String| FleetError::Unreachable { worker: self.shape.name.clone(), detail };
        if self.faults().away {
            lock(&self.seen).dials += 1;
            return Err(unreachable("nobody listens".to_owned()));
        }
        let (ours, theirs) = UnixStream::pair().map_err(|e| unreachable(e.to_string()))?;
        let worker = self.clone();
        kit::task::spawn("connection", async move { worker.serve(theirs).await });
        over(ours).await.map_err(|e| unreachable(e.to_string()))
    }

    fn name(&self) -> String {
        self.shape.name.clone()
    }
}
