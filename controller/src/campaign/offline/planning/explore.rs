//! The exploratory experiment: every arm at several learning rates, on validation examples and few seeds, so that no
//! arm is judged at a rate that was made for the other (METHOD §5, §7). It gives no verdict and spends no error. Where
//! an arm's best rate lies at an edge of the grid the grid is widened for all arms, once.

use super::super::super::plan::{Better, Kind, Param, Plan, Role, Scalar, SmallestEffect};
use super::super::super::researcher::ClosedExperiment;
use super::super::catalogue::Sort;
use super::super::program::{learning_rate, rung_of};
use super::Case;
use super::budget::runs;
use super::draft::{learning_rates, sentence};

/// Seeds of an exploratory experiment.
const SEEDS: u32 = 3;
/// Seeds that the confirmation after it needs at least.
const SEEDS_TO_CONFIRM: u32 = 5;
/// Rates that are added beyond an edge.
const WIDER_BY: i32 = 2;
/// With three sizes of a factor, so many rates keep the experiment at the size of the others.
const RATES_FOR_THREE_ARMS: i32 = 4;

/// The first exploration, or `None` where the budget has room for a confirmation only.
pub fn first(case: &Case<'_>, smallest_effect: SmallestEffect) -> Option<Plan> {
    let (low, high) = grid(case);
    let all: Vec<i32> = (low..=high).collect();
    let every_second: Vec<i32> = all.iter().copied().step_by(2).collect();
    let arms = arms(case);
    // As many rates as the budget allows beside the confirmation.
    let rungs = [all, every_second].into_iter().find(|rungs| {
        let variants = arms * rungs.len() as u32;
        let needed = runs(variants, SEEDS) + runs(arms, SEEDS_TO_CONFIRM);
        case.runs_left().is_none_or(|left| needed <= left)
    })?;
    let mut plan = exploration(case, smallest_effect, &rungs);
    plan.title = if case.topic.entry.sort == Sort::LearningRate {
        sentence(&format!("which learning rates to confirm, on validation examples: {} of them", rungs.len()))
    } else {
        sentence(&format!(
            "a learning rate for each arm of {}, on validation examples",
            case.topic.entry.name
        ))
    };
    plan.rationale = if case.topic.entry.sort == Sort::LearningRate {
        "Where the best rate lies decides which rates are worth a confirmation on new seeds and the test examples."
            .to_owned()
    } else {
        "An arm that is tried only at the other's learning rate is not given a fair chance. Every arm is tried at the \
         same rates with the same seeds, and each goes into the confirmation with the rate that suits it."
            .to_owned()
    };
    Some(plan)
}

/// The same beyond the edge where an arm's best rate lies; `None` where none does.
pub fn wider(case: &Case<'_>, before: &ClosedExperiment, smallest_effect: SmallestEffect) -> Option<Plan> {
    let tried = rungs_of(&before.plan);
    let (low, high) = (*tried.iter().min()?, *tried.iter().max()?);
    let spacing = tried.iter().filter(|rung| **rung > low).min().map_or(1, |next| next - low);
    let chosen: Vec<i32> = choices(case, &[before]).into_iter().filter_map(|(_, rung)| rung).collect();
    let mut rungs: Vec<i32> = Vec::new();
    if chosen.contains(&low) {
        rungs.extend((1..=WIDER_BY).map(|step| low - step * spacing).rev());
    }
    if chosen.contains(&high) {
        rungs.extend((1..=WIDER_BY).map(|step| high + step * spacing));
    }
    let arms = arms(case);
    let needed = runs(arms * rungs.len() as u32, SEEDS) + runs(arms, SEEDS_TO_CONFIRM);
    if rungs.is_empty() || case.runs_left().is_some_and(|left| needed > left) {
        return None;
    }
    let mut plan = exploration(case, smallest_effect, &rungs);
    plan.title = "Learning rates beyond the edge of the first grid, on validation examples".to_owned();
    plan.rationale = format!(
        "In {} the best learning rate lay at the edge of what was tried, so that a better one may lie beyond. The grid is \
         widened for every arm alike.",
        before.id
    );
    Some(plan)
}

