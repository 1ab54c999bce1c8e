//! The one document that Markdown, HTML and JSON are made from: `report.json` is this, serialised. Every number that
//! is printed is in here with the ids of the runs that it rests on. Whoever fills it in has computed everything: no page
//! does arithmetic beyond rounding.

use serde::{Deserialize, Serialize};

/// The version of `report.json`'s form; raised when a reader of the old one would misread it.
pub const FORMAT: u32 = 1;

/// A campaign's report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Of the campaign.
    pub id: String,
    /// As the user wrote it.
    pub question: String,
    /// "offline", or the model's spec.
    pub researcher: String,
    /// "finished", "interrupted", "failed", "cancelled".
    pub state: String,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub ended_at: String,
    /// The first thing that is read.
    pub answer: Answer,
    /// In the order in which they were closed.
    pub experiments: Vec<Experiment>,
    /// One for each claim and each exploratory result.
    pub findings: Vec<Finding>,
    /// Every run that was started, the failed ones too.
    pub runs: Vec<Run>,
    /// Programs, oldest first.
    pub revisions: Vec<Revision>,
    /// What it cost.
    pub costs: Costs,
    /// By whom the experiment's error was spent.
    pub ledger: Vec<LedgerLine>,
    /// Threats to validity.
    pub threats: Vec<String>,
    /// Changes to what was registered, told before the evidence.
    pub amendments: Vec<String>,
    /// What was tried and led nowhere.
    pub dead_ends: Vec<String>,
    /// Versions, images, devices.
    pub environment: Vec<Fact>,
    /// The command that makes this report's campaign again.
    pub command: String,
}

/// The answer, as METHOD §8 orders it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// "Supported", "Refuted", "Equivalent", "Inconclusive", or "No answer".
    pub verdict: String,
    /// One paragraph; every number in it is in `numbers`.
    pub text: String,
    /// What stopped the campaign, by name: "question answered", "iterations", "wall-clock", "GPU-hours", "money",
    /// "failures in a row", "interrupted", …
    pub stopped_by: String,
    /// The numbers of `text`.
    pub numbers: Vec<Number>,
    /// The researcher's own words, matched with computed numbers; empty where there are none.
    pub interpretation: String,
    /// Sentences of the researcher's that were removed because a number in them matched no computed one.
    pub removed: Vec<String>,
}

/// A computed number and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Number {
    /// Like "effect", "interval low", "seeds".
    pub name: String,
    /// In `unit`. `null` in JSON where it is not finite.
    pub value: Option<f64>,
    /// As printed.
    pub shown: String,
    /// Like "points", "nats", "seeds", "%".
    pub unit: String,
    /// How it was computed, by METHOD's section.
    pub rule: String,
    /// The runs that it rests on.
    pub runs: Vec<String>,
}

/// One experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// "e1".
    pub id: String,
    /// Of the plan.
    pub title: String,
    /// "ablation", …
    pub kind: String,
    /// "exploratory" or "confirmatory".
    pub role: String,
    /// As registered.
    pub plan: serde_json::Value,
    /// SHA-256 of what was registered.
    pub plan_digest: String,
    /// RFC 3339: before any run.
    pub registered_at: String,
    /// Why.
    pub rationale: String,
    /// Findings that it follows from.
    pub motivated_by: Vec<String>,
    /// What is measured.
    pub metric: Metric,
    /// How a run became one number, in words.
    pub reduce: String,
    /// What one seed varied.
    pub replicate: Vec<String>,
    /// "paired by seed, corrected for overlapping splits", …
    pub method: String,
    /// The smallest effect of interest, in the metric's unit.
    pub smallest_effect: f64,
    /// "user", "table", "model".
    pub smallest_effect_set_by: String,
    /// Of the looks that were made.
    pub looks: Vec<Look>,
    /// One for each variant.
    pub variants: Vec<Variant>,
    /// At the last look.
    pub contrasts: Vec<Contrast>,
    /// Curves for the plots.
    pub curves: Vec<Curve>,
    /// Lines such as "not at equal parameters".
    pub notes: Vec<String>,
    /// The researcher's own words about it.
    pub interpretation: String,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// As logged.
    pub name: String,
    /// "fraction" is shown in points.
    pub unit: String,
    /// "higher" or "lower".
    pub better: String,
    /// "scored", "measured", "logged" (self-reported by generated code).
    pub source: String,
    /// "test", "validation", "train".
    pub split: String,
}

/// One registered look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// Seeds for each cell.
    pub seeds: u32,
    /// Two-sided error of its intervals.
    pub error: f64,
    /// The verdict of the first primary contrast there.
    pub verdict: String,
}

/// One variant's runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// "v1".
    pub id: String,
    /// "c1".
    pub cell: String,
    /// For people: "batch_norm = true, lr = 0.01".
    pub label: String,
    /// All of `ar.params`.
    pub params: serde_json::Value,
    /// Whether its cell is the control.
    pub control: bool,
    /// One for each analysed seed, in order: the run's number, failed runs at the registered value.
    pub values: Vec<SeedValue>,
    /// Mean of `values`.
    pub mean: Option<f64>,
    /// Standard deviation over seeds (n − 1).
    pub deviation: Option<f64>,
    /// 95 % t interval of the mean: description, not a test.
    pub low: Option<f64>,
    /// See `low`.
    pub high: Option<f64>,
    /// Planned, run and failed.
    pub planned: u32,
    /// Runs that were started and analysed.
    pub analysed: u32,
    /// Failed by the plan's rule.
    pub failed: u32,
    /// Exact upper 97.5 % limit of the share that fails, 0 to 1.
    pub failed_up_to: f64,
}

