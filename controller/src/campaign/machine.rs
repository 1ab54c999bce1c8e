//! The step of a campaign as one total pure function: a state and an event give the next state and the one thing to
//! do. No clock, no I/O: the driver does what it is told and comes back with what happened.
//!
//! Each state waits for exactly one action, so that a journal which holds the events up to a kill also says what was
//! in flight. A hard stop may come in every state before the report: an experiment that is open is closed with the
//! last look that it has, and the report is always written.

use serde::{Deserialize, Serialize};

/// What a campaign is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Journalled, and nothing begun.
    New,
    /// Image and data sets.
    Preparing,
    /// Waiting for a plan; so many were sent back.
    Planning {
        /// Replies that were not sound.
        refused: u32,
    },
    /// The plan's digest goes into the journal before any run.
    Registering,
    /// Waiting for the program.
    Coding,
    /// The program is read before it costs anything.
    Checking,
    /// Every variant under a tiny limit.
    Smoking,
    /// Waiting for the mended program.
    Repairing,
    /// A variant that could not be mended leaves the experiment.
    Voiding,
    /// The runs up to a look, from 0.
    Running {
        /// Index of the look.
        look: u32,
    },
    /// A time limit that cut runs short is raised for every variant.
    Raising,
    /// The contrasts at a look.
    Analysing {
        /// Index of the look.
        look: u32,
    },
    /// Findings are written by rule.
    Closing {
        /// What comes after it.
        then: AfterClose,
    },
    /// The researcher reads the numbers.
    Interpreting,
    /// Follow up or stop.
    Deciding,
    /// The report is written.
    Reporting {
        /// What ended the campaign.
        stopped: StoppedBy,
    },
    /// Over.
    Ended {
        /// What ended the campaign.
        stopped: StoppedBy,
    },
}

/// What comes after an experiment is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterClose {
    /// It has numbers: they are read.
    Interpret,
    /// It led nowhere: another plan, where one is left.
    NextPlan,
    /// The campaign ends.
    Report(StoppedBy),
}

/// What ended a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoppedBy {
    /// The soft stop: the researcher says that the question is answered, or cannot be.
    Answered,
    /// `--max-iterations`.
    Iterations,
    /// `--time-budget`.
    WallClock,
    /// `--gpu-budget`.
    DeviceHours,
    /// `--cost-budget`.
    Money,
    /// `--max-failures`.
    FailuresInARow,
    /// The last experiment's program was never mended.
    Repairs,
    /// No sound plan came, as often as it was asked for.
    NoSoundPlan,
    /// The model's provider failed, or gave nothing usable.
    Researcher,
    /// The workers failed in a way that no run's outcome tells.
    Workers,
    /// Ctrl-C.
    Interrupted,
    /// `autoresearch cancel`.
    Cancelled,
}

impl StoppedBy {
    /// For the report's first page.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Answered => "question answered",
            Self::Iterations => "iterations",
            Self::WallClock => "wall-clock",
            Self::DeviceHours => "GPU-hours",
            Self::Money => "money",
            Self::FailuresInARow => "failures in a row",
            Self::Repairs => "repairs (the program never ran)",
            Self::NoSoundPlan => "no sound plan",
            Self::Researcher => "the model gave no answer",
            Self::Workers => "workers",
            Self::Interrupted => "interrupted",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The campaign begins.
    Begun,
    /// Image and data sets are there.
    Prepared,
    /// A plan passed the checks.
    PlanSound {
        /// How many looks it registers, at least 1.
        looks: u32,
    },
    /// A plan did not pass; its faults are kept for the next try.
    PlanUnsound,
    /// The planner says that nothing more can be learnt.
    NothingMore,
    /// The plan and its digest are in the journal.
    Registered,
    /// A program came.
    ProgramWritten,
    /// It may run.
    ProgramSound,
    /// The program is at fault: static check, smoke run or full run.
    ProgramFaulty {
        /// The fault is in some variants only, and what is left can still answer.
        voidable: bool,
    },
    /// Those variants are out.
    Voided,
    /// Every variant's smoke run gave what was asked for.
    SmokePassed,
    /// Every run up to the look has ended.
    LookRun,
    /// Runs were cut short by a limit that is not part of the question.
    LimitTooLow,
    /// It was raised for every variant.
    LimitRaised,
    /// The contrasts were computed.
    Analysed {
        /// No primary contrast is inconclusive, or nothing is to be gained by more seeds.
        conclusive: bool,
    },
    /// Findings are in the journal.
    Closed,
    /// The numbers were read.
    Interpreted,
    /// Follow up.
    GoOn,
    /// The soft stop.
    Enough,
    /// A budget, a failure or the user ends the campaign.
    Stop {
        /// Which one.
        by: StoppedBy,
    },
    /// The report is on disk.
    Reported,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Image, blobs.
    Prepare,
    /// Ask for a plan and check it.
    Plan,
    /// Journal plan, digest, seeds and ledger.
    Register,
    /// Ask for a program.
    Code,
    /// Read it.
    Check,
    /// Run every variant once, tiny.
    Smoke,
    /// Ask for a mended program.
    Repair,
    /// Take the faulty variants out.
    Void,
    /// Run what is missing up to this look.
    Run {
        /// Index of the look.
        look: u32,
    },
    /// Raise the time limit for all.
    Raise,
    /// Compute the contrasts.
    Analyse {
        /// Index of the look.
        look: u32,
    },
    /// Write findings, or that it led nowhere.
    Close {
        /// It has no numbers.
        abandoned: bool,
    },
    /// Ask what the numbers mean.
    Interpret,
    /// Ask whether to go on.
    Decide,
    /// Write the report.
    Report {
        /// For its first page.
        stopped: StoppedBy,
    },
}

