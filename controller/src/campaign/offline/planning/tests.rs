//! Whole campaigns with scripted results: what is planned next, and that every plan is sound.

use super::super::super::plan::{Plan, Predicts, Reduce, Scalar, SetBy, Split};
use super::super::super::researcher::{BudgetLeft, ContrastResult, Finding, VariantResult, Wishes, Workers};
use super::super::catalogue::CATALOGUE;
use super::*;

const BATCH_NORM: &str = "Does batch normalisation help a small MLP on digits?";
const PLACEMENT: &str = "Does residual connection placement affect training stability in small transformers?";

fn context(question: &str, max_iterations: u32) -> PlanContext {
    PlanContext {
        question: question.to_owned(),
        iteration: 1,
        max_iterations,
        confirmatory_left: 3,
        findings: Vec::new(),
        dead_ends: Vec::new(),
        experiments: Vec::new(),
        workers: Workers { slots: 2, ..Workers::default() },
        budget: BudgetLeft::default(),
        wishes: Wishes::default(),
        hints: Vec::new(),
        faults: Vec::new(),
    }
}

fn plan_next(context: &PlanContext) -> Result<Planned, ResearchError> {
    let topic = Topic::of(&context.question, context.wishes.data_set.as_deref()).unwrap();
    next(&topic, context)
}

fn experiment(context: &PlanContext) -> Plan {
    match plan_next(context).unwrap() {
        Planned::Experiment(plan) => {
            assert_sound(&plan);
            *plan
        }
        Planned::Finished { reason } => panic!("finished: {reason}"),
    }
}

fn reason(context: &PlanContext) -> String {
    match plan_next(context).unwrap() {
        Planned::Finished { reason } => reason,
        Planned::Experiment(plan) => panic!("planned: {}", plan.title),
    }
}

/// Closes an experiment: each variant's mean by the given rule, each contrast with the given interval.
fn close(
    context: &mut PlanContext,
    plan: Plan,
    mean: impl Fn(&serde_json::Value) -> f64,
    interval: (f64, f64),
) {
    let id = format!("e{}", context.experiments.len() + 1);
    let variants = plan.variants();
    let variants = variants.iter().map(|variant| VariantResult {
        variant: variant.id.clone(),
        cell: variant.cell.clone(),
        seeds: 5,
        failed: 0,
        mean: Some(mean(&serde_json::Value::Object(variant.params.clone()))),
        deviation: Some(0.01),
        seconds: Some(4.0),
    });
    let contrasts = plan.contrasts.iter().map(|contrast| ContrastResult {
        contrast: contrast.id.clone(),
        estimate: Some((interval.0 + interval.1) / 2.0),
        low: Some(interval.0),
        high: Some(interval.1),
        verdict: Some(if interval.0 > 0.0 { "supported" } else { "inconclusive" }.to_owned()),
    });
    let closed = ClosedExperiment {
        id: id.clone(),
        variants: variants.collect(),
        contrasts: contrasts.collect(),
        plan,
    };
    if closed.plan.role == Role::Confirmatory {
        context.confirmatory_left -= 1;
    }
    context.findings.push(Finding {
        id: format!("f{}", context.findings.len() + 1),
        experiment: id,
        text: "by rule".to_owned(),
        verdict: "exploratory".to_owned(),
    });
    context.experiments.push(closed);
    context.iteration += 1;
}

/// Best at 0.1 with batch norm, at 0.03 without.
fn inside_the_grid(params: &serde_json::Value) -> f64 {
    let best: f64 = if params["batch_norm"] == true { 0.1 } else { 0.03 };
    0.95 - 0.05 * (params["lr"].as_f64().unwrap() / best).log10().abs()
}

