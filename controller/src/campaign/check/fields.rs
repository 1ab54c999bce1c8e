//! Fields that stand alone: texts, metric, reduction, failures, limits.

use std::collections::BTreeSet;

use kit::{
    name::check_metric,
    requirement::{REQUIREMENTS_MAX, check_requirement},
};

use super::{
    super::plan::{Better, Kind, MetricScale, Plan, Reduce, Role, Source, Split},
    Against, Faults,
};

const STEPS_MAX: u32 = 10_000_000;
const TOLERANCE_MAX: f64 = 0.5;
const SECONDARY_MAX: usize = 5;

pub(super) fn texts(plan: &Plan, faults: &mut Faults) {
    let mut text = |field: &str, text: &str, most: usize| {
        let length = text.trim().chars().count();
        faults.unless((1..=most).contains(&length), field, format!("1 to {most} characters"));
    };
    text("title", &plan.title, 200);
    text("rationale", &plan.rationale, 4000);
    text("conditions", &plan.conditions, 2000);
    text("smallest_effect.why", &plan.smallest_effect.why, 1000);
}

/// What may be asked of an index; the same rule as the worker's.
pub(super) fn packages(plan: &Plan, faults: &mut Faults) {
    let most = REQUIREMENTS_MAX;
    faults.unless(plan.packages.len() <= most, "packages", format!("at most {most}"));
    for (index, text) in plan.packages.iter().enumerate().take(most) {
        if let Err(error) = check_requirement(text) {
            faults.add(format!("packages[{index}]"), error.to_string());
        }
    }
}

/// A name that says which way is good; a loss declared as "higher" turns every verdict round (METHOD §6, trap 14).
fn direction(name: &str) -> Option<Better> {
    let parts: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let has = |words: &[&str]| parts.iter().any(|part| words.contains(&part.to_ascii_lowercase().as_str()));
    if has(&["loss", "error", "err", "perplexity", "ppl", "nll", "mse", "rmse", "mae", "bpb", "bpc"]) {
        Some(Better::Lower)
    } else if has(&["accuracy", "acc", "f1", "auc", "auroc", "precision", "recall", "r2", "bleu"]) {
        Some(Better::Higher)
    } else {
        None
    }
}

pub(super) fn metric(plan: &Plan, faults: &mut Faults) {
    let metric = &plan.metric;
    if let Err(error) = check_metric(&metric.name) {
        faults.add("metric.name", error.to_string());
    }
    faults.unless((1..=32).contains(&metric.unit.chars().count()), "metric.unit", "1 to 32 characters");
    for (field, end) in [("metric.lowest", metric.lowest), ("metric.highest", metric.highest)] {
        faults.unless(end.is_none_or(f64::is_finite), field, "must be finite or null");
    }
    faults.unless(metric.trivial.is_finite(), "metric.trivial", "must be finite");
    let lowest = metric.lowest.unwrap_or(f64::NEG_INFINITY);
    let highest = metric.highest.unwrap_or(f64::INFINITY);
    faults.unless(lowest < highest, "metric.lowest", "must be under metric.highest");
    faults.unless(
        (lowest..=highest).contains(&metric.trivial),
        "metric.trivial",
        format!("{} is outside the metric's range", metric.trivial),
    );
    let best = match metric.better {
        Better::Higher => highest,
        Better::Lower => lowest,
    };
    faults.unless(
        metric.trivial != best,
        "metric.trivial",
        "is the best possible value: nothing could be learnt",
    );
    if metric.unit == "fraction" {
        faults.unless(
            lowest >= 0.0 && highest <= 1.0,
            "metric.unit",
            "a fraction has lowest 0 and highest 1",
        );
    }
    if let Some(known) = direction(&metric.name).filter(|known| *known != metric.better) {
        let way = if known == Better::Higher { "higher" } else { "lower" };
        faults.add("metric.better", format!("`{}` is better when it is {way}", metric.name));
    }
    if metric.scale == MetricScale::Log {
        let over_zero = metric.lowest.is_some_and(|l| l >= 0.0) && metric.trivial > 0.0;
        faults.unless(over_zero, "metric.scale", "log only where every value is over 0: set metric.lowest");
        faults.unless(
            plan.failed_runs_count_as > 0.0,
            "failed_runs_count_as",
            "over 0 where metric.scale is log",
        );
    }
    faults.unless(
        metric.source == Source::Logged,
        "metric.source",
        "only `logged` can be had: predictions are not scored outside the sandbox yet, and usage is no metric",
    );
    match plan.role {
        Role::Exploratory => faults.unless(
            metric.split != Split::Test,
            "metric.split",
            "an exploratory experiment does not read the test examples: validation or train",
        ),
        Role::Confirmatory => faults.unless(
            metric.split == Split::Test || plan.kind == Kind::Stability,
            "metric.split",
            "a confirmatory experiment is decided on the test examples",
        ),
    }
}

pub(super) fn reduce(plan: &Plan, faults: &mut Faults) {
    one_reduce(plan, &plan.reduce, &plan.metric.name, plan.metric.split, "reduce", faults);
}

