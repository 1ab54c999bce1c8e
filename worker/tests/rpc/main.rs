//! The calls over the Unix socket, against the real worker process and real sandboxes: what a controller is owed,
//! also by a worker that was killed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by ending")]

#[path = "../shared/connect.rs"]
mod connect;
mod fixture;
mod killed;

use std::time::Duration;

use fixture::{OWNER, WorkerProcess, backends, reason, request, spec, start, watch, watch_to_end};
use kit::{digest::Digest, id::new_uuid};
use prost::Message as _;
use proto::v1::{
    CancelRunRequest, Event, GetRunRequest, InputRole, OutcomeKind, ReadArtifactRequest, ReleaseRunRequest,
    RunSpec, RunState, StartRunRequest, Stream, WatchRunRequest, event::Kind,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const TALKER: &str = r#"
import sys
import autoresearch as ar
for step in range(5):
    print("line", step, flush=True)
    ar.log(step=step, loss=1 / (step + 1))
print("to stderr", file=sys.stderr)
with open("made.bin", "wb") as file:
    file.write(bytes(range(256)) * 1000)
ar.save("made.bin")
"#;
/// Says that it is there, and then waits for longer than any test.
const SLEEPER: &str = "import time\nprint('there', flush=True)\ntime.sleep(600)\n";
/// Has to be killed.
const STUBBORN: &str = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
    print('there', flush=True)\ntime.sleep(600)\n";

fn state_of(event: &Event) -> Option<RunState> {
    match &event.kind {
        Some(Kind::StateChange(change)) => Some(change.state()),
        Some(Kind::Finished(_)) => Some(RunState::Finished),
        _ => None,
    }
}

fn speaks(event: &Event) -> bool {
    matches!(&event.kind, Some(Kind::Frame(frame)) if frame.stream() == Stream::Stdout)
}

fn cancel(run_id: &str, owner: &str) -> CancelRunRequest {
    CancelRunRequest { run_id: run_id.into(), controller_id: owner.into() }
}

fn artifact(run_id: &str, name: &str, offset: u64, owner: &str) -> ReadArtifactRequest {
    ReadArtifactRequest { run_id: run_id.into(), controller_id: owner.into(), name: name.into(), offset }
}

fn get(run_id: &str, owner: &str) -> GetRunRequest {
    GetRunRequest { run_id: run_id.into(), controller_id: owner.into() }
}

fn release(run_id: &str, last_sequence: u64, owner: &str) -> ReleaseRunRequest {
    ReleaseRunRequest { run_id: run_id.into(), controller_id: owner.into(), last_sequence }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_told_whole_and_again_from_the_middle_until_it_is_released() {
    let worker = WorkerProcess::start().await;
    let mut client = worker.ready().await;
    let request = request(&spec(&mut client, TALKER).await);
    let run_id = request.run_id.clone();
    client.start_run(request.clone()).await.unwrap();

    let (events, finished) = watch_to_end(&mut client, &run_id, 0).await;
    let outcome = finished.outcome.clone().unwrap();
    assert_eq!(outcome.kind(), OutcomeKind::Succeeded, "{outcome:?}");
    let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=finished.last_sequence).collect::<Vec<_>>());
    let states: Vec<RunState> = events.iter().filter_map(state_of).collect();
    let all = [
        RunState::Accepted,
        RunState::Preparing,
        RunState::Starting,
        RunState::Running,
        RunState::Ending,
        RunState::Harvesting,
        RunState::Finished,
    ];
    let expected: Vec<RunState> = all.into_iter().filter(|state| *state != RunState::Ending).collect();
    let told: Vec<RunState> = states.iter().copied().filter(|state| *state != RunState::Ending).collect();
    assert_eq!(told, expected);

    let (mut stdout, mut stderr, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for event in &events {
        let Some(Kind::Frame(frame)) = &event.kind else { continue };
        match frame.stream() {
            Stream::Stdout => {
                assert_eq!(frame.offset, stdout.len() as u64);
                stdout.extend_from_slice(&frame.data);
            }
            Stream::Stderr => stderr.extend_from_slice(&frame.data),
            _ => {}
        }
        losses.extend(frame.points.iter().map(|point| (point.name.clone(), point.step, point.value)));
    }
    let lines: String = (0..5).map(|step| format!("line {step}\n")).collect();
    assert_eq!(String::from_utf8(stdout).unwrap(), lines);
    assert_eq!(stderr, b"to stderr\n");
    let wanted: Vec<_> =
        (0..5_i64).map(|step| ("loss".to_owned(), Some(step), 1.0 / (step as f64 + 1.0))).collect();
    assert_eq!(losses, wanted);

    // Again from the middle: the same events, and no more.
    let middle = finished.last_sequence / 2;
    let (rest, again) = watch_to_end(&mut client, &run_id, middle).await;
    assert_eq!((rest.as_slice(), again), (&events[usize::try_from(middle).unwrap()..], finished.clone()));
    let past = WatchRunRequest {
        run_id: run_id.clone(),
        controller_id: OWNER.into(),
        after_sequence: finished.last_sequence + 1,
    };
    assert_eq!(client.watch_run(past).await.unwrap_err().code(), Code::OutOfRange);

    // The artifact, whole and from an offset.
    let bytes = (0..=255_u8).collect::<Vec<_>>().repeat(1000);
    assert_eq!(finished.artifacts.len(), 1, "{:?}", finished.artifacts);
    let listed = &finished.artifacts[0];
    assert_eq!((listed.name.as_str(), listed.size_bytes), ("made.bin", bytes.len() as u64));
    assert_eq!(listed.digest, Digest::of(&bytes).to_string());
    for offset in [0, 100_001] {
        let mut stream =
            client.read_artifact(artifact(&run_id, "made.bin", offset, OWNER)).await.unwrap().into_inner();
        let (mut read, mut head) = (Vec::new(), None);
        while let Some(message) = stream.message().await.unwrap() {
            head = head.or(message.artifact);
            read.extend_from_slice(&message.data);
        }
        assert_eq!(head.as_ref(), Some(listed));
        assert!(read == bytes[usize::try_from(offset).unwrap()..], "other bytes from {offset} on");
    }
    let none = client.read_artifact(artifact(&run_id, "other.bin", 0, OWNER)).await.unwrap_err();
    assert_eq!((none.code(), reason(&none).as_str()), (Code::NotFound, "NO_SUCH_ARTIFACT"));

    // Same id: the same bytes are the same run, others are refused.
    let same = client.start_run(request.clone()).await.unwrap().into_inner().run.unwrap();
    assert_eq!((same.run_id.as_str(), same.state()), (run_id.as_str(), RunState::Finished));
    let other = StartRunRequest { spec: b"".as_slice().into(), ..request.clone() };
    assert_eq!(client.start_run(other).await.unwrap_err().code(), Code::AlreadyExists);

    // Nobody else sees it.
    let stranger = "scratch-stranger";
    let watching =
        WatchRunRequest { run_id: run_id.clone(), controller_id: stranger.into(), after_sequence: 0 };
    let refusals: [Status; 5] = [
        client.get_run(get(&run_id, stranger)).await.unwrap_err(),
        client.watch_run(watching).await.unwrap_err(),
        client.cancel_run(cancel(&run_id, stranger)).await.unwrap_err(),
        client.read_artifact(artifact(&run_id, "made.bin", 0, stranger)).await.unwrap_err(),
        client.release_run(release(&run_id, finished.last_sequence, stranger)).await.unwrap_err(),
    ];
    for status in refusals {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "NO_SUCH_RUN"), "{status:?}");
    }

    // Released with the last sequence only, and then it is forgotten.
    let early = client.release_run(release(&run_id, 1, OWNER)).await.unwrap_err();
    assert_eq!((early.code(), reason(&early).as_str()), (Code::FailedPrecondition, "WRONG_LAST_SEQUENCE"));
    for _ in 0..2 {
        client.release_run(release(&run_id, finished.last_sequence, OWNER)).await.unwrap();
    }
    let gone = client.get_run(get(&run_id, OWNER)).await.unwrap_err();
    assert_eq!((gone.code(), reason(&gone).as_str()), (Code::FailedPrecondition, "RUN_FORGOTTEN"));
    let anew = client.start_run(request).await.unwrap_err();
    assert_eq!((anew.code(), reason(&anew).as_str()), (Code::FailedPrecondition, "RUN_FORGOTTEN"));
    assert_eq!(worker.traces(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_works_in_every_state() {
    let worker = WorkerProcess::start().await;
    let mut client = worker.ready().await;

    // Before the run: it is never made.
    let request = request(&spec(&mut client, SLEEPER).await);
    let answer = client.cancel_run(cancel(&request.run_id, OWNER)).await.unwrap().into_inner();
    assert_eq!(answer.run, None);
    let status = client.start_run(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "RUN_FORGOTTEN"));

    for wanted in [RunState::Accepted, RunState::Preparing, RunState::Starting, RunState::Running] {
        let run_id = start(&mut client, SLEEPER).await;
        watch(&mut client, &run_id, 0, |event| state_of(event) == Some(wanted)).await;
        client.cancel_run(cancel(&run_id, OWNER)).await.unwrap();
        let (_, finished) = watch_to_end(&mut client, &run_id, 0).await;
        let outcome = finished.outcome.unwrap();
        assert_eq!(outcome.kind(), OutcomeKind::Cancelled, "in {wanted:?}: {outcome:?}");
        assert_eq!(worker.traces(), Vec::<String>::new(), "in {wanted:?}");
    }

    // Twice: the second one finds it ending.
    let run_id = start(&mut client, STUBBORN).await;
    watch(&mut client, &run_id, 0, speaks).await;
    client.cancel_run(cancel(&run_id, OWNER)).await.unwrap();
    watch(&mut client, &run_id, 0, |event| state_of(event) == Some(RunState::Ending)).await;
    let run = client.cancel_run(cancel(&run_id, OWNER)).await.unwrap().into_inner().run.unwrap();
    assert_eq!(run.state(), RunState::Ending);
    let (_, finished) = watch_to_end(&mut client, &run_id, 0).await;
    assert_eq!(finished.outcome.unwrap().kind(), OutcomeKind::Cancelled);

    // Too late: what was reached stays.
    let run_id = start(&mut client, "print('done')").await;
    watch(&mut client, &run_id, 0, |event| state_of(event) == Some(RunState::Harvesting)).await;
    client.cancel_run(cancel(&run_id, OWNER)).await.unwrap();
    let (_, finished) = watch_to_end(&mut client, &run_id, 0).await;
    assert_eq!(finished.outcome.unwrap().kind(), OutcomeKind::Succeeded);
    let run = client.cancel_run(cancel(&run_id, OWNER)).await.unwrap().into_inner().run.unwrap();
    assert_eq!(run.finished.unwrap().outcome.unwrap().kind(), OutcomeKind::Succeeded);
    assert_eq!(worker.traces(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_says_which_field_what_is_missing_or_when_to_come_again() {
    let worker = WorkerProcess::start().await;
    let mut client = worker.ready().await;
    let good = spec(&mut client, SLEEPER).await;
    let plain = request(&good);
    let digest = good.files[0].digest.clone();

    let mut no_program = good.clone();
    no_program.files[0].role = InputRole::Data.into();
    let mut long = good.clone();
    long.limits.as_mut().unwrap().time_ms = 1 << 50;
    let mut climbing = good.clone();
    climbing.files[0].path = "../main.py".into();
    let with =
        |spec: &proto::v1::RunSpec| StartRunRequest { spec: spec.encode_to_vec().into(), ..request(&good) };
    let wrong = [
        (StartRunRequest { run_id: "7".into(), ..plain.clone() }, "run_id"),
        (StartRunRequest { controller_id: "a b".into(), ..plain.clone() }, "controller_id"),
        (with(&no_program), "spec.files"),
        (with(&long), "spec.limits.time_ms"),
        (with(&climbing), "spec.files[0].path"),
    ];
    for (request, field) in wrong {
        let status = client.start_run(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let details = status.get_error_details();
        let named: Vec<&str> =
            details.bad_request().unwrap().field_violations.iter().map(|v| v.field.as_str()).collect();
        assert!(named.contains(&field), "{field} is not in {named:?}");
    }

    let mut nowhere = good.clone();
    nowhere.image = "nowhere".into();
    let status = client.start_run(with(&nowhere)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "NO_SUCH_IMAGE"));
    let mut unsent = good.clone();
    unsent.files[0].digest = Digest::of(b"never sent").to_string();
    let status = client.start_run(with(&unsent)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "BLOBS_MISSING"));
    let details = status.get_error_details();
    assert_eq!(
        details.precondition_failure().unwrap().violations[0].subject,
        unsent.files[0].digest,
        "and not {digest}"
    );

    // The only slot is taken.
    client.start_run(plain.clone()).await.unwrap();
    let status = client.start_run(request(&good)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "NO_SLOT"));
    let delay = status.get_error_details().retry_info().unwrap().retry_delay.unwrap();
    assert!(delay > Duration::ZERO && delay < Duration::from_secs(60), "{delay:?}");
    client.cancel_run(cancel(&plain.run_id, OWNER)).await.unwrap();
    watch_to_end(&mut client, &plain.run_id, 0).await;

    // An id that nobody has started.
    let status = client.get_run(get(&new_uuid().to_string(), OWNER)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "NO_SUCH_RUN"));
    assert_eq!(worker.traces(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_compile_fails_with_its_exception() {
    let worker = WorkerProcess::start().await;
    let mut client = worker.ready().await;
    for (program, class, message) in [
        ("if True\n    pass\n", "SyntaxError", "expected ':'"),
        ("def f():\nreturn 1\n", "IndentationError", "expected an indented block"),
    ] {
        let run_id = start(&mut client, program).await;
        let (_, finished) = watch_to_end(&mut client, &run_id, 0).await;
        let outcome = finished.outcome.unwrap();
        assert_eq!((outcome.kind(), outcome.exit_code), (OutcomeKind::Failed, Some(1)));
        assert_eq!(outcome.exception_class, class);
        assert!(outcome.exception_message.contains(message), "{}", outcome.exception_message);
        assert!(outcome.traceback.contains("main.py"), "{}", outcome.traceback);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_an_engine_serves_and_says_what_is_missing() {
    let worker = WorkerProcess::start_with(Some("unix:///nowhere/docker.sock".into())).await;
    let mut client = worker.client().await;
    let found = backends(&mut client).await;
    // What can be used comes first: this host's own parts.
    assert_eq!((found.len(), found[0].name.as_str(), found[0].available), (2, "native", true));
    assert_eq!((found[1].name.as_str(), found[1].available), ("docker", false));
    let why = &found[1].reason;
    assert!(why.contains("/nowhere/docker.sock") && why.contains("install Docker"), "{why}");
    assert!(!why.contains('\n'), "{why}");
    let spec = RunSpec { backend: "docker".into(), ..spec(&mut client, SLEEPER).await };
    let status = client.start_run(request(&spec)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "ENGINE"));
    assert!(status.message().contains("/nowhere/docker.sock"), "{}", status.message());
}
