//! The confirmatory experiment: each arm at the learning rate that it chose, on new seeds and the test examples, at
//! registered looks (METHOD §4). The same again elsewhere, with a part of the campaign's error of its own, is the
//! follow-up.

use super::super::super::plan::Resource::TuningTrials;
use super::super::super::plan::{
    Adjustment, Claim, Contrast, HeldEqual, Kind, Param, Plan, Role, SmallestEffect,
};
use super::super::super::researcher::{ClosedExperiment, Planned};
use super::super::catalogue::{Expected, Sort};
use super::super::program::{better, learning_rate};
use super::draft::{learning_rates, predicts, sentence, weight};
use super::explore::{arms, at_an_edge, choices, rate_param};
use super::{Case, effect, finished, found_difference};

/// Looks of a confirmatory experiment where the user does not say otherwise (METHOD §4).
const LOOKS: &[u32] = &[5, 10];
/// Rungs from the centre to each end, where the learning rate itself is asked about: a factor of ten.
const REACH: i32 = 2;

/// What each arm is given as its learning rate, and what is to be said of it.
struct Rates {
    rungs: Vec<i32>,
    /// For "holds under".
    note: String,
    tuned: bool,
}

/// The first confirmation.
pub fn first(case: &Case<'_>, explored: &[&ClosedExperiment], smallest_effect: SmallestEffect) -> Planned {
    let Some(mut plan) = confirmation(case, explored, smallest_effect, &[]) else {
        return finished(
            "what is left of the budget does not cover a confirmatory experiment with enough seeds for a verdict",
        );
    };
    plan.title = sentence(&format!("{}: new seeds, test examples", case.topic.entry.name));
    plan.rationale = match explored {
        [] => {
            "With a single experiment to make, it is confirmatory, and the learning rate is not tuned: both arms use the \
             program's usual one, so the answer is about that rate. "
        }
        _ => {
            "The learning rates come from validation examples and other seeds, so nothing that is measured here had a \
             part in choosing them. "
        }
    }
    .to_owned()
        + &expectation(case);
    Planned::Experiment(Box::new(plan))
}

/// The same elsewhere.
pub fn again(
    case: &Case<'_>,
    explored: &[&ClosedExperiment],
    confirmed: &[&ClosedExperiment],
    smallest_effect: SmallestEffect,
) -> Planned {
    let Some(follow) = case.follow_up(confirmed) else {
        return finished(
            "the catalogue has nothing more to ask about this question that follows from the last result",
        );
    };
    let last = confirmed[confirmed.len() - 1];
    let Some(mut plan) = confirmation(case, explored, smallest_effect, &[follow.change]) else {
        return finished(
            "what is left of the budget does not cover a follow-up with enough seeds for a verdict",
        );
    };
    let (name, value) = follow.change;
    plan.title = sentence(&format!("{} at {name} {}", case.topic.entry.name, value.scalar()));
    let result = if found_difference(last) {
        "found a difference"
    } else {
        "found no difference that it could be sure of"
    };
    plan.rationale = format!(
        "{} {result}. This asks {}; all else is as before, the learning rates too. {}",
        last.id,
        follow.to_learn,
        expectation(case)
    );
    Planned::Experiment(Box::new(plan))
}

fn expectation(case: &Case<'_>) -> String {
    let expected = match case.topic.expected {
        _ if case.topic.kind == Kind::Equivalence => {
            return "The question asks whether the two are equivalent, and so does the claim.".to_owned();
        }
        Expected::Better => "a better result",
        Expected::Worse => "a worse result",
        Expected::Changed => "a different result",
    };
    let usual = case.topic.expected == case.topic.design.expected;
    let because = if usual { format!(" because {}", case.topic.design.because) } else { String::new() };
    if case.topic.entry.sort == Sort::LearningRate {
        return format!("Expected is {expected} at the centre than at either end,{because}.")
            .replace(",.", ".");
    }
    format!("Expected is {expected} {}{because}.", case.topic.levels.get(1).map_or("", |level| level.label))
}

