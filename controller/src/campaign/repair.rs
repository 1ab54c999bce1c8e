//! What an outcome asks for: nothing, a mended program, a higher limit for all, or a variant less (METHOD §2.5). Pure. A
//! repair is for faults of the code only; what may be a result is never mended, because mending it would choose the
//! answer.
//!
//! Packages are part of the code and not of the design: METHOD §1's plan does not have them, no number depends on them that
//! does not depend on the program, and every variant of a revision runs with the same. So where they cannot be had a
//! repair may change or drop them; the registered plan stays as it is, and the change is an amendment in the report.

use proto::v1::OutcomeKind;

use super::{
    analyst::observe::{Seen, seen, time_is_the_question},
    plan::Plan,
    record::{ExperimentRecord, Purpose, RunRecord, outcome_word},
    researcher::Failure,
};

/// What a batch of runs asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// Every run is data, or will be started again.
    Nothing,
    /// The program is at fault in these runs.
    Repair {
        /// For the researcher, worst first, one for each variant.
        failures: Vec<Failure>,
        /// Variants at fault.
        variants: Vec<String>,
    },
    /// These runs were cut short by a limit that is not part of the question.
    HigherLimit {
        /// Variants that were cut short.
        variants: Vec<String>,
    },
}

/// What an outcome is in a smoke run or a full one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Fine,
    Code,
    Limit,
}

/// Variants of the cells that may fail.
fn may_fail(plan: &Plan, variant: &str) -> bool {
    let cells = plan.cells();
    let cell = cells.iter().find(|cell| cell.variants.iter().any(|v| v == variant));
    cell.is_some_and(|cell| plan.expects_failure.contains(&cell.id))
}

fn full(plan: &Plan, run: &RunRecord) -> Class {
    use OutcomeKind as K;
    match run.kind() {
        K::Failed | K::MissingMetrics | K::LimitExceeded | K::DependencyConflict => Class::Code,
        K::TimedOut | K::Stalled if !time_is_the_question(plan) => Class::Limit,
        // It ended well and the rule finds no number in what it logged: the program logs too little.
        K::Succeeded if matches!(seen(plan, run), Seen::Void(_)) => Class::Code,
        _ => Class::Fine,
    }
}

/// In a smoke run only what the plan allows for may go wrong: memory in a cell that expects it, and a divergence that
/// is not the control's (without a control: not every variant's).
fn smoke(plan: &Plan, run: &RunRecord, all_diverged: bool, control_diverged: bool) -> Class {
    use OutcomeKind as K;
    match run.kind() {
        K::Failed | K::MissingMetrics | K::LimitExceeded | K::DependencyConflict => Class::Code,
        K::TimedOut | K::Stalled => Class::Code,
        K::OutOfMemory | K::GpuOutOfMemory if may_fail(plan, &run.variant) => Class::Fine,
        K::OutOfMemory | K::GpuOutOfMemory => Class::Code,
        K::Diverged if all_diverged => Class::Code,
        K::Diverged if control_diverged && !may_fail(plan, &run.variant) => Class::Code,
        _ => Class::Fine,
    }
}

