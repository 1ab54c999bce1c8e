//! What must hold for any data.

use proptest::prelude::*;

use crate::stats::{
    Better, Cell, Gate, Interval, Observed, Pairing, Point, Predicts, Verdict, bands, best_set,
    clopper_pearson, independent, newcombe, paired, rule,
};

fn arm(seeds: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(-1e3..1e3f64, seeds)
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![8 => -10.0..10.0f64, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => Just(0.0), 1 => Just(1.0)]
}

fn predicts() -> impl Strategy<Value = Predicts> {
    prop::sample::select(vec![
        Predicts::Increase,
        Predicts::Decrease,
        Predicts::AnyChange,
        Predicts::NoRelevantChange,
    ])
}

fn mirrored(predicts: Predicts) -> Predicts {
    match predicts {
        Predicts::Increase => Predicts::Decrease,
        Predicts::Decrease => Predicts::Increase,
        other => other,
    }
}

proptest! {
    #[test]
    fn the_interval_contains_theta_and_grows_with_confidence(a in arm(3..20), b in arm(3..20), error in 1e-6..0.5f64) {
        let cells = [Cell { coefficient: -1.0, values: &a }, Cell { coefficient: 1.0, values: &b }];
        let estimate = independent(&cells).unwrap();
        let interval = estimate.interval(error);
        prop_assert!(interval.low < estimate.theta && estimate.theta < interval.high);
        let wider = estimate.interval(error / 2.0);
        prop_assert!(wider.low < interval.low && interval.high < wider.high);
        let fewest = a.len().min(b.len()) as f64 - 1.0;
        let total = (a.len() + b.len()) as f64 - 2.0;
        prop_assert!(estimate.degrees_of_freedom >= fewest * (1.0 - 1e-9));
        prop_assert!(estimate.degrees_of_freedom <= total * (1.0 + 1e-9));
    }

    #[test]
    fn the_order_of_seeds_changes_no_bit(a in arm(3..12), b in arm(3..12), turn in 0usize..12) {
        let turned = |values: &[f64]| {
            let mut values = values.to_vec();
            let length = values.len();
            values.rotate_left(turn % length);
            values.swap(0, length - 1);
            values
        };
        let estimate = |a: &[f64], b: &[f64]| {
            independent(&[Cell { coefficient: -1.0, values: a }, Cell { coefficient: 1.0, values: b }])
        };
        prop_assert_eq!(estimate(&a, &b), estimate(&turned(&a), &turned(&b)));
        let n = a.len().min(b.len());
        let pairs = [a[..n].to_vec(), b[..n].to_vec()];
        let turned_pairs = [turned(&pairs[0]), turned(&pairs[1])];
        prop_assert_eq!(paired(&[-1.0, 1.0], &pairs, None), paired(&[-1.0, 1.0], &turned_pairs, None));
    }

    #[test]
    fn units_do_not_matter(a in arm(3..12), b in arm(3..12), power in -60i32..60) {
        let scale = 2f64.powi(power); // exact
        let scaled = |values: &[f64]| values.iter().map(|value| value * scale).collect::<Vec<_>>();
        let estimate = |a: &[f64], b: &[f64]| {
            independent(&[Cell { coefficient: -1.0, values: a }, Cell { coefficient: 1.0, values: b }]).unwrap()
        };
        let (raw, in_units) = (estimate(&a, &b), estimate(&scaled(&a), &scaled(&b)));
        prop_assert!((in_units.theta - raw.theta * scale).abs() <= 1e-9 * in_units.standard_error);
        prop_assert!((in_units.degrees_of_freedom / raw.degrees_of_freedom - 1.0).abs() < 1e-9);
    }

    #[test]
    fn any_input_is_an_estimate_or_a_gate(
        values in prop::collection::vec(prop::collection::vec(number(), 0..5), 0..4),
        coefficients in prop::collection::vec(number(), 0..4),
        error in number(),
    ) {
        let cells: Vec<Cell> =
            coefficients.iter().zip(&values).map(|(&coefficient, values)| Cell { coefficient, values }).collect();
        for estimate in [independent(&cells), paired(&coefficients, &values, None)].into_iter().flatten() {
            prop_assert!(estimate.theta.is_finite() && estimate.standard_error > 0.0);
            let interval = estimate.interval(error);
            prop_assert!(interval.low <= estimate.theta && estimate.theta <= interval.high);
        }
    }

    #[test]
    fn a_ruling_is_total_and_its_gate_is_never_a_verdict(
        predicts in predicts(), low in number(), high in number(), delta in number(),
    ) {
        let ruling = rule(predicts, Ok(Interval { low, high, level: 0.95 }), delta);
        prop_assert!(!ruling.sentence.is_empty());
        if ruling.gate.is_some() {
            prop_assert_eq!(ruling.verdict, Verdict::Inconclusive);
        } else {
            prop_assert!(low.is_finite() && high.is_finite() && delta > 0.0);
        }
    }

    #[test]
    fn verdicts_mirror(predicts in predicts(), a in -3.0..3.0f64, b in -3.0..3.0f64, delta in 0.1..2.0f64) {
        let interval = Interval { low: a.min(b), high: a.max(b), level: 0.95 };
        let ruling = rule(predicts, Ok(interval), delta);
        let other = rule(mirrored(predicts), Ok(interval.mirrored()), delta);
        prop_assert_eq!((ruling.verdict, ruling.reason), (other.verdict, other.reason));
        prop_assert_eq!(ruling.smallest_margin, other.smallest_margin);
    }

    /// A directional claim is never wrong about a true value that lies inside the interval.
    #[test]
    fn no_verdict_contradicts_its_own_interval(
        predicts in predicts(), a in -3.0..3.0f64, b in -3.0..3.0f64, delta in 0.1..2.0f64, at in 0.0..1.0f64,
    ) {
        let (low, high) = (a.min(b), a.max(b));
        let truth = low + at * (high - low);
        match (rule(predicts, Ok(Interval { low, high, level: 0.95 }), delta).verdict, predicts) {
            (Verdict::Supported, Predicts::Increase) => prop_assert!(truth > 0.0),
            (Verdict::Supported, Predicts::Decrease) => prop_assert!(truth < 0.0),
            (Verdict::Refuted, Predicts::Increase) => prop_assert!(truth < delta),
            (Verdict::Refuted, Predicts::Decrease) => prop_assert!(truth > -delta),
            (Verdict::Refuted, Predicts::NoRelevantChange) => prop_assert!(truth.abs() >= delta),
            (Verdict::Equivalent, _) => prop_assert!(truth.abs() < delta),
            _ => {}
        }
    }

    #[test]
    fn shares_stay_between_0_and_1_and_contain_the_observed_one(
        n1 in 1u64..30, k1 in 0u64..30, n2 in 1u64..30, k2 in 0u64..30, error in 0.001..0.5f64,
    ) {
        let (k1, k2) = (k1.min(n1), k2.min(n2));
        let share = k1 as f64 / n1 as f64;
        let (low, high) = clopper_pearson(k1, n1, error).unwrap();
        prop_assert!(0.0 <= low && low <= share && share <= high && high <= 1.0);
        let difference = share - k2 as f64 / n2 as f64;
        let (low, high) = newcombe((k1, n1), (k2, n2), error).unwrap();
        prop_assert!(-1.0 - 1e-12 <= low && low <= difference && difference <= high && high <= 1.0 + 1e-12);
        prop_assert_eq!(clopper_pearson(n1 + 1, n1, error), None);
    }

    #[test]
    fn the_best_mean_is_never_excluded(levels in prop::collection::vec(arm(3..8), 2..7)) {
        let observed: Vec<Vec<Observed>> =
            levels.iter().map(|level| level.iter().copied().map(Observed::Value).collect()).collect();
        let set = best_set(&observed, 0.0, Better::Higher, Pairing::None, 0.05).unwrap();
        let mean = |level: &Vec<f64>| level.iter().sum::<f64>() / level.len() as f64;
        let best = (0..levels.len()).max_by(|&a, &b| mean(&levels[a]).total_cmp(&mean(&levels[b]))).unwrap();
        prop_assert!(set.kept.contains(&best));
        prop_assert_eq!(set.kept.len() + set.left.len(), levels.len());
    }

    #[test]
    fn a_band_contains_its_mean(seeds in prop::collection::vec(prop::collection::vec(number(), 0..10), 0..6)) {
        let series: Vec<Vec<Point>> = seeds
            .iter()
            .map(|values| values.iter().enumerate().map(|(i, &value)| Point { step: i as u64, value }).collect())
            .collect();
        let borrowed: Vec<&[Point]> = series.iter().map(Vec::as_slice).collect();
        for band in bands(&borrowed, 0.05) {
            let finite = seeds.iter().filter_map(|s| s.get(band.step as usize)).filter(|v| v.is_finite()).count();
            prop_assert_eq!(band.n, finite);
            prop_assert_eq!(band.low.is_some(), band.n > 1);
            prop_assert!(band.low.is_none_or(|low| low <= band.mean) && band.high.is_none_or(|high| band.mean <= high));
        }
    }
}

