//! From what was found to the report's document, and that onto the disk. It adds no number that the analyst did not
//! compute: descriptions of single variants are means with their t interval.

use std::path::Path;

use proto::v1;
use serde_json::json;

use crate::{
    journal::{CampaignState, ReportPaths},
    report::document as doc,
    stats,
};

use super::{
    analyst::{ContrastAnalysis, arms, curves::curves, filled, observe::Seen, sentences},
    answer::answer,
    closed::summary,
    driver::Driver,
    error::CampaignError,
    executor::spec::params,
    machine::StoppedBy,
    plan::{Pairing, Plan, Reduce, Stream},
    record::{ExperimentRecord, Purpose, RunRecord, Standing, outcome_word},
};

fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Builds the document.
///
/// # Errors
/// Where the journal cannot be read.
pub(super) async fn build(
    driver: &Driver,
    stopped: StoppedBy,
    state: CampaignState,
) -> Result<doc::Report, CampaignError> {
    let record = &driver.kept.record;
    let settings = &driver.kept.settings;
    let threats = record.experiments.iter().flat_map(|e| e.threats.iter().map(|t| format!("{}: {t}", e.id)));
    Ok(doc::Report {
        format: doc::FORMAT,
        id: record.id.clone(),
        question: settings.question.clone(),
        researcher: driver.deps.researcher.name(),
        state: state.as_str().to_owned(),
        started_at: driver.kept.started_at.clone(),
        ended_at: driver.deps.clock.wall().to_string(),
        answer: answer(record, stopped, driver.kept.ledger.alpha),
        experiments: record.experiments.iter().map(experiment).collect(),
        findings: record
            .findings
            .iter()
            .map(|f| doc::Finding {
                id: f.finding.id.clone(),
                experiment: f.finding.experiment.clone(),
                text: f.finding.text.clone(),
                verdict: f.finding.verdict.clone(),
                runs: f.runs.clone(),
            })
            .collect(),
        runs: record.experiments.iter().flat_map(|e| e.runs.iter().map(move |r| run(e, r))).collect(),
        revisions: record.experiments.iter().flat_map(revisions).collect(),
        costs: costs(driver, stopped).await?,
        ledger: record.experiments.iter().flat_map(|e| ledger(driver, e)).collect(),
        threats: threats.collect(),
        amendments: record.experiments.iter().flat_map(|e| e.amendments.iter().cloned()).collect(),
        dead_ends: record.dead_ends.clone(),
        environment: record
            .environment
            .iter()
            .map(|(name, value)| doc::Fact { name: name.clone(), value: value.clone() })
            .collect(),
        command: command(settings),
    })
}

/// The command that makes this campaign again.
fn command(settings: &super::settings::CampaignSettings) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let mut words = vec!["autoresearch run".to_owned(), quoted(&settings.question)];
    words.push(format!("--llm {}", settings.llm));
    if let Some(url) = &settings.llm_url {
        words.push(format!("--llm-url {url}"));
    }
    if let Some(name) = &settings.data_set {
        words.push(format!("--dataset {name}"));
    }
    words.push(format!("--image {}", settings.image));
    if let Some(seeds) = settings.seeds {
        words.push(format!("--seeds {seeds}"));
    }
    words.push(format!("--max-iterations {}", settings.max_iterations));
    words.push(format!("--time-budget {}", kit::duration::Span(settings.time_budget)));
    if let Some(budget) = settings.gpu_budget {
        words.push(format!("--gpu-budget {}", kit::duration::Span(budget)));
    }
    if let Some(budget) = settings.cost_budget {
        words.push(format!("--cost-budget {budget}"));
    }
    if let Some(effect) = &settings.smallest_effect {
        words.push(format!("--smallest-effect {effect}"));
    }
    words.push(format!("--max-failures {}", settings.max_failures));
    if let Some(backend) = &settings.backend {
        words.push(format!("--backend {backend}"));
    }
    words.join(" ")
}

fn reduce_words(plan: &Plan) -> String {
    match &plan.reduce {
        Reduce::Final => "the last value".into(),
        Reduce::MeanLast { count } => format!("the mean of the last {count} values"),
        Reduce::AtBestValidation { validation_metric, .. } => {
            format!("the value at the step where {validation_metric} was best")
        }
        Reduce::Area => "the area under the curve, as a mean height".into(),
        Reduce::StepsTo { threshold, sustain, horizon } => {
            format!(
                "the first step from which it stays past {threshold} for {sustain} values, at most {horizon}"
            )
        }
        Reduce::GapToBestOver { factor } => {
            format!("for each seed, the mean over {factor} of the distance to that seed's best value")
        }
        Reduce::SlopeOver { factor } => format!("for each seed, the slope over the logarithm of {factor}"),
    }
}

