//! The gRPC face: each call is decoded, makes one call to the domain, and is encoded. No handler owns anything
//! that must outlive it.
//!
//! `status` is the one place where errors become statuses; `watch`, `transfer`, `describe` and `membership` hold the
//! calls that are more than a line.

/// `GetWorker`.
pub mod describe;
/// Joining and leaving, and whose runs a call is about.
pub mod membership;
/// Errors to statuses.
pub mod status;
/// Blobs and artifacts.
pub mod transfer;
/// `WatchRun`.
pub mod watch;

use std::{pin::Pin, str::FromStr, sync::Arc, time::Duration};

use futures_util::Stream;
use kit::{digest::Digest, task::CancellationToken};
use proto::v1::{
    self, CancelRunRequest, CancelRunResponse, DrainRequest, DrainResponse, FindMissingBlobsRequest,
    FindMissingBlobsResponse, GetRunRequest, GetRunResponse, GetWorkerRequest, GetWorkerResponse, ImageStep,
    JoinRequest, JoinResponse, LeaveRequest, LeaveResponse, ListRunsRequest, ListRunsResponse, Machine,
    PrepareImageRequest, PrepareImageResponse, PutBlobRequest, PutBlobResponse, ReadArtifactRequest,
    ReadArtifactResponse, ReleaseRunRequest, ReleaseRunResponse, RunState, StartRunRequest, StartRunResponse,
    WatchRunRequest, WatchRunResponse, prepare_image_response, worker_service_server::WorkerService,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::server::HealthReporter;
use tracing::Instrument as _;

use self::status::CallError;
use crate::run::{
    RunId,
    registry::{FINISH_WAIT, Registry, StartError},
    spec::check_label_filter,
};

/// The name under which health is asked for.
pub const SERVICE_NAME: &str = "autoresearch.worker.v1.WorkerService";
/// Messages that wait in a stream for a slow reader.
const STREAM_BUFFER: usize = 2;
/// Steps of an image that wait.
const STEP_BUFFER: usize = 16;
/// Digests in one question.
const DIGESTS_MAX: usize = 1000;

/// Who the worker is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Made with the state folder.
    pub worker_id: String,
    /// The kernel's.
    pub boot_id: String,
    /// Random for each start.
    pub process_id: String,
}

/// The face.
#[derive(Clone)]
pub struct Service {
    registry: Arc<Registry>,
    identity: Identity,
    machine: Machine,
    health: HealthReporter,
    shutdown: CancellationToken,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Service {
    /// Over a registry. `shutdown` closes the streams.
    #[must_use]
    pub fn new(
        registry: Arc<Registry>,
        identity: Identity,
        machine: Machine,
        health: HealthReporter,
        shutdown: CancellationToken,
    ) -> Self {
        Self { registry, identity, machine, health, shutdown }
    }

    fn now(&self) -> Duration {
        self.registry.options().clock.monotonic()
    }
}

fn run_id(text: &str) -> Result<RunId, CallError> {
    let id = RunId::from_str(text).map_err(|error| CallError::field("run_id", error))?;
    if id.uuid().get_version_num() != 7 {
        return Err(CallError::field("run_id", format!("`{text}` is a UUID, but not of version 7")));
    }
    Ok(id)
}

pub(crate) fn controller_id(text: &str) -> Result<&str, CallError> {
    let good = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if good {
        Ok(text)
    } else {
        Err(CallError::field("controller_id", "must be 1 to 64 of A-Z a-z 0-9 . _ -"))
    }
}

type Answer<T> = Result<Response<T>, Status>;
type AnswerStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn stream<T: Send + 'static>(receiver: mpsc::Receiver<Result<T, Status>>) -> Response<AnswerStream<T>> {
    Response::new(Box::pin(ReceiverStream::new(receiver)))
}

#[tonic::async_trait]
impl WorkerService for Service {
    type PrepareImageStream = AnswerStream<PrepareImageResponse>;
    type WatchRunStream = AnswerStream<WatchRunResponse>;
    type ReadArtifactStream = AnswerStream<ReadArtifactResponse>;

    async fn get_worker(&self, _: Request<GetWorkerRequest>) -> Answer<GetWorkerResponse> {
        Ok(Response::new(describe::worker(&self.registry, &self.identity, &self.machine).await))
    }

