//! What other processes want of a campaign under way, and the time that counts: a pause stops both the next step and the
//! clock, and lets what runs go on to its end.

use std::time::Duration;

use crate::journal::{CampaignState, Limits};

use super::{
    super::{
        error::CampaignError,
        machine::StoppedBy,
        steering::{Command, HINT_BYTES},
    },
    Driver, POLL,
};

impl Driver {
    /// Takes what other processes left. A hint or another budget touches the next plan only.
    pub(super) async fn obey(&mut self) -> Result<Option<StoppedBy>, CampaignError> {
        let mut stop = None;
        let late = std::mem::take(&mut self.late);
        for row in late.into_iter().chain(self.deps.journal.take_commands(self.id).await?) {
            self.kept.obeyed = self.kept.obeyed.max(row.number);
            match Command::of(&row) {
                Some(Command::Cancel) => stop = Some(StoppedBy::Cancelled),
                Some(Command::Pause) => self.set_paused(true).await?,
                Some(Command::Resume) => self.set_paused(false).await?,
                Some(Command::Hint(text)) => {
                    let text = kit::text::one_line(&text, HINT_BYTES);
                    self.note("hint", text.clone());
                    self.kept.record.hints.push(text);
                }
                Some(Command::Budget) => self.read_limits().await?,
                None => tracing::warn!(
                    command = row.kind,
                    "a command that this version does not know was passed over"
                ),
            }
        }
        Ok(stop)
    }

    /// Waits while the campaign is paused.
    pub(super) async fn while_paused(&mut self) -> Result<Option<StoppedBy>, CampaignError> {
        loop {
            if let Some(by) = self.obey().await? {
                return Ok(Some(by));
            }
            if !self.is_paused() {
                return Ok(None);
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Ok(Some(StoppedBy::Interrupted)),
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    async fn set_paused(&mut self, paused: bool) -> Result<(), CampaignError> {
        if self.is_paused() == paused {
            return Ok(());
        }
        self.count_time().await?;
        self.paused.send_replace(paused);
        let state = if paused { CampaignState::Paused } else { CampaignState::Running };
        self.deps.journal.set_campaign_state(self.id, state, None).await?;
        self.say(match paused {
            true => {
                "Paused: nothing new is begun, what runs goes on to its end, and the time does not count."
            }
            false => "The pause is over.",
        });
        Ok(())
    }

    async fn read_limits(&mut self) -> Result<(), CampaignError> {
        let limits = self.deps.journal.limits(self.id).await?;
        self.bound_by(&limits);
        if let Some(iterations) = limits.max_iterations {
            self.kept.machine.set_iterations(iterations);
            self.kept.settings.max_iterations = iterations;
        }
        self.note("limits", serde_json::to_string(&limits).unwrap_or_default());
        self.say("The limits have changed; they hold from the next step on.");
        Ok(())
    }

    /// The bounds that are looked at before a step; the number of experiments is the machine's.
    pub(super) fn bound_by(&mut self, limits: &Limits) {
        self.budget.awake = limits.wall.unwrap_or(self.budget.awake);
        self.budget.devices = limits.device;
        self.budget.dollars = limits.cost.map(crate::journal::MicroUsd::dollars);
        self.budget.failures = limits.max_failures.unwrap_or(self.budget.failures);
    }

    /// Whoever reads the report learns what was said while the campaign ran, and when.
    fn note(&mut self, what: &str, text: String) {
        let iteration = self.kept.machine.iteration;
        self.kept.record.environment.push((format!("{what} from the user in iteration {iteration}"), text));
    }

    pub(super) fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    /// Awake and not paused, since the last time that this was written down.
    pub(super) fn uncounted(&self) -> Duration {
        match self.is_paused() {
            true => Duration::ZERO,
            false => self.deps.clock.monotonic().saturating_sub(self.counted_to),
        }
    }

    pub(super) fn used_awake(&self) -> Duration {
        self.active + self.uncounted()
    }

    pub(super) async fn count_time(&mut self) -> Result<(), CampaignError> {
        let passed = self.uncounted();
        self.counted_to = self.deps.clock.monotonic();
        self.active += passed;
        Ok(self.deps.journal.add_active_time(self.id, passed).await?)
    }
}
