//! From runs to numbers and verdicts, by rule (METHOD §2 to §4): a run becomes one number, a cell's seeds become an arm,
//! arms become a contrast at the ledger's level, and the interval's place is the verdict. No model is asked, and nothing
//! that is computed here changes what was registered. Pure.
//!
//! ```text
//! runs ── observe ──▶ one number or "failed" per variant and seed ── arms ──▶ per cell and seed
//!      ── contrasts ──▶ judge at the ledger's level ──▶ rulings ── sentences ──▶ words with units
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stats::{self, FailureShare, Gate, Judgement, Ledger, LedgerError, Observed, Verdict};

use super::{
    plan::{Claim, Kind, MetricScale, Pairing, Plan, Predicts, Reduce, Stream},
    record::ExperimentRecord,
};

/// A cell's arm: what its variants and seeds came to.
pub mod arms;
/// Curves with bands, for the report: description, not tests.
pub mod curves;
/// What was held equal, what was learnt: checks that the program makes by itself.
pub mod fairness;
/// One run to one number.
pub mod observe;
/// Rulings in words, in the metric's unit.
pub mod sentences;

/// Confidence of what is only described: exploratory contrasts.
pub const DESCRIPTION_ERROR: f64 = 0.05;

/// One contrast at a look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContrastAnalysis {
    /// As registered.
    pub id: String,
    /// For people.
    pub label: String,
    /// What was claimed; `None` where there is no verdict.
    pub claim: Option<Claim>,
    /// Two-sided error of the interval.
    pub error: f64,
    /// Estimate, interval and ruling; on the log scale where the metric's scale is log.
    pub judgement: Judgement,
    /// The interval without the correction for overlapping splits, where there is one.
    pub plain: Option<stats::Interval>,
    /// The runs that it rests on.
    pub runs: Vec<String>,
    /// The ruling in words.
    pub sentence: String,
}

impl ContrastAnalysis {
    /// The verdict, where there is a claim.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.claim.as_ref().map(|_| self.judgement.ruling.verdict)
    }
}

/// A secondary metric on a contrast: an interval, never a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecondaryAnalysis {
    /// The metric.
    pub metric: String,
    /// The contrast.
    pub contrast: String,
    /// θ̂ in the metric's unit.
    pub estimate: Option<f64>,
    /// At the contrast's level.
    pub interval: Option<stats::Interval>,
    /// Why there is none, else empty.
    pub note: String,
}

/// An experiment at one look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LookAnalysis {
    /// Index of the look.
    pub look: u32,
    /// Seeds for each cell.
    pub seeds: u32,
    /// In the plan's order.
    pub contrasts: Vec<ContrastAnalysis>,
    /// In the plan's order.
    pub secondary: Vec<SecondaryAnalysis>,
    /// Share of failed runs, by cell.
    pub failures: BTreeMap<String, FailureShare>,
    /// Checks and remarks, each a sentence.
    pub notes: Vec<String>,
    /// No primary contrast is inconclusive, or more seeds cannot help.
    pub conclusive: bool,
}

/// Δ on the scale of the values: itself, or its logarithm where the metric's scale is log.
#[must_use]
pub fn delta(plan: &Plan) -> f64 {
    match plan.metric.scale {
        MetricScale::Raw => plan.smallest_effect.value,
        MetricScale::Log => plan.smallest_effect.value.ln(),
    }
}

/// How seeds pair the arms, for the estimator.
#[must_use]
pub fn pairing(plan: &Plan) -> stats::Pairing {
    match (plan.pairing, plan.split_sizes) {
        (Pairing::None, _) => stats::Pairing::None,
        (Pairing::Seed, Some(sizes)) if plan.replicate.contains(&Stream::Split) => {
            stats::Pairing::SeedDrawsSplit(stats::SplitSizes {
                train: sizes.train.into(),
                test: sizes.test.into(),
            })
        }
        (Pairing::Seed, _) => stats::Pairing::Seed,
    }
}

/// What a failed run counts as, on the scale of the values.
fn worst(plan: &Plan) -> f64 {
    let value = match plan.reduce {
        // A run that failed never got there: METHOD §2.2.
        Reduce::StepsTo { horizon, .. } => f64::from(horizon),
        _ => plan.failed_runs_count_as,
    };
    match plan.metric.scale {
        MetricScale::Raw => value,
        MetricScale::Log => value.ln(),
    }
}

fn predicts(predicts: Predicts) -> stats::Predicts {
    match predicts {
        Predicts::Increase => stats::Predicts::Increase,
        Predicts::Decrease => stats::Predicts::Decrease,
        Predicts::AnyChange => stats::Predicts::AnyChange,
        Predicts::NoRelevantChange => stats::Predicts::NoRelevantChange,
    }
}

