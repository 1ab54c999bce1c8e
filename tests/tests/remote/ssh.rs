//! `ssh://`: a first run in three commands, a campaign, and what an ssh that fails says.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use e2e::{Home, home::binary, wait_for, worker::WorkerProcess};

use crate::{
    PROGRAM, assert_succeeded,
    net::{GPU, Pair, finish},
    sshd::Sshd,
};

const START: Duration = Duration::from_secs(60);
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The first block of the section that a new user reads, line by line.
fn from_the_readme() -> Vec<String> {
    let readme = fs::read_to_string(format!("{REPOSITORY}/README.md")).expect("the README");
    let section = readme.split("## A worker on another machine").nth(1).expect("the section");
    let block = section.split("```").nth(1).expect("a block").trim();
    let built = binary("autoresearch-worker");
    let built = built.parent().expect("a folder").display().to_string();
    block.lines().map(|line| line.replace("target/debug", &built)).collect()
}

/// A folder for PATH: the program, and the test's own ssh under its name.
fn tools(pair: &Pair) -> PathBuf {
    let folder = pair.laptop.path().join("bin");
    fs::create_dir_all(&folder).expect("a folder");
    let config = pair.laptop.path().join("ssh_config");
    let ssh = format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", config.display());
    fs::write(folder.join("ssh"), ssh).expect("a script");
    fs::set_permissions(folder.join("ssh"), fs::Permissions::from_mode(0o755)).expect("a script");
    let link = folder.join("autoresearch");
    fs::remove_file(&link).ok();
    std::os::unix::fs::symlink(binary("autoresearch"), link).expect("a link");
    folder
}

#[test]
fn a_first_run_over_ssh_in_three_commands_and_a_campaign() {
    let mut pair = Pair::new();
    let sshd = Sshd::start(&mut pair);
    let commands = from_the_readme();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for command in &commands {
        let mut shell = pair.here.command("sh");
        pair.laptop.dress(&mut shell);
        shell.args(["-c", command]).current_dir(REPOSITORY);
        let path = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{path}", tools(&pair).display()));
        let ran = finish(shell).expect(0);
        println!("$ {command}\n{}{}", ran.stderr, ran.stdout);
    }
    let campaign = pair.run(&["list", "--output", "json"]).expect(0).json();
    assert_eq!(campaign["state"], "finished", "{campaign:#}");
    let id = campaign["id"].as_str().expect("an id");
    let shown = pair.run(&["show", id, "--output", "json"]).expect(0).json();
    let outcomes = shown["run_list"].as_array().expect("runs");
    assert!(outcomes.len() >= 6, "{shown:#}");
    assert!(outcomes.iter().all(|run| run["outcome"] == "succeeded"), "{shown:#}");
    let (code, run) = pair.exec(PROGRAM);
    assert_succeeded(code, &run);
    assert!(
        !pair.laptop.data_dir().join("worker").exists(),
        "no worker is started here where one is registered"
    );

    let listed = pair.run(&["worker", "list", "--output", "json"]).expect(0).json();
    assert_eq!(listed["reachable"], true, "{listed:#}");
    assert_eq!(listed["state"], "active");
    assert!(listed["slots_free"].as_u64().is_some_and(|n| n > 0), "{listed:#}");
    let worker_id = fs::read_to_string(pair.worker_folder().join("worker-id")).expect("its id");
    assert_eq!(listed["id"], worker_id.trim(), "it is the one over there");
    let shown = pair.run(&["worker", "show", "gpu"]).expect(0);
    assert!(
        shown.stdout.contains("ssh://gpu-box/~/autoresearch-worker") && shown.stdout.contains("slots"),
        "{shown:?}"
    );
    let doctor = pair.run(&["doctor", "--output", "json"]).expect(0).json();
    assert_eq!(doctor["workers"][0]["name"], "gpu", "{doctor:#}");

    // Taken twice under another name, and under the same.
    let again = pair.run(&["worker", "add", "gpu", "ssh://gpu-box"]).expect(2);
    assert!(again.stderr.contains("name is taken"), "{again:?}");
    let twin = pair.run(&["worker", "add", "gpu2", "ssh://gpu-box"]).expect(2);
    assert!(twin.stderr.contains("registered as `gpu`"), "{twin:?}");

    // Drained: nothing may run; and back.
    drop(pair.run(&["worker", "drain", "gpu"]).expect(0));
    let program = pair.laptop.path().join("program.py");
    let refused = pair.run(&["exec", program.to_str().expect("UTF-8"), "--image", "lite"]).expect(2);
    assert!(refused.stderr.contains("gpu is drained"), "{refused:?}");
    drop(pair.run(&["worker", "drain", "gpu", "--undo"]).expect(0));
    let (code, run) = pair.exec(PROGRAM);
    assert_succeeded(code, &run);
    drop(pair.run(&["worker", "remove", "gpu"]).expect(0));
    assert!(pair.run(&["worker", "list", "--output", "json"]).expect(0).stdout.is_empty());
    drop(sshd);
}

