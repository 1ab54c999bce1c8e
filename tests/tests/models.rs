//! The loop over HTTP servers in the vendors' formats: one good path for each, and one against a model that makes every
//! mistake: a plan that breaks its shape, and programs that fail in five ways. What each is told, and what comes of it.

use std::{fs, path::Path};

use e2e::{
    Home, Ran,
    vendor::{
        Asked, Server, Vendor, WRITTEN, Wanted,
        script::{PROGRAM, QUESTION, good, plan, planned, program},
    },
};
use serde_json::Value;

/// The fewest that give an interval.
const SEEDS: u32 = 3;
const KEY: &str = "sk-test-0123456789abcdef0123456789abcdef";

#[track_caller]
fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list `{key}` in {value:#}"))
}

#[track_caller]
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {value:#}"))
}

/// A home whose environment holds a key for each vendor.
fn home() -> Home {
    let mut home = Home::new();
    for name in ["ANTHROPIC_API_KEY", "OPENAI_API_KEY"] {
        home.environment.push((name.to_owned(), KEY.to_owned()));
    }
    home
}

fn research(home: &Home, spec: &str, server: &Server, more: &[&str]) -> Ran {
    let url = server.url();
    let mut arguments =
        vec!["run", QUESTION, "--llm", spec, "--llm-url", &url, "--image", "lite", "--seeds", "3"];
    arguments.extend(more);
    home.run(&arguments)
}

#[track_caller]
fn report(ran: &Ran) -> Value {
    let path = ran.stdout.trim_end().lines().last().unwrap_or_else(|| panic!("no path: {ran:?}"));
    let json = fs::read_to_string(Path::new(path).with_extension("json"));
    serde_json::from_str(&json.unwrap_or_else(|e| panic!("{path}: {e}: {ran:?}")))
        .expect("report.json is JSON")
}

/// The key is nowhere that it could be read later.
#[track_caller]
fn the_key_is_nowhere(home: &Home, ran: &Ran) {
    assert!(!ran.stdout.contains(KEY) && !ran.stderr.contains(KEY));
    let mut folders = vec![home.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else if let Ok(bytes) = fs::read(entry.path()) {
                let found = bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes());
                assert!(!found, "the key is in {}", entry.path().display());
            }
        }
    }
}

#[track_caller]
fn good_path(vendor: Vendor, spec: &str) {
    let home = home();
    let server = Server::start(vendor, |asked: &Asked, _| good(asked, SEEDS));
    let ran = research(&home, spec, &server, &[]).expect(0);
    assert_eq!(server.wrong(), [""; 0], "the vendor would have refused");
    let report = report(&ran);
    assert_eq!((text(&report, "researcher"), text(&report, "state")), (spec, "finished"));
    assert_eq!(text(&report["answer"], "verdict"), "Supported", "{:#}", report["answer"]);
    assert_eq!(text(&report["answer"], "stopped_by"), "question answered");
    let experiments = list(&report, "experiments");
    assert_eq!(experiments.len(), 1);
    let means: Vec<f64> =
        list(&experiments[0], "variants").iter().filter_map(|v| v["mean"].as_f64()).collect();
    assert!(means.len() == 2 && (means[0] - 0.6).abs() < 0.02 && (means[1] - 0.7).abs() < 0.02, "{means:?}");
    let runs = list(&report, "runs");
    let of = |purpose: &str| {
        runs.iter().filter(|run| run["purpose"] == purpose && run["outcome"] == "succeeded").count()
    };
    assert_eq!((of("smoke"), of("full")), (2, 6), "{runs:#?}");
    assert_eq!(list(&report, "revisions").len(), 1);
    let times = [Wanted::Plan, Wanted::Code, Wanted::Repair, Wanted::Interpretation]
        .map(|wanted| server.asked(wanted).len());
    assert_eq!(times, [1, 1, 0, 1]);
    let costs = &report["costs"];
    let calls = costs["calls"].as_u64().expect("a count");
    assert!((3..=4).contains(&calls), "{costs:#}");
    assert_eq!(
        (costs["input_tokens"].as_u64(), costs["output_tokens"].as_u64()),
        (Some(server.tokens()), Some(WRITTEN * calls))
    );
    // Metrics by variant are told only when the experiment is closed.
    for asked in [server.asked(Wanted::Plan), server.asked(Wanted::Code)].concat() {
        assert!(!asked.text.contains("0.70") && !asked.text.contains("0.69"), "{}", asked.text);
    }
    the_key_is_nowhere(&home, &ran);
}

