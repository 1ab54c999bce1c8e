//! What METHOD promises about whole campaigns, by simulation with our own code; half a minute or less, hence not run by default:
//!
//!     cargo test -p controller --lib stats::tests::simulations -- --ignored
//!
//! Seeds are fixed, so a failure is a change of the code and never of luck.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::stats::{Cell, Ledger, Observed, Predicts, Verdict, at_worst, independent, rule};

const LOOKS: [u32; 2] = [5, 10];

/// A standard normal number (Box & Muller 1958).
fn normal(random: &mut StdRng) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
}

fn arm(random: &mut StdRng, mean: f64, n: usize) -> Vec<f64> {
    (0..n).map(|_| mean + normal(random)).collect()
}

/// Whether 0 is excluded at either look of an only experiment, as METHOD §4's table counts it.
fn found(random: &mut StdRng, effect: f64) -> bool {
    let (control, treatment) = (arm(random, 0.0, 10), arm(random, effect, 10));
    LOOKS.iter().enumerate().any(|(look, &n)| {
        let n = n as usize;
        let cells = [
            Cell { coefficient: -1.0, values: &control[..n] },
            Cell { coefficient: 1.0, values: &treatment[..n] },
        ];
        let error = Ledger::new(1).level(0, 1, &LOOKS, look).unwrap();
        independent(&cells).unwrap().interval(error).excludes_zero()
    })
}

#[test]
#[ignore = "a simulation: see the module comment"]
fn power_is_that_of_method() {
    let mut random = StdRng::seed_from_u64(1);
    for (effect, promised) in [(0.0, 0.044), (1.0, 0.52), (1.5, 0.86), (2.0, 0.98)] {
        let share = (0..4000).filter(|_| found(&mut random, effect)).count() as f64 / 4000.0;
        assert!((share - promised).abs() < 0.025, "at {effect}: {share}, METHOD {promised}");
    }
}

/// Three experiments, truth 0, Δ/2 or Δ, Δ = 2σ, failures in both arms or none: any false verdict in the campaign.
#[test]
#[ignore = "a simulation: see the module comment"]
fn a_campaign_errs_with_at_most_its_alpha() {
    let mut random = StdRng::seed_from_u64(2);
    let ledger = Ledger::default();
    let delta = 2.0;
    for (truth, failing) in [(0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (0.0, 0.1), (0.0, 0.2)] {
        let campaigns = 1000;
        let mut wrong = 0;
        for _ in 0..campaigns {
            wrong += usize::from((0..ledger.experiments).any(|experiment| {
                let mut runs = |mean: f64| -> Vec<Observed> {
                    let values = arm(&mut random, mean, 10);
                    values
                        .into_iter()
                        .map(|value| {
                            if random.random::<f64>() < failing {
                                Observed::Failed
                            } else {
                                Observed::Value(value)
                            }
                        })
                        .collect()
                };
                let arms = [runs(0.0), runs(truth)];
                let verdict = LOOKS
                    .iter()
                    .enumerate()
                    .map(|(look, &n)| {
                        let error = ledger.level(experiment, 1, &LOOKS, look).unwrap();
                        let seen = arms.each_ref().map(|arm| at_worst(&arm[..n as usize], -5.0).unwrap());
                        let cells = [
                            Cell { coefficient: -1.0, values: &seen[0] },
                            Cell { coefficient: 1.0, values: &seen[1] },
                        ];
                        let interval = independent(&cells).map(|estimate| estimate.interval(error));
                        rule(Predicts::Increase, interval, delta).verdict
                    })
                    .find(|verdict| *verdict != Verdict::Inconclusive);
                match verdict {
                    Some(Verdict::Supported) => truth <= 0.0,
                    Some(Verdict::Refuted) => truth >= delta,
                    Some(Verdict::Equivalent) => truth.abs() >= delta,
                    _ => false,
                }
            }));
        }
        let share = wrong as f64 / campaigns as f64;
        assert!(share <= 0.03, "truth {truth}, {failing} failing: {share}");
    }
}
