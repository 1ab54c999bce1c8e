//! A run of an earlier process in the hands of its new driver: what is there of its sandbox, said in the machine's words. The
//! record, the draft of its end and its events are on the disk; PID 1's reports and the log files are the sandbox's. From
//! these alone it follows where the run goes on, so it does not matter at which instruction the earlier process was killed.

use std::{sync::Arc, time::Duration};

use proto::v1::LostCause;
use tokio::sync::oneshot;

use super::{
    draft::Draft,
    driver::Driver,
    harvest::Meter,
    past::Past,
    recorder::Order as Recording,
    state::{RunEvent, Standing, State},
};
use crate::sandbox::{Reports, Sandbox, SandboxError};

/// A run that has not begun is made again so often.
const AGAIN_MAX: u32 = 3;
/// An engine that does not answer is asked for so long: it may be starting itself.
const ENGINE_WAIT: Duration = Duration::from_secs(300);
const ENGINE_PAUSE: Duration = Duration::from_secs(2);

/// What the disk says of a run that has not finished.
#[derive(Debug, Default)]
pub struct TakenUp {
    /// From its events.
    pub past: Past,
    /// Of its end, where it came so far.
    pub draft: Option<Draft>,
    /// Why it cannot go on, whatever is there of its sandbox.
    pub lost: Option<(LostCause, String)>,
}

impl Driver {
    /// Drives a run of an earlier process to its last event.
    pub async fn take_up(mut self, from: TakenUp) {
        self.state = from.past.state.filter(|state| *state != State::Finished).unwrap_or(State::Accepted);
        if let Some(gate) = self.parts.record.gate_monotonic {
            self.meter = Meter::resume(gate, &from.past);
        }
        let recorded = self.parts.record.lost.clone();
        let recorded = recorded
            .map(|lost| (LostCause::try_from(lost.cause).unwrap_or(LostCause::WorkerCrash), lost.detail));
        self.abandoned = recorded.or(from.lost);
        self.draft = from.draft;
        let event = self.find().await;
        tracing::info!(run = %self.parts.record.run_id, state = ?self.state, ?event, "took up a run of an earlier process");
        self.drive(event).await;
    }

    async fn find(&mut self) -> RunEvent {
        match self.adopt().await {
            Ok(found) => self.sandbox = found,
            Err(error) => {
                // Whether something runs is not known, so nothing else may run there.
                self.set_aside(&format!(
                    "the sandbox of an earlier process cannot be found out about: {error}"
                ));
                return self.abandon(&error);
            }
        }
        let record = &self.parts.record;
        if self.draft.is_some() {
            return RunEvent::TakenUp(Standing::Judged);
        }
        let (gate, unwanted) = (record.gate_monotonic, record.reason.is_some());
        if gate.is_none() {
            return match (self.abandoned.is_some(), unwanted) {
                (true, _) => RunEvent::Abandoned,
                (false, true) => RunEvent::TakenUp(Standing::Unwanted),
                (false, false) => RunEvent::TakenUp(Standing::Unopened),
            };
        }
        let Some(sandbox) = self.sandbox.clone() else { return RunEvent::TakenUp(Standing::Lost) };
        let seen = sandbox.reports().borrow().clone();
        let began = self.state >= State::Running || has_begun(&seen);
        if !began && self.abandoned.is_none() {
            return match (unwanted, seen.gone.is_some() || seen.killed) {
                (true, _) => RunEvent::TakenUp(Standing::Unwanted),
                // It waited at its gate until it gave up, or somebody ended it there.
                (false, true) => RunEvent::TakenUp(Standing::Unopened),
                (false, false) => RunEvent::TakenUp(Standing::AtGate),
            };
        }
        self.wall = seen.ended.as_ref().map(|end| end.elapsed);
        if self.read_on(&sandbox, gate.unwrap_or_default()).await.is_none() {
            return self.lose_to_recorder();
        }
        RunEvent::TakenUp(match (self.abandoned.is_some(), unwanted) {
            (true, _) => Standing::Lost,
            (false, true) => Standing::Stopped,
            (false, false) => Standing::Started,
        })
    }

    /// Reads each log on from the end of its last frame, and what came meanwhile before anything is decided: it is a sign of life.
    async fn read_on(&mut self, sandbox: &Arc<dyn Sandbox>, gate: Duration) -> Option<()> {
        let (done, following) = oneshot::channel();
        self.parts.recorder.send(Recording::Follow(sandbox.streams(), gate, done)).await.ok()?;
        following.await.ok()?;
        let (done, caught_up) = oneshot::channel();
        self.parts.recorder.send(Recording::CatchUp(done)).await.ok()?;
        let bytes = caught_up.await.ok()?;
        self.meter.saw_output(bytes, self.parts.clock.monotonic());
        Some(())
    }

    async fn adopt(&self) -> Result<Option<Arc<dyn Sandbox>>, SandboxError> {
        let clock = &self.parts.clock;
        let deadline = clock.monotonic() + ENGINE_WAIT;
        loop {
            match self.parts.backend.adopt(self.class()).await {
                Err(error) if clock.monotonic() < deadline && !self.parts.cancel.is_cancelled() => {
                    tracing::warn!(run = %self.parts.record.run_id, %error, "the run's sandbox is asked for again");
                    tokio::time::sleep(ENGINE_PAUSE).await;
                }
                found => return found,
            }
        }
    }

    /// Leaves nothing of a sandbox in which nothing ran, and counts that it is made again.
    pub(super) async fn clear(&mut self) -> Option<RunEvent> {
        if let Some(sandbox) = self.sandbox.clone() {
            if let Err(error) = sandbox.remove().await {
                return Some(self.abandon(&error));
            }
            self.sandbox = None;
        }
        let record = &mut self.parts.record;
        if record.made_again >= AGAIN_MAX {
            let detail = format!("the worker ended {} times before the run had begun", record.made_again + 1);
            return Some(self.lose(LostCause::WorkerCrash, detail));
        }
        record.made_again += 1;
        record.gate_monotonic = None;
        if !self.save_record().await {
            return Some(self.lose(LostCause::HostDisk, "the run's record cannot be written".to_owned()));
        }
        self.parts.published.send_modify(|published| published.gate = None);
        None
    }
}

/// Whether PID 1 has said anything that comes after the start.
fn has_begun(seen: &Reports) -> bool {
    seen.started || seen.terminating || seen.ended.is_some() || (seen.gone.is_some() && !seen.ready)
}
