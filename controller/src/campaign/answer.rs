//! The first paragraph of the report, by METHOD §8's template: verdict, data and conditions, raw effect with interval, n
//! planned, run and failed, Δ and who set it, fairness, what is not covered, what stopped it. Every number in it is
//! listed with the runs that it rests on.

use crate::{
    report::document::{Answer, Number},
    stats::{Method, Verdict},
};

use super::{
    analyst::{ContrastAnalysis, LookAnalysis, sentences},
    machine::StoppedBy,
    plan::Stream,
    record::{ExperimentRecord, Record, Standing},
};

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The experiment that answers: the first confirmatory one with a verdict, because it was planned for the question as it
/// was asked. Follow-ups hold under other conditions and are told after it; choosing among them by their verdicts would be
/// a choice by result. Without one, the last closed experiment.
fn answering(record: &Record) -> Option<&ExperimentRecord> {
    let closed =
        || record.experiments.iter().filter(|e| e.standing == Standing::Closed && !e.looks.is_empty());
    let judged = |e: &&ExperimentRecord| {
        let mut contrasts = e.looks.last().into_iter().flat_map(|look| &look.contrasts);
        e.confirmatory.is_some() && contrasts.any(|contrast| contrast.verdict().is_some())
    };
    closed().find(judged).or_else(|| closed().next_back())
}

struct Writer {
    text: Vec<String>,
    numbers: Vec<Number>,
    runs: Vec<String>,
}

impl Writer {
    fn say(&mut self, sentence: impl Into<String>) {
        self.text.push(sentence.into());
    }

    fn number(&mut self, name: &str, value: f64, shown: impl Into<String>, unit: &str, rule: &str) {
        self.numbers.push(Number {
            name: name.to_owned(),
            value: value.is_finite().then_some(value),
            shown: shown.into(),
            unit: unit.to_owned(),
            rule: rule.to_owned(),
            runs: self.runs.clone(),
        });
    }
}

/// Writes the answer. `error` is the whole campaign's.
#[must_use]
pub fn answer(record: &Record, stopped: StoppedBy, error: f64) -> Answer {
    let ended = ended(record, stopped);
    let Some(experiment) = answering(record) else {
        let why = match record.dead_ends.last() {
            Some(dead_end) => format!("No experiment gave numbers. {}.", dead_end.trim_end_matches('.')),
            None => "No experiment was closed.".to_owned(),
        };
        return Answer {
            verdict: "No answer".into(),
            text: format!("{why} {ended}"),
            stopped_by: stopped.words().into(),
            numbers: Vec::new(),
            interpretation: String::new(),
            removed: Vec::new(),
        };
    };
    let Some(look) = experiment.looks.last() else { return nothing(stopped, &ended) };
    let claimed = look.contrasts.iter().find(|c| c.claim.is_some());
    let contrast = claimed.or_else(|| look.contrasts.first());
    let mut writer = Writer {
        text: Vec::new(),
        numbers: Vec::new(),
        runs: contrast.map_or_else(
            || experiment.analysed().values().map(|r| r.id.clone()).collect(),
            |c| c.runs.clone(),
        ),
    };
    let verdict = contrast.and_then(ContrastAnalysis::verdict);
    let word = verdict.map_or_else(|| "No verdict".to_owned(), |v| capital(v.as_str()));
    let data = data(experiment, &mut writer);
    match contrast {
        Some(contrast) => effect(&data, experiment, look, contrast, &mut writer),
        None => writer.say(format!("{data}: {}", experiment.rulings.last().cloned().unwrap_or_default())),
    }
    if verdict.is_none() {
        writer.say("This is from an exploratory experiment: an estimate, not a verdict.");
    }
    for note in experiment
        .notes
        .iter()
        .filter(|n| n.starts_with("Not at equal") || n.starts_with("On this one split"))
    {
        writer.say(note.clone());
    }
    let conditions = format!("Conditions: {}", full_stop(&experiment.plan.conditions));
    let runs = writer.runs.clone();
    cited(&conditions, "registered", &runs, &mut writer);
    writer.say(conditions);
    writer.say("The metric is logged by the generated program (self-reported).");
    others(record, experiment, &mut writer);
    if verdict.is_some() {
        let shown = sentences::number(100.0 * error);
        writer.say(format!("Chance of any false verdict in this campaign: at most {shown} %."));
        writer.number("error of the campaign", 100.0 * error, shown, "%", "METHOD §4");
    }
    writer.say(ended);
    Answer {
        verdict: word,
        text: writer.text.join(" "),
        stopped_by: stopped.words().into(),
        numbers: writer.numbers,
        interpretation: experiment.interpretation.clone(),
        removed: record.experiments.iter().flat_map(|e| e.removed.iter().cloned()).collect(),
    }
}

