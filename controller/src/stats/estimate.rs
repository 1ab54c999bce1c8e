//! The one estimator (METHOD §2.1): θ̂ = Σ cᵢ·mean(cellᵢ), its standard error and degrees of freedom.
//!
//! The sample size is the number of seeds and nothing else; one value per seed comes in.
//!
//! Sources: Welch (1947), Biometrika 34, 28–35; Satterthwaite (1946), Biometrics Bulletin 2, 110–114; for splits
//! drawn by the seed Nadeau & Bengio (2003), Machine Learning 52, 239–281.

use serde::{Deserialize, Serialize};

use super::{distributions::t_critical, gate::Gate};

/// Least seeds in each arm; with fewer, Welch's rate is not known to hold (METHOD §2.4).
pub const SEEDS_MIN: usize = 3;

/// Spread below this share of the largest magnitude is rounding and not spread: two sums of the same numbers in
/// another order differ by about 10⁻¹⁶ of their size.
const ROUNDING: f64 = 1e-12;

/// One arm of a contrast.
#[derive(Debug, Clone, Copy)]
pub struct Cell<'a> {
    /// Its weight cᵢ; a cell of weight 0 is reported and takes no part.
    pub coefficient: f64,
    /// One value per seed, in metric units (or their logarithms).
    pub values: &'a [f64],
}

/// How the standard error was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum Method {
    /// Independent arms, Welch–Satterthwaite.
    Welch,
    /// One-sample t over the seeds' differences.
    Paired,
    /// The same, with the variance that Nadeau & Bengio (2003) give for overlapping splits.
    PairedCorrected {
        /// Training examples of one split.
        train: u64,
        /// Test examples of one split.
        test: u64,
    },
}

/// Sizes of the split that each seed draws anew from one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitSizes {
    /// Training examples.
    pub train: u64,
    /// Test examples.
    pub test: u64,
}

/// An estimated contrast.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Σ cᵢ·mean(cellᵢ), in metric units.
    pub theta: f64,
    /// Its standard error, in metric units, > 0.
    pub standard_error: f64,
    /// Of the t interval; real for Welch.
    pub degrees_of_freedom: f64,
    /// Seeds per cell.
    pub n: Vec<usize>,
    /// Mean per cell.
    pub means: Vec<f64>,
    /// Standard deviation over seeds per cell (n − 1 in the denominator).
    pub deviations: Vec<f64>,
    /// How.
    pub method: Method,
}

/// A two-sided confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Confidence, 1 − error: 0.98 for an error of 0.02.
    pub level: f64,
}

impl Interval {
    /// The smallest margin that would have given `equivalent`: max(|low|, |high|).
    pub fn smallest_margin(&self) -> f64 {
        self.low.abs().max(self.high.abs())
    }

    /// The interval of −θ.
    pub fn mirrored(&self) -> Self {
        Self { low: -self.high, high: -self.low, level: self.level }
    }

    /// From a difference of logarithms to a ratio.
    pub fn exponentiated(&self) -> Self {
        Self { low: self.low.exp(), high: self.high.exp(), level: self.level }
    }

