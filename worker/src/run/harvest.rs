//! The last part of a run, and what is measured on the way: drain the logs, take the evidence, classify, open the end gate,
//! copy the artifacts, remove, write the last event. Each step leaves its result on disk (`draft`) before the next one takes
//! away what it was read from, so that a process that is killed in the middle is gone on from.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use proto::v1::{Finished, GpuUsage, LostCause, Outcome, OutcomeKind, Usage, UsageTotals, event::Kind};
use tokio::sync::oneshot;

use super::{
    artifacts::{self, ArtifactRules, Collected},
    draft::{Draft, Stage},
    driver::{Driver, REMOVE_LIMIT},
    outcome::{self, Facts},
    past::{self, Past},
    recorder::{Drained, Order as Recording},
    seams::GpuMeter,
    state::State,
    traceback,
};
use crate::sandbox::{Evidence, Order, Reading, Reports, Sandbox, SandboxError};

/// Between two usage samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// A reading may take this long; then it is left out.
const READING_LIMIT: Duration = Duration::from_secs(1);
/// Reading the logs to their end may take this long.
const DRAIN_LIMIT: Duration = Duration::from_secs(300);
/// A CPU is idle below this share of one core.
const IDLE_CPU: f64 = 0.02;

/// Usage as it is sampled, and since when nothing has happened.
#[derive(Debug)]
pub struct Meter {
    last_sample: Duration,
    last_activity: Duration,
    last_cpu: Duration,
    output_bytes: u64,
    disk_peak: u64,
    gpu_peaks: Vec<GpuUsage>,
    last: Reading,
}

impl Meter {
    /// From a monotonic moment on.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self {
            last_sample: now,
            last_activity: now,
            last_cpu: Duration::ZERO,
            output_bytes: 0,
            disk_peak: 0,
            gpu_peaks: Vec::new(),
            last: Reading::default(),
        }
    }

    /// Of a run that is taken up.
    #[must_use]
    pub fn resume(gate: Duration, past: &Past) -> Self {
        let usage = past.usage.clone().unwrap_or_default();
        Self {
            last_sample: gate + past.sampled,
            last_activity: gate + past.active,
            last_cpu: Duration::from_nanos(usage.cpu_ns),
            output_bytes: 0,
            disk_peak: past.disk_peak,
            gpu_peaks: past.gpu_peaks.clone(),
            last: Reading {
                cpu: Duration::from_nanos(usage.cpu_ns),
                memory_bytes: usage.memory_bytes,
                memory_peak_bytes: usage.memory_peak_bytes,
                pids: usage.pids,
                disk_bytes: usage.disk_bytes,
            },
        }
    }

    /// Output is a sign of life.
    pub fn saw_output(&mut self, bytes: u64, now: Duration) {
        if bytes != self.output_bytes {
            self.output_bytes = bytes;
            self.last_activity = now;
        }
    }

    /// Whether a sample is due.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.last_sample) >= SAMPLE_EVERY
    }

    /// For how long nothing has happened.
    #[must_use]
    pub fn idle_for(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last_activity)
    }

    /// Takes a sample, `None` where the sandbox cannot be read.
    pub async fn sample(
        &mut self,
        sandbox: &Arc<dyn Sandbox>,
        gpus: &Arc<dyn GpuMeter>,
        uuids: &[String],
        now: Duration,
    ) -> Option<Usage> {
        let since = now.saturating_sub(self.last_sample);
        self.last_sample = now;
        let reading = match tokio::time::timeout(READING_LIMIT, sandbox.reading()).await {
            Ok(Ok(reading)) => reading,
            Ok(Err(error)) => {
                tracing::debug!(%error, "no usage sample");
                return None;
            }
            Err(_) => return None,
        };
        let gpu_usage = if uuids.is_empty() {
            Vec::new()
        } else {
            let (gpus, uuids) = (Arc::clone(gpus), uuids.to_vec());
            kit::task::blocking("read GPUs", move || gpus.read(&uuids)).await.unwrap_or_default()
        };
        let cpu = reading.cpu.saturating_sub(self.last_cpu);
        let busy = is_busy(cpu, since) || gpu_usage.iter().any(|g| g.utilisation_percent > 0);
        if busy {
            self.last_activity = now;
        }
        self.last_cpu = reading.cpu;
        self.disk_peak = self.disk_peak.max(reading.disk_bytes);
        past::raise(&mut self.gpu_peaks, &gpu_usage);
        let usage = usage_of(&reading, gpu_usage);
        self.last = reading;
        Some(usage)
    }
}

