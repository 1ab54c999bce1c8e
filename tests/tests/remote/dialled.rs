//! A worker that dials its controller.

use crate::{
    PROGRAM, assert_succeeded,
    net::{LAPTOP, Pair, finish_child},
};

#[test]
fn an_invited_worker_arrives_runs_and_is_refused_once_revoked() {
    let pair = Pair::new();
    let listen = format!("{LAPTOP}:7434");
    let invited =
        pair.run(&["worker", "invite", "gpu", "--listen", &listen, "--output", "json"]).expect(0).json();
    assert_eq!(invited["advertise"], serde_json::json!([listen]), "{invited:#}");
    let invite = invited["invite"].as_str().expect("a string").to_owned();
    let again = pair.run(&["worker", "invite", "gpu", "--listen", &listen]).expect(2);
    assert!(again.stderr.contains("name is taken"), "{again:?}");

    let worker = pair.serve(&["--dial", &invite]);
    let (code, run) = pair.exec(PROGRAM);
    assert_succeeded(code, &run);
    let listed = pair.run(&["worker", "list", "--offline", "--output", "json"]).expect(0).json();
    assert_eq!((&listed["state"], &listed["kind"]), (&"active".into(), &"dialled".into()), "{listed:#}");
    assert!(listed["id"].is_string() && listed["fingerprint"].is_string(), "{listed:#}");
    // It dials again for the next command, without the secret.
    let (code, run) = pair.exec(PROGRAM);
    assert_succeeded(code, &run);

    drop(pair.run(&["worker", "revoke", "gpu"]).expect(0));
    let second =
        pair.run(&["worker", "invite", "other", "--listen", &listen, "--output", "json"]).expect(0).json();
    assert!(second["invite"].is_string());
    let show = pair.autoresearch(&["worker", "show", "other", "--output", "json"]);
    let mut show = show;
    show.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let shown = finish_child(show.spawn().expect("the binary starts")).expect(1).json();
    assert_eq!(shown["reachable"], false, "the revoked worker is not taken for the other: {shown:#}");
    e2e::wait_for("the refusal in the worker's log", std::time::Duration::from_secs(60), || {
        let log = worker.log();
        if log.contains("was revoked here") { Ok(()) } else { Err(log) }
    });
    worker.stop();
}
