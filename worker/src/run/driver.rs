//! The task that owns a run: it alone moves the machine, orders the sandbox about, and decides when the run ends.
//!
//! Design notes. One task owns a run because every end races with every other: the limit with the program's own exit, a
//! cancel with both, the sandbox's death with all. With one owner the first one that it sees counts, and it is
//! on disk before a signal goes out. Handlers hold a [`super::handle::RunHandle`] and cannot hold up or drop a run. Logs
//! are read by another task, the recorder, so that a slow disk never makes a limit late.

use std::{path::PathBuf, sync::Arc, time::Duration};

use kit::{clock::Clock, task::CancellationToken};
use proto::v1::{LostCause, StateChange, event::Kind};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    draft::Draft,
    handle::Published,
    harvest::Meter,
    ledger::Reservation,
    record::{Lost, Record},
    recorder::{Order as Recording, Progress},
    seams::{GpuMeter, SlotLease, SlotSource},
    spec::CheckedSpec,
    state::{Action, Reason, Refusal, RunEvent, Standing, State, next},
};
use crate::{
    datasets::LentImage,
    packages::{HeldLayer, PackageTool, Packages},
    sandbox::{
        Assignment, Backend, Layer, Order, Reports, Sandbox, SandboxClass, SandboxError, SandboxLimits,
    },
    telemetry::METRICS,
};

/// Between two looks at limits, where nothing wakes the driver earlier.
const TICK: Duration = Duration::from_millis(50);
/// Making a sandbox may take this long.
const PREPARE_LIMIT: Duration = Duration::from_secs(180);
/// An order may take this long, its fall-back included.
const ORDER_LIMIT: Duration = Duration::from_secs(20);
/// Opening the end gate and removing may take this long.
pub(super) const REMOVE_LIMIT: Duration = Duration::from_secs(120);

/// What a driver is given.
#[derive(Debug)]
pub struct DriverParts {
    /// Of the run's folder.
    pub folder: PathBuf,
    /// As it is on disk.
    pub record: Record,
    /// Checked.
    pub spec: CheckedSpec,
    /// What the runner reads.
    pub run_json: Vec<u8>,
    /// Read-only trees: the run's data sets, then its packages.
    pub layers: Vec<Layer>,
    /// While the run may still mount them, its data sets are not removed.
    pub held_data_sets: Vec<LentImage>,
    /// Kept for as long as the run may mount it.
    pub held_packages: Option<HeldLayer>,
    /// The inputs' paths in the run and their blobs.
    pub files: Vec<(String, PathBuf)>,
    /// Held until the run has finished.
    pub lease: SlotLease,
    /// Held until the run has finished.
    pub reservation: Option<Reservation>,
    /// Makes the sandbox.
    pub backend: Arc<dyn Backend>,
    /// To set a slot aside.
    pub slots: Arc<dyn SlotSource>,
    /// To read GPUs.
    pub gpus: Arc<dyn GpuMeter>,
    /// For limits.
    pub clock: Arc<dyn Clock>,
    /// To the recorder.
    pub recorder: mpsc::Sender<Recording>,
    /// From the recorder.
    pub progress: watch::Receiver<Progress>,
    /// For everyone.
    pub published: watch::Sender<Published>,
    /// Provides what the spec asks for.
    pub packages: Packages,
    /// The backend's way to resolve them.
    pub package_tool: Arc<dyn PackageTool>,
    /// From anyone.
    pub cancel: CancellationToken,
    /// Seconds that workers on this folder have run, for retention.
    pub running_s: Arc<std::sync::atomic::AtomicU64>,
}

impl DriverParts {
    /// Frees slot and disk.
    pub(super) fn release(&mut self) {
        self.lease.guard = Box::new(super::seams::Released);
        self.reservation = None;
        self.held_data_sets.clear();
    }
}

/// A driver at work.
#[derive(Debug)]
pub struct Driver {
    pub(super) parts: DriverParts,
    pub(super) state: State,
    pub(super) sandbox: Option<Arc<dyn Sandbox>>,
    pub(super) abandoned: Option<(LostCause, String)>,
    /// Nothing of the program lives.
    pub(super) quiet: bool,
    /// PID 1 did not report a kill, so the engine did it.
    pub(super) killed_by_engine: bool,
    /// From the gate to the last process gone.
    pub(super) wall: Option<Duration>,
    /// What the end came to, so far.
    pub(super) draft: Option<Draft>,
    /// Why the artifacts could not be copied.
    pub(super) copying_failed: Option<(LostCause, String)>,
    pub(super) meter: Meter,
}

impl Driver {
    /// Ready to run.
    #[must_use]
    pub fn new(parts: DriverParts) -> Self {
        Self {
            meter: Meter::new(parts.clock.monotonic()),
            parts,
            state: State::Accepted,
            sandbox: None,
            abandoned: None,
            quiet: false,
            killed_by_engine: false,
            wall: None,
            draft: None,
            copying_failed: None,
        }
    }