fn method(plan: &Plan) -> String {
    match (plan.pairing, plan.replicate.contains(&Stream::Split)) {
        (Pairing::None, _) => "independent arms, Welch–Satterthwaite t interval".into(),
        (Pairing::Seed, true) => {
            "paired by seed, t interval corrected for overlapping splits (Nadeau–Bengio)".into()
        }
        (Pairing::Seed, false) => "paired by seed, t interval".into(),
    }
}

fn experiment(record: &ExperimentRecord) -> doc::Experiment {
    let plan = &record.plan;
    let mut notes = record.notes.clone();
    if let Standing::Abandoned(why) = &record.standing {
        notes.push(format!("It led nowhere: {why}."));
    }
    for second in record.looks.last().into_iter().flat_map(|look| &look.secondary) {
        notes.push(match (&second.estimate, &second.interval) {
            (Some(estimate), Some(interval)) => format!(
                "Secondary, no verdict: {} on {}: {} ({} interval {} to {}).",
                second.metric,
                second.contrast,
                sentences::number(*estimate),
                sentences::level(1.0 - interval.level),
                sentences::number(interval.low),
                sentences::number(interval.high)
            ),
            _ => format!("Secondary: {} on {}: {}.", second.metric, second.contrast, second.note),
        });
    }
    notes.extend(packages_note(record));
    let looks = record.looks.iter().map(|look| doc::Look {
        seeds: look.seeds,
        error: look.contrasts.first().map_or(0.0, |c| c.error),
        verdict: look
            .contrasts
            .iter()
            .find_map(ContrastAnalysis::verdict)
            .map_or_else(|| "exploratory".to_owned(), |v| v.as_str().to_owned()),
    });
    let mut metrics = vec![plan.metric.name.clone()];
    for run in record.analysed().values() {
        for name in run.series.keys().filter(|name| name.contains("loss") || name.contains("accuracy")) {
            if !metrics.contains(name) {
                metrics.push(name.clone());
            }
        }
    }
    doc::Experiment {
        id: record.id.clone(),
        title: plan.title.clone(),
        kind: word(&plan.kind),
        role: word(&plan.role),
        plan: serde_json::to_value(plan).unwrap_or_else(|_| json!(null)),
        plan_digest: record.digest.clone(),
        registered_at: record.registered_at.clone(),
        rationale: plan.rationale.clone(),
        motivated_by: plan.motivated_by.clone(),
        metric: doc::Metric {
            name: plan.metric.name.clone(),
            unit: plan.metric.unit.clone(),
            better: word(&plan.metric.better),
            source: word(&plan.metric.source),
            split: word(&plan.metric.split),
        },
        reduce: reduce_words(plan),
        replicate: plan.replicate.iter().map(word).collect(),
        method: method(plan),
        smallest_effect: plan.smallest_effect.value,
        smallest_effect_set_by: sentences::set_by(plan.smallest_effect.set_by).to_owned(),
        looks: looks.collect(),
        variants: variants(record),
        contrasts: record
            .looks
            .last()
            .into_iter()
            .flat_map(|l| &l.contrasts)
            .map(|c| contrast(record, c))
            .collect(),
        curves: metrics.iter().flat_map(|name| curves_of(record, name)).collect(),
        notes,
        interpretation: record.interpretation.clone(),
    }
}

fn label(levels: &[super::plan::Param]) -> String {
    let parts: Vec<String> = levels.iter().map(|p| format!("{} = {}", p.name, p.value)).collect();
    parts.join(", ")
}

fn variants(record: &ExperimentRecord) -> Vec<doc::Variant> {
    let plan = &record.plan;
    let look = record.looks.last().map_or(0, |l| l.look) as usize;
    let planned = plan.looks.get(look).copied().unwrap_or(0);
    let seeds: Vec<u64> = record.seeds.iter().copied().take(planned as usize).collect();
    let arms = arms::arms(record, &seeds);
    let of = |variant: super::plan::Variant| {
        let mut values = Vec::new();
        for seed in &seeds {
            let Some(taken) = arms.taken.get(&variant.id).and_then(|t| t.get(seed)) else { continue };
            let Seen::Data(observed) = taken.seen else { continue };
            values.push(doc::SeedValue {
                seed: *seed,
                value: filled(&[observed], plan).first().copied().filter(|v| v.is_finite()),
                run: taken.run.clone(),
                failed: observed == stats::Observed::Failed,
            });
        }
        let numbers: Vec<f64> = values.iter().filter_map(|v| v.value).collect();
        let (mean, deviation) = summary(&numbers);
        let half = deviation.filter(|_| numbers.len() > 1).and_then(|s| half_width(s, numbers.len()));
        let failed = values.iter().filter(|v| v.failed).count() as u64;
        let data: Vec<stats::Observed> = values
            .iter()
            .map(|v| {
                if v.failed {
                    stats::Observed::Failed
                } else {
                    stats::Observed::Value(v.value.unwrap_or(0.0))
                }
            })
            .collect();
        doc::Variant {
            label: label(&variant.levels),
            params: params(plan, &variant),
            control: plan.control.as_deref() == Some(variant.cell.as_str()),
            mean,
            deviation,
            low: mean.zip(half).map(|(m, h)| m - h),
            high: mean.zip(half).map(|(m, h)| m + h),
            planned,
            analysed: u32::try_from(values.len()).unwrap_or(u32::MAX),
            failed: u32::try_from(failed).unwrap_or(u32::MAX),
            failed_up_to: stats::failure_share(&data).high,
            values,
            id: variant.id,
            cell: variant.cell,
        }
    };
    plan.variants().into_iter().map(of).collect()
}

