//! `reference/reference.json` is what SciPy and statsmodels say (`reference/make.py`); we must agree to 10⁻⁶ of the
//! value's size.

use serde::Deserialize;

use crate::stats::{
    Aim, Better, Cell, Estimate, Layout, Observed, Point, SplitSizes,
    binomial::wilson,
    boschloo, clopper_pearson, detectable,
    distributions::t_critical,
    independent, newcombe, paired, rank_check,
    reduce::{area, slope_over},
    spread_upper_limit,
};

#[derive(Deserialize)]
struct Reference {
    welch: Vec<Welch>,
    contrasts: Vec<Contrasts>,
    paired: Vec<Paired>,
    t_quantiles: Vec<TQuantile>,
    clopper_pearson: Vec<Share>,
    wilson: Vec<Share>,
    newcombe: Vec<TwoShares>,
    boschloo: Vec<TwoShares>,
    ranks: Vec<Ranks>,
    spread_limits: Vec<SpreadLimit>,
    paired_effects: Vec<PairedEffect>,
    slopes: Vec<Slope>,
    areas: Vec<Area>,
}

#[derive(Deserialize)]
struct Welch {
    control: Vec<f64>,
    treatment: Vec<f64>,
    error: f64,
    theta: f64,
    standard_error: f64,
    df: f64,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct Contrasts {
    coefficients: Vec<f64>,
    cells: Vec<Vec<f64>>,
    error: f64,
    theta: f64,
    df: f64,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct Paired {
    control: Vec<f64>,
    treatment: Vec<f64>,
    error: f64,
    df: f64,
    low: f64,
    high: f64,
    train: u64,
    test: u64,
    corrected_low: f64,
    corrected_high: f64,
}

#[derive(Deserialize)]
struct TQuantile {
    error: f64,
    df: f64,
    t: f64,
}

#[derive(Deserialize)]
struct Share {
    k: u64,
    n: u64,
    error: f64,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct TwoShares {
    k1: u64,
    n1: u64,
    k2: u64,
    n2: u64,
    #[serde(default)]
    error: f64,
    #[serde(default)]
    low: f64,
    #[serde(default)]
    high: f64,
    #[serde(default)]
    p: f64,
}

#[derive(Deserialize)]
struct Ranks {
    first: Vec<Option<f64>>,
    second: Vec<Option<f64>>,
    p: f64,
}

#[derive(Deserialize)]
struct SpreadLimit {
    n: usize,
    factor: f64,
}

#[derive(Deserialize)]
struct PairedEffect {
    n: u32,
    error: f64,
    size: f64,
}

#[derive(Deserialize)]
struct Slope {
    sizes: Vec<f64>,
    values: Vec<f64>,
    slope: f64,
}

#[derive(Deserialize)]
struct Area {
    steps: Vec<u64>,
    values: Vec<f64>,
    area: f64,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../reference/reference.json")).unwrap()
}

#[track_caller]
fn same(ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() <= 1e-6 * theirs.abs().max(1e-12), "ours {ours}, theirs {theirs}");
}

/// The ends of an interval, to 10⁻⁶ of its width: an end may happen to lie near 0.
#[track_caller]
fn same_interval(estimate: &Estimate, error: f64, low: f64, high: f64) {
    let ours = estimate.interval(error);
    let slack = 1e-6 * (high - low);
    assert!(
        (ours.low - low).abs() <= slack && (ours.high - high).abs() <= slack,
        "{ours:?}, not {low} to {high}"
    );
    same(ours.level, 1.0 - error);
}

#[test]
fn welch_agrees() {
    let cases = reference().welch;
    assert_eq!(cases.len(), 12);
    for case in cases {
        let cells = [
            Cell { coefficient: -1.0, values: &case.control },
            Cell { coefficient: 1.0, values: &case.treatment },
        ];
        let estimate = independent(&cells).unwrap();
        same(estimate.theta, case.theta);
        same(estimate.standard_error, case.standard_error.abs());
        same(estimate.degrees_of_freedom, case.df);
        same_interval(&estimate, case.error, case.low, case.high);
    }
}

#[test]
fn contrasts_of_several_arms_agree() {
    let cases = reference().contrasts;
    assert_eq!(cases.len(), 3);
    for case in cases {
        let cells: Vec<Cell> = case
            .coefficients
            .iter()
            .zip(&case.cells)
            .map(|(&coefficient, values)| Cell { coefficient, values })
            .collect();
        let estimate = independent(&cells).unwrap();
        same(estimate.theta, case.theta);
        same(estimate.degrees_of_freedom, case.df);
        same_interval(&estimate, case.error, case.low, case.high);
    }
}

#[test]
fn pairs_agree_plain_and_corrected() {
    let cases = reference().paired;
    assert_eq!(cases.len(), 8);
    for case in cases {
        let arms = [case.control, case.treatment];
        let plain = paired(&[-1.0, 1.0], &arms, None).unwrap();
        same(plain.degrees_of_freedom, case.df);
        same_interval(&plain, case.error, case.low, case.high);
        let split = SplitSizes { train: case.train, test: case.test };
        let corrected = paired(&[-1.0, 1.0], &arms, Some(split)).unwrap();
        same_interval(&corrected, case.error, case.corrected_low, case.corrected_high);
    }
}

#[test]
fn quantiles_of_t_agree() {
    let cases = reference().t_quantiles;
    assert_eq!(cases.len(), 24);
    for case in cases {
        same(t_critical(case.error, case.df), case.t);
    }
}

#[test]
fn shares_agree() {
    let reference = reference();
    assert_eq!((reference.clopper_pearson.len(), reference.wilson.len()), (16, 8));
    for case in reference.clopper_pearson {
        let (low, high) = clopper_pearson(case.k, case.n, case.error).unwrap();
        same(low, case.low);
        same(high, case.high);
    }
    for case in reference.wilson {
        let (low, high) = wilson(case.k, case.n, case.error).unwrap();
        same(low, case.low);
        same(high, case.high);
    }
}

#[test]
fn differences_of_shares_agree() {
    let cases = reference().newcombe;
    assert_eq!(cases.len(), 12);
    for case in cases {
        let (low, high) = newcombe((case.k1, case.n1), (case.k2, case.n2), case.error).unwrap();
        assert!((low - case.low).abs() < 1e-6 && (high - case.high).abs() < 1e-6, "{low} to {high}");
    }
}

#[test]
fn boschloo_agrees() {
    let cases = reference().boschloo;
    assert_eq!(cases.len(), 7);
    for case in cases {
        let p = boschloo((case.k1, case.n1), (case.k2, case.n2)).unwrap();
        assert!(
            (p - case.p).abs() < 1e-6,
            "{} of {} and {} of {}: {p}, SciPy {}",
            case.k1,
            case.n1,
            case.k2,
            case.n2,
            case.p
        );
    }
}

#[test]
fn rank_checks_agree() {
    let cases = reference().ranks;
    assert_eq!(cases.len(), 5);
    for case in cases {
        let arm = |values: &[Option<f64>]| -> Vec<Observed> {
            values.iter().map(|value| value.map_or(Observed::Failed, Observed::Value)).collect()
        };
        let (first, second) = (arm(&case.first), arm(&case.second));
        same(rank_check(&first, &second, Better::Higher).unwrap(), case.p);
        same(rank_check(&second, &first, Better::Higher).unwrap(), case.p);
        // A loss is the same with its sign turned.
        let turned = |arm: &[Observed]| -> Vec<Observed> {
            arm.iter()
                .map(|observed| match observed {
                    Observed::Value(value) => Observed::Value(-value),
                    Observed::Failed => Observed::Failed,
                })
                .collect()
        };
        same(rank_check(&turned(&first), &turned(&second), Better::Lower).unwrap(), case.p);
    }
}

#[test]
fn spread_limits_agree() {
    let cases = reference().spread_limits;
    assert_eq!(cases.len(), 5);
    for case in cases {
        same(spread_upper_limit(1.0, case.n).unwrap(), case.factor);
    }
}

/// Ours is a sum over forty spreads, statsmodels' the noncentral t: half a percent, as the module says.
#[test]
fn effects_found_by_pairs_agree() {
    let cases = reference().paired_effects;
    assert_eq!(cases.len(), 8);
    for case in cases {
        let ours = detectable(Aim::Effect, Layout::Paired, &[case.n], case.error).unwrap();
        assert!((ours / case.size - 1.0).abs() < 0.005, "n = {}: ours {ours}, theirs {}", case.n, case.size);
    }
}

#[test]
fn slopes_and_areas_agree() {
    let reference = reference();
    assert_eq!((reference.slopes.len(), reference.areas.len()), (3, 3));
    for case in reference.slopes {
        let pairs: Vec<(f64, f64)> = case.sizes.into_iter().zip(case.values).collect();
        same(slope_over(&pairs).unwrap(), case.slope);
    }
    for case in reference.areas {
        let series: Vec<Point> =
            case.steps.into_iter().zip(case.values).map(|(step, value)| Point { step, value }).collect();
        same(area(&series).unwrap(), case.area);
    }
}
