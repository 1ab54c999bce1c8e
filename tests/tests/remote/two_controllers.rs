//! Two controllers, each with a journal of its own, on one worker: neither sees, cancels or releases the other's runs, and both
//! get slots.

use std::{process::Stdio, time::Duration};

use e2e::{Home, wait_for, worker::WorkerProcess};
use proto::v1::{CancelRunRequest, GetRunRequest, ListRunsRequest, ReleaseRunRequest};

use crate::{PROGRAM, SLEEPER};

const START: Duration = Duration::from_secs(120);

pub fn runs(home: &Home) -> Vec<serde_json::Value> {
    let listed = home.run(&["list", "--all", "--output", "json"]);
    let ids = listed.stdout.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    ids.flat_map(|campaign| {
        let shown = home.run(&["show", campaign["id"].as_str().unwrap_or_default(), "--output", "json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap_or_default();
        shown["run_list"].as_array().cloned().unwrap_or_default()
    })
    .collect()
}

#[test]
fn neither_of_two_controllers_reaches_the_others_runs_and_both_get_slots() {
    let machine = Home::new();
    let mut worker = WorkerProcess::start(&machine, &[]);
    let socket = worker.folder.join("worker.sock");
    wait_for("the worker", START, || if socket.exists() { Ok(()) } else { Err("no socket".to_owned()) });
    let address = format!("unix:{}", socket.display());
    let (one, two) = (Home::new(), Home::new());
    for home in [&one, &two] {
        drop(home.run(&["worker", "add", "shared", &address]).expect(0));
    }
    let program = one.file("sleeper.py", SLEEPER);
    let mut long =
        one.command(&["exec", program.to_str().expect("UTF-8"), "--image", "lite", "--output", "json"]);
    long.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
    let long = long.spawn().expect("the binary starts");
    let run = wait_for("the first controller's run", START, || {
        let all = runs(&one);
        let running = all.iter().find(|run| run["state"] == "running");
        running.and_then(|run| run["id"].as_str()).map(str::to_owned).ok_or(format!("{all:?}"))
    });

    // The other one is served meanwhile, and lists nothing of the first one's.
    let (code, ran) = two.exec(PROGRAM, &[]);
    crate::assert_succeeded(code, &ran);
    assert!(runs(&two).iter().all(|other| other["id"] != run.as_str()), "its own only");
    let listed = two.run(&["worker", "list", "--output", "json"]).expect(0).json();
    assert!(listed["slots_busy"].as_u64().is_some_and(|n| n >= 1), "a taken slot is seen: {listed:#}");

    // And by hand, with the second one's id: the first one's run is not there for it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = worker.client().await;
        let stranger = "00000000-0000-7000-8000-000000000002".to_owned();
        let all =
            client.list_runs(ListRunsRequest { controller_id: stranger.clone(), ..Default::default() }).await;
        assert!(all.expect("a list").into_inner().runs.is_empty());
        let got =
            client.get_run(GetRunRequest { run_id: run.clone(), controller_id: stranger.clone() }).await;
        assert!(got.is_err(), "{got:?}");
        let release =
            ReleaseRunRequest { run_id: run.clone(), controller_id: stranger.clone(), last_sequence: 1 };
        // Whatever it answers, nothing may happen.
        client.release_run(release).await.ok();
        client.cancel_run(CancelRunRequest { run_id: run.clone(), controller_id: stranger }).await.ok();
    });
    // Its own user wants nothing new there: what runs goes on.
    drop(one.run(&["worker", "drain", "shared"]).expect(0));
    // A controller that ends its own work and looks after what it left does not end the other's.
    drop(two.run(&["list"]));
    let finished = one.finish(long, Duration::from_secs(240)).expect(0).json();
    assert_eq!(finished["outcome"], "succeeded", "{finished:#}");
    assert!(finished["stdout"].as_str().is_some_and(|text| text.contains("done")), "{finished:#}");
    worker.stop();
}
