//! What is left after the engine dies and after the power goes: nothing, and every run has an outcome that says so.

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use e2e::{Home, engine::Engine, home::binary, leftovers, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const SLEEPER: &str = "import time\nprint('started', flush=True)\nwhile True:\n    time.sleep(1)\n";
/// The same for one that an engine's polite word does not move.
const STUBBORN: &str = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('started', flush=True)\nwhile True:\n    time.sleep(1)\n";
const UNDER_WAY: Duration = Duration::from_secs(60);
const ENDS: Duration = Duration::from_secs(120);

fn sleeper(home: &Home, source: &str) -> Child {
    let program = home.file("sleeper.py", source);
    let program = program.to_str().expect("UTF-8");
    let child = home.spawn(&["exec", program, "--image", "lite", "--time-limit", "10m", "--output", "json"]);
    wait_for("the program's first line", UNDER_WAY, || {
        let id = only_run(home)?;
        let logs = home.run(&["logs", &id]);
        if logs.stdout.contains("started") { Ok(()) } else { Err(format!("{logs:?}")) }
    });
    child
}

fn only_run(home: &Home) -> Result<String, String> {
    Ok(home.newest()?["run_list"][0]["id"].as_str().ok_or("no run yet")?.to_owned())
}

/// The small image as the machine's engine has it.
fn lite(home: &Home) -> String {
    let program = home.file("nothing.py", "");
    drop(home.run(&["exec", program.to_str().expect("UTF-8"), "--image", "lite"]).expect(0));
    let mut images = Command::new("docker");
    images.args(["images", "autoresearch/lite", "--format", "{{.Repository}}:{{.Tag}}"]);
    let listed = images.output().expect("docker");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.lines().next().expect("the small image is built").to_owned()
}

fn an_engine_that_is_killed(source: &str) {
    let ordinary = Home::new();
    let image = lite(&ordinary);
    let mut home = Home::new();
    let mut engine = Engine::start(&home.path().join("engine"));
    engine.take_image(&image);
    home.environment.push(("DOCKER_HOST".to_owned(), engine.host()));
    let child = sleeper(&home, source);
    engine.kill();
    let asked = engine.docker(&["version"]).output().expect("docker");
    assert!(!asked.status.success(), "the damage is real: the engine is dead");
    engine.start_again();
    let ran = home.finish(child, ENDS);
    let told = ran.json();
    assert_eq!((told["outcome"].as_str(), told["cause"].as_str()), (Some("lost"), Some("engine")), "{ran:?}");
    wait_for("nothing of ours is left", Duration::from_secs(30), || {
        let left = leftovers::on_engine(&home.data_dir(), Some(&engine.host()));
        // The engine's own folder lies in the test's.
        let left: Vec<String> = left.into_iter().filter(|line| !line.contains("/engine/")).collect();
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    });
}

#[test]
fn an_engine_that_dies_loses_the_run_and_nothing_stays() {
    an_engine_that_is_killed(SLEEPER);
}

#[test]
fn an_engine_that_dies_under_a_stubborn_program_loses_the_run_and_nothing_stays() {
    an_engine_that_is_killed(STUBBORN);
}

/// A power cut takes processes, mounts and loop devices and leaves the files as they are; the machine comes back with
/// another boot id.
#[test]
fn a_power_cut_leaves_nothing_after_the_next_command() {
    let home = Home::new();
    let child = sleeper(&home, SLEEPER);
    let run = only_run(&home).expect("a run");
    let sandboxes = home.data_dir().join("worker/sandboxes");
    for (pid, command) in leftovers::processes(&home.data_dir()) {
        if command.contains("local-worker") {
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the worker runs");
        }
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).expect("the command runs");
    assert_eq!(home.finish(child, ENDS).code, -1);
    let worker = leftovers::worker_id(&home.data_dir()).expect("a worker");
    let filter = format!("label=autoresearch={worker}");
    let listed = Command::new("docker").args(["ps", "-q", "--filter", &filter]).output().expect("docker");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let containers: Vec<&str> = listed.split_whitespace().collect();
    assert!(!containers.is_empty(), "the damage is real: a sandbox ran");
    // The engine finds its containers dead when it comes back; it still knows them.
    assert!(Command::new("docker").arg("kill").args(&containers).output().expect("docker").status.success());
    leftovers::remove_mounts(&home.data_dir());
    assert!(fs::read_dir(&sandboxes).expect("sandboxes").next().is_some(), "the files are as they were");

    let boot = home.file("boot_id", "11111111-2222-3333-4444-555555555555\n");
    let ran = after_the_boot(&home, &boot, &["list", "--all", "--output", "json"]);
    assert!(ran.status.success(), "{ran:?}");
    let campaigns = home.run(&["list", "--all", "--output", "json"]).expect(0);
    assert!(!campaigns.stdout.contains("running"), "{campaigns:?}");
    let logs = home.run(&["logs", &run]);
    assert!(logs.stdout.contains("started"), "what was learnt before the cut is kept: {logs:?}");
    let shown = home.newest().expect("a journal");
    let told = shown["run_list"][0].clone();
    assert_eq!(told["outcome"], "lost", "{shown:#}");
    assert!(told["message"].as_str().is_some_and(|m| m.contains("started anew")), "{shown:#}");
    home.assert_nothing_left(Duration::from_secs(30));
}

/// A command, and the worker that it starts, for whom the machine was started anew.
fn after_the_boot(home: &Home, boot_id: &Path, arguments: &[&str]) -> std::process::Output {
    let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "slave", "sh", "-c", script]).arg(boot_id);
    command.arg(binary("autoresearch")).args(arguments);
    home.dress(&mut command);
    command.output().expect("unshare")
}
