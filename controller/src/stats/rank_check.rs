//! The rank check that is printed beside a mean (METHOD §2.5): the exact Wilcoxon–Mann–Whitney test with failed runs
//! tied below all finished ones (Lachin 1999, Controlled Clinical Trials 20, 408–422).
//!
//! It gives no verdict: at three seeds its smallest two-sided p is 0.10. Its use is that it does not depend on how bad
//! `worst` was set.

use super::{failures::Observed, gate::Gate, reduce::Better};

/// Least runs per arm at which the check is printed.
pub const RUNS_MIN: usize = 5;
/// Most runs per arm: the table of sums grows with the cube (4 MB here).
const RUNS_MAX: usize = 50;

/// The exact two-sided p-value of the rank check; ties take midranks, and the distribution is that over all ways to
/// deal these ranks to the two arms.
///
/// # Errors
/// A [`Gate`]: fewer than five runs in an arm ([`Gate::TooFewSeeds`]), over 50, a value not finite.
pub fn rank_check(first: &[Observed], second: &[Observed], better: Better) -> Result<f64, Gate> {
    let fewest = first.len().min(second.len());
    if fewest < RUNS_MIN {
        return Err(Gate::TooFewSeeds { n: fewest });
    }
    if first.len().max(second.len()) > RUNS_MAX {
        return Err(Gate::Shape { problem: format!("the rank check takes at most {RUNS_MAX} runs per arm") });
    }
    let below_all = if better == Better::Higher { f64::NEG_INFINITY } else { f64::INFINITY };
    let values = first
        .iter()
        .chain(second)
        .map(|observed| match observed {
            Observed::Failed => Ok(below_all),
            Observed::Value(value) if value.is_finite() => Ok(*value),
            Observed::Value(_) => Err(Gate::NotFinite),
        })
        .collect::<Result<Vec<f64>, Gate>>()?;
    let ranks = doubled_midranks(&values);
    let observed: usize = ranks[..first.len()].iter().sum();
    let total: usize = ranks.iter().sum();
    let chances = chances_of_sums(&ranks, first.len());
    // The sum's mean is total·n₁/n, compared without division.
    let distance = |sum: usize| (sum * ranks.len()).abs_diff(total * first.len());
    let p: f64 = chances
        .iter()
        .enumerate()
        .filter(|(sum, _)| distance(*sum) >= distance(observed))
        .map(|(_, chance)| chance)
        .sum();
    Ok(p.min(1.0))
}

/// Twice the mean rank of each value among all, so that ties stay whole numbers.
fn doubled_midranks(values: &[f64]) -> Vec<usize> {
    values
        .iter()
        .map(|value| {
            let below = values.iter().filter(|other| *other < value).count();
            let equal = values.iter().filter(|other| *other == value).count();
            2 * below + equal + 1
        })
        .collect()
}

/// For each sum of ranks the share of the choices of `size` positions that have it.
///
/// One position after another is dealt, with the chance that a random order gives it to the first arm; probabilities
/// in place of counts, which would overflow.
fn chances_of_sums(ranks: &[usize], size: usize) -> Vec<f64> {
    let total: usize = ranks.iter().sum();
    // table[taken][sum]
    let mut table = vec![vec![0.0; total + 1]; size + 1];
    table[0][0] = 1.0;
    for (dealt, &rank) in ranks.iter().enumerate() {
        let left = (ranks.len() - dealt) as f64;
        for taken in (0..=size.min(dealt)).rev() {
            let chance = (size - taken) as f64 / left;
            for sum in (0..=total - rank).rev() {
                let mass = table[taken][sum];
                if mass > 0.0 {
                    if chance > 0.0 {
                        table[taken + 1][sum + rank] += mass * chance;
                    }
                    table[taken][sum] = mass * (1.0 - chance);
                }
            }
        }
    }
    table.swap_remove(size)
}
