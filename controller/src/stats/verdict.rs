//! The decision table (METHOD §3.1): an interval's place against 0 and ±Δ is the verdict, and nothing else is.
//!
//! ```text
//!                    −Δ         0         +Δ          (+ is what the claim predicts)
//!   equivalent        | (---------------)  |          inside, whether or not 0 is
//!   supported         |          (---------|--)       L > 0 and U ≥ Δ
//!   refuted     (-----|----)     |         |          U < 0 and L ≤ −Δ: the opposite
//!   refuted        (--|----------|-----)   |          L ≤ −Δ and 0 ≤ U < Δ: a gain of Δ is ruled out
//!   inconclusive   (--|----------|---------|--)       else
//! ```
//!
//! First row that fits wins. `equivalent` is the only word for "no relevant difference"; `inconclusive` never
//! means it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{estimate::Interval, gate::Gate};

/// What a claim says about θ, in the metric's own direction: a loss that goes down is a decrease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predicts {
    /// θ > 0.
    Increase,
    /// θ < 0.
    Decrease,
    /// θ ≠ 0.
    AnyChange,
    /// |θ| < Δ.
    NoRelevantChange,
}

/// What the data say about a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The claim's direction is sure.
    Supported,
    /// The claim is ruled out.
    Refuted,
    /// Any difference is smaller than the smallest effect of interest.
    Equivalent,
    /// None of the three.
    Inconclusive,
}

impl Verdict {
    /// The word, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Supported => "supported",
            Self::Refuted => "refuted",
            Self::Equivalent => "equivalent",
            Self::Inconclusive => "inconclusive",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which row of the table fitted, for reports that write the sentence in their own units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A gate is shut.
    Gate,
    /// Inside ±Δ, and 0 is inside.
    WithinMargin,
    /// Inside ±Δ, and 0 is outside.
    RealButSmall,
    /// The predicted direction, by at least Δ.
    AtLeastSmallestEffect,
    /// The predicted direction; the size may be below Δ.
    DirectionSure,
    /// The opposite of the predicted direction.
    Opposite,
    /// A gain of Δ is ruled out, harm is not.
    GainRuledOut,
    /// A change of Δ or more where none was predicted.
    RelevantChange,
    /// Differs from 0; whether by Δ is open.
    DiffersRelevanceOpen,
    /// Compatible with too much.
    Undecided,
}

/// A verdict with its reasons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ruling {
    /// The word.
    pub verdict: Verdict,
    /// The row of the table.
    pub reason: Reason,
    /// The row in words, with numbers in metric units.
    pub sentence: String,
    /// The gate that is shut, if one is.
    pub gate: Option<Gate>,
    /// The margin above which the verdict would have been `equivalent`, in metric units; none under a gate.
    pub smallest_margin: Option<f64>,
    /// Whether another value for the failed runs would have given another verdict (METHOD §2.5).
    pub rests_on_failed_runs: bool,
}

impl Ruling {
    /// The same, with the number of seeds that would be needed; only an `inconclusive` without a gate takes it.
    #[must_use]
    pub fn needing(mut self, seeds: Option<usize>) -> Self {
        if let (Verdict::Inconclusive, None, Some(seeds)) = (self.verdict, &self.gate, seeds) {
            self.sentence.push_str(&format!("; would need about {seeds} seeds"));
        }
        self
    }
}

/// Rules on a claim. `delta` is the smallest effect of interest, in the units of the interval, > 0.
pub fn rule(predicts: Predicts, interval: Result<Interval, Gate>, delta: f64) -> Ruling {
    let interval = match interval {
        Ok(interval) => interval,
        Err(gate) => return shut(gate),
    };
    if !(interval.low.is_finite() && interval.high.is_finite() && interval.low <= interval.high) {
        return shut(Gate::NotFinite);
    }
    if !(delta.is_finite() && delta > 0.0) {
        return shut(Gate::SmallestEffect);
    }
    let (verdict, reason) = place(predicts, interval, delta);
    Ruling {
        verdict,
        reason,
        sentence: sentence(predicts, reason, interval, delta),
        gate: None,
        smallest_margin: Some(interval.smallest_margin()),
        rests_on_failed_runs: false,
    }
}

