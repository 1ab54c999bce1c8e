//! Every run on this worker: admission, idempotency, ownership, cancel, release, retention. It holds handles, not
//! runs: each run is its driver's.
//!
//! Admission is one at a time, in this order: who has the id already (same bytes: the same run; others: refused), who had
//! it (a tombstone), then what the run needs (image, blobs, slot, disk), then the intent on disk, then the driver.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use kit::{
    clock::{Clock, wall_ns},
    digest::Digest,
    folder::FolderError,
    task::{CancellationToken, TaskTracker},
};
use prost::Message as _;
use proto::v1::{Event, Label, Run, RunSpec, RunState, StateChange, event::Kind};
use tokio::sync::{mpsc, watch};

use super::{
    RunId,
    driver::{Driver, DriverParts},
    handle::{Published, RunHandle},
    ledger::{Ledger, disk_free},
    record::{self, Record},
    recorder::{self, Progress, Recorder},
    seams::{GpuMeter, ImageError, ImageSource, SlotSource},
    spec::{self, CheckedSpec, LimitRules, RunLimits, SpecError, Violation},
    spool::{SpoolError, SpoolWriter},
    state::State,
    tombstones::{Tombstone, Tombstones},
};
use crate::{
    blobs::Blobs,
    sandbox::{Backend, SandboxId},
};

/// A spec's bytes at most.
const SPEC_BYTES_MAX: usize = 1 << 20;
/// Runs on disk at most, finished ones included: unreleased ones are never dropped to make room.
const RUNS_MAX: usize = 10_000;
/// For a watcher or a call that comes between the last event and its publication.
pub(crate) const FINISH_WAIT: Duration = Duration::from_secs(5);

/// What a registry is made with.
#[derive(Debug)]
pub struct RegistryOptions {
    /// `runs/`.
    pub runs_dir: PathBuf,
    /// `tombstones`.
    pub tombstones: PathBuf,
    /// The kernel's.
    pub boot_id: String,
    /// The first one is the default.
    pub backends: Vec<Arc<dyn Backend>>,
    /// By name.
    pub images: Arc<dyn ImageSource>,
    /// Of this machine.
    pub slots: Arc<dyn SlotSource>,
    /// Readings.
    pub gpus: Arc<dyn GpuMeter>,
    /// Input files.
    pub blobs: Arc<Blobs>,
    /// Of runs.
    pub rules: LimitRules,
    /// Unreleased runs are kept for so long.
    pub retention: Duration,
    /// For limits and times.
    pub clock: Arc<dyn Clock>,
}

/// Every run on this worker.
#[derive(Debug)]
pub struct Registry {
    pub(super) options: RegistryOptions,
    pub(super) runs: Mutex<BTreeMap<RunId, Arc<RunHandle>>>,
    pub(super) tombstones: Mutex<Tombstones>,
    /// One admission at a time.
    admission: tokio::sync::Mutex<()>,
    ledger: Arc<Ledger>,
    draining: AtomicBool,
    /// Runs that have not ended.
    unfinished: watch::Sender<usize>,
    drivers: TaskTracker,
    /// Seconds that workers on this folder have run.
    pub(super) running_s: Arc<AtomicU64>,
}

/// Why no run was made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The request is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The same id with other bytes, or of another controller.
    #[error("run {0} is there already, with another spec or of another controller")]
    Exists(RunId),
    /// It has a tombstone.
    #[error("run {0} was here and is forgotten")]
    Forgotten(RunId),
    /// No new runs.
    #[error("the worker drains: it takes no new runs")]
    Draining,
    /// An image that is not on the allow-list, or no engine.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// It must be prepared first.
    #[error("image {0} is not prepared: call PrepareImage first")]
    ImageNotPrepared(String),
    /// Put them first.
    #[error("{} input files are not there", .0.len())]
    MissingBlobs(Vec<Digest>),
    /// Try again later.
    #[error("no slot is free")]
    NoSlot,
    /// Try again later.
    #[error("the run may come to need {wanted} of disk, and {free} are free and not reserved")]
    NoDisk {
        /// By its limits.
        wanted: kit::size::Bytes,
        /// Now.
        free: kit::size::Bytes,
    },
    /// The caller has to release some.
    #[error("there are {RUNS_MAX} runs on this worker: release some")]
    TooMany,
    /// The worker's own disk.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The worker's own disk.
    #[error(transparent)]
    Record(#[from] record::RecordError),
    /// The worker's own disk.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The worker goes down.
    #[error("the worker is going down")]
    Stopping,
}

