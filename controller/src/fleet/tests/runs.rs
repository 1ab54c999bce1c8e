//! A run's way, and everything that may happen on it.

use bytes::Bytes;
use kit::digest::Digest;
use tonic::Status;

use super::*;
use crate::fleet::Orphan;

/// Long enough for a test to do something to it.
fn slow(name: &str) -> Shape {
    let time = Duration::from_millis(400);
    Shape { frames: 40, run_time: (time, time), ..Shape::cpu(name, 2) }
}

#[tokio::test]
async fn a_run_is_placed_followed_fetched_and_released() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    let bytes = Bytes::from(vec![7; 200_000]);
    *worker.artifacts.lock().unwrap() =
        vec![("a/model.pt".to_owned(), bytes.clone()), ("empty".to_owned(), Bytes::new())];
    let fleet = fleet(&[&worker]);
    let (end, sink) = Under::way(&fleet, run(1, "v1")).ends().await;
    assert_eq!(outcome(&end), v1::OutcomeKind::Succeeded);
    sink.is_whole();
    assert_eq!(sink.kept().placed, Some(("w-1".to_owned(), "boot-1".to_owned())));
    let read = |name| std::fs::read(sink.artifact_path(name).unwrap()).unwrap();
    assert_eq!((read("a/model.pt"), read("empty")), (bytes.to_vec(), Vec::new()));
    assert_eq!(worker.held(), 0, "nothing is left on the worker");
}

#[tokio::test]
async fn a_connection_that_is_cut_again_and_again_repeats_nothing_and_loses_nothing() {
    let worker = FakeWorker::new(slow("w"));
    let fleet = fleet(&[&worker]);
    let run = Under::way(&fleet, run(1, "v1"));
    run.begun().await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        worker.cut();
    }
    let (end, sink) = run.ends().await;
    assert_eq!(outcome(&end), v1::OutcomeKind::Succeeded);
    sink.is_whole();
    assert_eq!(sink.kept().events.len(), 42);
    assert!(worker.seen().watches > 1, "the cuts were felt");
    assert_eq!(worker.seen().begun.values().collect::<Vec<_>>(), [&1]);
}

#[tokio::test]
async fn a_start_that_was_never_answered_is_sent_again_and_begins_one_run() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.faults().start_unanswered = 2;
    let fleet = fleet(&[&worker]);
    let (end, sink) = Under::way(&fleet, run(1, "v1")).ends().await;
    assert_eq!(outcome(&end), v1::OutcomeKind::Succeeded);
    sink.is_whole();
    assert_eq!(worker.seen().begun.values().collect::<Vec<_>>(), [&1]);
}

#[tokio::test]
async fn a_run_is_given_up_after_patience_and_limit_and_then_its_results_stay_out() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.faults().endless = true;
    let (clock, awake) = by_hand();
    let fleet = fleet_with(&[&worker], quick(), &awake);
    let run = Under::way(&fleet, run(1, "v1"));
    run.begun().await;
    worker.go_away();
    until("away", || !matches!(fleet.states()[0].state, LinkState::Open)).await;
    clock.sleep(Duration::from_secs(3600));
    until("sleep is noticed", || *awake.sleeps().borrow() == 1).await;
    clock.advance(Duration::from_secs(5));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!run.end.is_finished(), "an hour asleep and five seconds awake are no eight seconds");
    clock.advance(Duration::from_secs(5));
    let (end, sink) = run.ends().await;
    assert!(matches!(&end, RunEnd::Lost { cause: v1::LostCause::Unreachable, .. }), "{end:?}");
    assert_eq!(fleet.states()[0].given_up, 1);
    let events = sink.kept().events.len();
    worker.come_back();
    until("released", || worker.seen().released.len() == 1).await;
    assert_eq!(worker.seen().cancelled.len(), 1, "it is cancelled first");
    until("forgotten", || fleet.states()[0].given_up == 0).await;
    let kept = sink.kept();
    assert_eq!((kept.events.len(), kept.complete), (events, false));
}

#[tokio::test]
async fn what_an_earlier_process_gave_up_is_ended_when_the_worker_is_there() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.faults().endless = true;
    let first = fleet(&[&worker]);
    let start = run(1, "v1");
    let run = Under::way(&first, start.clone());
    run.begun().await;
    run.kill().await;
    drop(first);
    let second = fleet(&[&worker]);
    let orphan = Orphan {
        run_id: start.run_id.clone(),
        controller_id: start.controller_id.clone(),
        worker_id: Some(worker.worker_id()),
    };
    second.end_given_up(&orphan);
    until("released", || worker.seen().released.contains(&start.run_id)).await;
    assert_eq!(worker.held(), 0);
}

