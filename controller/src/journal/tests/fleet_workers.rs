//! The registry of workers.

use super::*;

fn new(name: &str, worker_id: Option<&str>, state: FleetState) -> NewFleetWorker {
    NewFleetWorker {
        name: name.to_owned(),
        kind: "ssh",
        address: format!("ssh://{name}"),
        worker_id: worker_id.map(str::to_owned),
        fingerprint: None,
        state,
    }
}

#[tokio::test]
async fn a_name_and_a_worker_are_registered_once() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    journal.add_fleet_worker(new("gpu", Some("w1"), FleetState::Active)).await.unwrap();
    let taken = journal.add_fleet_worker(new("gpu", None, FleetState::Active)).await.unwrap_err().to_string();
    assert!(taken.contains("the name is taken"), "{taken}");
    let same =
        journal.add_fleet_worker(new("other", Some("w1"), FleetState::Active)).await.unwrap_err().to_string();
    assert!(same.contains("registered as `gpu`"), "{same}");
    journal.add_fleet_worker(new("other", Some("w2"), FleetState::Active)).await.unwrap();
    let names: Vec<_> = journal.fleet_workers().await.unwrap().into_iter().map(|w| w.name).collect();
    assert_eq!(names, ["other", "gpu"]);
    assert_eq!(journal.remove_fleet_worker("gpu").await.unwrap().worker_id.as_deref(), Some("w1"));
    assert!(matches!(journal.fleet_worker("gpu").await, Err(JournalError::NotFound { .. })));
    journal.add_fleet_worker(new("third", Some("w1"), FleetState::Active)).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_became_another_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    journal.add_fleet_worker(new("gpu", Some("w1"), FleetState::Active)).await.unwrap();
    assert_eq!(journal.fleet_worker_seen("gpu", "w1").await.unwrap(), None);
    assert_eq!(journal.fleet_worker_seen("gpu", "w2").await.unwrap().as_deref(), Some("w1"));
    assert_eq!(journal.fleet_worker_seen("gpu", "w2").await.unwrap(), None);
}

#[tokio::test]
async fn an_invitation_is_used_once() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    journal.add_fleet_worker(new("gpu", None, FleetState::Invited)).await.unwrap();
    let early = journal.set_fleet_worker_state("gpu", FleetState::Drained, None).await.unwrap_err();
    assert!(early.to_string().contains("not arrived"), "{early}");
    journal.fleet_worker_arrived("gpu", "one").await.unwrap();
    let row = journal.fleet_worker("gpu").await.unwrap();
    assert_eq!((row.state, row.fingerprint.as_deref()), (FleetState::Active, Some("one")));
    journal.fleet_worker_arrived("gpu", "one").await.unwrap();
    let other = journal.fleet_worker_arrived("gpu", "two").await.unwrap_err().to_string();
    assert!(other.contains("not awaited"), "{other}");
    journal.set_fleet_worker_state("gpu", FleetState::Revoked, None).await.unwrap();
    assert!(
        journal.fleet_worker_arrived("gpu", "one").await.is_err(),
        "the same secret does not bring it back"
    );
}

#[tokio::test]
async fn a_revoked_worker_stays_revoked_and_a_drained_one_is_the_users() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    journal.add_fleet_worker(new("gpu", Some("w1"), FleetState::Active)).await.unwrap();
    let set = |state, reason| journal.set_fleet_worker_state("gpu", state, reason);
    assert_eq!(set(FleetState::SetAside, Some("3 runs lost")).await.unwrap(), FleetState::Active);
    assert_eq!(journal.fleet_worker("gpu").await.unwrap().reason.as_deref(), Some("3 runs lost"));
    journal.take_back_fleet_worker("gpu").await.unwrap();
    let back = journal.fleet_worker("gpu").await.unwrap();
    assert_eq!((back.state, back.reason), (FleetState::Active, None));
    set(FleetState::SetAside, Some("3 runs lost")).await.unwrap();
    assert_eq!(set(FleetState::Drained, None).await.unwrap(), FleetState::SetAside);
    journal.take_back_fleet_worker("gpu").await.unwrap();
    assert_eq!(set(FleetState::SetAside, Some("x")).await.unwrap(), FleetState::Drained);
    assert_eq!(journal.fleet_worker("gpu").await.unwrap().state, FleetState::Drained);
    set(FleetState::Revoked, Some("stolen")).await.unwrap();
    let error = set(FleetState::Active, None).await.unwrap_err().to_string();
    assert!(error.contains("revoked"), "{error}");
}
