//! The journal under random operations and random kills: what is reserved is what is under way, nothing is spent beyond its
//! limit, every run is in one state, and steps have no holes.

use std::{future::Future as _, pin::pin, task::Poll};

use proptest::prelude::*;

use super::*;

const DEVICE: Duration = Duration::from_secs(100);
const COST: MicroUsd = MicroUsd(100);

#[derive(Debug, Clone)]
enum Op {
    Plan,
    Send(usize),
    Finish(usize, u64),
    Lose(usize),
    Cancel(usize),
    Call(u64),
    Reply(usize, u64),
    Fail(usize),
    Step,
    StepWith,
    NewOwner,
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Plan),
        2 => any::<usize>().prop_map(Op::Send),
        3 => (any::<usize>(), 0..10_000u64).prop_map(|(run, wall)| Op::Finish(run, wall)),
        1 => any::<usize>().prop_map(Op::Lose),
        1 => any::<usize>().prop_map(Op::Cancel),
        3 => (0..40u64).prop_map(Op::Call),
        2 => (any::<usize>(), 0..40u64).prop_map(|(call, cost)| Op::Reply(call, cost)),
        1 => any::<usize>().prop_map(Op::Fail),
        1 => Just(Op::Step),
        2 => Just(Op::StepWith),
        1 => Just(Op::NewOwner),
    ]
}

fn one<T: Clone>(of: &[T], which: usize) -> Option<T> {
    (!of.is_empty()).then(|| of[which % of.len()].clone())
}

/// Refusals (a budget, a run that is over) are part of it: only what was written is looked at.
async fn act(journal: &Journal, id: CampaignId, op: Op) {
    let runs = journal.runs(id).await.unwrap();
    let calls = journal.calls(id).await.unwrap();
    match op {
        Op::Plan => drop(journal.plan_run(new_run(id)).await),
        Op::Send(which) => {
            if let Some(run) = one(&runs, which) {
                journal.run_sent(run.id, "w", "b").await.ok();
            }
        }
        Op::Finish(which, wall) => {
            if let Some(run) = one(&runs, which)
                && run.state != RunState::Finished
            {
                let mut log = journal.open_run(run.id).await.unwrap();
                let next = log.last_sequence() + 1;
                let kind = v1::OutcomeKind::Succeeded;
                log.apply(vec![metric(next, "loss", &[1.0]), end(next + 1, kind, wall)]).await.unwrap();
            }
        }
        Op::Lose(which) => {
            if let Some(run) = one(&runs, which) {
                let how = EndedHere::Lost { cause: v1::LostCause::Reboot, message: "gone".to_owned() };
                journal.end_run(run.id, how).await.ok();
            }
        }
        Op::Cancel(which) => {
            if let Some(run) = one(&runs, which) {
                journal.end_run(run.id, EndedHere::Cancelled { message: "stop".to_owned() }).await.ok();
            }
        }
        Op::Call(most) => {
            let request = json!({ "n": calls.len() });
            let new = NewCall { purpose: "plan".into(), model: "m".into(), request, reserve: MicroUsd(most) };
            journal.begin_call(id, new).await.ok();
        }
        Op::Reply(which, cost) => {
            if let Some(call) = one(&calls, which) {
                let cost = Some(MicroUsd(cost.min(call.reserved.0)));
                let reply = CallReply { reply: json!({}), usage: TokenUsage::default(), cost, attempts: 1 };
                journal.finish_call(call.id, reply).await.ok();
            }
        }
        Op::Fail(which) => {
            if let Some(call) = one(&calls, which) {
                journal.fail_call(call.id, "no", None).await.ok();
            }
        }
        Op::Step => drop(journal.append_detail(id, "detail", &json!({ "runs": runs.len() })).await),
        Op::StepWith => {
            let snapshot = Snapshot { version: 1, body: vec![7; runs.len()] };
            drop(journal.append_step_with(id, "step", &json!({ "runs": runs.len() }), snapshot).await);
        }
        Op::NewOwner => drop(journal.settle_open_calls(id).await),
    }
}

async fn assert_sound(journal: &Journal, id: CampaignId) {
    let (runs, calls) = (journal.runs(id).await.unwrap(), journal.calls(id).await.unwrap());
    let spent = journal.spent(id).await.unwrap();
    let open = runs.iter().filter(|run| run.state != RunState::Finished);
    assert_eq!(spent.device_reserved, open.map(|run| run.reserved).sum::<Duration>(), "{runs:?}");
    assert_eq!(spent.device_settled, runs.iter().filter_map(|run| run.charged).sum::<Duration>());
    let open = calls.iter().filter(|call| call.state == CallState::Open);
    assert_eq!(spent.cost_reserved.0, open.map(|call| call.reserved.0).sum::<u64>());
    assert_eq!(spent.cost_settled.0, calls.iter().filter_map(|call| call.charged).map(|c| c.0).sum::<u64>());
    assert!(spent.device() <= DEVICE && spent.cost() <= COST, "{spent:?}");
    for run in &runs {
        let over = run.state == RunState::Finished;
        assert_eq!((run.outcome.is_some(), run.charged.is_some()), (over, over), "{run:?}");
        assert_eq!(journal.finished(run.id).await.unwrap().is_some(), over, "{run:?}");
    }
    // Reading refuses holes.
    let steps = journal.steps(id).await.unwrap();
    if let Some(stored) = journal.snapshot(id).await.unwrap() {
        let last = steps.iter().rev().find(|step| step.kind == "step").unwrap();
        assert_eq!(
            (stored.step, stored.snapshot.body.len() as u64),
            (last.sequence, last.body["runs"].as_u64().unwrap())
        );
    }
    journal.check().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_sound_after_any_operations_and_any_kills(
        // Half of the numbers kill: so many polls after the operation began.
        run in proptest::collection::vec((ops(), 0..12usize), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut journal = open(folder.path());
            let limits = Limits { device: Some(DEVICE), cost: Some(COST), ..Limits::default() };
            let id = campaign(&journal, limits).await;
            for (op, polls) in run {
                if polls >= 6 {
                    act(&journal, id, op).await;
                    continue;
                }
                {
                    let mut acting = pin!(act(&journal, id, op));
                    let mut left = polls;
                    std::future::poll_fn(|context| {
                        let ready = acting.as_mut().poll(context).is_ready();
                        left = left.saturating_sub(1);
                        if ready || left == 0 { Poll::Ready(()) } else { Poll::Pending }
                    })
                    .await;
                }
                drop(journal);
                journal = open(folder.path());
                assert_sound(&journal, id).await;
            }
            assert_sound(&journal, id).await;
        });
    }
}
