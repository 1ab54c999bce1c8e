//! A command that is killed while its run is on a registered worker, and a worker that is revoked under a run.

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use e2e::{Home, wait_for, worker::WorkerProcess};

use crate::{SLEEPER, two_controllers::runs};

const START: Duration = Duration::from_secs(120);

/// `exec` of the sleeper, once its run is under way.
fn under_way(home: &Home) -> (Child, String) {
    let program = home.file("sleeper.py", SLEEPER);
    let mut exec =
        home.command(&["exec", program.to_str().expect("UTF-8"), "--image", "lite", "--output", "json"]);
    exec.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
    let child = exec.spawn().expect("the binary starts");
    let run = wait_for("the run", START, || {
        let all = runs(home);
        let running = all.iter().find(|run| run["state"] == "running");
        running.and_then(|run| run["id"].as_str()).map(str::to_owned).ok_or(format!("{all:?}"))
    });
    (child, run)
}

fn of(home: &Home, id: &str) -> serde_json::Value {
    runs(home).into_iter().find(|run| run["id"] == id).expect("the run")
}

#[test]
fn what_a_kill_left_is_ended_on_the_worker_that_has_it_and_a_revoked_one_ends_its_runs() {
    let machine = Home::new();
    let mut worker = WorkerProcess::start(&machine, &[]);
    let socket = worker.folder.join("worker.sock");
    wait_for("the worker", START, || if socket.exists() { Ok(()) } else { Err("no socket".to_owned()) });
    let home = Home::new();
    drop(home.run(&["worker", "add", "gpu", &format!("unix:{}", socket.display())]).expect(0));

    let (mut killed, run) = under_way(&home);
    killed.kill().expect("SIGKILL");
    killed.wait().expect("its end");
    // The next command, which only reads, asks over there.
    drop(home.run(&["list", "--all"]).expect(0));
    let ended = of(&home, &run);
    assert_eq!(ended["outcome"], "cancelled", "its worker tells its end; it is not called lost: {ended:#}");
    assert!(!home.data_dir().join("worker").exists(), "no worker is started here for what lies elsewhere");

    let (exec, run) = under_way(&home);
    drop(home.run(&["worker", "revoke", "gpu", "--reason", "stolen"]).expect(0));
    let told = home.finish(exec, Duration::from_secs(240)).expect(1);
    assert!(told.stderr.contains("it was revoked") && told.stderr.lines().count() == 1, "{told:?}");
    let lost = of(&home, &run);
    assert_eq!(lost["outcome"], "lost", "{lost:#}");
    assert!(lost["message"].as_str().is_some_and(|text| text.contains("revoked")), "{lost:#}");
    // Over there it goes on to its own end: nobody who is trusted there asks for anything else.
    std::thread::sleep(Duration::from_secs(15));
    worker.stop();
}