fn shut(gate: Gate) -> Ruling {
    Ruling {
        verdict: Verdict::Inconclusive,
        reason: Reason::Gate,
        sentence: gate.to_string(),
        gate: Some(gate),
        smallest_margin: None,
        rests_on_failed_runs: false,
    }
}

fn place(predicts: Predicts, interval: Interval, delta: f64) -> (Verdict, Reason) {
    if -delta < interval.low && interval.high < delta {
        let real = interval.excludes_zero() && predicts != Predicts::NoRelevantChange;
        return (Verdict::Equivalent, if real { Reason::RealButSmall } else { Reason::WithinMargin });
    }
    match predicts {
        Predicts::Increase => directional(interval, delta),
        Predicts::Decrease => directional(interval.mirrored(), delta),
        Predicts::AnyChange if interval.low >= delta || interval.high <= -delta => {
            (Verdict::Supported, Reason::AtLeastSmallestEffect)
        }
        Predicts::AnyChange if interval.excludes_zero() => (Verdict::Supported, Reason::DirectionSure),
        Predicts::AnyChange => (Verdict::Inconclusive, Reason::Undecided),
        Predicts::NoRelevantChange if interval.low >= delta || interval.high <= -delta => {
            (Verdict::Refuted, Reason::RelevantChange)
        }
        Predicts::NoRelevantChange if interval.excludes_zero() => {
            (Verdict::Inconclusive, Reason::DiffersRelevanceOpen)
        }
        Predicts::NoRelevantChange => (Verdict::Inconclusive, Reason::Undecided),
    }
}

/// The rows after `equivalent` for a directional claim; `oriented` has + for what is predicted.
fn directional(oriented: Interval, delta: f64) -> (Verdict, Reason) {
    let Interval { low, high, .. } = oriented;
    if low >= delta {
        (Verdict::Supported, Reason::AtLeastSmallestEffect)
    } else if low > 0.0 && high >= delta {
        (Verdict::Supported, Reason::DirectionSure)
    } else if high < 0.0 {
        (Verdict::Refuted, Reason::Opposite)
    } else if low <= -delta && high < delta {
        (Verdict::Refuted, Reason::GainRuledOut)
    } else {
        (Verdict::Inconclusive, Reason::Undecided)
    }
}

fn sentence(predicts: Predicts, reason: Reason, interval: Interval, delta: f64) -> String {
    let (low, high) = (number(interval.low), number(interval.high));
    let (margin, opposite) = (number(delta), number(-delta));
    let (sign_of_gain, gain) = match predicts {
        Predicts::Decrease => (opposite.as_str(), "decrease"),
        _ => (margin.as_str(), "increase"),
    };
    let direction = if interval.low > 0.0 { "an increase" } else { "a decrease" };
    match reason {
        Reason::Gate => String::new(),
        Reason::WithinMargin => format!("any difference is smaller than {margin}: {low} to {high}"),
        Reason::RealButSmall => format!("{direction}, real, but smaller than {margin}: {low} to {high}"),
        Reason::AtLeastSmallestEffect => format!("{direction} of at least {margin}: {low} to {high}"),
        Reason::DirectionSure => {
            format!("{direction}: {low} to {high}; the direction is sure, the size may be below {margin}")
        }
        Reason::Opposite => format!("the opposite of what was predicted, {direction}: {low} to {high}"),
        Reason::GainRuledOut => format!(
            "{low} to {high}: an effect of {sign_of_gain} is ruled out, and so is any larger {gain}; harm is not"
        ),
        Reason::RelevantChange => {
            format!("{direction} of at least {margin}, where none was predicted: {low} to {high}")
        }
        Reason::DiffersRelevanceOpen => {
            format!("{direction}: {low} to {high}; it differs, whether it matters (by {margin}) is open")
        }
        Reason::Undecided => format!("compatible with {low} to {high}"),
    }
}

/// Four significant digits, no trailing zeros, a real minus sign never: the text is also read by programs.
pub(super) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponent = value.abs().log10().floor();
    if !(-5.0..9.0).contains(&exponent) {
        return format!("{value:.3e}");
    }
    let decimals = (3.0 - exponent).max(0.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
