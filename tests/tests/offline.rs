//! The main job with no model: a question in, a report out, by real training on real containers.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use e2e::{Home, Ran};
use serde_json::Value;

/// Real training takes every core: one campaign at a time, so that each has the machine that its limits are made for.
static MACHINE: Mutex<()> = Mutex::new(());

fn whole_machine() -> MutexGuard<'static, ()> {
    // A test that failed leaves nothing that the next one could trip over.
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[track_caller]
fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list `{key}` in {value:#}"))
}

#[track_caller]
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {value:#}"))
}

/// The answer and `report.json`, with what holds of every finished `run` checked.
#[track_caller]
fn answered(home: &Home, ran: &Ran) -> (String, Value) {
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<&str> = ran.stdout.trim_end().lines().collect();
    let (path, before) = lines.split_last().expect("an answer and a path");
    let path = Path::new(path);
    assert!(path.is_absolute() && path.extension().is_some_and(|e| e == "html"), "{}", path.display());
    assert!(path.starts_with(home.data_dir()) && path.is_file(), "{}", path.display());
    let answer = before.iter().rev().take_while(|line| !line.trim().is_empty()).collect::<Vec<_>>();
    let answer = answer.into_iter().rev().copied().collect::<Vec<_>>().join("\n");

    let read =
        |extension: &str| fs::read_to_string(path.with_extension(extension)).expect("a form of the report");
    let report: Value = serde_json::from_str(&read("json")).expect("report.json is JSON");
    let (markdown, html) = (read("md"), read("html"));
    assert!(
        markdown.contains(text(&report["answer"], "verdict")) && markdown.contains(text(&report, "question"))
    );
    self_contained(&html);
    every_number_is_accounted_for(&answer, &report);

    let id = text(&report, "id");
    let printed = home.run(&["report", id, "--path"]).expect(0);
    assert_eq!(Path::new(printed.stdout.trim()), path);
    let listed = home.run(&["list", "--output", "json"]).expect(0).json();
    let shown = home.run(&["show", id, "--output", "json"]).expect(0).json();
    for row in [&listed, &shown] {
        assert_eq!((text(row, "id"), text(row, "state")), (id, "finished"), "{row:#}");
        assert_eq!(row["question"], report["question"]);
        assert_eq!(text(row, "answer"), whole_answer(&report));
    }
    let known: BTreeSet<&str> = list(&shown, "run_list").iter().map(|run| text(run, "id")).collect();
    let told: BTreeSet<&str> = list(&report, "runs").iter().map(|run| text(run, "id")).collect();
    assert_eq!(known, told, "the report tells every run that the journal has");
    (answer, report)
}

/// It reads without a network: nothing is loaded from anywhere.
#[track_caller]
fn self_contained(html: &str) {
    for outside in
        ["src=\"http", "src='http", "href=\"http", "url(http", "@import", "<link", "<script src", "//cdn"]
    {
        assert!(!html.contains(outside), "`{outside}` in report.html");
    }
    assert!(html.contains("<svg"), "plots are inside the file");
}

/// The numbers of a text: digits with `.` or `,` inside, the `10` of a `v10` left out.
fn numbers(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        let named = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        if !chars[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = at;
        while at < chars.len() && (chars[at].is_ascii_digit() || inside(&chars, at)) {
            at += 1;
        }
        if !named {
            found.push(chars[start..at].iter().filter(|c| **c != ',').collect());
        }
    }
    found
}

fn inside(chars: &[char], at: usize) -> bool {
    matches!(chars[at], '.' | ',')
        && at > 0
        && chars[at - 1].is_ascii_digit()
        && chars.get(at + 1).is_some_and(char::is_ascii_digit)
}

/// The verdict's word and the paragraph, as they are printed.
fn whole_answer(report: &Value) -> String {
    format!("{}. {}", text(&report["answer"], "verdict"), text(&report["answer"], "text"))
}

/// Every number that is printed in the answer is in `answer.numbers`, and those rest on runs that exist.
#[track_caller]
fn every_number_is_accounted_for(answer: &str, report: &Value) {
    let runs: BTreeSet<&str> = list(report, "runs").iter().map(|run| text(run, "id")).collect();
    let computed = list(&report["answer"], "numbers");
    assert!(!computed.is_empty(), "{:#}", report["answer"]);
    for number in computed {
        let rests_on = list(number, "runs");
        assert!(!rests_on.is_empty(), "it rests on no run: {number:#}");
        for run in rests_on {
            assert!(
                run.as_str().is_some_and(|id| runs.contains(id)),
                "{run} is no run of the report: {number:#}"
            );
        }
    }
    let shown: BTreeSet<String> = computed.iter().flat_map(|n| numbers(text(n, "shown"))).collect();
    for number in numbers(answer) {
        assert!(
            shown.contains(&number),
            "{number} of the answer is no computed number.\n{answer}\n{shown:?}"
        );
    }
}

