//! The smallest campaign that passes through every phase: a scripted model registers an ablation of two variants at three
//! seeds, whose programs need Python alone, say a few lines, keep an artifact, and log a number that variant and seed
//! alone decide. So what the campaign must find is known here to the last digit, whatever befell it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    record::{self, Record, Run},
    site::{Command, Site},
};
use crate::{
    Ran,
    vendor::{Asked, Server, Vendor, Wanted, script},
    wait_for,
};

/// The fewest that give an interval.
pub const SEEDS: u32 = 3;
/// Smoke runs and runs of the one experiment.
pub const RUNS: usize = 2 + 2 * SEEDS as usize;
/// From the fault to the end, on a machine with other work.
pub const LONGEST: Duration = Duration::from_secs(240);
/// Until the model is asked.
const ASKED: Duration = Duration::from_secs(120);
/// A number is the same where it differs by no more than rounding.
const ROUNDING: f64 = 1e-9;

const PROGRAM: &str = r#"
import time
import autoresearch as ar
shift = bool(ar.params["shift"])
steps = 2 if ar.smoke else int(ar.params["steps"])
drawn = ar.seed("order") % 1000
print("begun", shift, drawn, flush=True)
for step in range(1, steps + 1):
    print("step", step, flush=True)
    ar.log(step=step, test_accuracy=0.6 + (0.1 if shift else 0.0) + drawn * 1e-5 - (steps - step) * 1e-3)
    time.sleep(0.03)
with open("weights", "wb") as file:
    for number in range(40000):
        file.write(b"%07d\n" % (number * 7 + drawn))
ar.save("weights")
print("done", flush=True)
"#;
/// Of a run that is no smoke run.
const STEPS: u64 = 10;
const SMOKE_STEPS: u64 = 2;

/// What a run of this seed draws: the seed of its stream `order`, which is the first 63 bits of a SHA-256.
fn drawn(seed: u64) -> u64 {
    let hex = kit::digest::Digest::of(format!("{seed}/order").as_bytes()).hex();
    (u64::from_str_radix(&hex[..16], 16).expect("hexadecimal") >> 1) % 1000
}

/// What a run of this variant and seed must log at its end.
#[must_use]
pub fn value(shift: bool, seed: u64) -> f64 {
    0.6 + if shift { 0.1 } else { 0.0 } + drawn(seed) as f64 * 1e-5
}

/// What it must print, each line once and in order.
fn printed(shift: bool, seed: u64, steps: u64) -> String {
    let steps: String = (1..=steps).map(|step| format!("step {step}\n")).collect();
    format!("begun {} {}\n{steps}done\n", if shift { "True" } else { "False" }, drawn(seed))
}

/// What it must keep.
fn weights(seed: u64) -> String {
    let drawn = drawn(seed);
    (0..40_000).map(|number| format!("{:07}\n", number * 7 + drawn)).collect()
}

#[derive(Debug, Default)]
struct Held {
    /// The call that gets no answer for now.
    wanted: Option<Wanted>,
    /// Whether it has come.
    asked: bool,
}

/// The model: scripted, and able to keep a caller waiting.
pub struct Model {
    server: Server,
    held: Arc<(Mutex<Held>, Condvar)>,
}

impl Model {
    /// Listens.
    ///
    /// # Panics
    /// Where there is no port.
    #[must_use]
    pub fn start(held: Option<Wanted>) -> Self {
        let held = Arc::new((Mutex::new(Held { wanted: held, asked: false }), Condvar::new()));
        let waits = Arc::clone(&held);
        let server = Server::start(Vendor::Compatible, move |asked: &Asked, _| {
            let (held, changed) = &*waits;
            let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.wanted == Some(asked.wanted) {
                held.asked = true;
                changed.notify_all();
                while held.wanted == Some(asked.wanted) {
                    held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
                }
            }
            drop(held);
            match asked.wanted {
                Wanted::Code | Wanted::Repair => script::program(PROGRAM),
                Wanted::Plan => {
                    let mut plan = script::plan(SEEDS);
                    plan["fixed_params"] = json!([{ "name": "width", "value": 8 }]);
                    plan["limits"] = json!({ "steps": STEPS, "time_seconds": 60, "memory_mib": 256 });
                    script::planned(plan)
                }
                Wanted::Interpretation | Wanted::Decision => script::good(asked, SEEDS),
            }
        });
        Self { server, held }
    }

