//! Every run on this worker: ownership, cancel, release, retention; `admission` is the way in. It holds handles, not
//! runs: each run is its driver's.

use std::{
    collections::BTreeMap,
    path::PathBuf,
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
    task::TaskTracker,
};
use proto::v1::{Event, Label, Run, RunState, event::Kind};
use tokio::sync::watch;

use super::{
    RunId,
    handle::RunHandle,
    ledger::Ledger,
    record,
    seams::{BackendParts, GpuMeter, ImageError, SlotSource},
    spec::{LimitRules, SpecError},
    spool::SpoolError,
    tombstones::{Tombstone, Tombstones},
};
use crate::{blobs::Blobs, datasets::Store, packages::Packages};

/// Runs on disk at most, finished ones included: unreleased ones are never dropped to make room.
pub(super) const RUNS_MAX: usize = 10_000;
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
    pub backends: Vec<BackendParts>,
    /// Of this machine.
    pub slots: Arc<dyn SlotSource>,
    /// Readings.
    pub gpus: Arc<dyn GpuMeter>,
    /// Input files.
    pub blobs: Arc<Blobs>,
    /// That runs may name.
    pub data_sets: Store,
    /// What runs install.
    pub packages: Packages,
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
    pub(super) admission: tokio::sync::Mutex<()>,
    pub(super) ledger: Arc<Ledger>,
    draining: AtomicBool,
    /// Runs that have not ended.
    pub(super) unfinished: watch::Sender<usize>,
    pub(super) drivers: TaskTracker,
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

    /// Of every controller's runs.
    #[must_use]
    pub fn states(&self) -> Vec<RunState> {
        lock(&self.runs).values().map(|run| run.published.borrow().state.wire()).collect()
    }

    /// Disk that running runs may still fill.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        self.ledger.reserved()
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
                // Who hears that it was taken need not ask again, also where this process is killed just now.
                if !run.is_finished() && !run.cancel.is_cancelled() {
                    record::save_cancel(&run.folder)?;
                }
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
        kit::halt::at("worker.release");
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
                if let Err(error) = record::save_cancel(&run.folder) {
                    tracing::error!(run = %run.id, %error, "a worker that is killed now would not know of the cancel");
                }
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

/// Whether an event ends a run's stream.
#[must_use]
pub fn is_last(event: &Event) -> bool {
    matches!(event.kind, Some(Kind::Finished(_)))
}
