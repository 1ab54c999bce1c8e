//! Joining works once, is remembered, and is taken back.

use std::time::Duration;

use jiff::Timestamp;
use kit::{
    clock::ManualClock,
    identity::{Secret, TrustError, tls::TlsError},
};
use proto::v1::{DrainRequest, GetWorkerRequest, JoinRequest, LeaveRequest, ListRunsRequest};
use tokio::io::AsyncReadExt as _;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::fixture::{Controller, Machine, PATIENCE, reason};

fn list(id: &str) -> ListRunsRequest {
    ListRunsRequest { controller_id: id.to_owned(), ..ListRunsRequest::default() }
}

#[tokio::test]
async fn a_string_lets_one_controller_in_which_is_known_from_then_on() {
    let mut machine = Machine::new();
    machine.start(&[]).await;
    // The worker serves already: it opens the port without a restart.
    let join = machine.init();
    let (laptop, thief) = (Controller::new(), Controller::new());

    let mut stranger = laptop.client(&machine, &join).await;
    let refused = stranger.get_worker(GetWorkerRequest {}).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "NOT_JOINED"));
    let channel = laptop.channel(&machine, join.fingerprint).await;
    let service = HealthCheckRequest { service: String::new() };
    let refused = HealthClient::new(channel).check(service).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "no service is open to strangers");
    let refused = thief.join_with(&machine, join.fingerprint, &Secret::new()).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "SECRET_UNKNOWN"));

    let joined = laptop.join(&machine, &join).await.unwrap();
    assert!(joined.expires_ns > kit::clock::wall_ns(Timestamp::now()));
    let refused = thief.join(&machine, &join).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "SECRET_USED"));
    // Its answer may have been lost.
    laptop.join(&machine, &join).await.unwrap();

    let mut known = laptop.client(&machine, &join).await;
    let described = known.get_worker(GetWorkerRequest {}).await.unwrap().into_inner();
    assert_eq!(described.worker_id, joined.worker_id);
    known.list_runs(list(&laptop.id)).await.unwrap();
    let refused = known.list_runs(list("somebody-else")).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "OTHER_CONTROLLER"));

    // Also to a worker that was killed and started again.
    machine.kill();
    machine.start(&[]).await;
    let mut known = laptop.client(&machine, &join).await;
    known.list_runs(list(&laptop.id)).await.unwrap();
    // Only its own runs are ended by it, and there are none; the owner has no limits.
    known.drain(DrainRequest { cancel_running: true }).await.unwrap();
    let mut owner = machine.owner().await;
    owner.list_runs(list("anybody")).await.unwrap();
    let request = JoinRequest { controller_id: "c".into(), name: "n".into(), secret: vec![0; 20] };
    let refused = owner.join(request).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_TLS");
}

