//! Each rule from series to number, and each way it refuses.

use crate::stats::reduce::{
    Better, LevelResult, Point, ReduceError, Threshold, area, at_best_validation, final_value,
    gap_to_best_over, mean_last, slope_over, steps_to,
};

fn series(values: &[f64]) -> Vec<Point> {
    values.iter().enumerate().map(|(i, &value)| Point { step: 10 * (i as u64 + 1), value }).collect()
}

#[test]
fn final_and_mean_of_the_last() {
    let curve = series(&[4.0, 3.0, 1.0]);
    assert_eq!(final_value(&curve), Ok(1.0));
    assert_eq!(mean_last(&curve, 2), Ok(2.0));
    assert_eq!(mean_last(&curve, 4), Err(ReduceError::TooShort { needed: 4, have: 3 }));
    assert!(matches!(mean_last(&curve, 0), Err(ReduceError::Parameter { .. })));
    assert_eq!(final_value(&[]), Err(ReduceError::Empty));
    assert_eq!(mean_last(&[], 1), Err(ReduceError::Empty));
    assert_eq!(final_value(&series(&[1.0, f64::NAN])), Err(ReduceError::NotFinite { step: 20 }));
    assert_eq!(
        mean_last(&series(&[f64::NAN, 1.0]), 1),
        Ok(1.0),
        "what the rule does not use may be anything"
    );
}

#[test]
fn test_value_at_the_best_validation_step() {
    let test = series(&[0.5, 0.9, 0.7, 0.8]);
    let validation = series(&[0.4, 0.6, 0.8, 0.8]);
    assert_eq!(at_best_validation(&test, &validation, Better::Higher), Ok(0.7), "the first of equals");
    assert_eq!(at_best_validation(&test, &validation, Better::Lower), Ok(0.5));
    let with_hole = [Point { step: 25, value: 0.99 }, Point { step: 20, value: 0.1 }];
    assert_eq!(at_best_validation(&test, &with_hole, Better::Higher), Ok(0.9), "only steps that have both");
    let apart = [Point { step: 1, value: 0.99 }];
    assert_eq!(at_best_validation(&test, &apart, Better::Higher), Err(ReduceError::NoCommonStep));
    let undefined = series(&[f64::NAN, 0.6]);
    assert_eq!(at_best_validation(&test, &undefined, Better::Higher), Ok(0.9));
    assert_eq!(at_best_validation(&test, &[], Better::Higher), Err(ReduceError::Empty));
}

#[test]
fn area_is_a_mean_height() {
    assert_eq!(area(&series(&[2.0, 2.0, 2.0])), Ok(2.0));
    assert_eq!(area(&series(&[0.0, 1.0])), Ok(0.5));
    assert_eq!(area(&series(&[0.0])), Err(ReduceError::TooShort { needed: 2, have: 1 }));
    let same_step = [Point { step: 5, value: 1.0 }, Point { step: 5, value: 2.0 }];
    assert_eq!(area(&same_step), Err(ReduceError::Order { step: 5 }));
    assert_eq!(area(&series(&[0.0, f64::INFINITY])), Err(ReduceError::NotFinite { step: 20 }));
}

#[test]
fn steps_to_a_threshold() {
    let at = |values: &[f64], sustain| {
        let threshold = Threshold { value: 0.9, better: Better::Higher, sustain, horizon: 50 };
        steps_to(&series(values), threshold).map(|t| (t.steps, t.reached))
    };
    assert_eq!(at(&[0.5, 0.9, 0.95], 1), Ok((20, true)), "the threshold itself counts");
    assert_eq!(at(&[0.5, 0.95, 0.8, 0.95, 0.96], 2), Ok((40, true)), "it has to stay there");
    assert_eq!(at(&[0.5, 0.95, 0.8, 0.95], 2), Ok((50, false)), "the run ended before it had stayed");
    assert_eq!(at(&[0.5, 0.6], 1), Ok((50, false)));
    assert_eq!(at(&[f64::NAN, f64::INFINITY], 1), Ok((50, false)), "diverging is not reaching");
    assert_eq!(at(&[0.1, 0.1, 0.1, 0.1, 0.1, 0.95], 1), Ok((50, false)), "past the horizon");
    assert!(at(&[0.5], 0).is_err() && at(&[], 1).is_err());
    let loss = Threshold { value: 1.0, better: Better::Lower, sustain: 1, horizon: 50 };
    assert_eq!(steps_to(&series(&[2.0, 1.0]), loss).unwrap().steps, 20);
    assert!(steps_to(&series(&[2.0]), Threshold { value: f64::NAN, ..loss }).is_err());
    assert!(steps_to(&series(&[2.0]), Threshold { horizon: 0, ..loss }).is_err());
}

#[test]
fn gap_to_the_best_level_of_a_seed() {
    let level = |value| LevelResult { value, at_initialisation: 2.3 };
    // Losses 1.0, 0.5, capped 2.3, failed 2.3: gaps 0.5, 0, 1.8, 1.8.
    let levels = [level(Some(1.0)), level(Some(0.5)), level(Some(9.0)), level(None)];
    let gap = gap_to_best_over(&levels, Better::Lower).unwrap();
    assert!((gap - (0.5 + 1.8 + 1.8) / 4.0).abs() < 1e-12, "{gap}");
    let undefined = [level(Some(1.0)), level(Some(f64::NAN))];
    assert!((gap_to_best_over(&undefined, Better::Lower).unwrap() - 0.65).abs() < 1e-12);
    assert_eq!(
        gap_to_best_over(&[level(None), level(None)], Better::Lower),
        Ok(0.0),
        "no level trains: no gap"
    );
    assert!(gap_to_best_over(&[level(None)], Better::Lower).is_err());
    let unknown = [level(None), LevelResult { value: Some(1.0), at_initialisation: f64::NAN }];
    assert_eq!(gap_to_best_over(&unknown, Better::Lower), Err(ReduceError::NotFinite { step: 1 }));
    let accuracy = [
        LevelResult { value: Some(0.9), at_initialisation: 0.1 },
        LevelResult { value: Some(0.05), at_initialisation: 0.1 },
    ];
    assert!((gap_to_best_over(&accuracy, Better::Higher).unwrap() - 0.4).abs() < 1e-12);
}

#[test]
fn slope_over_log_size() {
    let exact: Vec<(f64, f64)> =
        [64.0f64, 128.0, 256.0, 512.0].map(|size| (size, 3.0 - 0.25 * size.ln())).to_vec();
    assert!((slope_over(&exact).unwrap() + 0.25).abs() < 1e-12);
    assert!(slope_over(&[(1.0, 2.0)]).is_err());
    assert!(slope_over(&[(8.0, 2.0), (8.0, 3.0)]).is_err());
    assert!(slope_over(&[(0.0, 2.0), (8.0, 3.0)]).is_err());
    assert_eq!(slope_over(&[(1.0, 2.0), (8.0, f64::NAN)]), Err(ReduceError::NotFinite { step: 1 }));
}
