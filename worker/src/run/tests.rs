//! Whole runs over a scripted sandbox: each end, each refusal, each recovery; and nothing left after any of them.

use std::time::{Duration, Instant};

use prost::Message as _;
use proto::v1::{
    DivergenceRule, Event, Finished, Gpu, Limits, LostCause, Machine, OutcomeKind, RunSpec, RunState,
    event::Kind,
};

use super::{
    RunId,
    fake::{Ending, House, OWNER, Script},
    registry::{LookupError, ReleaseError, StartError, lock},
    spool::SpoolReader,
};
use crate::{
    packages::fake::Play,
    sandbox::Evidence,
    service::{Identity, describe},
};

async fn finish(house: &House, spec: &RunSpec) -> (RunId, Finished) {
    let id = RunId::new();
    let run = house.registry.start(id, OWNER, &spec.encode_to_vec()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), run.wait_finished()).await.expect("it ends");
    let finished = run.published.borrow().finished.clone().unwrap();
    (id, finished)
}

fn events(house: &House, id: RunId) -> Vec<Event> {
    let run = house.registry.get(id, OWNER).unwrap();
    let synced = *run.synced.borrow();
    let mut reader = SpoolReader::open(&run.folder, id, 0, synced).unwrap();
    std::iter::from_fn(|| reader.next(synced).unwrap()).collect()
}

async fn outcome_of(script: Script, change: impl FnOnce(&mut RunSpec)) -> Finished {
    let house = House::new(script).await;
    let mut spec = house.spec();
    change(&mut spec);
    let (id, finished) = finish(&house, &spec).await;
    house.assert_clean();
    let all = events(&house, id);
    let sequences: Vec<u64> = all.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=all.len() as u64).collect::<Vec<_>>());
    assert_eq!(all.last().unwrap().kind, Some(Kind::Finished(finished.clone())));
    assert_eq!(finished.last_sequence, all.len() as u64);
    finished
}

fn kind(finished: &Finished) -> OutcomeKind {
    finished.outcome.as_ref().unwrap().kind()
}

#[tokio::test]
async fn a_good_run_leaves_its_output_metrics_and_artifacts() {
    let script = Script {
        stdout: b"hello\n".to_vec(),
        metrics: b"{\"t\":7,\"step\":1,\"v\":{\"loss\":\"0.5\"}}\nbad\n".to_vec(),
        artifacts: vec![("model.pt".into(), b"weights".to_vec())],
        ..Script::exit(0)
    };
    let house = House::new(script).await;
    let mut spec = house.spec();
    spec.required_metrics = vec!["loss".into()];
    spec.params_json = "{\"lr\":0.1}".into();
    spec.seed = 3;
    let (id, finished) = finish(&house, &spec).await;
    assert_eq!(kind(&finished), OutcomeKind::Succeeded);
    assert_eq!(finished.outcome.as_ref().unwrap().exit_code, Some(0));
    assert_eq!(finished.outcome.as_ref().unwrap().notes, ["1 lines of the metrics stream were no metrics"]);
    assert_eq!((finished.artifacts.len(), finished.artifacts[0].size_bytes), (1, 7));
    let usage = finished.usage.unwrap();
    assert_eq!((usage.stdout_bytes, usage.metric_points, usage.complete), (6, 1, true));
    let states: Vec<RunState> = events(&house, id)
        .into_iter()
        .filter_map(|event| match event.kind {
            Some(Kind::StateChange(change)) => Some(change.state()),
            _ => None,
        })
        .collect();
    let expected = [
        RunState::Accepted,
        RunState::Preparing,
        RunState::Starting,
        RunState::Running,
        RunState::Ending,
        RunState::Harvesting,
    ];
    assert_eq!(states, expected);
    let calls = lock(&house.backend.world.calls).clone();
    assert_eq!(calls, ["sweep", "prepare", "assign", "verify", "Start", "Kill", "evidence", "end", "remove"]);
    let given: serde_json::Value = serde_json::from_slice(&lock(&house.backend.world.run_json)).unwrap();
    assert_eq!(
        (&given["program"], &given["params"]["lr"], &given["seed"]),
        (&"main.py".into(), &0.1.into(), &3.into())
    );
    house.assert_clean();
}