/// Half the 95 % t interval of a mean, through the estimator's own code: a band of one step.
fn half_width(deviation: f64, n: usize) -> Option<f64> {
    let root = (n as f64).sqrt();
    let estimate = stats::Estimate {
        theta: 0.0,
        standard_error: deviation / root,
        degrees_of_freedom: n as f64 - 1.0,
        n: vec![n],
        means: vec![0.0],
        deviations: vec![deviation],
        method: stats::Method::Welch,
    };
    let interval = estimate.interval(super::analyst::DESCRIPTION_ERROR);
    interval.high.is_finite().then_some(interval.high)
}

fn contrast(record: &ExperimentRecord, contrast: &ContrastAnalysis) -> doc::Contrast {
    let judgement = &contrast.judgement;
    let registered = record.plan.contrasts.iter().find(|c| c.id == contrast.id);
    doc::Contrast {
        id: contrast.id.clone(),
        label: contrast.label.clone(),
        primary: registered.is_some_and(|c| c.primary),
        claim: contrast.claim.as_ref().map(|c| c.text.clone()),
        predicts: contrast.claim.as_ref().map(|c| word(&c.predicts)),
        estimate: judgement.estimate.as_ref().map(|e| e.theta),
        low: judgement.interval.map(|i| i.low),
        high: judgement.interval.map(|i| i.high),
        level: judgement.interval.map(|i| i.level),
        degrees_of_freedom: judgement.estimate.as_ref().map(|e| e.degrees_of_freedom),
        verdict: contrast.verdict().map(|v| v.as_str().to_owned()),
        sentence: contrast.sentence.clone(),
        smallest_margin: judgement.ruling.smallest_margin,
        rests_on_failed_runs: judgement.ruling.rests_on_failed_runs,
        plain_interval: contrast.plain.map(|i| [i.low, i.high]),
        runs: contrast.runs.clone(),
    }
}

fn curves_of(record: &ExperimentRecord, metric: &str) -> Vec<doc::Curve> {
    let variants = record.plan.variants();
    curves(record, metric)
        .into_iter()
        .map(|curve| doc::Curve {
            label: variants
                .iter()
                .find(|v| v.id == curve.variant)
                .map(|v| label(&v.levels))
                .unwrap_or_default(),
            metric: curve.metric,
            variant: curve.variant,
            x: curve.steps.iter().map(|s| *s as f64).collect(),
            x_name: "step".into(),
            x_log: false,
            mean: curve.mean,
            low: curve.low,
            high: curve.high,
        })
        .collect()
}

fn run(record: &ExperimentRecord, run: &RunRecord) -> doc::Run {
    let revision = record.revisions.iter().find(|r| r.number == run.revision);
    let closed = record.standing == Standing::Closed && run.purpose == Purpose::Full;
    let value = super::analyst::observe::number(&record.plan, run).ok().filter(|v| v.is_finite());
    doc::Run {
        id: run.id.clone(),
        experiment: record.id.clone(),
        variant: run.variant.clone(),
        seed: run.seed,
        purpose: run.purpose.word().to_owned(),
        outcome: outcome_word(run.kind()).to_owned(),
        message: run.outcome.message.clone(),
        revision: revision.map(|r| r.digest.clone()).unwrap_or_default(),
        seconds: run.seconds(),
        memory_peak_bytes: run.usage.as_ref().map(|u| u.memory_peak_bytes).filter(|b| *b > 0),
        value: value.filter(|_| closed && run.kind() == v1::OutcomeKind::Succeeded),
        metrics: if run.purpose == Purpose::Smoke {
            Vec::new()
        } else {
            let last = |(name, series): (&String, &Vec<super::record::Logged>)| doc::MetricValue {
                name: name.clone(),
                value: series.last().map(|l| l.value).filter(|v| v.is_finite()),
            };
            run.series.iter().map(last).collect()
        },
        place: run.place.clone(),
    }
}

