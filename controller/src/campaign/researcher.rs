//! What the loop asks of whoever does the thinking: a language model (`model/`) or the rules of `offline/`. The
//! researcher plans, writes code, repairs it, reads results and decides; it never runs anything, never sees a
//! metric of an experiment that is open, and never does arithmetic that counts.

use async_trait::async_trait;
use kit::task::CancellationToken;
use serde::{Deserialize, Serialize};

use super::plan::Plan;

/// What the planner is told.
#[derive(Debug, Clone, Serialize)]
pub struct PlanContext {
    /// As the user wrote it.
    pub question: String,
    /// The iteration that is planned, from 1.
    pub iteration: u32,
    /// At most so many iterations in all.
    pub max_iterations: u32,
    /// How many confirmatory experiments may still be made.
    pub confirmatory_left: u32,
    /// What is known so far, oldest first.
    pub findings: Vec<Finding>,
    /// What was tried and led nowhere.
    pub dead_ends: Vec<String>,
    /// Every closed experiment.
    pub experiments: Vec<ClosedExperiment>,
    /// What the workers can do.
    pub workers: Workers,
    /// What is left.
    pub budget: BudgetLeft,
    /// The user's wishes.
    pub wishes: Wishes,
    /// Hints that came while the campaign ran, oldest first.
    pub hints: Vec<String>,
    /// What was wrong with the last reply, by field; empty at the first try.
    pub faults: Vec<Fault>,
}

/// A claim about the question, tied to runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// "f1", …
    pub id: String,
    /// The experiment that it came from.
    pub experiment: String,
    /// By rule, not by the researcher.
    pub text: String,
    /// Supported, refuted, equivalent, inconclusive; "exploratory" where there is no verdict.
    pub verdict: String,
}

/// An experiment that is over, with its numbers.
#[derive(Debug, Clone, Serialize)]
pub struct ClosedExperiment {
    /// "e1", …
    pub id: String,
    /// As registered.
    pub plan: Plan,
    /// One for each variant.
    pub variants: Vec<VariantResult>,
    /// One for each contrast.
    pub contrasts: Vec<ContrastResult>,
}

/// A variant's numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VariantResult {
    /// "v1", …
    pub variant: String,
    /// "c1", …
    pub cell: String,
    /// Seeds that were started.
    pub seeds: u32,
    /// Of them, failed by the plan's rule.
    pub failed: u32,
    /// Mean over seeds of the final value of the plan's metric, failed runs at their registered value.
    pub mean: Option<f64>,
    /// Standard deviation over seeds (n − 1).
    pub deviation: Option<f64>,
    /// Mean wall-clock seconds of a run.
    pub seconds: Option<f64>,
}

/// A contrast's numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContrastResult {
    /// As registered.
    pub contrast: String,
    /// In the metric's unit.
    pub estimate: Option<f64>,
    /// At the registered level.
    pub low: Option<f64>,
    /// At the registered level.
    pub high: Option<f64>,
    /// By rule; absent where exploratory.
    pub verdict: Option<String>,
}

/// What the workers can do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Workers {
    /// Places that run at once.
    pub slots: u32,
    /// Of one slot.
    pub cpu_millis: u32,
    /// Of one slot.
    pub memory_bytes: u64,
    /// Names of GPUs; empty on a CPU worker.
    pub gpus: Vec<String>,
    /// "torch 2.15.0", … of the image that runs use.
    pub packages: Vec<String>,
    /// Names and descriptions.
    pub data_sets: Vec<DataSetInfo>,
}

/// A data set that a plan may name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DataSetInfo {
    /// For `data_set`.
    pub name: String,
    /// Columns, sizes, what it is.
    pub description: String,
    /// "3 files, 20MiB".
    pub size: String,
    /// Of its content, for the report: no two data sets of one name can be taken for each other.
    pub digest: String,
    /// The table's smallest effect of interest for the metric named in the text, where there is one.
    pub smallest_effect: Option<f64>,
}