#[test]
fn anthropic_good_path() {
    good_path(Vendor::Anthropic, "anthropic:claude-sonnet-5-5");
}

#[test]
fn openai_good_path() {
    good_path(Vendor::OpenAi, "openai:gpt-6.2-sol");
}

#[test]
fn ollama_good_path() {
    good_path(Vendor::Ollama, "ollama:qwen3:8b");
}

#[test]
fn compatible_good_path() {
    good_path(Vendor::Compatible, "compatible:any/model");
}

/// A way to fail, with what the model must be told of it.
struct Fault {
    program: &'static str,
    outcome: &'static str,
    /// The plan's time limit.
    seconds: u32,
    told: &'static [&'static str],
}

const FAULTS: [Fault; 5] = [
    Fault {
        program: r#"
import autoresearch as ar
import numpy as np
shift = ar.params["shift"]
ar.log(step=1, test_accuracy=float((np.ones((3, 4)) @ np.ones((5, 6))).sum()))
"#,
        outcome: "failed",
        seconds: 60,
        told: &["ValueError", "matmul", "line 5", "Traceback"],
    },
    Fault {
        program: r#"
import autoresearch as ar
import a_package_that_is_not_there
shift = ar.params["shift"]
ar.log(step=1, test_accuracy=0.5)
"#,
        outcome: "failed",
        seconds: 60,
        told: &["ModuleNotFoundError", "a_package_that_is_not_there"],
    },
    Fault {
        program: r#"
import autoresearch as ar
shift = ar.params["shift"]
ar.log(step=1, test_accuracy=float("nan"))
"#,
        outcome: "diverged",
        seconds: 60,
        told: &["test_accuracy"],
    },
    Fault {
        program: r#"
import autoresearch as ar
shift = ar.params["shift"]
print("turning and turning", flush=True)
ar.log(step=1, test_accuracy=0.5)
while True:
    pass
"#,
        outcome: "timed_out",
        seconds: 20,
        told: &["turning and turning", "20 s"],
    },
    Fault {
        program: r#"
import autoresearch as ar
shift = ar.params["shift"]
ar.log(step=1, test_accuracy=0.5)
held = []
while True:
    held.append(b"x" * (1 << 20))
"#,
        outcome: "out_of_memory",
        // On a slow disk the kernel drops and reads the interpreter's own pages for a while before it kills.
        seconds: 120,
        told: &["256"],
    },
];

/// One campaign for each fault: the first program has it, the repair is sound.
#[track_caller]
fn repaired(index: usize) {
    let fault = &FAULTS[index];
    let home = home();
    let server = Server::start(Vendor::Compatible, move |asked: &Asked, _| match asked.wanted {
        Wanted::Plan => {
            let mut plan = plan(SEEDS);
            plan["limits"]["time_seconds"] = FAULTS[index].seconds.into();
            planned(plan)
        }
        Wanted::Code => program(FAULTS[index].program),
        _ => good(asked, SEEDS),
    });
    let ran = research(&home, "compatible:m", &server, &[]).expect(0);
    let repairs = server.asked(Wanted::Repair);
    assert_eq!(repairs.len(), 1, "one repair is enough: {ran:?}");
    let asked = &repairs[0].text;
    assert!(asked.contains(fault.outcome), "`{}` is not told:\n{asked}", fault.outcome);
    for told in fault.told {
        assert!(asked.contains(told), "`{told}` is not told:\n{asked}");
    }
    let source = fault.program.trim();
    assert!(asked.contains(source), "the program that failed is not told:\n{asked}");

    let report = report(&ran);
    assert_eq!(text(&report["answer"], "verdict"), "Supported", "{:#}", report["answer"]);
    let revisions = list(&report, "revisions");
    assert_eq!(revisions.len(), 2);
    assert!(text(&revisions[1], "reason").contains(fault.outcome), "{:#}", revisions[1]["reason"]);
    let digest = &revisions[1]["digest"];
    let full: Vec<&Value> = list(&report, "runs").iter().filter(|run| run["purpose"] == "full").collect();
    assert!(
        full.len() == 6 && full.iter().all(|run| run["revision"] == *digest),
        "revisions never mix: {full:#?}"
    );
    assert!(
        list(&report, "runs").iter().any(|run| run["outcome"] == fault.outcome),
        "the failed run is in the report"
    );
}