#[test]
fn a_level_that_always_failed_leaves_and_one_with_equal_seeds_does_not() {
    let good: Vec<Observed> = [0.95, 0.96, 0.955, 0.952, 0.958].map(Observed::Value).to_vec();
    let near: Vec<Observed> = [0.951, 0.959, 0.953, 0.956, 0.954].map(Observed::Value).to_vec();
    let failed = vec![Observed::Failed; 5];
    let frozen = vec![Observed::Value(0.5); 5];
    let set = best_set(&[good, near, failed, frozen], 0.1, Better::Higher, Pairing::None, 0.05).unwrap();
    assert_eq!(set.kept, [0, 1, 3]);
    assert_eq!(set.left, [(2, 0)]);
    let two = vec![Observed::Value(1.0), Observed::Value(2.0)];
    assert_eq!(
        best_set(&[two.clone(), two], 0.0, Better::Lower, Pairing::None, 0.05).unwrap_err(),
        Gate::TooFewSeeds { n: 2 }
    );
}

/// t(0.975, 2) = 4.302653; the mean of 1, 2, 3 has a standard error of 1/√3.
#[test]
fn a_band_is_the_t_interval_of_its_step() {
    let point = |value| [Point { step: 7, value }];
    let seeds = [point(1.0), point(2.0), point(3.0)];
    let borrowed: Vec<&[Point]> = seeds.iter().map(|seed| &seed[..]).collect();
    let all = bands(&borrowed, 0.05);
    assert_eq!((all.len(), all[0].step, all[0].mean, all[0].n), (1, 7, 2.0, 3));
    let half = 4.302653 / 3f64.sqrt();
    assert!(
        (all[0].low.unwrap() - (2.0 - half)).abs() < 1e-6
            && (all[0].high.unwrap() - (2.0 + half)).abs() < 1e-6
    );
}

