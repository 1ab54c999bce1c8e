//! METHOD §3.1, row by row, with the boundaries; Δ = 1 throughout.

use crate::stats::{
    Cell, Gate, Interval, Predicts, Reason, Ruling, Verdict, check_contrast, independent, on_log_scale,
    paired, rule,
};

fn ruled(predicts: Predicts, low: f64, high: f64) -> Ruling {
    rule(predicts, Ok(Interval { low, high, level: 0.98 }), 1.0)
}

#[track_caller]
fn expect(predicts: Predicts, low: f64, high: f64, verdict: Verdict, reason: Reason) {
    let ruling = ruled(predicts, low, high);
    assert_eq!((ruling.verdict, ruling.reason), (verdict, reason), "{predicts:?} at {low} to {high}");
    assert_eq!(ruling.smallest_margin, Some(low.abs().max(high.abs())));
    assert_eq!(ruling.gate, None);
    assert!(!ruling.sentence.is_empty());
}

#[test]
fn directional_claims() {
    use Reason::*;
    use Verdict::*;
    let rows = [
        (-0.5, 0.5, Equivalent, WithinMargin),
        (0.1, 0.9, Equivalent, RealButSmall),
        (-0.9, -0.1, Equivalent, RealButSmall),
        (0.0, 0.9, Equivalent, WithinMargin), // an end on 0 does not exclude it
        (0.1, 1.0, Supported, DirectionSure), // U = Δ is not inside
        (0.5, 2.0, Supported, DirectionSure),
        (1.0, 2.0, Supported, AtLeastSmallestEffect),
        (1.5, 1.5, Supported, AtLeastSmallestEffect),
        (-2.0, -1.5, Refuted, Opposite),
        (-1.0, -0.1, Refuted, Opposite), // L = −Δ is not inside
        (-2.0, 0.0, Refuted, GainRuledOut),
        (-2.0, 0.9, Refuted, GainRuledOut),
        (-1.0, 0.5, Refuted, GainRuledOut),
        (-2.0, 1.0, Inconclusive, Undecided),
        (-0.5, 1.5, Inconclusive, Undecided),
        (0.0, 1.5, Inconclusive, Undecided),
        (-3.0, 3.0, Inconclusive, Undecided),
    ];
    for (low, high, verdict, reason) in rows {
        expect(Predicts::Increase, low, high, verdict, reason);
        expect(Predicts::Decrease, -high, -low, verdict, reason);
    }
}

#[test]
fn any_change() {
    use Reason::*;
    use Verdict::*;
    for (low, high, verdict, reason) in [
        (-0.5, 0.5, Equivalent, WithinMargin),
        (0.1, 0.9, Equivalent, RealButSmall),
        (0.1, 1.5, Supported, DirectionSure),
        (1.0, 1.5, Supported, AtLeastSmallestEffect),
        (-0.5, 1.5, Inconclusive, Undecided),
        (0.0, 1.5, Inconclusive, Undecided),
    ] {
        expect(Predicts::AnyChange, low, high, verdict, reason);
        expect(Predicts::AnyChange, -high, -low, verdict, reason);
    }
}

#[test]
fn no_relevant_change() {
    use Reason::*;
    use Verdict::*;
    for (low, high, verdict, reason) in [
        (-0.5, 0.5, Equivalent, WithinMargin),
        (0.1, 0.9, Equivalent, WithinMargin),
        (1.0, 1.5, Refuted, RelevantChange),
        (0.1, 1.5, Inconclusive, DiffersRelevanceOpen),
        (-0.5, 1.5, Inconclusive, Undecided),
        (-1.0, 1.0, Inconclusive, Undecided),
    ] {
        expect(Predicts::NoRelevantChange, low, high, verdict, reason);
        expect(Predicts::NoRelevantChange, -high, -low, verdict, reason);
    }
}

#[test]
fn sentences_name_the_numbers_and_the_direction() {
    let text = |predicts, low, high| ruled(predicts, low, high).sentence;
    assert_eq!(text(Predicts::Increase, 1.25, 2.0), "an increase of at least 1: 1.25 to 2");
    assert_eq!(
        text(Predicts::Decrease, -0.91234567, -0.1),
        "a decrease, real, but smaller than 1: -0.9123 to -0.1"
    );
    assert_eq!(
        text(Predicts::Decrease, 0.5, 1.5),
        "the opposite of what was predicted, an increase: 0.5 to 1.5"
    );
    assert_eq!(
        text(Predicts::Decrease, -0.5, 2.0),
        "-0.5 to 2: an effect of -1 is ruled out, and so is any larger decrease; harm is not"
    );
    assert_eq!(text(Predicts::AnyChange, -1.9, 2.0), "compatible with -1.9 to 2");
    assert_eq!(
        ruled(Predicts::Increase, -1.9, 2.0).needing(Some(10)).sentence,
        "compatible with -1.9 to 2; would need about 10 seeds"
    );
    let decided = ruled(Predicts::Increase, 1.25, 2.0);
    assert_eq!(decided.clone().needing(Some(10)), decided, "a decided claim needs no seeds");
}