    /// Drives the run to its last event.
    pub async fn run(self) {
        self.drive(RunEvent::Begin).await;
    }

    pub(super) async fn drive(mut self, first: RunEvent) {
        let mut event = Some(first);
        while let Some(happened) = event.take() {
            match next(self.state, happened.clone()) {
                Ok((to, mut actions)) => {
                    // Whoever sees the state must find its reason: on disk first, and only then told.
                    if let Some(Action::RecordReason(reason)) = actions.first().cloned() {
                        actions.remove(0);
                        self.record_reason(reason).await;
                    }
                    if matches!(happened, RunEvent::Abandoned | RunEvent::TakenUp(Standing::Lost)) {
                        self.record_loss().await;
                    }
                    self.enter(to, &happened).await;
                    for action in actions {
                        if let Some(then) = self.perform(action).await {
                            event = Some(then);
                        }
                    }
                }
                Err(Refusal::Late) if self.state == State::Finished => {}
                // No event of ours leads here; if one did, the sandbox must not be left behind.
                Err(refusal) => {
                    tracing::error!(state = ?self.state, ?happened, %refusal, "an event was refused");
                    event = Some(RunEvent::Abandoned);
                }
            }
        }
    }

    async fn enter(&mut self, to: State, why: &RunEvent) {
        if self.state == to {
            return;
        }
        self.state = to;
        if to == State::Finished {
            // Published with the last event, by `finish`.
            return;
        }
        self.parts.published.send_modify(|p| p.state = to);
        let detail = match why {
            RunEvent::StopWanted(reason) => stop_text(reason),
            RunEvent::ProgramEnded => "the program ended".to_owned(),
            RunEvent::TakenUp(_) => "taken up by a new process of the worker".to_owned(),
            RunEvent::Abandoned => {
                self.abandoned.as_ref().map(|(_, detail)| detail.clone()).unwrap_or_default()
            }
            _ => String::new(),
        };
        let kind = Kind::StateChange(StateChange { state: to.wire().into(), detail });
        // Not waited for: a slow disk must not hold up a signal. The order of events is kept.
        self.record_event(kind).await;
    }

    /// Hands an event to the recorder without waiting for the disk.
    pub(super) async fn record_event(&self, kind: Kind) {
        let (done, _) = oneshot::channel();
        // A recorder that is gone has said why in its progress.
        self.parts.recorder.send(Recording::Append(Box::new(kind), done)).await.ok();
    }

    async fn perform(&mut self, action: Action) -> Option<RunEvent> {
        match action {
            Action::Clear => self.clear().await,
            Action::Prepare if self.abandoned.is_some() => None,
            Action::Prepare => Some(self.prepare().await),
            Action::Open => Some(self.open().await),
            Action::Reopen => Some(self.pass_gate().await),
            Action::Follow => Some(self.follow().await),
            Action::RecordReason(reason) => {
                self.record_reason(reason).await;
                None
            }
            Action::Terminate => Some(self.terminate().await),
            Action::Kill => Some(self.kill().await),
            Action::Harvest => {
                self.harvest().await;
                None
            }
            Action::Remove => {
                self.remove().await;
                Some(RunEvent::Removed)
            }
            Action::Finish => {
                self.finish().await;
                None
            }
        }
    }

    pub(super) fn abandon(&mut self, error: &SandboxError) -> RunEvent {
        let cause = match error {
            SandboxError::Engine { .. } => LostCause::Engine,
            SandboxError::Volume { disk_full: true, .. } => LostCause::HostDisk,
            _ => LostCause::Sandbox,
        };
        tracing::warn!(run = %self.parts.record.run_id, %error, "the run is lost");
        self.abandoned.get_or_insert((cause, error.to_string()));
        RunEvent::Abandoned
    }

    pub(super) fn lose(&mut self, cause: LostCause, detail: String) -> RunEvent {
        self.abandoned.get_or_insert((cause, detail));
        RunEvent::Abandoned
    }

    pub(super) fn class(&self) -> SandboxClass {
        let limits = &self.parts.record.limits;
        SandboxClass {
            id: self.parts.record.sandbox_id,
            image_id: self.parts.record.image_id.clone(),
            slot: self.parts.lease.grant.clone(),
            limits: SandboxLimits {
                memory_bytes: limits.memory_bytes,
                cpu_millis: limits.cpu_millis,
                pids: limits.pids,
                disk_bytes: limits.disk_bytes,
                shm_bytes: limits.shm_bytes,
                log_bytes: limits.log_bytes,
            },
            layers: self.parts.layers.clone(),
        }
    }