/// Two-sided error of an experiment's intervals at a look: the ledger's for a confirmatory one.
///
/// # Errors
/// [`LedgerError`] where the look or the experiment was not registered.
pub fn error_at(record: &ExperimentRecord, ledger: &Ledger, look: u32) -> Result<f64, LedgerError> {
    let Some(experiment) = record.confirmatory else { return Ok(DESCRIPTION_ERROR) };
    let primary = record.plan.contrasts.iter().filter(|c| c.primary).count();
    ledger.level(experiment, primary, &record.plan.looks, look as usize)
}

/// Analyses an experiment at a look, with the runs that there are.
///
/// # Errors
/// [`LedgerError`] where the look was not registered.
pub fn analyse(record: &ExperimentRecord, ledger: &Ledger, look: u32) -> Result<LookAnalysis, LedgerError> {
    let plan = &record.plan;
    let error = error_at(record, ledger, look)?;
    let planned = plan.looks.get(look as usize).copied().unwrap_or(0);
    let seeds: Vec<u64> = record.seeds.iter().copied().take(planned as usize).collect();
    let arms = arms::arms(record, &seeds);
    let mut notes = fairness::notes(record, &arms);
    let mut contrasts = Vec::with_capacity(plan.contrasts.len());
    for contrast in &plan.contrasts {
        let claim = plan.claims.iter().find(|c| c.contrast == contrast.id).cloned();
        let wants = claim.as_ref().map_or(stats::Predicts::AnyChange, |c| predicts(c.predicts));
        let weighed: Vec<(&str, f64)> =
            contrast.weights.iter().map(|w| (w.cell.as_str(), w.weight)).collect();
        let gate = arms::gate(record, &arms, &weighed);
        let judgement = judge(plan, &arms, &weighed, wants, error, gate);
        let plain = plain(plan, &arms, &weighed, wants, error);
        let cells: Vec<&str> = weighed.iter().map(|(cell, _)| *cell).collect();
        let mut analysis = ContrastAnalysis {
            id: contrast.id.clone(),
            label: contrast.label.clone(),
            claim,
            error,
            judgement,
            plain,
            runs: arms.runs(&cells),
            sentence: String::new(),
        };
        analysis.sentence = sentences::ruling(record, &analysis);
        contrasts.push(analysis);
    }
    if let Some(note) = best_set(record, &arms, error) {
        notes.push(note);
    }
    let secondary = secondary(record, &seeds, error);
    let failures = arms.failures();
    let conclusive = conclusive(&contrasts);
    let seeds = arms.seeds();
    Ok(LookAnalysis { look, seeds, contrasts, secondary, failures, notes, conclusive })
}

/// A shut gate that more seeds may open is none; one that they cannot open ends the looks.
fn conclusive(contrasts: &[ContrastAnalysis]) -> bool {
    contrasts.iter().filter(|c| c.claim.is_some()).all(|contrast| {
        let ruling = &contrast.judgement.ruling;
        match &ruling.gate {
            None => ruling.verdict != Verdict::Inconclusive,
            Some(gate) => match gate {
                Gate::TooFewSeeds { .. } | Gate::NoSpreadOfDifferences => false,
                Gate::NoSpread { .. }
                | Gate::AllFailed { .. }
                | Gate::NotFinite
                | Gate::NotPositive { .. }
                | Gate::Shape { .. }
                | Gate::SmallestEffect
                | Gate::Void { .. }
                | Gate::CheckFailed { .. } => true,
            },
        }
    })
}

fn judge(
    plan: &Plan,
    arms: &arms::Arms,
    weighed: &[(&str, f64)],
    wants: stats::Predicts,
    error: f64,
    gate: Option<Gate>,
) -> Judgement {
    let delta = delta(plan);
    let shares = || weighed.iter().map(|(cell, _)| arms.failure_share(cell)).collect();
    let shut = |gate: Gate| Judgement {
        ruling: stats::rule(wants, Err(gate), delta),
        cells: Vec::new(),
        estimate: None,
        interval: None,
        interval_at_median: None,
        failures: shares(),
    };
    if let Some(gate) = gate {
        return shut(gate);
    }
    let arms_observed = match arms.observed(weighed, plan) {
        Ok(observed) => observed,
        Err(gate) => return shut(gate),
    };
    let coefficients: Vec<f64> = weighed.iter().map(|(_, weight)| *weight).collect();
    let contrast = stats::Contrast {
        coefficients: &coefficients,
        arms: &arms_observed,
        worst: worst(plan),
        pairing: pairing(plan),
    };
    let mut judgement = stats::judge(contrast, wants, error, delta);
    judgement.failures = shares();
    judgement
}