    /// Waits until the call that is held has come.
    ///
    /// # Panics
    /// Where it does not.
    pub fn until_asked(&self, command: &mut Command) {
        wait_for("a model call in flight", ASKED, || {
            if let Err(why) = command.is_running() {
                panic!("{why}");
            }
            let held = self.held.0.lock().unwrap_or_else(PoisonError::into_inner);
            if held.asked { Ok(()) } else { Err(format!("{held:?}")) }
        });
    }

    /// Answers it.
    pub fn let_go(&self) {
        self.held.0.lock().unwrap_or_else(PoisonError::into_inner).wanted = None;
        self.held.1.notify_all();
    }

    /// How often it was asked for each kind of answer.
    #[must_use]
    pub fn asked(&self) -> [usize; 5] {
        [Wanted::Plan, Wanted::Code, Wanted::Repair, Wanted::Interpretation, Wanted::Decision]
            .map(|wanted| self.server.asked(wanted).len())
    }

    /// Starts the campaign.
    #[must_use]
    pub fn research(&self, site: &Site, backend: &str) -> Command {
        let url = self.server.url();
        let seeds = SEEDS.to_string();
        site.start(&[
            "run",
            script::QUESTION,
            "--llm",
            "compatible:any/model",
            "--llm-url",
            &url,
            "--image",
            "lite",
            "--seeds",
            &seeds,
            "--max-iterations",
            "1",
            "--backend",
            backend,
        ])
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // Its thread ends with the server, which a call that is held would keep.
        self.let_go();
    }
}

/// What a fault may have cost, and no more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Price {
    /// The controller was killed while the model was asked: one call may be made again.
    pub call_in_flight: bool,
    /// Runs may be `lost`, each with a successor.
    pub runs: bool,
    /// The machine's disk is gone: with it what the worker knew of released runs, and what a run kept that was not yet
    /// fetched. Its numbers were told before its end was, so the run counts.
    pub machine: bool,
}

/// What a campaign found: everything that is not an id, a time or a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Findings {
    told: Value,
}

/// Everything that must hold of a campaign that came to its end, whatever befell it; gives what it found.
///
/// # Panics
/// With everything that does not.
#[track_caller]
#[must_use]
pub fn check(site: &Site, model: &Model, ran: &Ran, price: Price) -> Findings {
    assert_eq!(ran.code, 0, "{ran:?}\nthe worker: {}", site.worker_log());
    let record = Record::read(&site.home.data_dir()).expect("a journal");
    let path = site.campaign_folder(&record.id).join("report.json");
    let report = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let report: Value = serde_json::from_str(&report).expect("report.json is JSON");
    let mut wrong = Vec::new();
    if record.state != "finished" || report["state"] != "finished" {
        wrong.push(format!("the campaign is {} and its report says {}", record.state, report["state"]));
    }
    every_run_once(&record, price, &mut wrong);
    every_byte_once(site, &record, &report, price, &mut wrong);
    the_worker_kept_nothing(site, &record, price, &mut wrong);
    every_reply_once(&record, &report, model, price, &mut wrong);
    the_numbers_are_right(&report, &mut wrong);
    if !wrong.is_empty() {
        let log = site.worker_log();
        panic!("{wrong:#?}\n{record:#?}\n{ran:?}\nthe worker: {log}");
    }
    Findings { told: findings(&report) }
}

/// Each variant and seed has one run that counts; every other one was lost and has a successor.
fn every_run_once(record: &Record, price: Price, wrong: &mut Vec<String>) {
    let mut counted: BTreeMap<(&str, &str, u64), usize> = BTreeMap::new();
    let followed: BTreeSet<&str> = record.runs.iter().filter_map(|run| run.predecessor.as_deref()).collect();
    for run in &record.runs {
        let which = (run.purpose.as_str(), run.variant.as_str(), run.seed);
        match run.outcome.as_deref() {
            Some("succeeded") => *counted.entry(which).or_default() += 1,
            Some("lost") if price.runs && followed.contains(run.id.as_str()) => {}
            other => wrong.push(format!("run {} of {which:?} is {other:?}", run.id)),
        }
        if run.state != "finished" {
            wrong.push(format!("run {} of {which:?} is still {}", run.id, run.state));
        }
        if run.outcome.as_deref() == Some("succeeded") && !run.released && !price.machine {
            wrong.push(format!("run {} of {which:?} was never released", run.id));
        }
    }
    if counted.len() != RUNS || counted.values().any(|times| *times != 1) {
        wrong.push(format!("{RUNS} runs that count are wanted, each once: {counted:?}"));
    }
}

