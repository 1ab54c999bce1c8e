//! One bent plan for each rule, and the field that the fault names.

use super::{
    super::{
        fixtures::{ablation, effect, exploratory, param, stability},
        plan::*,
        researcher::DataSetInfo,
    },
    *,
};

struct Scene {
    workers: Workers,
    wishes: Wishes,
    budget: BudgetLeft,
    findings: Vec<String>,
    known: Known,
    iteration: u32,
    confirmatory_left: u32,
}

impl Scene {
    fn new() -> Self {
        let data_sets = vec![DataSetInfo {
            name: "digits".into(),
            description: "1,797 digits".into(),
            size: "1 file, 1MiB".into(),
            digest: String::new(),
            smallest_effect: None,
        }];
        Self {
            workers: Workers { slots: 2, data_sets, ..Workers::default() },
            wishes: Wishes::default(),
            budget: BudgetLeft::default(),
            findings: vec![],
            known: Known::default(),
            iteration: 1,
            confirmatory_left: 2,
        }
    }

    fn check(&self, plan: Plan) -> Result<Sound, Vec<Fault>> {
        check(
            plan,
            &Against {
                workers: &self.workers,
                wishes: &self.wishes,
                budget: &self.budget,
                iteration: self.iteration,
                confirmatory_left: self.confirmatory_left,
                findings: &self.findings,
                known: self.known,
                longest_seconds: 600,
                largest_memory: 4 << 30,
            },
        )
    }
}

fn bent(from: Plan, bend: impl FnOnce(&mut Plan)) -> Vec<Fault> {
    let mut plan = from;
    bend(&mut plan);
    Scene::new().check(plan).expect_err("the plan should be sent back")
}

#[track_caller]
fn faulty(field: &str, from: Plan, bend: impl FnOnce(&mut Plan)) {
    let faults = bent(from, bend);
    assert!(faults.iter().any(|f| f.field == field), "no fault at {field}: {faults:#?}");
}

#[test]
fn sound_plans_pass() {
    for plan in [ablation(), exploratory(), stability()] {
        let sound = Scene::new().check(plan.clone());
        assert!(sound.is_ok(), "{}: {:#?}", plan.title, sound);
    }
}

#[test]
fn texts_are_there_and_bounded() {
    faulty("title", ablation(), |p| p.title = " ".into());
    faulty("rationale", ablation(), |p| p.rationale = "x".repeat(5000));
    faulty("conditions", ablation(), |p| p.conditions.clear());
    faulty("smallest_effect.why", ablation(), |p| p.smallest_effect.why.clear());
}

#[test]
fn factors_are_one_to_three_with_two_to_twelve_levels_that_differ() {
    faulty("factors", ablation(), |p| p.factors.clear());
    faulty("factors", ablation(), |p| p.factors = vec![p.factors[0].clone(); 4]);
    faulty("factors[0].levels", ablation(), |p| p.factors[0].levels.truncate(1));
    faulty("factors[0].levels", ablation(), |p| {
        p.factors[0].levels = (0..13).map(Scalar::Integer).collect();
    });
    faulty("factors[0].levels", ablation(), |p| {
        p.factors[0].levels = vec![Scalar::Integer(1), Scalar::Number(1.0)];
    });
    faulty("factors[0].levels[1]", ablation(), |p| p.factors[0].levels[1] = Scalar::Number(f64::NAN));
    faulty("factors[0].levels", ablation(), |p| p.factors[0].scale = FactorScale::Linear);
    faulty("factors[1].levels", stability(), |p| p.factors[1].levels[0] = Scalar::Number(0.0));
    faulty("factors[0].param", ablation(), |p| p.factors[0].param = "Batch Norm".into());
    faulty("factors[0].param", ablation(), |p| p.factors[0].param = "seed".into());
    faulty("factors[0].param", ablation(), |p| p.factors[0].param = "variant_id".into());
    faulty("factors", stability(), |p| {
        p.factors[0].levels = (0..12).map(Scalar::Integer).collect();
        p.factors[1].levels = (1..=12).map(Scalar::Integer).collect();
    });
}

#[test]
fn a_parameter_is_fixed_or_a_factor_and_only_once() {
    faulty("fixed_params[0].name", ablation(), |p| p.fixed_params[0].name = "batch_norm".into());
    faulty("fixed_params[1].name", ablation(), |p| p.fixed_params.push(p.fixed_params[0].clone()));
    faulty("fixed_params[0].value", ablation(), |p| p.fixed_params[0].value = Scalar::Text("a\nb".into()));
}