    async fn prepare_image(&self, request: Request<PrepareImageRequest>) -> Answer<Self::PrepareImageStream> {
        let PrepareImageRequest { name, backend } = request.into_inner();
        kit::name::check_name(&name).map_err(|error| CallError::field("name", error))?;
        let images =
            self.registry.backend(&backend).map_err(StartError::from).map_err(CallError::from)?.images;
        // An unknown name is a status and not a stream.
        images.find(&name).await.map_err(CallError::from)?;
        let (out, receiver) = mpsc::channel(STREAM_BUFFER);
        let (steps, seen) = mpsc::channel(STEP_BUFFER);
        // The work is nobody's stream: it goes on when this one is dropped.
        let work = kit::task::spawn("prepare image", async move { images.prepare(&name, steps).await });
        let shutdown = self.shutdown.clone();
        kit::task::spawn("tell image steps", async move {
            tokio::select! {
                () = tell_steps(work, seen, &out) => {}
                () = shutdown.cancelled() => { out.try_send(Err(CallError::Stopping.into())).ok(); }
            }
        });
        Ok(stream(receiver))
    }

    async fn find_missing_blobs(
        &self,
        request: Request<FindMissingBlobsRequest>,
    ) -> Answer<FindMissingBlobsResponse> {
        let asked = request.into_inner().digests;
        if asked.len() > DIGESTS_MAX {
            let problem = format!("are {}; at most {DIGESTS_MAX}", asked.len());
            return Err(CallError::field("digests", problem).into());
        }
        let mut digests = Vec::with_capacity(asked.len());
        for (index, text) in asked.iter().enumerate() {
            let digest =
                Digest::from_str(text).map_err(|e| CallError::field(&format!("digests[{index}]"), e))?;
            digests.push(digest);
        }
        let missing = self.registry.options().blobs.find_missing(&digests);
        let missing = missing.iter().map(ToString::to_string).collect();
        Ok(Response::new(FindMissingBlobsResponse { missing }))
    }

    async fn put_blob(&self, request: Request<Streaming<PutBlobRequest>>) -> Answer<PutBlobResponse> {
        let blobs = &self.registry.options().blobs;
        transfer::put_blob(blobs, request.into_inner()).await.map(Response::new)
    }

    async fn start_run(&self, request: Request<StartRunRequest>) -> Answer<StartRunResponse> {
        let parent = request.metadata().get("traceparent").cloned();
        let (caller, request) = membership::split(request);
        let id = run_id(&request.run_id)?;
        let span = tracing::info_span!("StartRun", run_id = %id);
        kit::telemetry::follow(&span, parent.as_ref().and_then(|value| value.to_str().ok()));
        let owner = caller.owner(&request.controller_id)?.to_owned();
        if self.shutdown.is_cancelled() {
            return Err(CallError::Stopping.into());
        }
        // In a task of its own: a connection that drops halfway through an admission drops nothing.
        let registry = Arc::clone(&self.registry);
        let admission = async move { registry.start(id, &owner, &request.spec).await };
        let started = kit::task::spawn("start run", admission.instrument(span));
        let run = started.await.ok().flatten().ok_or(CallError::Stopping)?.map_err(CallError::from)?;
        Ok(Response::new(StartRunResponse { run: Some(run.wire(self.now())) }))
    }

    async fn watch_run(&self, request: Request<WatchRunRequest>) -> Answer<Self::WatchRunStream> {
        let (caller, request) = membership::split(request);
        let owner = caller.owner(&request.controller_id)?;
        let run = self.registry.get(run_id(&request.run_id)?, owner).map_err(CallError::from)?;
        let reader = watch::open(&run, request.after_sequence).await?;
        let (out, receiver) = mpsc::channel(STREAM_BUFFER);
        kit::task::spawn("watch run", watch::send(run, reader, out, self.shutdown.clone()));
        Ok(stream(receiver))
    }

    async fn get_run(&self, request: Request<GetRunRequest>) -> Answer<GetRunResponse> {
        let (caller, request) = membership::split(request);
        let owner = caller.owner(&request.controller_id)?;
        let run = self.registry.get(run_id(&request.run_id)?, owner).map_err(CallError::from)?;
        Ok(Response::new(GetRunResponse { run: Some(run.wire(self.now())) }))
    }

