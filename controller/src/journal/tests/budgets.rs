//! Budgets: whatever is reserved, settled or lost in whatever order, a campaign never spends more than it was given.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    Plan { seconds: u64, devices: u32 },
    Finish { which: usize, share: f64 },
    WorkerSaysLost { which: usize },
    Lose { which: usize },
    Cancel { which: usize },
    Reject { which: usize },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (1u64..40, 1u32..4).prop_map(|(seconds, devices)| Act::Plan { seconds, devices }),
        2 => (0usize..8, 0.0f64..1.0).prop_map(|(which, share)| Act::Finish { which, share }),
        1 => (0usize..8).prop_map(|which| Act::WorkerSaysLost { which }),
        1 => (0usize..8).prop_map(|which| Act::Lose { which }),
        1 => (0usize..8).prop_map(|which| Act::Cancel { which }),
        1 => (0usize..8).prop_map(|which| Act::Reject { which }),
    ]
}

/// What ought to have been booked, by plain addition.
#[derive(Default)]
struct Model {
    settled: u64,
    unknown: u64,
    open: Vec<(RunId, u64, u32)>,
}

async fn play(acts: Vec<Act>) {
    const LIMIT_MS: u64 = 120_000;
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let limits = Limits { device: Some(Duration::from_millis(LIMIT_MS)), ..Limits::default() };
    let id = campaign(&journal, limits).await;
    let mut model = Model::default();
    for act in acts {
        let reserved: u64 = model.open.iter().map(|run| run.1).sum();
        let taken = |model: &mut Model, which: usize| {
            (!model.open.is_empty()).then(|| model.open.remove(which % model.open.len()))
        };
        match act {
            Act::Plan { seconds, devices } => {
                let wanted = seconds * 1_000 * u64::from(devices);
                let new = NewRun { reserve: Duration::from_secs(seconds), devices, ..new_run(id) };
                let fits = model.settled + reserved + wanted <= LIMIT_MS;
                match journal.plan_run(new.clone()).await {
                    Ok(()) => {
                        assert!(fits);
                        model.open.push((new.id, wanted, devices));
                    }
                    Err(BudgetError::Device { left, .. }) => {
                        assert!(!fits);
                        assert_eq!(left.as_millis() as u64, LIMIT_MS - model.settled - reserved);
                        assert!(matches!(journal.run(new.id).await, Err(JournalError::NotFound { .. })));
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            Act::Finish { which, share } => {
                let Some((run, reserved, devices)) = taken(&mut model, which) else { continue };
                let wall = ((reserved / u64::from(devices)) as f64 * share) as u64 + 1;
                let mut log = journal.open_run(run).await.unwrap();
                log.apply(vec![end(1, v1::OutcomeKind::Failed, wall)]).await.unwrap();
                model.settled += wall * u64::from(devices);
            }
            Act::WorkerSaysLost { which } => {
                let Some((run, reserved, _)) = taken(&mut model, which) else { continue };
                let mut log = journal.open_run(run).await.unwrap();
                log.apply(vec![end(1, v1::OutcomeKind::Lost, 1)]).await.unwrap();
                model.settled += reserved;
                model.unknown += reserved;
            }
            Act::Lose { which } => {
                let Some((run, reserved, _)) = taken(&mut model, which) else { continue };
                journal.run_sent(run, "w", "b").await.unwrap();
                let how = EndedHere::Lost { cause: v1::LostCause::Unreachable, message: String::new() };
                journal.end_run(run, how).await.unwrap();
                model.settled += reserved;
                model.unknown += reserved;
            }
            Act::Cancel { which } => {
                let Some((run, _, _)) = taken(&mut model, which) else { continue };
                journal.end_run(run, EndedHere::Cancelled { message: String::new() }).await.unwrap();
            }
            Act::Reject { which } => {
                let Some((run, _, _)) = taken(&mut model, which) else { continue };
                journal.reject_run(run, "limits.memory", "too large").await.unwrap();
            }
        }
        let spent = journal.spent(id).await.unwrap();
        let reserved: u64 = model.open.iter().map(|run| run.1).sum();
        assert_eq!(spent.device_settled, Duration::from_millis(model.settled));
        assert_eq!(spent.device_unknown, Duration::from_millis(model.unknown));
        assert_eq!(spent.device_reserved, Duration::from_millis(reserved));
        assert!(spent.device() <= Duration::from_millis(LIMIT_MS));
    }
    // The totals in the campaign's row are what its runs add up to.
    let charged: Duration = journal.runs(id).await.unwrap().iter().filter_map(|row| row.charged).sum();
    assert_eq!(charged, journal.spent(id).await.unwrap().device_settled);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn a_campaign_never_spends_more_than_it_was_given(acts in prop::collection::vec(act(), 1..25)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(play(acts));
    }
}

#[tokio::test]
async fn two_that_fit_only_one_at_a_time_are_not_both_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (open(folder.path()), open(folder.path()));
    let limits = Limits { device: Some(Duration::from_secs(30)), ..Limits::default() };
    let id = campaign(&one, limits).await;
    let (a, b) = tokio::join!(one.plan_run(new_run(id)), two.plan_run(new_run(id)));
    assert!(a.is_ok() != b.is_ok());
    // A larger budget lets the other in, and a smaller one refuses what comes next.
    one.set_limits(id, Limits { device: Some(Duration::from_secs(40)), ..limits }).await.unwrap();
    two.plan_run(new_run(id)).await.unwrap();
    one.set_limits(id, Limits { device: Some(Duration::from_secs(1)), ..limits }).await.unwrap();
    match two.plan_run(new_run(id)).await.unwrap_err() {
        BudgetError::Device { left, wanted } => assert_eq!((left, wanted.as_secs()), (Duration::ZERO, 20)),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_gate_that_never_opened_costs_nothing_and_time_awake_adds_up() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = campaign(&journal, Limits::default()).await;
    let run = planned(&journal, id).await;
    let mut never = end(1, v1::OutcomeKind::DependencyConflict, 0);
    never.elapsed_ns = 0;
    journal.open_run(run).await.unwrap().apply(vec![never]).await.unwrap();
    journal.add_active_time(id, Duration::from_micros(1_500)).await.unwrap();
    journal.add_active_time(id, Duration::from_secs(1)).await.unwrap();
    let spent = journal.spent(id).await.unwrap();
    assert_eq!((spent.device(), spent.active), (Duration::ZERO, Duration::from_millis(1_002)));
}