    async fn prepare(&mut self) -> RunEvent {
        if self.parts.cancel.is_cancelled() {
            return RunEvent::StopWanted(Reason::Cancelled);
        }
        kit::halt::at("worker.accepted");
        if let Some(end) = self.provide_packages().await {
            return end;
        }
        let backend = Arc::clone(&self.parts.backend);
        let begun = self.parts.clock.monotonic();
        let made = tokio::time::timeout(PREPARE_LIMIT, backend.prepare(self.class())).await;
        match made {
            Ok(Ok(sandbox)) => {
                METRICS.sandbox_started(self.parts.clock.monotonic().saturating_sub(begun));
                self.sandbox = Some(sandbox);
                if self.parts.cancel.is_cancelled() {
                    return RunEvent::StopWanted(Reason::Cancelled);
                }
                RunEvent::SandboxReady
            }
            Ok(Err(error)) => self.abandon(&error),
            Err(_) => {
                let detail = format!("the sandbox was not made within {} s", PREPARE_LIMIT.as_secs());
                self.lose(LostCause::Engine, detail)
            }
        }
    }

    async fn open(&mut self) -> RunEvent {
        let Some(sandbox) = self.sandbox.clone() else {
            return self.lose(LostCause::Sandbox, "there is no sandbox".to_owned());
        };
        kit::halt::at("worker.starting");
        let limits = &self.parts.record.limits;
        let assignment = Assignment {
            run_json: std::mem::take(&mut self.parts.run_json),
            files: std::mem::take(&mut self.parts.files),
            time_limit: Duration::from_millis(limits.time_ms),
            grace: Duration::from_millis(limits.grace_ms),
        };
        if let Err(error) = sandbox.assign(&assignment).await {
            return self.abandon(&error);
        }
        if let Err(error) = sandbox.verify().await {
            return self.abandon(&error);
        }
        self.pass_gate().await
    }

    /// The moment on disk, then the order.
    async fn pass_gate(&mut self) -> RunEvent {
        let Some(sandbox) = self.sandbox.clone() else {
            return self.lose(LostCause::Sandbox, "there is no sandbox".to_owned());
        };
        if self.parts.cancel.is_cancelled() {
            return RunEvent::StopWanted(Reason::Cancelled);
        }
        let gate = self.parts.clock.monotonic();
        self.parts.record.gate_monotonic = Some(gate);
        if !self.save_record().await {
            return self.lose(LostCause::HostDisk, "the run's record cannot be written".to_owned());
        }
        let (done, following) = oneshot::channel();
        self.parts.recorder.send(Recording::Follow(sandbox.streams(), gate, done)).await.ok();
        if following.await.is_err() {
            return self.lose_to_recorder();
        }
        self.parts.published.send_modify(|p| p.gate = Some(gate));
        self.meter = Meter::new(gate);
        match tokio::time::timeout(ORDER_LIMIT, sandbox.order(Order::Start)).await {
            Ok(Ok(())) => {
                kit::halt::at("worker.running");
                RunEvent::GateOpened
            }
            Ok(Err(error)) => self.abandon(&error),
            Err(_) => self.no_answer(&sandbox, Order::Start),
        }
    }

    fn no_answer(&mut self, sandbox: &Arc<dyn Sandbox>, order: Order) -> RunEvent {
        self.abandon(&SandboxError::NoAnswer { id: sandbox.id(), order, waited: ORDER_LIMIT })
    }

    pub(super) fn lose_to_recorder(&mut self) -> RunEvent {
        let (detail, full) = self.parts.progress.borrow().failed.clone().unwrap_or_default();
        self.lose(if full { LostCause::HostDisk } else { LostCause::Spool }, detail)
    }

