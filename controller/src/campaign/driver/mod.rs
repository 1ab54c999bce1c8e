//! The loop at work: does what the machine says and comes back with what happened. Every step is in the journal before
//! it is acted on. One task owns a campaign; runs go on beside it only inside a step.
//!
//! While a step is under way a guard watches for what may end it: the user, a command of another process, the wall-clock
//! budget. It cancels the step, waits for its orderly end, and the campaign closes with what it has.

use std::{future::Future, sync::Arc, time::Duration};

use kit::{clock::Clock, task::CancellationToken};
use serde_json::json;
use tokio::sync::watch;

use crate::{
    journal::{CampaignId, Journal},
    stats::Ledger,
};

use super::{
    budget::{Budget, Failures, Used},
    check::Sound,
    error::CampaignError,
    executor::{Executor, spec::Blob},
    lab::{DataSet, Lab},
    machine::{Action, Bounds, Event, Machine, State, StoppedBy},
    progress::{Progress, Watchers},
    record::Record,
    researcher::{Failure, Fault, PlanContext, ResearchError, Researcher, Wishes, Workers},
    settings::{CONFIRMATORY, CampaignSettings, REPLIES},
};

/// Analyse, close, interpret, decide, report.
mod closing;
/// Code, check, repair, void.
mod coding;
/// Image, plan, register.
mod planning;
/// Smoke runs, runs up to a look, raised limits.
mod running;
/// What other processes want, and the time that counts.
mod steer;

/// How often a step looks for commands of other processes: a cancel takes effect within 2 s.
const POLL: Duration = Duration::from_millis(500);

/// What a campaign works with.
pub struct Deps {
    /// The durable record.
    pub journal: Journal,
    /// The machines.
    pub fleet: Arc<dyn Lab>,
    /// Whoever thinks.
    pub researcher: Arc<dyn Researcher>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The eyes.
    pub progress: Watchers,
    /// What travels with runs.
    pub data_sets: Vec<DataSet>,
}

/// A campaign under way.
pub(super) struct Driver {
    pub deps: Deps,
    pub id: CampaignId,
    pub settings: CampaignSettings,
    pub machine: Machine,
    pub record: Record,
    pub ledger: Ledger,
    pub failures: Failures,
    pub workers: Workers,
    pub longest_seconds: u32,
    pub started_at: String,
    cancel: CancellationToken,
    /// Whether the user has paused it; no run is placed then.
    paused: watch::Sender<bool>,
    budget: Budget,
    /// When `active` was last brought up to date.
    counted_to: Duration,
    /// Awake so far.
    active: Duration,
    /// What was wrong with the last plan.
    faults: Vec<Fault>,
    /// The plan that is to be registered.
    draft: Option<Sound>,
    /// What the last batch or check gave a repair to do.
    broken: Vec<Failure>,
    /// Variants at fault in it.
    broken_variants: Vec<String>,
    /// The repairs' signatures so far, to see the same error again.
    signatures: Vec<String>,
    /// The program that was written and is not yet checked.
    written: Option<super::researcher::Program>,
    /// The revision's program on the workers.
    program: Option<Blob>,
    /// Data sets on the workers.
    data: Vec<(String, Blob)>,
    /// The limit that the open experiment's runs have.
    time_seconds: u32,
    /// Where the report lies.
    pub report_path: Option<std::path::PathBuf>,
    /// The answer in words.
    pub answer: String,
}

impl Driver {
    pub(super) fn new(
        deps: Deps,
        id: CampaignId,
        settings: CampaignSettings,
        cancel: CancellationToken,
    ) -> Self {
        let bounds =
            Bounds { iterations: settings.max_iterations, plans: REPLIES, repairs: settings.repairs };
        let confirmatory = CONFIRMATORY.min(settings.max_iterations).max(1);
        Self {
            id,
            machine: Machine::new(bounds),
            record: Record { id: id.to_string(), ..Record::default() },
            ledger: Ledger::new(confirmatory),
            failures: Failures::default(),
            workers: Workers::default(),
            longest_seconds: 0,
            started_at: deps.clock.wall().to_string(),
            cancel,
            paused: watch::Sender::new(false),
            budget: Budget::of(&settings),
            counted_to: deps.clock.monotonic(),
            active: Duration::ZERO,
            faults: Vec::new(),
            draft: None,
            broken: Vec::new(),
            broken_variants: Vec::new(),
            signatures: Vec::new(),
            written: None,
            program: None,
            data: Vec::new(),
            time_seconds: 0,
            report_path: None,
            answer: String::new(),
            deps,
            settings,
        }
    }

    /// From the beginning to the report.
    pub(super) async fn drive(&mut self) -> Result<StoppedBy, CampaignError> {
        let mut event = Event::Begun;
        loop {
            let action = self.step(event).await?;
            let Some(action) = action else {
                return Ok(match self.machine.state {
                    State::Ended { stopped } => stopped,
                    _ => StoppedBy::Workers,
                });
            };
            event = match self.hard_stop(action).await? {
                Some(by) => Event::Stop { by },
                None => self.act(action).await?,
            };
            self.count_time().await?;
        }
    }

    /// The machine's step, journalled before anything of it is done.
    async fn step(&mut self, event: Event) -> Result<Option<Action>, CampaignError> {
        let action = self.machine.step(event)?;
        let body = json!({
            "event": event,
            "state": self.machine.state,
            "iteration": self.machine.iteration,
            "repairs": self.machine.repairs,
            "action": action,
        });
        self.deps.journal.append_step(self.id, "step", &body).await?;
        self.deps.progress.tell(Progress::Step {
            iteration: self.machine.iteration,
            iterations: self.settings.max_iterations,
            step: self.machine.state.words(),
            detail: self.record.open().map(|e| format!("{}: {}", e.id, e.plan.title)).unwrap_or_default(),
        });
        let used = self.used().await?;
        self.deps.progress.tell(Progress::Budget(self.budget.left(&used)));
        Ok(action)
    }

