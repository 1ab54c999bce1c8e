//! The plan of one experiment: METHOD §1 as types, in the shape that a model is asked for (no free maps: every
//! provider's schema subset refuses them). Plain data; whether a plan is sound is `check.rs`'s business.
//!
//! Cells and variants. The factors' product, the last factor changing fastest, numbers the variants `v1`, `v2`, …:
//! ids that say nothing to the code. Where the plan reduces over a factor (`gap_to_best_over`, `slope_over`),
//! variants that differ only in it make one cell; else a cell is a variant. Cells are numbered `c1`, `c2`, … in the
//! same order, and control and contrasts name cells.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The design of one experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// One line for a person.
    pub title: String,
    /// Chooses the default contrasts and the report's template.
    pub kind: Kind,
    /// Exploratory: validation split, no verdict, spends nothing. Confirmatory: new seeds, test split, spends error.
    pub role: Role,
    /// Ids of the findings that this experiment follows from; empty for the first.
    pub motivated_by: Vec<String>,
    /// Why this experiment, and why its control is a fair one.
    pub rationale: String,
    /// What it holds under, and what it does not cover.
    pub conditions: String,
    /// One for each primary contrast, in their order; empty where exploratory.
    pub claims: Vec<Claim>,
    /// 1 to 3.
    pub factors: Vec<Factor>,
    /// The same for every variant. A parameter is either here or a factor.
    pub fixed_params: Vec<Param>,
    /// Values that go with a level of a factor: what each arm was given by tuning.
    pub adjusted_params: Vec<Adjustment>,
    /// The cell that others are compared with, like "c1". Required for ablation, comparison, equivalence and stability.
    pub control: Option<String>,
    /// What is measured.
    pub metric: Metric,
    /// How a run, or a seed's runs over a factor, become one number.
    pub reduce: Reduce,
    /// At most 5; intervals, never a verdict.
    pub secondary: Vec<Secondary>,
    /// At most 4; weighted sums of cells' means.
    pub contrasts: Vec<Contrast>,
    /// The smallest effect of interest, in the metric's unit (a ratio where its scale is log).
    pub smallest_effect: SmallestEffect,
    /// What one seed changes.
    pub replicate: Vec<Stream>,
    /// Whether runs of one seed are compared with each other.
    pub pairing: Pairing,
    /// Seeds at which the contrasts are computed, rising: like [5, 10]. Exploratory: one.
    pub looks: Vec<u32>,
    /// What is the same in every variant.
    pub held_equal: Vec<HeldEqual>,
    /// The value that a failed run counts as: `metric.trivial` or the bad end of the range; finite.
    pub failed_runs_count_as: f64,
    /// When a run is stopped as diverged.
    pub diverged_when: DivergedWhen,
    /// For each run.
    pub limits: Limits,
    /// Cells where running out of memory or diverging in the smoke run would be a result and not a fault.
    pub expects_failure: Vec<String>,
    /// A data set that the workers have.
    pub data_set: String,
    /// Examples for training and for the test, where the seed draws the split; else null.
    pub split_sizes: Option<SplitSizes>,
    /// Packages besides those of the image, like "einops==0.8.0"; wheels from the index. Mostly empty. Part of the
    /// program rather than of the design: a repair may change them where they cannot be had.
    #[serde(default)]
    pub packages: Vec<String>,
}

/// METHOD §1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// With and without a part.
    Ablation,
    /// One method against another.
    Comparison,
    /// How much a setting matters; needs no control.
    Sensitivity,
    /// Whether two differ by less than what matters.
    Equivalence,
    /// How often and how far training goes wrong.
    Stability,
    /// How an effect grows with size.
    Scaling,
}

/// What the experiment's numbers may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Estimates with intervals, no verdict.
    Exploratory,
    /// A verdict, at a registered error.
    Confirmatory,
}

/// A sentence that a contrast can support or refute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The contrast's id.
    pub contrast: String,
    /// The sentence.
    pub text: String,
    /// In the metric's own direction: a loss that goes down is a decrease.
    pub predicts: Predicts,
    /// What would change the planner's mind.
    pub refuted_by: String,
}

/// What a claim says of its contrast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Predicts {
    /// Over zero.
    Increase,
    /// Under zero.
    Decrease,
    /// Not zero.
    AnyChange,
    /// Inside the smallest effect of interest.
    NoRelevantChange,
}

/// A parameter that is varied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Factor {
    /// A key of `ar.params`.
    pub param: String,
    /// How its levels are spaced.
    pub scale: FactorScale,
    /// 2 to 12, all different.
    pub levels: Vec<Scalar>,
}

/// How a factor's levels are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FactorScale {
    /// No order.
    Categorical,
    /// By difference.
    Linear,
    /// By ratio.
    Log,
}

