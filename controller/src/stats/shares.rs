//! Claims about the share of failed runs (METHOD §2.2): Newcombe's interval makes the verdict, and whatever rests on 0
//! being outside it needs Boschloo's exact test to agree, since the interval's coverage falls to 0.935 at these sizes.

use super::{
    binomial::{boschloo, newcombe},
    estimate::Interval,
    failures::FailureShare,
    gate::Gate,
    verdict::{Predicts, Reason, Ruling, Verdict, rule, sentence},
};

/// Judges a claim about treatment − control in the share of failed runs, at the two-sided `error` that the ledger
/// gives; `delta` is the smallest difference of interest, a share (0.2 for 20 points).
pub fn judge_shares(
    control: FailureShare,
    treatment: FailureShare,
    predicts: Predicts,
    error: f64,
    delta: f64,
) -> Ruling {
    let (first, second) = ((treatment.failed, treatment.runs), (control.failed, control.runs));
    let runs = first.1.min(second.1);
    let interval = match newcombe(first, second, error) {
        Some((low, high)) => Ok(Interval { low, high, level: 1.0 - error }),
        None if runs == 0 => Err(Gate::TooFewSeeds { n: 0 }),
        None => Err(Gate::NotFinite),
    };
    let mut ruling = rule(predicts, interval.clone(), delta);
    let (Ok(interval), Verdict::Supported | Verdict::Refuted) = (interval, ruling.verdict) else {
        return ruling;
    };
    if interval.excludes_zero() && boschloo(first, second).is_none_or(|p| p > error) {
        ruling.verdict = Verdict::Inconclusive;
        ruling.reason = Reason::ExactTestDisagrees;
        ruling.sentence = sentence(predicts, ruling.reason, interval, delta);
    }
    ruling
}

/// The smallest p that Boschloo's test can give with these numbers of runs: a look whose level is below it is skipped
/// (METHOD §4).
pub fn smallest_exact_p(control_runs: u64, treatment_runs: u64) -> Option<f64> {
    boschloo((0, control_runs), (treatment_runs, treatment_runs))
}