#[test]
fn a_gate_gives_no_verdict_and_is_named() {
    for predicts in [Predicts::Increase, Predicts::Decrease, Predicts::AnyChange, Predicts::NoRelevantChange]
    {
        let ruling = rule(predicts, Err(Gate::NoSpread { cell: 1 }), 1.0);
        assert_eq!((ruling.verdict, ruling.reason), (Verdict::Inconclusive, Reason::Gate));
        assert_eq!(ruling.gate, Some(Gate::NoSpread { cell: 1 }));
        assert_eq!(ruling.smallest_margin, None);
        assert!(ruling.sentence.contains("variant number 2"), "{}", ruling.sentence);
        for delta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let ruling = rule(predicts, Ok(Interval { low: 2.0, high: 3.0, level: 0.95 }), delta);
            assert_eq!(ruling.gate, Some(Gate::SmallestEffect));
        }
        for (low, high) in [(f64::NAN, 1.0), (f64::NEG_INFINITY, f64::INFINITY), (2.0, 1.0)] {
            assert_eq!(ruled(predicts, low, high).gate, Some(Gate::NotFinite));
        }
    }
    assert!(Gate::NoSpread { cell: 1 }.sentence(&["v1", "v2"]).contains("`v2`"));
}

#[test]
fn equal_seeds_are_no_evidence() {
    // SciPy says p = 6·10⁻²⁵ here (METHOD §2.4, trap 1).
    let treatment = [0.9701, 0.9702, 0.9701];
    let cells = [
        Cell { coefficient: -1.0, values: &[0.97, 0.97, 0.97] },
        Cell { coefficient: 1.0, values: &treatment },
    ];
    assert_eq!(independent(&cells).unwrap_err(), Gate::NoSpread { cell: 0 });
    // Neither is a spread that is only rounding.
    let rounding = [0.1 + 0.2, 0.3, 0.3];
    let cells =
        [Cell { coefficient: -1.0, values: &rounding }, Cell { coefficient: 1.0, values: &treatment }];
    assert_eq!(independent(&cells).unwrap_err(), Gate::NoSpread { cell: 0 });
    let shifted = [vec![0.9, 0.91, 0.93], vec![1.0, 1.01, 1.03]];
    assert_eq!(paired(&[-1.0, 1.0], &shifted, None).unwrap_err(), Gate::NoSpreadOfDifferences);
    // An arm without weight may have none.
    let cells = [
        Cell { coefficient: 0.0, values: &[1.0, 1.0, 1.0] },
        Cell { coefficient: -1.0, values: &[0.9, 0.91, 0.93] },
        Cell { coefficient: 1.0, values: &treatment },
    ];
    assert!(independent(&cells).is_ok());
}

#[test]
fn what_is_no_sample_is_refused() {
    let fine = [0.9, 0.91, 0.93];
    let against = |values: &[f64]| {
        independent(&[Cell { coefficient: -1.0, values: &fine }, Cell { coefficient: 1.0, values }])
            .unwrap_err()
    };
    assert_eq!(against(&[0.9, 0.91]), Gate::TooFewSeeds { n: 2 });
    assert_eq!(against(&[]), Gate::TooFewSeeds { n: 0 });
    assert_eq!(against(&[0.9, f64::NAN, 0.93]), Gate::NotFinite);
    assert_eq!(against(&[0.9, f64::INFINITY, 0.93]), Gate::NotFinite);
    assert_eq!(against(&[f64::MAX, -f64::MAX, 0.0]), Gate::NotFinite);
    let bad_weight = [Cell { coefficient: f64::NAN, values: &fine }];
    assert_eq!(independent(&bad_weight).unwrap_err(), Gate::NotFinite);
    assert!(matches!(independent(&[]).unwrap_err(), Gate::Shape { .. }));
    let ragged = [fine.to_vec(), vec![0.9, 0.91, 0.93, 0.94]];
    assert!(matches!(paired(&[-1.0, 1.0], &ragged, None).unwrap_err(), Gate::Shape { .. }));
    assert!(matches!(paired(&[-1.0], &ragged, None).unwrap_err(), Gate::Shape { .. }));
}

#[test]
fn contrasts_are_checked() {
    for good in [vec![-1.0, 1.0], vec![-0.5, -0.5, 1.0], vec![1.0, -1.0, -1.0, 1.0]] {
        assert_eq!(check_contrast(&good), Ok(()));
    }
    for bad in [vec![1.0, 1.0], vec![-2.0, 2.5], vec![-3.0, 3.0], vec![0.0, 0.0], vec![f64::NAN, 1.0], vec![]]
    {
        assert!(check_contrast(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn logarithms_need_positive_values() {
    assert_eq!(on_log_scale(&[1.0, 0.0]).unwrap_err(), Gate::NotPositive { value: 0.0 });
    assert_eq!(on_log_scale(&[1.0, f64::NAN]).unwrap_err(), Gate::NotFinite);
    let logs = on_log_scale(&[1.0, std::f64::consts::E]).unwrap();
    let ratio = Interval { low: logs[0], high: logs[1], level: 0.95 }.exponentiated();
    assert!((ratio.low - 1.0).abs() < 1e-12 && (ratio.high - std::f64::consts::E).abs() < 1e-12);
}

#[test]
fn words_are_those_of_the_design() {
    for (verdict, word) in [
        (Verdict::Supported, "supported"),
        (Verdict::Refuted, "refuted"),
        (Verdict::Equivalent, "equivalent"),
        (Verdict::Inconclusive, "inconclusive"),
    ] {
        assert_eq!(verdict.to_string(), word);
        assert_eq!(serde_json::to_value(verdict).unwrap(), word);
    }
    assert_eq!(serde_json::to_value(Predicts::NoRelevantChange).unwrap(), "no_relevant_change");
    let ruling = rule(Predicts::Increase, Err(Gate::TooFewSeeds { n: 2 }), 1.0);
    let text = serde_json::to_string(&ruling).unwrap();
    assert_eq!(serde_json::from_str::<Ruling>(&text).unwrap(), ruling);
}