fn one_reduce(plan: &Plan, reduce: &Reduce, metric: &str, split: Split, at: &str, faults: &mut Faults) {
    match reduce {
        Reduce::Final | Reduce::Area | Reduce::GapToBestOver { .. } | Reduce::SlopeOver { .. } => {}
        Reduce::MeanLast { count } => {
            faults.unless((1..=1000).contains(count), format!("{at}.count"), "1 to 1000");
        }
        Reduce::AtBestValidation { validation_metric, .. } => {
            let field = format!("{at}.validation_metric");
            if let Err(error) = check_metric(validation_metric) {
                faults.add(&field, error.to_string());
            }
            // Best over steps on what is then reported is the maximum of noise (METHOD §6, trap 10).
            let peeks =
                validation_metric == metric || validation_metric.to_ascii_lowercase().contains("test");
            faults.unless(
                !(peeks && split == Split::Test),
                field,
                "the best step may not be chosen by a test metric: name one on the validation examples",
            );
        }
        Reduce::StepsTo { threshold, sustain, horizon } => {
            faults.unless(threshold.is_finite(), format!("{at}.threshold"), "must be finite");
            faults.unless((1..=1000).contains(sustain), format!("{at}.sustain"), "1 to 1000");
            faults.unless(
                (1..=plan.limits.steps).contains(horizon),
                format!("{at}.horizon"),
                format!("1 to limits.steps ({})", plan.limits.steps),
            );
        }
    }
}

pub(super) fn secondary(plan: &Plan, faults: &mut Faults) {
    faults.unless(plan.secondary.len() <= SECONDARY_MAX, "secondary", "at most 5");
    for (index, second) in plan.secondary.iter().enumerate() {
        let at = format!("secondary[{index}]");
        if let Err(error) = check_metric(&second.metric) {
            faults.add(format!("{at}.metric"), error.to_string());
        }
        // Which examples a secondary metric is from is only in its name.
        let split = if second.metric.contains("test") { Split::Test } else { Split::Validation };
        one_reduce(plan, &second.reduce, &second.metric, split, &format!("{at}.reduce"), faults);
        if let Some(over) = second.reduce.over() {
            faults.unless(
                plan.reduce.over() == Some(over),
                format!("{at}.reduce"),
                "may reduce over a factor only where the plan's own reduce does",
            );
        }
    }
}

pub(super) fn held_equal(plan: &Plan, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for (index, held) in plan.held_equal.iter().enumerate() {
        let at = format!("held_equal[{index}]");
        faults.unless(
            (0.0..=TOLERANCE_MAX).contains(&held.tolerance),
            format!("{at}.tolerance"),
            "0 to 0.5; 0.02 is 2 %",
        );
        faults.unless(seen.insert(format!("{:?}", held.what)), format!("{at}.what"), "named twice");
    }
}

pub(super) fn failures(plan: &Plan, faults: &mut Faults) {
    let metric = &plan.metric;
    let worst = match metric.better {
        Better::Higher => metric.lowest,
        Better::Lower => metric.highest,
    };
    let horizon = match plan.reduce {
        Reduce::StepsTo { horizon, .. } => Some(f64::from(horizon)),
        _ => None,
    };
    let value = plan.failed_runs_count_as;
    let registered = value == metric.trivial || Some(value) == worst || Some(value) == horizon;
    faults.unless(
        value.is_finite() && registered,
        "failed_runs_count_as",
        "metric.trivial, or the bad end of the metric's range (the horizon for steps_to): never a chosen number",
    );
    for (index, name) in plan.diverged_when.metrics.iter().enumerate() {
        if let Err(error) = check_metric(name) {
            faults.add(format!("diverged_when.metrics[{index}]"), error.to_string());
        }
    }
    if let Some(rule) = &plan.diverged_when.worse_than_trivial {
        let at = "diverged_when.worse_than_trivial";
        faults.unless(
            rule.factor.is_finite() && rule.factor > 1.0,
            format!("{at}.factor"),
            "finite and over 1",
        );
        faults.unless((1..=10_000).contains(&rule.values), format!("{at}.values"), "1 to 10000");
    }
}

pub(super) fn limits(plan: &Plan, against: &Against<'_>, faults: &mut Faults) {
    let limits = &plan.limits;
    faults.unless((1..=STEPS_MAX).contains(&limits.steps), "limits.steps", format!("1 to {STEPS_MAX}"));
    let longest = if against.longest_seconds == 0 { u32::MAX } else { against.longest_seconds };
    faults.unless(
        (1..=longest).contains(&limits.time_seconds),
        "limits.time_seconds",
        format!("1 to {longest} s, the workers' largest"),
    );
    if let Some(mib) = limits.memory_mib {
        let largest = if against.largest_memory == 0 { u64::MAX } else { against.largest_memory };
        faults.unless(
            mib >= 64 && u64::from(mib) << 20 <= largest,
            "limits.memory_mib",
            format!("64 to {} MiB, a slot's share; null for all of it", largest >> 20),
        );
    }
}
