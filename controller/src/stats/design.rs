//! What a design can find, before it costs anything (METHOD §3.2), and how many seeds it would need.
//!
//! "Can find" means with 80 % chance: that the interval excludes 0 on the true effect's side, and that, with no
//! difference at all, it lies inside ±margin. Data are taken as normal with equal spread σ.
//!
//! Computed, not looked up: with equal arms of n seeds, s₁² + s₂² and r = s₁²/(s₁² + s₂²) are independent,
//! χ²(2ν)/ν and Beta(ν/2, ν/2) with ν = n − 1, and Welch's degrees of freedom are ν/(r² + (1−r)²). So the chance is the
//! mean over r and s of Φ(effect/k − t(r)·s), where k is the standard deviation of θ̂ in units of σ. With several
//! looks the last one alone is counted: the chance that only an earlier one would have found it is small, and leaving
//! it out errs on the side of more seeds (METHOD's simulated table is met within 0.1 σ at two and three looks).

use serde::{Deserialize, Serialize};

use super::{
    distributions::{beta_quantile, chi_square_quantile, normal_cdf, t_critical},
    ledger::{LedgerError, look_shares},
};

/// The chance at which an effect counts as found.
pub const CHANCE: f64 = 0.8;
/// Nodes of equal probability for r and for s; twice as many change the answer by less than half a percent.
const NODES: usize = 40;
/// Seeds above which a design is not worth naming.
pub const SEEDS_MAX: usize = 1000;
/// Chance that the true spread is below [`spread_upper_limit`].
const UPPER_LIMIT: f64 = 0.8;

/// How the arms of a contrast of two belong together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "layout", rename_all = "snake_case")]
pub enum Layout {
    /// Independent arms; σ is that of one arm.
    Independent,
    /// Paired by seed; σ is that of the seeds' differences.
    Paired,
    /// Paired, the split drawn by the seed; σ is that of the seeds' differences.
    PairedCorrected {
        /// Test examples over training examples of one split.
        test_over_train: f64,
    },
}

/// What an experiment wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// To see that there is an effect.
    Effect,
    /// To see that there is none that matters.
    Equivalence,
}

/// The smallest effect that is found, or the smallest margin at which `equivalent` is reached, in units of σ.
///
/// `alpha` is the error of the contrast over all its looks, `looks` the registered numbers of seeds. Infinite where
/// `alpha` is not a probability.
///
/// # Errors
/// [`LedgerError::Looks`].
pub fn detectable(aim: Aim, layout: Layout, looks: &[u32], alpha: f64) -> Result<f64, LedgerError> {
    let shares = look_shares(looks)?;
    let last = looks.last().zip(shares.last());
    Ok(last.map_or(f64::INFINITY, |(&n, share)| at_look(aim, layout, n as usize, alpha * share)))
}

/// The number of seeds per arm at which `size` (in units of σ) is found, or is margin enough, at one look of `error`.
///
/// None where more than 1,000 would be needed, or (for overlapping splits) where no number would do.
pub fn needed_seeds(aim: Aim, layout: Layout, size: f64, error: f64) -> Option<usize> {
    let enough =
        |n: usize| Design::new(layout, n, error).is_some_and(|design| design.chance(aim, size) >= CHANCE);
    if !size.is_finite() || size <= 0.0 || !enough(SEEDS_MAX) {
        return None;
    }
    let (mut low, mut high) = (2, SEEDS_MAX);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

/// The value that σ is below with 80 % chance, from a standard deviation over `n` seeds: s·√((n−1)/χ²(0.2, n−1)).
///
/// 2.1, 1.6 and 1.3 times s at n = 3, 5 and 10. None for fewer than 2 seeds or a value that is no spread.
pub fn spread_upper_limit(deviation: f64, n: usize) -> Option<f64> {
    if n < 2 || !(deviation.is_finite() && deviation >= 0.0) {
        return None;
    }
    let freedom = n as f64 - 1.0;
    Some(deviation * (freedom / chi_square_quantile(1.0 - UPPER_LIMIT, freedom)).sqrt())
}

/// The answer for one look of n seeds at `error`, in units of σ.
fn at_look(aim: Aim, layout: Layout, n: usize, error: f64) -> f64 {
    let Some(design) = Design::new(layout, n, error) else { return f64::INFINITY };
    let mut high = 1.0;
    while design.chance(aim, high) < CHANCE {
        high *= 2.0;
        if high > 1e9 {
            return f64::INFINITY;
        }
    }
    let mut low = 0.0;
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if design.chance(aim, middle) < CHANCE {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// Equally likely critical values and spreads of a design.
struct Design {
    criticals: Vec<f64>,
    spreads: Vec<f64>,
    /// Standard deviation of θ̂ in units of σ.
    scale: f64,
}

impl Design {
    fn new(layout: Layout, n: usize, error: f64) -> Option<Self> {
        if n < 2 {
            return None;
        }
        let (seeds, freedom) = (n as f64, n as f64 - 1.0);
        let node = |i: usize, nodes: usize| (i as f64 + 0.5) / nodes as f64;
        let (criticals, spread_freedom, variance): (Vec<f64>, f64, f64) = match layout {
            Layout::Independent => {
                let criticals = (0..NODES / 2)
                    .map(|i| beta_quantile(node(i, NODES), freedom / 2.0, freedom / 2.0)) // symmetric: half of it
                    .map(|r| t_critical(error, freedom / (r * r + (1.0 - r) * (1.0 - r))))
                    .collect();
                (criticals, 2.0 * freedom, 2.0 / seeds)
            }
            Layout::Paired => (vec![t_critical(error, freedom)], freedom, 1.0 / seeds),
            Layout::PairedCorrected { test_over_train } => {
                (vec![t_critical(error, freedom)], freedom, 1.0 / seeds + test_over_train)
            }
        };
        let spreads: Vec<f64> = (0..NODES)
            .map(|i| (chi_square_quantile(node(i, NODES), spread_freedom) / spread_freedom).sqrt())
            .collect();
        let finite = criticals.iter().chain(&spreads).all(|number| number.is_finite());
        (finite && variance > 0.0 && variance.is_finite()).then(|| Self {
            criticals,
            spreads,
            scale: variance.sqrt(),
        })
    }

    /// The chance that `size` is found (or margin enough).
    fn chance(&self, aim: Aim, size: f64) -> f64 {
        let mut sum = 0.0;
        for critical in &self.criticals {
            for spread in &self.spreads {
                let tail = normal_cdf(size / self.scale - critical * spread);
                sum += match aim {
                    Aim::Effect => tail,
                    Aim::Equivalence => (2.0 * tail - 1.0).max(0.0),
                };
            }
        }
        sum / (self.criticals.len() * self.spreads.len()) as f64
    }
}
