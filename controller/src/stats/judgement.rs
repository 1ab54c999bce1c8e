//! A contrast from its runs to its ruling: the order in which the other files of this room are called.
//!
//! Failed runs at `worst` → estimate → interval → verdict; the same again with failed runs at their arm's median; where
//! the two verdicts differ, the first stands and the ruling says that it rests on the failed runs (METHOD §2.5).

use serde::{Deserialize, Serialize};

use super::{
    design::{Aim, Layout, needed_seeds},
    estimate::{Cell, Estimate, Interval, SplitSizes, independent, paired},
    failures::{FailureShare, Observed, all_failed, at_median, at_worst, failure_share},
    gate::Gate,
    verdict::{Predicts, Ruling, Verdict, rule},
};

/// Whether seeds pair the arms; fixed by the plan before any run (METHOD §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "pairing", rename_all = "snake_case")]
pub enum Pairing {
    /// Independent arms.
    None,
    /// The same seeds in the same order in each arm.
    Seed,
    /// The same, and each seed draws the split: the corrected interval, which speaks of new data.
    SeedDrawsSplit(SplitSizes),
}

/// A contrast and its runs.
#[derive(Debug, Clone, Copy)]
pub struct Contrast<'a> {
    /// Weight of each arm.
    pub coefficients: &'a [f64],
    /// What each seed of each arm gave, in metric units (or their logarithms); `arms[arm][seed]`.
    pub arms: &'a [Vec<Observed>],
    /// What a failed run counts as, on the same scale; finite, fixed before the runs.
    pub worst: f64,
    /// Whether seeds pair the arms.
    pub pairing: Pairing,
}

/// A contrast's ruling and all that a report prints beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The verdict and why.
    pub ruling: Ruling,
    /// The estimate with failed runs at `worst`; none under a gate.
    pub estimate: Option<Estimate>,
    /// Its interval at the ledger's level.
    pub interval: Option<Interval>,
    /// The interval with failed runs at their arm's median; none where nothing failed, or under a gate.
    pub interval_at_median: Option<Interval>,
    /// Failed runs per arm.
    pub failures: Vec<FailureShare>,
}

/// Judges a claim about a contrast at the two-sided `error` that the ledger gives; `delta` is the smallest effect of
/// interest, > 0, on the scale of the values.
pub fn judge(contrast: Contrast, predicts: Predicts, error: f64, delta: f64) -> Judgement {
    let estimate = estimate_at(contrast, |arm| at_worst(arm, contrast.worst));
    let interval = estimate.clone().map(|estimate| estimate.interval(error));
    let mut ruling = rule(predicts, interval.clone(), delta);
    let failures: Vec<FailureShare> = contrast.arms.iter().map(|arm| failure_share(arm)).collect();
    let mut interval_at_median = None;
    if failures.iter().any(|share| share.failed > 0) {
        let again = estimate_at(contrast, at_median).map(|estimate| estimate.interval(error));
        ruling.rests_on_failed_runs = rule(predicts, again.clone(), delta).verdict != ruling.verdict;
        interval_at_median = again.ok();
    }
    if let (Verdict::Inconclusive, Ok(estimate)) = (ruling.verdict, &estimate) {
        let seeds = seeds_for(predicts, contrast.pairing, estimate, error, delta);
        ruling = ruling.needing(seeds);
    }
    Judgement { ruling, estimate: estimate.ok(), interval: interval.ok(), interval_at_median, failures }
}

fn estimate_at(
    contrast: Contrast,
    fill: impl Fn(&[Observed]) -> Result<Vec<f64>, Gate>,
) -> Result<Estimate, Gate> {
    let (coefficients, arms) = (contrast.coefficients, contrast.arms);
    if coefficients.len() != arms.len() {
        let problem = format!("{} coefficients for {} variants", coefficients.len(), arms.len());
        return Err(Gate::Shape { problem });
    }
    let weighted = |cell: usize| coefficients[cell] != 0.0;
    if let Some(cell) = (0..arms.len()).find(|&cell| weighted(cell) && all_failed(&arms[cell])) {
        return Err(Gate::AllFailed { cell, n: arms[cell].len() });
    }
    // Only what has a weight takes part: another arm's failures say nothing about this contrast.
    let cells: Vec<usize> = (0..arms.len()).filter(|&cell| weighted(cell)).collect();
    let values = cells.iter().map(|&cell| fill(&arms[cell])).collect::<Result<Vec<_>, _>>()?;
    let weights: Vec<f64> = cells.iter().map(|&cell| coefficients[cell]).collect();
    let named = |gate: Gate| match gate {
        Gate::NoSpread { cell } => Gate::NoSpread { cell: cells.get(cell).copied().unwrap_or(cell) },
        other => other,
    };
    match contrast.pairing {
        Pairing::None => {
            let arms: Vec<Cell> = weights
                .iter()
                .zip(&values)
                .map(|(&coefficient, values)| Cell { coefficient, values })
                .collect();
            independent(&arms).map_err(named)
        }
        Pairing::Seed => paired(&weights, &values, None).map_err(named),
        Pairing::SeedDrawsSplit(split) => paired(&weights, &values, Some(split)).map_err(named),
    }
}

/// About how many seeds per arm would settle the claim if the spread is what was seen.
fn seeds_for(
    predicts: Predicts,
    pairing: Pairing,
    estimate: &Estimate,
    error: f64,
    delta: f64,
) -> Option<usize> {
    let aim = if predicts == Predicts::NoRelevantChange { Aim::Equivalence } else { Aim::Effect };
    let n = *estimate.n.iter().min()? as f64;
    // σ such that this design would have this standard error.
    let (layout, variance_per_sigma) = match pairing {
        Pairing::None => (Layout::Independent, 2.0 / n),
        Pairing::Seed => (Layout::Paired, 1.0 / n),
        Pairing::SeedDrawsSplit(split) => {
            let test_over_train = split.test as f64 / split.train as f64;
            (Layout::PairedCorrected { test_over_train }, 1.0 / n + test_over_train)
        }
    };
    let sigma = estimate.standard_error / variance_per_sigma.sqrt();
    // A number that is not more than what was run would be no advice.
    needed_seeds(aim, layout, delta / sigma, error).filter(|&seeds| seeds as f64 > n)
}
