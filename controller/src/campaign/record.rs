//! What a campaign has found so far, as the loop holds it in memory: plain data that the analyst reads and the reporter
//! prints. The journal holds the same on disk; nothing here decides.

use std::collections::BTreeMap;

use proto::v1;
use serde::{Deserialize, Serialize};

use super::{
    analyst::LookAnalysis,
    plan::{Cell, Plan, Variant},
    researcher::Finding,
};

/// The word for an outcome, as WORKER §5 has it.
#[must_use]
pub fn outcome_word(kind: v1::OutcomeKind) -> &'static str {
    use v1::OutcomeKind as K;
    match kind {
        K::Unspecified => "unknown",
        K::Succeeded => "succeeded",
        K::Failed => "failed",
        K::MissingMetrics => "missing_metrics",
        K::Diverged => "diverged",
        K::OutOfMemory => "out_of_memory",
        K::GpuOutOfMemory => "gpu_out_of_memory",
        K::TimedOut => "timed_out",
        K::Stalled => "stalled",
        K::LimitExceeded => "limit_exceeded",
        K::DependencyConflict => "dependency_conflict",
        K::Cancelled => "cancelled",
        K::Rejected => "rejected",
        K::Lost => "lost",
    }
}

/// The word for an outcome, from the journal's text; "unknown" where it is none.
#[must_use]
pub fn outcome_word_of(text: &str) -> &'static str {
    let kinds = (0..64).map_while(|n| v1::OutcomeKind::try_from(n).ok());
    kinds.map(outcome_word).find(|word| *word == text).unwrap_or("unknown")
}

/// Why a run is `lost`, as WORKER.md's word; `None` for every other outcome.
#[must_use]
pub fn lost_cause_word(cause: v1::LostCause) -> Option<String> {
    let word = cause.as_str_name().trim_start_matches("LOST_CAUSE_").to_lowercase();
    (cause != v1::LostCause::Unspecified).then_some(word)
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A tiny trial: journalled, never analysed.
    Smoke,
    /// The real thing.
    Full,
}

impl Purpose {
    /// For labels and the report.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Full => "full",
        }
    }
}

/// A value that a program logged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// The program's step; its place in the series where it gave none.
    pub step: u64,
    /// As logged; may be NaN or infinite.
    pub value: f64,
}

/// One run and how it ended. What is skipped when a campaign is kept, the journal has under the run's id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// UUID.
    pub id: String,
    /// "v1".
    pub variant: String,
    /// As issued.
    pub seed: u64,
    /// Smoke or full.
    pub purpose: Purpose,
    /// Number of the revision that ran, from 1.
    pub revision: u32,
    /// How it ended.
    #[serde(skip)]
    pub outcome: v1::Outcome,
    /// What it used.
    #[serde(skip)]
    pub usage: Option<v1::UsageTotals>,
    /// The limits that were in force.
    #[serde(skip)]
    pub limits: v1::Limits,
    /// Every metric's series, in the order of logging.
    #[serde(skip)]
    pub series: BTreeMap<String, Vec<Logged>>,
    /// The last of stdout and stderr.
    #[serde(skip)]
    pub last_output: String,
    /// Worker and slot.
    pub place: String,
    /// What was installed besides the image's own, like "einops 0.8.0".
    #[serde(skip)]
    pub packages: Vec<String>,
}

impl RunRecord {
    /// How it ended.
    #[must_use]
    pub fn kind(&self) -> v1::OutcomeKind {
        self.outcome.kind()
    }

    /// Wall-clock seconds of the program, where it ran.
    #[must_use]
    pub fn seconds(&self) -> Option<f64> {
        self.usage.as_ref().filter(|u| u.wall_ms > 0).map(|u| u.wall_ms as f64 / 1000.0)
    }
}

/// One version of an experiment's program. Its text is the journal's to keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// From 1.
    pub number: u32,
    /// SHA-256.
    pub digest: String,
    /// "first", or the failure that it mends.
    pub reason: String,
    /// Python.
    #[serde(skip)]
    pub source: String,
    /// What its runs ask for besides the image's packages: the plan's, or what a repair made of them.
    pub packages: Vec<String>,
}

/// Where an experiment stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Not closed yet.
    Open,
    /// Closed with numbers.
    Closed,
    /// It led nowhere, and why.
    Abandoned(String),
}

