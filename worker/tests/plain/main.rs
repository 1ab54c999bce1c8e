//! The worker of a plain user in the engine's group, by the real binary: the same outcomes and walls as root's, nothing
//! left, and where it cannot work one line with the one command that mends it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by ending")]

#[path = "../shared/connect.rs"]
mod connect;
mod fixture;

use std::collections::BTreeSet;

use fixture::{Groups, Home, OWNER, PlainUser, limits, start, stdout, until, watch, watch_to_end};
use proto::v1::{
    CancelRunRequest, Enforcement, Event, GetWorkerRequest, OutcomeKind, ReadArtifactRequest, event::Kind,
};

/// Makes things, and tries what it must not be able to.
const ATTACKER: &str = r#"
import os, shutil
import autoresearch as ar
ar.log(step=1, loss=0.5)
os.makedirs("artifacts/below", exist_ok=True)
with open("artifacts/below/made.txt", "w") as file:
    file.write("made")
with open("artifacts/shut", "w") as file:
    file.write("nobody's")
os.chmod("artifacts/shut", 0)
os.makedirs("artifacts/closed")
os.chmod("artifacts/closed", 0)
os.symlink("/in/init", "artifacts/link")

def attempt(what, call):
    try:
        call()
        print("DONE", what)
    except OSError as error:
        print("refused", what, error.errno)

for path in ["/in/init", "/in/run.json", "/in/files/main.py", "/in/new", "/logs/stdout", "/logs/metrics", "/logs/new"]:
    attempt("append " + path, lambda: open(path, "ab"))
    attempt("truncate " + path, lambda: open(path, "wb"))
    attempt("unlink " + path, lambda: os.unlink(path))
    attempt("rename " + path, lambda: os.rename(path, "/tmp/x"))
    attempt("chmod " + path, lambda: os.chmod(path, 0o777))
    attempt("chown " + path, lambda: os.chown(path, os.getuid(), os.getgid()))
for path in ["/in", "/logs", "/in/files"]:
    attempt("chmod " + path, lambda: os.chmod(path, 0o777))
    attempt("mkdir " + path, lambda: os.mkdir(path + "/folder"))
    attempt("rmtree " + path, lambda: shutil.rmtree(path))
attempt("read settings", lambda: open("/in/init").read())
attempt("list logs", lambda: os.listdir("/logs"))
for number in (1, 2, 3):
    attempt(f"truncate {number}", lambda: os.ftruncate(number, 0))
    attempt(f"read {number}", lambda: os.read(number, 1))
print("whole", open("/in/run.json").read() != "", os.getuid())
"#;
const COUNTER: &str = "import time, autoresearch as ar\nfor n in range(400):\n    print(f'line {n:05}', flush=True)\n    \
    time.sleep(0.01)\nopen('made.bin', 'wb').write(b'made')\nar.save('made.bin')\n";
const SLEEPER: &str = "print('there', flush=True)\nimport time\ntime.sleep(600)\n";

