use std::{sync::Arc, time::Duration};

use super::{
    fake::{FakeTool, Play},
    *,
};

const IMAGE: &str = "sha256:1";
const CONFLICT: &str = r#"{"kind": "conflict", "words": "ERROR: a and b\nno"}"#;

fn rules() -> PackageRules {
    PackageRules { size: 64 << 20, time: Duration::from_secs(300), cache: 1 << 30 }
}

fn wanted(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

struct Place {
    folder: tempfile::TempDir,
    packages: Packages,
}

impl Place {
    fn new(rules: PackageRules) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let packages = Packages::open(folder.path(), rules).unwrap();
        Self { folder, packages }
    }
    async fn ask(&self, tool: &FakeTool, text: &str) -> Result<Provided, PackageError> {
        self.packages.provide(tool, IMAGE, &wanted(text), &CancellationToken::new()).await
    }
    fn names(&self, below: &str) -> usize {
        std::fs::read_dir(self.folder.path().join(below)).unwrap().count()
    }
}

#[tokio::test]
async fn a_request_is_resolved_once_and_kept_over_a_restart() {
    let place = Place::new(rules());
    let tool = FakeTool::new(Play::Packages(vec![("einops", "0.8.0")]));
    assert_eq!(place.packages.reservation(IMAGE, &wanted("einops==0.8.0")), 64 << 20);
    let first = place.ask(&tool, "einops==0.8.0").await.unwrap();
    assert_eq!(first.packages, [Package { name: "einops".into(), version: "0.8.0".into() }]);
    assert!(!first.cached && first.layer.as_ref().unwrap().image().exists());
    assert_eq!(tool.calls(), ["resolve", "fetch"]);
    assert_eq!(place.names("work"), 0, "the workplace is left");
    assert_eq!(place.packages.reservation(IMAGE, &wanted("einops==0.8.0")), 0);

    let again = Packages::open(place.folder.path(), rules()).unwrap();
    let stop = CancellationToken::new();
    let second = again.provide(&tool, IMAGE, &wanted("einops==0.8.0"), &stop).await.unwrap();
    assert!(second.cached && second.packages == first.packages);
    // Another text of the same lock shares the layer.
    let third = place.ask(&tool, "einops").await.unwrap();
    assert_eq!(tool.calls(), ["resolve", "fetch", "resolve"]);
    assert_eq!(third.layer.unwrap().image(), second.layer.unwrap().image());
    // Another image has another Python.
    again.provide(&tool, "sha256:2", &wanted("einops"), &stop).await.unwrap();
    assert_eq!((tool.calls().len(), place.names("layers")), (5, 2));
}

#[tokio::test]
async fn who_asks_at_the_same_time_shares_what_comes_of_it() {
    let place = Place::new(rules());
    let mut tool = FakeTool::new(Play::Packages(vec![("einops", "0.8.0")]));
    tool.takes = Duration::from_millis(50);
    let asked = futures_util::future::join_all((0..5).map(|_| place.ask(&tool, "einops"))).await;
    assert!(asked.iter().all(Result::is_ok));
    assert_eq!(tool.calls(), ["resolve", "fetch"]);

    let mut tool = FakeTool::new(Play::Answer(CONFLICT));
    tool.takes = Duration::from_millis(50);
    let asked = futures_util::future::join_all((0..5).map(|_| place.ask(&tool, "a b"))).await;
    for error in asked.into_iter().map(Result::unwrap_err) {
        assert!(error.is_conflict() && error.to_string() == "ERROR: a and b\nno", "{error:?}");
    }
    assert_eq!(tool.calls(), ["resolve"]);
    // Who comes later tries again: an index changes.
    assert!(place.ask(&tool, "a b").await.is_err());
    assert_eq!(tool.calls(), ["resolve", "resolve"]);
}

#[tokio::test]
async fn what_the_image_has_needs_no_layer() {
    let place = Place::new(rules());
    let tool = FakeTool::new(Play::Packages(Vec::new()));
    let provided = place.ask(&tool, "numpy").await.unwrap();
    assert!(provided.layer.is_none() && provided.packages.is_empty());
    assert!(place.ask(&tool, "numpy").await.unwrap().cached);
    assert_eq!(tool.calls(), ["resolve"]);
}

