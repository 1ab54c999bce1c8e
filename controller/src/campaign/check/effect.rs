//! Who sets the smallest effect of interest: the user, else the data set's table, else the planner inside a cap
//! (METHOD §3.3). The control's value for a cap comes from earlier experiments, never from this one.

use super::{
    super::{
        plan::{Better, MetricScale, Plan, Reduce, SetBy},
        wish::EffectWish,
    },
    Against, Faults,
};

/// Of a fraction like accuracy: one point.
const FRACTION_CAP: f64 = 0.01;
/// Of a fraction like accuracy: a fifth of the control's error.
const ERROR_SHARE_CAP: f64 = 0.2;
/// Of a loss: 1 % of what there is to gain.
const LOSS_SHARE_CAP: f64 = 0.01;
/// As a ratio: 2 %.
const RATIO_CAP: f64 = 1.02;
/// Of steps to a threshold: 10 %.
const STEPS_SHARE_CAP: f64 = 0.1;

/// The largest Δ that a planner may set, where METHOD has a cap.
fn cap(plan: &Plan, control: Option<f64>) -> Option<f64> {
    let metric = &plan.metric;
    if let Reduce::StepsTo { horizon, .. } = plan.reduce {
        return Some(STEPS_SHARE_CAP * f64::from(horizon));
    }
    if metric.scale == MetricScale::Log {
        return Some(RATIO_CAP);
    }
    if metric.unit == "fraction" {
        let error = control.map_or(1.0, |value| match metric.better {
            Better::Higher => 1.0 - value,
            Better::Lower => value,
        });
        let least = plan.split_sizes.map_or(0.0, |sizes| 1.0 / f64::from(sizes.test.max(1)));
        return Some(FRACTION_CAP.min(ERROR_SHARE_CAP * error).max(least));
    }
    match metric.better {
        // Without a known control, what there is to gain is at most the way from trivial to the best value.
        Better::Lower => {
            let gain = metric.trivial - control.unwrap_or(metric.lowest.unwrap_or(0.0));
            (gain > 0.0).then_some(LOSS_SHARE_CAP * gain)
        }
        Better::Higher => None,
    }
}

/// Whether the data set's table speaks of this number: of the metric itself, not of a slope or of steps.
fn table(plan: &Plan, against: &Against<'_>) -> Option<f64> {
    let direct = !matches!(
        plan.reduce,
        Reduce::StepsTo { .. } | Reduce::SlopeOver { .. } | Reduce::GapToBestOver { .. }
    );
    let info = against.workers.data_sets.iter().find(|d| d.name == plan.data_set)?;
    let fraction = plan.metric.unit == "fraction" && plan.metric.better == Better::Higher;
    info.smallest_effect.filter(|_| direct && (fraction || plan.smallest_effect.set_by == SetBy::Table))
}

pub(super) fn settle(plan: &mut Plan, against: &Against<'_>, faults: &mut Faults, notes: &mut Vec<String>) {
    let asked = plan.smallest_effect.value;
    faults.unless(
        asked.is_finite() && asked > 0.0,
        "smallest_effect.value",
        "finite and over 0, in the metric's unit",
    );
    if plan.metric.scale == MetricScale::Log {
        faults.unless(
            asked > 1.0,
            "smallest_effect.value",
            "a ratio over 1 where metric.scale is log, like 1.02",
        );
    }
    if let Some(text) = &against.wishes.smallest_effect {
        match text.parse::<EffectWish>().map_err(|e| e.to_string()) {
            Ok(wish) => match wish.apply(&plan.metric, against.known.control) {
                Ok(value) => {
                    plan.smallest_effect.value = value;
                    plan.smallest_effect.set_by = SetBy::User;
                    plan.smallest_effect.why = format!("the user asked for {wish}");
                }
                Err(error) => faults.add("metric.unit", format!("--smallest-effect {wish}: {error}")),
            },
            Err(error) => faults.add("smallest_effect", error),
        }
        return;
    }
    if let Some(value) = table(plan, against) {
        if value != asked {
            notes.push(format!(
                "The smallest effect of interest is the data set's own, {value}, and not {asked}."
            ));
        }
        plan.smallest_effect.value = value;
        plan.smallest_effect.set_by = SetBy::Table;
        return;
    }
    plan.smallest_effect.set_by = SetBy::Model;
    if let Some(cap) = cap(plan, against.known.control).filter(|cap| asked > *cap) {
        notes.push(format!(
            "The planner's smallest effect of interest, {asked}, is over the cap and was set to it: {cap}."
        ));
        plan.smallest_effect.value = cap;
    }
}