#[test]
fn a_shell_that_prints_before_the_bridge_is_skipped() {
    let mut pair = Pair::new();
    let noise = "echo 'Welcome to the cluster!'; echo 'autoresearch-worker'; head -c 50000 /dev/zero | tr '\\0' x; echo\n";
    fs::write(pair.gpu.path().join(".bashrc"), noise).expect("a .bashrc");
    let sshd = Sshd::start(&mut pair);
    let mut ssh = pair.here.command("ssh");
    ssh.arg("-F").arg(pair.laptop.path().join("ssh_config")).args(["gpu-box", "true"]);
    let printed = finish(ssh);
    assert!(printed.stdout.starts_with("Welcome"), "the shell does print: {printed:?}");
    drop(pair.run(&["worker", "add", "gpu", "ssh://gpu-box"]).expect(0));
    let (code, run) = pair.exec(PROGRAM);
    assert_succeeded(code, &run);
    // One that never stops printing is given up with its words.
    fs::write(pair.gpu.path().join(".bashrc"), "yes nonsense\n").expect("a .bashrc");
    let endless = pair.run(&["worker", "add", "other", "ssh://gpu-box"]).expect(1);
    assert!(endless.stderr.contains("64 KiB") && endless.stderr.lines().count() == 1, "{endless:?}");
    drop(sshd);
}

#[test]
fn what_ssh_says_is_what_the_user_reads_in_one_line() {
    let mut pair = Pair::new();
    let sshd = Sshd::start(&mut pair);
    let add = |address: &str| pair.run(&["worker", "add", "gpu", address]).expect(1).stderr;
    for (address, words) in [
        // Nobody listens on that port.
        (format!("ssh://root@{GPU}:2223"), "Connection refused"),
        // Another host key than any that is known.
        (format!("ssh://root@{GPU}:2222/nowhere/autoresearch-worker"), "nowhere/autoresearch-worker"),
        ("ssh://nobody@gpu-box".to_owned(), "Permission denied"),
        ("ssh://no-such-host.invalid".to_owned(), "resolve"),
    ] {
        let said = add(&address);
        assert!(said.contains(words), "{address}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    fs::write(pair.laptop.path().join("known_hosts"), "").expect("known hosts");
    let unknown = add("ssh://gpu-box");
    assert!(
        unknown.contains("Host key verification failed") && unknown.contains("`ssh gpu-box`"),
        "{unknown}"
    );
    // The host is down: bounded by ssh's own time-out.
    pair.wire("down");
    let down = add("ssh://gpu-box");
    assert!(down.contains("ssh:"), "{down}");
    assert!(
        pair.run(&["worker", "list", "--output", "json"]).expect(0).stdout.is_empty(),
        "nothing is stored"
    );
    drop(sshd);
}

#[test]
fn a_host_that_is_down_is_said_and_the_others_are_used() {
    let mut pair = Pair::new();
    let sshd = Sshd::start(&mut pair);
    drop(pair.run(&["worker", "add", "gpu", "ssh://gpu-box"]).expect(0));
    let beside = Home::new();
    let mut other = WorkerProcess::start(&beside, &[]);
    let socket = other.folder.join("worker.sock");
    wait_for(
        "the other worker",
        START,
        || if socket.exists() { Ok(()) } else { Err("no socket".to_owned()) },
    );
    drop(pair.run(&["worker", "add", "here", &format!("unix:{}", socket.display())]).expect(0));
    pair.wire("down");
    let program = pair.laptop.file("program.py", PROGRAM);
    let ran = pair.run(&["exec", program.to_str().expect("UTF-8"), "--image", "lite", "--output", "json"]);
    assert!(ran.stderr.contains("gpu"), "the absent one is named: {ran:?}");
    assert_eq!(ran.json()["outcome"], "succeeded", "{ran:?}");
    let listed = pair.run(&["worker", "list", "--output", "json"]).expect(0);
    let rows: Vec<serde_json::Value> =
        listed.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 2, "{listed:?}");
    assert_eq!((&rows[0]["name"], &rows[0]["reachable"]), (&"here".into(), &true.into()), "newest first");
    assert_eq!((&rows[1]["name"], &rows[1]["reachable"]), (&"gpu".into(), &false.into()));
    assert!(rows[1]["problem"].as_str().is_some_and(|problem| !problem.is_empty()), "{listed:?}");
    other.stop();
    drop(sshd);
}