/// A value of a parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// true or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any finite number.
    Number(f64),
    /// A word.
    Text(String),
}

impl Scalar {
    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        match self {
            Self::Bool(b) => Value::from(*b),
            Self::Integer(i) => Value::from(*i),
            Self::Number(n) => Value::from(*n),
            Self::Text(t) => Value::from(t.as_str()),
        }
    }

    /// As a number, where it is one.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(i) => Some(*i as f64),
            Self::Number(n) => Some(*n),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Integer(i) => write!(f, "{i}"),
            Self::Number(n) => write!(f, "{n}"),
            Self::Text(t) => f.write_str(t),
        }
    }
}

/// A named value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// A key of `ar.params`: `[a-z][a-z0-9_]{0,62}`.
    pub name: String,
    /// Its value.
    pub value: Scalar,
}

/// "Where the factor has this level, this parameter has this value."
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adjustment {
    /// A factor and one of its levels.
    pub when: Param,
    /// A parameter that is neither a factor nor fixed; every level of that factor has one.
    pub set: Param,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// As the program logs it, like "test_accuracy".
    pub name: String,
    /// "fraction" (shown in points), "nats", "seconds", …
    pub unit: String,
    /// Which way is good.
    pub better: Better,
    /// Log: the effect is a ratio; only where every value is over zero.
    pub scale: MetricScale,
    /// Least possible value, where there is one.
    pub lowest: Option<f64>,
    /// Greatest possible value, where there is one.
    pub highest: Option<f64>,
    /// Chance, or the value at initialisation.
    pub trivial: f64,
    /// Who computes it.
    pub source: Source,
    /// Which examples it is computed on.
    pub split: Split,
}

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Like accuracy.
    Higher,
    /// Like loss.
    Lower,
}

/// Whether effects are differences or ratios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetricScale {
    /// Differences.
    Raw,
    /// Differences of logarithms, shown as ratios.
    Log,
}

/// Who computes a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// We do, from predictions.
    Scored,
    /// The worker does: time, memory.
    Measured,
    /// The generated program says so: the verdict is marked as self-reported.
    Logged,
}

/// Which examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Read once for each confirmatory experiment.
    Test,
    /// For exploratory experiments and choices.
    Validation,
    /// The training examples.
    Train,
}

/// How runs become one number for each seed and cell (METHOD §2.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reduce {
    /// The last value.
    Final,
    /// The mean of the last `count` values.
    MeanLast {
        /// How many.
        count: u32,
    },
    /// The value at the step where another metric was best.
    AtBestValidation {
        /// The metric that chooses the step.
        validation_metric: String,
        /// Which way that one is good.
        better: Better,
    },
    /// The mean over steps (trapezoids).
    Area,
    /// The first step from which the metric stays past `threshold` for `sustain` values, else `horizon`.
    StepsTo {
        /// In the metric's unit.
        threshold: f64,
        /// How many values in a row.
        sustain: u32,
        /// In steps; also what a run that never gets there counts as.
        horizon: u32,
    },
    /// For each seed: the mean over the factor's levels of (min(value, trivial) − that seed's best value).
    GapToBestOver {
        /// The factor that is reduced over.
        factor: String,
    },
    /// For each seed: the least-squares slope over the logarithm of the factor's levels.
    SlopeOver {
        /// The factor that is reduced over.
        factor: String,
    },
}

impl Reduce {
    /// The factor that is reduced over, where there is one.
    #[must_use]
    pub fn over(&self) -> Option<&str> {
        match self {
            Self::GapToBestOver { factor } | Self::SlopeOver { factor } => Some(factor),
            _ => None,
        }
    }
}

/// Another metric that is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Secondary {
    /// As the program logs it.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// Which way is good.
    pub better: Better,
    /// How a run becomes one number.
    pub reduce: Reduce,
}

/// A weighted sum of cells' means: weights add up to 0, their sizes to 2 (4 for an interaction).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Contrast {
    /// Like "effect".
    pub id: String,
    /// For people: "with − without batch norm".
    pub label: String,
    /// Only the cells with a weight.
    pub weights: Vec<Weight>,
    /// Has a claim and gets a verdict.
    pub primary: bool,
}

/// A cell's weight in a contrast.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Weight {
    /// Like "c2".
    pub cell: String,
    /// Not 0.
    pub weight: f64,
}

/// The smallest effect of interest, Δ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmallestEffect {
    /// In the metric's unit, over 0.
    pub value: f64,
    /// Who set it.
    pub set_by: SetBy,
    /// Why so much.
    pub why: String,
}

/// Who set the smallest effect of interest (METHOD §3.3, in this order of right).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SetBy {
    /// `--smallest-effect`.
    User,
    /// The data set's table.
    Table,
    /// The model, inside a cap.
    Model,
}