#[tokio::test]
async fn nothing_is_copied_before_the_end_is_confirmed() {
    let artifacts = vec![("model.pt".to_owned(), b"weights".to_vec())];
    let script = Script { artifacts, end_fails: true, ..Script::exit(0) };
    let house = House::new(script).await;
    let (id, finished) = finish(&house, &house.spec()).await;
    let copies = house.registry.get(id, OWNER).unwrap().folder.join("artifacts");
    assert!(finished.artifacts.is_empty() && !copies.exists());
    assert!(finished.left_out[0].reason.contains("end is confirmed"), "{finished:?}");
    assert!(finished.outcome.unwrap().notes[0].contains("end is confirmed"));
}

#[tokio::test]
async fn the_programs_own_ends() {
    assert_eq!(kind(&outcome_of(Script::exit(1), |_| {}).await), OutcomeKind::Failed);
    assert_eq!(kind(&outcome_of(Script::ending(Ending::Signal(11)), |_| {}).await), OutcomeKind::Failed);
    let missing = outcome_of(Script::exit(0), |spec| spec.required_metrics = vec!["acc".into()]).await;
    assert_eq!(kind(&missing), OutcomeKind::MissingMetrics);
    let trace = b"Traceback (most recent call last):\n  File \"main.py\", line 1\nKeyError: 'x'\n";
    let failed = outcome_of(Script { stderr: trace.to_vec(), ..Script::exit(1) }, |_| {}).await;
    assert_eq!(failed.outcome.unwrap().exception_class, "KeyError");
    let evidence = Evidence { complete: true, oom_kills: 1, memory_limit_met: true, ..Evidence::default() };
    let script = Script { evidence, ..Script::ending(Ending::Signal(9)) };
    assert_eq!(kind(&outcome_of(script, |_| {}).await), OutcomeKind::OutOfMemory);
}

