//! Checks that the program makes by itself (METHOD §5): what was held equal is measured from the runs, seeds act, and
//! something was learnt. Each gives a sentence for the report; none changes a verdict except through a gate.

use crate::stats::Observed;

use super::{
    super::{
        plan::{Better, Reduce, Resource, Split},
        record::ExperimentRecord,
    },
    arms::Arms,
    delta,
    observe::Seen,
    sentences::{amount, quantity},
};

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Every remark about an experiment's runs.
#[must_use]
pub fn notes(record: &ExperimentRecord, arms: &Arms) -> Vec<String> {
    let mut notes = Vec::new();
    held_equal(record, arms, &mut notes);
    seeds_act(arms, &mut notes);
    learnt(record, arms, &mut notes);
    lost(record, &mut notes);
    if record.plan.split_sizes.is_none() && record.plan.metric.split == Split::Test {
        notes.push("On this one split: the seeds do not vary which examples are for the test.".to_owned());
    }
    notes.push("The metric is logged by the generated program itself (self-reported).".to_owned());
    notes
}

/// The measured amount of a resource in each run of a variant.
fn measured(record: &ExperimentRecord, variant: &str, what: Resource) -> Vec<f64> {
    let runs = record.analysed();
    let of_variant = runs.iter().filter(|((v, _), _)| v == variant).map(|(_, run)| *run);
    of_variant
        .filter_map(|run| match what {
            Resource::Steps => run.series.values().flatten().map(|l| l.step).max().map(|step| step as f64),
            Resource::WallTime => run.seconds(),
            Resource::Parameters => run.series.get("parameters")?.last().map(|l| l.value),
            Resource::Examples => run.series.get("examples")?.last().map(|l| l.value),
            Resource::Flops => run.series.get("flops")?.last().map(|l| l.value),
            Resource::TuningTrials => None,
        })
        .filter(|value| value.is_finite())
        .collect()
}

fn words(what: Resource) -> &'static str {
    match what {
        Resource::Steps => "steps",
        Resource::Examples => "examples",
        Resource::Parameters => "parameters",
        Resource::Flops => "FLOPs",
        Resource::WallTime => "wall-clock time",
        Resource::TuningTrials => "tuning trials",
    }
}

fn held_equal(record: &ExperimentRecord, arms: &Arms, notes: &mut Vec<String>) {
    for held in &record.plan.held_equal {
        let name = words(held.what);
        let means: Vec<f64> =
            arms.taken.keys().filter_map(|variant| mean(&measured(record, variant, held.what))).collect();
        if means.len() < 2 {
            notes.push(format!("Equal {name} were registered and could not be measured from the runs."));
            continue;
        }
        let low = means.iter().copied().fold(f64::INFINITY, f64::min);
        let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let apart = if high == 0.0 { 0.0 } else { (high - low) / high.abs() };
        if apart > held.tolerance {
            let tolerance = 100.0 * held.tolerance;
            notes.push(format!(
                "Not at equal {name}: {low} to {high}, more than the registered {tolerance} % apart."
            ));
        }
    }
}

fn seeds_act(arms: &Arms, notes: &mut Vec<String>) {
    for (variant, seeds) in &arms.taken {
        let values: Vec<f64> = seeds
            .values()
            .filter_map(|taken| match taken.seen {
                Seen::Data(Observed::Value(value)) => Some(value),
                _ => None,
            })
            .collect();
        if values.len() >= 3 && values.iter().all(|v| *v == values[0]) {
            notes.push(format!(
                "All {} seeds of {variant} gave the same value: the seeds may do nothing.",
                values.len()
            ));
        }
    }
}

/// Control (or the best cell, where there is none) against the trivial value: a floor or ceiling hides any effect.
fn learnt(record: &ExperimentRecord, arms: &Arms, notes: &mut Vec<String>) {
    let plan = &record.plan;
    if !matches!(plan.reduce, Reduce::Final | Reduce::MeanLast { .. } | Reduce::AtBestValidation { .. }) {
        return;
    }
    let cell_mean = |cell: &str| {
        let observed: Vec<Observed> = arms.cells.get(cell)?.values().copied().collect();
        mean(&super::filled(&observed, plan))
    };
    let best = match &plan.control {
        Some(control) => cell_mean(control),
        None => {
            let means = record.cells().into_iter().filter_map(|cell| cell_mean(&cell.id));
            means.reduce(|a, b| if (plan.metric.better == Better::Higher) == (a > b) { a } else { b })
        }
    };
    let Some(value) = best else { return };
    let gain = match plan.metric.better {
        Better::Higher => value - plan.metric.trivial,
        Better::Lower => plan.metric.trivial - value,
    };
    if gain <= delta(plan) {
        let (value, trivial) = (quantity(value, &plan.metric), quantity(plan.metric.trivial, &plan.metric));
        let margin = amount(plan.smallest_effect.value, &plan.metric);
        notes.push(format!(
            "Nothing was learnt: the control's {value} is not better than trivial ({trivial}) by more than {margin}, so a \
             floor or ceiling would hide any effect."
        ));
    }
}

fn lost(record: &ExperimentRecord, notes: &mut Vec<String>) {
    let lost: Vec<(String, usize)> =
        record.plan.variants().into_iter().map(|v| (v.id.clone(), record.lost(&v.id))).collect();
    let most = lost.iter().map(|(_, n)| *n).max().unwrap_or(0);
    let least = lost.iter().map(|(_, n)| *n).min().unwrap_or(0);
    if most > least + 2 {
        let each: Vec<String> = lost.iter().map(|(variant, n)| format!("{variant}: {n}")).collect();
        notes.push(format!(
            "Runs were lost unevenly ({}): what was lost may depend on the variant.",
            each.join(", ")
        ));
    }
}