/// What a run printed and kept is on the laptop, each byte once and in order: it began once.
fn every_byte_once(site: &Site, record: &Record, report: &Value, price: Price, wrong: &mut Vec<String>) {
    let shifts = shifts(report);
    for run in record.runs.iter().filter(|run| run.outcome.as_deref() == Some("succeeded")) {
        let folder = site.campaign_folder(&record.id).join("runs").join(&run.id);
        let Some(shift) = shifts.get(&run.variant) else {
            wrong.push(format!("the report has no variant {}", run.variant));
            continue;
        };
        let steps = if run.purpose == "smoke" { SMOKE_STEPS } else { STEPS };
        let stdout = fs::read_to_string(folder.join("stdout")).unwrap_or_default();
        if stdout != printed(*shift, run.seed, steps) || run.stdout_bytes != stdout.len() as u64 {
            wrong.push(format!(
                "run {} printed {stdout:?}, of which {} bytes count",
                run.id, run.stdout_bytes
            ));
        }
        let path = folder.join("artifacts/weights");
        if price.machine && !run.released && !path.exists() {
            continue;
        }
        let kept = fs::read_to_string(path).unwrap_or_default();
        if kept != weights(run.seed) {
            wrong.push(format!(
                "run {} kept an artifact of {} bytes that is not its own",
                run.id,
                kept.len()
            ));
        }
    }
}

/// Whether each variant has the shift.
fn shifts(report: &Value) -> BTreeMap<String, bool> {
    let experiments = report["experiments"].as_array().into_iter().flatten();
    let variants = experiments.flat_map(|e| e["variants"].as_array().into_iter().flatten());
    let named =
        variants.filter_map(|v| Some((v["id"].as_str()?.to_owned(), v["params"]["shift"].as_bool()?)));
    named.collect()
}

/// Every run that the worker had is forgotten, once, and with the outcome that the journal has.
fn the_worker_kept_nothing(site: &Site, record: &Record, price: Price, wrong: &mut Vec<String>) {
    let kept = record::kept(&site.far());
    let of_ours = |id: &String| record.runs.iter().any(|run| run.id == *id);
    for id in kept.iter().filter(|id| of_ours(id)) {
        wrong.push(format!("the worker still keeps run {id}"));
    }
    let stones = record::tombstones(&site.far());
    let succeeded = |run: &&Run| run.outcome.as_deref() == Some("succeeded");
    for run in record.runs.iter().filter(succeeded) {
        let of_run: Vec<&str> =
            stones.iter().filter(|(id, _)| *id == run.id).map(|(_, outcome)| outcome.as_str()).collect();
        let right = of_run == ["OUTCOME_KIND_SUCCEEDED"] || (price.machine && of_run.is_empty());
        if !right {
            wrong.push(format!("the worker's last word on run {} is {of_run:?}", run.id));
        }
    }
    for (id, outcome) in stones.iter().filter(|(id, _)| !of_ours(id)) {
        wrong.push(format!("the worker ran {id} ({outcome}), of which the journal knows nothing"));
    }
}

/// Nothing was asked twice but the call in flight, and that is shown.
fn every_reply_once(record: &Record, report: &Value, model: &Model, price: Price, wrong: &mut Vec<String>) {
    let asked = model.asked();
    let once = [1, 1, 0, 1];
    let more: usize = asked.iter().zip(once).map(|(times, once)| times.saturating_sub(once)).sum();
    let decided = asked[4];
    if asked.iter().zip(once).any(|(times, once)| *times < once) || decided > 1 {
        wrong.push(format!("the model was asked {asked:?} times"));
    }
    let unanswered = record.calls.iter().filter(|call| !call.replied).count();
    let most = usize::from(price.call_in_flight);
    if more > most || unanswered > most {
        wrong
            .push(format!("{more} calls were made again and {unanswered} have no reply: {:?}", record.calls));
    }
    let unknown = report["costs"]["unknown"].as_array().map_or(0, Vec::len);
    if unanswered > 0 && unknown == 0 {
        wrong.push(format!("a call was paid for twice and the report hides it: {}", report["costs"]));
    }
    let calls = report["costs"]["calls"].as_u64().unwrap_or(0);
    if calls != record.calls.len() as u64 {
        wrong.push(format!("the report counts {calls} calls of {}", record.calls.len()));
    }
}

