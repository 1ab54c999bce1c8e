//! Stability as sensitivity to the learning rate (METHOD §2.2, §7): for each seed, how far the loss lies above that
//! seed's best, on average over the rates. The learning rate is a factor here and is not tuned; a run that diverges
//! counts at the loss of an untrained network and is a result, so the experiment is confirmatory from the start.

use super::super::super::plan::{Claim, Contrast, Kind, Plan, Predicts, Reduce, Role, SmallestEffect};
use super::super::super::researcher::{ClosedExperiment, Planned};
use super::super::catalogue::Expected;

use super::super::program::Setting;
use super::draft::{learning_rates, sentence, weight};
use super::{Case, finished, found_difference};

/// Seeds for each arm; every one of them is trained at every rate.
const LOOKS: &[u32] = &[5];

/// The next experiment about stability.
pub fn next(case: &Case<'_>, smallest_effect: SmallestEffect) -> Planned {
    if case.context.confirmatory_left == 0 {
        return finished("every confirmatory experiment that the campaign's error pays for has been made");
    }
    let confirmed: Vec<&ClosedExperiment> = case.closed(Role::Confirmatory).collect();
    let subject = case.topic.entry.name;
    let Some(last) = confirmed.last() else {
        let Some(mut plan) = experiment(case, smallest_effect, &[]) else {
            return finished("the budget does not cover five seeds at three learning rates in each arm");
        };
        plan.title = sentence(&format!("{subject}: sensitivity to the learning rate"));
        plan.rationale = format!(
            "A method is stable where its result hardly depends on the learning rate, so the rate is a factor and is not \
             tuned; runs that fail at high rates are what is measured and count at the loss of an untrained network. \
             {}{}",
            "Both arms see the same rates, seeds, text and steps",
            reason(case)
        );
        return Planned::Experiment(Box::new(plan));
    };
    let Some(follow) = case.follow_up(&confirmed) else {
        return finished(
            "the catalogue has nothing more to ask about this question that follows from the last result",
        );
    };
    let Some(mut plan) = experiment(case, smallest_effect, &[follow.change]) else {
        return finished(
            "what is left of the budget does not cover a follow-up with enough seeds for a verdict",
        );
    };
    let (name, value) = follow.change;
    plan.title =
        sentence(&format!("{subject}: sensitivity to the learning rate at {name} {}", value.scalar()));
    let result = if found_difference(last) {
        "found a difference"
    } else {
        "found no difference that it could be sure of"
    };
    plan.rationale = format!("{} {result}. This asks {}; all else is as before.", last.id, follow.to_learn);
    Planned::Experiment(Box::new(plan))
}

fn reason(case: &Case<'_>) -> String {
    match case.topic.expected {
        Expected::Worse if case.topic.design.expected == Expected::Worse => {
            format!(". Less stable is expected to be the second, because {}.", case.topic.design.because)
        }
        _ => ".".to_owned(),
    }
}

/// As many rates as the budget allows; a follow-up takes every second one, which covers the same range.
fn experiment(case: &Case<'_>, smallest_effect: SmallestEffect, changes: &[Setting]) -> Option<Plan> {
    let mut plan = case.draft(Role::Confirmatory, smallest_effect, changes);
    plan.kind = Kind::Stability;
    plan.fixed_params.retain(|param| param.name != "lr");
    plan.control = Some("c1".to_owned());
    plan.reduce = Reduce::GapToBestOver { factor: "lr".to_owned() };
    (plan.contrasts, plan.claims) = claims(case);
    plan.expects_failure = (1..=case.topic.levels.len()).map(|cell| format!("c{cell}")).collect();
    let (low, high) = case.program.wide_rungs;
    let all: Vec<i32> = (low..=high).collect();
    let every_second: Vec<i32> = all.iter().copied().step_by(2).collect();
    let grids = if changes.is_empty() { vec![all, every_second] } else { vec![every_second] };
    for (index, rungs) in grids.iter().enumerate() {
        plan.factors = vec![case.factor(), learning_rates(rungs.iter().copied())];
        let variants = plan.variants().len() as u32;
        let last_chance = index + 1 == grids.len();
        if !last_chance && !case.fits(variants, case.context.wishes.seeds.unwrap_or(LOOKS[0])) {
            continue;
        }
        plan.looks = case.looks(variants, LOOKS)?;
        plan.conditions = format!(
            "{}; {} learning rates from {} to {}. It covers no other data, model or length of training.",
            case.setting(&plan),
            rungs.len(),
            super::super::program::learning_rate(rungs[0]),
            super::super::program::learning_rate(rungs[rungs.len() - 1]),
        );
        return Some(plan);
    }
    None
}

/// A larger gap is a less stable arm. Where the table says what is expected of the result, the same is expected of
/// stability.
fn claims(case: &Case<'_>) -> (Vec<Contrast>, Vec<Claim>) {
    let levels = &case.topic.levels;
    let (predicts, word) = match case.topic.expected {
        Expected::Better => (Predicts::Decrease, "less"),
        Expected::Worse => (Predicts::Increase, "more"),
        Expected::Changed => (Predicts::AnyChange, "differently"),
    };
    let others = levels.iter().enumerate().skip(1);
    others
        .map(|(index, level)| {
            let id = if levels.len() == 2 { "effect".to_owned() } else { format!("effect_{index}") };
            let contrast = Contrast {
                label: format!("{} − {}", level.label, levels[0].label),
                weights: vec![weight(0, -1.0), weight(index, 1.0)],
                primary: true,
                id: id.clone(),
            };
            let claim = Claim {
                contrast: id,
                text: format!(
                    "{}, the test loss of the {} on {} depends {word} on the learning rate than {}",
                    level.label, case.program.model, case.program.data_set, levels[0].label
                ),
                predicts,
                refuted_by:
                    "an interval on the other side of zero, or one inside the smallest effect of interest"
                        .to_owned(),
            };
            (contrast, claim)
        })
        .unzip()
}