#[test]
fn a_shape_error_goes_back_with_its_traceback_and_is_repaired() {
    repaired(0);
}

#[test]
fn a_missing_import_goes_back_and_is_repaired() {
    repaired(1);
}

#[test]
fn nan_in_the_smoke_run_goes_back_and_is_repaired() {
    repaired(2);
}

#[test]
fn an_endless_loop_goes_back_and_is_repaired() {
    repaired(3);
}

#[test]
fn running_out_of_memory_goes_back_and_is_repaired() {
    repaired(4);
}

const USES_EINOPS: &str = r#"
import autoresearch as ar
import einops
shift = ar.params["shift"]
assert einops.__version__ == "0.8.0"
noise = float(ar.generator("order").normal()) * 0.004
for step in range(1, 1 + (2 if ar.smoke else int(ar.params["steps"]))):
    ar.log(step=step, test_accuracy=0.6 + (0.1 if shift else 0.0) + noise)
"#;

#[test]
fn a_package_that_cannot_be_had_goes_back_with_the_resolvers_words_and_is_changed() {
    let home = home();
    let server = Server::start(Vendor::OpenAi, |asked: &Asked, count| match (asked.wanted, count) {
        // What names a place is the plan's fault; a version that is not there comes out when it is resolved.
        (Wanted::Plan, 1) => {
            let mut plan = plan(SEEDS);
            plan["packages"] = serde_json::json!(["../einops"]);
            planned(plan)
        }
        (Wanted::Plan, _) => {
            let mut plan = plan(SEEDS);
            plan["packages"] = serde_json::json!(["einops==0.0.99"]);
            planned(plan)
        }
        (Wanted::Code, _) => program(USES_EINOPS),
        (Wanted::Repair, _) => serde_json::json!({ "program": USES_EINOPS, "packages": ["einops==0.8.0"] }),
        _ => good(asked, SEEDS),
    });
    let ran = research(&home, "openai:gpt-6.2-sol", &server, &[]).expect(0);
    assert_eq!(server.wrong(), [""; 0], "the vendor would have refused");
    let plans = server.asked(Wanted::Plan);
    assert_eq!(plans.len(), 2, "{ran:?}");
    assert!(plans[1].text.contains("packages[0]") && plans[1].text.contains("is no requirement"));
    let repairs = server.asked(Wanted::Repair);
    assert_eq!(repairs.len(), 1, "one repair is enough: {ran:?}");
    for told in ["dependency_conflict", "from versions:", "einops==0.0.99", "Choose another version"] {
        assert!(repairs[0].text.contains(told), "`{told}` is not told:\n{}", repairs[0].text);
    }
    let report = report(&ran);
    assert_eq!(text(&report["answer"], "verdict"), "Supported", "{:#}", report["answer"]);
    let amendments = list(&report, "amendments");
    let amended = amendments.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n");
    assert!(amended.contains("packages einops==0.8.0 instead of einops==0.0.99"), "{amended}");
    let experiment = &report["experiments"][0];
    assert_eq!(experiment["plan"]["packages"], serde_json::json!(["einops==0.0.99"]), "as registered");
    let notes = list(experiment, "notes").iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n");
    assert!(notes.contains("asked for einops==0.8.0; installed einops 0.8.0"), "{notes}");
}

