//! Each outcome in a smoke run and in a full one, and what it asks for.

use std::collections::BTreeMap;

use proto::v1::{Limits, Outcome};

use super::{
    super::{
        fixtures::{ablation, stability},
        record::{Logged, Revision, Standing},
    },
    *,
};

fn record(plan: Plan) -> ExperimentRecord {
    ExperimentRecord {
        id: "e1".into(),
        digest: String::new(),
        registered_at: String::new(),
        confirmatory: Some(0),
        seeds: vec![1, 2, 3, 4, 5],
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

fn run(variant: &str, seed: u64, purpose: Purpose, kind: OutcomeKind) -> RunRecord {
    RunRecord {
        id: format!("{variant}-{seed}"),
        variant: variant.into(),
        seed,
        purpose,
        revision: 1,
        outcome: Outcome {
            kind: kind.into(),
            message: "m".into(),
            traceback: "T\nValueError: x".into(),
            ..Outcome::default()
        },
        usage: None,
        limits: Limits::default(),
        series: [("test_accuracy".to_owned(), vec![Logged { step: 1, value: 0.9 }])].into(),
        last_output: String::new(),
        place: String::new(),
        packages: vec![],
    }
}

fn of(plan: Plan, purpose: Purpose, kinds: &[OutcomeKind]) -> Wanted {
    let mut record = record(plan);
    for (index, kind) in kinds.iter().enumerate() {
        record.runs.push(run(&format!("v{}", index + 1), 1, purpose, *kind));
    }
    wanted(&record, purpose)
}

fn repairs(wanted: &Wanted) -> bool {
    matches!(wanted, Wanted::Repair { .. })
}

#[test]
fn code_faults_are_mended_in_both() {
    use OutcomeKind as K;
    for kind in [K::Failed, K::MissingMetrics, K::LimitExceeded, K::DependencyConflict] {
        for purpose in [Purpose::Smoke, Purpose::Full] {
            assert!(repairs(&of(ablation(), purpose, &[K::Succeeded, kind])), "{kind:?} {purpose:?}");
        }
    }
}

#[test]
fn a_divergence_in_the_smoke_run_is_a_fault_of_the_control_alone() {
    use OutcomeKind as K;
    assert!(repairs(&of(ablation(), Purpose::Smoke, &[K::Diverged, K::Succeeded])));
    assert_eq!(of(ablation(), Purpose::Smoke, &[K::Succeeded, K::Diverged]), Wanted::Nothing);
    let mut no_control = ablation();
    no_control.control = None;
    assert_eq!(of(no_control.clone(), Purpose::Smoke, &[K::Diverged, K::Succeeded]), Wanted::Nothing);
    assert!(repairs(&of(no_control, Purpose::Smoke, &[K::Diverged, K::Diverged])));
    // Of a cell of several learning rates, all must diverge.
    let kinds = [K::Succeeded, K::Succeeded, K::Diverged, K::Succeeded, K::Diverged, K::Diverged];
    assert_eq!(of(stability(), Purpose::Smoke, &kinds), Wanted::Nothing);
    let kinds = [K::Diverged, K::Diverged, K::Diverged, K::Succeeded, K::Succeeded, K::Succeeded];
    assert!(repairs(&of(stability(), Purpose::Smoke, &kinds)));
}

#[test]
fn after_the_smoke_run_a_divergence_or_memory_is_a_result() {
    use OutcomeKind as K;
    for kind in [K::Diverged, K::OutOfMemory, K::GpuOutOfMemory, K::Lost, K::Cancelled, K::Rejected] {
        assert_eq!(of(ablation(), Purpose::Full, &[kind, K::Succeeded]), Wanted::Nothing, "{kind:?}");
    }
}

#[test]
fn memory_in_the_smoke_run_is_a_result_only_where_it_was_expected() {
    use OutcomeKind as K;
    assert!(repairs(&of(ablation(), Purpose::Smoke, &[K::Succeeded, K::OutOfMemory])));
    let mut expected = ablation();
    expected.expects_failure = vec!["c2".into()];
    assert_eq!(of(expected, Purpose::Smoke, &[K::Succeeded, K::OutOfMemory]), Wanted::Nothing);
}

#[test]
fn trap_12_a_time_limit_is_raised_for_all_unless_time_is_the_question() {
    use OutcomeKind as K;
    let cut = of(ablation(), Purpose::Full, &[K::Succeeded, K::TimedOut]);
    assert_eq!(cut, Wanted::HigherLimit { variants: vec!["v2".into()] });
    let mut timed = ablation();
    timed.held_equal = vec![crate::campaign::plan::HeldEqual {
        what: crate::campaign::plan::Resource::WallTime,
        tolerance: 0.02,
    }];
    assert_eq!(of(timed, Purpose::Full, &[K::Succeeded, K::TimedOut]), Wanted::Nothing);
    assert!(repairs(&of(ablation(), Purpose::Smoke, &[K::Succeeded, K::TimedOut])));
}

#[test]
fn a_run_that_ends_well_and_has_no_number_is_a_fault() {
    let mut record = record(ablation());
    let mut silent = run("v1", 1, Purpose::Full, OutcomeKind::Succeeded);
    silent.series.clear();
    record.runs.push(silent);
    let Wanted::Repair { failures, .. } = wanted(&record, Purpose::Full) else { panic!("no repair") };
    assert_eq!(failures[0].outcome, "missing_metrics");
}

#[test]
fn failures_tell_outcomes_and_never_metrics() {
    let Wanted::Repair { failures, variants } =
        of(ablation(), Purpose::Smoke, &[OutcomeKind::Failed, OutcomeKind::Failed])
    else {
        panic!("no repair");
    };
    assert_eq!(variants, ["v1", "v2"]);
    let told = serde_json::to_string(&failures).unwrap();
    assert!(told.contains("ValueError") && !told.contains("0.9"), "{told}");
    assert!(!failures[0].advice.is_empty());
    assert_eq!(signature(&failures), signature(&failures[..1]));
}

#[test]
fn an_experiment_can_do_without_a_variant_only_where_a_contrast_is_left() {
    assert!(!voidable(&ablation(), &["v2".into()]));
    let mut three = ablation();
    three.factors[0].scale = crate::campaign::plan::FactorScale::Categorical;
    three.factors[0].levels = ["a", "b", "c"].map(|l| crate::campaign::plan::Scalar::Text(l.into())).to_vec();
    three.contrasts.push(crate::campaign::plan::Contrast {
        id: "other".into(),
        weights: vec![
            crate::campaign::plan::Weight { cell: "c1".into(), weight: -1.0 },
            crate::campaign::plan::Weight { cell: "c3".into(), weight: 1.0 },
        ],
        ..three.contrasts[0].clone()
    });
    assert!(voidable(&three, &["v2".into()]));
    assert!(!voidable(&three, &["v1".into()]));
}
