//! Running an experiment's variants: seed by seed, variants shuffled within a seed, in parallel over free slots. Every
//! run is in the journal, with its devices reserved, before a worker hears of it; a run that was lost is started again
//! for the same seed under a new id, at most twice. What an outcome means is not decided here.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use futures_util::{StreamExt as _, stream};
use kit::task::CancellationToken;
use prost::Message as _;
use proto::v1;
use tokio::sync::{Notify, watch};

use crate::{
    fleet::{FleetError, RunEnd},
    journal::{
        BudgetError, CampaignId, EndedHere, Journal, JournalError, LogStream, NewRun, RunId, RunPurpose,
    },
};

use super::{
    lab::Lab,
    plan::Variant,
    progress::{Progress, Watchers},
    record::{Logged, Purpose, RunRecord, outcome_word},
};

/// Where a run's events go.
pub mod sink;
/// What a worker is sent.
pub mod spec;

/// A lost run is started again so often (WORKER §5).
const RESTARTS: u32 = 2;
/// Bytes of each stream that a repair gets to see.
const TAIL_BYTES: u64 = 4096;

/// One run to be made.
#[derive(Debug, Clone)]
pub struct Job {
    /// What runs.
    pub variant: Variant,
    /// With which seed.
    pub seed: u64,
    /// The encoded `RunSpec`.
    pub spec: v1::RunSpec,
}

/// What all jobs of a batch share.
#[derive(Clone)]
pub struct Batch {
    /// Of the campaign.
    pub campaign: CampaignId,
    /// 1 is "e1".
    pub experiment: u32,
    /// Of the revision.
    pub digest: kit::digest::Digest,
    /// Its number.
    pub revision: u32,
    /// Smoke or full.
    pub purpose: Purpose,
    /// By name.
    pub image: String,
}

/// Why a batch did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The journal, or a log file: nothing may go on.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What a worker sent could not be stored.
    #[error("a run's events could not be stored: {0}")]
    Sink(String),
}

/// How a batch went.
#[derive(Debug, Default)]
pub struct Ran {
    /// Every run that was started and its end, in the order of ending.
    pub runs: Vec<RunRecord>,
    /// The device budget does not cover what is left.
    pub out_of_devices: bool,
    /// The workers failed in a way that no outcome tells.
    pub workers_failed: Option<String>,
}

/// Whoever runs.
#[derive(Clone)]
pub struct Executor {
    /// The journal.
    pub journal: Journal,
    /// The machines.
    pub lab: Arc<dyn Lab>,
    /// The eyes.
    pub watchers: Watchers,
    /// While it is true no run is placed; those under way go on.
    pub paused: watch::Receiver<bool>,
}

/// The end of one job.
enum JobEnd {
    Ended(Vec<RunRecord>),
    OutOfDevices,
    WorkersFailed(Vec<RunRecord>, String),
    NotStarted,
}

/// Shared by the jobs of a batch.
struct Shared {
    /// No further runs; those that run are cancelled.
    stop: CancellationToken,
    /// Runs on their way: while there are any, devices that they reserved may come free.
    in_flight: AtomicU32,
    settled: Notify,
    done: AtomicU32,
    total: u32,
}

impl Executor {
    /// Runs a batch to its end. With `stop_at` an outcome ends the batch early: no further runs, those under way
    /// cancelled. Cancelling `stop` does the same.
    ///
    /// # Errors
    /// [`ExecutorError`] where something could not be stored.
    pub async fn run(
        &self,
        batch: &Batch,
        jobs: Vec<Job>,
        stop: &CancellationToken,
        stop_at: impl Fn(&RunRecord) -> bool + Send + Sync,
    ) -> Result<Ran, ExecutorError> {
        let shared = Shared {
            stop: stop.child_token(),
            in_flight: AtomicU32::new(0),
            settled: Notify::new(),
            done: AtomicU32::new(0),
            total: u32::try_from(jobs.len()).unwrap_or(u32::MAX),
        };
        let slots = self.lab.slots().max(1);
        let mut ends = stream::iter(jobs).map(|job| self.job(batch, job, &shared)).buffer_unordered(slots);
        let mut ran = Ran::default();
        let mut error = None;
        while let Some(end) = ends.next().await {
            let runs = match end {
                Ok(JobEnd::Ended(runs)) => runs,
                Ok(JobEnd::NotStarted) => Vec::new(),
                Ok(JobEnd::OutOfDevices) => {
                    ran.out_of_devices = true;
                    Vec::new()
                }
                Ok(JobEnd::WorkersFailed(runs, detail)) => {
                    ran.workers_failed.get_or_insert(detail);
                    shared.stop.cancel();
                    runs
                }
                Err(failed) => {
                    shared.stop.cancel();
                    error.get_or_insert(failed);
                    Vec::new()
                }
            };
            if runs.last().is_some_and(&stop_at) {
                shared.stop.cancel();
            }
            ran.runs.extend(runs);
        }
        match error {
            Some(error) => Err(error),
            None => Ok(ran),
        }
    }

