//! What earlier experiments tell about a plan: the control's value for a cap, the spread for a design, the time of a run
//! for a budget. Never from the experiment that is being planned (METHOD §3.3).

use crate::stats::{self, Aim, Layout, Method};

use super::{
    analyst::{self, sentences},
    check::Known,
    closed::closed,
    plan::{Kind, Plan, Reduce, Role},
    record::{ExperimentRecord, Standing},
};

/// The last closed experiment that measured the same kind of thing on the same data.
fn alike<'a>(
    experiments: impl DoubleEndedIterator<Item = &'a ExperimentRecord>,
    plan: &Plan,
) -> Option<&'a ExperimentRecord> {
    experiments.rev().find(|e| {
        let other = &e.plan;
        e.standing == Standing::Closed
            && other.data_set == plan.data_set
            && other.metric.unit == plan.metric.unit
            && other.metric.better == plan.metric.better
    })
}

fn per_sigma(method: Method, n: f64) -> f64 {
    match method {
        Method::Welch => 2.0 / n,
        Method::Paired => 1.0 / n,
        Method::PairedCorrected { train, test } => 1.0 / n + test as f64 / train as f64,
    }
}

/// What is known before a plan is registered.
#[must_use]
pub fn known(record: &super::record::Record, plan: &Plan) -> Known {
    let Some(earlier) = alike(record.experiments.iter(), plan) else { return Known::default() };
    let Some(result) = closed(earlier) else { return Known::default() };
    let direct = |reduce: &Reduce| {
        matches!(reduce, Reduce::Final | Reduce::MeanLast { .. } | Reduce::AtBestValidation { .. })
    };
    let control = earlier.plan.control.as_ref().and_then(|control| {
        let means: Vec<f64> =
            result.variants.iter().filter(|v| v.cell == *control).filter_map(|v| v.mean).collect();
        let best = |a: f64, b: f64| {
            if (earlier.plan.metric.better == super::plan::Better::Higher) == (a > b) { a } else { b }
        };
        means.into_iter().reduce(best)
    });
    let deviation = earlier
        .looks
        .last()
        .and_then(|look| look.contrasts.iter().find_map(|c| c.judgement.estimate.as_ref()))
        .filter(|_| std::mem::discriminant(&earlier.plan.reduce) == std::mem::discriminant(&plan.reduce))
        .and_then(|estimate| {
            let n = *estimate.n.iter().min()?;
            let sigma = estimate.standard_error / per_sigma(estimate.method, n as f64).sqrt();
            Some((sigma, u32::try_from(n).ok()?))
        });
    let times: Vec<f64> = result.variants.iter().filter_map(|v| v.seconds).collect();
    let longer = f64::from(plan.limits.steps) / f64::from(earlier.plan.limits.steps.max(1));
    let seconds =
        (!times.is_empty()).then(|| longer.max(1.0) * times.iter().sum::<f64>() / times.len() as f64);
    Known { control: control.filter(|_| direct(&earlier.plan.reduce)), deviation, seconds }
}

/// Whether the design can find the smallest effect of interest (METHOD §3.2), where the spread is known.
#[must_use]
pub fn design_note(plan: &Plan, known: Known, alpha: f64) -> Option<String> {
    let (deviation, n) = known.deviation.filter(|_| plan.role == Role::Confirmatory)?;
    let sigma = stats::spread_upper_limit(deviation, n as usize)?;
    let layout = match analyst::pairing(plan) {
        stats::Pairing::None => Layout::Independent,
        stats::Pairing::Seed => Layout::Paired,
        stats::Pairing::SeedDrawsSplit(sizes) => {
            Layout::PairedCorrected { test_over_train: sizes.test as f64 / sizes.train as f64 }
        }
    };
    let primary = plan.contrasts.iter().filter(|c| c.primary).count().max(1);
    let aim = if plan.kind == Kind::Equivalence { Aim::Equivalence } else { Aim::Effect };
    let found = stats::detectable(aim, layout, &plan.looks, alpha / primary as f64).ok()? * sigma;
    let delta = analyst::delta(plan);
    (found.is_finite() && found > delta).then(|| {
        let (shown, unit) = sentences::shown(found, &plan.metric, &plan.reduce);
        let margin = sentences::margin(plan);
        let last = plan.looks.last().copied().unwrap_or(0);
        format!(
            "With {last} seeds this design finds effects of about {} {unit} and more (80 % chance, with the spread of an \
             earlier experiment), which is more than the smallest effect of interest, {margin}: an inconclusive result is \
             likely where the true effect is smaller.",
            sentences::number(shown)
        )
    })
}
