//! Which worker gets a run, over the protocol. The plan itself is tested beside `place`.

use tonic::Status;

use super::*;

fn gpu(name: &str, gpu: &'static str) -> Shape {
    Shape { gpus: 1, gpu, ..Shape::cpu(name, 2) }
}

async fn all_open(fleet: &Fleet) {
    until("all are there", || fleet.states().iter().all(|state| state.state == LinkState::Open)).await;
}

async fn succeed(runs: Vec<Under>) {
    for run in runs {
        let (end, sink) = run.ends().await;
        assert_eq!(outcome(&end), v1::OutcomeKind::Succeeded);
        sink.is_whole();
    }
}

#[tokio::test]
async fn a_worker_that_is_taken_by_others_is_passed_over() {
    let [taken, free] = ["taken", "free"].map(|name| FakeWorker::new(Shape::cpu(name, 2)));
    taken.faults().foreign = 2;
    let fleet = fleet(&[&taken, &free]);
    all_open(&fleet).await;
    succeed((0..6).map(|number| Under::way(&fleet, run(number, "v1"))).collect()).await;
    assert_eq!((taken.seen().begun.len(), free.seen().begun.len()), (0, 6));
}

#[tokio::test]
async fn a_draining_worker_takes_nothing_new_and_ends_what_it_has() {
    let [drained, other] = ["drained", "other"].map(|name| FakeWorker::new(Shape::cpu(name, 2)));
    drained.faults().endless = true;
    let fleet = fleet(&[&drained, &other]);
    all_open(&fleet).await;
    let early: Vec<Under> = (0..2).map(|number| Under::way(&fleet, run(number, "v1"))).collect();
    until("one on each", || drained.seen().begun.len() == 1).await;
    drained.faults().draining = true;
    until("known", || fleet.states()[0].state == LinkState::Draining).await;
    succeed((2..8).map(|number| Under::way(&fleet, run(number, "v1"))).collect()).await;
    assert_eq!(drained.seen().begun.len(), 1);
    early.iter().for_each(|run| run.cancel.cancel());
    for run in early {
        run.ends().await;
    }
    drained.faults().draining = false;
    until("taken back", || fleet.states()[0].state == LinkState::Open).await;
}

#[tokio::test]
async fn a_worker_that_loses_runs_over_and_over_is_set_aside_with_its_reason() {
    let [bad, good] = ["bad", "good"].map(|name| FakeWorker::new(Shape::cpu(name, 1)));
    bad.faults().lost.extend([v1::LostCause::Engine; 100]);
    let fleet = fleet(&[&bad, &good]);
    all_open(&fleet).await;
    for number in 0..12 {
        Under::way(&fleet, run(number, "v1")).ends().await;
    }
    assert_eq!(bad.seen().begun.len(), 3);
    let state = fleet.states().remove(0).state.to_string();
    assert!(state.contains("3 times in a row") && state.contains("engine"), "{state}");
}

#[tokio::test]
async fn a_worker_that_cannot_start_runs_is_set_aside_and_the_runs_go_elsewhere() {
    let [bad, good] = ["bad", "good"].map(|name| FakeWorker::new(Shape::cpu(name, 1)));
    bad.faults().start.extend((0..100).map(|_| Status::internal("the worker's own disk failed")));
    let fleet = fleet(&[&bad, &good]);
    all_open(&fleet).await;
    succeed((0..10).map(|number| Under::way(&fleet, run(number, "v1"))).collect()).await;
    let state = fleet.states().remove(0).state.to_string();
    assert!(state.contains("own disk failed"), "{state}");
    assert_eq!(good.seen().begun.len(), 10);
}