#[test]
fn numbers_are_found_in_a_text() {
    assert_eq!(numbers("e1: 1,437 train, v10 at 0.98 (98 %), −1.5."), ["1437", "0.98", "98", "1.5"]);
}

#[test]
fn a_question_ends_in_an_answer_that_a_careful_researcher_would_sign() {
    let _machine = whole_machine();
    let home = Home::new();
    let ran = home.run(&["run", "Does batch normalisation help a small MLP on digits?"]);
    let (answer, report) = answered(&home, &ran);
    let verdict = text(&report["answer"], "verdict");
    let words = ["Supported", "Refuted", "Equivalent", "Inconclusive"];
    assert!(words.contains(&verdict) && answer.contains(verdict), "{verdict}: {answer}");
    assert_eq!(answer, whole_answer(&report), "what is printed is what is kept");
    for said in ["interval", "seeds", "digits", "smallest effect of interest", "set by", "point"] {
        assert!(answer.to_lowercase().contains(said), "`{said}` is not said:\n{answer}");
    }
    assert!(answer.contains("failed") && answer.contains("possible"), "the share of failures:\n{answer}");
    let rule_based =
        ran.stderr.lines().next().is_some_and(|line| line.contains("rule-based") && line.contains("--llm"));
    assert!(rule_based, "the first line says that it is rule-based and how to name a model: {}", ran.stderr);
    assert!(!ran.stderr.contains('\u{1b}'), "no progress is drawn in a pipe");

    let experiments = list(&report, "experiments");
    assert!(experiments.len() >= 2, "two iterations at least: {}", experiments.len());
    let of_first: BTreeSet<&str> = list(&report, "findings")
        .iter()
        .filter(|f| f["experiment"] == experiments[0]["id"])
        .map(|f| text(f, "id"))
        .collect();
    let follows = list(&experiments[1], "motivated_by")
        .iter()
        .any(|id| of_first.contains(id.as_str().unwrap_or_default()));
    assert!(
        follows,
        "the second follows from a finding of the first: {of_first:?}, {:#}",
        experiments[1]["motivated_by"]
    );
    assert_eq!(
        (text(&experiments[0], "role"), text(&experiments[1], "role")),
        ("exploratory", "confirmatory")
    );
    confirmed_on_new_seeds(&experiments[0], &experiments[1]);
    for run in list(&report, "runs").iter().filter(|run| run["purpose"] == "full") {
        assert!(!text(run, "revision").is_empty() && !text(run, "outcome").is_empty(), "{run:#}");
    }
    assert!(text(&report, "command").contains("batch normalisation"), "the command that makes it again");
}

#[track_caller]
fn confirmed_on_new_seeds(first: &Value, second: &Value) {
    let seeds = |experiment: &Value| -> BTreeSet<u64> {
        let values = list(experiment, "variants").iter().flat_map(|variant| list(variant, "values").to_vec());
        values.filter_map(|value| value["seed"].as_u64()).collect()
    };
    let (explored, confirmed) = (seeds(first), seeds(second));
    assert!(confirmed.len() >= 5 && explored.is_disjoint(&confirmed), "{explored:?} {confirmed:?}");
    assert_eq!((text(&first["metric"], "split"), text(&second["metric"], "split")), ("validation", "test"));
}

#[test]
fn a_question_of_stability_is_answered_with_the_share_that_failed() {
    let _machine = whole_machine();
    let home = Home::new();
    let question = "Does residual connection placement affect training stability in small transformers?";
    // Three seeds are the least that give an interval: the test is of the way, not of the answer.
    let ran = home.run(&["run", question, "--max-iterations", "1", "--seeds", "3"]);
    let (answer, report) = answered(&home, &ran);
    let experiment = &list(&report, "experiments")[0];
    assert_eq!(text(experiment, "kind"), "stability", "{:#}", experiment["title"]);
    let reduce = &experiment["plan"]["reduce"];
    assert_eq!(text(reduce, "rule"), "gap_to_best_over", "sensitivity to the learning rate, per seed");
    let levels = list(&experiment["plan"], "factors")
        .iter()
        .find(|f| f["param"] == reduce["factor"])
        .expect("the factor");
    assert!(list(levels, "levels").len() >= 3, "{levels:#}");
    for variant in list(experiment, "variants") {
        assert!(
            variant["failed_up_to"].as_f64().is_some_and(|share| share > 0.0 && share <= 1.0),
            "{variant:#}"
        );
    }
    assert!(answer.to_lowercase().contains("failed"), "the share of failed runs stands beside it:\n{answer}");
}
