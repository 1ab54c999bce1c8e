//! `autoresearch exec`: a program's end is told whole and told truly, and its limits hold. Everything over the real binary, the real engine and the `lite` image.

use std::{fs, path::Path};

use e2e::Home;
use kit::digest::Digest;
use serde_json::Value;

/// Worker and sandbox may add so much to a limit and its grace before the last process is gone.
const SLACK_MS: u64 = 2_000;
const GRACE_MS: u64 = 5_000;

#[track_caller]
fn expect(told: &(i32, Value), code: i32, outcome: &str) {
    assert_eq!((told.0, told.1["outcome"].as_str()), (code, Some(outcome)), "{:#}", told.1);
}

#[track_caller]
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {value:#}"))
}

const WHOLE: &str = r#"
import autoresearch as ar
import sys
for step in range(10):
    ar.log(step=step, loss=1.0 / (step + 1), lr=ar.params["lr"])
print("out")
print("err", file=sys.stderr)
open("model.bin", "wb").write(bytes(range(256)))
ar.save("model.bin")
"#;

#[test]
fn a_program_that_succeeds_is_told_whole() {
    let home = Home::new();
    let flags = ["--memory", "256MiB", "--time-limit", "20s", "--params", r#"{"lr":0.1}"#, "--seed", "3"];
    let told = home.exec(WHOLE, &flags);
    expect(&told, 0, "succeeded");
    let json = &told.1;
    let run = text(json, "run_id");
    assert_eq!(uuid::Uuid::parse_str(run).map(|id| id.get_version_num()), Ok(7), "{run}");
    assert_eq!(json["exit_code"], 0);
    assert!(json["usage"]["wall_ms"].as_u64().is_some_and(|ms| (1..20_000).contains(&ms)), "{json:#}");
    let peak = json["usage"]["memory_peak_bytes"].as_u64().expect("a peak");
    assert!((1 << 20..=256 << 20).contains(&peak), "a Python process needs more than {peak} bytes");
    assert_eq!(json["metrics"], serde_json::json!({ "loss": 0.1, "lr": 0.1 }));
    assert_eq!((text(json, "stdout"), text(json, "stderr")), ("out\n", "err\n"));

    let artifacts = json["artifacts"].as_array().expect("a list");
    let [artifact] = artifacts.as_slice() else { panic!("one artifact is wanted: {artifacts:?}") };
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!((text(artifact, "name"), artifact["size_bytes"].as_u64()), ("model.bin", Some(256)));
    assert_eq!(text(artifact, "digest"), Digest::of(&bytes).to_string());
    let path = Path::new(text(artifact, "path"));
    assert!(path.is_absolute() && path.starts_with(home.data_dir()), "{}", path.display());
    assert_eq!(fs::read(path).expect("the artifact's file"), bytes);

    logs_list_and_show_agree(&home, run);
}

/// What `exec` left in the journal is what the other commands say of it.
fn logs_list_and_show_agree(home: &Home, run: &str) {
    let logs = home.run(&["logs", run]).expect(0);
    assert!(logs.stdout.contains("out\n") && logs.stdout.contains("err\n"), "{logs:?}");
    let metrics = home.run(&["logs", run, "--stream", "metrics"]).expect(0);
    assert_eq!(metrics.stdout.lines().count(), 10, "{metrics:?}");

    let hidden = home.run(&["list", "--output", "json"]).expect(0);
    assert_eq!(hidden.stdout, "", "`list` hides what `exec` made");
    let campaign = home.run(&["list", "--all", "--output", "json"]).expect(0).json();
    assert_eq!((text(&campaign, "kind"), text(&campaign, "state")), ("exec", "finished"));
    assert!(text(&campaign, "question").ends_with("program.py"), "{campaign}");
    let shown = home.run(&["show", text(&campaign, "id"), "--output", "json"]).expect(0).json();
    let runs = shown["run_list"].as_array().expect("runs");
    assert_eq!(runs.len(), 1, "{shown:#}");
    assert_eq!(
        (text(&runs[0], "id"), text(&runs[0], "outcome"), runs[0]["seed"].as_u64()),
        (run, "succeeded", Some(3))
    );

    let text_form = home.run(&["show", text(&campaign, "id")]).expect(0);
    assert!(text_form.stdout.contains(run) && text_form.stdout.contains("succeeded"), "{text_form:?}");
}

#[test]
fn each_way_for_a_program_to_fail_by_itself_is_told_by_its_evidence() {
    let home = Home::new();
    let raised = home.exec("def f():\n    raise ValueError('shapes do not fit')\nf()\n", &[]);
    expect(&raised, 1, "failed");
    assert_eq!(raised.1["exit_code"], 1);
    assert_eq!(text(&raised.1["exception"], "class"), "ValueError", "{:#}", raised.1);
    assert!(text(&raised.1, "stderr").contains("line 2, in f"), "{:#}", raised.1);

    // 137 is what an engine says of a kill; from a program it is a number like any other.
    let exited = home.exec("import sys\nsys.exit(137)\n", &[]);
    expect(&exited, 1, "failed");
    assert_eq!((exited.1["exit_code"].as_i64(), exited.1["signal"].as_i64().unwrap_or(0)), (Some(137), 0));

    let killed = home.exec("import os\nos.kill(os.getpid(), 9)\n", &[]);
    expect(&killed, 1, "failed");
    assert_eq!(killed.1["signal"], 9, "{:#}", killed.1);

    let syntax = home.exec("if True\n    pass\n", &[]);
    expect(&syntax, 1, "failed");
    assert_eq!(text(&syntax.1["exception"], "class"), "SyntaxError", "{:#}", syntax.1);
}

#[test]
fn a_program_that_passes_its_memory_is_out_of_memory() {
    let home = Home::new();
    let told = home.exec(
        "held = []\nwhile True:\n    held.append(b'x' * (1 << 20))\n",
        &["--time-limit", "120s", "--memory", "128MiB"],
    );
    expect(&told, 1, "out_of_memory");
    let peak = told.1["usage"]["memory_peak_bytes"].as_u64().expect("a peak");
    assert!((100 << 20..=129 << 20).contains(&peak), "peak {peak}");
}

#[test]
fn a_child_killed_for_memory_is_a_note_where_the_program_goes_on() {
    let home = Home::new();
    let source = r#"
import os, sys
child = os.fork()
if child == 0:
    open("/proc/self/oom_score_adj", "w").write("1000")
    held = []
    while True:
        held.append(bytearray(os.urandom(1) * (1 << 20)))
_, status = os.waitpid(child, 0)
print("child ended by", os.WTERMSIG(status))
"#;
    let told = home.exec(source, &["--memory", "128MiB"]);
    expect(&told, 0, "succeeded");
    assert_eq!(text(&told.1, "stdout"), "child ended by 9\n");
    let notes = told.1["notes"].to_string();
    assert!(notes.contains("memory"), "a note says that a child was killed for memory: {notes}");
}

#[test]
fn a_full_disk_is_a_limit_that_is_named() {
    let home = Home::new();
    let source = "block = bytes(1 << 20)\nwith open('big', 'wb') as file:\n    while True:\n        file.write(block)\n";
    let told = home.exec(source, &["--disk", "64MiB"]);
    expect(&told, 1, "limit_exceeded");
    assert!(text(&told.1, "limit").contains("disk"), "{:#}", told.1);
    assert!(text(&told.1, "stderr").contains("No space left"), "{:#}", told.1);
}

#[test]
fn too_many_processes_are_a_limit_that_is_named() {
    let home = Home::new();
    let source = r#"
import os, time
for _ in range(200):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
"#;
    let told = home.exec(source, &["--pids", "32"]);
    expect(&told, 1, "limit_exceeded");
    assert!(
        text(&told.1, "limit").contains("pid") || text(&told.1, "limit").contains("process"),
        "{:#}",
        told.1
    );
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_as_diverged() {
    let home = Home::new();
    let source = r#"
import autoresearch as ar, math, time
ar.log(step=0, loss=1.0)
ar.log(step=1, loss=math.inf)
time.sleep(60)
"#;
    let told = home.exec(source, &["--time-limit", "60s"]);
    expect(&told, 1, "diverged");
    assert_eq!(told.1["metrics"]["loss"], "Infinity", "{:#}", told.1);
    let wall = told.1["usage"]["wall_ms"].as_u64().expect("a time");
    assert!(wall < 20_000, "stopped at once, not after {wall} ms");
}

#[test]
fn the_time_limit_is_hard_for_a_tree_that_ignores_every_signal() {
    let home = Home::new();
    // Double forks in sessions of their own, each deaf to what can be ignored.
    let source = r#"
import os, signal, time
def deaf():
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
deaf()
for _ in range(4):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        deaf()
        while True: time.sleep(1)
print("started", flush=True)
while True: pass
"#;
    let told = home.exec(source, &["--time-limit", "3s"]);
    expect(&told, 1, "timed_out");
    let wall = told.1["usage"]["wall_ms"].as_u64().expect("a time");
    assert!((3_000..=3_000 + GRACE_MS + SLACK_MS).contains(&wall), "{wall} ms");
    assert_eq!(text(&told.1, "stdout"), "started\n");
}

#[test]
fn fifty_megabytes_of_output_end_and_keep_their_tail() {
    let home = Home::new();
    let source = r#"
import sys
line = "x" * 99 + "\n"
for _ in range(500_000):
    sys.stdout.write(line)
print("the last line")
"#;
    let told = home.exec(source, &["--time-limit", "120s"]);
    expect(&told, 0, "succeeded");
    let run = text(&told.1, "run_id");
    assert_eq!(told.1["usage"]["stdout_bytes"].as_u64(), Some(50_000_014), "{}", told.1["usage"]);
    let stdout = text(&told.1, "stdout");
    assert!(stdout.len() <= 64 << 10 && stdout.ends_with("the last line\n"), "{} bytes", stdout.len());
    let logs = home.run(&["logs", run, "--stream", "stdout"]).expect(0);
    assert_eq!(logs.stdout.len(), 50_000_014, "every line is there");
    assert!(logs.stdout.ends_with("the last line\n"));
}

#[test]
fn output_past_its_limit_is_a_gap_and_the_program_still_ends() {
    let home = Home::new();
    // 100 MB pass the 64 MiB that a stream may have.
    let source = r#"
import sys
line = "x" * 99 + "\n"
for _ in range(1_000_000):
    sys.stdout.write(line)
sys.stdout.flush()
raise KeyError("after the flood")
"#;
    let told = home.exec(source, &["--time-limit", "180s"]);
    expect(&told, 1, "failed");
    assert_eq!(text(&told.1["exception"], "class"), "KeyError", "{:#}", told.1["exception"]);
    let run = text(&told.1, "run_id");
    let logs = home.run(&["logs", run, "--stream", "stdout"]).expect(0);
    let (least, most) = (60 << 20, 66 << 20);
    assert!((least..=most).contains(&logs.stdout.len()), "{} bytes are kept", logs.stdout.len());
}