/// One seed's number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedValue {
    /// As issued.
    pub seed: u64,
    /// In the metric's unit.
    pub value: Option<f64>,
    /// The run.
    pub run: String,
    /// Counted at the registered value because it failed.
    pub failed: bool,
}

/// One contrast at the last look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contrast {
    /// As registered.
    pub id: String,
    /// For people: "with − without batch norm".
    pub label: String,
    /// Whether it has a claim.
    pub primary: bool,
    /// The claim's sentence.
    pub claim: Option<String>,
    /// "increase", …
    pub predicts: Option<String>,
    /// In the metric's unit.
    pub estimate: Option<f64>,
    /// At `level`.
    pub low: Option<f64>,
    /// At `level`.
    pub high: Option<f64>,
    /// Like 0.98.
    pub level: Option<f64>,
    /// Welch–Satterthwaite, or n − 1.
    pub degrees_of_freedom: Option<f64>,
    /// "supported", …; absent where exploratory.
    pub verdict: Option<String>,
    /// The verdict's sentence, by rule.
    pub sentence: String,
    /// The smallest margin that would have given "equivalent".
    pub smallest_margin: Option<f64>,
    /// Changes if each failed run is put at its arm's median.
    pub rests_on_failed_runs: bool,
    /// Whether the uncorrected interval differs, and its ends ("on this one split").
    pub plain_interval: Option<[f64; 2]>,
    /// The runs that it rests on.
    pub runs: Vec<String>,
}

/// A curve with its band: description, not a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Metric.
    pub metric: String,
    /// The variant's or cell's label.
    pub label: String,
    /// Its id.
    pub variant: String,
    /// The x axis: steps, or the level of the factor that is reduced over.
    pub x: Vec<f64>,
    /// What x is: "step", "lr".
    pub x_name: String,
    /// Whether x is on a log axis.
    pub x_log: bool,
    /// Mean over seeds.
    pub mean: Vec<f64>,
    /// Pointwise 95 % band.
    pub low: Vec<f64>,
    /// Pointwise 95 % band.
    pub high: Vec<f64>,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// "f1".
    pub id: String,
    /// "e2".
    pub experiment: String,
    /// By rule.
    pub text: String,
    /// "supported", …, "exploratory".
    pub verdict: String,
    /// The runs that it rests on.
    pub runs: Vec<String>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// UUID.
    pub id: String,
    /// "e1"; empty for `exec`.
    pub experiment: String,
    /// "v1".
    pub variant: String,
    /// As issued.
    pub seed: u64,
    /// "smoke" or "full".
    pub purpose: String,
    /// WORKER §5.
    pub outcome: String,
    /// One line.
    pub message: String,
    /// Its program's digest.
    pub revision: String,
    /// Wall-clock seconds of the program.
    pub seconds: Option<f64>,
    /// Peak memory in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// The run's number by the plan's rule, where it is a full run of a closed experiment.
    pub value: Option<f64>,
    /// The last value of each metric.
    pub metrics: Vec<MetricValue>,
    /// The worker and slot.
    pub place: String,
}

/// A metric's last value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricValue {
    /// Its name.
    pub name: String,
    /// `null` where it is not finite.
    pub value: Option<f64>,
}

/// One program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// "e1".
    pub experiment: String,
    /// From 1.
    pub number: u32,
    /// SHA-256.
    pub digest: String,
    /// "first", or the failure that it mends.
    pub reason: String,
    /// Python.
    pub source: String,
}

/// What it cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Awake and not paused, seconds.
    pub wall_seconds: f64,
    /// Of devices (slots on a CPU worker), seconds.
    pub device_seconds: f64,
    /// "GPU" or "slot".
    pub device_unit: String,
    /// Model calls.
    pub calls: u32,
    /// Tokens in, all kinds.
    pub input_tokens: u64,
    /// Tokens out.
    pub output_tokens: u64,
    /// US dollars; `None`: a price is unknown.
    pub dollars: Option<f64>,
    /// What could not be counted, in words.
    pub unknown: Vec<String>,
    /// Each limit and how much of it was used.
    pub budgets: Vec<BudgetLine>,
}

/// One budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetLine {
    /// "iterations", "wall-clock", "GPU-hours", "money", "failures in a row".
    pub name: String,
    /// As shown.
    pub used: String,
    /// As shown; "no limit" where there is none.
    pub limit: String,
    /// Whether it stopped the campaign.
    pub stopped: bool,
}

/// One line of the error ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerLine {
    /// "e2".
    pub experiment: String,
    /// The contrast.
    pub contrast: String,
    /// Seeds at the look.
    pub look: u32,
    /// What it could spend.
    pub error: f64,
    /// Whether it was made.
    pub spent: bool,
}

/// A fact about where this ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// Like "image".
    pub name: String,
    /// Like "torch, sha256:…".
    pub value: String,
}
