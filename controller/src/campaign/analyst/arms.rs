//! A cell's arm: one value for each seed, from its variants' runs. Where the plan reduces over a factor, a seed's runs
//! over that factor's levels become one number here, so that n is the number of seeds and never seeds × levels
//! (METHOD §6, trap 11).

use std::collections::BTreeMap;

use proto::v1::OutcomeKind;

use crate::stats::{self, FailureShare, Gate, Observed};

use super::{
    super::{
        plan::{Cell, MetricScale, Plan, Reduce},
        record::{ExperimentRecord, RunRecord},
    },
    observe::{Seen, seen},
};

/// One seed of one variant.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The run.
    pub run: String,
    /// What it is to the analysis; on the metric's own scale.
    pub seen: Seen,
}

/// Every cell's seeds.
#[derive(Debug, Clone, Default)]
pub struct Arms {
    /// By variant and seed.
    pub taken: BTreeMap<String, BTreeMap<u64, Taken>>,
    /// By cell and seed, after reducing over a factor; on the metric's own scale. A seed that is missing in the cell
    /// is not here.
    pub cells: BTreeMap<String, BTreeMap<u64, Observed>>,
    /// Variants of each cell.
    variants: BTreeMap<String, Vec<String>>,
    /// The order of seeds.
    order: Vec<u64>,
}

impl Arms {
    /// Seeds that every cell with any seed has: what the tables call n.
    #[must_use]
    pub fn seeds(&self) -> u32 {
        let least = self.cells.values().map(BTreeMap::len).filter(|n| *n > 0).min().unwrap_or(0);
        u32::try_from(least).unwrap_or(u32::MAX)
    }

    /// Ids of the runs that the cells rest on.
    #[must_use]
    pub fn runs(&self, cells: &[&str]) -> Vec<String> {
        let variants = cells.iter().filter_map(|cell| self.variants.get(*cell)).flatten();
        let taken = variants.filter_map(|variant| self.taken.get(variant)).flat_map(BTreeMap::values);
        taken.map(|taken| taken.run.clone()).collect()
    }

    /// The share of a cell's runs that failed by the plan's rule.
    #[must_use]
    pub fn failure_share(&self, cell: &str) -> FailureShare {
        let variants = self.variants.get(cell).into_iter().flatten();
        let taken = variants.filter_map(|variant| self.taken.get(variant)).flat_map(BTreeMap::values);
        let data: Vec<Observed> = taken
            .filter_map(|taken| match taken.seen {
                Seen::Data(observed) => Some(observed),
                Seen::Missing | Seen::Void(_) => None,
            })
            .collect();
        stats::failure_share(&data)
    }

    /// Of every cell.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<String, FailureShare> {
        self.variants.keys().map(|cell| (cell.clone(), self.failure_share(cell))).collect()
    }

    /// The arms of a contrast, on the scale of the values: where seeds pair, those that all of them have.
    ///
    /// # Errors
    /// [`Gate`] where a value does not fit the scale.
    pub fn observed(&self, weighed: &[(&str, f64)], plan: &Plan) -> Result<Vec<Vec<Observed>>, Gate> {
        let empty = BTreeMap::new();
        let cells: Vec<&BTreeMap<u64, Observed>> =
            weighed.iter().map(|(cell, _)| self.cells.get(*cell).unwrap_or(&empty)).collect();
        let paired = !matches!(super::pairing(plan), stats::Pairing::None);
        let used = |seed: &u64, cell: &BTreeMap<u64, Observed>| {
            cell.contains_key(seed) && (!paired || cells.iter().all(|other| other.contains_key(seed)))
        };
        let mut arms = Vec::with_capacity(cells.len());
        for cell in &cells {
            let mut arm = Vec::with_capacity(cell.len());
            for seed in self.order.iter().filter(|seed| used(seed, cell)) {
                let Some(observed) = cell.get(seed) else { continue };
                arm.push(match (observed, plan.metric.scale) {
                    (Observed::Value(value), MetricScale::Log) => {
                        Observed::Value(stats::on_log_scale(&[*value])?.first().copied().unwrap_or(f64::NAN))
                    }
                    (other, _) => *other,
                });
            }
            arms.push(arm);
        }
        Ok(arms)
    }
}

/// Builds the arms from the runs of the current revision.
#[must_use]
pub fn arms(record: &ExperimentRecord, seeds: &[u64]) -> Arms {
    let plan = &record.plan;
    let runs = record.analysed();
    let mut out = Arms { order: seeds.to_vec(), ..Arms::default() };
    for cell in record.cells() {
        for variant in &cell.variants {
            let of_seed =
                |seed: &u64| runs.get(&(variant.clone(), *seed)).map(|run| (*seed, taken(plan, run)));
            out.taken.insert(variant.clone(), seeds.iter().filter_map(of_seed).collect());
        }
        let by_seed =
            seeds.iter().filter_map(|seed| Some((*seed, of_cell(plan, &out, &cell, *seed)?))).collect();
        out.cells.insert(cell.id.clone(), by_seed);
        out.variants.insert(cell.id, cell.variants);
    }
    out
}

