//! Runs one program of the suite over the real binaries and compares what is told of it, and what is seen of it from outside,
//! with its header.

use std::{collections::BTreeSet, time::Duration};

use e2e::{
    Home,
    canary::Canaries,
    program::{Expectation, Program},
    wait_for,
    witness::{Seen, Witness},
};
use serde_json::Value;

use crate::checks;

/// Which way to make a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Docker,
    Native,
    /// Docker, by a plain user in the engine's group.
    Plain,
}

impl Backend {
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker | Self::Plain => "docker",
            Self::Native => "native",
        }
    }
}

/// What the programs of the suite get where their header does not say otherwise: little, so that a limit is near.
const FLAGS: [(&str, &str); 6] = [
    ("--time-limit", "60s"),
    ("--memory", "256MiB"),
    ("--disk", "64MiB"),
    ("--shm", "16MiB"),
    ("--cpus", "1"),
    ("--pids", "64"),
];
const SETTINGS: [(&str, &str); 5] = [
    // One slot over all CPUs: neighbours of other tests have the same ones.
    ("slots", "1"),
    ("limits.default.grace", "1s"),
    ("limits.default.stdout", "2MiB"),
    ("limits.default.stderr", "2MiB"),
    ("limits.default.metrics", "2MiB"),
];
/// The disk limit is kept to the block.
const BLOCK: u64 = 4096;
/// The kernel charges some of its own pages without asking; they are few.
const FORCED: u64 = 64 << 10;
/// The kernel goes on removing after the worker has said that all is gone.
const GONE: Duration = Duration::from_secs(20);
/// Printed by a program for whatever it should not have been able to do.
const REACHED: &str = "REACHED";

/// What was told and seen of one run.
pub struct Ended<'a> {
    pub home: &'a Home,
    pub code: i32,
    pub told: Value,
    pub seen: Seen,
    /// What differs from the expectation, so that all of it is told at once.
    wrong: Vec<String>,
}

pub fn program(name: &str, backend: Backend) {
    let program = Program::load(name).unwrap_or_else(|problem| panic!("{problem}"));
    let expectation = &program.expectation;
    let mut home = match backend {
        Backend::Docker => Home::new(),
        Backend::Native => Home::without_engine(),
        Backend::Plain => Home::of_a_plain_user(),
    };
    home.environment = environment(expectation);
    let canaries = Canaries::shared();
    let witness = Witness::of(&home.data_dir());
    let ran = home.run(&arguments(&program, backend, &home, &canaries));
    let seen = witness.seen();
    assert_eq!(ran.stdout.trim_end().lines().count(), 1, "one object is wanted: {ran:?}");
    let mut ended = Ended { home: &home, code: ran.code, told: ran.json(), seen, wrong: Vec::new() };
    ended.compare(expectation);
    ended.look_outside(&program, &canaries);
    for check in &expectation.checks {
        checks::run(*check, &mut ended);
    }
    let wrong = ended.wrong;
    assert!(wrong.is_empty(), "{name} ({}):\n- {}\n{:#}", expectation.about, wrong.join("\n- "), ended.told);
}

fn environment(expectation: &Expectation) -> Vec<(String, String)> {
    let mut environment = vec![
        ("ANTHROPIC_API_KEY".to_owned(), "hidden-from-the-sandbox".to_owned()),
        ("MY_SECRET".to_owned(), "hidden-from-the-sandbox".to_owned()),
    ];
    let own = expectation.worker.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in SETTINGS.into_iter().chain(own) {
        let name = key.to_uppercase().replace('.', "__");
        environment.push((format!("AUTORESEARCH_WORKER_{name}"), value.to_owned()));
    }
    environment
}