/// What is left of each budget; `None`: no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BudgetLeft {
    /// Awake and not paused.
    pub seconds: Option<f64>,
    /// Of devices (slots on a CPU worker).
    pub device_seconds: Option<f64>,
    /// US dollars.
    pub dollars: Option<f64>,
}

/// What the user asked for.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Wishes {
    /// `--seeds`: a single look at so many.
    pub seeds: Option<u32>,
    /// `--smallest-effect`, as written: "0.5pt", "2%", "0.01".
    pub smallest_effect: Option<String>,
    /// `--dataset`.
    pub data_set: Option<String>,
}

/// Why a reply was sent back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Like "factors[0].levels".
    pub field: String,
    /// What is wrong and what is wanted.
    pub problem: String,
}

/// What the planner answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Planned {
    /// The next experiment.
    Experiment(Box<Plan>),
    /// There is nothing more to be learnt within what is left: the soft stop, with its reason.
    Finished {
        /// For the report.
        reason: String,
    },
}

/// What the coder is told.
#[derive(Debug, Clone, Serialize)]
pub struct CodeContext {
    /// As the user wrote it.
    pub question: String,
    /// As registered.
    pub plan: Plan,
    /// "torch 2.15.0", …
    pub packages: Vec<String>,
    /// Of the plan's data set.
    pub data_set_description: String,
    /// The program of the experiment before, if there was one.
    pub previous_program: Option<String>,
}

/// A program for all variants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Python.
    pub source: String,
    /// Other packages than those of the revision before; `None`: they stay.
    pub packages: Option<Vec<String>>,
}

/// What the coder is told when its program failed.
#[derive(Debug, Clone, Serialize)]
pub struct RepairContext {
    /// As before.
    pub code: CodeContext,
    /// The program that failed.
    pub program: String,
    /// What it asked for besides the image's packages.
    pub packages: Vec<String>,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// What failed, worst first.
    pub failures: Vec<Failure>,
    /// The same error came twice: another approach is wanted.
    pub same_again: bool,
}

/// A run that failed, without its metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// "v1", …
    pub variant: String,
    /// A smoke run or a full one.
    pub smoke: bool,
    /// WORKER §5's word; "static_check" where nothing ran.
    pub outcome: String,
    /// One line.
    pub message: String,
    /// Its tail.
    pub traceback: String,
    /// The last of stdout and stderr.
    pub last_output: String,
    /// Time, memory and their limits, in words.
    pub usage: String,
    /// What to do about such an outcome.
    pub advice: String,
}

/// What the analyst is told: computed numbers only.
#[derive(Debug, Clone, Serialize)]
pub struct InterpretContext {
    /// As the user wrote it.
    pub question: String,
    /// What was closed.
    pub experiment: ClosedExperiment,
    /// The sentences that the program wrote by rule.
    pub rulings: Vec<String>,
    /// Findings before this one.
    pub findings: Vec<Finding>,
    /// Numbers of the last reply that match no computed one; empty at the first try.
    pub faults: Vec<Fault>,
}

/// What the analyst answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interpretation {
    /// One or two paragraphs that cite the experiment and its runs.
    pub text: String,
    /// Threats to validity.
    pub threats: Vec<String>,
}

/// What whoever decides is told.
#[derive(Debug, Clone, Serialize)]
pub struct DecideContext {
    /// As for planning: the state after the last experiment.
    pub state: PlanContext,
}

/// Whether to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Follow up.
    Continue {
        /// What is to be learnt.
        reason: String,
    },
    /// The soft stop.
    Stop {
        /// Why the question is answered, or cannot be.
        reason: String,
    },
}

