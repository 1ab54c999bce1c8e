//! One run to one number by the registered rule, or to "failed", or to "not there" (METHOD §2.5). Runs are left out only
//! for causes that cannot depend on the variant.

use proto::v1::OutcomeKind;

use crate::stats::{self, Observed, Point, ReduceError};

use super::super::{
    plan::{Plan, Reduce, Resource},
    record::{Logged, RunRecord},
};

/// What a run is to the analysis.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// Data: a number, or a failure that counts.
    Data(Observed),
    /// Missing for a cause that cannot depend on the variant: lost, cancelled.
    Missing,
    /// Says nothing about the variant: the variant is void unless the run is made again.
    Void(String),
}

/// Whether running out of time is an answer and not an accident.
#[must_use]
pub fn time_is_the_question(plan: &Plan) -> bool {
    matches!(plan.reduce, Reduce::StepsTo { .. })
        || plan.held_equal.iter().any(|h| h.what == Resource::WallTime)
}

fn points(series: Option<&Vec<Logged>>) -> Vec<Point> {
    series.into_iter().flatten().map(|l| Point { step: l.step, value: l.value }).collect()
}

/// A run's one number. Where the plan reduces over a factor, this is the run's last value.
///
/// # Errors
/// [`ReduceError`] where the series has no such number.
pub fn number(plan: &Plan, run: &RunRecord) -> Result<f64, ReduceError> {
    let series = points(run.series.get(&plan.metric.name));
    let better = super::better(plan.metric.better);
    match &plan.reduce {
        Reduce::Final | Reduce::GapToBestOver { .. } | Reduce::SlopeOver { .. } => {
            stats::reduce::final_value(&series)
        }
        Reduce::MeanLast { count } => stats::reduce::mean_last(&series, *count as usize),
        Reduce::AtBestValidation { validation_metric, better } => {
            let validation = points(run.series.get(validation_metric));
            stats::reduce::at_best_validation(&series, &validation, super::better(*better))
        }
        Reduce::Area => stats::reduce::area(&series),
        Reduce::StepsTo { threshold, sustain, horizon } => {
            let wanted = stats::reduce::Threshold {
                value: *threshold,
                better,
                sustain: *sustain as usize,
                horizon: u64::from(*horizon),
            };
            stats::reduce::steps_to(&series, wanted).map(|reached| reached.steps as f64)
        }
    }
}

/// What a full run is to the analysis. `out_of_memory` of every seed of a variant is for [`super::arms::gate`].
#[must_use]
pub fn seen(plan: &Plan, run: &RunRecord) -> Seen {
    use OutcomeKind as K;
    let because = || format!("{}: {}", super::super::record::outcome_word(run.kind()), run.outcome.message);
    match run.kind() {
        K::Succeeded => match number(plan, run) {
            Ok(value) if value.is_finite() => Seen::Data(Observed::Value(value)),
            // A value that is not finite where the rule looks is a divergence that no rule caught on the way.
            Ok(_) | Err(ReduceError::NotFinite { .. }) => Seen::Data(Observed::Failed),
            Err(error) => Seen::Void(format!("{}: {error}", plan.metric.name)),
        },
        K::Diverged | K::OutOfMemory | K::GpuOutOfMemory => Seen::Data(Observed::Failed),
        K::TimedOut | K::Stalled if time_is_the_question(plan) => Seen::Data(Observed::Failed),
        K::Lost | K::Cancelled | K::Unspecified => Seen::Missing,
        K::TimedOut
        | K::Stalled
        | K::Failed
        | K::MissingMetrics
        | K::LimitExceeded
        | K::DependencyConflict
        | K::Rejected => Seen::Void(because()),
    }
}
