//! Ctrl-C and SIGKILL: what runs is ended, what was learnt is told, and nothing of it is left on the machine.

use std::{
    process::Child,
    time::{Duration, Instant},
};

use e2e::{Home, Ran, leftovers, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const QUESTION: &str = "Does batch normalisation help a small MLP on digits?";
/// From Ctrl-C to the end.
const OUT: Duration = Duration::from_secs(15);
/// Until the first run of a campaign: image, smoke runs.
const UNDER_WAY: Duration = Duration::from_secs(300);
/// A second Ctrl-C is no wait at all.
const AT_ONCE: Duration = Duration::from_secs(2);

const SLEEPER: &str = r#"
import time
print("started", flush=True)
while True:
    time.sleep(1)
"#;

/// A line every tenth of a second: it is not done before its worker is killed.
const COUNTER: &str = r#"
import time
print("started", flush=True)
for number in range(80):
    print("line", number, flush=True)
    time.sleep(0.1)
"#;

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).expect("the command runs");
}

/// One object for each line of `list`.
fn list(home: &Home) -> Vec<Value> {
    let ran = home.run(&["list", "--all", "--output", "json"]).expect(0);
    ran.stdout.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

fn show(home: &Home, id: &str) -> Value {
    home.run(&["show", id, "--output", "json"]).expect(0).json()
}

/// Waits until a sandbox of this home's worker runs a program, and gives the campaign's id.
fn under_way(home: &Home, child: &mut Child) -> String {
    wait_for("a run that runs", UNDER_WAY, || {
        if let Ok(Some(status)) = child.try_wait() {
            panic!("the command ended by itself: {status}");
        }
        let campaigns = if home.data_dir().join("journal.db").exists() { list(home) } else { Vec::new() };
        let Some(id) = campaigns.first().and_then(|c| c["id"].as_str()) else {
            return Err("no campaign".to_owned());
        };
        let shown = show(home, id);
        let runs = shown["run_list"].as_array().cloned().unwrap_or_default();
        let running = runs.iter().any(|run| run["state"] == "running");
        if running { Ok(id.to_owned()) } else { Err(format!("{shown:#}")) }
    })
}

fn campaign(home: &Home) -> (Child, String) {
    let mut child = home.spawn(&["run", QUESTION]);
    let id = under_way(home, &mut child);
    (child, id)
}

fn exec(home: &Home) -> (Child, String) {
    exec_of(home, SLEEPER)
}

fn exec_of(home: &Home, program: &str) -> (Child, String) {
    let program = home.file("program.py", program);
    let program = program.to_str().expect("UTF-8");
    let mut child =
        home.spawn(&["exec", program, "--image", "lite", "--time-limit", "10m", "--output", "json"]);
    let id = under_way(home, &mut child);
    let run = show(home, &id)["run_list"][0]["id"].as_str().expect("a run").to_owned();
    wait_for("the program's first line", Duration::from_secs(20), || {
        let logs = home.run(&["logs", &run]);
        if logs.stdout.contains("started") { Ok(()) } else { Err(format!("{logs:?}")) }
    });
    (child, id)
}

/// The local worker of this home: the process that names its folder.
fn worker(home: &Home) -> i32 {
    let folder = home.data_dir().join("worker").display().to_string();
    let processes = leftovers::processes(&home.data_dir());
    let found =
        processes.iter().find(|(_, command)| command.contains("local-worker") && command.contains(&folder));
    found.unwrap_or_else(|| panic!("no worker in {processes:?}")).0
}

#[track_caller]
fn ended_within(home: &Home, child: Child, longest: Duration) -> Ran {
    let since = Instant::now();
    let ran = home.finish(child, longest);
    assert!(since.elapsed() <= longest, "{:?}: {ran:?}", since.elapsed());
    ran
}

#[test]
fn one_ctrl_c_ends_the_runs_and_writes_the_report_so_far() {
    let home = Home::new();
    let (child, id) = campaign(&home);
    signal(&child, Signal::SIGINT);
    let ran = ended_within(&home, child, OUT);
    assert_eq!(ran.code, 130, "{ran:?}");
    home.assert_nothing_left(Duration::from_secs(5));

    let shown = show(&home, &id);
    assert_eq!(shown["state"], "interrupted", "{shown:#}");
    let open: Vec<&Value> =
        shown["run_list"].as_array().expect("runs").iter().filter(|r| r["outcome"].is_null()).collect();
    assert!(open.is_empty(), "every run has an outcome: {open:#?}");
    assert!(
        shown["run_list"].as_array().expect("runs").iter().any(|r| r["outcome"] == "cancelled"),
        "{shown:#}"
    );
    let path = home.run(&["report", &id, "--path"]).expect(0).stdout;
    let report = std::fs::read_to_string(std::path::Path::new(path.trim()).with_extension("json"));
    let report: Value = serde_json::from_str(&report.expect("report.json")).expect("JSON");
    assert_eq!(
        (&report["state"], &report["answer"]["stopped_by"]),
        (&"interrupted".into(), &"interrupted".into())
    );
    assert!(ran.stdout.trim_end().ends_with(path.trim()), "its last line is the report so far: {ran:?}");
}

#[test]
fn a_second_ctrl_c_leaves_at_once_and_the_campaign_waits() {
    let home = Home::new();
    let (child, id) = campaign(&home);
    signal(&child, Signal::SIGINT);
    signal(&child, Signal::SIGINT);
    // Two of one signal may become one while the first is not delivered yet; a person presses again.
    let mut child = child;
    let since = Instant::now();
    wait_for("the end after Ctrl-C twice", AT_ONCE, || match child.try_wait() {
        Ok(Some(status)) => Ok(status),
        other => {
            signal(&child, Signal::SIGINT);
            Err(format!("{other:?}"))
        }
    });
    assert!(since.elapsed() <= AT_ONCE, "{:?}", since.elapsed());
    let ran = home.finish(child, OUT);
    assert_eq!(ran.code, 130, "{ran:?}");
    waits_and_is_cancelled(&home, &id);
}

/// Nobody runs it: it can be gone on with, and a cancel ends what its runs still do.
#[track_caller]
fn waits_and_is_cancelled(home: &Home, id: &str) {
    let campaigns = list(home);
    let ours = campaigns.iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("{id} in {campaigns:?}"));
    assert_eq!(ours["state"], "interrupted", "{ours:#}");
    assert_eq!(ours["resume"], format!("autoresearch resume {id}"), "{ours:#}");
    let refused = home.run(&["pause", id]).expect(2);
    assert!(refused.stderr.contains(&format!("autoresearch resume {id}")), "{refused:?}");
    let ran = home.run(&["cancel", id, "--output", "json"]).expect(0).json();
    assert!(ran["report"].as_str().is_some_and(|path| std::path::Path::new(path).exists()), "{ran:#}");
    home.assert_nothing_left(OUT);
    let shown = show(home, id);
    assert_eq!(shown["state"], "cancelled", "{shown:#}");
    let open: Vec<&Value> =
        shown["run_list"].as_array().expect("runs").iter().filter(|r| r["outcome"].is_null()).collect();
    assert!(open.is_empty(), "every run has an outcome: {open:#?}");
    // Its code is that of `run`: 1 where no run succeeded before.
    let over = home.run(&["resume", id]);
    assert!(over.stdout.contains("report.html"), "a cancelled one prints its report: {over:?}");
}

