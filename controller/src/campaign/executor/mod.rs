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

use crate::journal::{
    BudgetError, CampaignId, Journal, JournalError, LogStream, NewRun, RunId, RunPurpose, RunRow, RunState,
};

use super::{
    lab::Lab,
    plan::Variant,
    progress::{Progress, Watchers},
    record::{Logged, Purpose, RunRecord, outcome_word},
};

/// Runs that an earlier owner left.
mod left;
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
    /// Runs of this very batch that an earlier owner planned, oldest first.
    pub left: Vec<RunRow>,
}

impl Batch {
    /// Of one job, oldest first: what was lost, and what stands in for it.
    fn left_of<'a>(&'a self, job: &'a Job) -> impl Iterator<Item = &'a RunRow> {
        self.left.iter().filter(|row| row.variant == job.variant.id && row.seed == job.seed)
    }
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
    /// Every run that was started and its end, in the order of the jobs: a repair is told the same after a kill.
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
        let under_way = batch.left.iter().filter(|row| row.state != RunState::Finished).count();
        let shared = Shared {
            stop: stop.child_token(),
            in_flight: AtomicU32::new(u32::try_from(under_way).unwrap_or(u32::MAX)),
            settled: Notify::new(),
            done: AtomicU32::new(0),
            total: u32::try_from(jobs.len()).unwrap_or(u32::MAX),
        };
        self.heed_the_ended(batch, &jobs, &shared, &stop_at).await?;
        // What is under way already holds its devices, and a slot of its worker.
        let (begun, others): (Vec<_>, Vec<_>) =
            (0usize..).zip(jobs).partition(|(_, job)| batch.left_of(job).next().is_some());
        let slots = self.lab.slots().max(under_way).max(1);
        let mut ends = stream::iter(begun.into_iter().chain(others))
            .map(|(place, job)| {
                let job = self.job(batch, job, &shared);
                async move { (place, job.await) }
            })
            .buffer_unordered(slots);
        let mut ended: BTreeMap<usize, Vec<RunRecord>> = BTreeMap::new();
        let mut ran = Ran::default();
        while let Some((place, end)) = ends.next().await {
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
                // Nothing more can be stored. What runs is left to its own end, and found again by whoever resumes.
                Err(failed) => return Err(failed),
            };
            if runs.last().is_some_and(&stop_at) {
                shared.stop.cancel();
            }
            ended.insert(place, runs);
        }
        ran.runs = ended.into_values().flatten().collect();
        Ok(ran)
    }

    /// A run that ended before the kill may have ended its batch then already: nothing of it is begun again.
    async fn heed_the_ended(
        &self,
        batch: &Batch,
        jobs: &[Job],
        shared: &Shared,
        stop_at: &(impl Fn(&RunRecord) -> bool + Send + Sync),
    ) -> Result<(), ExecutorError> {
        for job in jobs {
            let Some(last) = batch.left_of(job).last() else { continue };
            if last.state == RunState::Finished {
                let mut run = left::record(last, batch.revision);
                self.read(batch.campaign, &mut run).await?;
                if stop_at(&run) {
                    shared.stop.cancel();
                }
            }
        }
        Ok(())
    }

    /// One variant and seed, with restarts of what was lost.
    async fn job(&self, batch: &Batch, job: Job, shared: &Shared) -> Result<JobEnd, ExecutorError> {
        let mut runs: Vec<RunRecord> = Vec::new();
        let (mut predecessor, mut lost, mut over) = (None, 0, false);
        for row in batch.left_of(&job) {
            self.tell_runs(shared);
            let ended = self.take_up(row, batch.revision, &shared.stop).await;
            if row.state != RunState::Finished {
                shared.in_flight.fetch_sub(1, Ordering::SeqCst);
                shared.settled.notify_waiters();
            }
            let (run, failed) = ended?;
            self.tell_ended(&run);
            let kind = run.kind();
            runs.push(run);
            if let Some(detail) = failed {
                return Ok(JobEnd::WorkersFailed(runs, detail));
            }
            match kind {
                v1::OutcomeKind::Lost => {
                    lost += 1;
                    predecessor = Some(row.id);
                }
                // By whoever interrupted the campaign, which goes on now.
                v1::OutcomeKind::Cancelled => {}
                _ => over = true,
            }
        }
        while !over && lost <= RESTARTS {
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
            self.tell_ended(&run);
            over = run.kind() != v1::OutcomeKind::Lost;
            runs.push(run);
            if let Some(detail) = failed {
                return Ok(JobEnd::WorkersFailed(runs, detail));
            }
            lost += 1;
            predecessor = Some(id);
        }
        shared.done.fetch_add(1, Ordering::SeqCst);
        self.tell_runs(shared);
        Ok(if runs.is_empty() { JobEnd::NotStarted } else { JobEnd::Ended(runs) })
    }

    fn tell_ended(&self, run: &RunRecord) {
        self.watchers.tell(Progress::RunEnded {
            run: run.id.clone(),
            variant: run.variant.clone(),
            seed: run.seed,
            outcome: outcome_word(run.kind()),
            message: run.outcome.message.clone(),
        });
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
        drop(sink);
        let failed = self.settle(id, end).await?;
        let mut run = RunRecord {
            id: id.to_string(),
            variant: job.variant.id.clone(),
            seed: job.seed,
            purpose: batch.purpose,
            revision: batch.revision,
            outcome: v1::Outcome::default(),
            usage: None,
            limits: v1::Limits::default(),
            series: BTreeMap::new(),
            last_output: String::new(),
            place: String::new(),
            packages: Vec::new(),
        };
        self.read(batch.campaign, &mut run).await?;
        Ok((run, failed))
    }

    /// Fills in what the journal has of a run's end: nothing that is read here is kept anywhere else.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub async fn read(&self, campaign: CampaignId, run: &mut RunRecord) -> Result<(), ExecutorError> {
        let Ok(id) = run.id.parse::<RunId>() else { return Ok(()) };
        let row = self.journal.run(id).await?;
        let finished = self.journal.finished(id).await?.unwrap_or_default();
        run.series = BTreeMap::new();
        for metric in self.journal.metrics(id).await? {
            let points = self.journal.points(id, &metric.name).await?;
            let logged = points.iter().enumerate().map(|(index, point)| Logged {
                step: point.step.and_then(|s| u64::try_from(s).ok()).unwrap_or(index as u64 + 1),
                value: point.value,
            });
            run.series.insert(metric.name, logged.collect());
        }
        run.limits = match finished.limits {
            Some(limits) => limits,
            // Nobody told which were in force: those that were asked for.
            None => {
                let spec = self.journal.spec(id).await?;
                v1::RunSpec::decode(spec.as_slice()).ok().and_then(|spec| spec.limits).unwrap_or_default()
            }
        };
        run.outcome = finished.outcome.unwrap_or_default();
        run.usage = finished.usage;
        run.packages = finished.packages.iter().map(|p| format!("{} {}", p.name, p.version)).collect();
        run.place =
            row.worker_id.as_ref().map_or_else(String::new, |w| format!("{w}, slot {}", finished.slot));
        run.last_output = self.last_output(campaign, &row).await?;
        Ok(())
    }

    async fn last_output(&self, campaign: CampaignId, row: &RunRow) -> Result<String, ExecutorError> {
        let id = row.id;
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
