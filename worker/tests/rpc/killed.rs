//! A worker that is killed or stopped under a run, and the next process on its folder: the run goes on as if there had been one
//! worker, on both backends, and a watcher sees one unbroken sequence.

use std::time::Duration;

use proto::v1::{Event, Finished, OutcomeKind, RunSpec, RunState, Stream, event::Kind};

use crate::{
    cancel,
    fixture::{Client, WorkerProcess, request, spec, watch, watch_to_end},
    release, speaks, state_of,
};

/// A line every few milliseconds, a metric with each, and a file at the end.
const COUNTER: &str = "import time, autoresearch as ar\nfor n in range(400):\n    print(f'line {n:05}', flush=True)\n    \
    ar.log(step=n, loss=float(n))\n    time.sleep(0.01)\nopen('made.bin', 'wb').write(b'made')\nar.save('made.bin')\n";
const LINES: usize = 400;
const STUBBORN: &str = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
    print('there', flush=True)\ntime.sleep(600)\n";

const BACKENDS: [&str; 2] = ["docker", "native"];

async fn begin(client: &mut Client, backend: &str, program: &str) -> String {
    let mut spec = spec(client, program).await;
    spec.backend = backend.to_owned();
    begin_spec(client, &spec).await
}

async fn begin_spec(client: &mut Client, spec: &RunSpec) -> String {
    client.start_run(request(spec)).await.unwrap().into_inner().run.unwrap().run_id
}