#[tokio::test]
async fn what_is_taken_back_is_cut_off_at_once() {
    let mut machine = Machine::new();
    let first = machine.init();
    machine.start(&[]).await;
    let (laptop, desk) = (Controller::new(), Controller::new());
    laptop.join(&machine, &first).await.unwrap();
    let second = machine.init();
    assert_eq!(first.fingerprint, second.fingerprint, "the key stays");
    desk.join(&machine, &second).await.unwrap();

    // A stream that is open, and the other controller's too.
    let watch = |channel| async {
        let request = HealthCheckRequest { service: String::new() };
        let mut stream = HealthClient::new(channel).watch(request).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        stream
    };
    let mut of_laptop = watch(laptop.channel(&machine, first.fingerprint).await).await;
    let desks_channel = desk.channel(&machine, first.fingerprint).await;
    let mut of_desk = watch(desks_channel.clone()).await;

    let list = machine.run(&["controllers", "list", "--output", "json"]);
    assert_eq!(String::from_utf8(list.stdout).unwrap().lines().count(), 2);
    let key = laptop.identity.fingerprint();
    let revoked = machine.run(&["controllers", "revoke", &key.short()]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    let ended = tokio::time::timeout(PATIENCE, of_laptop.message()).await.expect("the stream goes on");
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    let refused = laptop.client(&machine, &first).await.get_worker(GetWorkerRequest {}).await.unwrap_err();
    assert_eq!(reason(&refused), "REVOKED");
    // Its own secret does not bring it back.
    let refused = laptop.join(&machine, &first).await.unwrap_err();
    assert_eq!(reason(&refused), "REVOKED");
    let unknown = machine.run(&["controllers", "revoke", "nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
    let list = machine.run(&["controllers", "list"]);
    let text = String::from_utf8(list.stdout).unwrap();
    assert!(text.contains("revoked") && text.contains("joined"), "{text}");

    // The other one is as it was, until it leaves by itself.
    let mut other = crate::fixture::Client::new(desks_channel);
    other.get_worker(GetWorkerRequest {}).await.unwrap();
    other.leave(LeaveRequest {}).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, of_desk.message()).await.expect("the stream goes on");
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    // A new string does.
    let third = machine.init();
    laptop.join(&machine, &third).await.unwrap();
    laptop.client(&machine, &third).await.get_worker(GetWorkerRequest {}).await.unwrap();
}

#[tokio::test]
async fn wrong_keys_and_wrong_times_are_refused_with_the_reason() {
    let mut machine = Machine::new();
    let join = machine.init();
    machine.start(&[]).await;

    let laptop = Controller::new();
    let other = Controller::new().identity.fingerprint();
    let refused = laptop.reach(machine.address, other).await.map(|_| ());
    let Err(TlsError::Trust(TrustError::WrongKey { expected, found })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((expected, found), (other, join.fingerprint));

    // A controller whose clock stood still for two years shows a certificate that has ended, and finds the worker's
    // not begun; one whose clock is ahead the other way round.
    let year = Duration::from_secs(365 * 86_400);
    let (late, early) = (Timestamp::now() - 2 * year, Timestamp::now() + 2 * year);
    let refused = Controller::at(ManualClock::new(late)).reach(machine.address, join.fingerprint).await;
    assert!(matches!(refused, Err(TlsError::Trust(TrustError::NotYet { .. }))));
    let refused = Controller::at(ManualClock::new(early)).reach(machine.address, join.fingerprint).await;
    assert!(matches!(refused, Err(TlsError::Trust(TrustError::Expired { .. }))));
    // One that takes any key and shows a certificate that has ended, or has not begun: it is the worker that refuses.
    for begun in [late, early] {
        let mut stream = crate::fixture::careless(machine.address, ManualClock::new(begun)).await;
        let mut byte = [0];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await.expect("it is let in");
        let refused = kit::identity::tls::explain(&read.expect_err("no alert came"));
        assert!(matches!(refused, Some(TlsError::Refused(_))), "{refused:?}");
    }
    let log = machine.log();
    assert!(log.contains("ended at") && log.contains("begins at"), "{log}");

    laptop.join(&machine, &join).await.unwrap();
    laptop.client(&machine, &join).await.get_worker(GetWorkerRequest {}).await.unwrap();
}

#[tokio::test]
async fn a_string_ends_and_guessing_is_slowed_down() {
    let mut machine = Machine::new();
    let output = machine
        .command(&["init", "--listen", &machine.address.to_string()])
        .env("AUTORESEARCH_WORKER_REMOTE__INVITATION_LIFETIME", "1s")
        .output()
        .unwrap();
    let join: kit::identity::JoinString = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    machine.start(&[]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let laptop = Controller::new();
    let refused = laptop.join(&machine, &join).await.unwrap_err();
    assert_eq!(reason(&refused), "SECRET_EXPIRED", "{refused:?}");
    let mut reasons = Vec::new();
    for _ in 0..12 {
        let refused = laptop.join_with(&machine, join.fingerprint, &Secret::new()).await.unwrap_err();
        reasons.push(reason(&refused));
    }
    assert_eq!(reasons[0], "SECRET_UNKNOWN");
    assert_eq!(reasons[11], "TOO_MANY_ATTEMPTS");
}

#[tokio::test]
async fn without_keys_no_other_machine_is_listened_to() {
    let machine = Machine::new();
    let refused = machine.run(&["serve", "--listen", "0.0.0.0:0"]);
    let error = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{error}");
    assert!(error.contains("autoresearch-worker init") && error.contains("0.0.0.0:0"), "{error}");
    for (arguments, word) in [
        (&["init", "--listen", "0.0.0.0:0"][..], "--listen"),
        (&["init", "--advertise", "gpu-box"], "--advertise"),
        (&["serve", "--dial", "ssh://gpu"], "autoresearch worker invite"),
    ] {
        let refused = machine.run(arguments);
        let error = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{error}");
        assert!(error.contains(word), "{error}");
    }
}
