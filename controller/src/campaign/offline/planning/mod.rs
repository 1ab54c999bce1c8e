//! From a topic and what is known to the next experiment, by rule. Pure: the same context gives the same plan.
//!
//! ```text
//! stability            confirmatory over learning rates ──► the same with a warm-up, at another depth ──► finished
//! everything else      exploratory: learning rates, validation ──► [wider grid, once] ──► confirmatory, new seeds, test
//!                        ──► the same at another width, depth or length ──► finished
//! one iteration only   confirmatory at the program's usual learning rate
//! ```
//!
//! Every plan is made from the registered plans of closed experiments and their means; nothing is kept in between, so
//! a campaign that was picked up after a crash goes on as if it had not stopped.

use super::super::plan::{Kind, Role};
use super::super::researcher::{ClosedExperiment, PlanContext, Planned, ResearchError};
use super::catalogue::{After, FollowUp};
use super::matching::Topic;
use super::program::{TrainingProgram, program};

/// What is left, in runs.
mod budget;
/// The confirmatory experiment, and the same elsewhere.
mod confirm;
/// What all plans have in common.
mod draft;
/// `--smallest-effect` and the data set's table.
mod effect;
/// The exploratory experiment, its wider grid, and what was chosen on it.
mod explore;
/// Sensitivity to the learning rate as the measure of stability.
mod stability;

pub use effect::check as check_smallest_effect;

/// A question, its answerer and what has happened: what every plan is made from.
pub struct Case<'a> {
    /// What is asked.
    pub topic: &'a Topic,
    /// What trains.
    pub program: &'static TrainingProgram,
    /// What is known.
    pub context: &'a PlanContext,
}

impl<'a> Case<'a> {
    fn closed(&self, role: Role) -> impl Iterator<Item = &'a ClosedExperiment> {
        self.context.experiments.iter().filter(move |experiment| experiment.plan.role == role)
    }

    fn iterations_left_after_this(&self) -> u32 {
        self.context.max_iterations.saturating_sub(self.context.iteration)
    }

    /// The findings that the experiment before gave, for `motivated_by`.
    fn motives(&self) -> Vec<String> {
        let Some(last) = self.context.experiments.last() else { return Vec::new() };
        let findings = self.context.findings.iter().filter(|finding| finding.experiment == last.id);
        findings.map(|finding| finding.id.clone()).collect()
    }

    /// The next follow-up that was not tried yet: one that goes with the last verdict, else any.
    fn follow_up(&self, confirmed: &[&ClosedExperiment]) -> Option<&'static FollowUp> {
        let difference = confirmed.last().is_some_and(|experiment| found_difference(experiment));
        let after = if difference { After::Difference } else { After::NoDifference };
        let untried = |follow: &&'static FollowUp| {
            let (name, value) = follow.change;
            let done = confirmed.iter().any(|experiment| {
                experiment.plan.fixed_params.iter().any(|p| p.name == name && p.value == value.scalar())
            });
            !done && name != self.topic.design.param
        };
        self.topic.design.follow_ups.iter().filter(untried).find(|follow| follow.after == after)
    }
}

/// Whether a confirmatory experiment found a difference, whichever way.
fn found_difference(experiment: &ClosedExperiment) -> bool {
    experiment.contrasts.iter().any(|contrast| {
        let outside_zero = match (contrast.low, contrast.high) {
            (Some(low), Some(high)) => low > 0.0 || high < 0.0,
            _ => false,
        };
        outside_zero && contrast.verdict.as_deref() != Some("equivalent")
    })
}

/// The next experiment, or why there is none.
///
/// # Errors
/// [`ResearchError::CannotAnswer`] where a wish cannot be followed.
pub fn next(topic: &Topic, context: &PlanContext) -> Result<Planned, ResearchError> {
    let case = Case { topic, program: program(topic.design.program), context };
    if context.iteration > context.max_iterations {
        return Ok(finished("every iteration that was allowed has been used"));
    }
    let smallest_effect = effect::of(&case)?;
    if topic.kind == Kind::Stability {
        return Ok(stability::next(&case, smallest_effect));
    }
    if context.confirmatory_left == 0 {
        return Ok(finished(
            "every confirmatory experiment that the campaign's error pays for has been made",
        ));
    }
    let explored: Vec<&ClosedExperiment> = case.closed(Role::Exploratory).collect();
    let confirmed: Vec<&ClosedExperiment> = case.closed(Role::Confirmatory).collect();
    if !confirmed.is_empty() {
        return Ok(confirm::again(&case, &explored, &confirmed, smallest_effect));
    }
    if case.iterations_left_after_this() > 0 {
        if explored.is_empty() {
            if let Some(plan) = explore::first(&case, smallest_effect.clone()) {
                return Ok(Planned::Experiment(Box::new(plan)));
            }
        } else if explored.len() == 1
            && let Some(plan) = explore::wider(&case, explored[0], smallest_effect.clone())
        {
            return Ok(Planned::Experiment(Box::new(plan)));
        }
    }
    Ok(confirm::first(&case, &explored, smallest_effect))
}

fn finished(reason: &str) -> Planned {
    Planned::Finished { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