/// Why the researcher gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ResearchError {
    /// The question is outside what it covers.
    #[error("{reason}")]
    CannotAnswer {
        /// What it covers, for a person.
        reason: String,
    },
    /// The provider failed, and would again.
    #[error("the model gave no answer for {purpose}: {detail}")]
    Provider {
        /// "plan", "code", …
        purpose: &'static str,
        /// What to do.
        detail: String,
    },
    /// It answered, but not with what was asked for, as often as it was asked.
    #[error("no usable {purpose} after {attempts} tries: {detail}")]
    Unusable {
        /// "plan", "code", …
        purpose: &'static str,
        /// How often it was asked.
        attempts: u32,
        /// The last fault.
        detail: String,
    },
    /// The call would pass the money budget.
    #[error("the cost budget does not cover the call for {purpose}")]
    Budget {
        /// "plan", "code", …
        purpose: &'static str,
    },
    /// Stopped from outside.
    #[error("cancelled")]
    Cancelled,
    /// The journal failed: nothing may go on.
    #[error("journal: {0}")]
    Journal(String),
}

/// Whoever does the thinking.
#[async_trait]
pub trait Researcher: Send + Sync {
    /// "offline", or the model's spec.
    fn name(&self) -> String;

    /// What the program prints first.
    fn first_line(&self) -> String;

    /// Whether it can take the question at all, before anything is built or started.
    ///
    /// # Errors
    /// [`ResearchError::CannotAnswer`] with what it covers.
    fn accepts(&self, question: &str) -> Result<(), ResearchError>;

    /// The next experiment. Called again with `faults` where the plan was not sound.
    ///
    /// # Errors
    /// Any of [`ResearchError`].
    async fn plan(&self, context: &PlanContext, cancel: &CancellationToken)
    -> Result<Planned, ResearchError>;

    /// One program for all variants.
    ///
    /// # Errors
    /// Any of [`ResearchError`].
    async fn code(&self, context: &CodeContext, cancel: &CancellationToken)
    -> Result<Program, ResearchError>;

    /// The program, mended.
    ///
    /// # Errors
    /// Any of [`ResearchError`].
    async fn repair(
        &self,
        context: &RepairContext,
        cancel: &CancellationToken,
    ) -> Result<Program, ResearchError>;

    /// What the numbers mean.
    ///
    /// # Errors
    /// Any of [`ResearchError`].
    async fn interpret(
        &self,
        context: &InterpretContext,
        cancel: &CancellationToken,
    ) -> Result<Interpretation, ResearchError>;

    /// Whether to go on.
    ///
    /// # Errors
    /// Any of [`ResearchError`].
    async fn decide(
        &self,
        context: &DecideContext,
        cancel: &CancellationToken,
    ) -> Result<Decision, ResearchError>;
}

/// Nobody: for the end of a campaign that needs no more thinking. It has the name of whoever thought before.
pub struct Absent(pub String);

impl Absent {
    fn nobody<T>(purpose: &'static str) -> Result<T, ResearchError> {
        Err(ResearchError::Provider {
            purpose,
            detail: "nobody is asked for the end of a campaign".to_owned(),
        })
    }
}

#[async_trait]
impl Researcher for Absent {
    fn name(&self) -> String {
        self.0.clone()
    }

    fn first_line(&self) -> String {
        self.0.clone()
    }

    fn accepts(&self, _: &str) -> Result<(), ResearchError> {
        Self::nobody("a question")
    }

    async fn plan(&self, _: &PlanContext, _: &CancellationToken) -> Result<Planned, ResearchError> {
        Self::nobody("plan")
    }

    async fn code(&self, _: &CodeContext, _: &CancellationToken) -> Result<Program, ResearchError> {
        Self::nobody("code")
    }

    async fn repair(&self, _: &RepairContext, _: &CancellationToken) -> Result<Program, ResearchError> {
        Self::nobody("repair")
    }

    async fn interpret(
        &self,
        _: &InterpretContext,
        _: &CancellationToken,
    ) -> Result<Interpretation, ResearchError> {
        Self::nobody("interpret")
    }

    async fn decide(&self, _: &DecideContext, _: &CancellationToken) -> Result<Decision, ResearchError> {
        Self::nobody("decide")
    }
}
