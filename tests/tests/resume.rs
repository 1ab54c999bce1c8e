//! A campaign survives its controller, over the real binaries: killed and resumed, interrupted and resumed, without a
//! terminal and come back to. Every run is executed once, and nothing is left.

use std::{
    collections::BTreeMap,
    process::Child,
    time::{Duration, Instant},
};

use e2e::{Home, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const QUESTION: &str = "Does batch normalisation help a small MLP on digits?";
/// One experiment is enough: what it goes on with is the same.
const SMALL: [&str; 6] = ["run", QUESTION, "--max-iterations", "1", "--seeds", "3"];
/// Until the first run of a campaign: image, smoke runs.
const UNDER_WAY: Duration = Duration::from_secs(300);
/// Until its end.
const ENDS: Duration = Duration::from_secs(900);
const OUT: Duration = Duration::from_secs(60);

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("the command runs");
}

fn runs(shown: &Value) -> Vec<Value> {
    shown["run_list"].as_array().cloned().unwrap_or_default()
}

fn id_of(shown: &Value) -> String {
    shown["id"].as_str().expect("an id").to_owned()
}

fn full_run(home: &Home, child: &mut Child) -> String {
    wait_for("a full run that runs", UNDER_WAY, || {
        if let Ok(Some(status)) = child.try_wait() {
            panic!("the command ended by itself: {status}");
        }
        let shown = home.newest()?;
        let running = |run: &Value| run["state"] == "running" && run["purpose"] == "full";
        if runs(&shown).iter().any(running) { Ok(id_of(&shown)) } else { Err(format!("{shown:#}")) }
    })
}

/// Each thing was executed once: no two runs of one variant, seed and purpose, and all of them succeeded.
#[track_caller]
fn each_once(shown: &Value) {
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for run in runs(shown) {
        assert_eq!(run["outcome"], "succeeded", "{run:#}");
        let what = format!("{} {} {} {}", run["experiment"], run["variant"], run["seed"], run["purpose"]);
        *times.entry(what).or_default() += 1;
    }
    assert!(times.values().all(|n| *n == 1), "{times:#?}");
    assert_eq!(times.len(), 8, "two smoke runs, and two variants over three seeds: {times:#?}");
}

