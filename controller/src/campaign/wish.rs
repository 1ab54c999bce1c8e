//! The smallest effect of interest as a user writes it (`--smallest-effect`): `0.5pt` is half a point of a fraction,
//! `2%` is relative to the control, a bare number is in the metric's own unit. 1.2 points and 0.012 of a fraction are
//! the same; 1.2 % is not (METHOD §6, trap 14).

use std::{fmt, str::FromStr};

use super::plan::{Metric, MetricScale};

/// What the user would call an effect worth having.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EffectWish {
    /// Hundredths of a fraction.
    Points(f64),
    /// Relative to the control's value; 0.02 is 2 %.
    Relative(f64),
    /// In the metric's own unit.
    Absolute(f64),
}

/// The text is no effect.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is no effect: write a finite number over 0, alone (in the metric's unit) or with `pt` (points) or `%` \
         (relative), like `0.5pt`, `2%` or `0.01`"
)]
pub struct ParseEffectError(String);

/// The wish cannot be applied to the metric.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ApplyEffectError {
    /// Points of something that is no fraction.
    #[error("points are hundredths of a fraction, and the metric's unit is `{0}`")]
    NoFraction(String),
    /// Relative, and no value of the control is known from an earlier experiment.
    #[error(
        "a relative effect needs the metric's scale to be log, or the control's value from an earlier experiment"
    )]
    NoControl,
}

impl FromStr for EffectWish {
    type Err = ParseEffectError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseEffectError(text.chars().take(40).collect());
        let trimmed = text.trim();
        let (number, make): (&str, fn(f64) -> Self) = if let Some(rest) = trimmed.strip_suffix('%') {
            (rest, |n| Self::Relative(n / 100.0))
        } else if let Some(rest) = trimmed.strip_suffix("points").or_else(|| trimmed.strip_suffix("pt")) {
            (rest, Self::Points)
        } else {
            (trimmed, Self::Absolute)
        };
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        if number.is_finite() && number > 0.0 { Ok(make(number)) } else { Err(wrong()) }
    }
}

impl fmt::Display for EffectWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Points(n) => write!(f, "{n}pt"),
            Self::Relative(n) => write!(f, "{}%", n * 100.0),
            Self::Absolute(n) => write!(f, "{n}"),
        }
    }
}

impl EffectWish {
    /// As a plan's `smallest_effect.value`: in the metric's unit, or a ratio over 1 where its scale is log.
    /// `control` is the control's value from an earlier experiment.
    ///
    /// # Errors
    /// Where the wish has no meaning for this metric.
    pub fn apply(self, metric: &Metric, control: Option<f64>) -> Result<f64, ApplyEffectError> {
        match (self, metric.scale) {
            (Self::Absolute(n), MetricScale::Raw) => Ok(n),
            // A bare number on a log scale is the ratio itself where it is over 1, else what the ratio adds to 1.
            (Self::Absolute(n), MetricScale::Log) => Ok(if n > 1.0 { n } else { 1.0 + n }),
            (Self::Relative(n), MetricScale::Log) => Ok(1.0 + n),
            (Self::Relative(n), MetricScale::Raw) => match control {
                Some(value) if value != 0.0 => Ok(n * value.abs()),
                _ => Err(ApplyEffectError::NoControl),
            },
            (Self::Points(n), MetricScale::Raw) if metric.unit == "fraction" => Ok(n / 100.0),
            (Self::Points(n), MetricScale::Raw)
                if matches!(metric.unit.as_str(), "points" | "percent" | "%") =>
            {
                Ok(n)
            }
            (Self::Points(_), _) => Err(ApplyEffectError::NoFraction(metric.unit.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::fixtures;

    #[test]
    fn points_and_fractions_compare_equal_and_percent_does_not() {
        let metric = fixtures::ablation().metric;
        let value = |text: &str| text.parse::<EffectWish>().unwrap().apply(&metric, Some(0.9)).unwrap();
        assert!((value("1.2pt") - 0.012).abs() < 1e-12);
        assert!((value("0.012") - value("1.2 points")).abs() < 1e-12);
        assert!((value("1.2%") - 0.0108).abs() < 1e-12);
        assert_eq!(EffectWish::Relative(0.02).apply(&metric, None), Err(ApplyEffectError::NoControl));
    }

    #[test]
    fn what_is_no_effect_is_refused() {
        for wrong in ["", "x", "0", "-1pt", "NaN", "inf", "0%", "1 pint"] {
            assert!(wrong.parse::<EffectWish>().is_err(), "{wrong}");
        }
    }
}
