//! The loop at work: does what the machine says and comes back with what happened. Every step is in the journal before
//! it is acted on. One task owns a campaign; runs go on beside it only inside a step.
//!
//! While a step is under way a guard watches for what may end it: the user, a command of another process, the wall-clock
//! budget. It cancels the step, waits for its orderly end, and the campaign closes with what it has.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use kit::{clock::Clock, digest::Digest, task::CancellationToken};
use serde_json::json;
use tokio::sync::watch;

use crate::journal::{CampaignId, CommandRow, Journal, RunRow};

use super::{
    budget::{Budget, Used},
    error::CampaignError,
    executor::Executor,
    kept::Kept,
    lab::{DataSet, Lab},
    machine::{Action, Event, State, StoppedBy},
    progress::{Progress, Watchers},
    researcher::{PlanContext, ResearchError, Researcher, Wishes},
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
/// Going on after a kill.
mod taken_up;

/// How often a step looks for commands of other processes: a cancel takes effect within 2 s.
const POLL: Duration = Duration::from_millis(500);

/// Time that passes within a step is written down so often: a kill takes no more of it.
const COUNTED: Duration = Duration::from_secs(10);

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
    /// What the next step depends on; stored with every step.
    pub kept: Kept,
    keeping: Keeping,
    cancel: CancellationToken,
    /// Whether the user has paused it; no run is placed then.
    paused: watch::Sender<bool>,
    budget: Budget,
    /// When `active` was last brought up to date.
    counted_to: Duration,
    /// Awake so far.
    active: Duration,
    /// The last command that the snapshot knows of.
    kept_obeyed: u64,
    /// Commands that an earlier owner took and did not live to obey.
    late: Vec<CommandRow>,
    /// What ends it before anything more is done.
    ending: Option<StoppedBy>,
    /// Runs of the pending action that an earlier owner planned.
    left: Vec<RunRow>,
    /// Where the report lies.
    pub report_path: Option<std::path::PathBuf>,
    /// The answer in words.
    pub answer: String,
}

/// Whether what happens is for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeping {
    /// Steps, snapshots, findings, results.
    Everything,
    /// After Ctrl-C: the report so far is written, and the journal stays where the campaign was, so that it can go on.
    Nothing,
}

/// How an action comes to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// The step before it has just been taken.
    First,
    /// It was begun before a kill: what could be asked for already may not be asked for differently.
    Again,
}

impl Driver {
    pub(super) fn new(deps: Deps, id: CampaignId, kept: Kept, cancel: CancellationToken) -> Self {
        Self {
            id,
            keeping: Keeping::Everything,
            cancel,
            paused: watch::Sender::new(false),
            budget: Budget::of(&kept.settings),
            counted_to: deps.clock.monotonic(),
            active: Duration::ZERO,
            kept_obeyed: kept.obeyed,
            late: Vec::new(),
            ending: None,
            left: Vec::new(),
            report_path: None,
            answer: String::new(),
            kept,
            deps,
        }
    }

    /// Ends it before anything more is done: it closes with what it has.
    pub(super) fn stop_first(&mut self, by: StoppedBy) {
        self.ending = Some(by);
    }

    /// From where it is to the report.
    pub(super) async fn drive(&mut self) -> Result<StoppedBy, CampaignError> {
        let (mut pending, mut entry) = match self.kept.pending {
            Some(action) => (Some(action), Entry::Again),
            None => (self.step(Event::Begun).await?, Entry::First),
        };
        let mut ending = self.ending.take();
        if entry == Entry::Again && ending.is_none() {
            self.restore_workers().await?;
        }
        while let Some(action) = pending {
            let forbidden = match ending.take() {
                Some(by) => Some(by),
                None => self.hard_stop(action, entry).await?,
            };
            let event = match forbidden {
                Some(by) => Event::Stop { by },
                None => self.act(action).await?,
            };
            if matches!(event, Event::Stop { .. }) {
                self.end_left().await?;
            }
            self.count_time().await?;
            if event == (Event::Stop { by: StoppedBy::Interrupted }) {
                self.detail("interrupted", &json!({ "action": action })).await?;
                self.keeping = Keeping::Nothing;
            }
            pending = self.step(event).await?;
            entry = Entry::First;
        }
        Ok(match self.kept.machine.state {
            State::Ended { stopped } => stopped,
            _ => StoppedBy::Workers,
        })
    }