/// Whether so much CPU time in so much time is work.
pub(super) fn is_busy(cpu: Duration, time: Duration) -> bool {
    cpu.as_secs_f64() > IDLE_CPU * time.as_secs_f64()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn usage_of(reading: &Reading, gpus: Vec<GpuUsage>) -> Usage {
    Usage {
        cpu_ns: nanoseconds(reading.cpu),
        memory_bytes: reading.memory_bytes,
        memory_peak_bytes: reading.memory_peak_bytes,
        disk_bytes: reading.disk_bytes,
        pids: reading.pids,
        gpus,
    }
}

impl Driver {
    /// Takes out of the sandbox what is to stay. What was taken out by an earlier process is not taken again.
    pub(super) async fn harvest(&mut self) {
        kit::halt::at("worker.harvesting");
        let mut draft = match self.draft.take() {
            Some(draft) => draft,
            None => self.judge().await,
        };
        if draft.stage == Stage::Judged {
            self.take_out(&mut draft).await;
        }
        self.draft = Some(draft);
    }

    /// The outcome, from what is gone with the container: PID 1's reports, the kernel's counters, the end of the logs. On disk
    /// before the container is removed.
    async fn judge(&mut self) -> Draft {
        let sandbox = self.sandbox.clone();
        if let Some(sandbox) = sandbox.as_ref().filter(|_| !self.quiet) {
            // After an end that nobody expected something may still live, and a live writer makes every look a race.
            match tokio::time::timeout(REMOVE_LIMIT, sandbox.order(Order::Kill)).await {
                Ok(Ok(()) | Err(SandboxError::Gone { .. })) => {}
                // What may still live may still write to the slot's GPUs, also where the engine forgets its container.
                Ok(Err(error)) => self.set_aside(&format!("a kill was not confirmed: {error}")),
                Err(_) => self.set_aside("a kill was not confirmed in time"),
            }
        }
        if self.wall.is_none() && sandbox.is_some() {
            let now = self.parts.clock.monotonic();
            self.wall = self.parts.record.gate_monotonic.map(|gate| now.saturating_sub(gate));
        }
        let drained = self.drain().await;
        let (evidence, reports) = match &sandbox {
            Some(sandbox) => (sandbox.evidence().await, sandbox.reports().borrow().clone()),
            None => (Evidence::default(), Reports::default()),
        };
        if evidence.complete {
            self.record_event(Kind::Usage(usage_of(&evidence.reading, Vec::new()))).await;
        }
        let facts = self.facts(reports, &evidence, &drained);
        let mut outcome = outcome::classify(&facts, &self.parts.record.limits);
        outcome.notes.extend(drained.notes.iter().cloned());
        let draft = Draft { stage: Stage::Judged, finished: self.last_event(outcome, &evidence, &drained) };
        self.save_draft(&draft).await;
        draft
    }

    /// Opens the end gate and copies the artifacts.
    async fn take_out(&mut self, draft: &mut Draft) {
        let Some(sandbox) = self.sandbox.clone() else {
            if self.parts.record.gate_monotonic.is_some() {
                let reason = "what the program left was gone before it could be copied";
                draft.finished.left_out = Collected::nothing(reason).left_out;
            }
            draft.stage = Stage::Collected;
            return;
        };
        let unconfirmed = match tokio::time::timeout(REMOVE_LIMIT, sandbox.end()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the container was not gone in time".to_owned()),
        };
        let collected = match &unconfirmed {
            None => self.collect(&sandbox).await,
            // Something of the program may still write: its tree is not to be read.
            Some(why) => {
                self.set_aside(why);
                Collected::nothing(&format!("nothing is copied before the sandbox's end is confirmed: {why}"))
            }
        };
        let finished = &mut draft.finished;
        let mut outcome = finished.outcome.take().unwrap_or_default();
        if let Some((cause, detail)) = self.copying_failed.take() {
            let notes = std::mem::take(&mut outcome.notes);
            // Ours was on disk before: it stands whatever became of the copies.
            if self.parts.record.reason.is_none() {
                outcome = outcome::lost(cause, detail.clone());
            }
            outcome.notes = notes;
            outcome.notes.push(detail);
        }
        if unconfirmed.is_some() {
            outcome.notes.extend(collected.left_out.iter().map(|left_out| left_out.reason.clone()));
        }
        if let Some(reason) = &collected.exceeded {
            // A failure of the program's own explains more than what it left behind.
            if matches!(outcome.kind(), OutcomeKind::Succeeded | OutcomeKind::MissingMetrics) {
                let notes = std::mem::take(&mut outcome.notes);
                let ended = outcome.exit_code;
                outcome = outcome::limit_exceeded("artifacts", reason.clone());
                outcome.exit_code = ended;
                outcome.notes = notes;
            } else {
                outcome.notes.push(format!("artifacts were left out: {reason}"));
            }
        }
        finished.outcome = Some(outcome);
        finished.artifacts = collected.artifacts;
        finished.left_out = collected.left_out;
        draft.stage = Stage::Collected;
    }

    /// What is to be said at the end is on disk before the last of the sandbox goes, whichever way led here.
    async fn settle(&mut self) {
        let draft = match self.draft.take() {
            Some(draft) => draft,
            None => {
                let facts = self.facts(Reports::default(), &Evidence::default(), &Drained::default());
                let outcome = outcome::classify(&facts, &self.parts.record.limits);
                let finished = self.last_event(outcome, &Evidence::default(), &Drained::default());
                Draft { stage: Stage::Collected, finished }
            }
        };
        self.save_draft(&draft).await;
        self.draft = Some(draft);
    }

    /// Where it cannot be written the run goes on to its end all the same: only a kill just now would lose it.
    async fn save_draft(&self, draft: &Draft) {
        let (draft, folder) = (draft.clone(), self.parts.folder.clone());
        let saved = kit::task::blocking("save the end", move || draft.save(&folder)).await;
        if let Some(Err(error)) = saved {
            tracing::error!(run = %self.parts.record.run_id, %error, "what the run's end came to cannot be saved");
        }
    }

    async fn drain(&mut self) -> Drained {
        let (done, drained) = oneshot::channel();
        self.parts.recorder.send(Recording::Drain(done)).await.ok();
        match tokio::time::timeout(DRAIN_LIMIT, drained).await {
            Ok(Ok(drained)) => drained,
            Ok(Err(_)) => {
                let (detail, full) = self.parts.progress.borrow().failed.clone().unwrap_or_default();
                let cause = if full { LostCause::HostDisk } else { LostCause::Spool };
                self.abandoned.get_or_insert((cause, detail));
                Drained::default()
            }
            Err(_) => {
                let detail = "the logs could not be read to their end in time".to_owned();
                self.abandoned.get_or_insert((LostCause::HostDisk, detail));
                Drained::default()
            }
        }
    }

    fn facts(&self, reports: Reports, evidence: &Evidence, drained: &Drained) -> Facts {
        Facts {
            reason: self.parts.record.reason.clone(),
            abandoned: self.abandoned.clone(),
            gate_opened: self.parts.record.gate_monotonic.is_some(),
            reports,
            killed_by_engine: self.killed_by_engine,
            evidence: evidence.clone(),
            disk_peak: self.meter.disk_peak.max(evidence.reading.disk_bytes),
            exception: traceback::parse(&drained.stderr_tail),
            stderr_tail: kit::text::printable(&String::from_utf8_lossy(&drained.stderr_tail)),
            diverged: drained.diverged.clone(),
            missing_metrics: drained.missing_metrics.clone(),
        }
    }

    /// But for the artifacts and its sequence.
    fn last_event(&self, outcome: Outcome, evidence: &Evidence, drained: &Drained) -> Finished {
        let record = &self.parts.record;
        let now = self.parts.clock.monotonic();
        let reading = if evidence.complete { &evidence.reading } else { &self.meter.last };
        let begun = record.gate_monotonic.unwrap_or(now);
        Finished {
            usage: Some(UsageTotals {
                wall_ms: milliseconds(self.wall.unwrap_or_default()),
                cpu_ns: nanoseconds(reading.cpu),
                memory_peak_bytes: reading.memory_peak_bytes,
                disk_peak_bytes: self.meter.disk_peak.max(reading.disk_bytes),
                stdout_bytes: drained.stream_bytes[0],
                stderr_bytes: drained.stream_bytes[1],
                metric_points: drained.metric_points,
                gpu_peaks: self.meter.gpu_peaks.clone(),
                complete: evidence.complete,
                prepare_ms: milliseconds(begun.saturating_sub(record.accepted_monotonic)),
            }),
            outcome: Some(outcome),
            artifacts: Vec::new(),
            left_out: Vec::new(),
            last_sequence: 0,
            limits: Some(record.limits.wire()),
            image_id: record.image_id.clone(),
            backend: record.backend.clone(),
            slot: record.slot,
            packages: record.wire_packages(),
        }
    }

    async fn collect(&mut self, sandbox: &Arc<dyn Sandbox>) -> Collected {
        let rules = ArtifactRules {
            uid: self.parts.lease.grant.uid,
            bytes_max: self.parts.record.limits.artifact_bytes,
            files_max: self.parts.record.limits.artifact_files,
            time_max: ArtifactRules::time_for(self.parts.record.limits.artifact_bytes),
        };
        let (source, target) = (sandbox.artifacts(), self.parts.folder.join("artifacts"));
        let work = move || {
            // Of an earlier process that was killed at it: a copy may be half there.
            match std::fs::remove_dir_all(&target) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, "copies of an earlier process stay beside the new ones");
                }
                _ => {}
            }
            artifacts::collect(&source, &target, rules)
        };
        match kit::task::blocking("copy artifacts", work).await {
            Some(Ok(collected)) => collected,
            Some(Err(error)) => {
                let cause = if error.is_disk_full() { LostCause::HostDisk } else { LostCause::Sandbox };
                tracing::error!(%error, "the artifacts cannot be copied");
                self.copying_failed = Some((cause, format!("the artifacts cannot be copied: {error}")));
                Collected::default()
            }
            None => {
                let detail = "copying the artifacts stopped".to_owned();
                self.copying_failed = Some((LostCause::WorkerCrash, detail));
                Collected::default()
            }
        }
    }

    pub(super) fn set_aside(&self, why: &str) {
        let index = self.parts.lease.grant.index;
        tracing::error!(slot = index, why, "the slot is set aside");
        self.parts.slots.set_aside(index, why);
    }

    /// Leaves nothing of the sandbox, or sets its slot aside.
    pub(super) async fn remove(&mut self) {
        self.settle().await;
        let Some(sandbox) = self.sandbox.take() else { return };
        match tokio::time::timeout(REMOVE_LIMIT, sandbox.remove()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.set_aside(&error.to_string()),
            Err(_) => self.set_aside("the sandbox was not removed in time"),
        }
    }

    /// Writes the last event, then lets everyone know. Slot and disk are free before anyone can know, so that who
    /// hears of the end finds them free.
    pub(super) async fn finish(&mut self) {
        let mut finished = self.draft.take().map(|draft| draft.finished).unwrap_or_default();
        finished.last_sequence = 0;
        crate::telemetry::METRICS.finished(finished.outcome.as_ref().map_or(0, |outcome| outcome.kind));
        let told = finished.outcome.as_ref().map(|outcome| outcome.kind().as_str_name());
        tracing::info!(outcome = told, "the run has ended");
        let wall = Duration::from_millis(finished.usage.as_ref().map_or(0, |usage| usage.wall_ms));
        self.parts.release();
        let (done, written) = oneshot::channel();
        self.parts.recorder.send(Recording::Finish(Box::new(finished.clone()), done)).await.ok();
        let (finished, damaged) = match written.await {
            Ok(finished) => (finished, false),
            Err(_) => {
                tracing::error!(run = %self.parts.record.run_id, "the last event could not be written");
                (finished, true)
            }
        };
        self.parts.record.finished = !damaged;
        self.parts.record.finished_at_running_s = self.parts.running_s.load(Ordering::Relaxed);
        self.save_record().await;
        if !damaged {
            let folder = self.parts.folder.clone();
            kit::task::blocking("remove the draft", move || Draft::remove(&folder)).await;
        }
        self.parts.published.send_modify(|published| {
            published.state = State::Finished;
            published.elapsed = Some(wall);
            published.finished = Some(finished);
            published.spool_damaged = damaged;
        });
    }
}