    /// One variant and seed, with restarts of what was lost.
    async fn job(&self, batch: &Batch, job: Job, shared: &Shared) -> Result<JobEnd, ExecutorError> {
        let mut runs: Vec<RunRecord> = Vec::new();
        let mut predecessor = None;
        for _ in 0..=RESTARTS {
            self.wait_while_paused(&shared.stop).await;
            if shared.stop.is_cancelled() {
                break;
            }
            let Some(id) = self.reserve(batch, &job, predecessor, shared).await? else {
                return Ok(if runs.is_empty() { JobEnd::OutOfDevices } else { JobEnd::Ended(runs) });
            };
            kit::halt::at("controller.planned_run");
            self.tell_runs(shared);
            let ended = self.one(batch, &job, id, &shared.stop).await;
            shared.in_flight.fetch_sub(1, Ordering::SeqCst);
            shared.settled.notify_waiters();
            let (run, failed) = ended?;
            self.watchers.tell(Progress::RunEnded {
                run: run.id.clone(),
                variant: run.variant.clone(),
                seed: run.seed,
                outcome: outcome_word(run.kind()),
                message: run.outcome.message.clone(),
            });
            let lost = run.kind() == v1::OutcomeKind::Lost;
            runs.push(run);
            if let Some(detail) = failed {
                return Ok(JobEnd::WorkersFailed(runs, detail));
            }
            if !lost {
                break;
            }
            predecessor = Some(id);
        }
        shared.done.fetch_add(1, Ordering::SeqCst);
        self.tell_runs(shared);
        Ok(if runs.is_empty() { JobEnd::NotStarted } else { JobEnd::Ended(runs) })
    }

    async fn wait_while_paused(&self, stop: &CancellationToken) {
        let mut paused = self.paused.clone();
        // A driver that is gone pauses nothing.
        stop.run_until_cancelled(paused.wait_for(|paused| !paused)).await.map(drop).unwrap_or_default();
    }

    fn tell_runs(&self, shared: &Shared) {
        self.watchers.tell(Progress::Runs {
            done: shared.done.load(Ordering::SeqCst),
            total: shared.total,
            running: shared.in_flight.load(Ordering::SeqCst),
        });
    }

    /// Writes the run down with its devices. What does not fit beside runs under way is tried again when one of them
    /// settles, for it will have used less than it reserved; `None` where it does not fit at all.
    async fn reserve(
        &self,
        batch: &Batch,
        job: &Job,
        predecessor: Option<RunId>,
        shared: &Shared,
    ) -> Result<Option<RunId>, ExecutorError> {
        loop {
            // Before the attempt: a run that settles between refusal and waiting must not be missed.
            let settled = shared.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            let id = RunId::new();
            shared.in_flight.fetch_add(1, Ordering::SeqCst);
            let planned = self
                .journal
                .plan_run(NewRun {
                    id,
                    campaign: batch.campaign,
                    experiment: Some(batch.experiment),
                    revision: Some(batch.digest),
                    variant: job.variant.id.clone(),
                    seed: job.seed,
                    purpose: match batch.purpose {
                        Purpose::Smoke => RunPurpose::Smoke,
                        Purpose::Full => RunPurpose::Full,
                    },
                    predecessor,
                    image: batch.image.clone(),
                    spec: job.spec.encode_to_vec(),
                    reserve: spec::longest(&job.spec),
                    devices: job.spec.gpus.max(1),
                })
                .await;
            match planned {
                Ok(()) => return Ok(Some(id)),
                Err(BudgetError::Journal(error)) => {
                    shared.in_flight.fetch_sub(1, Ordering::SeqCst);
                    shared.settled.notify_waiters();
                    return Err(error.into());
                }
                Err(BudgetError::Device { .. } | BudgetError::Cost { .. }) => {
                    let others = shared.in_flight.fetch_sub(1, Ordering::SeqCst) > 1;
                    if !others || shared.stop.is_cancelled() {
                        // Another job may have taken this attempt for a run that will settle.
                        shared.settled.notify_waiters();
                        return Ok(None);
                    }
                    settled.await;
                }
            }
        }
    }

