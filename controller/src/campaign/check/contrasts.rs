//! Control, contrasts and claims: the question made computable.

use std::collections::BTreeSet;

use super::{
    super::plan::{Cell, Kind, Plan, Role},
    Faults,
};

/// Weights are given as decimals: thirds add up to 0 only so far.
const WEIGHT_SLACK: f64 = 1e-6;
const CONTRASTS_MAX: usize = 4;

fn ids(cells: &[Cell]) -> String {
    let named: Vec<String> = cells.iter().map(|c| format!("{} ({})", c.id, c.label())).collect();
    named.join(", ")
}

fn needs_control(kind: Kind) -> bool {
    match kind {
        Kind::Ablation | Kind::Comparison | Kind::Equivalence | Kind::Stability => true,
        Kind::Sensitivity | Kind::Scaling => false,
    }
}

pub(super) fn control(plan: &Plan, faults: &mut Faults) {
    let cells = plan.cells();
    match &plan.control {
        None => faults.unless(
            !needs_control(plan.kind),
            "control",
            format!("this kind of experiment needs a control, one of the cells: {}", ids(&cells)),
        ),
        Some(control) => faults.unless(
            cells.iter().any(|cell| cell.id == *control),
            "control",
            format!("`{control}` is no cell; there are: {}", ids(&cells)),
        ),
    }
}

pub(super) fn contrasts(plan: &Plan, faults: &mut Faults) {
    let cells = plan.cells();
    faults.unless(plan.contrasts.len() <= CONTRASTS_MAX, "contrasts", "at most 4");
    let mut names = BTreeSet::new();
    for (index, contrast) in plan.contrasts.iter().enumerate() {
        let at = format!("contrasts[{index}]");
        faults.unless(
            kit::name::check_name(&contrast.id).is_ok(),
            format!("{at}.id"),
            "a short name, like `effect`",
        );
        faults.unless(names.insert(&contrast.id), format!("{at}.id"), "must differ from the others");
        let label = contrast.label.chars().count();
        faults.unless((1..=200).contains(&label), format!("{at}.label"), "1 to 200 characters");
        let mut weighed = BTreeSet::new();
        for (number, weight) in contrast.weights.iter().enumerate() {
            let here = format!("{at}.weights[{number}]");
            faults.unless(
                cells.iter().any(|cell| cell.id == weight.cell),
                format!("{here}.cell"),
                format!("`{}` is no cell; there are: {}", weight.cell, ids(&cells)),
            );
            faults.unless(
                weighed.insert(&weight.cell),
                format!("{here}.cell"),
                "a cell is weighed only once",
            );
            faults.unless(
                weight.weight.is_finite() && weight.weight != 0.0,
                format!("{here}.weight"),
                "finite and not 0",
            );
        }
        let sum: f64 = contrast.weights.iter().map(|w| w.weight).sum();
        let size: f64 = contrast.weights.iter().map(|w| w.weight.abs()).sum();
        let weights = format!("{at}.weights");
        faults.unless(sum.abs() < WEIGHT_SLACK, &weights, format!("must add up to 0, and add up to {sum}"));
        let interaction = (size - 4.0).abs() < WEIGHT_SLACK && contrast.weights.len() >= 4;
        faults.unless(
            (size - 2.0).abs() < WEIGHT_SLACK || interaction,
            &weights,
            format!("their sizes must add up to 2 (4 for an interaction of at least 4 cells), and add up to {size}"),
        );
        if let (true, true, Some(control)) = (contrast.primary, needs_control(plan.kind), &plan.control) {
            faults.unless(
                weighed.contains(control),
                &weights,
                format!("a primary contrast weighs the control, {control}"),
            );
        }
    }
}

pub(super) fn claims(plan: &Plan, faults: &mut Faults) {
    let primary: Vec<&str> = plan.contrasts.iter().filter(|c| c.primary).map(|c| c.id.as_str()).collect();
    if plan.role == Role::Exploratory {
        faults.unless(
            plan.claims.is_empty(),
            "claims",
            "an exploratory experiment claims nothing: must be empty",
        );
        faults.unless(primary.is_empty(), "contrasts", "an exploratory experiment has no primary contrast");
        return;
    }
    faults.unless(
        !primary.is_empty(),
        "contrasts",
        "a confirmatory experiment has at least one primary contrast",
    );
    let claimed: Vec<&str> = plan.claims.iter().map(|c| c.contrast.as_str()).collect();
    faults.unless(
        claimed == primary,
        "claims",
        format!(
            "one for each primary contrast in their order: {}; got: {}",
            primary.join(", "),
            claimed.join(", ")
        ),
    );
    for (index, claim) in plan.claims.iter().enumerate() {
        for (field, text) in [("text", &claim.text), ("refuted_by", &claim.refuted_by)] {
            let length = text.trim().chars().count();
            faults.unless(
                (1..=600).contains(&length),
                format!("claims[{index}].{field}"),
                "1 to 600 characters",
            );
        }
    }
}

pub(super) fn expected_failures(plan: &Plan, faults: &mut Faults) {
    let cells = plan.cells();
    for (index, id) in plan.expects_failure.iter().enumerate() {
        faults.unless(
            cells.iter().any(|cell| cell.id == *id),
            format!("expects_failure[{index}]"),
            format!("`{id}` is no cell; there are: {}", ids(&cells)),
        );
    }
    // Of a stability experiment every cell may fail somewhere on its way over the reduced factor.
    let all = plan.kind != Kind::Stability
        && !cells.is_empty()
        && cells.iter().all(|cell| plan.expects_failure.contains(&cell.id));
    faults.unless(!all, "expects_failure", "if every cell may fail, nothing can be learnt");
}