/// One of the four streams that a seed feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The weights at the start.
    Init,
    /// The order of examples.
    Order,
    /// Dropout and other noise in training.
    Dropout,
    /// Which examples are for training and which for the test.
    Split,
}

/// Whether runs of one seed are compared with each other (METHOD §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// Seeds of two cells have nothing in common.
    None,
    /// A seed fixes something large that both share: the split always.
    Seed,
}

/// What is the same in every variant, measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldEqual {
    /// What.
    pub what: Resource,
    /// Relative; 0.02 is 2 %.
    pub tolerance: f64,
}

/// What can be held equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Optimiser steps.
    Steps,
    /// Training examples seen.
    Examples,
    /// Trainable parameters.
    Parameters,
    /// Floating-point operations.
    Flops,
    /// Wall-clock time.
    WallTime,
    /// Configurations tried.
    TuningTrials,
}

/// When a run is stopped as diverged, on the plan's metric and its training loss only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DivergedWhen {
    /// The metrics that are watched.
    pub metrics: Vec<String>,
    /// NaN or infinity.
    pub non_finite: bool,
    /// Worse than `trivial` by this factor for so many values in a row; null switches it off.
    pub worse_than_trivial: Option<WorseThanTrivial>,
}

/// See [`DivergedWhen`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorseThanTrivial {
    /// Over 1.
    pub factor: f64,
    /// In a row.
    pub values: u32,
}

/// For each run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Optimiser steps: the horizon.
    pub steps: u32,
    /// Seconds; a safety net, at least 3 times what the slowest variant needs.
    pub time_seconds: u32,
    /// MiB; null: the slot's share.
    pub memory_mib: Option<u32>,
}

/// Where the seed draws the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitSizes {
    /// Examples for training (validation not counted).
    pub train: u32,
    /// Examples for the test.
    pub test: u32,
}

/// One cell of the factors' product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// "v1", …
    pub id: String,
    /// The cell that it belongs to.
    pub cell: String,
    /// The factors' levels: what sets it apart.
    pub levels: Vec<Param>,
    /// All of `ar.params`.
    pub params: serde_json::Map<String, Value>,
}

/// What a contrast weighs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// "c1", …
    pub id: String,
    /// The levels of the factors that are not reduced over.
    pub levels: Vec<Param>,
    /// Its variants' ids; more than one only where the plan reduces over a factor.
    pub variants: Vec<String>,
}

impl Cell {
    /// For people: "batch_norm = true".
    #[must_use]
    pub fn label(&self) -> String {
        let parts: Vec<String> = self.levels.iter().map(|p| format!("{} = {}", p.name, p.value)).collect();
        if parts.is_empty() { "all".to_owned() } else { parts.join(", ") }
    }
}

impl Plan {
    /// The variants, in the order of the product.
    #[must_use]
    pub fn variants(&self) -> Vec<Variant> {
        let mut rows: Vec<Vec<Param>> = vec![Vec::new()];
        for factor in &self.factors {
            rows = rows
                .into_iter()
                .flat_map(|row| {
                    factor.levels.iter().map(move |level| {
                        let mut row = row.clone();
                        row.push(Param { name: factor.param.clone(), value: level.clone() });
                        row
                    })
                })
                .collect();
        }
        let mut cells: Vec<Vec<Param>> = Vec::new();
        rows.into_iter()
            .enumerate()
            .map(|(index, levels)| {
                let kept = self.cell_levels(&levels);
                let cell = cells.iter().position(|known| *known == kept).unwrap_or_else(|| {
                    cells.push(kept);
                    cells.len() - 1
                });
                let adjusted =
                    self.adjusted_params.iter().filter(|a| levels.contains(&a.when)).map(|a| &a.set);
                let params = self.fixed_params.iter().chain(adjusted).chain(&levels);
                let params = params.map(|p| (p.name.clone(), p.value.json())).collect();
                Variant { id: format!("v{}", index + 1), cell: format!("c{}", cell + 1), levels, params }
            })
            .collect()
    }

    /// The cells, in the order of the product.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = Vec::new();
        for variant in self.variants() {
            match cells.iter_mut().find(|cell| cell.id == variant.cell) {
                Some(cell) => cell.variants.push(variant.id),
                None => cells.push(Cell {
                    id: variant.cell,
                    levels: self.cell_levels(&variant.levels),
                    variants: vec![variant.id],
                }),
            }
        }
        cells
    }

    fn cell_levels(&self, levels: &[Param]) -> Vec<Param> {
        levels.iter().filter(|p| Some(p.name.as_str()) != self.reduce.over()).cloned().collect()
    }

    /// SHA-256 of the plan's JSON: what was registered.
    #[must_use]
    pub fn digest(&self) -> kit::digest::Digest {
        kit::digest::Digest::of(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }
}
