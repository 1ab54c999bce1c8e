//! Connections that break, and what is known of a worker meanwhile.

use super::*;

fn attempts(link: &Link) -> u32 {
    match link.state() {
        LinkState::Connecting { attempts, .. } => attempts,
        _ => 0,
    }
}

#[tokio::test]
async fn a_worker_that_is_not_there_yet_is_dialled_until_it_comes() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.go_away();
    let fleet = fleet(&[&worker]);
    let run = Under::way(&fleet, run(1, "v1"));
    until("three attempts", || attempts(&fleet.links()[0]) >= 3).await;
    let state = fleet.states().remove(0);
    assert_eq!((state.worker_id.as_str(), state.slots), ("", 0));
    assert!(state.state.to_string().contains("nobody listens"), "{}", state.state);
    worker.come_back();
    let (end, sink) = run.ends().await;
    assert_eq!(outcome(&end), v1::OutcomeKind::Succeeded);
    sink.is_whole();
    assert_eq!(fleet.states()[0].state, LinkState::Open);
}

#[tokio::test]
async fn however_many_wait_there_is_one_dial_at_a_time() {
    let worker = FakeWorker::new(Shape::cpu("w", 50));
    worker.faults().endless = true;
    let fleet = fleet(&[&worker]);
    let runs: Vec<Under> = (0..50).map(|number| Under::way(&fleet, run(number, "v1"))).collect();
    for run in &runs {
        run.begun().await;
    }
    let before = worker.seen().dials;
    worker.go_away();
    until("attempts", || attempts(&fleet.links()[0]) >= 3).await;
    let (dials, attempts) = (worker.seen().dials - before, attempts(&fleet.links()[0]));
    assert!(dials <= attempts + 2, "{dials} dials in {attempts} attempts: the runs dial by themselves");
    worker.come_back();
    for run in &runs {
        run.cancel.cancel();
    }
    for run in runs {
        assert_eq!(outcome(&run.ends().await.0), v1::OutcomeKind::Cancelled);
    }
}

#[tokio::test]
async fn late_word_of_a_failure_does_not_break_the_next_connection() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    let link = Link::open(worker.dialer()).await.unwrap();
    let old = link.line().await.unwrap();
    old.broken();
    let new = link.line().await.unwrap();
    let dials = worker.seen().dials;
    old.broken();
    assert!(futures_util::FutureExt::now_or_never(new.ended()).is_none());
    assert!(futures_util::FutureExt::now_or_never(old.ended()).is_some());
    let mut client = link.client().await.unwrap();
    client.get_worker(v1::GetWorkerRequest {}).await.unwrap();
    assert_eq!(worker.seen().dials, dials);
}

#[tokio::test]
async fn after_sleep_the_connection_is_opened_anew_at_once() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.faults().endless = true;
    let (clock, awake) = by_hand();
    let fleet = fleet_with(&[&worker], quick(), &awake);
    let run = Under::way(&fleet, run(1, "v1"));
    run.begun().await;
    let (dials, watches) = (worker.seen().dials, worker.seen().watches);
    clock.sleep(Duration::from_secs(8 * 3600));
    until("a new connection", || worker.seen().dials > dials).await;
    until("a new watch", || worker.seen().watches > watches).await;
    assert!(awake.now() < Duration::from_secs(5), "a night asleep is no time awake");
    run.cancel.cancel();
    let (end, sink) = run.ends().await;
    assert_eq!(outcome(&end), v1::OutcomeKind::Cancelled);
    sink.is_whole();
}

#[tokio::test]
async fn another_version_is_refused_with_both_numbers_and_taken_when_it_matches() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.faults().protocol = Some((7, 9));
    let refused = Link::open(worker.dialer()).await.unwrap_err().to_string();
    assert!(
        refused.contains("7 to 9") && refused.contains(&proto::PROTOCOL_VERSION.to_string()),
        "{refused}"
    );
    let fleet = fleet(&[&worker]);
    until("set aside", || matches!(fleet.states()[0].state, LinkState::SetAside { .. })).await;
    let state = fleet.states().remove(0);
    assert!(state.state.to_string().contains("7 to 9"), "{}", state.state);
    worker.faults().protocol = None;
    until("open", || fleet.states()[0].state == LinkState::Open).await;
}

#[tokio::test]
async fn a_worker_that_says_nothing_is_dialled_anew() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.faults().endless = true;
    let pace = Pace { silence: Duration::from_millis(200), answer: Duration::from_millis(400), ..quick() };
    let fleet = fleet_with(&[&worker], pace, &Awake::start(SystemClock::shared()));
    let run = Under::way(&fleet, run(1, "v1"));
    run.begun().await;
    let dials = worker.seen().dials;
    worker.faults().mute = true;
    until("a new connection", || worker.seen().dials > dials).await;
    worker.faults().mute = false;
    run.cancel.cancel();
    assert_eq!(outcome(&run.ends().await.0), v1::OutcomeKind::Cancelled);
}

#[tokio::test]
async fn the_connection_ends_with_the_fleet() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    let fleet = fleet(&[&worker]);
    until("open", || fleet.states()[0].state == LinkState::Open).await;
    let core = Arc::downgrade(&fleet.links()[0].core);
    drop(fleet);
    until("nothing is left of the link", || core.upgrade().is_none()).await;
}
