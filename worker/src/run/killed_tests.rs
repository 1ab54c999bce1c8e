//! A worker that is killed at each step of a run's life, and the next one that goes on: each call to the sandbox, before and after
//! its effect. The killed worker is a runtime of its own that is dropped with everything in it; the sandboxes stay.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use prost::Message as _;
use proto::v1::{Event, Finished, Limits, LostCause, OutcomeKind, RunSpec, Stream, event::Kind};

use super::{
    RunId,
    fake::{Ending, House, Moment, OWNER, Script, World},
    handle::RunHandle,
    record::Record,
    registry::lock,
    spool::SpoolReader,
};

const LONGEST: Duration = Duration::from_secs(30);

/// One process of the worker.
struct Process {
    runtime: tokio::runtime::Runtime,
    house: House,
}

/// What is there between processes.
struct Place {
    root: Arc<tempfile::TempDir>,
    world: Arc<World>,
}

impl Place {
    fn new(script: Script) -> Self {
        let root = Arc::new(tempfile::tempdir().unwrap());
        let world = World::new(root.path(), script);
        Self { root, world }
    }

    fn start(&self) -> Process {
        self.start_with("boot-1", 2)
    }

    fn start_with(&self, boot: &str, slots: u32) -> Process {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let house = House::in_world(Arc::clone(&self.root), Arc::clone(&self.world), boot, slots);
        let house = runtime.block_on(house);
        Process { runtime, house }
    }
}

impl Process {
    /// SIGKILL: no task goes on.
    fn kill(self) {
        let Self { runtime, house } = self;
        drop(runtime);
        drop(house);
    }

    fn begin(&self, change: impl FnOnce(&mut RunSpec)) -> RunId {
        let mut spec = self.house.spec();
        change(&mut spec);
        let id = RunId::new();
        self.runtime.block_on(self.house.registry.start(id, OWNER, &spec.encode_to_vec())).unwrap();
        id
    }

    fn run(&self, id: RunId) -> Arc<RunHandle> {
        self.house.registry.get(id, OWNER).unwrap()
    }

    fn until(&self, what: &str, wait: impl Future<Output = ()>) {
        self.runtime.block_on(async { tokio::time::timeout(LONGEST, wait).await }).expect(what);
    }

    /// Everything that a watcher sees, and that it is what it must be.
    #[track_caller]
    fn finish(&self, id: RunId) -> (Vec<Event>, Finished) {
        let run = self.run(id);
        self.until("the run ends", run.wait_finished());
        let last = *run.synced.borrow();
        let mut reader = SpoolReader::open(&run.folder, id, 0, last).unwrap();
        let events: Vec<Event> = std::iter::from_fn(|| reader.next(last).unwrap()).collect();
        let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=last).collect::<Vec<_>>());
        let ends = events.iter().filter(|event| matches!(event.kind, Some(Kind::Finished(_)))).count();
        assert_eq!(ends, 1, "exactly one end");
        let finished = run.published.borrow().finished.clone().unwrap();
        assert_eq!(events.last().unwrap().kind, Some(Kind::Finished(finished.clone())));
        let mut unfinished = self.house.registry.unfinished();
        self.until("its driver ends", async {
            unfinished.wait_for(|count| *count == 0).await.unwrap();
        });
        self.house.assert_clean();
        (events, finished)
    }
}

/// Of a stream, checked for gaps and repetitions.
fn output(events: &[Event], stream: Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events {
        if let Some(Kind::Frame(frame)) = &event.kind
            && frame.stream() == stream
        {
            assert_eq!(frame.offset, bytes.len() as u64);
            bytes.extend_from_slice(&frame.data);
        }
    }
    bytes
}

fn kind(finished: &Finished) -> OutcomeKind {
    finished.outcome.as_ref().unwrap().kind()
}

fn script() -> Script {
    Script {
        stdout: b"one\n".to_vec(),
        later: b"two\n".to_vec(),
        metrics: b"{\"t\":7,\"step\":1,\"v\":{\"loss\":\"0.5\"}}\n{\"t\":8,\"v\":{\"loss\":\"0.25\"}}"
            .to_vec(),
        artifacts: vec![("model.pt".into(), b"weights".to_vec())],
        after: Duration::from_millis(300),
        ..Script::exit(0)
    }
}

#[track_caller]
fn assert_good(events: &[Event], finished: &Finished, at: &str) {
    assert_eq!(kind(finished), OutcomeKind::Succeeded, "{at}: {finished:?}");
    assert_eq!(output(events, Stream::Stdout), b"one\ntwo\n", "{at}");
    let points = events.iter().filter_map(|event| match &event.kind {
        Some(Kind::Frame(frame)) => Some(frame.points.iter().map(|point| point.value)),
        _ => None,
    });
    assert_eq!(points.flatten().collect::<Vec<_>>(), [0.5, 0.25], "{at}");
    assert_eq!((finished.artifacts.len(), finished.artifacts[0].size_bytes), (1, 7), "{at}");
    let usage = finished.usage.as_ref().unwrap();
    assert_eq!((usage.stdout_bytes, usage.metric_points, usage.complete), (8, 2, true), "{at}");
}