fn confirmation(
    case: &Case<'_>,
    explored: &[&ClosedExperiment],
    smallest_effect: SmallestEffect,
    changes: &[super::super::program::Setting],
) -> Option<Plan> {
    let rates = rates(case, explored);
    let mut plan = case.draft(Role::Confirmatory, smallest_effect, changes);
    if case.topic.entry.sort == Sort::LearningRate {
        around(case, &mut plan, rates.rungs[0]);
    } else {
        plan.factors = vec![case.factor()];
        plan.control = Some("c1".to_owned());
        (plan.contrasts, plan.claims) = case.against_control();
        if rates.tuned {
            plan.fixed_params.retain(|param| param.name != "lr");
            let levels = plan.factors[0].levels.iter().zip(&rates.rungs);
            plan.adjusted_params = levels
                .map(|(level, rung)| Adjustment {
                    when: Param { name: case.topic.design.param.to_owned(), value: level.clone() },
                    set: rate_param(*rung),
                })
                .collect();
            plan.held_equal.push(HeldEqual { what: TuningTrials, tolerance: 0.0 });
        }
    }
    let variants = plan.variants().len() as u32;
    plan.looks = case.looks(variants, LOOKS)?;
    let speed = if case.topic.asks_speed {
        " The question asks about speed: the verdict is about the result after a fixed number of steps, and the mean of \
         the validation loss over the steps, beside it, says how fast it got there."
    } else {
        ""
    };
    plan.conditions = format!(
        "{}; {} It covers no other data, model, batch size or length of training.{speed}",
        case.setting(&plan),
        rates.note
    );
    Some(plan)
}

fn rates(case: &Case<'_>, explored: &[&ClosedExperiment]) -> Rates {
    let usual = case.program.default_rung;
    let chosen = choices(case, explored);
    if chosen.iter().all(|(_, rung)| rung.is_none()) {
        let rungs = vec![usual; arms(case) as usize];
        return Rates {
            rungs,
            note: format!("learning rate {}, not tuned.", learning_rate(usual)),
            tuned: false,
        };
    }
    let rungs: Vec<i32> = chosen.iter().map(|(_, rung)| rung.unwrap_or(usual)).collect();
    let mut note = "each arm at the learning rate that it chose on validation examples".to_owned();
    if case.topic.entry.sort == Sort::LearningRate {
        note = "rates around the one that was best on validation examples".to_owned();
    }
    if rungs.iter().any(|rung| at_an_edge(explored, *rung)) {
        note.push_str(", the choice at the edge of what was tried, so a better one may lie beyond");
    }
    note.push('.');
    Rates { rungs, note, tuned: true }
}

/// The learning rate itself: two rungs to each side of the centre, which is compared with both ends.
fn around(case: &Case<'_>, plan: &mut Plan, centre: i32) {
    plan.kind = Kind::Sensitivity;
    plan.fixed_params.retain(|param| param.name != "lr");
    plan.factors = vec![learning_rates(centre - REACH..=centre + REACH)];
    let middle = REACH as usize;
    let metric = effect::metric_of(case.topic);
    let direction = predicts(Expected::Better, better(metric));
    for (id, end, rung) in [("low_end", 0, centre - REACH), ("high_end", 2 * middle, centre + REACH)] {
        let (at, to) = (learning_rate(centre), learning_rate(rung));
        plan.contrasts.push(Contrast {
            id: id.to_owned(),
            label: format!("learning rate {at} − learning rate {to}"),
            weights: vec![weight(middle, 1.0), weight(end, -1.0)],
            primary: true,
        });
        plan.claims.push(Claim {
            contrast: id.to_owned(),
            text: format!("the test {metric} is better at a learning rate of {at} than at {to}"),
            predicts: direction,
            refuted_by:
                "an interval on the other side of zero, or one that rules out the smallest effect of interest"
                    .to_owned(),
        });
    }
}
