//! Numbers and rulings in words, in the unit that a reader expects: fractions in points, ratios in per cent. Rounding
//! only; no arithmetic that is not the unit's.

use crate::stats::{Interval, Reason, Verdict};

use super::{
    super::{
        plan::{Metric, MetricScale, Plan, Predicts, Reduce, SetBy},
        record::ExperimentRecord,
    },
    ContrastAnalysis,
};

/// Three significant digits, no trailing zeros.
#[must_use]
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponent = value.abs().log10().floor();
    if !(-4.0..7.0).contains(&exponent) {
        return format!("{value:.2e}");
    }
    let decimals = (2.0 - exponent).max(0.0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A difference as shown: its number and its unit.
#[must_use]
pub fn shown(value: f64, metric: &Metric, reduce: &Reduce) -> (f64, String) {
    match (metric.scale, reduce) {
        (MetricScale::Log, _) => (100.0 * (value.exp() - 1.0), "%".to_owned()),
        (MetricScale::Raw, Reduce::StepsTo { .. }) => (value, "steps".to_owned()),
        (MetricScale::Raw, _) if metric.unit == "fraction" => (100.0 * value, "points".to_owned()),
        (MetricScale::Raw, Reduce::SlopeOver { .. }) => (value, format!("{} per factor of e", metric.unit)),
        (MetricScale::Raw, _) => (value, metric.unit.clone()),
    }
}

/// A smallest effect or another size, in words.
#[must_use]
pub fn amount(value: f64, metric: &Metric) -> String {
    match metric.scale {
        MetricScale::Log => format!("{} %", number(100.0 * (value - 1.0))),
        MetricScale::Raw if metric.unit == "fraction" => format!("{} points", number(100.0 * value)),
        MetricScale::Raw => format!("{} {}", number(value), metric.unit),
    }
}

/// The smallest effect of interest in words.
#[must_use]
pub fn margin(plan: &Plan) -> String {
    match (plan.metric.scale, &plan.reduce) {
        (MetricScale::Raw, Reduce::StepsTo { .. }) => format!("{} steps", number(plan.smallest_effect.value)),
        _ => amount(plan.smallest_effect.value, &plan.metric),
    }
}

/// A value of the metric itself, in words.
#[must_use]
pub fn quantity(value: f64, metric: &Metric) -> String {
    if metric.unit == "fraction" {
        format!("{} %", number(100.0 * value))
    } else {
        format!("{} {}", number(value), metric.unit)
    }
}

/// "−0.3 to 1.2 points".
#[must_use]
pub fn interval(interval: &Interval, plan: &Plan) -> String {
    let (low, unit) = shown(interval.low, &plan.metric, &plan.reduce);
    let (high, _) = shown(interval.high, &plan.metric, &plan.reduce);
    format!("{} to {} {unit}", number(low), number(high))
}

/// "98 %".
#[must_use]
pub fn level(error: f64) -> String {
    format!("{} %", number(100.0 * (1.0 - error)))
}

/// Who set the smallest effect of interest.
#[must_use]
pub fn set_by(by: SetBy) -> &'static str {
    match by {
        SetBy::User => "user",
        SetBy::Table => "table",
        SetBy::Model => "model",
    }
}

/// The row of METHOD §3.1 that fitted, in the metric's unit.
#[must_use]
pub fn ruling(record: &ExperimentRecord, contrast: &ContrastAnalysis) -> String {
    let plan = &record.plan;
    let judgement = &contrast.judgement;
    if let Some(gate) = &judgement.ruling.gate {
        let names: Vec<String> = cell_names(record, contrast);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        return gate.sentence(&names);
    }
    let (Some(estimate), Some(range)) = (&judgement.estimate, &judgement.interval) else {
        return String::new();
    };
    let (effect, unit) = shown(estimate.theta, &plan.metric, &plan.reduce);
    let measured = format!(
        "{}: {} {unit} ({} interval {})",
        contrast.label,
        number(effect),
        level(contrast.error),
        interval(range, plan)
    );
    let Some(claim) = &contrast.claim else { return format!("{measured}; described, not tested") };
    let margin = margin(plan);
    let because = match judgement.ruling.reason {
        Reason::Gate => String::new(),
        Reason::WithinMargin => format!("any difference is smaller than {margin}"),
        Reason::RealButSmall => format!("real, but smaller than {margin}"),
        Reason::AtLeastSmallestEffect => format!("at least {margin}, the smallest effect of interest"),
        Reason::DirectionSure => format!("the direction is sure, the size may be below {margin}"),
        Reason::Opposite => "the opposite of what was predicted".to_owned(),
        Reason::GainRuledOut => {
            let what = if claim.predicts == Predicts::Decrease { "decrease" } else { "increase" };
            format!("an {what} of {margin} is ruled out; the opposite is not")
                .replace("an decrease", "a decrease")
        }
        Reason::RelevantChange => format!("a change of at least {margin}, where none was predicted"),
        Reason::DiffersRelevanceOpen => {
            format!("it differs; whether by {margin}, so that it matters, is open")
        }
        Reason::ExactTestDisagrees => {
            "the interval excludes no difference, and the exact test does not agree".to_owned()
        }
        Reason::Undecided => format!("compatible with {}", interval(range, plan)),
    };
    let mut text = format!("{measured}; {because}");
    if judgement.ruling.verdict == Verdict::Inconclusive
        && let Some((_, needs)) = judgement.ruling.sentence.split_once("; would need")
    {
        text.push_str("; would need");
        text.push_str(needs);
    }
    if judgement.ruling.rests_on_failed_runs {
        text.push_str("; rests on the failed runs");
    }
    text
}

fn cell_names(record: &ExperimentRecord, contrast: &ContrastAnalysis) -> Vec<String> {
    let cells = record.cells();
    let registered = record.plan.contrasts.iter().find(|c| c.id == contrast.id);
    let weights = registered.into_iter().flat_map(|c| &c.weights);
    weights
        .map(|w| {
            cells
                .iter()
                .find(|c| c.id == w.cell)
                .map_or_else(|| w.cell.clone(), super::super::plan::Cell::label)
        })
        .collect()
}