/// The last run of each variant and seed: what was lost and started again counts by its last start.
fn latest<'a>(runs: &'a [&'a RunRecord]) -> Vec<&'a RunRecord> {
    let mut latest: Vec<&RunRecord> = Vec::new();
    for run in runs {
        match latest.iter_mut().find(|known| known.variant == run.variant && known.seed == run.seed) {
            Some(known) => *known = run,
            None => latest.push(run),
        }
    }
    latest
}

/// What the runs of a batch ask for.
#[must_use]
pub fn wanted(record: &ExperimentRecord, purpose: Purpose) -> Wanted {
    let plan = &record.plan;
    let revision = record.revision().map_or(0, |r| r.number);
    let runs: Vec<&RunRecord> = record
        .runs
        .iter()
        .filter(|r| r.purpose == purpose && r.revision == revision && !record.void.contains_key(&r.variant))
        .collect();
    let runs = latest(&runs);
    let diverged = |run: &&&RunRecord| run.kind() == OutcomeKind::Diverged;
    let all_diverged = !runs.is_empty() && runs.iter().filter(diverged).count() == runs.len();
    let control = plan.control.as_ref().and_then(|id| plan.cells().into_iter().find(|cell| cell.id == *id));
    let control_diverged = control.is_some_and(|cell| {
        let of_control: Vec<_> = runs.iter().filter(|r| cell.variants.contains(&r.variant)).collect();
        !of_control.is_empty() && of_control.iter().all(|r| r.kind() == OutcomeKind::Diverged)
    });
    let class = |run: &RunRecord| match purpose {
        Purpose::Smoke => smoke(plan, run, all_diverged, control_diverged),
        Purpose::Full => full(plan, run),
    };
    let of = |wanted: Class| {
        let mut found: Vec<&RunRecord> = runs.iter().copied().filter(|run| class(run) == wanted).collect();
        found.sort_by_key(|run| severity(run.kind()));
        found
    };
    let variants = |runs: &[&RunRecord]| {
        let mut variants: Vec<String> = runs.iter().map(|run| run.variant.clone()).collect();
        variants.sort();
        variants.dedup();
        variants
    };
    let faulty = of(Class::Code);
    if !faulty.is_empty() {
        let mut failures: Vec<Failure> = Vec::new();
        for run in &faulty {
            if !failures.iter().any(|known| known.variant == run.variant) {
                failures.push(failure(plan, run));
            }
        }
        return Wanted::Repair { failures, variants: variants(&faulty) };
    }
    let cut = of(Class::Limit);
    if cut.is_empty() { Wanted::Nothing } else { Wanted::HigherLimit { variants: variants(&cut) } }
}

/// Whether a full run's end makes the rest of its batch pointless: the revision will not be analysed.
#[must_use]
pub fn ends_the_batch(plan: &Plan, run: &RunRecord) -> bool {
    run.purpose == Purpose::Full && full(plan, run) == Class::Code
}

fn severity(kind: OutcomeKind) -> u8 {
    use OutcomeKind as K;
    match kind {
        K::DependencyConflict => 0,
        K::Failed => 1,
        K::MissingMetrics => 2,
        K::LimitExceeded => 3,
        K::OutOfMemory | K::GpuOutOfMemory => 4,
        K::Diverged => 5,
        _ => 6,
    }
}

/// What to do about an outcome, for whoever mends the program.
#[must_use]
pub fn advice(kind: OutcomeKind) -> &'static str {
    use OutcomeKind as K;
    match kind {
        K::Failed => {
            "Mend the error that the traceback names. Only packages of the image and of the plan are there: write around \
             an import that is missing. Shapes must fit for every variant."
        }
        K::MissingMetrics => {
            "Log every metric that was asked for with ar.log, under exactly its name, with a finite value and a step; \
             in a smoke run (ar.smoke) too."
        }
        K::Diverged => {
            "The control itself gave NaN, infinity, or values far worse than trivial in the smoke run: look for a \
             mistake in the loss, the normalisation of the inputs or the initialisation. Do not change a parameter of \
             the plan."
        }
        K::OutOfMemory => {
            "It passed its memory limit. Use less at the same batch size: no copies of the data set, float32, no graph \
             kept between steps, evaluation without gradients and in pieces. Batch, steps and data are the plan's and \
             stay."
        }
        K::GpuOutOfMemory => {
            "It passed the GPU's memory. Evaluate without gradients and in pieces, and keep no graph between steps. \
             Batch, steps and data are the plan's and stay."
        }
        K::TimedOut => {
            "The smoke run must end within its small limit: where ar.smoke is true, train a few steps on few examples, \
             log every metric once, and end. Look for a loop that does not end."
        }
        K::Stalled => {
            "It neither used a processor nor printed nor logged: look for a wait that never ends, such as data loader \
             workers, a lock or input."
        }
        K::LimitExceeded => {
            "It passed the limit that the message names: write fewer and smaller files, start fewer processes."
        }
        K::DependencyConflict => {
            "The packages could not be installed; the words above are the resolver's. Choose another version, or use \
             the image's packages only: answer with `packages` (an empty list asks for none) and a program that fits \
             them. Wheels only, and no version that the image has is replaced."
        }
        _ => "",
    }
}

/// A failed run, for the researcher: outcomes, never metrics.
#[must_use]
pub fn failure(plan: &Plan, run: &RunRecord) -> Failure {
    let outcome = &run.outcome;
    let mut message = outcome.message.clone();
    if run.kind() == OutcomeKind::Succeeded
        && let Seen::Void(reason) = seen(plan, run)
    {
        message = format!("it ended well, but {reason}");
    }
    let outcome_kind =
        if run.kind() == OutcomeKind::Succeeded { OutcomeKind::MissingMetrics } else { run.kind() };
    Failure {
        variant: run.variant.clone(),
        smoke: run.purpose == Purpose::Smoke,
        outcome: outcome_word(outcome_kind).to_owned(),
        message,
        traceback: outcome.traceback.clone(),
        last_output: run.last_output.clone(),
        usage: usage(run),
        advice: advice(outcome_kind).to_owned(),
    }
}

fn usage(run: &RunRecord) -> String {
    let Some(usage) = &run.usage else { return "no usage is known".to_owned() };
    let mut words = format!("{:.1} s", usage.wall_ms as f64 / 1000.0);
    if run.limits.time_ms > 0 {
        words.push_str(&format!(" of at most {:.0} s", run.limits.time_ms as f64 / 1000.0));
    }
    words.push_str(&format!("; memory peak {}", kit::size::Bytes(usage.memory_peak_bytes.max(1))));
    if run.limits.memory_bytes > 0 {
        words.push_str(&format!(" of at most {}", kit::size::Bytes(run.limits.memory_bytes)));
    }
    words
}

/// What makes two failures the same error: the outcome, the exception and the traceback's last line.
#[must_use]
pub fn signature(failures: &[Failure]) -> String {
    let line = |f: &Failure| {
        f.traceback.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("").trim().to_owned()
    };
    let mut parts: Vec<String> = failures
        .iter()
        .map(|f| {
            format!(
                "{}|{}|{}",
                f.outcome,
                line(f),
                if f.traceback.is_empty() { f.message.as_str() } else { "" }
            )
        })
        .collect();
    parts.sort();
    parts.dedup();
    parts.join("\n")
}

/// Whether the experiment can do without these variants: a primary contrast is left that weighs none of them.
#[must_use]
pub fn voidable(plan: &Plan, variants: &[String]) -> bool {
    let cells = plan.cells();
    let touched = |cell: &str| {
        let cell = cells.iter().find(|c| c.id == cell);
        cell.is_some_and(|c| c.variants.iter().any(|v| variants.contains(v)))
    };
    let primary = plan.contrasts.iter().any(|c| c.primary);
    plan.contrasts
        .iter()
        .filter(|c| c.primary || !primary)
        .any(|c| !c.weights.iter().any(|w| touched(&w.cell)))
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
