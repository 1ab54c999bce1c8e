//! A run's way to its worker: waits for the next connection with the patience that the run deserves, and paces what is
//! tried again.

use std::time::Duration;

use kit::task::CancellationToken;
use proto::v1;

use super::{
    Link,
    line::{Fault, Line},
    orphans::Orphan,
    reach::{Moment, Patience, Reach},
};

/// Patience is looked at so often while nothing happens.
const LOOK: Duration = Duration::from_secs(1);

/// The run was given up: why. It is an orphan of its link from then on.
#[derive(Debug)]
pub(super) struct GivenUp(pub(super) String);

/// One run and its worker.
pub(super) struct Way<'a> {
    pub(super) link: &'a Link,
    pub(super) start: &'a v1::StartRunRequest,
    pub(super) cancel: &'a CancellationToken,
    /// Which worker has the run, where that is known.
    pub(super) worker_id: Option<String>,
    reach: Reach,
    failures: u32,
    /// When the connection that was used last was opened, and when the last pause was over: awake time.
    opened: Duration,
    paused_to: Duration,
}

impl<'a> Way<'a> {
    /// `longest` is the run's limit and grace.
    pub(super) fn new(
        link: &'a Link,
        start: &'a v1::StartRunRequest,
        cancel: &'a CancellationToken,
        longest: Duration,
    ) -> Self {
        let pace = &link.core.pace;
        let patience = Patience { silence: pace.patience, cancelled: pace.cancel_patience, longest };
        let reach = Reach::new(patience, Moment::now(&link.core.awake));
        Self {
            link,
            start,
            cancel,
            worker_id: None,
            reach,
            failures: 0,
            opened: Duration::ZERO,
            paused_to: Duration::ZERO,
        }
    }

    fn now(&self) -> Moment {
        Moment::now(&self.link.core.awake)
    }

    /// The worker said something about the run.
    pub(super) fn heard(&mut self) {
        self.failures = 0;
        self.reach.heard(self.now());
    }

    /// The program began.
    pub(super) fn began(&mut self) {
        self.reach.began(self.now());
    }

    /// The open connection or the next one, to the worker that has the run.
    pub(super) async fn line(&mut self) -> Result<Line, GivenUp> {
        loop {
            let changes = self.link.changes();
            self.uncut()?;
            if let Some(line) = self.link.open_line() {
                let found = &line.view.worker_id;
                match &self.worker_id {
                    Some(wanted) if wanted != found => {
                        let detail = format!(
                            "the worker {} is another one now ({found} instead of {wanted}): its disk was wiped",
                            line.name()
                        );
                        return Err(self.give_up(detail));
                    }
                    _ => {
                        self.opened = line.opened;
                        return Ok(line);
                    }
                }
            }
            self.look()?;
            self.wait(changes, LOOK).await;
        }
    }

    /// Before the next attempt: the first is made at once, the others after growing pauses.
    pub(super) async fn pause(&mut self, fault: &Fault) -> Result<(), GivenUp> {
        let (run, worker) = (&self.start.run_id, self.link.name());
        tracing::warn!(run, worker, ?fault, "a run's connection broke");
        self.uncut()?;
        self.look()?;
        if self.opened < self.paused_to {
            // It broke while nobody used it, which only the next use could show: no news of the way as it is now. It is given
            // up for the next one, so this happens once for each pause.
            self.opened = self.paused_to;
            return Ok(());
        }
        if self.failures > 0 {
            let delay = self.link.core.pace.redial.next_delay(self.failures, None).unwrap_or(LOOK);
            self.wait(std::future::pending::<()>(), delay).await;
            self.paused_to = self.link.core.awake.now();
        }
        self.failures = self.failures.saturating_add(1);
        Ok(())
    }

    async fn wait<T>(&self, something: impl Future<Output = T>, longest: Duration) {
        tokio::select! {
            _ = something => {}
            () = tokio::time::sleep(longest) => {}
        }
    }

    /// A worker that was revoked or removed does not come back: there is nothing to wait for.
    fn uncut(&self) -> Result<(), GivenUp> {
        match self.link.cut() {
            Some(reason) => {
                Err(self.give_up(format!("the user wants worker {} no more: {reason}", self.link.name())))
            }
            None => Ok(()),
        }
    }

    /// Whether it is time to give up.
    pub(super) fn look(&mut self) -> Result<(), GivenUp> {
        let now = self.now();
        if self.cancel.is_cancelled() {
            self.reach.cancelled(now);
        }
        match self.reach.given_up(now) {
            Some(detail) => Err(self.give_up(detail)),
            None => Ok(()),
        }
    }

    /// It is final: whatever becomes of the run, it is ended there unread when the worker is back.
    pub(super) fn give_up(&self, detail: String) -> GivenUp {
        tracing::warn!(run = self.start.run_id, worker = self.link.name(), detail, "a run is given up");
        self.link.core.orphans.add(Orphan {
            run_id: self.start.run_id.clone(),
            controller_id: self.start.controller_id.clone(),
            worker_id: self.worker_id.clone(),
        });
        GivenUp(detail)
    }
}
