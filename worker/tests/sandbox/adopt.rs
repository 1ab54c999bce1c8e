//! A sandbox whose worker is gone, in the hands of the next one: running, at its gate, ended, half made, half removed.

use std::{fs, sync::Arc, time::Duration};

use worker::sandbox::{Backend, Order, Sandbox, SandboxClass};

use crate::fixture::{Fixture, MIB, On, ended, finish, said};

/// Nobody remembers anything; the class is what the run's record says.
async fn next(fixture: &Fixture, class: &SandboxClass) -> Arc<dyn Sandbox> {
    let again: Arc<dyn Backend> = fixture.again().await;
    again.adopt(class.clone()).await.unwrap().expect("it is still there")
}

async fn begin(fixture: &Fixture, program: &[&str]) -> SandboxClass {
    let class = fixture.class();
    let sandbox = fixture.running(program).prepare(class.clone()).await.unwrap();
    sandbox.assign(&fixture.assignment()).await.unwrap();
    sandbox.verify().await.unwrap();
    sandbox.order(Order::Start).await.unwrap();
    class
}

pub async fn a_running_sandbox_is_taken_up_and_nothing_of_its_output_is_missing(on: On) {
    let fixture = Fixture::new(on).await;
    let class = begin(&fixture, &["count", "300", "10"]).await;
    let sandbox = next(&fixture, &class).await;
    assert!(sandbox.reports().borrow().started && sandbox.reports().borrow().ended.is_none());
    said(&sandbox.streams().stdout, "line 00020\n").await;
    let pid = fixture.pid_1(&sandbox).await;
    // Once more, in the middle of it.
    drop(sandbox);
    let sandbox = next(&fixture, &class).await;
    assert_eq!(fixture.pid_1(&sandbox).await, pid, "the same process goes on");
    let reading = sandbox.reading().await.unwrap();
    assert!(reading.pids >= 2 && reading.memory_peak_bytes > 0 && reading.disk_bytes < MIB, "{reading:?}");
    assert_eq!(ended(&sandbox).await.exit_code, Some(0));
    let lines: String = (0..300).map(|number| format!("line {number:05}\n")).collect();
    assert_eq!(fs::read_to_string(&sandbox.streams().stdout).unwrap(), lines);
    let evidence = finish(&sandbox).await;
    assert!(evidence.complete && evidence.oom_kills == 0, "{evidence:?}");
    assert_eq!(fixture.traces().await, Vec::<String>::new());

    // Its orders work as the first worker's do.
    let class = begin(&fixture, &["deaf"]).await;
    let sandbox = next(&fixture, &class).await;
    said(&sandbox.streams().stdout, "deaf").await;
    sandbox.order(Order::Terminate).await.unwrap();
    assert!(sandbox.reports().borrow().ended.is_none());
    sandbox.order(Order::Kill).await.unwrap();
    assert!(sandbox.reports().borrow().killed);
    assert_eq!(ended(&sandbox).await.signal, Some(9));
    finish(&sandbox).await;
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}

