//! From the series that a run logged to its one number (METHOD §1 `reduce`, §2.2).
//!
//! A plan names the rule before any run; nothing here looks at more than one run's series. What cannot be reduced is an
//! error that says why: whether that is a failed run or a fault is the campaign's to decide (METHOD §2.5).

use serde::{Deserialize, Serialize};

/// One logged value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The program's step.
    pub step: u64,
    /// The value.
    pub value: f64,
}

/// Which direction of a metric is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Accuracy.
    Higher,
    /// Loss.
    Lower,
}

impl Better {
    /// Whether `a` is better than `b`; nothing is better than itself, NaN is better than nothing.
    pub fn prefers(self, a: f64, b: f64) -> bool {
        match self {
            Self::Higher => a > b,
            Self::Lower => a < b,
        }
    }

    /// The better of two.
    pub fn best(self, a: f64, b: f64) -> f64 {
        if self.prefers(a, b) { a } else { b }
    }
}

/// Why a series has no number.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReduceError {
    /// Nothing was logged.
    #[error("the series is empty: the run logged no value of this metric")]
    Empty,
    /// Fewer points than the rule needs.
    #[error("the rule needs {needed} values and the series has {have}")]
    TooShort {
        /// What the rule needs.
        needed: usize,
        /// What there is.
        have: usize,
    },
    /// A value that the rule uses is NaN or infinite.
    #[error("the value at step {step} is not a finite number")]
    NotFinite {
        /// Where.
        step: u64,
    },
    /// A parameter of the rule.
    #[error("{parameter} must be {wanted}")]
    Parameter {
        /// Which.
        parameter: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// No step has both metrics.
    #[error("no step has a value of both the metric and the validation metric: log them in the same call")]
    NoCommonStep,
    /// Steps do not increase.
    #[error("step {step} is not after the one before it")]
    Order {
        /// Where.
        step: u64,
    },
}

/// The last value.
///
/// # Errors
/// [`ReduceError`]: empty, or not finite.
pub fn final_value(series: &[Point]) -> Result<f64, ReduceError> {
    series.last().ok_or(ReduceError::Empty).and_then(finite)
}

/// The mean of the last `k` values, k ≥ 1.
///
/// # Errors
/// [`ReduceError`]: k is 0, fewer than k values, one of them not finite.
pub fn mean_last(series: &[Point], k: usize) -> Result<f64, ReduceError> {
    if k == 0 {
        return Err(ReduceError::Parameter { parameter: "k", wanted: "at least 1" });
    }
    if series.is_empty() {
        return Err(ReduceError::Empty);
    }
    let start = series.len().checked_sub(k).ok_or(ReduceError::TooShort { needed: k, have: series.len() })?;
    series[start..].iter().map(|point| finite(point).map(|value| value / k as f64)).sum()
}

/// The value at the step where the validation metric is best, the first such step at ties.
///
/// Only steps that have both are looked at; a validation value that is not finite is never best.
///
/// # Errors
/// [`ReduceError`]: empty, no common step, the chosen value not finite.
pub fn at_best_validation(
    series: &[Point],
    validation: &[Point],
    better: Better,
) -> Result<f64, ReduceError> {
    if series.is_empty() || validation.is_empty() {
        return Err(ReduceError::Empty);
    }
    let by_step: std::collections::BTreeMap<u64, &Point> = series.iter().map(|p| (p.step, p)).collect();
    let mut best: Option<(f64, &Point)> = None;
    for candidate in validation.iter().filter(|point| point.value.is_finite()) {
        let Some(point) = by_step.get(&candidate.step) else { continue };
        if best.is_none_or(|(value, _)| better.prefers(candidate.value, value)) {
            best = Some((candidate.value, point));
        }
    }
    best.ok_or(ReduceError::NoCommonStep).and_then(|(_, point)| finite(point))
}

/// The area under the curve by the trapezoidal rule over its range of steps: a mean height, in metric units.
///
/// # Errors
/// [`ReduceError`]: fewer than two values, one not finite, steps that do not increase.
pub fn area(series: &[Point]) -> Result<f64, ReduceError> {
    let (Some(first), Some(last)) = (series.first(), series.last()) else { return Err(ReduceError::Empty) };
    if series.len() < 2 {
        return Err(ReduceError::TooShort { needed: 2, have: series.len() });
    }
    increasing(series)?;
    let range = (last.step - first.step) as f64;
    series
        .windows(2)
        .map(|pair| {
            let width = (pair[1].step - pair[0].step) as f64 / range;
            Ok(width * (0.5 * finite(&pair[0])? + 0.5 * finite(&pair[1])?))
        })
        .sum()
}

/// When a threshold was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepsTo {
    /// min(T, horizon): the run's number.
    pub steps: u64,
    /// Whether T is at or before the horizon; "reached in k of n" counts these.
    pub reached: bool,
}

/// A threshold and what it means to have reached it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// The metric's value, itself counted as reached.
    pub value: f64,
    /// Which side is past it.
    pub better: Better,
    /// Consecutive evaluations that must be past it, at least 1.
    pub sustain: usize,
    /// The registered number of steps, at which a run that never reached it counts.
    pub horizon: u64,
}