/// What METHOD and the plan's own comments ask of every plan.
fn assert_sound(plan: &Plan) {
    assert!((1..=3).contains(&plan.factors.len()));
    for factor in &plan.factors {
        assert!((2..=12).contains(&factor.levels.len()), "{}", factor.param);
        for (index, level) in factor.levels.iter().enumerate() {
            assert!(!factor.levels[..index].contains(level), "{} twice", level);
        }
        assert!(!plan.fixed_params.iter().any(|param| param.name == factor.param), "{}", factor.param);
    }
    let product: usize = plan.factors.iter().map(|factor| factor.levels.len()).product();
    let variants = plan.variants();
    assert_eq!(variants.len(), product);
    let rates: Vec<&serde_json::Value> =
        variants.iter().filter_map(|variant| variant.params.get("lr")).collect();
    assert_eq!(rates.len(), product, "every variant has a learning rate");
    let cells: Vec<String> = plan.cells().into_iter().map(|cell| cell.id).collect();
    assert!(plan.control.iter().chain(&plan.expects_failure).all(|cell| cells.contains(cell)));
    for contrast in &plan.contrasts {
        let weights: Vec<f64> = contrast.weights.iter().map(|weight| weight.weight).collect();
        assert_eq!(weights.iter().sum::<f64>(), 0.0);
        assert_eq!(weights.iter().map(|weight| weight.abs()).sum::<f64>(), 2.0);
        assert!(contrast.weights.iter().all(|weight| cells.contains(&weight.cell)));
    }
    let primary: Vec<&str> = plan.contrasts.iter().filter(|c| c.primary).map(|c| c.id.as_str()).collect();
    let claimed: Vec<&str> = plan.claims.iter().map(|claim| claim.contrast.as_str()).collect();
    assert_eq!(primary, claimed);
    assert!(plan.contrasts.len() <= 4 && plan.secondary.len() <= 5);
    assert!(plan.smallest_effect.value > 0.0 && plan.failed_runs_count_as.is_finite());
    assert!(plan.looks.windows(2).all(|pair| pair[0] < pair[1]) && !plan.looks.is_empty());
    assert!(!plan.title.is_empty() && !plan.rationale.is_empty() && !plan.conditions.is_empty());
    let evaluate = &plan.fixed_params.iter().find(|param| param.name == "evaluate").unwrap().value;
    match plan.role {
        Role::Exploratory => {
            assert!(plan.claims.is_empty() && plan.contrasts.is_empty() && plan.looks.len() == 1);
            assert_eq!(plan.metric.split, Split::Validation);
            assert_eq!(*evaluate, Scalar::Text("validation".to_owned()));
        }
        Role::Confirmatory => {
            assert!(!plan.claims.is_empty());
            assert_eq!(plan.metric.split, Split::Test);
            assert_eq!(*evaluate, Scalar::Text("test".to_owned()));
            assert_eq!(plan.control.is_none(), plan.kind == Kind::Sensitivity);
        }
    }
}

fn runs_of(plan: &Plan) -> u32 {
    plan.variants().len() as u32 * plan.looks.last().unwrap()
}

#[test]
fn batch_norm_goes_from_exploration_to_confirmation_to_another_width() {
    let mut context = context(BATCH_NORM, 3);
    let explore = experiment(&context);
    assert_eq!(
        (explore.role, explore.looks.clone(), explore.variants().len()),
        (Role::Exploratory, vec![3], 10)
    );
    assert_eq!(explore.metric.name, "val_accuracy");
    let mut total = runs_of(&explore);
    close(&mut context, explore, inside_the_grid, (0.0, 0.0));

    let confirm = experiment(&context);
    assert_eq!((confirm.kind, confirm.role), (Kind::Ablation, Role::Confirmatory));
    assert_eq!(confirm.looks, [5, 10]);
    assert_eq!(confirm.metric.name, "test_accuracy");
    assert_eq!(confirm.motivated_by, ["f1"]);
    let rates: Vec<f64> = confirm.variants().iter().map(|v| v.params["lr"].as_f64().unwrap()).collect();
    assert_eq!(rates, [0.03, 0.1], "each arm at the rate that it chose");
    assert_eq!(confirm.claims[0].predicts, Predicts::Increase);
    assert_eq!((confirm.smallest_effect.value, confirm.smallest_effect.set_by), (0.005, SetBy::Table));
    assert!(!confirm.conditions.contains("edge"), "{}", confirm.conditions);
    total += runs_of(&confirm);
    close(&mut context, confirm, |_| 0.9, (0.01, 0.03));

    let follow = experiment(&context);
    assert!(follow.fixed_params.iter().any(|p| p.name == "width" && p.value == Scalar::Integer(64)));
    assert!(follow.rationale.contains("e2 found a difference"), "{}", follow.rationale);
    assert_eq!(follow.motivated_by, ["f2"]);
    total += runs_of(&follow);
    assert!(total <= 75, "{total} runs");
    close(&mut context, follow, |_| 0.9, (0.01, 0.03));
    assert!(reason(&context).contains("iteration"));
}