    /// Whether zero lies outside, the ends counted as inside.
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

impl Estimate {
    /// θ̂ ± t(1 − error/2, df)·SE.
    ///
    /// `error` is two-sided and comes from the ledger, for instance 0.02. An error that is not between 0 and 1
    /// gives the whole line, which no rule turns into a verdict.
    pub fn interval(&self, error: f64) -> Interval {
        let half = t_critical(error, self.degrees_of_freedom) * self.standard_error;
        if !half.is_finite() {
            return Interval { low: f64::NEG_INFINITY, high: f64::INFINITY, level: 1.0 };
        }
        Interval { low: self.theta - half, high: self.theta + half, level: 1.0 - error }
    }
}

/// Estimates a contrast of independent arms.
///
/// aᵢ = cᵢ²sᵢ²/nᵢ, SE² = Σaᵢ, df = (Σaᵢ)²/Σ(aᵢ²/(nᵢ−1)). Arms may differ in size.
///
/// # Errors
/// A [`Gate`]: fewer than three seeds, no spread in an arm, something not finite, no arm with a weight.
pub fn independent(cells: &[Cell]) -> Result<Estimate, Gate> {
    let summaries = cells.iter().map(|cell| Summary::of(cell.values)).collect::<Result<Vec<_>, _>>()?;
    let coefficients: Vec<f64> = cells.iter().map(|cell| cell.coefficient).collect();
    check_arms(&coefficients, &summaries)?;
    let mut theta = 0.0;
    let mut variance = 0.0;
    for (coefficient, arm) in coefficients.iter().zip(&summaries) {
        theta += coefficient * arm.mean;
        variance += term(*coefficient, arm);
    }
    // Weights aᵢ/Σa keep the squares in range for metrics of any size.
    let denominator: f64 = coefficients
        .iter()
        .zip(&summaries)
        .map(|(coefficient, arm)| (term(*coefficient, arm) / variance).powi(2) / (arm.n as f64 - 1.0))
        .sum();
    finished(theta, variance.sqrt(), 1.0 / denominator, summaries, Method::Welch)
}

/// Estimates a contrast whose arms share their seeds: a one-sample t over d_s = Σ cᵢ·y_is.
///
/// `by_seed[cell][seed]`, the same seeds in the same order in every cell. SE² = s_d²/n, or with `split`
/// s_d²·(1/n + test/train): splits of one pool overlap, and then plain s_d²/n gets more wrong with more seeds.
///
/// # Errors
/// A [`Gate`], as [`independent`]; also cells of different lengths, differences without spread, an empty split.
pub fn paired(
    coefficients: &[f64],
    by_seed: &[Vec<f64>],
    split: Option<SplitSizes>,
) -> Result<Estimate, Gate> {
    if coefficients.len() != by_seed.len() {
        let problem = format!("{} coefficients for {} variants", coefficients.len(), by_seed.len());
        return Err(Gate::Shape { problem });
    }
    let n = by_seed.first().map_or(0, Vec::len);
    if let Some(other) = by_seed.iter().find(|cell| cell.len() != n) {
        let problem = format!("paired variants with {n} and {} seeds", other.len());
        return Err(Gate::Shape { problem });
    }
    let summaries = by_seed.iter().map(|values| Summary::of(values)).collect::<Result<Vec<_>, _>>()?;
    check_arms(coefficients, &summaries)?;
    let differences: Vec<f64> = (0..n)
        .map(|seed| {
            coefficients.iter().zip(by_seed).map(|(coefficient, cell)| coefficient * cell[seed]).sum()
        })
        .collect();
    let difference = Summary::of(&differences)?;
    let magnitude =
        coefficients.iter().zip(&summaries).map(|(c, arm)| c.abs() * arm.magnitude).fold(0.0, f64::max);
    if difference.deviation <= ROUNDING * magnitude {
        return Err(Gate::NoSpreadOfDifferences);
    }
    let (factor, method) = match split {
        None => (1.0 / n as f64, Method::Paired),
        Some(SplitSizes { train, test }) if train > 0 && test > 0 => {
            (1.0 / n as f64 + test as f64 / train as f64, Method::PairedCorrected { train, test })
        }
        Some(SplitSizes { train, test }) => {
            let problem = format!("a split of {train} training and {test} test examples");
            return Err(Gate::Shape { problem });
        }
    };
    finished(difference.mean, difference.deviation * factor.sqrt(), n as f64 - 1.0, summaries, method)
}

/// The natural logarithms of positive values: differences of means are then logarithms of ratios.
///
/// # Errors
/// [`Gate::NotPositive`], [`Gate::NotFinite`].
pub fn on_log_scale(values: &[f64]) -> Result<Vec<f64>, Gate> {
    values
        .iter()
        .map(|&value| match value {
            value if !value.is_finite() => Err(Gate::NotFinite),
            value if value <= 0.0 => Err(Gate::NotPositive { value }),
            value => Ok(value.ln()),
        })
        .collect()
}

/// Why coefficients are no contrast of METHOD §1.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ContrastError {
    /// A coefficient is NaN or infinite.
    #[error("coefficient number {} is not a finite number", .position + 1)]
    NotFinite {
        /// Which, from 0.
        position: usize,
    },
    /// They do not sum to 0.
    #[error("the coefficients sum to {sum}, and must sum to 0")]
    Sum {
        /// What they sum to.
        sum: f64,
    },
    /// Their magnitudes do not sum to 2 or 4.
    #[error("the coefficients' magnitudes sum to {sum}, and must sum to 2, or to 4 for an interaction")]
    Size {
        /// What they sum to.
        sum: f64,
    },
}