#[tokio::test]
async fn the_limit_ends_an_obedient_and_a_stubborn_program_in_time() {
    for (ending, longest) in [(Ending::Obedient, 250 + 200), (Ending::Stubborn, 250 + 200 + 500)] {
        let begun = Instant::now();
        let finished = outcome_of(Script::ending(ending.clone()), |spec| {
            spec.limits = Some(Limits { time_ms: 250, grace_ms: 200, ..Limits::default() });
        })
        .await;
        assert_eq!(kind(&finished), OutcomeKind::TimedOut);
        let wall = finished.usage.unwrap().wall_ms;
        assert!((250..longest).contains(&wall), "{ending:?} took {wall} ms");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn divergence_is_stopped_at_once_and_seen_after_the_end() {
    let metrics = b"{\"t\":7,\"v\":{\"loss\":\"nan\"}}\n".to_vec();
    let rule = |spec: &mut RunSpec| {
        spec.divergence = Some(DivergenceRule { non_finite: true, ..DivergenceRule::default() });
    };
    let running = Script { metrics: metrics.clone(), ..Script::ending(Ending::Obedient) };
    assert_eq!(kind(&outcome_of(running, rule).await), OutcomeKind::Diverged);
    let ended = Script { metrics, ..Script::exit(0) };
    assert_eq!(kind(&outcome_of(ended, rule).await), OutcomeKind::Diverged);
}

#[tokio::test]
async fn a_silent_idle_program_is_stalled_and_a_busy_one_is_not() {
    let limits = |stall_ms| {
        move |spec: &mut RunSpec| {
            spec.limits = Some(Limits { stall_ms, time_ms: 3000, grace_ms: 100, ..Limits::default() });
        }
    };
    assert_eq!(kind(&outcome_of(Script::ending(Ending::Obedient), limits(300)).await), OutcomeKind::Stalled);
}

#[tokio::test]
async fn artifacts_past_the_limit_are_the_outcome_of_a_run_that_was_good() {
    let artifacts = vec![("a".to_owned(), vec![1; 10]), ("b".to_owned(), vec![2; 10])];
    let limits = |spec: &mut RunSpec| {
        spec.limits = Some(Limits { artifact_bytes: 15, ..Limits::default() });
    };
    let finished = outcome_of(Script { artifacts: artifacts.clone(), ..Script::exit(0) }, limits).await;
    let outcome = finished.outcome.clone().unwrap();
    assert_eq!((outcome.kind(), outcome.limit.as_str()), (OutcomeKind::LimitExceeded, "artifacts"));
    assert_eq!((finished.artifacts.len(), finished.left_out.len()), (1, 1));
    let failed = outcome_of(Script { artifacts, ..Script::exit(1) }, limits).await;
    assert_eq!(kind(&failed), OutcomeKind::Failed);
}

#[tokio::test]
async fn what_is_not_the_programs_doing_is_lost() {
    let cases = [
        (Script { prepare_fails: true, ..Script::exit(0) }, LostCause::Sandbox),
        (Script { verify_fails: true, ..Script::exit(0) }, LostCause::Sandbox),
        (Script::ending(Ending::Vanish(3)), LostCause::Sandbox),
        (Script::ending(Ending::Vanish(137)), LostCause::UnknownKill),
    ];
    for (script, cause) in cases {
        let outcome = outcome_of(script.clone(), |_| {}).await.outcome.unwrap();
        assert_eq!((outcome.kind(), outcome.lost_cause()), (OutcomeKind::Lost, cause), "{script:?}");
    }
}

#[tokio::test]
async fn cancel_works_in_every_state_and_before_there_is_a_run() {
    let house = House::new(Script::ending(Ending::Obedient)).await;
    let id = RunId::new();
    let bytes = house.spec().encode_to_vec();
    let run = house.registry.start(id, OWNER, &bytes).await.unwrap();
    for _ in 0..3 {
        house.registry.cancel(id, OWNER).await.unwrap();
    }
    run.wait_finished().await;
    assert_eq!(kind(run.published.borrow().finished.as_ref().unwrap()), OutcomeKind::Cancelled);
    house.registry.cancel(id, OWNER).await.unwrap();
    house.assert_clean();

    let never = RunId::new();
    assert!(house.registry.cancel(never, OWNER).await.unwrap().is_none());
    assert!(matches!(house.registry.start(never, OWNER, &bytes).await, Err(StartError::Forgotten(_))));

    // While it runs.
    let id = RunId::new();
    let run = house.registry.start(id, OWNER, &bytes).await.unwrap();
    run.published.clone().wait_for(|p| p.gate.is_some()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    house.registry.cancel(id, OWNER).await.unwrap();
    run.wait_finished().await;
    assert_eq!(kind(run.published.borrow().finished.as_ref().unwrap()), OutcomeKind::Cancelled);
    house.assert_clean();
}

#[tokio::test]
async fn the_id_is_the_key_and_the_owner_counts() {
    let house = House::new(Script::ending(Ending::Obedient)).await;
    let id = RunId::new();
    let bytes = house.spec().encode_to_vec();
    let first = house.registry.start(id, OWNER, &bytes).await.unwrap();
    let again = house.registry.start(id, OWNER, &bytes).await.unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &again));
    let mut other = house.spec();
    other.seed = 9;
    let refused = house.registry.start(id, OWNER, &other.encode_to_vec()).await;
    assert!(matches!(refused, Err(StartError::Exists(_))));
    assert!(matches!(house.registry.start(id, "else", &bytes).await, Err(StartError::Exists(_))));
    assert_eq!(house.registry.get(id, "else").unwrap_err(), LookupError::Unknown(id));
    assert!(house.registry.list("else", &[], &[]).is_empty());
    assert_eq!(house.registry.list(OWNER, &[], &[]).len(), 1);
    assert!(house.registry.list(OWNER, &[RunState::Finished], &[]).is_empty());
    assert!(matches!(house.registry.cancel(id, "else").await, Err(ReleaseError::Lookup(_))));
    house.registry.cancel(id, OWNER).await.unwrap();
    first.wait_finished().await;
}

#[tokio::test]
async fn admission_refuses_and_leaves_nothing() {
    let house = House::new(Script::ending(Ending::Obedient)).await;
    let start = async |change: &dyn Fn(&mut RunSpec)| {
        let mut spec = house.spec();
        change(&mut spec);
        house.registry.start(RunId::new(), OWNER, &spec.encode_to_vec()).await
    };
    let unknown = start(&|spec| spec.image = "other".into()).await;
    assert!(matches!(unknown, Err(StartError::Image(_))));
    let raw = start(&|spec| spec.image = "raw".into()).await;
    assert!(matches!(raw, Err(StartError::ImageNotPrepared(name)) if name == "raw"));
    let blob = start(&|spec| spec.files[0].digest = format!("sha256:{}", "0".repeat(64))).await;
    assert!(matches!(blob, Err(StartError::MissingBlobs(digests)) if digests.len() == 1));
    assert!(matches!(start(&|spec| spec.gpus = 2).await, Err(StartError::Spec(_))));
    assert!(matches!(start(&|spec| spec.data_sets.push("mnist".into())).await, Err(StartError::Spec(_))));
    let disk = |spec: &mut RunSpec| {
        let disk_bytes = 256 << 30;
        let artifact_bytes = 64 << 30;
        spec.limits = Some(Limits { disk_bytes, artifact_bytes, ..Limits::default() });
    };
    let free = super::ledger::disk_free(house.root.path()).unwrap();
    if free < 320 << 30 {
        assert!(matches!(start(&disk).await, Err(StartError::NoDisk { .. })));
    }
    house.assert_clean();
    assert_eq!(std::fs::read_dir(house.root.path().join("runs")).unwrap().count(), 0);

    let runs = [start(&|_| {}).await.unwrap(), start(&|_| {}).await.unwrap()];
    assert!(matches!(start(&|_| {}).await, Err(StartError::NoSlot)));
    assert_eq!(house.registry.drain(true), 2);
    assert!(matches!(start(&|_| {}).await, Err(StartError::Draining)));
    for run in runs {
        run.wait_finished().await;
    }
    house.assert_clean();
}

#[tokio::test]
async fn release_needs_the_last_sequence_and_forgets_for_good() {
    let house = House::new(Script::exit(0)).await;
    let bytes = house.spec().encode_to_vec();
    let id = RunId::new();
    let run = house.registry.start(id, OWNER, &bytes).await.unwrap();
    run.wait_finished().await;
    let last = *run.synced.borrow();
    let early = house.registry.release(id, OWNER, last - 1).await;
    assert!(matches!(early, Err(ReleaseError::Sequence { .. })));
    house.registry.release(id, OWNER, last).await.unwrap();
    house.registry.release(id, OWNER, last).await.unwrap();
    assert!(!run.folder.exists());
    assert_eq!(house.registry.get(id, OWNER).unwrap_err(), LookupError::Forgotten(id));
    assert!(matches!(house.registry.start(id, OWNER, &bytes).await, Err(StartError::Forgotten(_))));
    assert!(house.registry.cancel(id, OWNER).await.unwrap().is_none());

    let House { root, .. } = house;
    let house = House::over(root, Script::exit(0), "boot-1").await;
    assert_eq!(house.registry.get(id, OWNER).unwrap_err(), LookupError::Forgotten(id));
}

#[tokio::test]
async fn what_cannot_be_shown_to_be_gone_sets_its_slot_and_its_gpus_aside() {
    let script = || Script::exit(0);
    for (script, word) in [
        (Script { remove_fails: true, ..script() }, "on purpose"),
        (Script { end_fails: true, ..script() }, "on purpose"),
        // The engine forgets the container, but nobody has confirmed the kill.
        (Script { kill_fails: true, ..script() }, "not confirmed"),
        (Script { kill_fails: true, ..Script::ending(Ending::Vanish(137)) }, "not confirmed"),
    ] {
        let house = House::new(script.clone()).await;
        let (_, finished) = finish(&house, &house.spec()).await;
        let aside = lock(&house.slots.set_aside).clone();
        assert_eq!(aside.keys().collect::<Vec<_>>(), [&finished.slot], "{script:?}");
        assert!(aside[&finished.slot].contains(word), "{aside:?}");

        let name = || "x".to_owned();
        let identity = Identity { worker_id: name(), boot_id: name(), process_id: name() };
        let gpu = |index: u32| Gpu { uuid: format!("GPU-{index}"), ..Gpu::default() };
        let machine = Machine { gpus: vec![gpu(0), gpu(1)], ..Machine::default() };
        let told = describe::worker(&house.registry, &identity, &machine).await;
        for (slot, gpu) in told.slots.iter().zip(&told.machine.unwrap().gpus) {
            let wanted = if slot.index == finished.slot { aside[&slot.index].as_str() } else { "" };
            assert_eq!((slot.quarantined.as_str(), gpu.quarantined.as_str()), (wanted, wanted));
        }
        // Nobody gets it any more.
        let second = finish(&house, &house.spec()).await.1;
        assert_ne!(second.slot, finished.slot);
    }
}

#[tokio::test]
async fn what_an_earlier_process_left_and_no_sweep_removes_holds_its_slot() {
    let house = House::new(Script::ending(Ending::Stubborn)).await;
    let (id, bytes) = (RunId::new(), house.spec().encode_to_vec());
    let run = house.registry.start(id, OWNER, &bytes).await.unwrap();
    run.published.clone().wait_for(|p| p.gate.is_some()).await.unwrap();
    let root = tempfile::tempdir().unwrap();
    copy(house.root.path(), root.path());
    let second = House::over(root, Script { stays: true, ..Script::exit(0) }, "boot-2").await;
    assert_eq!(lock(&second.slots.set_aside).keys().collect::<Vec<_>>(), [&run.slot]);
    assert_ne!(finish(&second, &second.spec()).await.1.slot, run.slot);
    house.registry.cancel(id, OWNER).await.unwrap();
    run.wait_finished().await;
}

#[tokio::test]
async fn a_sandbox_that_is_gone_or_never_was_sets_nothing_aside() {
    for script in [
        Script::ending(Ending::Vanish(0)),
        Script { prepare_fails: true, ..Script::exit(0) },
        Script { verify_fails: true, ..Script::exit(0) },
    ] {
        let house = House::new(script).await;
        finish(&house, &house.spec()).await;
        assert!(lock(&house.slots.set_aside).is_empty());
        house.assert_clean();
    }
}

#[tokio::test]
async fn finished_runs_are_there_after_a_restart_and_those_whose_sandbox_is_gone_are_lost() {
    for (boot, cause) in [("boot-1", LostCause::Sandbox), ("boot-2", LostCause::Reboot)] {
        let house = House::new(Script { stdout: b"one\n".to_vec(), ..Script::exit(0) }).await;
        let (done, finished) = finish(&house, &house.spec()).await;
        *lock(&house.backend.world.script) =
            Script { stdout: b"two\n".to_vec(), ..Script::ending(Ending::Stubborn) };
        let open = RunId::new();
        let bytes = house.spec().encode_to_vec();
        let run = house.registry.start(open, OWNER, &bytes).await.unwrap();
        run.published.clone().wait_for(|p| p.gate.is_some()).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), run.synced.clone().wait_for(|s| *s >= 5)).await.ok();
        // The folder as a kill leaves it.
        let root = tempfile::tempdir().unwrap();
        copy(house.root.path(), root.path());
        let second = House::over(root, Script::exit(0), boot).await;
        let again = second.registry.get(done, OWNER).unwrap();
        assert_eq!(again.published.borrow().finished, Some(finished));
        assert_eq!(events(&second, done).len() as u64, *again.synced.borrow());
        let lost = second.registry.get(open, OWNER).unwrap();
        lost.wait_finished().await;
        let outcome = lost.published.borrow().finished.clone().unwrap().outcome.unwrap();
        assert_eq!((outcome.kind(), outcome.lost_cause()), (OutcomeKind::Lost, cause));
        let all = events(&second, open);
        assert!(matches!(all.last().unwrap().kind, Some(Kind::Finished(_))));
        assert!(all.iter().any(|e| matches!(&e.kind, Some(Kind::Frame(f)) if f.data == "two\n")));
        assert!(std::sync::Arc::ptr_eq(&second.registry.start(open, OWNER, &bytes).await.unwrap(), &lost));
        house.registry.cancel(open, OWNER).await.unwrap();
        run.wait_finished().await;
    }
}