#[tokio::test]
async fn a_wiped_disk_is_another_worker_and_its_runs_are_lost_at_once() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.faults().endless = true;
    let (_clock, awake) = by_hand();
    let fleet = fleet_with(&[&worker], quick(), &awake);
    let under = Under::way(&fleet, run(1, "v1"));
    under.begun().await;
    worker.wipe();
    let (end, _) = under.ends().await;
    let RunEnd::Lost { detail, .. } = &end else { panic!("{end:?}") };
    assert!(detail.contains("w-2 instead of w-1"), "{detail}");
    worker.faults().endless = false;
    let (end, _) = Under::way(&fleet, run(2, "v1")).ends().await;
    assert_eq!(outcome(&end), v1::OutcomeKind::Succeeded, "and the next run gets what the new disk lacks");
}

#[tokio::test]
async fn events_that_the_worker_does_not_have_are_a_lost_run() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.faults().endless = true;
    let fleet = fleet(&[&worker]);
    let start = run(1, "v1");
    let run = Under::way(&fleet, start.clone());
    run.begun().await;
    run.kill().await;
    let mut sink = MemorySink::new();
    sink.apply(vec![v1::Event { sequence: 1000, ..v1::Event::default() }]).await.unwrap();
    let end = fleet.resume(&start, None, &mut sink, &CancellationToken::new()).await.unwrap();
    assert!(matches!(end, RunEnd::Lost { cause: v1::LostCause::Spool, .. }), "{end:?}");
    until("ended there", || worker.seen().released.contains(&start.run_id)).await;
}

#[tokio::test]
async fn a_run_of_an_earlier_process_is_found_and_followed() {
    let workers = ["a", "b", "c"].map(|name| FakeWorker::new(slow(name)));
    let first = fleet(&[&workers[1]]);
    let start = run(1, "v1");
    let run = Under::way(&first, start.clone());
    run.begun().await;
    let mut sink = run.kill().await;
    drop(first);
    let second = fleet(&[&workers[0], &workers[1], &workers[2]]);
    let end = second.resume(&start, None, &mut sink, &CancellationToken::new()).await.unwrap();
    assert_eq!(outcome(&end), v1::OutcomeKind::Succeeded);
    sink.is_whole();
    let mut sink = MemorySink::new();
    let end = second.end(&start, &mut sink, &CancellationToken::new()).await;
    assert!(matches!(end, Ok(RunEnd::Lost { cause: v1::LostCause::Unspecified, .. })), "{end:?}");
    let nobody = second.resume(&super::run(9, "v1"), Some("x"), &mut sink, &CancellationToken::new()).await;
    assert!(matches!(nobody, Ok(RunEnd::Lost { .. })), "{nobody:?}");
}

#[tokio::test]
async fn what_a_worker_lacks_is_brought_with_the_run() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    let other = FakeWorker::new(Shape::cpu("x", 1));
    let fleet = fleet(&[&worker, &other]);
    until("open", || fleet.states()[1].state == LinkState::Open).await;
    worker.go_away();
    until("away", || fleet.states()[0].state != LinkState::Open).await;
    let program = Bytes::from(vec![b'#'; 150_000]);
    let digest = fleet.put_blob(program.clone()).await.unwrap();
    assert_eq!((worker.seen().uploads, other.seen().uploads), (0, 1), "only who is there gets it now");
    other.go_away();
    until("away", || fleet.states()[1].state != LinkState::Open).await;
    worker.unprepare();
    worker.come_back();
    let start = run_of(1, "v1", |spec| {
        let role = v1::InputRole::Program.into();
        spec.files = vec![v1::InputFile {
            path: "program.py".to_owned(),
            digest: digest.to_string(),
            size_bytes: program.len() as u64,
            role,
        }];
    });
    let (end, sink) = Under::way(&fleet, start.clone()).ends().await;
    assert_eq!(outcome(&end), v1::OutcomeKind::Succeeded);
    sink.is_whole();
    assert_eq!(worker.seen().uploads, 1);
    let strange = run_of(2, "v1", |spec| {
        spec.files = vec![v1::InputFile { digest: Digest::of(b"nobody").to_string(), ..Default::default() }];
    });
    let (end, _) = Under::way(&fleet, strange).ends().await;
    assert!(matches!(end, RunEnd::Rejected { .. }), "what nobody has is a wrong request: {end:?}");
}

#[tokio::test]
async fn a_cancel_while_the_worker_is_away_is_sent_when_it_is_back() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.faults().endless = true;
    let (_clock, awake) = by_hand();
    let fleet = fleet_with(&[&worker], quick(), &awake);
    let run = Under::way(&fleet, run(1, "v1"));
    run.begun().await;
    worker.go_away();
    until("away", || !matches!(fleet.states()[0].state, LinkState::Open)).await;
    run.cancel.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    worker.come_back();
    let (end, sink) = run.ends().await;
    assert_eq!(outcome(&end), v1::OutcomeKind::Cancelled);
    sink.is_whole();
}