/// What was installed besides the image's own, and what had been asked for.
fn packages_note(record: &ExperimentRecord) -> Option<String> {
    let asked = record.revision().map_or(&record.plan.packages, |revision| &revision.packages);
    let installed = record.runs.iter().rev().find(|run| !run.packages.is_empty());
    let installed = installed.map_or(&[][..], |run| &run.packages);
    if asked.is_empty() && installed.is_empty() {
        return None;
    }
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Some(format!("Packages besides the image's: asked for {}; installed {}.", list(asked), list(installed)))
}

fn revisions(record: &ExperimentRecord) -> Vec<doc::Revision> {
    let of = |revision: &super::record::Revision| doc::Revision {
        experiment: record.id.clone(),
        number: revision.number,
        digest: revision.digest.clone(),
        reason: revision.reason.clone(),
        source: revision.source.clone(),
    };
    record.revisions.iter().map(of).collect()
}

fn ledger(driver: &Driver, record: &ExperimentRecord) -> Vec<doc::LedgerLine> {
    let Some(experiment) = record.confirmatory else { return Vec::new() };
    let primary: Vec<_> = record.plan.contrasts.iter().filter(|c| c.primary).collect();
    let mut lines = Vec::new();
    for (index, look) in record.plan.looks.iter().enumerate() {
        let Ok(error) = driver.kept.ledger.level(experiment, primary.len(), &record.plan.looks, index) else {
            continue;
        };
        for contrast in &primary {
            lines.push(doc::LedgerLine {
                experiment: record.id.clone(),
                contrast: contrast.id.clone(),
                look: *look,
                error,
                spent: record.looks.iter().any(|made| made.look as usize == index),
            });
        }
    }
    lines
}

async fn costs(driver: &Driver, stopped: StoppedBy) -> Result<doc::Costs, CampaignError> {
    let spent = driver.deps.journal.spent(driver.id).await?;
    let calls = driver.deps.journal.calls(driver.id).await?;
    let used = driver.used().await?;
    let settings = &driver.kept.settings;
    let hours = |d: std::time::Duration| format!("{:.2} h", d.as_secs_f64() / 3600.0);
    let unlimited = || "no limit".to_owned();
    let unit = if driver.kept.workers.gpus.is_empty() { "slot" } else { "GPU" };
    let mut unknown = Vec::new();
    if !spent.device_unknown.is_zero() {
        unknown.push(format!(
            "{} of devices were charged in full: nobody knows what was used",
            hours(spent.device_unknown)
        ));
    }
    if spent.cost_unknown.0 > 0 {
        unknown.push(format!(
            "{} of calls were charged in full: nobody knows what they cost",
            spent.cost_unknown
        ));
    }
    if unit == "slot" {
        unknown.push("No GPU: GPU-hours are the hours of the worker's slots.".to_owned());
    }
    let line = |name: &str, used: String, limit: String, by: StoppedBy| doc::BudgetLine {
        name: name.to_owned(),
        used,
        limit,
        stopped: stopped == by,
    };
    let priced = calls.iter().all(|call| call.cost_known || call.charged.is_none());
    Ok(doc::Costs {
        wall_seconds: used.awake.as_secs_f64(),
        device_seconds: spent.device().as_secs_f64(),
        device_unit: unit.to_owned(),
        calls: u32::try_from(calls.len()).unwrap_or(u32::MAX),
        input_tokens: calls
            .iter()
            .filter_map(|c| c.usage)
            .map(|u| u.input + u.cache_read + u.cache_write)
            .sum(),
        output_tokens: calls.iter().filter_map(|c| c.usage).map(|u| u.output).sum(),
        dollars: priced.then(|| spent.cost().dollars()),
        unknown,
        budgets: vec![
            line(
                "iterations",
                driver.kept.record.experiments.len().to_string(),
                settings.max_iterations.to_string(),
                StoppedBy::Iterations,
            ),
            line("wall-clock", hours(used.awake), hours(settings.time_budget), StoppedBy::WallClock),
            line(
                "GPU-hours",
                hours(spent.device()),
                settings.gpu_budget.map_or_else(unlimited, hours),
                StoppedBy::DeviceHours,
            ),
            line(
                "money",
                spent.cost().to_string(),
                settings.cost_budget.map_or_else(unlimited, |d| format!("${d}")),
                StoppedBy::Money,
            ),
            line(
                "failures in a row",
                driver.kept.failures.in_a_row.to_string(),
                settings.max_failures.to_string(),
                StoppedBy::FailuresInARow,
            ),
        ],
    })
}

/// Writes the report's three forms, each replaced whole.
///
/// # Errors
/// [`CampaignError::Report`] with the file at fault.
pub(super) fn write(report: &doc::Report, folder: &Path) -> Result<ReportPaths, CampaignError> {
    let files = crate::report::write(report, folder).map_err(|e| CampaignError::Report(e.to_string()))?;
    Ok(ReportPaths { markdown: files.markdown, html: files.html, json: files.json })
}
