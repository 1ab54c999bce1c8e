//! What a run is given of a data set, and what `GetWorker` says of it, over a scripted sandbox.

use prost::Message as _;
use proto::v1::{InputFile, InputRole, Machine, OutcomeKind};

use super::{
    super::{DataSetError, add::Source, add::add},
    request,
};
use crate::{
    run::{
        RunId,
        fake::{House, OWNER, Script},
        registry::StartError,
    },
    service::{Identity, describe},
};

/// A house whose worker has a file and a folder.
async fn house() -> House {
    let house = House::new(Script::exit(0)).await;
    let store = super::Store::open(house.root.path()).unwrap();
    let given = house.root.path().join("given");
    std::fs::create_dir(&given).unwrap();
    std::fs::write(given.join("t.csv"), "1,2\n").unwrap();
    // Else both are one image, made in the same second of the same file.
    std::fs::write(given.join("u.csv"), "3\n").unwrap();
    for (name, source) in [("table", given.join("t.csv")), ("shelf", given)] {
        add(&store, request(name, Source::Path(source)), &|_, _, _| {}).await.unwrap();
    }
    house
}

#[tokio::test]
async fn a_run_is_told_where_its_data_sets_are_and_get_worker_lists_them() {
    let house = house().await;
    let mut spec = house.spec();
    spec.data_sets = vec!["table".into(), "shelf".into()];
    // A file that came with the run goes before a data set of the same name.
    let mut own = InputFile { path: "shelf".into(), role: InputRole::Data.into(), ..spec.files[0].clone() };
    for (file, shelf) in [(None, "/data/shelf"), (Some(&mut own), "/in/files/shelf")] {
        let mut spec = spec.clone();
        spec.files.extend(file.cloned());
        let run = house.registry.start(RunId::new(), OWNER, &spec.encode_to_vec()).await.unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(20), run.wait_finished()).await.unwrap();
        let finished = run.published.borrow().finished.clone().unwrap();
        assert_eq!(finished.outcome.unwrap().kind(), OutcomeKind::Succeeded);
        let given: serde_json::Value =
            serde_json::from_slice(&house.backend.world.run_json.lock().unwrap()).unwrap();
        assert_eq!(given["datasets"], serde_json::json!({ "table": "/data/table/t.csv", "shelf": shelf }));
    }
    let machine = Machine::default();
    let name = || "x".to_owned();
    let identity = Identity { worker_id: name(), boot_id: name(), process_id: name() };
    let told = describe::worker(&house.registry, &identity, &machine).await;
    let told: Vec<(&str, u32, u64)> =
        told.data_sets.iter().map(|set| (set.name.as_str(), set.files, set.size_bytes)).collect();
    assert_eq!(told, [("shelf", 2, 6), ("table", 1, 4)]);
    // No run holds it any more, as soon as the last one's driver has let go.
    let store = &house.registry.options().data_sets;
    let image = store.lend("shelf").unwrap().layer.image;
    store.remove("shelf").unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while image.exists() {
        assert!(std::time::Instant::now() < until, "{} is held", image.display());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        store.tidy().unwrap();
    }
    house.assert_clean();
}

#[tokio::test]
async fn one_that_is_not_there_twice_there_or_damaged_makes_no_run_and_names_the_field() {
    let house = house().await;
    let store = &house.registry.options().data_sets;
    let image = store.lend("shelf").unwrap().layer.image;
    std::fs::set_permissions(&image, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(5).unwrap();
    assert!(matches!(store.lend("shelf"), Err(DataSetError::Damaged { .. })));
    let mut spec = house.spec();
    spec.data_sets = vec!["nothing".into(), "table".into(), "table".into(), "shelf".into()];
    let error = house.registry.start(RunId::new(), OWNER, &spec.encode_to_vec()).await.unwrap_err();
    let StartError::Spec(wrong) = error else { panic!("{error}") };
    let fields: Vec<&str> = wrong.0.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["spec.data_sets[0]", "spec.data_sets[2]", "spec.data_sets[3]"]);
    assert!(wrong.0[0].problem.contains("shelf, table"), "{}", wrong.0[0].problem);
    assert!(wrong.0[2].problem.contains("damaged"), "{}", wrong.0[2].problem);
    house.assert_clean();
}