    /// One run from its slot to its end in the journal, and, where the workers themselves failed, how.
    async fn one(
        &self,
        batch: &Batch,
        job: &Job,
        id: RunId,
        stop: &CancellationToken,
    ) -> Result<(RunRecord, Option<String>), ExecutorError> {
        let variant = &job.variant.id;
        let mut sink =
            sink::JournalSink::open(&self.journal, batch.campaign, id, variant, &self.watchers).await?;
        let start = v1::StartRunRequest {
            run_id: id.to_string(),
            controller_id: self.journal.controller_id().to_string(),
            spec: job.spec.encode_to_vec().into(),
        };
        let end = self.lab.run(start, &mut sink, stop).await;
        let place = std::mem::take(&mut sink.place);
        drop(sink);
        let mut failed = None;
        match end {
            Ok(RunEnd::Finished(_)) => {}
            Ok(RunEnd::Rejected { field, reason }) => self.journal.reject_run(id, &field, &reason).await?,
            Ok(RunEnd::Lost { cause, detail }) => {
                self.journal.end_run(id, EndedHere::Lost { cause, message: detail }).await?;
            }
            Err(FleetError::Cancelled) => {
                let message = "stopped before it was placed".to_owned();
                self.journal.end_run(id, EndedHere::Cancelled { message }).await?;
            }
            Err(FleetError::Sink(error)) => return Err(ExecutorError::Sink(error.to_string())),
            Err(FleetError::File { path, source }) => {
                return Err(ExecutorError::Sink(format!("cannot write {path}: {source}")));
            }
            Err(error) => {
                let message = error.to_string();
                let how = EndedHere::Lost { cause: v1::LostCause::Unreachable, message: message.clone() };
                // Where the worker had told the run's end before it went away, that end stands.
                self.journal.end_run(id, how).await?;
                failed = Some(message);
            }
        }
        Ok((self.read(batch, job, id, place).await?, failed))
    }

    /// The run as the journal has it.
    async fn read(
        &self,
        batch: &Batch,
        job: &Job,
        id: RunId,
        place: String,
    ) -> Result<RunRecord, ExecutorError> {
        let finished = self.journal.finished(id).await?.unwrap_or_default();
        let mut series = BTreeMap::new();
        for metric in self.journal.metrics(id).await? {
            let points = self.journal.points(id, &metric.name).await?;
            let logged = points.iter().enumerate().map(|(index, point)| Logged {
                step: point.step.and_then(|s| u64::try_from(s).ok()).unwrap_or(index as u64 + 1),
                value: point.value,
            });
            series.insert(metric.name, logged.collect());
        }
        let place = if place.is_empty() { place } else { format!("{place}, slot {}", finished.slot) };
        Ok(RunRecord {
            id: id.to_string(),
            variant: job.variant.id.clone(),
            seed: job.seed,
            purpose: batch.purpose,
            revision: batch.revision,
            outcome: finished.outcome.unwrap_or_default(),
            usage: finished.usage,
            limits: finished.limits.or(job.spec.limits).unwrap_or_default(),
            series,
            last_output: self.last_output(batch.campaign, id).await?,
            place,
            packages: finished.packages.iter().map(|p| format!("{} {}", p.name, p.version)).collect(),
        })
    }

    async fn last_output(&self, campaign: CampaignId, id: RunId) -> Result<String, ExecutorError> {
        let row = self.journal.run(id).await?;
        let mut text = String::new();
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let length = row.stream_bytes(stream);
            if length == 0 {
                continue;
            }
            let path = self.journal.log_path(campaign, id, stream);
            let from = length.saturating_sub(TAIL_BYTES);
            let read =
                kit::task::blocking("read a run's last output", move || tail(&path, from, length)).await;
            match read {
                Some(Ok(bytes)) => {
                    let tail = kit::text::printable(&String::from_utf8_lossy(&bytes));
                    text.push_str(&format!("--- {} ---\n{}\n", stream.as_str(), tail.trim_end()));
                }
                Some(Err(error)) => tracing::warn!(run = %id, %error, "a log could not be read"),
                None => {}
            }
        }
        Ok(text)
    }
}

fn tail(path: &std::path::Path, from: u64, to: u64) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::open(path)?;
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(0)];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}
