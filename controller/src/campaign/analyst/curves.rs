//! Curves with pointwise bands for the report: description, never a test per step (METHOD §2.2).

use std::collections::BTreeMap;

use crate::stats::{self, Point};

use super::{
    super::record::{ExperimentRecord, Logged},
    DESCRIPTION_ERROR,
};

/// A variant's mean curve of one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The metric.
    pub metric: String,
    /// "v1".
    pub variant: String,
    /// Steps.
    pub steps: Vec<u64>,
    /// Mean over seeds.
    pub mean: Vec<f64>,
    /// Pointwise 95 % band; the mean itself where there is one seed.
    pub low: Vec<f64>,
    /// See `low`.
    pub high: Vec<f64>,
}

/// Points of one curve in the report: more do not show at its size.
const POINTS_MAX: usize = 200;

/// The curves of a metric, one for each variant that logged it more than once.
#[must_use]
pub fn curves(record: &ExperimentRecord, metric: &str) -> Vec<Curve> {
    let mut by_variant: BTreeMap<String, Vec<Vec<Point>>> = BTreeMap::new();
    for ((variant, _), run) in record.analysed() {
        if let Some(series) = run.series.get(metric) {
            let points =
                series.iter().map(|Logged { step, value }| Point { step: *step, value: *value }).collect();
            by_variant.entry(variant).or_default().push(points);
        }
    }
    let mut out = Vec::new();
    // In the plan's own order, where v10 comes after v9.
    for variant in record.plan.variants().into_iter().map(|variant| variant.id) {
        let seeds = by_variant.remove(&variant).unwrap_or_default();
        let seeds: Vec<&[Point]> = seeds.iter().map(Vec::as_slice).collect();
        let mut bands = stats::bands(&seeds, DESCRIPTION_ERROR);
        if bands.len() < 2 {
            continue;
        }
        if bands.len() > POINTS_MAX {
            let stride = bands.len().div_ceil(POINTS_MAX);
            let last = bands.len() - 1;
            bands = bands
                .into_iter()
                .enumerate()
                .filter(|(i, _)| i % stride == 0 || *i == last)
                .map(|(_, b)| b)
                .collect();
        }
        out.push(Curve {
            metric: metric.to_owned(),
            variant,
            steps: bands.iter().map(|b| b.step).collect(),
            mean: bands.iter().map(|b| b.mean).collect(),
            low: bands.iter().map(|b| b.low.unwrap_or(b.mean)).collect(),
            high: bands.iter().map(|b| b.high.unwrap_or(b.mean)).collect(),
        });
    }
    out
}