fn nothing(stopped: StoppedBy, ended: &str) -> Answer {
    Answer {
        verdict: "No answer".into(),
        text: ended.to_owned(),
        stopped_by: stopped.words().into(),
        numbers: Vec::new(),
        interpretation: String::new(),
        removed: Vec::new(),
    }
}

fn ended(record: &Record, stopped: StoppedBy) -> String {
    let mut text = format!("Ended by: {}", stopped.words());
    let told = matches!(
        stopped,
        StoppedBy::Answered | StoppedBy::Workers | StoppedBy::Researcher | StoppedBy::NoSoundPlan
    );
    if told && !record.stop_reason.is_empty() {
        text.push_str(&format!(" ({})", kit::text::one_line(record.stop_reason.trim_end_matches('.'), 400)));
    }
    text.push('.');
    text
}

fn full_stop(text: &str) -> String {
    let text = text.trim();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

/// "On digits (1437 train, 360 test, drawn anew by each seed)".
fn data(experiment: &ExperimentRecord, writer: &mut Writer) -> String {
    let plan = &experiment.plan;
    let mut registered = |name: &str, value: u32| {
        writer.number(name, f64::from(value), value.to_string(), "examples", "registered");
    };
    match plan.split_sizes.filter(|_| plan.replicate.contains(&Stream::Split)) {
        Some(sizes) => {
            registered("training examples", sizes.train);
            registered("test examples", sizes.test);
            format!(
                "On {} ({} train, {} test, drawn anew by each seed)",
                plan.data_set, sizes.train, sizes.test
            )
        }
        None => format!("On {} (one fixed split)", plan.data_set),
    }
}

fn effect(
    data: &str,
    experiment: &ExperimentRecord,
    look: &LookAnalysis,
    contrast: &ContrastAnalysis,
    writer: &mut Writer,
) {
    let plan = &experiment.plan;
    let judgement = &contrast.judgement;
    let planned = plan.looks.last().copied().unwrap_or(0);
    let failed: u64 = judgement.failures.iter().map(|f| f.failed).sum();
    let runs: u64 = judgement.failures.iter().map(|f| f.runs).sum();
    if let (Some(estimate), Some(interval)) = (&judgement.estimate, &judgement.interval) {
        let (value, unit) = sentences::shown(estimate.theta, &plan.metric, &plan.reduce);
        let (low, _) = sentences::shown(interval.low, &plan.metric, &plan.reduce);
        let (high, _) = sentences::shown(interval.high, &plan.metric, &plan.reduce);
        let rule = match estimate.method {
            Method::Welch => "METHOD §2.1: Welch–Satterthwaite",
            Method::Paired => "METHOD §2.1: paired by seed",
            Method::PairedCorrected { .. } => {
                "METHOD §2.1, §5: paired by seed, corrected for overlapping splits"
            }
        };
        let how = match estimate.method {
            Method::Welch => "not paired",
            Method::Paired => "paired",
            Method::PairedCorrected { .. } => "paired, corrected for overlapping splits",
        };
        let level = sentences::level(contrast.error);
        let shown = [value, low, high].map(sentences::number);
        writer.say(format!(
            "{data}, {} {}: {} {unit} ({level} interval {} to {}; {} seeds each, {how}; {} of {runs} runs finished, {failed} failed{}).",
            plan.metric.name.replace('_', " "),
            contrast.label,
            shown[0],
            shown[1],
            shown[2],
            look.seeds,
            runs - failed,
            possible(judgement)
        ));
        for (name, value, shown) in [
            ("effect", value, &shown[0]),
            ("interval low", low, &shown[1]),
            ("interval high", high, &shown[2]),
        ] {
            writer.number(name, value, shown.clone(), &unit, rule);
        }
        writer.number(
            "level",
            100.0 * (1.0 - contrast.error),
            level.trim_end_matches(" %"),
            "%",
            "METHOD §4",
        );
        writer.number(
            "seeds",
            f64::from(look.seeds),
            look.seeds.to_string(),
            "seeds",
            "looks that were made",
        );
        writer.number("seeds planned", f64::from(planned), planned.to_string(), "seeds", "registered");
        writer.number("runs", runs as f64, runs.to_string(), "runs", "METHOD §2.5");
        writer.number(
            "finished runs",
            (runs - failed) as f64,
            (runs - failed).to_string(),
            "runs",
            "METHOD §2.5",
        );
        writer.number("failed runs", failed as f64, failed.to_string(), "runs", "METHOD §2.5");
        for share in &judgement.failures {
            let high = (100.0 * share.high).round();
            writer.number("failures possible up to", high, format!("{high}"), "%", "METHOD §2.4: exact");
        }
    }
    let because =
        contrast.sentence.rsplit_once("; rests on").map_or(contrast.sentence.as_str(), |(text, _)| text);
    let reason = because.split_once("); ").map_or(because, |(_, reason)| reason);
    if let Some(claim) = &contrast.claim {
        let verdict = contrast.verdict().map_or("without a verdict", Verdict::as_str);
        let text = claim.text.trim_end_matches('.');
        writer.say(format!("The claim \"{text}\" is {verdict}: {}", full_stop(reason)));
    }
    if judgement.ruling.rests_on_failed_runs {
        writer.say("The verdict rests on the failed runs.");
    }
    let (margin, by) = (sentences::margin(plan), sentences::set_by(plan.smallest_effect.set_by));
    if contrast.claim.is_some() {
        writer.say(format!("Smallest effect of interest: {margin} (set by: {by})."));
        let (number, unit) = margin.split_once(' ').unwrap_or((&margin, ""));
        let value = number.parse().unwrap_or(f64::NAN);
        writer.number("smallest effect of interest", value, number, unit, "METHOD §3.3");
    }
    if let Some(smallest) = judgement.ruling.smallest_margin.filter(|_| contrast.claim.is_some()) {
        let (value, unit) = sentences::shown(smallest, &plan.metric, &plan.reduce);
        let shown = sentences::number(value);
        writer.say(format!("Smallest margin for \"equivalent\": {shown} {unit}."));
        writer.number("smallest margin", value, shown, &unit, "METHOD §3.1");
    }
}

/// ": up to 31 % possible", of the arm that is known least.
fn possible(judgement: &crate::stats::Judgement) -> String {
    let most = judgement.failures.iter().map(|share| share.high).fold(0.0, f64::max);
    format!(": up to {} % of an arm's runs possible", (100.0 * most).round())
}

/// What other experiments say, in a sentence each; their numbers are theirs.
fn others(record: &Record, answering: &ExperimentRecord, writer: &mut Writer) {
    for finding in &record.findings {
        if finding.finding.experiment == answering.id || finding.finding.verdict == "exploratory" {
            continue;
        }
        let title =
            record.experiments.iter().find(|e| e.id == finding.finding.experiment).map(|e| &e.plan.title);
        let title = title.map_or_else(String::new, |title| format!(" ({title})"));
        let (id, text) = (&finding.finding.experiment, full_stop(&finding.finding.text));
        let text = format!("Follow-up {id}{title}: {text}");
        cited(&text, "by the finding's own rule", &finding.runs, writer);
        writer.say(text);
    }
    let contrasts = answering.looks.last().into_iter().flat_map(|look| &look.contrasts);
    for contrast in contrasts.filter(|c| c.claim.is_some()).skip(1) {
        let verdict = contrast.verdict().map_or("", Verdict::as_str);
        let text = format!("{}: {}", capital(verdict), full_stop(&contrast.sentence));
        cited(&text, "METHOD §2.1", &contrast.runs, writer);
        writer.say(text);
    }
}

/// Lists the numbers of a sentence that was written elsewhere by rule.
fn cited(text: &str, rule: &str, runs: &[String], writer: &mut Writer) {
    for number in super::numbers::all(text) {
        let value = number.replace(',', "").parse().ok();
        writer.numbers.push(Number {
            name: "of a sentence".into(),
            value,
            shown: number,
            unit: String::new(),
            rule: rule.to_owned(),
            runs: runs.to_vec(),
        });
    }
}