#[test]
fn trap_6_no_arm_alone_is_tuned() {
    let tuned = |level: bool, lr: f64| Adjustment {
        when: param("batch_norm", Scalar::Bool(level)),
        set: param("lr", Scalar::Number(lr)),
    };
    faulty("adjusted_params", ablation(), |p| p.adjusted_params = vec![tuned(true, 0.1)]);
    faulty("adjusted_params", ablation(), |p| {
        p.adjusted_params = vec![tuned(true, 0.1), tuned(true, 0.2), tuned(false, 0.1)];
    });
    faulty("adjusted_params[0].when.name", ablation(), |p| {
        p.adjusted_params = vec![Adjustment {
            when: param("width", Scalar::Integer(64)),
            set: param("lr", Scalar::Number(0.1)),
        }];
    });
    faulty("adjusted_params[0].set.name", ablation(), |p| {
        let set = param("width", Scalar::Integer(32));
        p.adjusted_params = vec![Adjustment { when: param("batch_norm", Scalar::Bool(true)), set }];
    });
    let mut both = ablation();
    both.adjusted_params = vec![tuned(true, 0.1), tuned(false, 0.01)];
    assert!(Scene::new().check(both).is_ok());
}

#[test]
fn the_control_is_a_cell_and_is_there_where_the_kind_needs_it() {
    faulty("control", ablation(), |p| p.control = None);
    faulty("control", ablation(), |p| p.control = Some("v1".into()));
    let mut sensitivity = ablation();
    sensitivity.kind = Kind::Sensitivity;
    sensitivity.control = None;
    assert!(Scene::new().check(sensitivity).is_ok());
}

#[test]
fn contrasts_add_up() {
    faulty("contrasts[0].weights", ablation(), |p| p.contrasts[0].weights[0].weight = -0.5);
    faulty("contrasts[0].weights", ablation(), |p| {
        for weight in &mut p.contrasts[0].weights {
            weight.weight *= 2.0;
        }
    });
    faulty("contrasts[0].weights[1].cell", ablation(), |p| p.contrasts[0].weights[1].cell = "c9".into());
    faulty("contrasts[0].weights[1].cell", ablation(), |p| p.contrasts[0].weights[1].cell = "c1".into());
    faulty("contrasts[0].weights[0].weight", ablation(), |p| p.contrasts[0].weights[0].weight = f64::NAN);
    faulty("contrasts[1].id", ablation(), |p| p.contrasts.push(effect(false)));
    faulty("contrasts", ablation(), |p| {
        p.contrasts = (0..5).map(|i| Contrast { id: format!("e{i}"), ..effect(false) }).collect();
    });
    faulty("contrasts[0].weights", ablation(), |p| {
        p.factors[0].scale = FactorScale::Linear;
        p.factors[0].levels = (0..3).map(Scalar::Integer).collect();
        p.control = Some("c3".into());
    });
}

#[test]
fn claims_follow_the_primary_contrasts_in_order() {
    faulty("claims", ablation(), |p| p.claims.clear());
    faulty("claims", ablation(), |p| p.claims[0].contrast = "other".into());
    faulty("claims[0].text", ablation(), |p| p.claims[0].text = String::new());
    faulty("contrasts", ablation(), |p| p.contrasts[0].primary = false);
    faulty("claims", exploratory(), |p| p.claims = ablation().claims);
    faulty("contrasts", exploratory(), |p| p.contrasts = vec![effect(true)]);
    faulty("claims", ablation(), |p| p.kind = Kind::Equivalence);
}

#[test]
fn trap_14_the_metric_points_the_right_way() {
    faulty("metric.better", stability(), |p| {
        p.metric.better = Better::Higher;
        p.metric.highest = Some(9.0);
    });
    faulty("metric.better", ablation(), |p| p.metric.better = Better::Lower);
}

#[test]
fn the_metric_is_finite_and_in_its_range() {
    faulty("metric.name", ablation(), |p| p.metric.name = "a b".into());
    faulty("metric.unit", ablation(), |p| p.metric.unit.clear());
    faulty("metric.trivial", ablation(), |p| p.metric.trivial = f64::INFINITY);
    faulty("metric.trivial", ablation(), |p| p.metric.trivial = 1.5);
    faulty("metric.trivial", ablation(), |p| p.metric.trivial = 1.0);
    faulty("metric.lowest", ablation(), |p| p.metric.lowest = Some(2.0));
    faulty("metric.unit", ablation(), |p| p.metric.highest = Some(100.0));
    faulty("metric.scale", stability(), |p| {
        p.metric.scale = MetricScale::Log;
        p.metric.lowest = None;
    });
    faulty("metric.source", ablation(), |p| p.metric.source = Source::Scored);
    faulty("metric.split", ablation(), |p| p.metric.split = Split::Validation);
    faulty("metric.split", exploratory(), |p| p.metric.split = Split::Test);
}