#[tokio::test]
async fn damaged_events_are_lost_to_the_spool_and_said_so() {
    let house = House::new(Script { stdout: vec![b'x'; 1000], ..Script::exit(0) }).await;
    let (id, _) = finish(&house, &house.spec()).await;
    let folder = house.registry.get(id, OWNER).unwrap().folder.clone();
    let path = super::spool::segment_path(&folder, 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() / 3;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let House { root, .. } = house;
    let house = House::over(root, Script::exit(0), "boot-1").await;
    let run = house.registry.get(id, OWNER).unwrap();
    let outcome = run.published.borrow().finished.clone().unwrap().outcome.unwrap();
    assert_eq!((outcome.kind(), outcome.lost_cause()), (OutcomeKind::Lost, LostCause::Spool));
    assert!(run.published.borrow().spool_damaged);
    house.registry.release(id, OWNER, 0).await.unwrap();
    assert!(!folder.exists());
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn packages_are_resolved_before_the_sandbox_and_told_at_the_end() {
    let house = House::new(Script::exit(0)).await;
    let mut spec = house.spec();
    spec.packages = vec!["einops==0.8.0".into()];
    let (id, finished) = finish(&house, &spec).await;
    assert_eq!(kind(&finished), OutcomeKind::Succeeded);
    let told: Vec<_> = finished.packages.iter().map(|p| format!("{} {}", p.name, p.version)).collect();
    assert_eq!(told, ["einops 0.8.0"]);
    let seen = lock(&house.backend.world.layers).clone();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].target == "/packages" && seen[0].image.exists(), "{seen:?}");
    house.assert_clean();
    finish(&house, &spec).await;
    assert_eq!(house.tool.calls(), ["resolve", "fetch"], "the second run asks nobody");
    assert!(events(&house, id).len() > 3);
}