#[tokio::test]
async fn each_failure_is_told_apart_and_leaves_nothing() {
    let place = Place::new(rules());
    let ask = async |play| {
        let error = place.ask(&FakeTool::new(play), "a").await.unwrap_err();
        assert_eq!((place.names("work"), place.names("layers"), place.names("requests")), (0, 0, 0));
        error
    };
    let unreachable = r#"{"kind": "unreachable", "words": "no route"}"#;
    assert!(matches!(ask(Play::Answer(unreachable)).await, PackageError::Unreachable(w) if w == "no route"));
    let full = r#"{"kind": "no_space", "words": "full"}"#;
    assert!(matches!(ask(Play::Answer(full)).await, PackageError::DiskFull(_)));
    for garbage in ["", "{}", "[]", r#"{"kind": "ok"}"#, r#"{"kind": "fine", "packages": []}"#] {
        assert!(matches!(ask(Play::Answer(garbage)).await, PackageError::Engine(_)), "{garbage}");
    }
    let tricks = r#"{"kind": "ok", "packages": [{"name": "../a", "version": "1", "sha256": "0"}]}"#;
    assert!(matches!(ask(Play::Answer(tricks)).await, PackageError::Refused(_)));
    assert!(matches!(ask(Play::Break(1, "Killed")).await, PackageError::Engine(w) if w.contains("Killed")));
    assert!(matches!(ask(Play::Missing).await, PackageError::Engine(_)));
    let escapes = r#"{"kind": "conflict", "words": "\u001b[31mred"}"#;
    assert!(matches!(ask(Play::Answer(escapes)).await, PackageError::Refused(w) if !w.contains('\u{1b}')));
}

#[tokio::test]
async fn size_and_time_are_bounded_and_the_error_says_the_bound() {
    let small = Place::new(PackageRules { size: 1 << 20, ..rules() });
    let error = small.ask(&FakeTool::new(Play::Fill(3 << 20)), "a").await.unwrap_err();
    assert!(error.is_conflict() && error.to_string().contains("1MiB"), "{error}");
    let short = Place::new(PackageRules { time: Duration::from_millis(10), ..rules() });
    let error = short.ask(&FakeTool::new(Play::Hang), "a").await.unwrap_err();
    assert!(error.is_conflict() && error.to_string().contains("packages.time"), "{error}");
}

#[tokio::test]
async fn a_cancel_ends_it_and_the_next_one_goes_on() {
    let place = Arc::new(Place::new(rules()));
    let (tool, stop) = (Arc::new(FakeTool::new(Play::Hang)), CancellationToken::new());
    let (of, with, token) = (Arc::clone(&place), Arc::clone(&tool), stop.clone());
    let first = kit::task::spawn("first", async move {
        of.packages.provide(with.as_ref(), IMAGE, &wanted("einops"), &token).await.map(|_| ())
    });
    while tool.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // One that waits for the first is not taken along.
    let waiting = place.ask(&tool, "einops");
    *tool.play.lock().unwrap() = Play::Packages(vec![("einops", "0.8.0")]);
    stop.cancel();
    assert!(matches!(first.await.unwrap().unwrap(), Err(PackageError::Stopped)));
    assert_eq!(waiting.await.unwrap().packages.len(), 1);
    // Waiting itself can be cancelled.
    let stopped = place.packages.provide(tool.as_ref(), IMAGE, &wanted("b"), &stop).await;
    assert!(matches!(stopped, Err(PackageError::Stopped)));
}

#[tokio::test]
async fn the_least_recently_used_go_and_what_a_run_holds_stays() {
    let place = Place::new(PackageRules { cache: 0, ..rules() });
    let provide = async |name: &'static str| {
        place.ask(&FakeTool::new(Play::Packages(vec![(name, "1")])), name).await.unwrap()
    };
    let held = provide("a").await;
    let image = held.layer.as_ref().unwrap().image().to_owned();
    let other = provide("b").await;
    assert_eq!(place.names("layers"), 2);
    drop(other);
    provide("c").await;
    // b had to go; a is held, and c was held while it was looked.
    assert_eq!((place.names("layers"), image.exists()), (2, true));
    drop(held);
    provide("d").await;
    assert!(!image.exists());
    assert_eq!((place.names("layers"), place.names("requests")), (1, 1));
}