#[test]
fn a_killed_campaign_goes_on_repeats_nothing_and_ends_like_run() {
    let home = Home::new();
    let mut child = home.spawn(&SMALL);
    let id = full_run(&home, &mut child);
    signal(child.id(), Signal::SIGKILL);
    assert_eq!(home.finish(child, OUT).code, -1, "the damage is real");

    let waits = home.newest().expect("a campaign");
    assert_eq!(
        (&waits["state"], &waits["resume"]),
        (&"interrupted".into(), &format!("autoresearch resume {id}").into())
    );
    let mut other = home.spawn(&["run", QUESTION, "--max-iterations", "1", "--seeds", "3"]);
    wait_for("another campaign beside it", UNDER_WAY, || {
        let seen = home.newest()?;
        if id_of(&seen) == id { Err(format!("{seen:#}")) } else { Ok(()) }
    });
    signal(other.id(), Signal::SIGINT);
    let _ended = other.wait().expect("it ends");
    let told = home.finish(other, OUT);
    assert!(told.stderr.contains(&format!("autoresearch resume {id}")), "a script is told: {told:?}");

    let owner = home.spawn(&["resume", &id, "--output", "json"]);
    let lock = home.data_dir().join("campaigns").join(&id).join("lock");
    wait_for("the new owner", OUT, || match std::fs::read_to_string(&lock) {
        Ok(pid) if pid == owner.id().to_string() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Stopped, so that it is not over before it is asked for.
    signal(owner.id(), Signal::SIGSTOP);
    let refused = home.run(&["resume", &id]).expect(2);
    assert!(refused.stderr.contains(&format!("process {}", owner.id())), "{refused:?}");
    signal(owner.id(), Signal::SIGCONT);
    let ran = home.finish(owner, ENDS).expect(0).json();
    assert_eq!((&ran["id"], &ran["state"]), (&id.as_str().into(), &"finished".into()), "{ran:#}");
    let ended = home.run(&["show", &id, "--output", "json"]).expect(0).json();
    each_once(&ended);
    let again = home.run(&["resume", &id, "--output", "json"]).expect(0).json();
    assert_eq!(again, ran, "over: its end once more");
    home.assert_nothing_left(OUT);
}

#[test]
fn an_interrupted_campaign_goes_on_from_before_and_its_report_is_replaced() {
    let home = Home::new();
    let mut child = home.spawn(&SMALL);
    let id = full_run(&home, &mut child);
    // A terminal that is closed.
    signal(child.id(), Signal::SIGHUP);
    let ran = home.finish(child, OUT).expect(130);
    assert!(ran.stderr.contains(&format!("autoresearch resume {id}")), "{ran:?}");
    let path = home.run(&["report", &id, "--path"]).expect(0).stdout.trim().to_owned();
    let report = || {
        let text =
            std::fs::read_to_string(std::path::Path::new(&path).with_extension("json")).expect("a report");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    assert_eq!(report()["state"], "interrupted");
    let cancelled = |shown: &Value| runs(shown).iter().filter(|run| run["outcome"] == "cancelled").count();
    let before = cancelled(&home.newest().expect("a campaign"));
    assert!(before > 0, "the damage is real");

    let ran = home.finish(home.spawn(&["resume", &id]), ENDS).expect(0);
    assert!(ran.stdout.trim_end().ends_with(&path), "{ran:?}");
    assert_eq!(report()["state"], "finished");
    let ended = home.newest().expect("a campaign");
    assert_eq!(cancelled(&ended), before, "what was cancelled ran again, and nothing was cancelled anew");
    let good = runs(&ended).iter().filter(|run| run["outcome"] == "succeeded").count();
    assert_eq!(good, 8, "{ended:#}");
}

#[test]
fn without_a_terminal_it_goes_on_and_attach_comes_back_to_it() {
    let home = Home::new();
    let mut arguments = SMALL.to_vec();
    arguments.extend(["--detach", "--output", "json"]);
    let since = Instant::now();
    let started = home.run(&arguments).expect(0).json();
    println!("detached after {:?}", since.elapsed());
    let id = started["id"].as_str().expect("an id").to_owned();
    let pid = u32::try_from(started["process"].as_u64().expect("a process")).expect("a process id");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let session = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(3).map(str::to_owned));
    assert_eq!(session.as_deref(), Some(pid.to_string().as_str()), "a session of its own: {stat}");

    let watching = home.spawn(&["attach", &id, "--output", "json"]);
    std::thread::sleep(Duration::from_secs(2));
    signal(watching.id(), Signal::SIGINT);
    let left = home.finish(watching, OUT).expect(130);
    assert!(left.stderr.contains("goes on"), "{left:?}");
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "it was not cancelled");

    let ran = home.finish(home.spawn(&["attach", &id, "--output", "json"]), ENDS).expect(0).json();
    assert_eq!((&ran["id"], &ran["state"]), (&id.as_str().into(), &"finished".into()), "{ran:#}");
    each_once(&home.newest().expect("a campaign"));
    wait_for("the owner to go", OUT, || {
        if std::path::Path::new(&format!("/proc/{pid}")).exists() {
            Err(format!("process {pid}"))
        } else {
            Ok(())
        }
    });
}

#[test]
fn what_cannot_be_detached_says_why_and_leaves_nothing() {
    let home = Home::without_engine();
    let refused = home.run(&["run", QUESTION, "--dataset", "nowhere", "--detach"]).expect(2);
    assert!(refused.stderr.contains("nowhere"), "{refused:?}");
    let folders = std::fs::read_dir(home.data_dir().join("campaigns")).map_or(0, Iterator::count);
    assert_eq!(folders, 0);
    let nothing = home.run(&["attach", "0123"]).expect(1);
    assert!(nothing.stderr.contains("nothing was run"), "{nothing:?}");
}