#[test]
fn a_plan_that_breaks_its_schema_goes_back_with_the_field_at_fault() {
    let home = home();
    let server = Server::start(Vendor::OpenAi, |asked: &Asked, count| match (asked.wanted, count) {
        // The wrong shape, then a shape that is right and a plan that is not sound.
        (Wanted::Plan, 1) => {
            let mut plan = plan(SEEDS);
            plan["kind"] = "guesswork".into();
            planned(plan)
        }
        (Wanted::Plan, 2) => {
            let mut plan = plan(SEEDS);
            plan["contrasts"][0]["weights"][1]["weight"] = 3.0.into();
            planned(plan)
        }
        _ => good(asked, SEEDS),
    });
    let ran = research(&home, "openai:gpt-6.2-sol", &server, &[]).expect(0);
    let plans = server.asked(Wanted::Plan);
    assert_eq!(plans.len(), 3, "{ran:?}");
    assert!(plans[1].text.contains("plan.kind") && plans[1].text.contains("guesswork"), "{}", plans[1].text);
    assert!(plans[2].text.contains("contrasts[0].weights: must add up to 0"), "{}", plans[2].text);
    assert_eq!(text(&report(&ran)["answer"], "verdict"), "Supported");
}

#[test]
fn a_program_that_is_never_repaired_stops_after_the_bound_and_the_report_says_so() {
    let home = home();
    let server = Server::start(Vendor::Anthropic, |asked: &Asked, _| match asked.wanted {
        Wanted::Code | Wanted::Repair => program(FAULTS[1].program),
        _ => good(asked, SEEDS),
    });
    let ran = research(&home, "anthropic:claude-sonnet-5-5", &server, &["--max-iterations", "1"]);
    assert_eq!(ran.code, 1, "no run succeeded: {ran:?}");
    let repairs = server.asked(Wanted::Repair);
    assert_eq!(repairs.len(), 3, "the bound: {ran:?}");
    assert!(repairs[1].text.contains("same error"), "the same error came twice: {}", repairs[1].text);
    let report = report(&ran);
    let answer = &report["answer"];
    assert_eq!((text(answer, "verdict"), text(&report, "state")), ("No answer", "failed"), "{answer:#}");
    let said = text(answer, "text");
    assert!(said.contains("3 repairs") && said.contains("a_package_that_is_not_there"), "{said}");
    assert_eq!(list(&report, "revisions").len(), 4, "the first program and three repairs");
}

#[test]
fn a_number_that_nobody_computed_goes_back_and_is_not_printed() {
    let home = home();
    let server = Server::start(Vendor::Ollama, |asked: &Asked, _| match asked.wanted {
        Wanted::Interpretation => serde_json::json!({
            "text": "In e1 the shift helped. It would reach 0.987 with more training.",
            "threats": [],
        }),
        _ => good(asked, SEEDS),
    });
    let ran = research(&home, "ollama:m", &server, &[]).expect(0);
    let readings = server.asked(Wanted::Interpretation);
    assert_eq!(readings.len(), 2, "sent back once");
    assert!(readings[1].text.contains("0.987 matches no computed number"), "{}", readings[1].text);
    let report = report(&ran);
    let kept = text(&report["experiments"][0], "interpretation");
    assert!(kept.contains("the shift helped") && !kept.contains("0.987"), "{kept}");
    let path = ran.stdout.trim_end().lines().last().expect("a path");
    let page = fs::read_to_string(Path::new(path).with_extension("md")).expect("report.md");
    assert!(!page.contains("0.987"), "what does not match is not printed");
}

#[test]
fn programs_that_seed_by_themselves_are_sent_back_before_they_cost_anything() {
    let home = home();
    let server = Server::start(Vendor::Compatible, |asked: &Asked, _| match asked.wanted {
        Wanted::Code => program(&format!("{PROGRAM}\nimport random\nrandom.seed(0)\n")),
        _ => good(asked, SEEDS),
    });
    let ran = research(&home, "compatible:m", &server, &[]).expect(0);
    let repairs = server.asked(Wanted::Repair);
    assert_eq!(repairs.len(), 1);
    assert!(repairs[0].text.contains("random.seed"), "{}", repairs[0].text);
    let runs = report(&ran)["runs"].as_array().map_or(0, Vec::len);
    assert_eq!(runs, 2 + 6, "no run was made of the program that seeds by itself");
}