    async fn act(&mut self, action: Action) -> Result<Event, CampaignError> {
        match action {
            Action::Prepare => self.prepare().await,
            Action::Plan => self.plan().await,
            Action::Register => self.register().await,
            Action::Code => self.code().await,
            Action::Check => self.check().await,
            Action::Smoke => self.smoke().await,
            Action::Repair => self.repair().await,
            Action::Void => self.void().await,
            Action::Run { look } => self.run_look(look).await,
            Action::Raise => self.raise().await,
            Action::Analyse { look } => self.analyse(look).await,
            Action::Close { abandoned } => self.close(abandoned).await,
            Action::Interpret => self.interpret().await,
            Action::Decide => self.decide().await,
            Action::Report { stopped } => self.report(stopped).await,
        }
    }

    /// What forbids an action before it begins. Closing and reporting are never forbidden.
    async fn hard_stop(&mut self, action: Action) -> Result<Option<StoppedBy>, CampaignError> {
        if matches!(action, Action::Close { .. } | Action::Report { .. }) {
            return Ok(None);
        }
        if self.cancel.is_cancelled() {
            return Ok(Some(StoppedBy::Interrupted));
        }
        if let Some(by) = self.while_paused().await? {
            return Ok(Some(by));
        }
        let used = self.used().await?;
        // A program that was never mended is told as that; a number of failures in a row is checked where a batch ends.
        Ok(self.budget.reached(&used, self.failures))
    }

    pub(super) async fn used(&self) -> Result<Used, CampaignError> {
        let spent = self.deps.journal.spent(self.id).await?;
        Ok(Used { awake: self.used_awake(), devices: spent.device(), dollars: spent.cost().dollars() })
    }

    /// Does `work` under the guard: whatever ends the campaign cancels `stop`, and the work's own end is awaited. What
    /// came of the work, and what ended it early, if anything.
    async fn guarded<T>(
        &mut self,
        stop: &CancellationToken,
        work: impl Future<Output = T>,
    ) -> Result<(T, Option<StoppedBy>), CampaignError> {
        let mut work = std::pin::pin!(work);
        loop {
            let left = self.budget.awake.saturating_sub(self.used_awake());
            tokio::select! {
                biased;
                done = &mut work => return Ok((done, None)),
                () = self.cancel.cancelled() => {
                    stop.cancel();
                    return Ok((work.await, Some(StoppedBy::Interrupted)));
                }
                () = tokio::time::sleep(if self.is_paused() { POLL } else { left.min(POLL) }) => {}
            }
            let mut by = (self.used_awake() >= self.budget.awake).then_some(StoppedBy::WallClock);
            by = self.obey().await?.or(by);
            if let Some(by) = by {
                stop.cancel();
                return Ok((work.await, Some(by)));
            }
        }
    }

    /// Asks the researcher, under the guard. `Err` in the inner result is the event that ends the campaign.
    async fn ask<T>(
        &mut self,
        stop: &CancellationToken,
        question: impl Future<Output = Result<T, ResearchError>>,
    ) -> Result<Result<T, Event>, CampaignError> {
        let (answer, stopped) = self.guarded(stop, question).await?;
        if let Some(by) = stopped {
            return Ok(Err(Event::Stop { by }));
        }
        let by = match answer {
            Ok(answer) => return Ok(Ok(answer)),
            Err(ResearchError::Budget { purpose }) => {
                self.record.stop_reason = format!("the cost budget does not cover the call for {purpose}");
                StoppedBy::Money
            }
            Err(ResearchError::Cancelled) => StoppedBy::Interrupted,
            Err(ResearchError::Journal(detail)) => {
                self.record.stop_reason = detail;
                StoppedBy::Researcher
            }
            Err(error) => {
                self.record.stop_reason = error.to_string();
                self.say(format!("The researcher gave no answer: {error}"));
                StoppedBy::Researcher
            }
        };
        Ok(Err(Event::Stop { by }))
    }

    /// What the researcher is told when it plans or decides.
    async fn context(&self) -> Result<PlanContext, CampaignError> {
        let used = self.used().await?;
        Ok(PlanContext {
            question: self.settings.question.clone(),
            iteration: self.machine.iteration,
            max_iterations: self.settings.max_iterations,
            confirmatory_left: self.ledger.experiments.saturating_sub(self.record.confirmatory()),
            findings: self.record.findings.iter().map(|f| f.finding.clone()).collect(),
            dead_ends: self.record.dead_ends.clone(),
            experiments: self.record.experiments.iter().filter_map(super::closed::closed).collect(),
            workers: self.workers.clone(),
            budget: self.budget.left(&used),
            wishes: Wishes {
                seeds: self.settings.seeds,
                smallest_effect: self.settings.smallest_effect.clone(),
                data_set: self.settings.data_set.clone(),
            },
            hints: self.record.hints.clone(),
            faults: self.faults.clone(),
        })
    }

    fn executor(&self) -> Executor {
        Executor {
            journal: self.deps.journal.clone(),
            lab: Arc::clone(&self.deps.fleet),
            watchers: self.deps.progress.clone(),
            paused: self.paused.subscribe(),
        }
    }

    fn say(&self, text: impl Into<String>) {
        self.deps.progress.tell(Progress::Said(text.into()));
    }
}
