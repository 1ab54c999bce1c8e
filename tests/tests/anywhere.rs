//! The main job where Docker is stopped, and as a plain user in the engine's group: both give the report that root with
//! Docker gets.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use e2e::{Home, Ran};
use serde_json::{Value, json};

const QUESTION: &str = "Does batch normalisation help a small MLP on digits?";
/// One experiment that confirms nothing is enough: what differs between the ways is where the programs run.
const SMALL: [&str; 6] = ["run", QUESTION, "--max-iterations", "1", "--seeds", "3"];
const LONGEST: Duration = Duration::from_secs(900);

/// What a report registers, which does not depend on where it ran.
#[track_caller]
fn registered(report: &Value) -> Value {
    let experiments = report["experiments"].as_array().expect("experiments");
    assert!(!experiments.is_empty(), "{report:#}");
    let of = |experiment: &Value| {
        // Not what came out: each campaign draws its own seeds.
        let keep = ["title", "kind", "role", "metric", "reduce", "method"];
        let variants = experiment["variants"].as_array().expect("variants").iter();
        let mut kept: serde_json::Map<String, Value> =
            keep.iter().map(|key| ((*key).to_owned(), experiment[*key].clone())).collect();
        let variants = variants.map(|v| json!([v["id"], v["label"], v["params"]]));
        kept.insert("variants".to_owned(), variants.collect());
        let looks = experiment["looks"].as_array().expect("looks").iter();
        kept.insert("looks".to_owned(), looks.map(|look| json!([look["seeds"], look["error"]])).collect());
        Value::Object(kept)
    };
    experiments.iter().map(of).collect()
}

/// `report.json` beside the page that the last line names.
#[track_caller]
fn report(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{ran:?}");
    let path = Path::new(ran.stdout.trim_end().lines().last().expect("a path")).with_extension("json");
    let report: Value = serde_json::from_slice(&fs::read(path).expect("report.json")).expect("JSON");
    let runs = report["runs"].as_array().expect("runs");
    assert!(!runs.is_empty() && runs.iter().all(|run| run["outcome"] == "succeeded"), "{report:#}");
    report
}

#[track_caller]
fn sandbox(report: &Value) -> String {
    let facts = report["environment"].as_array().expect("an environment");
    let fact =
        facts.iter().find(|fact| fact["name"].as_str().is_some_and(|name| name.starts_with("sandbox of")));
    fact.and_then(|fact| fact["value"].as_str()).expect("the report says what held the programs").to_owned()
}

#[test]
fn the_main_job_gives_the_same_report_without_docker_and_as_a_plain_user() {
    let mut without = Home::new();
    let absent = without.path().join("absent.sock");
    without.environment.push(("DOCKER_HOST".to_owned(), format!("unix://{}", absent.display())));
    let child = without.spawn(&SMALL);
    let ran = without.finish(child, LONGEST);
    assert!(ran.stderr.contains("without Docker") && ran.stderr.contains("absent.sock"), "{ran:?}");
    let native = report(&ran);
    assert!(sandbox(&native).starts_with("native"), "{}", sandbox(&native));

    let plain = Home::of_a_plain_user();
    let child = plain.spawn(&SMALL);
    let docker = report(&plain.finish(child, LONGEST));
    assert!(sandbox(&docker).starts_with("docker"), "{}", sandbox(&docker));
    let owner = fs::metadata(plain.data_dir().join("journal.db")).expect("the journal").uid();
    assert_eq!(Some(owner), plain.owner(), "it was the plain user who did it");

    assert_eq!(registered(&native), registered(&docker));
    let keys =
        |report: &Value| -> Vec<String> { report.as_object().expect("a report").keys().cloned().collect() };
    assert_eq!(keys(&native), keys(&docker));
}