#[test]
fn trap_10_the_best_step_is_not_chosen_on_the_test() {
    let at_best =
        |by: &str| Reduce::AtBestValidation { validation_metric: by.into(), better: Better::Higher };
    let field = "reduce.validation_metric";
    faulty(field, ablation(), |p| p.reduce = at_best("test_accuracy"));
    faulty(field, ablation(), |p| p.reduce = at_best("test_acc_5"));
    let mut good = ablation();
    good.reduce = at_best("val_accuracy");
    assert!(Scene::new().check(good).is_ok());
}

#[test]
fn reductions_have_sound_parameters() {
    faulty("reduce.count", ablation(), |p| p.reduce = Reduce::MeanLast { count: 0 });
    let steps = |threshold, sustain, horizon| Reduce::StepsTo { threshold, sustain, horizon };
    faulty("reduce.horizon", ablation(), |p| p.reduce = steps(0.9, 1, 101));
    faulty("reduce.threshold", ablation(), |p| p.reduce = steps(f64::NAN, 1, 100));
    faulty("reduce.sustain", ablation(), |p| p.reduce = steps(0.9, 0, 100));
    faulty("reduce.factor", ablation(), |p| p.reduce = Reduce::SlopeOver { factor: "width".into() });
    faulty("reduce.factor", stability(), |p| p.reduce = Reduce::SlopeOver { factor: "placement".into() });
}

#[test]
fn trap_3_a_huge_margin_is_capped_and_said() {
    let mut plan = ablation();
    plan.smallest_effect.value = 0.1;
    let sound = Scene::new().check(plan.clone()).unwrap();
    assert_eq!(sound.plan.smallest_effect.value, 0.01);
    assert!(sound.notes.iter().any(|n| n.contains("cap")), "{:?}", sound.notes);

    // A fifth of the control's error is less than a point where the control is good.
    let scene = Scene { known: Known { control: Some(0.98), ..Known::default() }, ..Scene::new() };
    assert!((scene.check(plan).unwrap().plan.smallest_effect.value - 0.004).abs() < 1e-12);

    let mut loss = stability();
    loss.smallest_effect.value = 1.0;
    assert!((Scene::new().check(loss).unwrap().plan.smallest_effect.value - 0.03).abs() < 1e-12);
    faulty("smallest_effect.value", ablation(), |p| p.smallest_effect.value = 0.0);
    faulty("smallest_effect.value", ablation(), |p| p.smallest_effect.value = f64::NAN);
}

#[test]
fn the_user_goes_before_the_table_and_the_table_before_the_model() {
    let mut scene = Scene::new();
    scene.workers.data_sets[0].smallest_effect = Some(0.004);
    let by_table = scene.check(ablation()).unwrap().plan.smallest_effect;
    assert_eq!((by_table.value, by_table.set_by), (0.004, SetBy::Table));
    scene.wishes.smallest_effect = Some("2pt".into());
    let by_user = scene.check(ablation()).unwrap().plan.smallest_effect;
    assert_eq!((by_user.value, by_user.set_by), (0.02, SetBy::User));
    let mut claimed = ablation();
    claimed.smallest_effect.set_by = SetBy::User;
    assert_eq!(Scene::new().check(claimed).unwrap().plan.smallest_effect.set_by, SetBy::Model);
    let points_of_nats = scene.check(stability()).unwrap_err();
    assert!(points_of_nats[0].problem.contains("nats"), "{points_of_nats:?}");
}

#[test]
fn a_seed_varies_init_and_order_and_split_is_paired() {
    faulty("replicate", ablation(), |p| p.replicate = vec![Stream::Init, Stream::Split]);
    faulty("replicate", ablation(), |p| p.replicate.push(Stream::Init));
    faulty("pairing", ablation(), |p| p.pairing = Pairing::None);
    faulty("split_sizes", ablation(), |p| p.split_sizes = None);
    faulty("split_sizes", ablation(), |p| p.split_sizes = Some(SplitSizes { train: 0, test: 1 }));
    faulty("split_sizes", ablation(), |p| p.replicate = vec![Stream::Init, Stream::Order]);
}

#[test]
fn looks_rise_and_begin_at_five_unless_the_user_asks() {
    faulty("looks", ablation(), |p| p.looks = vec![]);
    faulty("looks", ablation(), |p| p.looks = vec![10, 5]);
    faulty("looks", ablation(), |p| p.looks = vec![5, 10, 20, 40]);
    faulty("looks", ablation(), |p| p.looks = vec![101]);
    faulty("looks[0]", ablation(), |p| p.looks = vec![3]);
    faulty("looks", exploratory(), |p| p.looks = vec![3, 5]);
    faulty("looks[0]", exploratory(), |p| p.looks = vec![1]);
    let mut scene = Scene::new();
    scene.wishes.seeds = Some(3);
    let sound = scene.check(ablation()).unwrap();
    assert_eq!(sound.plan.looks, [3]);
    assert!(sound.notes[0].contains("--seeds"));
}

