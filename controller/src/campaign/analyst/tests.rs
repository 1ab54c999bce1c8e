//! Runs with known numbers, and what the rules make of them.

use proto::v1::{Outcome, OutcomeKind};

use super::{
    super::{
        fixtures::{ablation, exploratory, stability},
        plan::*,
        record::{Logged, Purpose, Revision, RunRecord, Standing},
    },
    *,
};

const SEEDS: [u64; 10] = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20];

fn record(plan: Plan, confirmatory: Option<u32>) -> ExperimentRecord {
    ExperimentRecord {
        id: "e1".into(),
        digest: plan.digest().to_string(),
        registered_at: String::new(),
        confirmatory,
        seeds: SEEDS.to_vec(),
        revisions: vec![Revision {
            number: 1,
            digest: "d".into(),
            reason: "first".into(),
            source: "x".into(),
            packages: vec![],
        }],
        runs: vec![],
        looks: vec![],
        void: BTreeMap::new(),
        notes: vec![],
        amendments: vec![],
        interpretation: String::new(),
        removed: vec![],
        threats: vec![],
        rulings: vec![],
        standing: Standing::Open,
        plan,
    }
}

fn run(record: &mut ExperimentRecord, variant: &str, seed: u64, kind: OutcomeKind, values: &[f64]) {
    let series: Vec<Logged> =
        values.iter().enumerate().map(|(i, value)| Logged { step: i as u64 + 1, value: *value }).collect();
    let metric = record.plan.metric.name.clone();
    record.runs.push(RunRecord {
        id: format!("{variant}-{seed}-{}", record.runs.len()),
        variant: variant.into(),
        seed,
        purpose: Purpose::Full,
        revision: 1,
        outcome: Outcome { kind: kind.into(), ..Outcome::default() },
        usage: None,
        limits: proto::v1::Limits::default(),
        series: [(metric, series)].into(),
        last_output: String::new(),
        place: String::new(),
        packages: vec![],
    });
}

fn runs(record: &mut ExperimentRecord, variant: &str, values: &[f64]) {
    for (seed, value) in SEEDS.iter().zip(values) {
        run(record, variant, *seed, OutcomeKind::Succeeded, &[0.0, *value]);
    }
}

fn ledger() -> Ledger {
    Ledger::new(3)
}

fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 5e-4 * b.abs().max(1.0), "{a} is not {b}");
}

/// ȳ = 3 and 6, s² = 2.5 and 10, n = 5: θ̂ = 3, SE = √(0.5 + 2), df = 2.5² / (0.5²/4 + 2²/4) = 5.882.
#[test]
fn welch_by_hand() {
    let mut plan = exploratory();
    plan.pairing = Pairing::None;
    plan.looks = vec![5];
    let mut record = record(plan, None);
    runs(&mut record, "v1", &[1.0, 2.0, 3.0, 4.0, 5.0]);
    runs(&mut record, "v2", &[2.0, 4.0, 6.0, 8.0, 10.0]);
    let look = analyse(&record, &ledger(), 0).unwrap();
    let contrast = &look.contrasts[0];
    let estimate = contrast.judgement.estimate.as_ref().unwrap();
    near(estimate.theta, 3.0);
    near(estimate.standard_error, 2.5f64.sqrt());
    near(estimate.degrees_of_freedom, 6.25 / 1.0625);
    // t(0.975, 5.882) = 2.4587
    near(contrast.judgement.interval.unwrap().low, 3.0 - 2.4587 * 2.5f64.sqrt());
    assert_eq!(contrast.verdict(), None, "exploratory: no verdict");
    assert!(contrast.sentence.contains("described, not tested"), "{}", contrast.sentence);
    assert_eq!((look.seeds, contrast.runs.len()), (5, 10));
}