#[test]
fn killed_at_any_call_a_good_run_ends_as_if_nobody_had_been_killed() {
    let after = ["prepare", "assign", "Start", "Kill", "end", "remove"].map(|call| (call, Moment::After));
    let before = ["prepare", "assign", "verify", "Start", "Kill", "evidence", "end", "remove"];
    for (call, moment) in before.map(|call| (call, Moment::Before)).into_iter().chain(after) {
        let place = Place::new(script());
        let first = place.start();
        place.world.halt_at(call, moment);
        let id = first.begin(|spec| spec.required_metrics = vec!["loss".into()]);
        first.until(call, place.world.wait_halted());
        let seen = *first.run(id).synced.borrow();
        first.kill();
        let second = place.start();
        let (events, finished) = second.finish(id);
        assert!(events.len() as u64 >= seen, "{call} {moment:?}");
        assert_good(&events, &finished, &format!("{call} {moment:?}"));
    }
}

#[test]
fn a_reason_that_is_on_disk_stands_and_its_signals_go_on() {
    for (call, moment) in [
        ("Terminate", Moment::Before),
        ("Terminate", Moment::After),
        ("Kill", Moment::Before),
        ("Kill", Moment::After),
        ("evidence", Moment::Before),
        ("end", Moment::After),
    ] {
        for ending in [Ending::Obedient, Ending::Stubborn] {
            let place = Place::new(Script { stdout: b"there\n".to_vec(), ..Script::ending(ending) });
            let first = place.start();
            place.world.halt_at(call, moment);
            let id = first.begin(|spec| {
                spec.limits = Some(Limits { time_ms: 200, grace_ms: 100, ..Limits::default() });
            });
            first.until(call, place.world.wait_halted());
            first.kill();
            let (events, finished) = place.start().finish(id);
            assert_eq!(kind(&finished), OutcomeKind::TimedOut, "{call} {moment:?}: {finished:?}");
            assert_eq!(output(&events, Stream::Stdout), b"there\n");
        }
    }
}

#[test]
fn what_came_and_ended_while_nobody_was_there_is_told_whole() {
    let place = Place::new(script());
    let first = place.start();
    place.world.halt_at("Start", Moment::After);
    let id = first.begin(|spec| spec.required_metrics = vec!["loss".into()]);
    first.until("started", place.world.wait_halted());
    first.kill();
    std::thread::sleep(Duration::from_millis(600));
    let (events, finished) = place.start().finish(id);
    assert_good(&events, &finished, "away");
    assert_eq!(finished.usage.unwrap().wall_ms, 1, "as PID 1 measured it");
}