/// Every number is the one that its variant and seed decide, and the estimate is their means' difference.
fn the_numbers_are_right(report: &Value, wrong: &mut Vec<String>) {
    let experiments = report["experiments"].as_array().cloned().unwrap_or_default();
    let [experiment] = experiments.as_slice() else {
        wrong.push(format!("one experiment is wanted, not {}", experiments.len()));
        return;
    };
    let mut means = BTreeMap::new();
    for variant in experiment["variants"].as_array().into_iter().flatten() {
        let shift = variant["params"]["shift"].as_bool().unwrap_or_default();
        let values = variant["values"].as_array().cloned().unwrap_or_default();
        let mut sum = 0.0;
        for told in &values {
            let seed = told["seed"].as_u64().unwrap_or_default();
            sum += value(shift, seed);
            if told["value"].as_f64().is_none_or(|v| (v - value(shift, seed)).abs() > ROUNDING) {
                wrong.push(format!("seed {seed} of {} is {told}", variant["id"]));
            }
        }
        let mean = sum / values.len().max(1) as f64;
        if values.len() != SEEDS as usize
            || variant["mean"].as_f64().is_none_or(|m| (m - mean).abs() > ROUNDING)
        {
            wrong.push(format!(
                "{} has {} values and the mean {}",
                variant["id"],
                values.len(),
                variant["mean"]
            ));
        }
        means.insert(shift, mean);
    }
    let effect = means.get(&true).unwrap_or(&0.0) - means.get(&false).unwrap_or(&0.0);
    let told = experiment["contrasts"][0]["estimate"].as_f64();
    if told.is_none_or(|estimate| (estimate - effect).abs() > ROUNDING) {
        wrong.push(format!("the effect is {effect}, not {told:?}"));
    }
}

/// All that two campaigns must agree on: seeds are each campaign's own, so numbers that rest on them are held against
/// [`value`] and not against another campaign's.
fn findings(report: &Value) -> Value {
    let experiment = |e: &Value| {
        let variants: Vec<Value> = e["variants"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|v| {
                json!([
                    v["id"],
                    v["label"],
                    v["params"],
                    v["control"],
                    v["planned"],
                    v["analysed"],
                    v["failed"],
                    v["failed_up_to"]
                ])
            })
            .collect();
        let contrasts: Vec<Value> = e["contrasts"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|c| json!([c["id"], c["claim"], c["level"], c["verdict"], c["rests_on_failed_runs"]]))
            .collect();
        json!({
            "id": e["id"], "title": e["title"], "plan": e["plan"], "method": e["method"], "looks": e["looks"],
            "variants": variants, "contrasts": contrasts, "interpretation": e["interpretation"],
        })
    };
    let all = |key: &str| report[key].as_array().cloned().unwrap_or_default();
    let verdicts: Vec<Value> =
        all("findings").iter().map(|f| json!([f["id"], f["experiment"], f["verdict"]])).collect();
    let revisions: Vec<Value> =
        all("revisions").iter().map(|r| json!([r["experiment"], r["number"], r["digest"]])).collect();
    json!({
        "verdict": report["answer"]["verdict"], "stopped_by": report["answer"]["stopped_by"],
        "interpretation": report["answer"]["interpretation"], "removed": report["answer"]["removed"],
        "experiments": all("experiments").iter().map(experiment).collect::<Vec<_>>(),
        "findings": verdicts, "revisions": revisions, "ledger": report["ledger"],
        "amendments": report["amendments"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_s_number_and_lines_are_known() {
        let drawn = drawn(7);
        assert!((value(true, 7) - value(false, 7) - 0.1).abs() < ROUNDING && drawn < 1000);
        assert_eq!(printed(false, 7, 1), format!("begun False {drawn}\nstep 1\ndone\n"));
        assert_eq!(weights(7).lines().nth(1), Some(format!("{:07}", 7 + drawn).as_str()));
    }
}
