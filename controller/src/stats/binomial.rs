//! Shares of runs: exact and score intervals, and the one exact test.
//!
//! Sources: Clopper & Pearson (1934), Biometrika 26, 404–413; Wilson (1927), JASA 22, 209–212; Newcombe (1998),
//! Statistics in Medicine 17, 873–890, method 10; Boschloo (1970), Statistica Neerlandica 24, 1–9.

use super::distributions::{beta_quantile, normal_critical};

/// Points of the grid over the nuisance share; the refinement after it takes the neighbourhood of the best one.
const NUISANCE_GRID: usize = 1000;
/// Trials in one arm above which Boschloo's test is refused: the table grows with their product.
const BOSCHLOO_TRIALS_MAX: u64 = 200;

/// Exact two-sided interval for a share: `successes` of `trials`, between 0 and 1.
///
/// low = B(e/2; k, n−k+1), high = B(1−e/2; k+1, n−k), with 0 and 1 at the ends. None where there are no trials, more
/// successes than trials, or an error outside (0, 1).
pub fn clopper_pearson(successes: u64, trials: u64, error: f64) -> Option<(f64, f64)> {
    if !valid(successes, trials, error) {
        return None;
    }
    let (k, n) = (successes as f64, trials as f64);
    let low = if successes == 0 { 0.0 } else { beta_quantile(error / 2.0, k, n - k + 1.0) };
    let high = if successes == trials { 1.0 } else { beta_quantile(1.0 - error / 2.0, k + 1.0, n - k) };
    (low.is_finite() && high.is_finite()).then_some((low, high))
}

/// Wilson's score interval for a share.
///
/// None as for [`clopper_pearson`].
pub fn wilson(successes: u64, trials: u64, error: f64) -> Option<(f64, f64)> {
    if !valid(successes, trials, error) {
        return None;
    }
    let (p, n, z) = (successes as f64 / trials as f64, trials as f64, normal_critical(error));
    let scale = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / scale;
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt() / scale;
    // At the ends the formula gives 0 and 1 but for rounding.
    let low = if successes == 0 { 0.0 } else { centre - half };
    let high = if successes == trials { 1.0 } else { centre + half };
    (low.is_finite() && high.is_finite()).then_some((low, high))
}

/// Newcombe's hybrid score interval (method 10, no continuity correction) for p₁ − p₂.
///
/// d − √((p₁−l₁)² + (u₂−p₂)²) to d + √((u₁−p₁)² + (p₂−l₂)²) with Wilson's lᵢ, uᵢ. Each pair is (successes, trials).
/// None as for [`clopper_pearson`].
pub fn newcombe(first: (u64, u64), second: (u64, u64), error: f64) -> Option<(f64, f64)> {
    let (l1, u1) = wilson(first.0, first.1, error)?;
    let (l2, u2) = wilson(second.0, second.1, error)?;
    let p1 = first.0 as f64 / first.1 as f64;
    let p2 = second.0 as f64 / second.1 as f64;
    let difference = p1 - p2;
    Some((difference - (p1 - l1).hypot(u2 - p2), difference + (u1 - p1).hypot(p2 - l2)))
}

/// Boschloo's unconditional exact test of p₁ = p₂: the two-sided p-value, twice the smaller one-sided one.
///
/// The statistic is Fisher's one-sided p; its null distribution is maximised over the common share. Each pair is
/// (successes, trials). None where an arm has no trials, more successes than trials, or over 200 trials.
pub fn boschloo(first: (u64, u64), second: (u64, u64)) -> Option<f64> {
    let fits = |(k, n): (u64, u64)| n > 0 && k <= n && n <= BOSCHLOO_TRIALS_MAX;
    if !fits(first) || !fits(second) {
        return None;
    }
    let less = one_sided(first, second);
    let greater = one_sided(second, first);
    Some((2.0 * less.min(greater)).min(1.0))
}

/// Boschloo's one-sided p against p₁ < p₂.
fn one_sided(first: (u64, u64), second: (u64, u64)) -> f64 {
    let (n1, n2) = (first.1, second.1);
    let logs = log_factorials(n1 + n2);
    let observed = fisher_less(first.0, n1, second.0, n2, &logs);
    // Tables at least as extreme; the slack lets equal p-values tie in spite of rounding, as SciPy does.
    let extreme: Vec<(u64, u64)> = (0..=n1)
        .flat_map(|a| (0..=n2).map(move |b| (a, b)))
        .filter(|&(a, b)| fisher_less(a, n1, b, n2, &logs) <= observed * (1.0 + 1e-13))
        .collect();
    let weights: Vec<(f64, f64)> = extreme
        .iter()
        .map(|&(a, b)| (log_choose(n1, a, &logs) + log_choose(n2, b, &logs), (a + b) as f64))
        .collect();
    let total = (n1 + n2) as f64;
    let tail = |share: f64| -> f64 {
        let (log_yes, log_no) = (share.ln(), (-share).ln_1p());
        weights
            .iter()
            .map(|&(log_ways, successes)| {
                (log_ways + successes * log_yes + (total - successes) * log_no).exp()
            })
            .sum()
    };
    if extreme.len() as u64 == (n1 + 1) * (n2 + 1) {
        return 1.0;
    }
    let step = 1.0 / NUISANCE_GRID as f64;
    let (best, _) = (1..NUISANCE_GRID)
        .map(|i| (i as f64 * step, tail(i as f64 * step)))
        .fold((step, 0.0), |best, next| if next.1 > best.1 { next } else { best });
    golden_maximum((best - step).max(1e-12), (best + step).min(1.0 - 1e-12), tail).min(1.0)
}

/// P(A ≤ a) for the hypergeometric A, given a + b successes in all.
fn fisher_less(a: u64, n1: u64, b: u64, n2: u64, logs: &[f64]) -> f64 {
    let successes = a + b;
    let lowest = successes.saturating_sub(n2);
    let all = log_choose(n1 + n2, successes, logs);
    (lowest..=a)
        .map(|i| (log_choose(n1, i, logs) + log_choose(n2, successes - i, logs) - all).exp())
        .sum::<f64>()
        .min(1.0)
}

fn log_factorials(n: u64) -> Vec<f64> {
    let mut logs = vec![0.0];
    let mut sum = 0.0;
    for i in 1..=n {
        sum += (i as f64).ln();
        logs.push(sum);
    }
    logs
}

fn log_choose(n: u64, k: u64, logs: &[f64]) -> f64 {
    logs[n as usize] - logs[k as usize] - logs[(n - k) as usize]
}

/// The largest value of a function with one peak in [low, high].
fn golden_maximum(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    let ratio = (5f64.sqrt() - 1.0) / 2.0;
    for _ in 0..60 {
        let (left, right) = (high - ratio * (high - low), low + ratio * (high - low));
        if f(left) < f(right) {
            low = left;
        } else {
            high = right;
        }
    }
    f(0.5 * (low + high))
}

fn valid(successes: u64, trials: u64, error: f64) -> bool {
    trials > 0 && successes <= trials && error > 0.0 && error < 1.0
}