fn running(place: &Place, change: impl FnOnce(&mut RunSpec)) -> (Process, RunId) {
    let first = place.start();
    let id = first.begin(change);
    let run = first.run(id);
    first.until("output", async {
        run.published.clone().wait_for(|p| p.gate.is_some()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
    });
    (first, id)
}

#[test]
fn a_limit_that_passed_while_nobody_was_there_is_timed_out_at_once() {
    for ending in [Ending::Obedient, Ending::Backstop] {
        let place = Place::new(Script { after: Duration::from_millis(400), ..Script::ending(ending) });
        let (first, id) = running(&place, |spec| {
            spec.limits = Some(Limits { time_ms: 1000, grace_ms: 100, ..Limits::default() });
        });
        first.kill();
        std::thread::sleep(Duration::from_millis(1200));
        let (_, finished) = place.start().finish(id);
        assert_eq!(kind(&finished), OutcomeKind::TimedOut, "{finished:?}");
    }
}

#[test]
fn a_cancel_that_was_answered_is_known_to_the_next_process() {
    let place = Place::new(Script::ending(Ending::Obedient));
    let (first, id) = running(&place, |_| {});
    place.world.halt_at("Terminate", Moment::Before);
    // The driver is not asked: what was answered is on disk whatever it does.
    super::record::save_cancel(&first.run(id).folder).unwrap();
    first.kill();
    place.world.go();
    assert_eq!(kind(&place.start().finish(id).1), OutcomeKind::Cancelled);
}

#[test]
fn what_is_not_yet_running_is_made_again_three_times_and_then_lost() {
    let place = Place::new(script());
    let mut process = place.start();
    place.world.halt_at("assign", Moment::Before);
    let id = process.begin(|_| {});
    for again in 0..4 {
        process.until("it is made", place.world.wait_halted());
        assert_eq!(Record::load(&process.run(id).folder).unwrap().made_again, again);
        process.kill();
        place.world.halt_at("assign", Moment::Before);
        process = place.start();
    }
    let outcome = process.finish(id).1.outcome.unwrap();
    assert_eq!((outcome.kind(), outcome.lost_cause()), (OutcomeKind::Lost, LostCause::WorkerCrash));
    let made = lock(&place.world.calls).iter().filter(|call| *call == "prepare").count();
    assert_eq!(made, 4);
}

#[test]
fn another_boot_ends_it_and_leaves_nothing() {
    let place = Place::new(script());
    let (first, id) = running(&place, |_| {});
    first.kill();
    let outcome = place.start_with("boot-2", 2).finish(id).1.outcome.unwrap();
    assert_eq!((outcome.kind(), outcome.lost_cause()), (OutcomeKind::Lost, LostCause::Reboot));
}

#[test]
fn a_run_has_its_own_slot_again_or_is_lost_with_the_cause() {
    let place = Place::new(Script::ending(Ending::Stubborn));
    let (first, _) = running(&place, |_| {});
    let id = first.begin(|_| {});
    let slot = first.run(id).slot;
    let run = first.run(id);
    first.until("it runs", async {
        run.published.clone().wait_for(|p| p.gate.is_some()).await.unwrap();
    });
    first.kill();
    let second = place.start();
    let holder = second.house.slots.holders.lock().unwrap()[&slot];
    assert_eq!((slot, holder), (1, Some(id)));
    second.kill();

    // With one slot the second run has none.
    let third = place.start_with("boot-1", 1);
    let run = third.run(id);
    third.until("it is lost", run.wait_finished());
    let outcome = run.published.borrow().finished.clone().unwrap().outcome.unwrap();
    assert_eq!((outcome.kind(), outcome.lost_cause()), (OutcomeKind::Lost, LostCause::Device), "{outcome:?}");
    for other in third.house.registry.list(OWNER, &[], &[]) {
        let other: RunId = other.run_id.parse().unwrap();
        third.runtime.block_on(third.house.registry.cancel(other, OWNER)).unwrap();
        third.until("it ends", third.run(other).wait_finished());
    }
    third.house.assert_clean();
}

#[test]
fn a_sandbox_that_nobody_names_is_swept_and_a_named_one_kept() {
    let place = Place::new(Script::ending(Ending::Stubborn));
    let (first, id) = running(&place, |_| {});
    first.kill();
    std::fs::remove_dir_all(place.root.path().join("runs").join(id.to_string())).unwrap();
    place.start().house.assert_clean();
}

#[test]
fn a_program_that_was_idle_before_is_stalled_although_the_worker_was_away() {
    let place = Place::new(Script::ending(Ending::Obedient));
    let (first, id) = running(&place, |spec| {
        spec.limits = Some(Limits { stall_ms: 1500, grace_ms: 100, ..Limits::default() });
    });
    first.kill();
    std::thread::sleep(Duration::from_millis(1600));
    assert_eq!(kind(&place.start().finish(id).1), OutcomeKind::Stalled);
}

const CALLS: [&str; 9] =
    ["prepare", "assign", "verify", "Start", "Terminate", "Kill", "evidence", "end", "remove"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 20, ..ProptestConfig::default() })]

    /// Killed at up to three places, which may be the same and may come while the one before is gone on from.
    #[test]
    fn any_kills_leave_one_true_end(
        kills in proptest::collection::vec((0..CALLS.len(), any::<bool>()), 1..4),
        program in 0_usize..5,
        cancel in any::<bool>(),
    ) {
        let ending = [Ending::Exit(0), Ending::Exit(3), Ending::Obedient, Ending::Stubborn, Ending::Signal(11)][program].clone();
        let place = Place::new(Script { after: Duration::from_millis(60), ..Script { ending, ..script() } });
        let limits = Limits { time_ms: 400, grace_ms: 50, ..Limits::default() };
        let mut process = place.start();
        let mut id = None;
        for (call, after) in kills {
            place.world.halt_at(CALLS[call], if after { Moment::After } else { Moment::Before });
            let run = *id.get_or_insert_with(|| process.begin(|spec| spec.limits = Some(limits)));
            let handle = process.run(run);
            if cancel {
                process.runtime.block_on(process.house.registry.cancel(run, OWNER)).unwrap();
            }
            // It may never come there: then the run ends, and a kill after the end is one, too.
            process.until("a halt or the end", async {
                tokio::select! {
                    () = place.world.wait_halted() => {}
                    () = handle.wait_finished() => {}
                }
            });
            process.kill();
            place.world.go();
            process = place.start();
        }
        let (events, finished) = process.finish(id.unwrap());
        let kind = kind(&finished);
        let own = match program {
            0 => OutcomeKind::Succeeded,
            1 | 4 => OutcomeKind::Failed,
            _ => OutcomeKind::TimedOut,
        };
        // A cancel that comes when the program has ended is too late.
        prop_assert!(kind == own || (cancel && kind == OutcomeKind::Cancelled), "{finished:?}");
        if !cancel {
            prop_assert_eq!(output(&events, Stream::Stdout), b"one\ntwo\n");
        }
    }
}
