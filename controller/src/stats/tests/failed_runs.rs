//! METHOD §2.5: failed runs stay in their arm, and the ruling says when it rests on them.

use crate::stats::{
    Better, Contrast, FailureShare, Gate, Observed, Pairing, Predicts, Reason, SplitSizes, Verdict,
    at_median, at_worst, boschloo, failure_share, judge, judge_shares, rank_check, smallest_exact_p,
};

fn values(values: &[f64]) -> Vec<Observed> {
    values.iter().copied().map(Observed::Value).collect()
}

fn with_failures(values_: &[f64], failed: usize) -> Vec<Observed> {
    let mut arm = values(values_);
    arm.extend(vec![Observed::Failed; failed]);
    arm
}

#[test]
fn failed_runs_take_the_worst_value_or_the_median_of_the_finished() {
    let arm = with_failures(&[0.9, 0.7, 0.8, 0.6], 1);
    assert_eq!(at_worst(&arm, 0.1).unwrap(), [0.9, 0.7, 0.8, 0.6, 0.1]);
    assert_eq!(at_median(&arm).unwrap(), [0.9, 0.7, 0.8, 0.6, 0.75]);
    assert_eq!(at_median(&values(&[1.0, 2.0])).unwrap(), [1.0, 2.0]);
    assert_eq!(at_worst(&arm, f64::NAN).unwrap_err(), Gate::NotFinite);
    assert_eq!(at_median(&[Observed::Failed; 3]).unwrap_err(), Gate::AllFailed { cell: 0, n: 3 });
}

/// METHOD §2.2: exact 95 % upper limits 0/3: 71 %, 0/5: 52 %, 0/10: 31 %.
#[test]
fn none_failed_is_never_stable() {
    for (runs, text) in [
        (3, "0 of 3 failed: up to 71 % possible"),
        (5, "0 of 5 failed: up to 52 % possible"),
        (10, "0 of 10 failed: up to 31 % possible"),
    ] {
        assert_eq!(failure_share(&vec![Observed::Value(1.0); runs]).to_string(), text);
    }
    let share = failure_share(&with_failures(&[1.0; 7], 3));
    assert_eq!((share.failed, share.runs), (3, 10));
    assert_eq!(share.to_string(), "3 of 10 failed: 7 to 65 % possible");
    assert_eq!(failure_share(&[Observed::Failed; 5]).to_string(), "5 of 5 failed: at least 48 % certain");
    assert_eq!(failure_share(&[]).to_string(), "0 of 0 failed: nothing is known");
}

/// METHOD §2.4: Boschloo needs 3 of 3, else 4 of n, against 0 of n; 11 is an exception that it does not name: SciPy,
/// too, has 0.0528 there.
#[test]
fn boschloo_says_yes_where_method_says() {
    for n in 3..=15 {
        let needed = match n {
            3 => 3,
            11 => 5,
            _ => 4,
        };
        assert!(boschloo((0, n), (needed, n)).unwrap() <= 0.05, "{needed} of {n}");
        assert!(boschloo((0, n), (needed - 1, n)).unwrap() > 0.05, "{} of {n}", needed - 1);
    }
    assert_eq!(boschloo((1, 0), (1, 2)), None);
    assert_eq!(boschloo((3, 2), (1, 2)), None);
    assert_eq!(boschloo((0, 5), (0, 5)), Some(1.0));
}

#[test]
fn a_verdict_that_needs_the_failed_runs_says_so() {
    // The control fails in 4 of 10 and is otherwise the same: the gain is all in not failing.
    let control = with_failures(&[0.90, 0.91, 0.905, 0.895, 0.9, 0.91], 4);
    let treatment = values(&[0.9, 0.91, 0.9, 0.905, 0.9, 0.91, 0.895, 0.9, 0.905, 0.9]);
    let arms = [control, treatment.clone()];
    let contrast = Contrast { coefficients: &[-1.0, 1.0], arms: &arms, worst: 0.1, pairing: Pairing::None };
    let judged = judge(contrast, Predicts::Increase, 0.05, 0.01);
    assert_eq!(judged.ruling.verdict, Verdict::Supported);
    assert!(judged.ruling.rests_on_failed_runs);
    assert_eq!((judged.failures[0].failed, judged.failures[1].failed), (4, 0));
    let (at_worst, at_median) = (judged.interval.unwrap(), judged.interval_at_median.unwrap());
    assert!(at_worst.low > 0.01 && at_median.high < 0.01);

    // Here the verdict is the same either way.
    let control = with_failures(&[0.70, 0.71, 0.705, 0.695, 0.7, 0.71, 0.7, 0.705, 0.7], 1);
    let arms = [control, treatment];
    let contrast = Contrast { arms: &arms, worst: 0.5, ..contrast };
    let judged = judge(contrast, Predicts::Increase, 0.05, 0.01);
    assert_eq!(judged.ruling.verdict, Verdict::Supported);
    assert!(!judged.ruling.rests_on_failed_runs);
}

