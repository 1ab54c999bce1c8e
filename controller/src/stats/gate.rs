//! The gates of METHOD §3.1, first row: what is not fit to be judged gives no verdict, and says why.

use serde::{Deserialize, Serialize};

/// A reason for which there is no estimate, hence no verdict but `inconclusive`.
///
/// Cells are counted from 0 in the data and from 1 in the sentence; [`Gate::sentence`] puts names in their place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "gate", rename_all = "snake_case")]
pub enum Gate {
    /// All values of a cell are equal: its seeds were ignored, or its metric is too coarse.
    #[error("{}", self.sentence(&[]))]
    NoSpread {
        /// Position of the cell.
        cell: usize,
    },
    /// The cells have spread, but their paired differences have none.
    #[error("{}", self.sentence(&[]))]
    NoSpreadOfDifferences,
    /// Every run of a cell failed: the mean would be that of imputed values.
    #[error("{}", self.sentence(&[]))]
    AllFailed {
        /// Position of the cell.
        cell: usize,
        /// Its number of runs.
        n: usize,
    },
    /// Fewer than three seeds.
    #[error("{}", self.sentence(&[]))]
    TooFewSeeds {
        /// Seeds that there are, in the smallest cell.
        n: usize,
    },
    /// A value, a coefficient or what was computed from them is not a finite number.
    #[error("{}", self.sentence(&[]))]
    NotFinite,
    /// A value that is to be put on the log scale is not positive.
    #[error("{}", self.sentence(&[]))]
    NotPositive {
        /// The value.
        value: f64,
    },
    /// Cells, coefficients or seeds do not belong together.
    #[error("{}", self.sentence(&[]))]
    Shape {
        /// What does not fit what.
        problem: String,
    },
    /// The smallest effect of interest is not a positive number.
    #[error("{}", self.sentence(&[]))]
    SmallestEffect,
    /// The contrast lost a variant, for instance one that never fitted into memory (METHOD §2.5).
    #[error("{}", self.sentence(&[]))]
    Void {
        /// Why.
        reason: String,
    },
    /// A check of the experiment failed: the factor did nothing, nothing was learnt, the metric leaks (METHOD §5).
    #[error("{}", self.sentence(&[]))]
    CheckFailed {
        /// The name of the check.
        check: String,
        /// What it saw.
        seen: String,
    },
}

impl Gate {
    /// The gate as a sentence for a report, with `names[cell]` for the cells where there are names.
    pub fn sentence(&self, names: &[&str]) -> String {
        let name = |cell: usize| match names.get(cell) {
            Some(name) => format!("`{name}`"),
            None => format!("variant number {}", cell + 1),
        };
        match self {
            Self::NoSpread { cell } => format!(
                "no verdict: all seeds of {} gave the same value, so either the seeds were ignored or the metric is \
                 too coarse",
                name(*cell)
            ),
            Self::NoSpreadOfDifferences => {
                "no verdict: the difference is the same for every seed, so either the \
                                            seeds were ignored or the metric is too coarse"
                    .to_owned()
            }
            Self::AllFailed { cell, n } => format!(
                "no verdict on the mean: all {n} runs of {} failed; the share of failed runs is the result",
                name(*cell)
            ),
            Self::TooFewSeeds { n } => format!("no verdict: {n} seeds, and at least 3 are needed"),
            Self::NotFinite => "no verdict: a value is not a finite number".to_owned(),
            Self::NotPositive { value } => {
                format!("no verdict: the metric is on the log scale, and {value} is not positive")
            }
            Self::Shape { problem } => format!("no verdict: {problem}"),
            Self::SmallestEffect => {
                "no verdict: the smallest effect of interest is not a positive number".to_owned()
            }
            Self::Void { reason } => format!("no verdict: the contrast is void, {reason}"),
            Self::CheckFailed { check, seen } => format!("no verdict: the check `{check}` failed, {seen}"),
        }
    }
}