/// Checks that coefficients are a contrast in metric units: Σc = 0, Σ|c| = 2 (4 for a difference of differences).
///
/// # Errors
/// [`ContrastError`], which names what is wrong.
pub fn check_contrast(coefficients: &[f64]) -> Result<(), ContrastError> {
    if let Some(position) = coefficients.iter().position(|coefficient| !coefficient.is_finite()) {
        return Err(ContrastError::NotFinite { position });
    }
    let sum: f64 = coefficients.iter().sum();
    if sum.abs() > 1e-9 {
        return Err(ContrastError::Sum { sum });
    }
    let size: f64 = coefficients.iter().map(|coefficient| coefficient.abs()).sum();
    if (size - 2.0).abs() > 1e-9 && (size - 4.0).abs() > 1e-9 {
        return Err(ContrastError::Size { sum: size });
    }
    Ok(())
}

/// Mean and spread of one arm.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary {
    pub(super) n: usize,
    pub(super) mean: f64,
    pub(super) deviation: f64,
    pub(super) magnitude: f64,
}

impl Summary {
    /// Two-pass mean and standard deviation, over sorted values so that the order of the seeds changes no bit.
    pub(super) fn of(values: &[f64]) -> Result<Self, Gate> {
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Gate::NotFinite);
        }
        if values.len() < 2 {
            return Err(Gate::TooFewSeeds { n: values.len() });
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let mean = sorted.iter().map(|value| value / n as f64).sum::<f64>();
        let squares: f64 = sorted.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / (n as f64 - 1.0)).sqrt();
        let magnitude = sorted[0].abs().max(sorted[n - 1].abs());
        if !(mean.is_finite() && deviation.is_finite()) {
            return Err(Gate::NotFinite);
        }
        Ok(Self { n, mean, deviation, magnitude })
    }

    pub(super) fn has_spread(&self) -> bool {
        self.deviation > ROUNDING * self.magnitude
    }
}

/// aᵢ of the module comment.
fn term(coefficient: f64, arm: &Summary) -> f64 {
    (coefficient * arm.deviation).powi(2) / arm.n as f64
}

fn check_arms(coefficients: &[f64], arms: &[Summary]) -> Result<(), Gate> {
    if coefficients.iter().any(|coefficient| !coefficient.is_finite()) {
        return Err(Gate::NotFinite);
    }
    let mut weighted = coefficients.iter().zip(arms).enumerate().filter(|(_, (c, _))| **c != 0.0).peekable();
    if weighted.peek().is_none() {
        return Err(Gate::Shape { problem: "no variant has a coefficient other than 0".to_owned() });
    }
    if let Some(n) = arms.iter().map(|arm| arm.n).filter(|&n| n < SEEDS_MIN).min() {
        return Err(Gate::TooFewSeeds { n });
    }
    match weighted.find(|(_, (_, arm))| !arm.has_spread()) {
        Some((cell, _)) => Err(Gate::NoSpread { cell }),
        None => Ok(()),
    }
}

fn finished(
    theta: f64,
    standard_error: f64,
    degrees_of_freedom: f64,
    arms: Vec<Summary>,
    method: Method,
) -> Result<Estimate, Gate> {
    let numbers = [theta, standard_error, degrees_of_freedom];
    if numbers.iter().any(|number| !number.is_finite()) || standard_error <= 0.0 {
        return Err(Gate::NotFinite);
    }
    Ok(Estimate {
        theta,
        standard_error,
        degrees_of_freedom,
        n: arms.iter().map(|arm| arm.n).collect(),
        means: arms.iter().map(|arm| arm.mean).collect(),
        deviations: arms.iter().map(|arm| arm.deviation).collect(),
        method,
    })
}