#[tokio::test]
async fn packages_that_cannot_be_had_end_the_run_before_its_sandbox() {
    let house = House::new(Script::exit(0)).await;
    let mut spec = house.spec();
    spec.packages = vec!["a==1".into(), "b==1".into()];
    let conflict = r#"{"kind": "conflict", "words": "ERROR: a needs b<1\nand b==1 was asked for"}"#;
    *house.tool.play.lock().unwrap() = Play::Answer(conflict);
    let (_, finished) = finish(&house, &spec).await;
    let outcome = finished.outcome.unwrap();
    assert_eq!(outcome.kind(), OutcomeKind::DependencyConflict);
    assert_eq!(outcome.message, "the packages cannot be had: a needs b<1");
    assert_eq!(outcome.traceback, "ERROR: a needs b<1\nand b==1 was asked for");
    assert!(!lock(&house.backend.world.calls).contains(&"prepare".to_owned()), "a sandbox was made");
    house.assert_clean();

    for (play, cause) in [
        (Play::Answer(r#"{"kind": "unreachable", "words": "no route"}"#), LostCause::Image),
        (Play::Answer(r#"{"kind": "no_space", "words": "full"}"#), LostCause::HostDisk),
        (Play::Missing, LostCause::Engine),
    ] {
        *house.tool.play.lock().unwrap() = play;
        let (_, finished) = finish(&house, &spec).await;
        let outcome = finished.outcome.unwrap();
        assert_eq!((outcome.kind(), outcome.lost_cause()), (OutcomeKind::Lost, cause), "{outcome:?}");
    }
    house.assert_clean();
}

#[tokio::test]
async fn a_cancel_while_packages_are_resolved_ends_the_run_at_once() {
    let house = House::new(Script::exit(0)).await;
    *house.tool.play.lock().unwrap() = Play::Hang;
    let mut spec = house.spec();
    spec.packages = vec!["einops".into()];
    let id = RunId::new();
    let run = house.registry.start(id, OWNER, &spec.encode_to_vec()).await.unwrap();
    while house.tool.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    house.registry.cancel(id, OWNER).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), run.wait_finished()).await.expect("it ends");
    let finished = run.published.borrow().finished.clone().unwrap();
    assert_eq!(kind(&finished), OutcomeKind::Cancelled);
    house.assert_clean();
}