#[track_caller]
fn after_the_next_command(home: &Home, id: &str) {
    let campaigns = list(home);
    home.assert_nothing_left(OUT);
    let ours = campaigns.iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("{id} in {campaigns:?}"));
    assert_eq!(ours["state"], "interrupted", "{ours:#}");
    let shown = show(home, id);
    let open: Vec<&Value> =
        shown["run_list"].as_array().expect("runs").iter().filter(|r| r["outcome"].is_null()).collect();
    assert!(open.is_empty(), "every run has an outcome: {open:#?}");
}

#[test]
fn a_campaign_whose_controller_was_killed_waits_and_can_be_cancelled() {
    let home = Home::new();
    let (child, id) = campaign(&home);
    signal(&child, Signal::SIGKILL);
    let ran = home.finish(child, OUT);
    assert_eq!(ran.code, -1, "{ran:?}");
    waits_and_is_cancelled(&home, &id);
}

#[test]
fn an_exec_whose_controller_was_killed_is_ended_by_the_next_command() {
    let home = Home::new();
    let (child, id) = exec(&home);
    signal(&child, Signal::SIGKILL);
    let ran = home.finish(child, OUT);
    assert_eq!(ran.code, -1, "{ran:?}");
    after_the_next_command(&home, &id);
}

#[test]
fn ctrl_c_cancels_an_exec_and_tells_so() {
    let home = Home::new();
    let (child, id) = exec(&home);
    signal(&child, Signal::SIGINT);
    let ran = ended_within(&home, child, OUT);
    assert_eq!(ran.code, 130, "{ran:?}");
    let told = ran.json();
    assert_eq!((&told["outcome"], &told["stdout"]), (&"cancelled".into(), &"started\n".into()), "{told:#}");
    home.assert_nothing_left(Duration::from_secs(5));
    assert_eq!(show(&home, &id)["state"], "interrupted");
}

#[test]
fn a_worker_killed_under_an_exec_is_started_anew_and_the_run_goes_on() {
    let home = Home::new();
    let (child, id) = exec_of(&home, COUNTER);
    let pid = worker(&home);
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the worker runs");
    let ran = home.finish(child, Duration::from_secs(90));
    assert_eq!(ran.code, 0, "{ran:?}");
    let told = ran.json();
    let lines: String = (0..80).map(|number| format!("line {number}\n")).collect();
    assert_eq!(
        (&told["outcome"], &told["stdout"]),
        (&"succeeded".into(), &format!("started\n{lines}").into()),
        "{told:#}"
    );
    home.assert_nothing_left(OUT);
    let shown = show(&home, &id);
    assert_eq!(shown["run_list"][0]["outcome"], "succeeded", "{shown:#}");
}

#[test]
fn both_killed_leave_nothing_after_the_next_command() {
    let home = Home::new();
    let (child, id) = exec(&home);
    let pid = worker(&home);
    signal(&child, Signal::SIGKILL);
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the worker runs");
    let ran = home.finish(child, OUT);
    assert_eq!(ran.code, -1, "{ran:?}");
    assert!(!leftovers::of(&home.data_dir()).is_empty(), "the damage is real: its sandbox is still there");
    after_the_next_command(&home, &id);
}

#[test]
fn sigterm_is_as_good_as_ctrl_c() {
    let home = Home::new();
    let (child, _) = exec(&home);
    signal(&child, Signal::SIGTERM);
    let ran = ended_within(&home, child, OUT);
    assert_eq!(ran.code, 130, "{ran:?}");
}