/// Why a run is not to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Never seen, or another's.
    #[error("no run {0}")]
    Unknown(RunId),
    /// It has a tombstone.
    #[error("run {0} was here and is forgotten")]
    Forgotten(RunId),
}

/// Why a run is not released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// No such run.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Only a finished one can be.
    #[error("run {0} has not finished")]
    Unfinished(RunId),
    /// The caller does not have everything.
    #[error("run {id} ends with sequence {last}, and {given} was given")]
    Sequence {
        /// Which one.
        id: RunId,
        /// Its last.
        last: u64,
        /// By the caller.
        given: u64,
    },
    /// The worker's own disk.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// Over what recovery found.
    pub(super) fn new(
        options: RegistryOptions,
        tombstones: Tombstones,
        runs: BTreeMap<RunId, Arc<RunHandle>>,
        running_s: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            options,
            runs: Mutex::new(runs),
            tombstones: Mutex::new(tombstones),
            admission: tokio::sync::Mutex::new(()),
            ledger: Arc::new(Ledger::default()),
            draining: AtomicBool::new(false),
            unfinished: watch::Sender::new(0),
            drivers: TaskTracker::new(),
            running_s: Arc::new(AtomicU64::new(running_s)),
        })
    }

    /// What it was made with.
    #[must_use]
    pub fn options(&self) -> &RegistryOptions {
        &self.options
    }

    /// How many runs have not ended; wakes when that changes.
    #[must_use]
    pub fn unfinished(&self) -> watch::Receiver<usize> {
        self.unfinished.subscribe()
    }

    /// Seconds that workers on this folder have run: what retention counts.
    #[must_use]
    pub fn running_s(&self) -> &AtomicU64 {
        &self.running_s
    }

    /// The worker has run for so long more.
    pub fn ran_for(&self, time: Duration) {
        self.running_s.fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    /// Whether new runs are refused.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Starts a run, or answers the one that has this id and these bytes.
    ///
    /// # Errors
    /// [`StartError`]: no run was made, and nothing of one is left.
    pub async fn start(
        self: &Arc<Self>,
        run_id: RunId,
        controller_id: &str,
        spec_bytes: &[u8],
    ) -> Result<Arc<RunHandle>, StartError> {
        let spec_digest = Digest::of(spec_bytes);
        let _one_at_a_time = self.admission.lock().await;
        if let Some(run) = lock(&self.runs).get(&run_id) {
            let same = run.controller_id == controller_id && run.spec_digest == spec_digest;
            return if same { Ok(Arc::clone(run)) } else { Err(StartError::Exists(run_id)) };
        }
        if lock(&self.tombstones).get(run_id).is_some() {
            return Err(StartError::Forgotten(run_id));
        }
        if self.is_draining() {
            return Err(StartError::Draining);
        }
        let spec = decode_spec(spec_bytes, &self.options.rules)?;
        self.check_possible(&spec)?;
        let image = self.options.images.find(&spec.image).await?;
        if !image.prepared {
            return Err(StartError::ImageNotPrepared(spec.image));
        }
        let (files, missing) = self.find_files(&spec);
        if !missing.is_empty() {
            return Err(StartError::MissingBlobs(missing));
        }
        if lock(&self.runs).len() >= RUNS_MAX {
            return Err(StartError::TooMany);
        }
        let lease = self.options.slots.take(run_id, spec.gpus).ok_or(StartError::NoSlot)?;
        let limits = self.options.rules.resolve(&spec.limits, lease.memory_bytes, lease.cpu_millis);
        check_together(&limits)?;
        let (wanted, free) = (limits.disk_reservation(), disk_free(&self.options.runs_dir)?);
        let reservation = self.ledger.reserve(wanted, free).ok_or_else(|| StartError::NoDisk {
            wanted: kit::size::Bytes(wanted),
            free: kit::size::Bytes(free.saturating_sub(self.ledger.reserved())),
        })?;
        let backend = self.backend(&spec.backend)?;
        let record = Record {
            version: Record::version(),
            run_id,
            controller_id: controller_id.to_owned(),
            spec_digest,
            accepted_wall_ns: wall_ns(self.options.clock.wall()),
            boot_id: self.options.boot_id.clone(),
            accepted_monotonic: self.options.clock.monotonic(),
            sandbox_id: SandboxId::new(),
            backend: backend.name().to_owned(),
            image_id: image.image_id,
            slot: lease.grant.index,
            limits: limits.clone(),
            gate_monotonic: None,
            reason: None,
            finished: false,
            finished_at_running_s: 0,
        };
        let folder = self.options.runs_dir.join(run_id.to_string());
        let spool = {
            let (folder, record, bytes) = (folder.clone(), record.clone(), spec_bytes.to_vec());
            kit::task::blocking("accept run", move || accept(&folder, &record, &bytes))
                .await
                .ok_or(StartError::Stopping)??
        };
        let synced = spool.synced();
        let published = watch::Sender::new(Published {
            state: State::Accepted,
            gate: None,
            elapsed: None,
            finished: None,
            spool_damaged: false,
        });
        let handle = Arc::new(RunHandle {
            id: run_id,
            controller_id: controller_id.to_owned(),
            spec_digest,
            labels: spec.labels.clone(),
            folder: folder.clone(),
            accepted_wall_ns: record.accepted_wall_ns,
            slot: record.slot,
            published: published.subscribe(),
            synced,
            cancel: CancellationToken::new(),
            finished_at_running_s: AtomicU64::new(0),
        });
        let (orders, inbox) = mpsc::channel(recorder::INBOX);
        let progress = watch::Sender::new(Progress::default());
        let parts = DriverParts {
            folder,
            run_json: run_json(&spec, &limits),
            files,
            lease,
            reservation: Some(reservation),
            backend,
            slots: Arc::clone(&self.options.slots),
            gpus: Arc::clone(&self.options.gpus),
            clock: Arc::clone(&self.options.clock),
            recorder: orders,
            progress: progress.subscribe(),
            published,
            cancel: handle.cancel.clone(),
            running_s: Arc::clone(&self.running_s),
            record,
            spec,
        };
        let recorder = Recorder::new(spool, Arc::clone(&self.options.clock), &parts.spec, limits);
        kit::task::spawn("recorder", recorder::run(recorder, inbox, progress));
        lock(&self.runs).insert(run_id, Arc::clone(&handle));
        self.unfinished.send_modify(|count| *count += 1);
        let (registry, run) = (Arc::clone(self), Arc::clone(&handle));
        kit::task::spawn_tracked(&self.drivers, "run", async move {
            Driver::new(parts).run().await;
            run.finished_at_running_s.store(registry.running_s.load(Ordering::Relaxed), Ordering::Relaxed);
            registry.unfinished.send_modify(|count| *count = count.saturating_sub(1));
        });
        Ok(handle)
    }

    fn backend(&self, name: &str) -> Result<Arc<dyn Backend>, StartError> {
        let mut backends = self.options.backends.iter();
        let found = if name.is_empty() { backends.next() } else { backends.find(|b| b.name() == name) };
        found.cloned().ok_or_else(|| {
            let problem = match name {
                "" => "this worker has no backend: see `autoresearch-worker doctor`".to_owned(),
                name => format!("`{name}` does not work on this worker"),
            };
            StartError::Spec(SpecError(vec![Violation { field: "spec.backend".to_owned(), problem }]))
        })
    }

    /// What no slot of this worker will ever be able to do is a wrong request.
    fn check_possible(&self, spec: &CheckedSpec) -> Result<(), SpecError> {
        let mut wrong = Vec::new();
        if !self.options.slots.could_ever(spec.gpus) {
            let most = self.options.slots.view().iter().map(|slot| slot.gpu_uuids.len()).max().unwrap_or(0);
            let problem = format!("is {}; a slot of this worker has at most {most} GPUs", spec.gpus);
            wrong.push(Violation { field: "spec.gpus".to_owned(), problem });
        }
        for (index, name) in spec.data_sets.iter().enumerate() {
            let problem = format!("this worker has no data set `{name}`");
            wrong.push(Violation { field: format!("spec.data_sets[{index}]"), problem });
        }
        if wrong.is_empty() { Ok(()) } else { Err(SpecError(wrong)) }
    }

    fn find_files(&self, spec: &CheckedSpec) -> (Vec<(String, PathBuf)>, Vec<Digest>) {
        let (mut files, mut missing) = (Vec::new(), Vec::new());
        for input in &spec.inputs {
            match self.options.blobs.find(&input.digest) {
                Some(path) => files.push((input.path.clone(), path)),
                None => missing.push(input.digest),
            }
        }
        missing.sort_unstable();
        missing.dedup();
        (files, missing)
    }

    /// A run of this controller.
    ///
    /// # Errors
    /// [`LookupError`]; another controller's run is unknown.
    pub fn get(&self, run_id: RunId, controller_id: &str) -> Result<Arc<RunHandle>, LookupError> {
        if let Some(run) = lock(&self.runs).get(&run_id) {
            return if run.controller_id == controller_id {
                Ok(Arc::clone(run))
            } else {
                Err(LookupError::Unknown(run_id))
            };
        }
        match lock(&self.tombstones).get(run_id) {
            Some(stone) if stone.controller_id == controller_id => Err(LookupError::Forgotten(run_id)),
            _ => Err(LookupError::Unknown(run_id)),
        }
    }

    /// The controller's runs, oldest first.
    #[must_use]
    pub fn list(&self, controller_id: &str, states: &[RunState], labels: &[Label]) -> Vec<Run> {
        let now = self.options.clock.monotonic();
        let runs = lock(&self.runs);
        let mine = runs.values().filter(|run| run.controller_id == controller_id);
        mine.filter(|run| labels.iter().all(|label| run.labels.contains(label)))
            .map(|run| run.wire(now))
            .filter(|run| states.is_empty() || states.contains(&run.state()))
            .collect()
    }

    /// Who has which slot, for its owner's eyes.
    #[must_use]
    pub fn is_owner(&self, run_id: RunId, controller_id: &str) -> bool {
        self.get(run_id, controller_id).is_ok()
    }

    /// Asks a run to end. An id never seen leaves a tombstone, so that a `StartRun` that comes later makes no run.
    ///
    /// # Errors
    /// Another's run, or the worker's own disk.
    pub async fn cancel(
        &self,
        run_id: RunId,
        controller_id: &str,
    ) -> Result<Option<Arc<RunHandle>>, ReleaseError> {
        // Not between the look-ups of an admission.
        let _one_at_a_time = self.admission.lock().await;
        match self.get(run_id, controller_id) {
            Ok(run) => {
                run.cancel.cancel();
                Ok(Some(run))
            }
            Err(LookupError::Forgotten(_)) => Ok(None),
            Err(unknown) => {
                if lock(&self.runs).contains_key(&run_id) {
                    return Err(unknown.into());
                }
                self.bury(run_id, controller_id, String::new(), String::new())?;
                Ok(None)
            }
        }
    }

    /// Forgets a run whose caller has everything. Idempotent.
    ///
    /// # Errors
    /// [`ReleaseError`].
    pub async fn release(
        &self,
        run_id: RunId,
        controller_id: &str,
        last_sequence: u64,
    ) -> Result<(), ReleaseError> {
        let run = match self.get(run_id, controller_id) {
            Err(LookupError::Forgotten(_)) => return Ok(()),
            other => other?,
        };
        run.settle(FINISH_WAIT).await;
        if !run.is_finished() {
            return Err(ReleaseError::Unfinished(run_id));
        }
        let published = run.published.borrow().clone();
        let last = *run.synced.borrow();
        if last != last_sequence && !published.spool_damaged {
            return Err(ReleaseError::Sequence { id: run_id, last, given: last_sequence });
        }
        self.forget(&run)
    }

    /// Puts a tombstone up, then removes the folder: a kill between the two leaves a folder that the next start
    /// removes.
    pub(super) fn forget(&self, run: &RunHandle) -> Result<(), ReleaseError> {
        let outcome = run
            .published
            .borrow()
            .finished
            .as_ref()
            .and_then(|finished| finished.outcome.as_ref())
            .map(|outcome| outcome.kind().as_str_name().to_owned())
            .unwrap_or_default();
        self.bury(run.id, &run.controller_id, run.spec_digest.to_string(), outcome)?;
        lock(&self.runs).remove(&run.id);
        match std::fs::remove_dir_all(&run.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(FolderError::io("remove", &run.folder, error).into())
            }
            _ => Ok(()),
        }
    }

    fn bury(
        &self,
        id: RunId,
        controller_id: &str,
        spec_digest: String,
        outcome: String,
    ) -> Result<(), FolderError> {
        let wall_ns = wall_ns(self.options.clock.wall());
        let controller_id = controller_id.to_owned();
        lock(&self.tombstones).put(Tombstone { id, spec_digest, controller_id, outcome, wall_ns })
    }

    /// No new runs from now on. Gives how many have not ended.
    pub fn drain(&self, cancel_running: bool) -> usize {
        self.draining.store(true, Ordering::Relaxed);
        if cancel_running {
            for run in lock(&self.runs).values().filter(|run| !run.is_finished()) {
                run.cancel.cancel();
            }
        }
        *self.unfinished.borrow()
    }

    /// Forgets finished runs past their retention. Called now and then.
    pub fn retire(&self) {
        let now = self.running_s.load(Ordering::Relaxed);
        let old: Vec<Arc<RunHandle>> = lock(&self.runs)
            .values()
            .filter(|run| run.is_finished())
            .filter(|run| {
                let age = now.saturating_sub(run.finished_at_running_s.load(Ordering::Relaxed));
                age > self.options.retention.as_secs()
            })
            .cloned()
            .collect();
        for run in old {
            tracing::info!(run = %run.id, "past its retention: forgotten");
            if let Err(error) = self.forget(&run) {
                tracing::warn!(%error, "a run past its retention cannot be removed");
            }
        }
    }
}