/// What bounds the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Experiments.
    pub iterations: u32,
    /// Plans that may be asked for in one iteration.
    pub plans: u32,
    /// Repairs of one experiment.
    pub repairs: u32,
}

/// An event that has no meaning in a state: a fault of the driver.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("event {event:?} has no meaning in state {state:?}")]
pub struct Refused {
    /// Where.
    pub state: State,
    /// What.
    pub event: Event,
}

/// A campaign's step, with the counters that the transitions need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What it is doing.
    pub state: State,
    /// From 1; 0 before the first plan.
    pub iteration: u32,
    /// Repairs of this experiment's program so far.
    pub repairs: u32,
    /// Looks that this experiment registers.
    pub looks: u32,
    /// The time limit of this experiment was raised already.
    pub raised: bool,
    bounds: Bounds,
}

impl Machine {
    /// Before anything.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { state: State::New, iteration: 0, repairs: 0, looks: 0, raised: false, bounds }
    }

    /// Another number of iterations: it counts when the next one would begin.
    pub fn set_iterations(&mut self, iterations: u32) {
        self.bounds.iterations = iterations;
    }

    /// Takes an event: the next state, and what to do, if anything.
    ///
    /// # Errors
    /// [`Refused`] where the event has no meaning in this state; nothing has changed then.
    pub fn step(&mut self, event: Event) -> Result<Option<Action>, Refused> {
        use Event as E;
        use State as S;
        let (state, action) = match (&self.state, event) {
            (S::Ended { .. }, _) => return Err(self.refuse(event)),
            (S::Reporting { stopped }, E::Reported) => (S::Ended { stopped: *stopped }, None),
            // The report is being written: a second stop changes neither it nor its reason.
            (S::Reporting { stopped }, E::Stop { .. }) => {
                return Ok(Some(Action::Report { stopped: *stopped }));
            }
            (S::Closing { .. }, E::Stop { by }) => {
                (S::Closing { then: AfterClose::Report(by) }, Some(Action::Close { abandoned: false }))
            }
            (state, E::Stop { by }) if state.experiment_open() => {
                (S::Closing { then: AfterClose::Report(by) }, Some(Action::Close { abandoned: false }))
            }
            (_, E::Stop { by }) => report(by),
            (S::New, E::Begun) => (S::Preparing, Some(Action::Prepare)),
            (S::Preparing, E::Prepared) => self.next_plan(),
            (S::Planning { .. }, E::PlanSound { looks }) => {
                self.looks = looks.max(1);
                self.repairs = 0;
                self.raised = false;
                (S::Registering, Some(Action::Register))
            }
            (S::Planning { refused }, E::PlanUnsound) => {
                let refused = refused + 1;
                if refused < self.bounds.plans {
                    (S::Planning { refused }, Some(Action::Plan))
                } else {
                    report(StoppedBy::NoSoundPlan)
                }
            }
            (S::Planning { .. }, E::NothingMore) => report(StoppedBy::Answered),
            (S::Registering, E::Registered) => (S::Coding, Some(Action::Code)),
            (S::Coding | S::Repairing, E::ProgramWritten) => (S::Checking, Some(Action::Check)),
            (S::Checking, E::ProgramSound) => (S::Smoking, Some(Action::Smoke)),
            (S::Smoking, E::SmokePassed) | (S::Voiding, E::Voided) | (S::Raising, E::LimitRaised) => {
                (S::Running { look: 0 }, Some(Action::Run { look: 0 }))
            }
            (S::Checking | S::Smoking | S::Running { .. }, E::ProgramFaulty { voidable }) => {
                if self.repairs < self.bounds.repairs {
                    self.repairs += 1;
                    (S::Repairing, Some(Action::Repair))
                } else if voidable {
                    (S::Voiding, Some(Action::Void))
                } else {
                    (S::Closing { then: AfterClose::NextPlan }, Some(Action::Close { abandoned: true }))
                }
            }
            (S::Running { .. }, E::LimitTooLow) if !self.raised => {
                self.raised = true;
                (S::Raising, Some(Action::Raise))
            }
            // Raised once already: what was cut short is void, and the analysis says so.
            (S::Running { look }, E::LimitTooLow | E::LookRun) => {
                let look = *look;
                (S::Analysing { look }, Some(Action::Analyse { look }))
            }
            (S::Analysing { look }, E::Analysed { conclusive }) => {
                let next = look + 1;
                if conclusive || next >= self.looks {
                    (S::Closing { then: AfterClose::Interpret }, Some(Action::Close { abandoned: false }))
                } else {
                    (S::Running { look: next }, Some(Action::Run { look: next }))
                }
            }
            (S::Closing { then }, E::Closed) => match *then {
                AfterClose::Interpret => (S::Interpreting, Some(Action::Interpret)),
                AfterClose::NextPlan if self.iteration < self.bounds.iterations => self.next_plan(),
                AfterClose::NextPlan => report(StoppedBy::Repairs),
                AfterClose::Report(stopped) => report(stopped),
            },
            (S::Interpreting, E::Interpreted) => (S::Deciding, Some(Action::Decide)),
            (S::Deciding, E::Enough) => report(StoppedBy::Answered),
            (S::Deciding, E::GoOn) if self.iteration < self.bounds.iterations => self.next_plan(),
            (S::Deciding, E::GoOn) => report(StoppedBy::Iterations),
            _ => return Err(self.refuse(event)),
        };
        self.state = state;
        Ok(action)
    }

    fn next_plan(&mut self) -> (State, Option<Action>) {
        self.iteration += 1;
        (State::Planning { refused: 0 }, Some(Action::Plan))
    }

    fn refuse(&self, event: Event) -> Refused {
        Refused { state: self.state.clone(), event }
    }
}