    /// Writes the record off the event loop; false where it cannot be written.
    pub(super) async fn save_record(&self) -> bool {
        let (record, folder) = (self.parts.record.clone(), self.parts.folder.clone());
        match kit::task::blocking("save record", move || record.save(&folder)).await {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::error!(%error, "the run's record cannot be written");
                false
            }
            None => false,
        }
    }

    async fn record_reason(&mut self, reason: Reason) {
        self.parts.record.reason = Some(reason);
        // Where it cannot be written the run must be ended all the same.
        self.save_record().await;
    }

    /// So that what we do next is never taken for the program's doing, also by a process that knows only the disk.
    async fn record_loss(&mut self) {
        let Some((cause, detail)) = self.abandoned.clone() else { return };
        let lost = Some(Lost { cause: cause.into(), detail });
        if self.parts.record.lost != lost {
            self.parts.record.lost = lost;
            self.save_record().await;
        }
    }

    /// Watches the program and its limits until one of them ends the run.
    async fn follow(&mut self) -> RunEvent {
        let Some(sandbox) = self.sandbox.clone() else {
            return self.lose(LostCause::Sandbox, "there is no sandbox".to_owned());
        };
        let mut reports = sandbox.reports();
        let mut progress = self.parts.progress.clone();
        let gate = self.parts.record.gate_monotonic.unwrap_or_default();
        let limit = Duration::from_millis(self.parts.record.limits.time_ms);
        let stall = Duration::from_millis(self.parts.record.limits.stall_ms);
        loop {
            let now = self.parts.clock.monotonic();
            let seen = reports.borrow_and_update().clone();
            // The program's own end comes first: what it did by itself is not ours. But one that outlived its limit while
            // no worker was there to say so, or that PID 1 had to end, was over its time.
            let late = seen.ended.as_ref().is_some_and(|end| end.elapsed >= limit);
            if self.parts.record.reason.is_none() && (seen.backstop || late) {
                return RunEvent::StopWanted(Reason::TimedOut);
            }
            if seen.ended.is_some() {
                return RunEvent::ProgramEnded;
            }
            if seen.gone.is_some() {
                return RunEvent::Abandoned;
            }
            if self.parts.cancel.is_cancelled() {
                return RunEvent::StopWanted(Reason::Cancelled);
            }
            let recorded = progress.borrow_and_update().clone();
            if recorded.failed.is_some() {
                return self.lose_to_recorder();
            }
            if let Some(detail) = recorded.diverged {
                return RunEvent::StopWanted(Reason::Diverged { detail });
            }
            let elapsed = now.saturating_sub(gate);
            if elapsed >= limit {
                return RunEvent::StopWanted(Reason::TimedOut);
            }
            self.meter.saw_output(recorded.output_bytes, now);
            if self.meter.is_due(now) {
                let grant = &self.parts.lease.grant;
                let usage = self.meter.sample(&sandbox, &self.parts.gpus, &grant.gpu_uuids, now).await;
                if let Some(usage) = usage {
                    self.record_event(Kind::Usage(usage)).await;
                }
            }
            if self.meter.idle_for(now) >= stall {
                return RunEvent::StopWanted(Reason::Stalled);
            }
            let wait = TICK.min(limit.saturating_sub(elapsed));
            tokio::select! {
                // A sender that is gone says nothing more; the tick goes on.
                changed = reports.changed() => if changed.is_err() { tokio::time::sleep(wait).await },
                changed = progress.changed() => if changed.is_err() { tokio::time::sleep(wait).await },
                () = self.parts.cancel.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// SIGTERM, then the grace.
    async fn terminate(&mut self) -> RunEvent {
        let Some(sandbox) = self.sandbox.clone() else { return RunEvent::GraceOver };
        kit::halt::at("worker.ending");
        let deadline = Instant::now() + Duration::from_millis(self.parts.record.limits.grace_ms);
        let mut reports = sandbox.reports();
        let over = |seen: &Reports| seen.ended.is_some() || seen.gone.is_some();
        let ordered = async {
            if let Err(error) = sandbox.order(Order::Terminate).await {
                tracing::warn!(%error, "SIGTERM was not confirmed");
            }
            // The grace goes on, whatever came of the order.
            std::future::pending::<()>().await;
        };
        let ended = async { reports.wait_for(over).await.is_ok_and(|seen| seen.ended.is_some()) };
        tokio::select! {
            () = ordered => RunEvent::GraceOver,
            ended = ended => if ended { RunEvent::ProgramEnded } else { RunEvent::GraceOver },
            () = tokio::time::sleep_until(deadline) => RunEvent::GraceOver,
        }
    }

    /// SIGKILL to all that is left, until it is gone.
    async fn kill(&mut self) -> RunEvent {
        let Some(sandbox) = self.sandbox.clone() else { return RunEvent::Quiet };
        let killed = tokio::time::timeout(ORDER_LIMIT, sandbox.order(Order::Kill)).await;
        let now = self.parts.clock.monotonic();
        self.wall.get_or_insert(now.saturating_sub(self.parts.record.gate_monotonic.unwrap_or(now)));
        match killed {
            Ok(Ok(()) | Err(SandboxError::Gone { .. })) => {
                self.quiet = true;
                self.killed_by_engine = !sandbox.reports().borrow().killed;
                RunEvent::Quiet
            }
            Ok(Err(error)) => self.abandon(&error),
            Err(_) => self.no_answer(&sandbox, Order::Kill),
        }
    }
}

fn stop_text(reason: &Reason) -> String {
    match reason {
        Reason::Cancelled => "cancelled by the caller".to_owned(),
        Reason::TimedOut => "the wall-clock limit was reached".to_owned(),
        Reason::Diverged { detail } => detail.clone(),
        Reason::Stalled => "no output, no metric and idle devices".to_owned(),
        Reason::DependencyConflict { .. } => "the packages cannot be had".to_owned(),
        Reason::LimitExceeded { limit } => format!("the limit on {limit} was reached"),
    }
}