fn taken(plan: &Plan, run: &RunRecord) -> Taken {
    Taken { run: run.id.clone(), seen: seen(plan, run) }
}

/// A seed's number in a cell; none where a run of it is missing.
fn of_cell(plan: &Plan, arms: &Arms, cell: &Cell, seed: u64) -> Option<Observed> {
    let mut each = Vec::with_capacity(cell.variants.len());
    for variant in &cell.variants {
        match arms.taken.get(variant)?.get(&seed)?.seen {
            Seen::Data(observed) => each.push(observed),
            Seen::Missing | Seen::Void(_) => return None,
        }
    }
    let value = |observed: &Observed| match observed {
        Observed::Value(value) => Some(*value),
        Observed::Failed => None,
    };
    match &plan.reduce {
        Reduce::GapToBestOver { .. } => {
            let at_initialisation = plan.metric.trivial;
            let levels: Vec<_> = each
                .iter()
                .map(|o| stats::reduce::LevelResult { value: value(o), at_initialisation })
                .collect();
            let gap = stats::reduce::gap_to_best_over(&levels, super::better(plan.metric.better));
            Some(gap.map_or(Observed::Failed, Observed::Value))
        }
        Reduce::SlopeOver { factor } => {
            let levels = &plan.factors.iter().find(|f| f.param == *factor)?.levels;
            let points: Option<Vec<(f64, f64)>> = levels
                .iter()
                .zip(&each)
                .map(|(level, o)| Some((level.number()?, value(o).unwrap_or(plan.failed_runs_count_as))))
                .collect();
            Some(stats::reduce::slope_over(&points?).map_or(Observed::Failed, Observed::Value))
        }
        _ => each.first().copied(),
    }
}

/// The gates that are the campaign's and not the estimator's (METHOD §2.5, §3.1): a void variant, a cell that never
/// ran, a factor that did nothing.
#[must_use]
pub fn gate(record: &ExperimentRecord, arms: &Arms, weighed: &[(&str, f64)]) -> Option<Gate> {
    let void = |reason: String| Some(Gate::Void { reason });
    for (cell, _) in weighed {
        let variants = arms.variants.get(*cell)?;
        for variant in variants {
            if let Some(reason) = record.void.get(variant) {
                return void(format!("{variant} left the experiment: {reason}"));
            }
            let taken = arms.taken.get(variant)?;
            let memory = |taken: &Taken| {
                let run = record.runs.iter().find(|run| run.id == taken.run);
                run.is_some_and(|r| {
                    matches!(r.kind(), OutcomeKind::OutOfMemory | OutcomeKind::GpuOutOfMemory)
                })
            };
            if !taken.is_empty() && taken.values().all(memory) {
                return void(format!(
                    "{variant} does not run within its memory limit, in any of {} seeds",
                    taken.len()
                ));
            }
            let voided = taken.values().find_map(|taken| match &taken.seen {
                Seen::Void(reason) => Some(reason),
                Seen::Data(_) | Seen::Missing => None,
            });
            if let Some(reason) = voided {
                return void(format!("{variant} has runs that say nothing about it ({reason})"));
            }
        }
        let share = arms.failure_share(cell);
        if record.plan.reduce.over().is_some() && share.runs > 0 && share.failed == share.runs {
            let reason = format!(
                "every one of {} runs of {cell} failed; the share of failed runs is the result",
                share.runs
            );
            return void(reason);
        }
    }
    did_nothing(record, arms, weighed)
}

/// Two cells whose runs are equal to the last bit in every metric and seed: the factor is never read (METHOD §5,
/// manipulation check).
fn did_nothing(record: &ExperimentRecord, arms: &Arms, weighed: &[(&str, f64)]) -> Option<Gate> {
    let series = |variant: &str, seed: u64| {
        let id = &arms.taken.get(variant)?.get(&seed)?.run;
        let run = record.runs.iter().find(|run| run.id == *id)?;
        (!run.series.is_empty()).then_some(&run.series)
    };
    for (index, (cell, weight)) in weighed.iter().enumerate() {
        for (other, against) in &weighed[index + 1..] {
            if weight * against > 0.0 {
                continue;
            }
            let (Some(left), Some(right)) = (arms.variants.get(*cell), arms.variants.get(*other)) else {
                continue;
            };
            let mut compared = 0;
            let same = left.iter().zip(right).all(|(a, b)| {
                arms.order.iter().all(|seed| match (series(a, *seed), series(b, *seed)) {
                    (Some(a), Some(b)) => {
                        compared += 1;
                        a == b
                    }
                    _ => true,
                })
            });
            if same && compared >= 2 {
                let seen =
                    format!("{cell} and {other} logged the same values in all of {compared} pairs of runs");
                return Some(Gate::CheckFailed { check: "the factor does something".to_owned(), seen });
            }
        }
    }
    None
}