#[test]
fn an_arm_that_always_failed_has_a_share_and_no_mean() {
    let arms = [values(&[0.9, 0.91, 0.92]), vec![Observed::Failed; 3]];
    let contrast = Contrast { coefficients: &[-1.0, 1.0], arms: &arms, worst: 0.1, pairing: Pairing::None };
    let judged = judge(contrast, Predicts::Decrease, 0.05, 0.01);
    assert_eq!(judged.ruling.verdict, Verdict::Inconclusive);
    assert_eq!(judged.ruling.gate, Some(Gate::AllFailed { cell: 1, n: 3 }));
    assert!(judged.estimate.is_none() && judged.interval.is_none());
    assert_eq!(judged.failures[1].failed, 3);
    // A variant that has no weight does not shut the gate of another's contrast.
    let arms = [arms[0].clone(), arms[1].clone(), values(&[0.95, 0.96, 0.99])];
    let judged = judge(
        Contrast { coefficients: &[-1.0, 0.0, 1.0], arms: &arms, ..contrast },
        Predicts::Increase,
        0.05,
        0.01,
    );
    assert_eq!(judged.ruling.gate, None);
    // Positions in gates are those of the contrast, also past a variant without weight.
    let arms = [arms[0].clone(), arms[1].clone(), values(&[0.95, 0.95, 0.95])];
    let judged = judge(
        Contrast { coefficients: &[-1.0, 0.0, 1.0], arms: &arms, ..contrast },
        Predicts::Increase,
        0.05,
        0.01,
    );
    assert_eq!(judged.ruling.gate, Some(Gate::NoSpread { cell: 2 }));
}

#[test]
fn an_open_question_says_how_many_seeds_it_would_need() {
    let arms = [values(&[0.90, 0.93, 0.96]), values(&[0.92, 0.94, 0.985])];
    let contrast = Contrast { coefficients: &[-1.0, 1.0], arms: &arms, worst: 0.1, pairing: Pairing::None };
    let judged = judge(contrast, Predicts::Increase, 0.05, 0.02);
    assert_eq!((judged.ruling.verdict, judged.ruling.reason), (Verdict::Inconclusive, Reason::Undecided));
    assert!(judged.ruling.sentence.contains("would need about"), "{}", judged.ruling.sentence);
}

#[test]
fn pairing_sees_through_what_the_seeds_share() {
    let control = [0.90, 0.93, 0.96, 0.88, 0.97];
    let treatment = [0.912, 0.943, 0.971, 0.893, 0.981];
    let arms = [values(&control), values(&treatment)];
    let with = |pairing| {
        judge(
            Contrast { coefficients: &[-1.0, 1.0], arms: &arms, worst: 0.1, pairing },
            Predicts::Increase,
            0.05,
            0.005,
        )
    };
    assert_eq!(with(Pairing::None).ruling.verdict, Verdict::Inconclusive);
    assert_eq!(with(Pairing::Seed).ruling.verdict, Verdict::Supported);
    let corrected = with(Pairing::SeedDrawsSplit(SplitSizes { train: 1437, test: 360 })).interval.unwrap();
    let plain = with(Pairing::Seed).interval.unwrap();
    assert!(corrected.low < plain.low && plain.high < corrected.high);
    let empty = with(Pairing::SeedDrawsSplit(SplitSizes { train: 0, test: 360 }));
    assert!(matches!(empty.ruling.gate, Some(Gate::Shape { .. })));
}

fn share(failed: usize, runs: usize) -> FailureShare {
    failure_share(&with_failures(&vec![1.0; runs - failed], failed))
}

#[test]
fn a_difference_of_shares_needs_interval_and_exact_test() {
    let judged = |control, treatment| judge_shares(control, treatment, Predicts::Decrease, 0.05, 0.2);
    let clear = judged(share(9, 10), share(0, 10));
    assert_eq!((clear.verdict, clear.reason), (Verdict::Supported, Reason::AtLeastSmallestEffect));
    let opposite = judged(share(0, 10), share(9, 10));
    assert_eq!((opposite.verdict, opposite.reason), (Verdict::Refuted, Reason::Opposite));
    // Newcombe excludes 0 for 4 of 11 against 0 of 11, Boschloo's p is 0.0528.
    let borderline = judged(share(4, 11), share(0, 11));
    assert_eq!((borderline.verdict, borderline.reason), (Verdict::Inconclusive, Reason::ExactTestDisagrees));
    assert!(borderline.sentence.contains("exact test"), "{}", borderline.sentence);
    // "More diverged, 3 of 3 against 0 of 3" is nothing at the ledger's levels (METHOD §7).
    assert_eq!(
        judge_shares(share(3, 3), share(0, 3), Predicts::Decrease, 0.02, 0.2).verdict,
        Verdict::Inconclusive
    );
    assert!((smallest_exact_p(3, 3).unwrap() - 0.03125).abs() < 1e-12);
    assert_eq!(judged(share(0, 0), share(0, 10)).gate, Some(Gate::TooFewSeeds { n: 0 }));
}

#[test]
fn the_rank_check_needs_five_runs_and_finite_values() {
    let arm = values(&[1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(rank_check(&arm[..4], &arm, Better::Higher).unwrap_err(), Gate::TooFewSeeds { n: 4 });
    let undefined = values(&[1.0, 2.0, 3.0, 4.0, f64::NAN]);
    assert_eq!(rank_check(&arm, &undefined, Better::Higher).unwrap_err(), Gate::NotFinite);
    let large = values(&vec![1.0; 51]);
    assert!(matches!(rank_check(&large, &arm, Better::Higher), Err(Gate::Shape { .. })));
    // All equal: no evidence; all apart: 2 of C(10, 5).
    assert!((rank_check(&arm, &arm, Better::Higher).unwrap() - 1.0).abs() < 1e-12);
    let apart = values(&[11.0, 12.0, 13.0, 14.0, 15.0]);
    assert!((rank_check(&arm, &apart, Better::Higher).unwrap() - 2.0 / 252.0).abs() < 1e-12);
}
