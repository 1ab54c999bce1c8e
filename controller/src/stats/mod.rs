//! Statistics: from one number per seed to a verdict, by rule (METHOD §2 to §4).
//!
//! What belongs here: estimates, intervals, verdicts, the error ledger, what a design can find, how a series
//! becomes a number. What does not: I/O, clocks, randomness, ids, plans, sentences about the research question,
//! anything that a model decides. Every function is pure and total: it gives a number or says which gate is shut.
//!
//! The way of one contrast: [`reduce`] makes one number per run; [`failures`] puts failed runs in their arm;
//! [`estimate`] gives the weighted sum of means with its standard error; [`ledger`] says at which level; the
//! interval goes to [`verdict`]. [`judge`](judge()) is that whole way in one call, and the one that campaigns use.
//!
//! Design notes. There is one estimator and one interval for every verdict, and no bootstrap, rank test, test of
//! variances or p-value decides anything: at 3 to 10 seeds they under-cover or cannot say yes (METHOD §2.4, with
//! simulations). Formulas are checked against SciPy and statsmodels in `reference/`.

/// Mean curves with pointwise bands: description, never a test.
pub mod bands;
/// The levels of a factor that may still be the best one.
pub mod best_set;
/// Exact and score intervals for shares of runs, Boschloo's test.
pub mod binomial;
/// What a design can find, and how many seeds it would need.
pub mod design;
/// Student, beta, chi-square and normal quantiles.
mod distributions;
/// The one estimator: a weighted sum of means, independent or paired by seed.
pub mod estimate;
/// Failed runs: kept in their arm, at the worst value, with their share beside the mean.
pub mod failures;
/// The reasons for which there is no estimate.
pub mod gate;
/// A contrast from runs to ruling.
mod judgement;
/// How much error each look of each contrast of each experiment may spend.
pub mod ledger;
/// From a run's series to its one number.
pub mod reduce;
/// The decision table.
pub mod verdict;

pub use bands::{Band, bands};
pub use best_set::{BestSet, best_set};
pub use binomial::{boschloo, clopper_pearson, newcombe};
pub use design::{Aim, Layout, detectable, needed_seeds, spread_upper_limit};
pub use estimate::{
    Cell, ContrastError, Estimate, Interval, Method, SplitSizes, check_contrast, independent, on_log_scale,
    paired,
};
pub use failures::{FailureShare, Observed, at_median, at_worst, failure_share};
pub use gate::Gate;
pub use judgement::{Contrast, Judgement, Pairing, judge};
pub use ledger::{Ledger, LedgerError};
pub use reduce::{Better, Point, ReduceError};
pub use verdict::{Predicts, Reason, Ruling, Verdict, rule};

#[cfg(test)]
mod tests;