fn report(stopped: StoppedBy) -> (State, Option<Action>) {
    (State::Reporting { stopped }, Some(Action::Report { stopped }))
}

impl State {
    /// Whether an experiment is registered and not closed.
    #[must_use]
    pub fn experiment_open(&self) -> bool {
        match self {
            Self::Coding
            | Self::Checking
            | Self::Smoking
            | Self::Repairing
            | Self::Voiding
            | Self::Running { .. }
            | Self::Raising
            | Self::Analysing { .. }
            | Self::Closing { .. } => true,
            Self::New
            | Self::Preparing
            | Self::Planning { .. }
            | Self::Registering
            | Self::Interpreting
            | Self::Deciding
            | Self::Reporting { .. }
            | Self::Ended { .. } => false,
        }
    }

    /// For the progress line.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self {
            Self::New => "starting",
            Self::Preparing => "preparing image and data",
            Self::Planning { .. } => "planning",
            Self::Registering => "registering the plan",
            Self::Coding => "writing the program",
            Self::Checking => "reading the program",
            Self::Smoking => "smoke runs",
            Self::Repairing => "repairing the program",
            Self::Voiding => "leaving out what cannot run",
            Self::Running { .. } => "running",
            Self::Raising => "raising the time limit",
            Self::Analysing { .. } => "analysing",
            Self::Closing { .. } => "closing the experiment",
            Self::Interpreting => "reading the results",
            Self::Deciding => "deciding",
            Self::Reporting { .. } => "writing the report",
            Self::Ended { .. } => "done",
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