pub async fn what_ended_while_nobody_was_there_is_told_as_it_was(on: On) {
    let fixture = Fixture::new(on).await;
    for (program, code, signal) in [
        (&["speak"][..], Some(0), None),
        (&["exit", "137"], Some(137), None),
        (&["signal", "11"], None, Some(11)),
    ] {
        let class = begin(&fixture, program).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        let sandbox = next(&fixture, &class).await;
        let end = ended(&sandbox).await;
        assert_eq!((end.exit_code, end.signal), (code, signal), "{program:?}");
        assert!(end.elapsed < Duration::from_secs(5), "{end:?}");
        sandbox.order(Order::Kill).await.unwrap();
        // The end gate was shut, so the kernel's counters are there.
        let evidence = sandbox.evidence().await;
        assert!(evidence.complete && evidence.reading.memory_peak_bytes > 0, "{evidence:?}");
        sandbox.end().await.unwrap();
        if code == Some(0) {
            assert_eq!(fs::read(sandbox.artifacts().join("model.bin")).unwrap(), b"weights");
        }
        sandbox.remove().await.unwrap();
    }
    assert_eq!(fixture.traces().await, Vec::<String>::new());

    // PID 1 was its worker's backstop, and says so.
    let class = fixture.class();
    let sandbox = fixture.running(&["deaf"]).prepare(class.clone()).await.unwrap();
    let mut assignment = fixture.assignment();
    (assignment.time_limit, assignment.grace) = (Duration::from_millis(100), Duration::from_millis(100));
    sandbox.assign(&assignment).await.unwrap();
    sandbox.order(Order::Start).await.unwrap();
    drop(sandbox);
    tokio::time::sleep(Duration::from_millis(11_000)).await;
    let sandbox = next(&fixture, &class).await;
    assert_eq!(ended(&sandbox).await.signal, Some(9));
    assert!(sandbox.reports().borrow().backstop);
    finish(&sandbox).await;
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}

pub async fn what_is_half_made_or_half_removed_is_taken_up_and_removed(on: On) {
    let fixture = Fixture::new(on).await;
    // The container is gone and its volume is not: the artifacts are still to be had.
    let class = begin(&fixture, &["speak"]).await;
    let sandbox = next(&fixture, &class).await;
    ended(&sandbox).await;
    sandbox.order(Order::Kill).await.unwrap();
    sandbox.end().await.unwrap();
    drop(sandbox);
    let sandbox = next(&fixture, &class).await;
    let now = sandbox.reports().borrow().clone();
    assert!(now.gone.is_some(), "{now:?}");
    assert!(!sandbox.evidence().await.complete);
    sandbox.order(Order::Kill).await.unwrap();
    sandbox.end().await.unwrap();
    assert_eq!(fs::read(sandbox.artifacts().join("model.bin")).unwrap(), b"weights");
    sandbox.remove().await.unwrap();
    assert_eq!(fixture.traces().await, Vec::<String>::new());

    // Only the folder was made.
    let class = fixture.class();
    fs::create_dir_all(fixture.sandboxes().join(class.id.to_string())).unwrap();
    next(&fixture, &class).await.remove().await.unwrap();
    assert_eq!(fixture.traces().await, Vec::<String>::new());

    // PID 1 was killed by somebody, and its container is still there.
    let class = begin(&fixture, &["deaf"]).await;
    let sandbox = next(&fixture, &class).await;
    let pid = nix::unistd::Pid::from_raw(fixture.pid_1(&sandbox).await);
    drop(sandbox);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let sandbox = next(&fixture, &class).await;
    let now = sandbox.reports().borrow().clone();
    assert!(now.started && now.ended.is_none(), "{now:?}");
    assert_eq!(now.gone.and_then(|gone| gone.exit_code), Some(137));
    sandbox.remove().await.unwrap();
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}

pub async fn a_sandbox_that_was_never_made_is_none(on: On) {
    let fixture = Fixture::new(on).await;
    assert!(fixture.again().await.adopt(fixture.class()).await.unwrap().is_none());
}

pub async fn a_gate_that_is_shut_is_opened_by_the_next_worker(on: On) {
    let fixture = Fixture::new(on).await;
    let class = fixture.class();
    let sandbox = fixture.running(&["exit", "7"]).prepare(class.clone()).await.unwrap();
    sandbox.assign(&fixture.assignment()).await.unwrap();
    drop(sandbox);
    let sandbox = next(&fixture, &class).await;
    assert!(sandbox.reports().borrow().ready && !sandbox.reports().borrow().started);
    sandbox.order(Order::Start).await.unwrap();
    assert_eq!(ended(&sandbox).await.exit_code, Some(7));
    finish(&sandbox).await;
    assert_eq!(fixture.traces().await, Vec::<String>::new());
}
