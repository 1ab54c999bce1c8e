//! METHOD §3.2: what a design can find.

use crate::stats::{Aim, Layout, detectable, needed_seeds, spread_upper_limit};

/// The table that METHOD gives from simulations, against our computation of the last look.
#[test]
fn the_table_of_method_is_met() {
    let looks: [&[u32]; 4] = [&[3], &[5], &[5, 10], &[5, 10, 20]];
    let rows = [
        (0.05, [3.5, 2.1, 1.4, 1.0], [4.0, 2.4, 1.6, 1.1]),
        (0.025, [4.5, 2.4, 1.5, 1.1], [5.0, 2.8, 1.8, 1.2]),
        (0.0125, [5.8, 2.8, 1.7, 1.2], [6.4, 3.1, 1.9, 1.3]),
    ];
    let mut wrong = Vec::new();
    for (alpha, effects, margins) in rows {
        for ((looks, effect), margin) in looks.iter().zip(effects).zip(margins) {
            for (aim, simulated) in [(Aim::Effect, effect), (Aim::Equivalence, margin)] {
                let ours = detectable(aim, Layout::Independent, looks, alpha).unwrap();
                if (ours - simulated).abs() > 0.1_f64.max(0.03 * simulated) {
                    wrong.push(format!("{aim:?} at {alpha} and {looks:?}: {ours:.3}, METHOD {simulated}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn more_seeds_and_more_error_find_smaller_effects() {
    for aim in [Aim::Effect, Aim::Equivalence] {
        for layout in [Layout::Independent, Layout::Paired, Layout::PairedCorrected { test_over_train: 0.25 }]
        {
            let size = |n, alpha| detectable(aim, layout, &[n], alpha).unwrap();
            assert!(size(5, 0.05) > size(10, 0.05) && size(10, 0.05) > size(20, 0.05));
            assert!(size(5, 0.01) > size(5, 0.05));
        }
        let size = |layout| detectable(aim, layout, &[10], 0.05).unwrap();
        assert!(size(Layout::PairedCorrected { test_over_train: 0.25 }) > size(Layout::Paired));
    }
}

#[test]
fn needed_seeds_are_the_fewest_that_do() {
    for (aim, layout) in [(Aim::Effect, Layout::Independent), (Aim::Equivalence, Layout::Paired)] {
        for size in [0.8, 1.5, 3.0] {
            let n = needed_seeds(aim, layout, size, 0.05).unwrap();
            assert!(detectable(aim, layout, &[n as u32], 0.05).unwrap() <= size);
            if n > 3 {
                assert!(detectable(aim, layout, &[n as u32 - 1], 0.05).unwrap() > size, "{n} for {size}");
            }
        }
    }
    assert_eq!(needed_seeds(Aim::Effect, Layout::Independent, 0.01, 0.05), None, "over a thousand");
    // No number of overlapping splits finds what the overlap itself hides.
    let overlapping = Layout::PairedCorrected { test_over_train: 0.25 };
    assert_eq!(needed_seeds(Aim::Effect, overlapping, 0.5, 0.05), None);
    for nonsense in [0.0, -1.0, f64::NAN] {
        assert_eq!(needed_seeds(Aim::Effect, Layout::Paired, nonsense, 0.05), None);
        assert_eq!(needed_seeds(Aim::Effect, Layout::Paired, 1.0, nonsense), None);
    }
    assert!(detectable(Aim::Effect, Layout::Paired, &[], 0.05).is_err());
    assert_eq!(detectable(Aim::Effect, Layout::Paired, &[5], f64::NAN), Ok(f64::INFINITY));
}

/// METHOD §2.4: × 2.1 / 1.6 / 1.3 at n = 3 / 5 / 10.
#[test]
fn the_upper_limit_of_sigma() {
    for (n, factor) in [(3, 2.1), (5, 1.6), (10, 1.3)] {
        assert!((spread_upper_limit(2.0, n).unwrap() / 2.0 - factor).abs() < 0.05);
    }
    assert_eq!(spread_upper_limit(1.0, 1), None);
    assert_eq!(spread_upper_limit(f64::NAN, 5), None);
}