/// Differences 0.01, 0.02, 0.03, 0.02, 0.02: mean 0.02, s = 0.0070711; with splits of 1437 and 360 the variance is
/// s²·(1/5 + 360/1437), so SE = 0.0047462; t(1 − 0.005/2, 4) at A/2 · 0.2 = 0.005 is 5.5976.
#[test]
fn paired_with_overlapping_splits_at_the_ledgers_level() {
    let mut record = record(ablation(), Some(0));
    runs(&mut record, "v1", &[0.90, 0.91, 0.92, 0.93, 0.94]);
    runs(&mut record, "v2", &[0.91, 0.93, 0.95, 0.95, 0.96]);
    let look = analyse(&record, &ledger(), 0).unwrap();
    let contrast = &look.contrasts[0];
    near(contrast.error, 0.005);
    let estimate = contrast.judgement.estimate.as_ref().unwrap();
    near(estimate.theta, 0.02);
    assert!((estimate.standard_error - 0.004_746_2).abs() < 1e-6, "{}", estimate.standard_error);
    let interval = contrast.judgement.interval.unwrap();
    assert!((interval.low - (0.02 - 5.5976 * 0.004_746_2)).abs() < 1e-5, "{interval:?}");
    // −0.66 to 4.66 points against half a point: nothing can be said yet, and more seeds are wanted.
    assert_eq!(contrast.verdict(), Some(Verdict::Inconclusive));
    assert!(!look.conclusive);
    assert!(contrast.plain.unwrap().low > interval.low, "without the correction it would look surer");
    assert!(contrast.sentence.contains("points"), "{}", contrast.sentence);
}

#[test]
fn a_clear_difference_is_supported_and_ends_the_looks() {
    let mut record = record(ablation(), Some(0));
    runs(&mut record, "v1", &[0.800, 0.811, 0.792, 0.803, 0.804]);
    runs(&mut record, "v2", &[0.901, 0.910, 0.893, 0.902, 0.906]);
    let look = analyse(&record, &ledger(), 0).unwrap();
    assert_eq!(look.contrasts[0].verdict(), Some(Verdict::Supported));
    assert!(look.conclusive);
}

#[test]
fn trap_1_seeds_that_do_nothing_give_no_verdict() {
    let mut record = record(ablation(), Some(0));
    runs(&mut record, "v1", &[0.97; 5]);
    runs(&mut record, "v2", &[0.99; 5]);
    let look = analyse(&record, &ledger(), 0).unwrap();
    assert_eq!(look.contrasts[0].verdict(), Some(Verdict::Inconclusive));
    assert!(look.contrasts[0].sentence.contains("seeds were ignored"), "{}", look.contrasts[0].sentence);
    assert!(look.notes.iter().any(|n| n.contains("same value")), "{:?}", look.notes);
}

#[test]
fn trap_4_a_diverged_control_stays_in_its_arm() {
    let mut record = record(ablation(), Some(0));
    let values = [0.90, 0.91, 0.89];
    for (seed, value) in SEEDS.iter().zip(values) {
        run(&mut record, "v1", *seed, OutcomeKind::Succeeded, &[value]);
    }
    for seed in &SEEDS[3..5] {
        run(&mut record, "v1", *seed, OutcomeKind::Diverged, &[f64::NAN]);
    }
    runs(&mut record, "v2", &[0.90, 0.91, 0.89, 0.90, 0.91]);
    let look = analyse(&record, &ledger(), 0).unwrap();
    let judgement = &look.contrasts[0].judgement;
    let estimate = judgement.estimate.as_ref().unwrap();
    // (0.90 + 0.91 + 0.89 + 0.1 + 0.1) / 5 = 0.58
    near(estimate.means[0], 0.58);
    assert_eq!((look.failures["c1"].failed, look.failures["c1"].runs), (2, 5));
    assert_eq!(look.failures["c2"].failed, 0);
    assert!(judgement.interval_at_median.is_some());
}