/// One experiment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExperimentRecord {
    /// "e1", …
    pub id: String,
    /// As registered.
    pub plan: Plan,
    /// Of what was registered.
    pub digest: String,
    /// RFC 3339.
    pub registered_at: String,
    /// Which confirmatory experiment it is, from 0; `None` where exploratory.
    pub confirmatory: Option<u32>,
    /// Seeds of the full runs, in their order; as many as the last look wants.
    pub seeds: Vec<u64>,
    /// Programs, oldest first.
    pub revisions: Vec<Revision>,
    /// Every run that was started, oldest first.
    pub runs: Vec<RunRecord>,
    /// Looks that were made.
    pub looks: Vec<LookAnalysis>,
    /// Variants that left the experiment, and why.
    pub void: BTreeMap<String, String>,
    /// For the report.
    pub notes: Vec<String>,
    /// Changes to what was registered.
    pub amendments: Vec<String>,
    /// The researcher's words.
    pub interpretation: String,
    /// The researcher's sentences that were taken out.
    pub removed: Vec<String>,
    /// Threats that the researcher names.
    pub threats: Vec<String>,
    /// Sentences by rule.
    pub rulings: Vec<String>,
    /// Where it stands.
    pub standing: Standing,
}

impl ExperimentRecord {
    /// The program that runs now.
    #[must_use]
    pub fn revision(&self) -> Option<&Revision> {
        self.revisions.last()
    }

    /// The variants that are still in.
    #[must_use]
    pub fn variants(&self) -> Vec<Variant> {
        self.plan.variants().into_iter().filter(|v| !self.void.contains_key(&v.id)).collect()
    }

    /// The cells.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        self.plan.cells()
    }

    /// Full runs of the current revision that are analysed: the last one for each variant and seed, since a run that was
    /// lost is started again.
    #[must_use]
    pub fn analysed(&self) -> BTreeMap<(String, u64), &RunRecord> {
        let revision = self.revision().map_or(0, |r| r.number);
        let full = self.runs.iter().filter(|r| r.purpose == Purpose::Full && r.revision == revision);
        full.map(|r| ((r.variant.clone(), r.seed), r)).collect()
    }

    /// Runs that were lost, for a variant.
    #[must_use]
    pub fn lost(&self, variant: &str) -> usize {
        let lost = |r: &&RunRecord| r.variant == variant && r.kind() == v1::OutcomeKind::Lost;
        self.runs.iter().filter(lost).count()
    }
}

/// A finding and the runs that it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindingRecord {
    /// As the researcher sees it.
    pub finding: Finding,
    /// Run ids.
    pub runs: Vec<String>,
}

/// A whole campaign so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Record {
    /// Of the campaign.
    pub id: String,
    /// Oldest first; the last one may be open.
    pub experiments: Vec<ExperimentRecord>,
    /// Oldest first.
    pub findings: Vec<FindingRecord>,
    /// What led nowhere.
    pub dead_ends: Vec<String>,
    /// The researcher's reason for stopping, or what failed.
    pub stop_reason: String,
    /// "image", "torch, sha256:…" and their like.
    pub environment: Vec<(String, String)>,
    /// Hints that came while it ran.
    pub hints: Vec<String>,
}

impl Record {
    /// The experiment that is open.
    #[must_use]
    pub fn open(&self) -> Option<&ExperimentRecord> {
        self.experiments.last().filter(|e| e.standing == Standing::Open)
    }

    /// The experiment that is open.
    pub fn open_mut(&mut self) -> Option<&mut ExperimentRecord> {
        self.experiments.last_mut().filter(|e| e.standing == Standing::Open)
    }

    /// How many confirmatory experiments were registered.
    #[must_use]
    pub fn confirmatory(&self) -> u32 {
        u32::try_from(self.experiments.iter().filter(|e| e.confirmatory.is_some()).count())
            .unwrap_or(u32::MAX)
    }

    /// Whether a full run succeeded.
    #[must_use]
    pub fn any_succeeded(&self) -> bool {
        let good = |r: &RunRecord| r.purpose == Purpose::Full && r.kind() == v1::OutcomeKind::Succeeded;
        self.experiments.iter().any(|e| e.runs.iter().any(good))
    }
}