#[tokio::test]
async fn what_no_worker_could_ever_take_is_refused_with_each_reason() {
    let [a, b] = ["a", "b"].map(|name| FakeWorker::new(Shape::cpu(name, 1)));
    let fleet = fleet(&[&a, &b]);
    let start = run_of(1, "v1", |spec| spec.gpus = 2);
    let (end, _) = Under::way(&fleet, start.clone()).ends().await;
    let RunEnd::Rejected { field, reason } = &end else { panic!("{end:?}") };
    assert_eq!(field, "spec.gpus");
    assert!(reason.contains("a: gpus: 2 are asked for") && reason.contains("; b: gpus"), "{reason}");
    let plan = fleet.plan(&start).unwrap().to_string();
    assert!(plan.contains("a  never: gpus"), "{plan}");
    assert!(a.seen().begun.is_empty() && b.seen().begun.is_empty());
}

#[tokio::test]
async fn an_experiment_stays_on_one_kind_and_its_variants_are_spread() {
    let shapes = [gpu("a1", "A100"), gpu("a2", "A100"), gpu("h", "H100"), Shape::cpu("c", 8)];
    let workers = shapes.map(FakeWorker::new);
    let fleet = fleet(&workers.each_ref());
    all_open(&fleet).await;
    let start = |number: u32| run_of(number, &format!("v{}", number % 2), |spec| spec.gpus = 1);
    succeed((0..40).map(|number| Under::way(&fleet, start(number))).collect()).await;
    let count =
        |worker: &FakeWorker, variant: &str| worker.seen().variants.iter().filter(|v| *v == variant).count();
    let counts = workers.each_ref().map(|worker| (count(worker, "v0"), count(worker, "v1")));
    assert_eq!((counts[2], counts[3]), ((0, 0), (0, 0)), "another kind");
    for (v0, v1) in &counts[..2] {
        assert!(*v0 >= 5 && *v1 >= 5, "a variant is on one worker only: {counts:?}");
    }
    let other = run_of(99, "v0", |spec| {
        spec.gpus = 1;
        spec.labels[1].value = "e2".to_owned();
    });
    fleet.keep_kind("c", "e2", &workers[2].worker_id(), 1);
    Under::way(&fleet, other).ends().await;
    assert_eq!(workers[2].seen().begun.len(), 1, "an experiment that began on an H100 goes on there");
}

#[tokio::test]
async fn two_controllers_on_one_worker_both_get_slots() {
    let time = Duration::from_millis(30);
    let worker = FakeWorker::new(Shape { run_time: (time, time), ..Shape::cpu("w", 2) });
    let pace =
        Pace { yield_every: Duration::from_millis(100), yield_for: Duration::from_millis(80), ..quick() };
    let awake = Awake::start(SystemClock::shared());
    let [ours, theirs] = [(); 2].map(|()| fleet_with(&[&worker], pace, &awake));
    let many: Vec<Under> = (0..400).map(|number| Under::way(&ours, run(number, "v1"))).collect();
    until("ours have it", || worker.seen().begun.len() >= 4).await;
    let few = (1000..1003).map(|number| {
        let start = v1::StartRunRequest { controller_id: "they".to_owned(), ..run(number, "v1") };
        Under::way(&theirs, start)
    });
    succeed(few.collect()).await;
    let left = many.iter().filter(|run| !run.end.is_finished()).count();
    assert!(left > 0, "the others waited for all of ours");
    succeed(many).await;
    assert!(worker.seen().most_at_once <= 2);
    assert!(worker.seen().begun.values().all(|times| *times == 1));
}

#[tokio::test]
async fn where_no_worker_comes_a_run_is_not_waited_for_for_ever() {
    let worker = FakeWorker::new(Shape::cpu("w", 1));
    worker.go_away();
    let (clock, awake) = by_hand();
    let fleet = fleet_with(&[&worker], quick(), &awake);
    let run = Under::way(&fleet, run(1, "v1"));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!run.end.is_finished());
    clock.advance(Duration::from_secs(9));
    let (end, _) = run.result().await;
    let error = end.unwrap_err().to_string();
    assert!(error.contains("never reached so far"), "{error}");
}