#[test]
fn trap_5_an_arm_that_fails_by_its_code_is_void_and_never_a_mean_of_the_rest() {
    let mut record = record(ablation(), Some(0));
    runs(&mut record, "v1", &[0.90, 0.91, 0.92, 0.93, 0.94]);
    runs(&mut record, "v2", &[0.91, 0.93, 0.95, 0.95]);
    run(&mut record, "v2", SEEDS[4], OutcomeKind::Failed, &[]);
    let look = analyse(&record, &ledger(), 0).unwrap();
    assert!(matches!(look.contrasts[0].judgement.ruling.gate, Some(Gate::Void { .. })));
    assert!(look.conclusive, "more seeds do not mend it");
}

#[test]
fn trap_8_a_factor_that_does_nothing_is_seen() {
    let mut record = record(ablation(), Some(0));
    let values = [0.90, 0.91, 0.92, 0.93, 0.94];
    runs(&mut record, "v1", &values);
    runs(&mut record, "v2", &values);
    let look = analyse(&record, &ledger(), 0).unwrap();
    assert!(matches!(look.contrasts[0].judgement.ruling.gate, Some(Gate::CheckFailed { .. })));
}

#[test]
fn trap_11_a_seeds_learning_rates_are_one_number() {
    let mut record = record(stability(), Some(0));
    // v1..v3 are `pre` at three rates, v4..v6 are `post`.
    for (index, seed) in SEEDS[..5].iter().enumerate() {
        let shift = 0.01 * index as f64;
        for (variant, value) in
            [("v1", 1.3), ("v2", 1.0 + shift), ("v3", 1.6), ("v4", 1.3), ("v5", 1.0 - shift)]
        {
            run(&mut record, variant, *seed, OutcomeKind::Succeeded, &[value]);
        }
        run(&mut record, "v6", *seed, OutcomeKind::Diverged, &[f64::INFINITY]);
    }
    let look = analyse(&record, &ledger(), 0).unwrap();
    assert_eq!(look.seeds, 5);
    let estimate = look.contrasts[0].judgement.estimate.as_ref().unwrap();
    assert_eq!(estimate.n, [5, 5]);
    // pre: (1.3 + (1 + s) + 1.6)/3 − (1 + s), mean of s 0.02: 0.28667; post, diverged at 3: (1.3 + (1 − s) + 3)/3 − (1 − s).
    near(estimate.means[0], (1.3 + 1.02 + 1.6) / 3.0 - 1.02);
    near(estimate.means[1], (1.3 + 0.98 + 3.0) / 3.0 - 0.98);
    assert_eq!((look.failures["c2"].failed, look.failures["c2"].runs), (5, 15));
    assert_eq!(look.contrasts[0].runs.len(), 30);
}

#[test]
fn a_variant_that_never_fits_in_memory_makes_its_contrast_void() {
    let mut record = record(ablation(), Some(0));
    runs(&mut record, "v1", &[0.90, 0.91, 0.92, 0.93, 0.94]);
    for seed in &SEEDS[..5] {
        run(&mut record, "v2", *seed, OutcomeKind::OutOfMemory, &[]);
    }
    let look = analyse(&record, &ledger(), 0).unwrap();
    let sentence = &look.contrasts[0].sentence;
    assert!(sentence.contains("memory limit"), "{sentence}");
    // In some seeds only it is data.
    record.runs.pop();
    run(&mut record, "v2", SEEDS[4], OutcomeKind::Succeeded, &[0.95]);
    let look = analyse(&record, &ledger(), 0).unwrap();
    assert!(look.contrasts[0].judgement.ruling.gate.is_none());
    assert_eq!(look.failures["c2"].failed, 4);
}

#[test]
fn a_lost_run_takes_its_seed_out_of_both_paired_arms() {
    let mut record = record(ablation(), Some(0));
    runs(&mut record, "v1", &[0.90, 0.91, 0.92, 0.93, 0.94]);
    runs(&mut record, "v2", &[0.91, 0.93, 0.95, 0.95]);
    run(&mut record, "v2", SEEDS[4], OutcomeKind::Lost, &[]);
    let look = analyse(&record, &ledger(), 0).unwrap();
    assert_eq!(look.contrasts[0].judgement.estimate.as_ref().unwrap().n, [4, 4]);
}