/// Whole, in order, each once.
#[track_caller]
fn assert_whole(events: &[Event], finished: &Finished, at: &str) {
    let outcome = finished.outcome.clone().unwrap();
    assert_eq!(outcome.kind(), OutcomeKind::Succeeded, "{at}: {outcome:?}");
    let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=finished.last_sequence).collect::<Vec<_>>(), "{at}");
    let (mut stdout, mut losses) = (Vec::new(), Vec::new());
    for event in events {
        let Some(Kind::Frame(frame)) = &event.kind else { continue };
        if frame.stream() == Stream::Stdout {
            assert_eq!(frame.offset, stdout.len() as u64, "{at}");
            stdout.extend_from_slice(&frame.data);
        }
        losses.extend(frame.points.iter().map(|point| point.value as usize));
    }
    let lines: String = (0..LINES).map(|number| format!("line {number:05}\n")).collect();
    assert!(String::from_utf8(stdout).unwrap() == lines, "{at}: other lines");
    assert_eq!(losses, (0..LINES).collect::<Vec<_>>(), "{at}");
    assert_eq!(finished.artifacts.len(), 1, "{at}: {finished:?}");
    let usage = finished.usage.as_ref().unwrap();
    assert!(usage.complete && usage.metric_points == LINES as u64, "{at}: {usage:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_outlives_three_workers_and_loses_nothing() {
    for backend in BACKENDS {
        let mut worker = WorkerProcess::start().await;
        let mut client = worker.ready_on(backend).await;
        let run_id = begin(&mut client, backend, COUNTER).await;
        let before = watch(&mut client, &run_id, 0, speaks).await;
        let mut seen = before.len() as u64;
        for stop in [WorkerProcess::kill, WorkerProcess::stop] {
            stop(&mut worker);
            assert!(!worker.traces().is_empty(), "a sandbox does not die with its worker");
            tokio::time::sleep(Duration::from_millis(300)).await;
            client = worker.restart().await;
            // It goes on, and what comes next is what comes after what was seen.
            let more = watch(&mut client, &run_id, seen, speaks).await;
            assert_eq!(more[0].sequence, seen + 1);
            seen += more.len() as u64;
        }
        let (events, finished) = watch_to_end(&mut client, &run_id, 0).await;
        assert_eq!(
            events[..before.len()],
            before[..],
            "what a watcher has seen is what the next process tells"
        );
        assert_whole(&events, &finished, backend);
        assert_eq!(worker.traces(), Vec::<String>::new());

        // The slot is free again.
        let run_id = begin(&mut client, backend, COUNTER).await;
        let (_, finished) = watch_to_end(&mut client, &run_id, 0).await;
        assert_eq!(finished.outcome.unwrap().kind(), OutcomeKind::Succeeded);
        assert_eq!(worker.traces(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_named_instruction_a_run_ends_as_it_would_have() {
    for backend in BACKENDS {
        for point in ["accepted", "starting", "running", "harvesting", "finishing"] {
            let at = format!("{backend} {point}");
            let mut worker = WorkerProcess::start().await;
            worker.ready_on(backend).await;
            worker.kill();
            let mut client = worker.restart_halting(&format!("worker.{point}")).await;
            let spec = RunSpec { backend: backend.to_owned(), ..spec(&mut client, COUNTER).await };
            let request = request(&spec);
            // A worker that stops at once does not answer.
            let answer = client.start_run(request.clone());
            tokio::time::timeout(Duration::from_secs(2), answer).await.ok();
            worker.halted(&format!("worker.{point}")).await;
            worker.kill();
            let mut client = worker.restart().await;
            let run = client.start_run(request.clone()).await.unwrap().into_inner().run.unwrap();
            assert_eq!(run.run_id, request.run_id, "the same id and bytes are the same run");
            let (events, finished) = watch_to_end(&mut client, &request.run_id, 0).await;
            assert_whole(&events, &finished, &at);
            assert_eq!(worker.traces(), Vec::<String>::new(), "{at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_reason_and_signal_the_reason_stands() {
    for backend in BACKENDS {
        let mut worker = WorkerProcess::start().await;
        worker.ready_on(backend).await;
        worker.kill();
        let mut client = worker.restart_halting("worker.ending").await;
        let run_id = begin(&mut client, backend, STUBBORN).await;
        watch(&mut client, &run_id, 0, speaks).await;
        let asked = client.cancel_run(cancel(&run_id, crate::OWNER));
        tokio::time::timeout(Duration::from_secs(5), asked).await.ok();
        worker.halted("worker.ending").await;
        worker.kill();
        let mut client = worker.restart().await;
        let (events, finished) = watch_to_end(&mut client, &run_id, 0).await;
        let outcome = finished.outcome.unwrap();
        assert_eq!(outcome.kind(), OutcomeKind::Cancelled, "{backend}: {outcome:?}");
        assert!(events.iter().any(|event| state_of(event) == Some(RunState::Ending)));
        assert_eq!(worker.traces(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_passes_while_no_worker_is_there_is_timed_out_at_once() {
    for backend in BACKENDS {
        let mut worker = WorkerProcess::start().await;
        let mut client = worker.ready_on(backend).await;
        let mut spec = spec(&mut client, STUBBORN).await;
        spec.backend = backend.to_owned();
        let limits = spec.limits.as_mut().unwrap();
        (limits.time_ms, limits.grace_ms) = (4000, 200);
        let run_id = begin_spec(&mut client, &spec).await;
        watch(&mut client, &run_id, 0, speaks).await;
        worker.kill();
        tokio::time::sleep(Duration::from_millis(4500)).await;
        let mut client = worker.restart().await;
        let (_, finished) = watch_to_end(&mut client, &run_id, 0).await;
        let outcome = finished.outcome.unwrap();
        assert_eq!(outcome.kind(), OutcomeKind::TimedOut, "{backend}: {outcome:?}");
        assert_eq!(worker.traces(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_was_killed_in_the_middle_leaves_no_run() {
    let mut worker = WorkerProcess::start().await;
    worker.ready_on("native").await;
    worker.kill();
    let mut client = worker.restart_halting("worker.release").await;
    let run_id = begin(&mut client, "native", "print('done')").await;
    let (_, finished) = watch_to_end(&mut client, &run_id, 0).await;
    let releasing = client.release_run(release(&run_id, finished.last_sequence, crate::OWNER));
    tokio::time::timeout(Duration::from_secs(5), releasing).await.ok();
    worker.halted("worker.release").await;
    worker.kill();
    let mut client = worker.restart().await;
    client.release_run(release(&run_id, finished.last_sequence, crate::OWNER)).await.unwrap();
    assert_eq!(worker.runs(), Vec::<String>::new());
    assert_eq!(worker.traces(), Vec::<String>::new());
}
