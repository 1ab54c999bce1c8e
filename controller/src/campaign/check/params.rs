//! Factors, fixed parameters and what goes with a factor's level: the keys and values of `ar.params`.

use std::collections::BTreeSet;

use super::{
    super::plan::{FactorScale, Param, Plan, Reduce, Scalar},
    Faults, VARIANTS_MAX,
};

/// Characters of a textual value.
const TEXT_MAX: usize = 64;
const FIXED_MAX: usize = 40;

/// A key of `ar.params`: `[a-z][a-z0-9_]{0,62}`.
fn key(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 63
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn name(field: &str, name: &str, faults: &mut Faults) {
    faults.unless(key(name), field, format!("`{name}` is no parameter name: [a-z][a-z0-9_]{{0,62}}"));
    let seeds = matches!(name, "seed" | "seeds" | "random_seed" | "random_state");
    faults.unless(!seeds, field, "seeds are issued by the program; no parameter sets one");
    let tells = matches!(name, "variant" | "variant_id" | "arm" | "cell");
    faults.unless(!tells, field, "a program must not be told which variant it is: name what differs");
}

fn value(field: &str, value: &Scalar, faults: &mut Faults) {
    match value {
        Scalar::Number(n) => faults.unless(n.is_finite(), field, "must be finite"),
        Scalar::Text(t) => faults.unless(
            !t.is_empty() && t.chars().count() <= TEXT_MAX && !t.chars().any(char::is_control),
            field,
            format!("1 to {TEXT_MAX} printable characters"),
        ),
        Scalar::Bool(_) | Scalar::Integer(_) => {}
    }
}

/// 1 and 1.0 are the same level.
fn same(a: &Scalar, b: &Scalar) -> bool {
    match (a.number(), b.number()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

pub(super) fn factors(plan: &Plan, faults: &mut Faults) {
    faults.unless((1..=3).contains(&plan.factors.len()), "factors", "1 to 3 factors");
    let mut names = BTreeSet::new();
    for (index, factor) in plan.factors.iter().enumerate() {
        let at = format!("factors[{index}]");
        name(&format!("{at}.param"), &factor.param, faults);
        faults.unless(
            names.insert(&factor.param),
            format!("{at}.param"),
            "a parameter is a factor only once",
        );
        let levels = format!("{at}.levels");
        faults.unless((2..=12).contains(&factor.levels.len()), &levels, "2 to 12 levels");
        for (number, level) in factor.levels.iter().enumerate() {
            value(&format!("{levels}[{number}]"), level, faults);
            let before = &factor.levels[..number];
            faults.unless(!before.iter().any(|other| same(other, level)), &levels, "levels must differ");
        }
        let numbers: Vec<Option<f64>> = factor.levels.iter().map(Scalar::number).collect();
        match factor.scale {
            FactorScale::Categorical => {}
            FactorScale::Linear => faults.unless(
                numbers.iter().all(Option::is_some),
                &levels,
                "levels of a linear factor are numbers; else its scale is categorical",
            ),
            FactorScale::Log => faults.unless(
                numbers.iter().all(|n| n.is_some_and(|n| n > 0.0)),
                &levels,
                "levels of a log factor are numbers over 0",
            ),
        }
    }
    let variants: usize = plan.factors.iter().map(|f| f.levels.len().max(1)).product();
    faults.unless(
        variants <= VARIANTS_MAX,
        "factors",
        format!("{variants} variants are more than the {VARIANTS_MAX} that an experiment may have"),
    );
    if let Some(over) = plan.reduce.over() {
        match plan.factors.iter().find(|f| f.param == over) {
            None => faults.add("reduce.factor", format!("`{over}` is not one of the factors")),
            Some(factor) => {
                let log = matches!(plan.reduce, Reduce::SlopeOver { .. });
                let good = factor.levels.iter().all(|l| l.number().is_some_and(|n| !log || n > 0.0));
                faults.unless(good, "reduce.factor", "its levels must be numbers (over 0 for a slope)");
            }
        }
    }
}

pub(super) fn fixed(plan: &Plan, faults: &mut Faults) {
    faults.unless(plan.fixed_params.len() <= FIXED_MAX, "fixed_params", format!("at most {FIXED_MAX}"));
    let mut names = BTreeSet::new();
    for (index, param) in plan.fixed_params.iter().enumerate() {
        let at = format!("fixed_params[{index}]");
        name(&format!("{at}.name"), &param.name, faults);
        value(&format!("{at}.value"), &param.value, faults);
        faults.unless(names.insert(&param.name), format!("{at}.name"), "a parameter is fixed only once");
        let factor = plan.factors.iter().any(|f| f.param == param.name);
        faults.unless(!factor, format!("{at}.name"), "a parameter is either fixed or a factor");
    }
}

/// What each arm was given by tuning: for every level or for none, so that no arm alone is tuned (METHOD §6, trap 6).
pub(super) fn adjusted(plan: &Plan, faults: &mut Faults) {
    let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (index, adjustment) in plan.adjusted_params.iter().enumerate() {
        let at = format!("adjusted_params[{index}]");
        let Param { name: set, value: to } = &adjustment.set;
        name(&format!("{at}.set.name"), set, faults);
        value(&format!("{at}.set.value"), to, faults);
        let fixed = plan.fixed_params.iter().any(|p| p.name == *set);
        let factor = plan.factors.iter().any(|f| f.param == *set);
        faults.unless(!fixed && !factor, format!("{at}.set.name"), "neither a factor nor fixed");
        match plan.factors.iter().find(|f| f.param == adjustment.when.name) {
            None => faults.add(format!("{at}.when.name"), "must be one of the factors"),
            Some(f) if !f.levels.contains(&adjustment.when.value) => {
                faults.add(format!("{at}.when.value"), "must be one of that factor's levels");
            }
            Some(_) => {
                seen.insert((adjustment.when.name.as_str(), set.as_str()));
            }
        }
    }
    for (by, set) in &seen {
        let Some(factor) = plan.factors.iter().find(|f| f.param == *by) else { continue };
        for level in &factor.levels {
            let given = plan.adjusted_params.iter();
            let given =
                given.filter(|a| a.when.name == *by && a.when.value == *level && a.set.name == *set).count();
            faults.unless(
                given == 1,
                "adjusted_params",
                format!(
                    "`{set}` is given {given} times for {by} = {level}: each level needs exactly one, because an arm \
                     that alone is tuned looks better by that"
                ),
            );
        }
    }
    for (by, set) in &seen {
        let others = seen.iter().filter(|(other, same)| other != by && same == set).count();
        faults.unless(others == 0, "adjusted_params", format!("`{set}` depends on two factors"));
    }
}