fn exploration(case: &Case<'_>, smallest_effect: SmallestEffect, rungs: &[i32]) -> Plan {
    let mut plan = case.draft(Role::Exploratory, smallest_effect, &[]);
    // Estimates only: there is no control to claim anything against.
    plan.kind = Kind::Sensitivity;
    plan.fixed_params.retain(|param| param.name != "lr");
    if case.topic.entry.sort != Sort::LearningRate {
        plan.factors.push(case.factor());
    }
    plan.factors.push(learning_rates(rungs.iter().copied()));
    plan.looks = vec![case.context.wishes.seeds.map_or(SEEDS, |wish| wish.min(SEEDS))];
    plan.conditions = format!(
        "{}; validation examples only, so that the test examples stay unseen. It covers no other data, model or length \
         of training.",
        case.setting(&plan)
    );
    plan
}

fn grid(case: &Case<'_>) -> (i32, i32) {
    if case.topic.entry.sort == Sort::LearningRate {
        return case.program.wide_rungs;
    }
    let (low, high) = case.program.rungs;
    match case.topic.levels.len() {
        // The highest rate goes: it is the one where most runs diverge.
        3 => (low, high.min(low + RATES_FOR_THREE_ARMS - 1)),
        _ => (low, high),
    }
}

/// Arms: levels of the factor that is asked about; one where the rate itself is.
pub fn arms(case: &Case<'_>) -> u32 {
    case.topic.levels.len().max(1) as u32
}

fn rungs_of(plan: &Plan) -> Vec<i32> {
    let rates = plan.factors.iter().filter(|factor| factor.param == "lr").flat_map(|factor| &factor.levels);
    rates.filter_map(Scalar::number).map(rung_of).collect()
}

/// The rung that each arm chose, by the mean of the metric over the seeds, failed runs at their registered value; of
/// two that are the same the lower one. `None` for an arm without any number.
pub fn choices(case: &Case<'_>, explored: &[&ClosedExperiment]) -> Vec<(Scalar, Option<i32>)> {
    let arms: Vec<Scalar> = match case.topic.levels.as_slice() {
        [] => vec![Scalar::Text("all".to_owned())],
        levels => levels.iter().map(|level| level.value.scalar()).collect(),
    };
    arms.into_iter().map(|arm| (arm.clone(), best_rung(case, explored, &arm))).collect()
}

fn best_rung(case: &Case<'_>, explored: &[&ClosedExperiment], arm: &Scalar) -> Option<i32> {
    let mut means: Vec<(i32, f64)> = Vec::new();
    for experiment in explored {
        let higher = experiment.plan.metric.better == Better::Higher;
        for variant in experiment.plan.variants() {
            let own =
                |name: &str| variant.levels.iter().find(|param| param.name == name).map(|param| &param.value);
            let of_arm = case.topic.levels.is_empty() || own(case.topic.design.param) == Some(arm);
            let result = experiment.variants.iter().find(|result| result.variant == variant.id);
            let rate = own("lr").and_then(Scalar::number);
            if let (true, Some(rate), Some(mean)) = (of_arm, rate, result.and_then(|result| result.mean)) {
                means.push((rung_of(rate), if higher { mean } else { -mean }));
            }
        }
    }
    means.sort_by_key(|(rung, _)| *rung);
    let best = means
        .into_iter()
        .filter(|(_, mean)| mean.is_finite())
        .reduce(|best, other| if other.1 > best.1 { other } else { best });
    best.map(|(rung, _)| rung)
}

/// A rung as the parameter that a plan sets.
pub fn rate_param(rung: i32) -> Param {
    Param { name: "lr".to_owned(), value: Scalar::Number(learning_rate(rung)) }
}

/// Whether an arm's choice lies at an edge of all that was tried.
pub fn at_an_edge(explored: &[&ClosedExperiment], rung: i32) -> bool {
    let tried: Vec<i32> = explored.iter().flat_map(|experiment| rungs_of(&experiment.plan)).collect();
    tried.iter().min() == Some(&rung) || tried.iter().max() == Some(&rung)
}