#[test]
fn doctor_says_who_makes_the_volumes() {
    let user = PlainUser::new(Home::OnSharedMount, Groups::Engine);
    let output = user.run(&["doctor"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    for line in ["plain user: volumes are made by a helper container", "runs can be made here"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // What it cannot see is said.
    for rule in ["rule network", "rule devices"] {
        let told = text.lines().find(|line| line.contains(rule)).unwrap_or_default();
        assert!(told.contains("weaker") && told.contains("a plain user's worker cannot"), "{told}");
    }
    let images = user.run(&["image", "list"]);
    assert!(images.status.success(), "{}", String::from_utf8_lossy(&images.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_program_runs_whole_reaches_nothing_and_nothing_is_left() {
    let (user, mut client) = PlainUser::ready().await;
    let run_id = start(&mut client, ATTACKER, limits()).await;
    let sandbox = until("no sandbox is made", || user.sandboxes().pop().ok_or_else(String::new)).await;
    let (finished, told, events) = watch_to_end(&mut client, &run_id).await;
    assert_eq!(finished.outcome.clone().unwrap().kind(), OutcomeKind::Succeeded, "{finished:?} {told}");
    let done: Vec<&str> = told.lines().filter(|line| line.starts_with("DONE")).collect();
    assert_eq!(done, Vec::<&str>::new());
    assert!(told.lines().filter(|line| line.starts_with("refused")).count() >= 55, "{told}");
    assert!(told.contains("whole True 50000"), "{told}");
    let points = events.iter().filter_map(|event| match &event.kind {
        Some(Kind::Frame(frame)) => Some(frame.points.len()),
        _ => None,
    });
    assert_eq!(points.sum::<usize>(), 1);

    let names: Vec<&str> = finished.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    assert_eq!(names, ["below/made.txt"]);
    for (name, why) in [("shut", "Permission denied"), ("closed/", "Permission denied"), ("link", "link")] {
        let left = finished.left_out.iter().find(|left| left.name == name);
        assert!(left.is_some_and(|left| left.reason.contains(why)), "{name}: {:?}", finished.left_out);
    }
    let request =
        ReadArtifactRequest { run_id, controller_id: OWNER.into(), name: "below/made.txt".into(), offset: 0 };
    let mut pieces = client.read_artifact(request).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        bytes.extend_from_slice(&piece.data);
    }
    assert_eq!(bytes, b"made");
    user.until_nothing_is_left(&BTreeSet::from([sandbox])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_is_told_as_it_was() {
    let (user, mut client) = PlainUser::ready().await;
    let mut sandboxes = BTreeSet::new();
    for (program, kind, word) in [
        ("keep = []\nwhile True:\n    keep.append(bytearray(8 << 20))\n", OutcomeKind::OutOfMemory, ""),
        (
            "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('there', flush=True)\ntime.sleep(600)\n",
            OutcomeKind::TimedOut,
            "",
        ),
        (
            "with open('big', 'wb') as file:\n    while True:\n        file.write(bytes(1 << 20))\n        file.flush()\n",
            OutcomeKind::LimitExceeded,
            "disk",
        ),
        (
            "import os\nos.makedirs('artifacts')\nopen('artifacts/a', 'w').close()\nos.chmod('/work', 0)\n",
            OutcomeKind::Succeeded,
            "",
        ),
        (
            "import os\nwith open('/dev/shm/x', 'wb') as file:\n    file.write(bytes(64 << 20))\n",
            OutcomeKind::LimitExceeded,
            "shm",
        ),
        ("raise SystemExit(3)\n", OutcomeKind::Failed, ""),
    ] {
        let mut limits = limits();
        if kind == OutcomeKind::TimedOut {
            limits.time_ms = 2000;
        }
        let run_id = start(&mut client, program, limits).await;
        sandboxes.extend(user.sandboxes());
        let (finished, _, _) = watch_to_end(&mut client, &run_id).await;
        sandboxes.extend(user.sandboxes());
        let outcome = finished.outcome.clone().unwrap();
        assert_eq!(outcome.kind(), kind, "{program}: {finished:?}");
        assert!(format!("{outcome:?}").contains(word), "{word}: {outcome:?}");
        if kind == OutcomeKind::Succeeded {
            let left = &finished.left_out[0];
            assert!(left.reason.contains("work/ cannot be opened"), "{:?}", finished.left_out);
        }
        let usage = finished.usage.unwrap_or_default();
        assert!(usage.memory_peak_bytes > 0 && usage.wall_ms < 60_000, "{usage:?}");
    }
    user.until_nothing_is_left(&sandboxes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_under_the_next_worker_and_nothing_of_it_is_missing() {
    let (mut user, mut client) = PlainUser::ready().await;
    let run_id = start(&mut client, COUNTER, limits()).await;
    let there = |event: &Event| stdout(std::slice::from_ref(event)).contains("line");
    watch(&mut client, &run_id, there).await;
    let sandboxes: BTreeSet<String> = user.sandboxes().into_iter().collect();
    assert!(user.traces(&sandboxes).len() >= 4, "{:?}", user.traces(&sandboxes));
    user.kill();
    let mut client = user.serve().await;
    let (finished, told, _) = watch_to_end(&mut client, &run_id).await;
    assert_eq!(finished.outcome.clone().unwrap().kind(), OutcomeKind::Succeeded, "{finished:?}");
    let lines: String = (0..400).map(|number| format!("line {number:05}\n")).collect();
    assert!(told == lines, "other lines: {told}");
    assert_eq!(finished.artifacts.len(), 1, "{finished:?}");
    assert!(finished.usage.unwrap().complete);
    user.until_nothing_is_left(&sandboxes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_while_its_helper_works_has_the_run_made_again_by_the_next() {
    let (mut user, mut client) = PlainUser::ready().await;
    let mut sandboxes = BTreeSet::new();
    for _ in 0..3 {
        let run_id = start(&mut client, SLEEPER, limits()).await;
        until("no helper is made", || {
            let names = user.containers();
            names
                .iter()
                .any(|name| name.ends_with("-volume"))
                .then_some(())
                .ok_or_else(|| format!("{names:?}"))
        })
        .await;
        sandboxes.extend(user.sandboxes());
        user.kill();
        client = user.serve().await;
        watch(&mut client, &run_id, |event| stdout(std::slice::from_ref(event)).contains("there")).await;
        let call = CancelRunRequest { run_id: run_id.clone(), controller_id: OWNER.into() };
        client.cancel_run(call).await.unwrap();
        let (finished, told, _) = watch_to_end(&mut client, &run_id).await;
        let outcome = finished.outcome.clone().unwrap();
        assert_eq!((outcome.kind(), told.as_str()), (OutcomeKind::Cancelled, "there\n"), "{outcome:?}");
        user.until_nothing_is_left(&sandboxes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_on_a_private_mount_is_refused_with_the_command() {
    let mut user = PlainUser::new(Home::OnPrivateMount, Groups::Engine);
    let doctor = doctor_fails(&user, "sudo mount --make-rshared /");
    assert!(doctor.contains("is private: run `sudo mount --make-rshared "), "{doctor}");
    let mut client = user.serve().await;
    let backends = client.get_worker(GetWorkerRequest {}).await.unwrap().into_inner().backends;
    assert!(!backends[0].available);
    is_one_line_with(&backends[0].reason, "sudo mount --make-rshared /");
    let rule = |name: &str| backends[0].rules.iter().find(|rule| rule.name == name).unwrap();
    assert_eq!(rule("network").enforcement(), Enforcement::Weaker);
    // Whoever starts a run all the same gets the same line, and nothing is left.
    let run_id = start(&mut client, SLEEPER, limits()).await;
    let (finished, _, _) = watch_to_end(&mut client, &run_id).await;
    let outcome = finished.outcome.unwrap();
    assert_eq!(outcome.kind(), OutcomeKind::Lost);
    is_one_line_with(&outcome.message, "sudo mount --make-rshared /");
    user.until_nothing_is_left(&BTreeSet::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_use_the_engine_is_told_the_command() {
    let mut user = PlainUser::new(Home::OnSharedMount, Groups::Own);
    doctor_fails(&user, "sudo usermod -aG ");
    let mut client = user.serve().await;
    let backends = client.get_worker(GetWorkerRequest {}).await.unwrap().into_inner().backends;
    assert!(!backends[0].available);
    is_one_line_with(&backends[0].reason, "sudo usermod -aG ");
}

/// The line of the engine.
fn doctor_fails(user: &PlainUser, command: &str) -> String {
    let output = user.run(&["doctor"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && text.contains("no run can be made here"), "{text}");
    let line = text.lines().find(|line| line.starts_with("FAILED") && line.contains("engine docker"));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    is_one_line_with(line, command);
    line.to_owned()
}

fn is_one_line_with(words: &str, command: &str) {
    assert!(!words.contains('\n') && words.contains(command), "{words}");
}