#[test]
fn what_is_held_equal_has_a_tolerance() {
    let steps = |tolerance| HeldEqual { what: Resource::Steps, tolerance };
    faulty("held_equal[0].tolerance", ablation(), |p| p.held_equal = vec![steps(0.9)]);
    faulty("held_equal[1].what", ablation(), |p| p.held_equal = vec![steps(0.02), steps(0.02)]);
}

#[test]
fn a_failed_run_counts_as_a_registered_value() {
    faulty("failed_runs_count_as", ablation(), |p| p.failed_runs_count_as = 0.5);
    faulty("failed_runs_count_as", ablation(), |p| p.failed_runs_count_as = f64::NAN);
    let mut worst = ablation();
    worst.failed_runs_count_as = 0.0;
    assert!(Scene::new().check(worst).is_ok());
    let rule = |factor, values| Some(WorseThanTrivial { factor, values });
    faulty("diverged_when.worse_than_trivial.factor", ablation(), |p| {
        p.diverged_when.worse_than_trivial = rule(1.0, 3)
    });
    faulty("diverged_when.worse_than_trivial.values", ablation(), |p| {
        p.diverged_when.worse_than_trivial = rule(2.0, 0)
    });
    faulty("diverged_when.metrics[0]", ablation(), |p| p.diverged_when.metrics = vec![String::new()]);
}

#[test]
fn limits_stay_within_the_workers_largest() {
    faulty("limits.steps", ablation(), |p| p.limits.steps = 0);
    faulty("limits.time_seconds", ablation(), |p| p.limits.time_seconds = 601);
    faulty("limits.memory_mib", ablation(), |p| p.limits.memory_mib = Some(8192));
}

#[test]
fn expected_failures_are_cells_and_not_all_of_them() {
    faulty("expects_failure[0]", ablation(), |p| p.expects_failure = vec!["c7".into()]);
    faulty("expects_failure", ablation(), |p| p.expects_failure = vec!["c1".into(), "c2".into()]);
}

#[test]
fn the_data_set_is_there_and_the_users() {
    faulty("data_set", ablation(), |p| p.data_set = "imagenet".into());
    let mut scene = Scene::new();
    scene.wishes.data_set = Some("austen".into());
    assert!(scene.check(ablation()).unwrap_err().iter().any(|f| f.field == "data_set"));
}

#[test]
fn at_most_so_many_confirmatory_experiments() {
    let scene = Scene { confirmatory_left: 0, ..Scene::new() };
    assert!(scene.check(ablation()).unwrap_err().iter().any(|f| f.field == "role"));
    assert!(scene.check(exploratory()).is_ok());
}

#[test]
fn a_follow_up_names_what_it_follows_from() {
    let scene = Scene { iteration: 2, findings: vec!["f1".into()], ..Scene::new() };
    assert!(scene.check(ablation()).unwrap_err().iter().any(|f| f.field == "motivated_by"));
    let mut plan = ablation();
    plan.motivated_by = vec!["f1".into()];
    assert!(scene.check(plan).is_ok());
    faulty("motivated_by[0]", ablation(), |p| p.motivated_by = vec!["f9".into()]);
}

#[test]
fn what_the_budget_cannot_pay_is_sent_back() {
    let mut scene = Scene::new();
    scene.budget.seconds = Some(99.0); // 2 variants × 5 seeds × 20 s over 2 slots: 100 s
    assert!(scene.check(ablation()).unwrap_err().iter().any(|f| f.field == "factors"));
    scene.budget.seconds = Some(101.0);
    assert!(scene.check(ablation()).is_ok());
    scene.budget.device_seconds = Some(199.0);
    assert!(scene.check(ablation()).is_err());
    scene.known.seconds = Some(2.0);
    assert!(scene.check(ablation()).is_ok(), "what a run took before counts more than a third of its limit");
}

#[test]
fn packages_are_names_with_versions_and_no_places() {
    for wrong in ["../x", "-r x", "https://example.org/x.whl", "x @ y", ""] {
        faulty("packages[1]", ablation(), |plan| plan.packages = vec!["einops==0.8.0".into(), wrong.into()]);
    }
    faulty("packages", ablation(), |plan| plan.packages = vec!["x".into(); 33]);
}