    async fn list_runs(&self, request: Request<ListRunsRequest>) -> Answer<ListRunsResponse> {
        let (caller, request) = membership::split(request);
        let owner = caller.owner(&request.controller_id)?;
        check_label_filter("labels", &request.labels).map_err(CallError::from)?;
        let states: Vec<RunState> = request.states().filter(|s| *s != RunState::Unspecified).collect();
        let runs = self.registry.list(owner, &states, &request.labels);
        Ok(Response::new(ListRunsResponse { runs }))
    }

    async fn cancel_run(&self, request: Request<CancelRunRequest>) -> Answer<CancelRunResponse> {
        let (caller, request) = membership::split(request);
        let owner = caller.owner(&request.controller_id)?;
        let run = self.registry.cancel(run_id(&request.run_id)?, owner).await.map_err(CallError::from)?;
        Ok(Response::new(CancelRunResponse { run: run.map(|run| run.wire(self.now())) }))
    }

    async fn read_artifact(&self, request: Request<ReadArtifactRequest>) -> Answer<Self::ReadArtifactStream> {
        let (caller, request) = membership::split(request);
        let owner = caller.owner(&request.controller_id)?;
        let run = self.registry.get(run_id(&request.run_id)?, owner).map_err(CallError::from)?;
        run.settle(FINISH_WAIT).await;
        let (artifact, path) = transfer::find_artifact(&run, &request.name, request.offset)?;
        let (out, receiver) = mpsc::channel(STREAM_BUFFER);
        kit::task::spawn("read artifact", async move {
            let send = move || transfer::send_artifact(&artifact, &path, request.offset, &out);
            kit::task::blocking("read artifact", send).await;
        });
        Ok(stream(receiver))
    }

    async fn release_run(&self, request: Request<ReleaseRunRequest>) -> Answer<ReleaseRunResponse> {
        let (caller, request) = membership::split(request);
        let owner = caller.owner(&request.controller_id)?;
        let id = run_id(&request.run_id)?;
        self.registry.release(id, owner, request.last_sequence).await.map_err(CallError::from)?;
        Ok(Response::new(ReleaseRunResponse {}))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Answer<DrainResponse> {
        let (caller, request) = membership::split(request);
        let running = caller.drain(&self.registry, request.cancel_running).await?;
        self.health.set_service_status(SERVICE_NAME, tonic_health::ServingStatus::NotServing).await;
        Ok(Response::new(DrainResponse { running: u32::try_from(running).unwrap_or(u32::MAX) }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Answer<JoinResponse> {
        let (caller, request) = membership::split(request);
        let expires_ns = caller.join(request).await?;
        Ok(Response::new(JoinResponse { worker_id: self.identity.worker_id.clone(), expires_ns }))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Answer<LeaveResponse> {
        membership::split(request).0.leave().await?;
        Ok(Response::new(LeaveResponse {}))
    }
}

type ImageWork = kit::task::Handle<Result<v1::Image, crate::run::seams::ImageError>>;

/// Passes steps on, repeats the last one every 5 s, and ends with the image.
async fn tell_steps(
    mut work: ImageWork,
    mut steps: mpsc::Receiver<ImageStep>,
    out: &mpsc::Sender<Result<PrepareImageResponse, Status>>,
) {
    use prepare_image_response::Message;
    let step_of = |step| Ok(PrepareImageResponse { message: Some(Message::Step(step)) });
    let mut last = ImageStep { name: "begin".to_owned(), ..ImageStep::default() };
    loop {
        let next = tokio::select! {
            biased;
            Some(step) = steps.recv() => { last = step; step_of(last.clone()) }
            ended = &mut work => {
                let result = match ended.ok().flatten() {
                    Some(Ok(image)) => Ok(PrepareImageResponse { message: Some(Message::Image(image)) }),
                    Some(Err(error)) => Err(CallError::from(error).into()),
                    None => Err(CallError::Internal("preparing an image stopped".to_owned()).into()),
                };
                out.send(result).await.ok();
                return;
            }
            () = tokio::time::sleep(watch::HEARTBEAT_EVERY) => step_of(last.clone()),
        };
        if out.send(next).await.is_err() {
            // Steps must still be taken, so that the work is not held up.
            while steps.recv().await.is_some() {}
            return;
        }
    }
}
