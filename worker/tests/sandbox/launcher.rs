//! What only the native backend has to keep: its launcher is a process of its own, and no engine picks up what is left.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use worker::sandbox::{Backend as _, Order, SandboxError};

use crate::fixture::{Fixture, Maker, On, said, words};

#[tokio::test(flavor = "multi_thread")]
async fn a_launcher_that_fails_at_any_step_names_it_and_leaves_nothing() {
    let fixture = Fixture::new(On::Native).await;
    let Maker::Native(backend) = &fixture.maker else { panic!("not native") };
    let backend = backend.clone().with_program(words(&["exit", "0"]));
    backend.prove().await;
    let mut steps = BTreeSet::new();
    let last = loop {
        let step = steps.len() + 1;
        match backend.clone().with_fault(step).prepare(fixture.class()).await {
            Ok(sandbox) => break sandbox,
            Err(SandboxError::Call { verb: "launch", detail, .. }) => {
                assert!(detail.starts_with("it could not ") && detail.contains("Input/output"), "{detail}");
                steps.insert(format!("{step:02} {detail}"));
            }
            Err(error) => panic!("step {step}: {error}"),
        }
        assert_eq!(fixture.traces().await, Vec::<String>::new(), "{steps:?}");
    };
    assert!(steps.len() > 20, "{steps:?}");
    assert!(steps.iter().any(|step| step.contains("change the root")), "{steps:?}");
    last.remove().await.unwrap();
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}

const CHILD: &str = "AUTORESEARCH_TEST_WORKER_ID";

/// It starts itself again as the worker that is to be killed.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_leaves_goes_on_and_the_next_one_removes_it() {
    const NAME: &str = "launcher::what_a_killed_worker_leaves_goes_on_and_the_next_one_removes_it";
    if let Ok(worker_id) = std::env::var(CHILD) {
        let fixture = Fixture::of_worker(On::Native, worker_id).await;
        let sandbox = fixture.start(&["deaf"]).await;
        said(&sandbox.streams().stdout, "deaf").await;
        println!("pid {}", fixture.pid_1(&sandbox).await);
        tokio::time::sleep(Duration::from_secs(120)).await;
        return;
    }
    let fixture = Fixture::new(On::Native).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env(CHILD, &fixture.worker_id)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let pid = lines.map_while(Result::ok).find_map(|line| line.split_once("pid ")?.1.parse::<i32>().ok());
    let pid = pid.expect("the other worker made no sandbox");
    child.kill().unwrap();
    child.wait().unwrap();

    tokio::time::sleep(Duration::from_millis(300)).await;
    // One that is dead and not taken yet has an empty line.
    let alive = || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    assert!(alive(), "the sandbox died with its worker");
    let traces = fixture.traces().await;
    assert!(traces.iter().any(|trace| trace.contains("process")), "its launcher lives: {traces:?}");
    let removed = fixture.again().await.sweep(&BTreeSet::new()).await.unwrap();
    assert_eq!(removed.len(), 2, "{removed:?}");
    assert!(!alive());
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launcher_that_is_killed_takes_nothing_with_it() {
    let fixture = Fixture::new(On::Native).await;
    let sandbox = fixture.start(&["polite"]).await;
    said(&sandbox.streams().stdout, "polite").await;
    let place = fixture.native_cgroup(sandbox.id()).join("supervisor/cgroup.procs");
    let launcher = std::fs::read_to_string(place).unwrap();
    let launcher = nix::unistd::Pid::from_raw(launcher.trim().parse().unwrap());
    nix::sys::signal::kill(launcher, nix::sys::signal::Signal::SIGKILL).unwrap();
    sandbox.order(Order::Terminate).await.unwrap();
    assert_eq!(crate::fixture::ended(&sandbox).await.signal, Some(15));
    crate::fixture::finish(&sandbox).await;
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}