#[test]
fn a_run_started_again_counts_once_and_an_old_revision_never() {
    let mut record = record(ablation(), Some(0));
    runs(&mut record, "v1", &[0.5; 5]);
    record.revisions.push(Revision { number: 2, ..record.revisions[0].clone() });
    assert!(record.analysed().is_empty(), "revisions never mix");
    for run in &mut record.runs {
        run.revision = 2;
    }
    run(&mut record, "v1", SEEDS[0], OutcomeKind::Lost, &[]);
    record.runs.last_mut().unwrap().revision = 2;
    run(&mut record, "v1", SEEDS[0], OutcomeKind::Succeeded, &[0.7]);
    record.runs.last_mut().unwrap().revision = 2;
    let analysed = record.analysed();
    assert_eq!(analysed.len(), 5);
    assert_eq!(
        observe::seen(&record.plan, analysed[&("v1".to_owned(), SEEDS[0])]),
        observe::Seen::Data(Observed::Value(0.7))
    );
}

#[test]
fn secondary_metrics_have_an_interval_and_no_verdict() {
    let mut plan = ablation();
    plan.secondary = vec![Secondary {
        metric: "test_loss".into(),
        unit: "nats".into(),
        better: Better::Lower,
        reduce: Reduce::Final,
    }];
    let mut record = record(plan, Some(0));
    runs(&mut record, "v1", &[0.90, 0.91, 0.92, 0.93, 0.94]);
    runs(&mut record, "v2", &[0.91, 0.93, 0.95, 0.95, 0.96]);
    for (index, run) in record.runs.iter_mut().enumerate() {
        let value = if run.variant == "v1" { 0.4 } else { 0.3 } + 0.001 * (index * index) as f64;
        run.series.insert("test_loss".into(), vec![Logged { step: 1, value }]);
    }
    let look = analyse(&record, &ledger(), 0).unwrap();
    assert!(
        look.secondary[0].estimate.is_some() && look.secondary[0].interval.is_some(),
        "{:?}",
        look.secondary
    );
}

#[test]
fn a_control_no_better_than_chance_is_said() {
    let mut record = record(ablation(), Some(0));
    runs(&mut record, "v1", &[0.10, 0.11, 0.09, 0.10, 0.101]);
    runs(&mut record, "v2", &[0.11, 0.10, 0.10, 0.09, 0.10]);
    let look = analyse(&record, &ledger(), 0).unwrap();
    assert!(look.notes.iter().any(|n| n.starts_with("Nothing was learnt")), "{:?}", look.notes);
}

#[test]
fn the_best_set_names_no_optimum_among_equals() {
    let mut plan = exploratory();
    plan.kind = Kind::Sensitivity;
    plan.factors[0].param = "lr".into();
    plan.factors[0].scale = FactorScale::Log;
    plan.factors[0].levels = vec![Scalar::Number(0.1), Scalar::Number(0.2)];
    plan.looks = vec![5];
    let mut record = record(plan, None);
    runs(&mut record, "v1", &[0.90, 0.91, 0.92, 0.93, 0.94]);
    runs(&mut record, "v2", &[0.91, 0.90, 0.93, 0.92, 0.94]);
    let look = analyse(&record, &ledger(), 0).unwrap();
    assert!(
        look.notes.iter().any(|n| n == "Best set: all 2 levels may be the best one."),
        "{:?}",
        look.notes
    );
}

#[test]
fn numbers_in_words() {
    use sentences::{level, number};
    let shown = [0.0123456, 1234567.0, -0.5, 100.0, 0.00001234].map(number);
    assert_eq!(shown, ["0.0123", "1234567", "-0.5", "100", "1.23e-5"]);
    assert_eq!(level(0.005), "99.5 %");
}
