//! Each budget stops a campaign by itself; the report is written all the same, and its first page says which.

use std::{fs, path::Path};

use e2e::{
    Home, Ran,
    vendor::{
        Asked, Server, Vendor, Wanted,
        script::{QUESTION, good, plan, planned, program},
    },
};
use serde_json::Value;

const SEEDS: u32 = 3;
/// With a known price: 2 dollars for a million tokens in, 10 for a million out.
const PRICED: &str = "anthropic:claude-sonnet-5-5";

fn research(home: &mut Home, spec: &str, server: &Server, more: &[&str]) -> Ran {
    home.environment.push(("ANTHROPIC_API_KEY".to_owned(), "sk-of-a-test".to_owned()));
    let url = server.url();
    let mut arguments =
        vec!["run", QUESTION, "--llm", spec, "--llm-url", &url, "--image", "lite", "--seeds", "3"];
    arguments.extend(more);
    home.run(&arguments)
}

/// The report says on its first page, in all three forms, that `reason` stopped the campaign.
#[track_caller]
fn stopped_by(ran: &Ran, reason: &str) -> Value {
    let path = ran.stdout.trim_end().lines().last().unwrap_or_else(|| panic!("no path: {ran:?}"));
    let read = |extension: &str| {
        let path = Path::new(path).with_extension(extension);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}: {ran:?}", path.display()))
    };
    let report: Value = serde_json::from_str(&read("json")).expect("report.json is JSON");
    assert_eq!(report["answer"]["stopped_by"], reason, "{:#}\n{ran:?}", report["answer"]);
    let said = format!("Ended by: {reason}");
    assert!(ran.stdout.contains(&said), "{ran:?}");
    let first_page = |text: &str| text.chars().take(6000).collect::<String>();
    assert!(first_page(&read("md")).contains(&said), "the first page of report.md");
    let html = read("html");
    let body = html.split_once("<body").map_or(html.as_str(), |(_, body)| body);
    assert!(first_page(body).contains(reason), "the first page of report.html");
    let budgets = report["costs"]["budgets"].as_array().expect("budgets");
    let marked: Vec<&Value> =
        budgets.iter().filter(|line| line["stopped"] == true).map(|line| &line["name"]).collect();
    assert_eq!(marked, [reason], "{budgets:#?}");
    report
}

/// Never satisfied: always another experiment on the last finding.
fn insatiable(asked: &Asked, count: usize) -> Value {
    match asked.wanted {
        Wanted::Decision => serde_json::json!({ "decision": "continue", "reason": "there is more to learn" }),
        Wanted::Plan if count > 1 => {
            let mut next = plan(SEEDS);
            next["motivated_by"] = serde_json::json!(["f1"]);
            planned(next)
        }
        _ => good(asked, SEEDS),
    }
}

#[test]
fn iterations() {
    let mut home = Home::new();
    let server = Server::start(Vendor::Compatible, insatiable);
    let ran = research(&mut home, "compatible:m", &server, &["--max-iterations", "2"]).expect(0);
    let report = stopped_by(&ran, "iterations");
    assert_eq!(report["experiments"].as_array().map(Vec::len), Some(2));
    assert_eq!(report["experiments"][1]["motivated_by"][0], "f1");
}

#[test]
fn wall_clock() {
    let mut home = Home::new();
    // Every run takes as long as it may.
    let server = Server::start(Vendor::Compatible, |asked: &Asked, count| match asked.wanted {
        Wanted::Code => program(
            "import autoresearch as ar, time\nshift = ar.params['shift']\nar.log(step=1, test_accuracy=0.5)\n\
             time.sleep(0.1 if ar.smoke else 12)\n",
        ),
        _ => insatiable(asked, count),
    });
    let ran = research(&mut home, "compatible:m", &server, &["--time-budget", "21s"]);
    assert!([0, 1].contains(&ran.code), "{ran:?}");
    let report = stopped_by(&ran, "wall-clock");
    let wall = report["costs"]["wall_seconds"].as_f64().expect("seconds");
    // Runs are cancelled at the limit; they may take their grace.
    assert!((20.9..=32.0).contains(&wall), "{wall} s of 21 s");
}

#[test]
fn device_hours() {
    let mut home = Home::new();
    let server = Server::start(Vendor::Compatible, |asked: &Asked, count| match asked.wanted {
        Wanted::Code => program(
            "import autoresearch as ar, time\nshift = ar.params['shift']\nar.log(step=1, test_accuracy=0.5)\n\
             time.sleep(0.1 if ar.smoke else 8)\n",
        ),
        _ => insatiable(asked, count),
    });
    let ran = research(&mut home, "compatible:m", &server, &["--gpu-budget", "60s"]);
    assert!([0, 1].contains(&ran.code), "{ran:?}");
    let report = stopped_by(&ran, "GPU-hours");
    let spent = report["costs"]["device_seconds"].as_f64().expect("seconds");
    assert!(spent > 0.0 && spent <= 60.0, "never more than was given: {spent}");
    assert_eq!(
        report["costs"]["device_unit"], "slot",
        "on a worker without a GPU the hours are those of its slots"
    );
}

#[test]
fn money() {
    const DOLLARS: f64 = 1.2;
    let mut home = Home::new();
    // A model that reasons at length: 16 cents an answer. Before a call is made, all that it may cost is set aside,
    // so the budget ends before it is spent.
    let server = Server::with_cost(Vendor::Anthropic, 16_000, insatiable);
    let ran = research(&mut home, PRICED, &server, &["--cost-budget", &DOLLARS.to_string()]);
    assert!([0, 1].contains(&ran.code), "{ran:?}");
    let report = stopped_by(&ran, "money");
    let spent = report["costs"]["dollars"].as_f64().expect("a known price");
    assert!((0.15..=DOLLARS).contains(&spent), "it was used, and never more than was given: {spent}");
    assert!(!server.asked(Wanted::Plan).is_empty(), "it was asked before the money ran out");
}

#[test]
fn failures_in_a_row() {
    let mut home = Home::new();
    let server = Server::start(Vendor::Compatible, |asked: &Asked, count| match asked.wanted {
        Wanted::Code | Wanted::Repair => program(&format!(
            "import autoresearch as ar\nshift = ar.params['shift']\nar.log(step=1, test_accuracy=0.5)\n\
             raise RuntimeError('attempt {count} fails')\n"
        )),
        _ => insatiable(asked, count),
    });
    let ran = research(&mut home, "compatible:m", &server, &["--max-failures", "2"]);
    assert_eq!(ran.code, 1, "no run succeeded: {ran:?}");
    let report = stopped_by(&ran, "failures in a row");
    assert_eq!(
        report["revisions"].as_array().map(Vec::len),
        Some(2),
        "it stopped before the repairs ran out"
    );
    assert_eq!(report["answer"]["verdict"], "No answer");
}