fn decode_spec(bytes: &[u8], rules: &LimitRules) -> Result<CheckedSpec, SpecError> {
    let wrong = |problem: String| SpecError(vec![Violation { field: "spec".to_owned(), problem }]);
    if bytes.len() > SPEC_BYTES_MAX {
        return Err(wrong(format!("is {} bytes; at most {SPEC_BYTES_MAX}", bytes.len())));
    }
    let spec = RunSpec::decode(bytes).map_err(|error| wrong(format!("is no RunSpec: {error}")))?;
    spec::check(spec, rules)
}

/// What only the resolved limits show.
fn check_together(limits: &RunLimits) -> Result<(), SpecError> {
    if limits.shm_bytes > limits.memory_bytes {
        let problem =
            format!("is {}; it is counted in the memory of {}", limits.shm_bytes, limits.memory_bytes);
        return Err(SpecError(vec![Violation { field: "spec.limits.shm_bytes".to_owned(), problem }]));
    }
    Ok(())
}

/// The intent on disk: spec, record, first event. All of it synced, or nothing of it left.
fn accept(folder: &Path, record: &Record, spec: &[u8]) -> Result<SpoolWriter, StartError> {
    let work = || -> Result<SpoolWriter, StartError> {
        kit::folder::create_private(folder)?;
        record::save_spec(folder, spec)?;
        record.save(folder)?;
        let mut spool = SpoolWriter::create(folder, record.run_id)?;
        let change = StateChange { state: RunState::Accepted.into(), detail: String::new() };
        spool.append(record.accepted_wall_ns, 0, Kind::StateChange(change))?;
        spool.sync()?;
        kit::folder::sync_parent(folder).map_err(|e| FolderError::io("sync", folder, e))?;
        Ok(spool)
    };
    work().inspect_err(|_| {
        // The first error is the one to tell; a folder that stays is removed at the next start.
        std::fs::remove_dir_all(folder).ok();
    })
}

/// What the runner reads in `in/run.json`.
fn run_json(spec: &CheckedSpec, limits: &RunLimits) -> Vec<u8> {
    let program = spec.inputs.iter().find(|input| input.program).map(|input| input.path.as_str());
    let data = spec.inputs.iter().filter(|input| !input.program);
    let datasets: serde_json::Map<String, serde_json::Value> =
        data.map(|input| (input.path.clone(), format!("/in/files/{}", input.path).into())).collect();
    let streams: serde_json::Map<String, serde_json::Value> =
        spec.stream_seeds.iter().map(|(name, seed)| (name.clone(), (*seed).into())).collect();
    serde_json::json!({
        "program": program,
        "params": spec.params,
        "seed": spec.seed,
        "streams": streams,
        "datasets": datasets,
        "time_limit_ms": limits.time_ms,
        "cpus": f64::from(limits.cpu_millis) / 1000.0,
        "smoke": spec.smoke,
    })
    .to_string()
    .into_bytes()
}

/// Whether an event ends a run's stream.
#[must_use]
pub fn is_last(event: &Event) -> bool {
    matches!(event.kind, Some(Kind::Finished(_)))
}