proptest! {
    /// A level leaves exactly when some interval of the estimator, two-sided at 2ℓ/(k−1), says that another is better.
    #[test]
    fn the_best_set_is_that_of_the_estimator(
        offsets in prop::collection::vec(-2.0..2.0f64, 3), noise in prop::collection::vec(arm(5..6), 3),
    ) {
        let levels: Vec<Vec<f64>> = offsets
            .iter()
            .zip(&noise)
            .map(|(offset, noise)| noise.iter().map(|value| offset + value / 1e3).collect())
            .collect();
        let observed: Vec<Vec<Observed>> =
            levels.iter().map(|level| level.iter().copied().map(Observed::Value).collect()).collect();
        for (pairing, error) in [(Pairing::None, 0.05), (Pairing::Seed, 0.1)] {
            let beaten = |level: usize| (0..3).filter(|rival| *rival != level).any(|rival| {
                let cells = [
                    Cell { coefficient: 1.0, values: &levels[rival] },
                    Cell { coefficient: -1.0, values: &levels[level] },
                ];
                let pair = [levels[rival].clone(), levels[level].clone()];
                let estimate =
                    if pairing == Pairing::None { independent(&cells) } else { paired(&[1.0, -1.0], &pair, None) };
                estimate.unwrap().interval(2.0 * error / 2.0).low > 0.0
            });
            let kept: Vec<usize> = (0..3).filter(|level| !beaten(*level)).collect();
            prop_assert_eq!(best_set(&observed, 0.0, Better::Higher, pairing, error).unwrap().kept, kept);
        }
    }
}
