//! Failed runs (METHOD §2.5): intention to treat, so a run that failed stays in the arm in which it was started.
//!
//! Its value is `worst`, which the plan fixed before any run; that mean gives the verdict. The same with each failed
//! value at its arm's median says whether the verdict rests on the failed runs. The share of failed runs stands
//! beside every mean, with its exact interval, because no method sees a disaster that did not happen: of 10 runs
//! without a failure, a failure probability of 31 % is not ruled out.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{binomial::clopper_pearson, gate::Gate};

/// Two-sided error of the interval of a share of failed runs; a description, it spends nothing of the ledger.
pub const SHARE_ERROR: f64 = 0.05;

/// What one seed of one arm gave.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// The run's one number.
    Value(f64),
    /// A failure that is data: diverged, out of memory in some seeds, too slow where time is the question.
    Failed,
}

/// The arm's values with each failed run at `worst`.
///
/// # Errors
/// [`Gate::NotFinite`] where `worst` or a value is not finite.
pub fn at_worst(arm: &[Observed], worst: f64) -> Result<Vec<f64>, Gate> {
    filled(arm, worst)
}

/// The arm's values with each failed run at the median of the arm's finished runs.
///
/// # Errors
/// [`Gate::NotFinite`]; [`Gate::AllFailed`] with cell 0 where no run finished, and there is no median.
pub fn at_median(arm: &[Observed]) -> Result<Vec<f64>, Gate> {
    if arm.iter().all(|observed| matches!(observed, Observed::Value(_))) {
        return filled(arm, 0.0);
    }
    let mut finished: Vec<f64> = arm
        .iter()
        .filter_map(|observed| match observed {
            Observed::Value(value) => Some(*value),
            Observed::Failed => None,
        })
        .collect();
    if finished.is_empty() {
        return Err(Gate::AllFailed { cell: 0, n: arm.len() });
    }
    finished.sort_by(f64::total_cmp);
    let middle = finished.len() / 2;
    let median = if finished.len() % 2 == 1 {
        finished[middle]
    } else {
        0.5 * finished[middle - 1] + 0.5 * finished[middle]
    };
    filled(arm, median)
}

fn filled(arm: &[Observed], failed: f64) -> Result<Vec<f64>, Gate> {
    arm.iter()
        .map(|observed| match observed {
            Observed::Value(value) => *value,
            Observed::Failed => failed,
        })
        .map(|value| if value.is_finite() { Ok(value) } else { Err(Gate::NotFinite) })
        .collect()
}

/// Whether there is a run and all of them failed.
pub(super) fn all_failed(arm: &[Observed]) -> bool {
    !arm.is_empty() && arm.iter().all(|observed| *observed == Observed::Failed)
}

/// How many runs of an arm failed, and what share is compatible with that.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FailureShare {
    /// Runs that failed.
    pub failed: u64,
    /// Runs.
    pub runs: u64,
    /// Lower end of the exact 95 % interval, a share between 0 and 1.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The share of failed runs of an arm with its exact (Clopper–Pearson) 95 % interval; 0 to 1 for no runs.
pub fn failure_share(arm: &[Observed]) -> FailureShare {
    let runs = arm.len() as u64;
    let failed = arm.iter().filter(|observed| **observed == Observed::Failed).count() as u64;
    let (low, high) = clopper_pearson(failed, runs, SHARE_ERROR).unwrap_or((0.0, 1.0));
    FailureShare { failed, runs, low, high }
}

impl fmt::Display for FailureShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = ((100.0 * self.low).round(), (100.0 * self.high).round());
        write!(f, "{} of {} failed: ", self.failed, self.runs)?;
        match (self.failed, self.runs) {
            (_, 0) => write!(f, "nothing is known"),
            (0, _) => write!(f, "up to {high} % possible"),
            (failed, runs) if failed == runs => write!(f, "at least {low} % certain"),
            _ => write!(f, "{low} to {high} % possible"),
        }
    }
}
