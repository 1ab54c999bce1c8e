//! Sentences about results. Every number in them stands in a ruling, which the program wrote from its own arithmetic;
//! nothing is calculated here.

use super::super::plan::{Kind, Role, Source, Stream};
use super::super::researcher::{Decision, InterpretContext, Interpretation, Planned};

/// What a closed experiment says, and what may be wrong with it.
pub fn interpretation(context: &InterpretContext) -> Interpretation {
    let experiment = &context.experiment;
    let plan = &experiment.plan;
    let id = &experiment.id;
    let verdicts: Vec<&str> =
        experiment.contrasts.iter().filter_map(|contrast| contrast.verdict.as_deref()).collect();
    let meaning = match (plan.role, verdicts.as_slice()) {
        (Role::Exploratory, _) => {
            "It was made to choose settings on validation examples, so nothing is claimed from it; what was chosen is \
             tested on new seeds."
                .to_owned()
        }
        (_, []) => "It gives no verdict, so the question stays open.".to_owned(),
        (_, [one]) => verdict_means(one).to_owned(),
        (_, several) if several.iter().all(|verdict| verdict == &several[0]) => {
            format!("For every comparison in it: {}", verdict_means(several[0]))
        }
        _ => "Its comparisons ended differently, so the answer depends on which one is asked about.".to_owned(),
    };
    let mut text = format!("{id} ({}). {meaning}", plan.title);
    if let Some(ruling) = context.rulings.first() {
        text.push_str(&format!(" By rule: {ruling}"));
    }
    if context.faults.is_empty() {
        return Interpretation { text, threats: threats(context) };
    }
    // A ruling's number that the check does not know is not ours to argue about: the sentence without it stands.
    Interpretation { text: format!("{id} ({}). {meaning}", plan.title), threats: threats(context) }
}

fn verdict_means(verdict: &str) -> &'static str {
    match verdict {
        "supported" => {
            "The seeds bear out what was claimed before they were run, under the conditions named there."
        }
        "refuted" => "The seeds speak against what was claimed before they were run.",
        "equivalent" => {
            "Whatever difference there is lies inside the smallest effect of interest, so for practice the two are the \
             same under these conditions."
        }
        _ => {
            "The seeds do not decide it: both an effect that matters and none are compatible with them. This is not \
             evidence that there is no effect."
        }
    }
}

fn threats(context: &InterpretContext) -> Vec<String> {
    let plan = &context.experiment.plan;
    let mut threats = vec![
        format!(
            "One data set ({}) and one small model: other data and larger models may behave differently.",
            plan.data_set
        ),
        "One length of training: what is behind after few steps may catch up after many.".to_owned(),
    ];
    if plan.metric.source == Source::Logged {
        threats.push(
            "The metric is what the training program reports of itself; it was not scored from outside."
                .to_owned(),
        );
    }
    if plan.replicate.contains(&Stream::Split) {
        threats.push(
            "The splits that the seeds draw come from one pool and overlap, which the interval is corrected for only \
             approximately."
                .to_owned(),
        );
    }
    if plan.kind != Kind::Stability && plan.role == Role::Confirmatory {
        threats.push(if plan.adjusted_params.is_empty() && !plan.factors.iter().any(|f| f.param == "lr") {
            "The learning rate was not tuned: an arm that wants another one is at a disadvantage.".to_owned()
        } else {
            "Only the learning rate was tuned, on a coarse grid and few seeds; other settings are as they were.".to_owned()
        });
    }
    if plan.kind == Kind::Stability {
        threats.push(
            "Stability is measured over one range of learning rates; at a single good rate the arms may not differ."
                .to_owned(),
        );
    }
    if context.experiment.variants.iter().any(|variant| variant.failed > 0) {
        threats.push(
            "Some runs failed and count at a value that was registered before; how much rests on them is said beside the \
             verdict."
                .to_owned(),
        );
    }
    threats
}

/// Whether to go on: exactly where there is something to plan.
pub fn decision(next: &Planned) -> Decision {
    match next {
        Planned::Experiment(plan) => {
            Decision::Continue { reason: format!("{}: {}", plan.title, plan.rationale) }
        }
        Planned::Finished { reason } => Decision::Stop { reason: reason.clone() },
    }
}