    /// The machine's step, journalled with all that the next one depends on before anything of it is done.
    async fn step(&mut self, event: Event) -> Result<Option<Action>, CampaignError> {
        let action = self.kept.machine.step(event)?;
        self.kept.pending = action;
        let used = self.used().await?;
        self.kept.left = self.budget.left(&used);
        let machine = &self.kept.machine;
        let body = json!({
            "event": event,
            "state": machine.state,
            "iteration": machine.iteration,
            "repairs": machine.repairs,
            "action": action,
        });
        if self.keeping == Keeping::Everything {
            let snapshot = self.kept.snapshot()?;
            self.deps.journal.append_step_with(self.id, "step", &body, snapshot).await?;
            self.kept_obeyed = self.kept.obeyed;
        }
        self.deps.progress.tell(Progress::Step {
            iteration: self.kept.machine.iteration,
            iterations: self.kept.settings.max_iterations,
            step: self.kept.machine.state.words(),
            detail: self
                .kept
                .record
                .open()
                .map(|e| format!("{}: {}", e.id, e.plan.title))
                .unwrap_or_default(),
        });
        self.deps.progress.tell(Progress::Budget(self.kept.left.clone()));
        Ok(action)
    }

    /// What a step did besides moving on.
    async fn detail(&self, kind: &str, body: &serde_json::Value) -> Result<(), CampaignError> {
        match self.keeping {
            Keeping::Everything => Ok(self.deps.journal.append_detail(self.id, kind, body).await?),
            Keeping::Nothing => Ok(()),
        }
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
    async fn hard_stop(&mut self, action: Action, entry: Entry) -> Result<Option<StoppedBy>, CampaignError> {
        if matches!(action, Action::Close { .. } | Action::Report { .. }) {
            return Ok(None);
        }
        if self.cancel.is_cancelled() {
            return Ok(Some(StoppedBy::Interrupted));
        }
        if entry == Entry::First {
            if let Some(by) = self.while_paused().await? {
                return Ok(Some(by));
            }
            if self.kept.obeyed != self.kept_obeyed && self.keeping == Keeping::Everything {
                // The action asks with what was said: after a kill it must ask the same.
                self.deps.journal.keep_snapshot(self.id, self.kept.snapshot()?).await?;
                self.kept_obeyed = self.kept.obeyed;
            }
        }
        let used = self.used().await?;
        // A program that was never mended is told as that; a number of failures in a row is checked where a batch ends.
        Ok(self.budget.reached(&used, self.kept.failures))
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
            let told = self.obey().await?;
            let over = (self.used_awake() >= self.budget.awake).then_some(StoppedBy::WallClock);
            if self.uncounted() >= COUNTED {
                self.count_time().await?;
            }
            if let Some(by) = told.or(over) {
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
                self.kept.record.stop_reason =
                    format!("the cost budget does not cover the call for {purpose}");
                StoppedBy::Money
            }
            Err(ResearchError::Cancelled) => StoppedBy::Interrupted,
            Err(ResearchError::Journal(detail)) => return Err(CampaignError::Researcher(detail)),
            Err(error) => {
                self.kept.record.stop_reason = error.to_string();
                self.say(format!("The researcher gave no answer: {error}"));
                StoppedBy::Researcher
            }
        };
        Ok(Err(Event::Stop { by }))
    }

    /// Puts bytes on the workers, under the guard: one that is away may keep this waiting for long. `Err` in the inner result
    /// is the event that ends the campaign.
    async fn send(&mut self, what: &str, bytes: Bytes) -> Result<Result<Digest, Event>, CampaignError> {
        let stop = CancellationToken::new();
        let (fleet, token) = (Arc::clone(&self.deps.fleet), stop.clone());
        let sending = token.run_until_cancelled(fleet.put_blob(bytes));
        let (sent, stopped) = self.guarded(&stop, sending).await?;
        Ok(match (sent, stopped) {
            (_, Some(by)) => Err(Event::Stop { by }),
            (Some(Ok(digest)), None) => Ok(digest),
            // Only the guard cancels it.
            (None, None) => Err(Event::Stop { by: StoppedBy::Interrupted }),
            (Some(Err(error)), None) => {
                self.kept.record.stop_reason = format!("{what} could not be sent to a worker: {error}");
                Err(Event::Stop { by: StoppedBy::Workers })
            }
        })
    }

    /// What the researcher is told when it plans or decides.
    fn context(&self) -> PlanContext {
        PlanContext {
            question: self.kept.settings.question.clone(),
            iteration: self.kept.machine.iteration,
            max_iterations: self.kept.settings.max_iterations,
            confirmatory_left: self.kept.ledger.experiments.saturating_sub(self.kept.record.confirmatory()),
            findings: self.kept.record.findings.iter().map(|f| f.finding.clone()).collect(),
            dead_ends: self.kept.record.dead_ends.clone(),
            experiments: self.kept.record.experiments.iter().filter_map(super::closed::closed).collect(),
            workers: self.kept.workers.clone(),
            budget: self.kept.left.clone(),
            wishes: Wishes {
                seeds: self.kept.settings.seeds,
                smallest_effect: self.kept.settings.smallest_effect.clone(),
                data_set: self.kept.settings.data_set.clone(),
            },
            hints: self.kept.record.hints.clone(),
            faults: self.kept.faults.clone(),
        }
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
