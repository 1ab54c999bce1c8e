//! A closed experiment as the researcher sees it: numbers by variant and by contrast, computed by the program.

use super::{
    analyst::{arms, filled, observe::Seen},
    record::{ExperimentRecord, Standing},
    researcher::{ClosedExperiment, ContrastResult, VariantResult},
};

/// Mean and standard deviation (n − 1).
#[must_use]
pub fn summary(values: &[f64]) -> (Option<f64>, Option<f64>) {
    let finite = !values.is_empty() && values.iter().all(|v| v.is_finite());
    let n = values.len() as f64;
    let mean = finite.then(|| values.iter().sum::<f64>() / n);
    let deviation = mean
        .filter(|_| values.len() > 1)
        .map(|mean| (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt());
    (mean, deviation)
}

/// As the researcher sees it; `None` while it is open, so that no metric of an open experiment gets out.
#[must_use]
pub fn closed(record: &ExperimentRecord) -> Option<ClosedExperiment> {
    if record.standing != Standing::Closed {
        return None;
    }
    let look = record.looks.last()?;
    let planned = record.plan.looks.get(look.look as usize).copied().unwrap_or(0) as usize;
    let seeds: Vec<u64> = record.seeds.iter().copied().take(planned).collect();
    let arms = arms::arms(record, &seeds);
    let analysed = record.analysed();
    let variants = record
        .plan
        .variants()
        .into_iter()
        .map(|variant| {
            let taken = arms.taken.get(&variant.id);
            let data: Vec<_> = taken
                .into_iter()
                .flat_map(std::collections::BTreeMap::values)
                .filter_map(|t| match t.seen {
                    Seen::Data(observed) => Some(observed),
                    Seen::Missing | Seen::Void(_) => None,
                })
                .collect();
            let failed = data.iter().filter(|o| **o == crate::stats::Observed::Failed).count();
            let (mean, deviation) = summary(&filled(&data, &record.plan));
            let seconds: Vec<f64> = analysed
                .iter()
                .filter(|((v, _), _)| *v == variant.id)
                .filter_map(|(_, run)| run.seconds())
                .collect();
            VariantResult {
                cell: variant.cell,
                seeds: u32::try_from(taken.map_or(0, std::collections::BTreeMap::len)).unwrap_or(u32::MAX),
                failed: u32::try_from(failed).unwrap_or(u32::MAX),
                mean,
                deviation,
                seconds: summary(&seconds).0,
                variant: variant.id,
            }
        })
        .collect();
    let contrasts = look
        .contrasts
        .iter()
        .map(|c| ContrastResult {
            contrast: c.id.clone(),
            estimate: c.judgement.estimate.as_ref().map(|e| e.theta),
            low: c.judgement.interval.map(|i| i.low),
            high: c.judgement.interval.map(|i| i.high),
            verdict: c.verdict().map(|v| v.as_str().to_owned()),
        })
        .collect();
    Some(ClosedExperiment { id: record.id.clone(), plan: record.plan.clone(), variants, contrasts })
}
