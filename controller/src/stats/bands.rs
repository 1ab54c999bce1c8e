//! Mean curves over seeds with a pointwise t band per step: description, labelled "not a test".
//!
//! A band says where the mean is at one step that was picked before looking. Reading off where two bands part is a test
//! at every step at once, which is never done (METHOD §2.2, learning curves).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{distributions::t_critical, estimate::Summary, reduce::Point};

/// The curve at one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// The step.
    pub step: u64,
    /// Mean over the seeds that have a finite value there.
    pub mean: f64,
    /// Lower end of the band; none for one seed.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Seeds that have a finite value there: a curve that loses seeds is a curve of survivors, and this shows it.
    pub n: usize,
}

/// The mean and t band, at the two-sided `error`, at each step that any seed has a finite value at.
///
/// Where a seed logged a step twice, its last value counts.
pub fn bands(seeds: &[&[Point]], error: f64) -> Vec<Band> {
    let mut by_step: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for series in seeds {
        let unique: BTreeMap<u64, f64> = series.iter().map(|point| (point.step, point.value)).collect();
        for (step, value) in unique.into_iter().filter(|(_, value)| value.is_finite()) {
            by_step.entry(step).or_default().push(value);
        }
    }
    let mut criticals: BTreeMap<usize, f64> = BTreeMap::new(); // one per number of seeds, not one per step
    by_step
        .into_iter()
        .filter_map(|(step, values)| {
            let n = values.len();
            let Ok(summary) = Summary::of(&values) else {
                let mean = values.first().copied().filter(|_| n == 1)?;
                return Some(Band { step, mean, low: None, high: None, n });
            };
            let critical = *criticals.entry(n).or_insert_with(|| t_critical(error, n as f64 - 1.0));
            let half = critical * summary.deviation / (n as f64).sqrt();
            let end = |value: f64| value.is_finite().then_some(value);
            Some(Band {
                step,
                mean: summary.mean,
                low: end(summary.mean - half),
                high: end(summary.mean + half),
                n,
            })
        })
        .collect()
}