#[test]
fn without_a_difference_the_follow_up_looks_where_one_is_likelier() {
    let mut context = context(BATCH_NORM, 3);
    let explore = experiment(&context);
    close(&mut context, explore, inside_the_grid, (0.0, 0.0));
    let confirm = experiment(&context);
    close(&mut context, confirm, |_| 0.9, (-0.01, 0.02));
    let follow = experiment(&context);
    assert!(follow.fixed_params.iter().any(|p| p.name == "depth" && p.value == Scalar::Integer(4)));
    assert!(follow.rationale.contains("found no difference that it could be sure of"));
}

#[test]
fn a_choice_at_the_edge_widens_the_grid_for_both_arms_once() {
    let mut context = context(BATCH_NORM, 4);
    let explore = experiment(&context);
    // The lower the better, in every arm and beyond every edge.
    let lower = |params: &serde_json::Value| 0.9 - 0.1 * params["lr"].as_f64().unwrap().log10();
    close(&mut context, explore, lower, (0.0, 0.0));
    let wider = experiment(&context);
    assert_eq!(wider.role, Role::Exploratory);
    assert_eq!(wider.factors[0].levels.len(), 2, "both arms");
    assert_eq!(wider.factors[1].levels, [Scalar::Number(0.0003), Scalar::Number(0.001)], "only what is new");
    close(&mut context, wider, lower, (0.0, 0.0));
    let confirm = experiment(&context);
    assert_eq!(confirm.role, Role::Confirmatory, "at most once");
    assert!(confirm.conditions.contains("edge"), "{}", confirm.conditions);
    assert_eq!(confirm.variants()[0].params["lr"], 0.0003);
}

#[test]
fn with_two_iterations_an_edge_is_said_and_not_followed() {
    let mut context = context(BATCH_NORM, 2);
    let explore = experiment(&context);
    close(&mut context, explore, |params| -params["lr"].as_f64().unwrap(), (0.0, 0.0));
    let confirm = experiment(&context);
    assert_eq!(confirm.role, Role::Confirmatory);
    assert!(confirm.conditions.contains("edge"));
}

#[test]
fn a_single_iteration_is_confirmatory_and_says_that_nothing_was_tuned() {
    let mut context = context(BATCH_NORM, 1);
    context.wishes.seeds = Some(3);
    let plan = experiment(&context);
    assert_eq!((plan.role, plan.looks.clone()), (Role::Confirmatory, vec![3]));
    assert!(plan.adjusted_params.is_empty() && plan.conditions.contains("not tuned"));
    assert!(plan.rationale.contains("not tuned"));
}

#[test]
fn an_exploration_without_a_single_number_falls_back_to_the_usual_rate() {
    let mut context = context(BATCH_NORM, 3);
    let explore = experiment(&context);
    close(&mut context, explore, |_| 0.5, (0.0, 0.0));
    context.experiments[0].variants.iter_mut().for_each(|variant| variant.mean = None);
    let plan = experiment(&context);
    assert_eq!(plan.role, Role::Confirmatory);
    assert!(plan.conditions.contains("not tuned"));
}

#[test]
fn wishes_are_followed_and_named() {
    let mut context = context(BATCH_NORM, 3);
    context.wishes.smallest_effect = Some("1pt".to_owned());
    let plan = experiment(&context);
    assert_eq!((plan.smallest_effect.value, plan.smallest_effect.set_by), (0.01, SetBy::User));
    context.wishes.smallest_effect = Some("2%".to_owned());
    assert!(plan_next(&context).unwrap_err().to_string().contains("--smallest-effect 2%"));
}

#[test]
fn the_learning_rate_has_no_control_and_is_compared_at_both_ends() {
    let mut context = context("How sensitive is a small MLP to its learning rate?", 3);
    let explore = experiment(&context);
    assert_eq!(explore.variants().len(), 7);
    close(&mut context, explore, inside_the_grid, (0.0, 0.0));
    let confirm = experiment(&context);
    assert_eq!((confirm.kind, confirm.control.clone()), (Kind::Sensitivity, None));
    let levels: Vec<f64> = confirm.factors[0].levels.iter().filter_map(Scalar::number).collect();
    assert_eq!(levels, [0.003, 0.01, 0.03, 0.1, 0.3]);
    let ends: Vec<&str> = confirm.contrasts.iter().map(|contrast| contrast.id.as_str()).collect();
    assert_eq!(ends, ["low_end", "high_end"]);
    assert_eq!(
        confirm.contrasts[1].weights.iter().map(|w| w.cell.as_str()).collect::<Vec<_>>(),
        ["c3", "c5"]
    );
}