fn arguments(program: &Program, backend: Backend, home: &Home, canaries: &Canaries) -> Vec<String> {
    let mut params = canaries.told();
    params["data_dir"] = home.data_dir().display().to_string().into();
    let mut arguments: Vec<String> = ["exec"].map(str::to_owned).to_vec();
    // The sources may lie where only their owner may look.
    let source = std::fs::read_to_string(&program.path).expect("a program of the suite");
    arguments.push(home.file("program.py", &source).display().to_string());
    let mut add = |flag: &str, value: &str| arguments.extend([flag.to_owned(), value.to_owned()]);
    add("--image", "lite");
    add("--backend", backend.name());
    add("--output", "json");
    add("--params", &params.to_string());
    let own: BTreeSet<&str> = program.expectation.flags.iter().map(String::as_str).collect();
    for (flag, value) in FLAGS {
        if !own.contains(flag) {
            add(flag, value);
        }
    }
    arguments.extend(program.expectation.flags.iter().cloned());
    arguments
}

impl Ended<'_> {
    pub fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    pub fn text(&self, key: &str) -> String {
        self.told[key].as_str().unwrap_or_default().to_owned()
    }

    fn list(&self, key: &str) -> Vec<Value> {
        self.told[key].as_array().cloned().unwrap_or_default()
    }

    pub fn artifact(&self, name: &str) -> Option<std::path::PathBuf> {
        let found = self.list("artifacts").into_iter().find(|artifact| artifact["name"] == name)?;
        found["path"].as_str().map(Into::into)
    }

    pub fn usage(&self, key: &str) -> u64 {
        self.told["usage"][key].as_u64().unwrap_or_default()
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, wanted: T, got: T) {
        if wanted != got {
            self.wrong(format!("{what}: {wanted:?} is wanted, not {got:?}"));
        }
    }

    fn holds(&mut self, key: &str, wanted: &[String]) {
        let text = self.text(key);
        for part in wanted.iter().filter(|part| !text.contains(part.as_str())) {
            self.wrong(format!("{key} lacks {part:?}"));
        }
    }

    /// What `exec` told against the header.
    fn compare(&mut self, wanted: &Expectation) {
        let starved = wanted.may_starve && self.text("outcome") == "timed_out";
        if starved && self.told["notes"].to_string().contains("memory reached its limit") {
            return;
        }
        let code = i32::from(wanted.outcome != e2e::program::Outcome::Succeeded);
        self.equal("outcome", wanted.outcome.word().to_owned(), self.text("outcome"));
        self.equal("exit code of exec", code, self.code);
        self.equal("limit", wanted.limit.clone().unwrap_or_default(), self.text("limit"));
        for (key, value) in [("exit_code", wanted.exit), ("signal", wanted.signal)] {
            if value.is_some() {
                self.equal(key, value, self.told[key].as_i64());
            }
        }
        if let Some(class) = &wanted.exception {
            let got = self.told["exception"]["class"].as_str().unwrap_or_default().to_owned();
            self.equal("exception", class.clone(), got);
        }
        self.holds("message", &wanted.message);
        self.holds("stdout", &wanted.stdout);
        self.holds("stderr", &wanted.stderr);
        let stdout = self.text("stdout");
        for part in wanted.stdout_not.iter().filter(|part| stdout.contains(part.as_str())) {
            self.wrong(format!("stdout holds {part:?}"));
        }
        for line in stdout.lines().filter(|line| line.starts_with(REACHED)) {
            self.wrong(line);
        }
        let notes = self.list("notes");
        self.equal("whether there are notes", !wanted.notes.is_empty(), !notes.is_empty());
        let notes = Value::from(notes).to_string();
        for part in wanted.notes.iter().filter(|part| !notes.contains(part.as_str())) {
            self.wrong(format!("no note holds {part:?}"));
        }
        if let Some(bytes) = wanted.stdout_bytes {
            self.equal("bytes of stdout", bytes, self.usage("stdout_bytes"));
        }
        if let Some(points) = wanted.points_kept {
            let kept = self.usage("metric_points");
            if kept > points {
                self.wrong(format!("{kept} points are kept"));
            }
        }
        if let Some(metrics) = &wanted.metrics {
            let wanted = serde_json::json!(metrics);
            self.equal("metrics", wanted, self.told["metrics"].clone());
        }
        if let Some(seconds) = wanted.seconds {
            let wall = self.usage("wall_ms");
            if wall > seconds * 1000 {
                self.wrong(format!("it took {wall} ms"));
            }
        }
        self.compare_artifacts(wanted);
    }

    fn compare_artifacts(&mut self, wanted: &Expectation) {
        let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
        let kept: Vec<String> = self.list("artifacts").iter().map(name).collect();
        let left_out = self.list("left_out");
        if let Some(wanted) = &wanted.kept {
            self.equal("artifacts", wanted.clone(), kept.clone());
        }
        if let Some(count) = wanted.kept_count {
            self.equal("count of artifacts", count, kept.len() as u64);
        }
        for (wanted, reason) in &wanted.left_out {
            let fits = |l: &Value| {
                name(l) == *wanted && l["reason"].as_str().is_some_and(|r| r.contains(reason.as_str()))
            };
            if !left_out.iter().any(fits) {
                self.wrong(format!("{wanted:?} is not left out for {reason:?}"));
            }
        }
        for wanted in &wanted.accounted {
            if !kept.iter().any(|k| k.starts_with(wanted))
                && !left_out.iter().any(|l| name(l).starts_with(wanted))
            {
                self.wrong(format!("{wanted:?} is neither kept nor left out"));
            }
        }
        for path in self.list("artifacts").iter().filter_map(|a| a["path"].as_str()) {
            let file = std::fs::symlink_metadata(path);
            if !file.is_ok_and(|meta| {
                meta.is_file() && path.starts_with(&self.home.data_dir().display().to_string())
            }) {
                self.wrong.push(format!("{path} is no file of this home"));
            }
        }
    }

    /// What no program may have done, whatever its kind.
    fn look_outside(&mut self, program: &Program, canaries: &Canaries) {
        let flag = |name: &str| {
            let own = program.expectation.flags.iter().position(|flag| flag == name);
            let given = own.and_then(|at| program.expectation.flags.get(at + 1)).map(String::as_str);
            let text =
                given.or_else(|| FLAGS.iter().find(|(flag, _)| *flag == name).map(|(_, value)| *value));
            text.and_then(|text| text.parse::<kit::size::Bytes>().ok()).map_or(u64::MAX, |bytes| bytes.0)
        };
        if self.told["usage"]["complete"] != true {
            self.wrong("the last reading of its use was not taken");
        }
        let (memory, disk) = (self.usage("memory_peak_bytes"), self.usage("disk_peak_bytes"));
        if memory > flag("--memory").saturating_add(FORCED) {
            self.wrong(format!("its memory peaked at {memory} bytes"));
        }
        if disk > flag("--disk") + BLOCK {
            self.wrong(format!("it had {disk} bytes of disk"));
        }
        // Only root may look into the namespaces of another's processes.
        if self.seen.processes.is_empty() && nix::unistd::geteuid().is_root() {
            self.wrong("no process of it was seen from outside: then nothing was proved");
        }
        let left = wait_for_nothing(&self.seen);
        self.wrong.extend(left);
        self.wrong.extend(canaries.touched());
        if self.told.to_string().contains(canaries.secret()) {
            self.wrong("it read the canary's file");
        }
        if let Some(kept) = program.expectation.stdout_kept {
            let run = self.text("run_id");
            let logs = self.home.run(&["logs", &run, "--stream", "stdout"]).expect(0);
            if logs.stdout.len() as u64 > kept {
                self.wrong(format!("{} bytes of stdout are kept", logs.stdout.len()));
            }
        }
    }
}

/// What of the processes and cgroups that were seen stays; containers, mounts, loop devices and files are looked for when the
/// home is dropped.
fn wait_for_nothing(seen: &Seen) -> Vec<String> {
    wait_for("the kernel's removing", GONE, || {
        let left = seen.left();
        if left.is_empty() { Ok(Vec::new()) } else { Err(left.join("; ")) }
    })
}
