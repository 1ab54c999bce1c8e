//! The levels of a factor that may still be the best (METHOD §2.2, sensitivity): never "the best is x".
//!
//! A level leaves if another beats it one-sided at ℓ/(k−1). The true best stays with probability at least 1 − ℓ: it
//! leaves only if one of k−1 comparisons errs. The idea is Hsu's (1981, 1984), with Bonferroni in place of Dunnett so
//! that spreads may differ. Secondary: it spends nothing of the ledger and gives no verdict.

use serde::{Deserialize, Serialize};

use super::{
    distributions::t_critical,
    estimate::{SEEDS_MIN, Summary},
    failures::{Observed, all_failed, at_worst},
    gate::Gate,
    judgement::Pairing,
    reduce::Better,
};

/// Which levels stay, and which beat the ones that left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BestSet {
    /// Positions of the levels that may be the best.
    pub kept: Vec<usize>,
    /// For each level that left, itself and a level that beats it.
    pub left: Vec<(usize, usize)>,
}

/// The set of levels that contains the best one with probability at least 1 − `error`.
///
/// `levels[level][seed]`; failed runs count as `worst`. With [`Pairing::Seed`] levels are compared by the seeds'
/// differences. A level all of whose runs failed is compared as the constant `worst`; any other level without spread
/// is beaten by none and beats none, since its seeds may have been ignored.
///
/// # Errors
/// A [`Gate`]: fewer than two levels or three seeds, an error outside (0, 1), a value not finite, seeds that do not
/// pair.
pub fn best_set(
    levels: &[Vec<Observed>],
    worst: f64,
    better: Better,
    pairing: Pairing,
    error: f64,
) -> Result<BestSet, Gate> {
    let k = levels.len();
    if k < 2 {
        return Err(Gate::Shape { problem: "a best set needs at least two levels".to_owned() });
    }
    if !(error > 0.0 && error < 1.0) {
        return Err(Gate::NotFinite);
    }
    let mut arms = Vec::with_capacity(k);
    for level in levels {
        let values = at_worst(level, worst)?;
        if values.len() < SEEDS_MIN {
            return Err(Gate::TooFewSeeds { n: values.len() });
        }
        arms.push(Level { summary: Summary::of(&values)?, failed: all_failed(level), values });
    }
    // One-sided at ℓ/(k−1) is two-sided at twice that, which Bonferroni keeps below 1 in any sensible use.
    let two_sided = (2.0 * error / (k as f64 - 1.0)).min(0.999);
    let mut set = BestSet { kept: Vec::new(), left: Vec::new() };
    for (position, level) in arms.iter().enumerate() {
        let mut beaten_by = None;
        for (rival, other) in arms.iter().enumerate().filter(|(rival, _)| *rival != position) {
            if beats(other, level, better, pairing, two_sided)? {
                beaten_by = Some(rival);
                break;
            }
        }
        match beaten_by {
            Some(rival) => set.left.push((position, rival)),
            None => set.kept.push(position),
        }
    }
    Ok(set)
}

struct Level {
    summary: Summary,
    failed: bool,
    values: Vec<f64>,
}

/// Whether `a` beats `b`: the lower end of the interval of their difference is above 0.
fn beats(a: &Level, b: &Level, better: Better, pairing: Pairing, two_sided: f64) -> Result<bool, Gate> {
    let comparable = |level: &Level| level.failed || level.summary.has_spread();
    if !(comparable(a) && comparable(b)) {
        return Ok(false);
    }
    let sign = if better == Better::Higher { 1.0 } else { -1.0 };
    let gain = sign * (a.summary.mean - b.summary.mean);
    let (standard_error, freedom) = match pairing {
        Pairing::None => welch(&a.summary, &b.summary),
        Pairing::Seed | Pairing::SeedDrawsSplit(_) => {
            if a.values.len() != b.values.len() {
                let problem = format!("paired levels with {} and {} seeds", a.values.len(), b.values.len());
                return Err(Gate::Shape { problem });
            }
            let differences: Vec<f64> = a.values.iter().zip(&b.values).map(|(a, b)| a - b).collect();
            let n = differences.len() as f64;
            let overlap = match pairing {
                Pairing::SeedDrawsSplit(split) if split.train == 0 || split.test == 0 => {
                    let problem =
                        format!("a split of {} training and {} test examples", split.train, split.test);
                    return Err(Gate::Shape { problem });
                }
                Pairing::SeedDrawsSplit(split) => split.test as f64 / split.train as f64,
                _ => 0.0,
            };
            (Summary::of(&differences)?.deviation * (1.0 / n + overlap).sqrt(), n - 1.0)
        }
    };
    let magnitude = a.summary.magnitude.max(b.summary.magnitude);
    if standard_error <= 1e-12 * magnitude {
        return Ok(false); // no spread to judge a difference by
    }
    Ok(gain - t_critical(two_sided, freedom) * standard_error > 0.0)
}

/// Welch's standard error and degrees of freedom for two arms, of which one may be constant.
fn welch(a: &Summary, b: &Summary) -> (f64, f64) {
    let term = |arm: &Summary| arm.deviation.powi(2) / arm.n as f64;
    let (first, second) = (term(a), term(b));
    let total = first + second;
    let share = |part: f64, arm: &Summary| (part / total).powi(2) / (arm.n as f64 - 1.0);
    (total.sqrt(), 1.0 / (share(first, a) + share(second, b)))
}
