//! METHOD §4: each share, each refusal, and that everything sums to at most the campaign's error.

use proptest::prelude::*;

use crate::stats::{Ledger, LedgerError};

#[track_caller]
fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-15, "{a}, not {b}");
}

#[test]
fn one_experiment_gets_all() {
    let ledger = Ledger::new(1);
    close(ledger.level(0, 1, &[10], 0).unwrap(), 0.05);
    close(ledger.level(0, 1, &[5, 10], 0).unwrap(), 0.01);
    close(ledger.level(0, 1, &[5, 10], 1).unwrap(), 0.04);
    close(ledger.level(0, 2, &[5, 10, 20], 1).unwrap(), 0.05 * 0.3 / 2.0);
}

#[test]
fn the_first_of_several_gets_half() {
    let ledger = Ledger::default();
    assert_eq!((ledger.alpha, ledger.experiments), (0.05, 3));
    close(ledger.experiment_error(0).unwrap(), 0.025);
    close(ledger.experiment_error(1).unwrap(), 0.0125);
    close(ledger.experiment_error(2).unwrap(), 0.0125);
    close(ledger.level(0, 1, &[5, 10], 1).unwrap(), 0.02); // the 98 % interval of METHOD §8
}

#[test]
fn what_was_not_registered_is_refused() {
    let ledger = Ledger::default();
    assert!(matches!(ledger.level(3, 1, &[5], 0), Err(LedgerError::Spent { experiment: 3, experiments: 3 })));
    assert!(matches!(ledger.level(0, 0, &[5], 0), Err(LedgerError::NoContrasts)));
    assert!(matches!(ledger.level(0, 1, &[5, 10], 2), Err(LedgerError::Unregistered { look: 2, .. })));
    for looks in [&[][..], &[2], &[5, 5], &[10, 5], &[3, 5, 10, 20]] {
        assert!(matches!(ledger.level(0, 1, looks, 0), Err(LedgerError::Looks { .. })), "{looks:?}");
    }
    for alpha in [0.0, 1.0, -0.1, f64::NAN] {
        let ledger = Ledger { alpha, experiments: 1 };
        assert!(matches!(ledger.level(0, 1, &[5], 0), Err(LedgerError::Alpha { .. })));
    }
    assert!(matches!(Ledger::new(0).level(0, 1, &[5], 0), Err(LedgerError::Spent { .. })));
    let text = ledger.level(3, 1, &[5], 0).unwrap_err().to_string();
    assert!(text.contains("number 4") && text.contains("planned with 3"), "{text}");
}

proptest! {
    /// Whatever is planned: all intervals of a campaign together err with at most its alpha.
    #[test]
    fn everything_sums_to_alpha(
        plans in prop::collection::vec((1usize..=4, prop::sample::select(vec![
            vec![5], vec![3], vec![5, 10], vec![5, 10, 20], vec![3, 7, 40],
        ])), 1..12),
    ) {
        let ledger = Ledger::new(plans.len() as u32);
        let mut spent = 0.0;
        for (experiment, (contrasts, looks)) in plans.iter().enumerate() {
            for look in 0..looks.len() {
                let level = ledger.level(experiment as u32, *contrasts, looks, look).unwrap();
                prop_assert!(level > 0.0);
                spent += level * *contrasts as f64;
            }
        }
        prop_assert!((spent - 0.05).abs() < 1e-12, "{spent}");
    }
}