#[test]
fn stability_is_sensitivity_to_the_rate_and_failures_are_results() {
    let mut context = context(PLACEMENT, 3);
    let plan = experiment(&context);
    assert_eq!((plan.kind, plan.role, plan.looks.clone()), (Kind::Stability, Role::Confirmatory, vec![5]));
    assert_eq!(plan.reduce, Reduce::GapToBestOver { factor: "lr".to_owned() });
    assert_eq!((plan.variants().len(), plan.cells().len()), (14, 2));
    assert_eq!(plan.expects_failure, ["c1", "c2"]);
    assert_eq!(plan.metric.name, "test_loss");
    assert_eq!(plan.failed_runs_count_as, plan.metric.trivial);
    assert_eq!(plan.claims[0].predicts, Predicts::Increase, "post-norm is expected to be worse");
    assert!(plan.contrasts[0].label.starts_with("with the norm after"));
    close(&mut context, plan, |_| 3.0, (0.05, 0.2));
    let follow = experiment(&context);
    assert!(follow.fixed_params.iter().any(|p| p.name == "warmup" && p.value == Scalar::Integer(40)));
    close(&mut context, follow, |_| 3.0, (-0.01, 0.2));
    let deeper = experiment(&context);
    assert!(deeper.fixed_params.iter().any(|p| p.name == "depth" && p.value == Scalar::Integer(8)));
}

#[test]
fn a_budget_shrinks_the_plan_and_then_ends_it() {
    let mut tight = context(BATCH_NORM, 3);
    tight.budget.device_seconds = Some(280.0);
    assert_eq!(experiment(&tight).variants().len(), 6, "three rates in place of five");
    tight.budget.device_seconds = Some(120.0);
    let only = experiment(&tight);
    assert_eq!((only.role, only.looks), (Role::Confirmatory, vec![5]));
    tight.budget.device_seconds = Some(1.0);
    assert_eq!(experiment(&tight).looks, [5], "a guess refuses nothing");

    let mut measured = context(BATCH_NORM, 3);
    let explore = experiment(&measured);
    close(&mut measured, explore, inside_the_grid, (0.0, 0.0));
    measured.budget.seconds = Some(40.0);
    assert_eq!(experiment(&measured).looks, [5], "18 runs of 4 s fit one look on 2 slots");
    measured.budget.seconds = Some(10.0);
    assert!(reason(&measured).contains("budget"));
}

#[test]
fn no_confirmatory_experiment_is_planned_without_error_to_spend() {
    for question in [BATCH_NORM, PLACEMENT] {
        let mut context = context(question, 9);
        context.confirmatory_left = 0;
        assert!(reason(&context).contains("confirmatory"));
    }
}

#[test]
fn every_row_of_the_catalogue_gives_a_campaign_of_sound_plans_that_ends() {
    for entry in CATALOGUE {
        for design in entry.designs {
            let mut question = format!("Does {} matter in training", entry.strong[0].trim_end_matches('*'));
            if let [first, second] = entry.instead_of {
                question = format!("{} {}", first.replace('_', " "), second.replace('_', " "));
            }
            for end in ["", ", is it stable", ", are they equivalent"] {
                let mut context = context(&format!("{question}{end}?"), 9);
                context.confirmatory_left = 8;
                context.wishes.data_set = Some(program(design.program).data_set.to_owned());
                let mut planned = 0;
                while let Planned::Experiment(plan) = plan_next(&context).unwrap() {
                    assert_sound(&plan);
                    close(
                        &mut context,
                        *plan,
                        |params| -(params["lr"].as_f64().unwrap() - 0.01).abs(),
                        (0.01, 0.02),
                    );
                    planned += 1;
                }
                assert!((2..9).contains(&planned), "{question}{end}: {planned}");
            }
        }
    }
}