/// The first step from which the metric stays past the threshold for `sustain` evaluations, else the horizon.
///
/// The restricted time of Royston & Parmar (2013), BMC Med. Res. Methodol. 13:152: with one common horizon its mean
/// is a plain mean. A value that is not finite is past nothing, so a run that diverges counts at the horizon.
///
/// # Errors
/// [`ReduceError`]: empty, steps that do not increase, a threshold that is not finite, sustain or horizon 0.
pub fn steps_to(series: &[Point], threshold: Threshold) -> Result<StepsTo, ReduceError> {
    let Threshold { value: wanted, better, sustain, horizon } = threshold;
    if !wanted.is_finite() {
        return Err(ReduceError::Parameter { parameter: "threshold", wanted: "a finite number" });
    }
    if sustain == 0 || horizon == 0 {
        return Err(ReduceError::Parameter { parameter: "sustain and horizon", wanted: "at least 1" });
    }
    if series.is_empty() {
        return Err(ReduceError::Empty);
    }
    increasing(series)?;
    let past = |point: &Point| point.value.is_finite() && !better.prefers(wanted, point.value);
    let reached = series
        .windows(sustain)
        .find(|window| window.iter().all(past))
        .map(|window| window[0].step)
        .filter(|&step| step <= horizon);
    Ok(StepsTo { steps: reached.unwrap_or(horizon), reached: reached.is_some() })
}

/// One seed at one level of a factor, for [`gap_to_best_over`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LevelResult {
    /// The run's number; none if it failed.
    pub value: Option<f64>,
    /// The metric at initialisation, which no run counts as worse than.
    pub at_initialisation: f64,
}

/// Sensitivity to a factor, for one seed: the mean over its levels of how far each is from that seed's best one.
///
/// Learning-rate sensitivity of Wortsman et al. (2023), arXiv 2309.14322: mean over levels of (min(loss, loss at
/// initialisation) − best). Failed runs and values that are not finite count at initialisation. In metric units, ≥ 0;
/// for a metric that is better higher the signs are turned.
///
/// # Errors
/// [`ReduceError`]: fewer than two levels, a value at initialisation that is not finite (`step` is the level).
pub fn gap_to_best_over(levels: &[LevelResult], better: Better) -> Result<f64, ReduceError> {
    if levels.len() < 2 {
        return Err(ReduceError::TooShort { needed: 2, have: levels.len() });
    }
    let mut capped = Vec::with_capacity(levels.len());
    for (level, result) in levels.iter().enumerate() {
        if !result.at_initialisation.is_finite() {
            return Err(ReduceError::NotFinite { step: level as u64 });
        }
        let value = result.value.filter(|value| value.is_finite()).unwrap_or(result.at_initialisation);
        capped.push(better.best(value, result.at_initialisation));
    }
    let best = capped.iter().copied().reduce(|a, b| better.best(a, b)).ok_or(ReduceError::Empty)?;
    Ok(capped.iter().map(|value| (value - best).abs() / capped.len() as f64).sum())
}

/// The least-squares slope of a seed's values over the natural logarithm of size: metric units per factor of e.
///
/// # Errors
/// [`ReduceError`]: fewer than two sizes, all sizes equal, a size that is not positive, a value not finite
/// (`step` is the position).
pub fn slope_over(sizes_and_values: &[(f64, f64)]) -> Result<f64, ReduceError> {
    let n = sizes_and_values.len();
    if n < 2 {
        return Err(ReduceError::TooShort { needed: 2, have: n });
    }
    if let Some(position) = sizes_and_values.iter().position(|(_, value)| !value.is_finite()) {
        return Err(ReduceError::NotFinite { step: position as u64 });
    }
    if sizes_and_values.iter().any(|(size, _)| !(size.is_finite() && *size > 0.0)) {
        return Err(ReduceError::Parameter { parameter: "a size", wanted: "positive and finite" });
    }
    let mean = |f: fn(&(f64, f64)) -> f64| sizes_and_values.iter().map(f).sum::<f64>() / n as f64;
    let (centre_x, centre_y) = (mean(|(size, _)| size.ln()), mean(|(_, value)| *value));
    let (mut products, mut squares) = (0.0, 0.0);
    for (size, value) in sizes_and_values {
        let x = size.ln() - centre_x;
        products += x * (value - centre_y);
        squares += x * x;
    }
    if squares < 1e-12 {
        return Err(ReduceError::Parameter { parameter: "sizes", wanted: "at least two different ones" });
    }
    Ok(products / squares)
}

fn finite(point: &Point) -> Result<f64, ReduceError> {
    if point.value.is_finite() { Ok(point.value) } else { Err(ReduceError::NotFinite { step: point.step }) }
}

fn increasing(series: &[Point]) -> Result<(), ReduceError> {
    match series.windows(2).find(|pair| pair[0].step >= pair[1].step) {
        Some(pair) => Err(ReduceError::Order { step: pair[1].step }),
        None => Ok(()),
    }
}
