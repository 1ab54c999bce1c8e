//! TLS with a join string: once, by the right key, with clocks that agree; and taken back.

use std::{sync::Arc, time::Duration};

use e2e::wait_for;
use kit::{
    clock::{Clock, ManualClock, SystemClock},
    identity::{Fingerprint, Identity, IdentityOptions, JoinString, tls},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    PROGRAM, assert_succeeded,
    net::{GPU, Pair, finish},
};

const HOUR: Duration = Duration::from_secs(3600);

/// `autoresearch-worker init` on the GPU machine.
fn init(pair: &Pair) -> String {
    let listen = format!("{GPU}:7433");
    let printed = finish(pair.worker_command(&["init", "--listen", &listen])).expect(0).stdout;
    printed.trim().to_owned()
}

#[test]
fn a_join_string_works_once_and_what_is_revoked_stays_out() {
    let pair = Pair::new();
    let join = init(&pair);
    let worker = pair.serve(&[]);
    let added = pair.run(&["worker", "add", "gpu", &join, "--output", "json"]).expect(0).json();
    assert_eq!(added["address"], format!("tls://{GPU}:7433"), "{added:#}");
    let (code, run) = pair.exec(PROGRAM);
    assert_succeeded(code, &run);
    let shown = pair.run(&["worker", "show", "gpu", "--output", "json"]).expect(0).json();
    assert_eq!(shown["reachable"], true, "{shown:#}");
    assert_eq!(shown["fingerprint"], added["fingerprint"]);

    // The same string again, by another controller: another data folder has another key.
    let mut other = pair.autoresearch(&["worker", "add", "gpu", &join]);
    other.env("AUTORESEARCH_DATA_DIR", pair.laptop.path().join("other"));
    let replayed = finish(other).expect(1);
    assert!(replayed.stderr.contains("used already"), "{replayed:?}");
    assert_eq!(replayed.stderr.lines().count(), 1, "{replayed:?}");
    let mut list = pair.autoresearch(&["worker", "list", "--output", "json"]);
    list.env("AUTORESEARCH_DATA_DIR", pair.laptop.path().join("other"));
    assert!(finish(list).expect(0).stdout.is_empty(), "nothing is stored");

    // Taken back over there: the controller reads why.
    let listed = finish(pair.worker_command(&["controllers", "list"])).expect(0).stdout;
    assert!(!listed.trim().is_empty());
    let id = pair.run(&["worker", "list", "--output", "json"]).expect(0).json();
    assert_eq!(id["reachable"], true);
    let key = listed
        .split_whitespace()
        .find(|word| word.len() >= 16 && word.bytes().all(|b| b.is_ascii_hexdigit()));
    let key = key.unwrap_or_else(|| panic!("a fingerprint in {listed}"));
    drop(finish(pair.worker_command(&["controllers", "revoke", key])).expect(0));
    let refused = pair.run(&["worker", "show", "gpu", "--output", "json"]).expect(1).json();
    assert!(refused["problem"].as_str().is_some_and(|p| p.contains("revoked")), "{refused:#}");

    // Joined anew with a new string, and revoked here: the worker forgets the key, and nobody runs there.
    drop(pair.run(&["worker", "remove", "gpu"]).expect(0));
    drop(pair.run(&["worker", "add", "gpu", &init(&pair)]).expect(0));
    let revoked =
        pair.run(&["worker", "revoke", "gpu", "--reason", "stolen", "--output", "json"]).expect(0).json();
    assert_eq!(revoked["worker_told"], true, "{revoked:#}");
    let program = pair.laptop.path().join("program.py");
    let none = pair.run(&["exec", program.to_str().expect("UTF-8"), "--image", "lite"]).expect(2);
    assert!(none.stderr.contains("gpu is revoked"), "{none:?}");
    worker.stop();
}

#[test]
fn wrong_keys_old_keys_and_nonsense_are_told_apart() {
    let pair = Pair::new();
    let good: JoinString = init(&pair).parse().expect("a join string");
    let worker = pair.serve(&[]);
    let add = |text: &str, code| pair.run(&["worker", "add", "gpu", text]).expect(code).stderr;

    // Somebody else answers: both fingerprints are told.
    let other = Fingerprint::of_key(b"another key");
    let wrong = add(&JoinString { fingerprint: other, ..good.clone() }.to_string(), 1);
    assert!(wrong.contains(&other.to_string()) && wrong.contains(&good.fingerprint.to_string()), "{wrong}");
    // Cut off while copying; of the other kind; a plain address.
    let text = good.to_string();
    assert!(add(&text[..text.len() - 5], 2).contains("cut off"));
    assert!(add("tls://10.99.0.2:7433", 2).contains("join string"));
    // Nobody listens there.
    let nobody = JoinString { address: format!("{GPU}:7999").parse().expect("an address"), ..good.clone() };
    assert!(add(&nobody.to_string(), 1).contains("refused"));
    assert!(
        pair.run(&["worker", "list", "--output", "json"]).expect(0).stdout.is_empty(),
        "nothing is stored"
    );

    // A key whose certificate has ended is refused in the handshake, by our own client with a clock that stands still.
    // By that clock the worker's own certificate, dated back a day, has begun.
    let then = SystemClock::shared().wall() - 12 * HOUR;
    let clock: Arc<dyn Clock> = ManualClock::new(then);
    let folder = pair.laptop.path().join("old-keys");
    let old = Identity::open(IdentityOptions { folder, lifetime: 6 * HOUR, clock }).expect("a key");
    let told = pair.here.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let config = tls::client_config(&old, good.fingerprint, tls::Protocol::Grpc).expect("settings");
            let stream = tokio::net::TcpStream::connect((GPU, 7433)).await.expect("it listens");
            // The client's own clock is as old as its key, so that only the worker can notice.
            let talked = async {
                let mut stream = tls::connect(config, stream).await.map_err(|e| e.to_string())?;
                stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.map_err(|e| e.to_string())?;
                let mut byte = [0; 1];
                stream.read_exact(&mut byte).await.map_err(|e| e.to_string())
            };
            talked.await.map(|_| ())
        })
    });
    assert!(told.is_err(), "a certificate that has ended lets nobody in");
    wait_for("the worker's word", Duration::from_secs(20), || {
        let log = worker.log();
        if log.contains("ended at") { Ok(()) } else { Err(log) }
    });
    // And after all of that the string is still good.
    drop(pair.run(&["worker", "add", "gpu", &text]).expect(0));
    worker.stop();
}