/// The uncorrected interval, where the verdict's one is corrected (METHOD §5: both are in the JSON).
fn plain(
    plan: &Plan,
    arms: &arms::Arms,
    weighed: &[(&str, f64)],
    wants: stats::Predicts,
    error: f64,
) -> Option<stats::Interval> {
    if !matches!(pairing(plan), stats::Pairing::SeedDrawsSplit(_)) {
        return None;
    }
    let observed = arms.observed(weighed, plan).ok()?;
    let coefficients: Vec<f64> = weighed.iter().map(|(_, weight)| *weight).collect();
    let contrast = stats::Contrast {
        coefficients: &coefficients,
        arms: &observed,
        worst: worst(plan),
        pairing: stats::Pairing::Seed,
    };
    stats::judge(contrast, wants, error, delta(plan)).interval
}

fn better(better: super::plan::Better) -> stats::Better {
    match better {
        super::plan::Better::Higher => stats::Better::Higher,
        super::plan::Better::Lower => stats::Better::Lower,
    }
}

/// For a sensitivity experiment: the levels that may still be the best one, never "the optimum" (METHOD §2.2).
fn best_set(record: &ExperimentRecord, arms: &arms::Arms, error: f64) -> Option<String> {
    let plan = &record.plan;
    if plan.kind != Kind::Sensitivity || plan.factors.len() != 1 || plan.reduce.over().is_some() {
        return None;
    }
    let cells = record.cells();
    let weighed: Vec<(&str, f64)> = cells.iter().map(|c| (c.id.as_str(), 1.0)).collect();
    let observed = arms.observed(&weighed, plan).ok()?;
    let set =
        stats::best_set(&observed, worst(plan), better(plan.metric.better), pairing(plan), error).ok()?;
    let kept: Vec<String> =
        set.kept.iter().filter_map(|i| cells.get(*i)).map(super::plan::Cell::label).collect();
    Some(if kept.len() == cells.len() {
        format!("Best set: all {} levels may be the best one.", cells.len())
    } else {
        format!(
            "Best set: {} of {} levels may be the best one: {}.",
            kept.len(),
            cells.len(),
            kept.join("; ")
        )
    })
}

fn secondary(record: &ExperimentRecord, seeds: &[u64], error: f64) -> Vec<SecondaryAnalysis> {
    let mut out = Vec::new();
    for second in &record.plan.secondary {
        // The same experiment with another metric: raw scale, and no value is registered for its failed runs.
        let mut other = record.clone();
        other.plan.metric.name.clone_from(&second.metric);
        other.plan.metric.unit.clone_from(&second.unit);
        other.plan.metric.better = second.better;
        other.plan.metric.scale = MetricScale::Raw;
        other.plan.reduce = second.reduce.clone();
        let arms = arms::arms(&other, seeds);
        for contrast in record.plan.contrasts.iter().filter(|c| c.primary || record.confirmatory.is_none()) {
            let weighed: Vec<(&str, f64)> =
                contrast.weights.iter().map(|w| (w.cell.as_str(), w.weight)).collect();
            let failed = weighed.iter().any(|(cell, _)| arms.failure_share(cell).failed > 0);
            let judgement = judge(&other.plan, &arms, &weighed, stats::Predicts::AnyChange, error, None);
            let note = if failed {
                "no interval: no value is registered for failed runs of this metric".to_owned()
            } else {
                judgement.ruling.gate.as_ref().map(Gate::to_string).unwrap_or_default()
            };
            out.push(SecondaryAnalysis {
                metric: second.metric.clone(),
                contrast: contrast.id.clone(),
                estimate: judgement.estimate.as_ref().filter(|_| !failed).map(|e| e.theta),
                interval: judgement.interval.filter(|_| !failed),
                note,
            });
        }
    }
    out
}

/// All of a cell's values as the estimator sees them, for tables: failed runs at their registered value.
#[must_use]
pub fn filled(observed: &[Observed], plan: &Plan) -> Vec<f64> {
    let at = |o: &Observed| match o {
        Observed::Value(value) => *value,
        Observed::Failed => match plan.reduce {
            Reduce::StepsTo { horizon, .. } => f64::from(horizon),
            _ => plan.failed_runs_count_as,
        },
    };
    observed.iter().map(at).collect()
}

#[cfg(test)]
mod tests;