#[tokio::test]
async fn whoever_cancels_does_not_wait_for_a_worker_that_stays_away() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.faults().endless = true;
    let (clock, awake) = by_hand();
    let fleet = fleet_with(&[&worker], quick(), &awake);
    let run = Under::way(&fleet, run(1, "v1"));
    run.begun().await;
    worker.go_away();
    run.cancel.cancel();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!run.end.is_finished());
    clock.advance(Duration::from_secs(6));
    let (end, _) = run.ends().await;
    assert!(matches!(end, RunEnd::Lost { .. }), "{end:?}");
    worker.come_back();
    until("ended there", || worker.seen().released.len() == 1).await;
}

#[tokio::test]
async fn a_run_that_is_cancelled_before_it_has_a_place_begins_nowhere() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.faults().foreign = 1;
    let fleet = fleet(&[&worker]);
    let run = Under::way(&fleet, run(1, "v1"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    run.cancel.cancel();
    let (end, _) = run.result().await;
    assert!(matches!(end, Err(FleetError::Cancelled)), "{end:?}");
    assert!(worker.seen().begun.is_empty());
}

#[tokio::test]
async fn an_artifact_goes_on_at_its_offset_after_a_break() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    let bytes: Bytes = (0..400_000u32).map(|n| n as u8).collect::<Vec<_>>().into();
    *worker.artifacts.lock().unwrap() = vec![("model.pt".to_owned(), bytes.clone())];
    worker.faults().artifact_cuts.extend([150_000, 300_000]);
    let fleet = fleet(&[&worker]);
    let (end, sink) = Under::way(&fleet, run(1, "v1")).ends().await;
    assert_eq!(outcome(&end), v1::OutcomeKind::Succeeded);
    sink.is_whole();
    assert_eq!(std::fs::read(sink.artifact_path("model.pt").unwrap()).unwrap(), bytes);
    let offsets = worker.seen().offsets;
    assert!(offsets.len() == 3 && offsets[0] == 0 && offsets[1] > 0, "{offsets:?}");
    assert!(offsets.is_sorted());
}

#[tokio::test]
async fn an_artifact_that_is_longer_than_announced_is_refused() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    *worker.artifacts.lock().unwrap() = vec![("model.pt".to_owned(), Bytes::from_static(b"short"))];
    worker.faults().artifact_surplus = true;
    let fleet = fleet(&[&worker]);
    let (end, sink) = Under::way(&fleet, run(1, "v1")).ends().await;
    let RunEnd::Lost { cause: v1::LostCause::Spool, detail } = &end else { panic!("{end:?}") };
    assert!(detail.contains("more than 5 bytes"), "{detail}");
    assert!(!sink.kept().complete);
    let left: Vec<_> = std::fs::read_dir(sink.folder.path().join("artifacts")).unwrap().collect();
    assert!(left.is_empty(), "nothing is left of it: {left:?}");
}

#[tokio::test]
async fn a_refusal_is_told_and_names_the_field() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.faults().start.push_back(Status::invalid_argument("params_json: not JSON"));
    let fleet = fleet(&[&worker]);
    let (end, _) = Under::way(&fleet, run(1, "v1")).ends().await;
    let RunEnd::Rejected { reason, .. } = &end else { panic!("{end:?}") };
    assert!(reason.contains("params_json"), "{reason}");
}

#[tokio::test]
async fn a_run_on_a_worker_that_is_revoked_ends_at_once_with_that_cause() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.faults().endless = true;
    let (_clock, awake) = by_hand();
    let fleet = fleet_with(&[&worker], quick(), &awake);
    let run = Under::way(&fleet, run(1, "v1"));
    run.begun().await;
    fleet.links()[0].wish(crate::fleet::Wish::Cut("it was revoked".to_owned()));
    // The clock stands still: patience has no part in it.
    let (end, sink) = run.ends().await;
    let RunEnd::Lost { cause: v1::LostCause::Unreachable, detail } = &end else { panic!("{end:?}") };
    assert!(detail.contains("it was revoked"), "{detail}");
    assert!(!sink.kept().complete);
    assert_eq!(fleet.states()[0].given_up, 1, "should it ever be trusted again, the run is ended there");
}

#[tokio::test]
async fn a_run_that_was_given_up_counts_as_ended_once_its_worker_has_answered() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.go_away();
    let fleet = fleet(&[&worker]);
    let orphan =
        |worker_id| Orphan { run_id: run(1, "v1").run_id, controller_id: "us".to_owned(), worker_id };
    let (known, unknown) = (orphan(Some(worker.worker_id())), orphan(None));
    let elsewhere = orphan(Some("somebody-else".to_owned()));
    fleet.end_given_up(&known);
    assert!(!fleet.has_ended(&known) && !fleet.has_ended(&unknown));
    worker.come_back();
    until("ended", || fleet.has_ended(&known) && fleet.has_ended(&unknown)).await;
    assert!(!fleet.has_ended(&elsewhere), "its worker was never met");
}
