//! A request turned into a checked specification: every name, size and number that came from outside is looked at
//! here, once, and the rest of the room trusts the result.

use std::collections::BTreeSet;

use kit::{
    digest::Digest,
    requirement::{REQUIREMENTS_MAX, check_requirement},
};
use proto::v1::{DivergenceRule, InputRole, Label, Limits, RunSpec};
use serde::{Deserialize, Serialize};

/// `params_json` at most.
const PARAMS_BYTES_MAX: usize = 64 << 10;
/// Input files, labels' values, names in a list.
const FILES_MAX: usize = 64;
const LABELS_MAX: usize = 64;
const LABEL_VALUE_BYTES_MAX: usize = 256;
const NAMES_MAX: usize = 64;

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Like `spec.limits.time_ms`.
    pub field: String,
    /// What it is and what it may be.
    pub problem: String,
}

/// The fields at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(|v| format!("{}: {}", v.field, v.problem)).collect::<Vec<_>>().join("; "))]
pub struct SpecError(pub Vec<Violation>);

/// The limits of one run, all set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunLimits {
    /// Wall clock from the start gate.
    pub time_ms: u64,
    /// From SIGTERM to SIGKILL.
    pub grace_ms: u64,
    /// No swap beyond it.
    pub memory_bytes: u64,
    /// Thousandths of a CPU.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub pids: u32,
    /// Of the volume.
    pub disk_bytes: u64,
    /// /dev/shm.
    pub shm_bytes: u64,
    /// Stored of each stream: stdout, stderr, metrics.
    pub log_bytes: [u64; 3],
    /// Stored of all metrics.
    pub metric_points: u64,
    /// Copied out, in all.
    pub artifact_bytes: u64,
    /// Copied out.
    pub artifact_files: u32,
    /// No output, no metric, idle devices.
    pub stall_ms: u64,
}

impl RunLimits {
    /// Whatever a run was once given is below it.
    #[must_use]
    pub fn unbounded() -> Self {
        Self {
            time_ms: u64::MAX,
            grace_ms: u64::MAX,
            memory_bytes: u64::MAX,
            cpu_millis: u32::MAX,
            pids: u32::MAX,
            disk_bytes: u64::MAX,
            shm_bytes: u64::MAX,
            log_bytes: [u64::MAX; 3],
            metric_points: u64::MAX,
            artifact_bytes: u64::MAX,
            artifact_files: u32::MAX,
            stall_ms: u64::MAX,
        }
    }

    /// As the protocol says it.
    #[must_use]
    pub fn wire(&self) -> Limits {
        Limits {
            time_ms: self.time_ms,
            grace_ms: self.grace_ms,
            memory_bytes: self.memory_bytes,
            cpu_millis: self.cpu_millis,
            pids: self.pids,
            disk_bytes: self.disk_bytes,
            shm_bytes: self.shm_bytes,
            stdout_bytes: self.log_bytes[0],
            stderr_bytes: self.log_bytes[1],
            metrics_bytes: self.log_bytes[2],
            metric_points: self.metric_points,
            artifact_bytes: self.artifact_bytes,
            artifact_files: self.artifact_files,
            stall_ms: self.stall_ms,
        }
    }

    /// What a run may come to fill on the worker's disk until it is finished: its volume with the logs in it, the
    /// segments (the logs again, points at about 40 bytes, usage samples), and the artifacts.
    #[must_use]
    pub fn disk_reservation(&self) -> u64 {
        let logs: u64 = self.log_bytes.iter().map(|bytes| bytes.saturating_add(128 << 10)).sum();
        let samples = (self.time_ms / 1000).saturating_mul(128);
        [
            self.disk_bytes,
            logs.saturating_mul(2),
            self.metric_points.saturating_mul(40),
            self.artifact_bytes,
            samples,
            8 << 20,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

/// The worker's defaults and largest limits. Memory and CPUs that are 0 in `default` are the slot's share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitRules {
    /// For what a spec leaves unset.
    pub default: RunLimits,
    /// What a spec may ask for.
    pub largest: RunLimits,
}

impl LimitRules {
    /// The limits of a run on a slot.
    #[must_use]
    pub fn resolve(&self, asked: &Limits, slot_memory: u64, slot_cpu_millis: u32) -> RunLimits {
        fn pick<T: Default + PartialEq>(asked: T, default: T) -> T {
            if asked == T::default() { default } else { asked }
        }
        let d = &self.default;
        let memory_bytes = pick(asked.memory_bytes, pick(d.memory_bytes, slot_memory));
        RunLimits {
            time_ms: pick(asked.time_ms, d.time_ms),
            grace_ms: pick(asked.grace_ms, d.grace_ms),
            memory_bytes,
            cpu_millis: pick(asked.cpu_millis, pick(d.cpu_millis, slot_cpu_millis)),
            pids: pick(asked.pids, d.pids),
            disk_bytes: pick(asked.disk_bytes, d.disk_bytes),
            shm_bytes: pick(asked.shm_bytes, pick(d.shm_bytes, (memory_bytes / 4).max(1 << 20))),
            log_bytes: [
                pick(asked.stdout_bytes, d.log_bytes[0]),
                pick(asked.stderr_bytes, d.log_bytes[1]),
                pick(asked.metrics_bytes, d.log_bytes[2]),
            ],
            metric_points: pick(asked.metric_points, d.metric_points),
            artifact_bytes: pick(asked.artifact_bytes, d.artifact_bytes),
            artifact_files: pick(asked.artifact_files, d.artifact_files),
            stall_ms: pick(asked.stall_ms, d.stall_ms),
        }
    }
}

/// One file for `in/files/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Relative, checked.
    pub path: String,
    /// Of its blob.
    pub digest: Digest,
    /// Whether it is the program.
    pub program: bool,
}

/// A specification that was checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CheckedSpec {
    /// A name; whether it is on the allow-list is for the images to say.
    pub image: String,
    /// Empty: the worker's choice.
    pub backend: String,
    /// Exactly one of them is the program.
    pub inputs: Vec<Input>,
    /// A JSON object.
    pub params: serde_json::Value,
    /// Of all four streams, but for those in `stream_seeds`.
    pub seed: u64,
    /// By the stream's name.
    pub stream_seeds: Vec<(String, u64)>,
    /// As asked for, each in bounds; 0 is unset.
    pub limits: Limits,
    /// How many.
    pub gpus: u32,
    /// Names.
    pub required_metrics: Vec<String>,
    /// The rule, where it says anything.
    pub divergence: Option<DivergenceRule>,
    /// Names, or `*`.
    pub stdout_metrics: Vec<String>,
    /// Names.
    pub data_sets: Vec<String>,
    /// Names with versions, to be installed first.
    pub packages: Vec<String>,
    /// Sorted as they came.
    pub labels: Vec<Label>,
    /// A tiny trial.
    pub smoke: bool,
}

/// The streams of randomness that a seed feeds.
const STREAMS: [&str; 4] = ["init", "order", "dropout", "split"];

struct Check(Vec<Violation>);

impl Check {
    fn wrong(&mut self, field: impl Into<String>, problem: impl ToString) {
        self.0.push(Violation { field: field.into(), problem: problem.to_string() });
    }
    fn that(&mut self, good: bool, field: impl Into<String>, problem: impl ToString) {
        if !good {
            self.wrong(field, problem);
        }
    }
    fn names(&mut self, field: &str, names: &[String], metric: bool, star: bool) {
        self.that(names.len() <= NAMES_MAX, field, format!("at most {NAMES_MAX} names"));
        for (index, name) in names.iter().enumerate().take(NAMES_MAX) {
            let result = match (metric, star && name == "*") {
                (_, true) => Ok(()),
                (true, _) => kit::name::check_metric(name),
                (false, _) => kit::name::check_name(name),
            };
            if let Err(error) = result {
                self.wrong(format!("{field}[{index}]"), error);
            }
        }
    }
}

/// Checks a decoded spec against the worker's rules.
///
/// # Errors
/// Every field at fault.
pub fn check(spec: RunSpec, rules: &LimitRules) -> Result<CheckedSpec, SpecError> {
    let mut check = Check(Vec::new());
    if let Err(error) = kit::name::check_name(&spec.image) {
        check.wrong("spec.image", error);
    }
    check.that(
        matches!(spec.backend.as_str(), "" | "docker" | "native"),
        "spec.backend",
        "must be `docker`, `native` or empty",
    );
    let inputs = inputs(&spec, &mut check);
    let params = params(&spec.params_json, &mut check);
    let mut stream_seeds = Vec::new();
    for (index, stream) in spec.stream_seeds.iter().enumerate() {
        let known = STREAMS.contains(&stream.stream.as_str());
        let twice = stream_seeds.iter().any(|(name, _)| *name == stream.stream);
        check.that(
            known && !twice,
            format!("spec.stream_seeds[{index}].stream"),
            "must be init, order, dropout or split, each once",
        );
        if known && !twice {
            stream_seeds.push((stream.stream.clone(), stream.seed));
        }
    }
    let limits = spec.limits.unwrap_or_default();
    check_limits(&limits, &rules.largest.wire(), &mut check);
    check.names("spec.required_metrics", &spec.required_metrics, true, false);
    check.names("spec.stdout_metrics", &spec.stdout_metrics, true, true);
    check.names("spec.data_sets", &spec.data_sets, false, false);
    let divergence = spec.divergence.filter(|rule| rule.non_finite || rule.worse_than_trivial_values > 0);
    if let Some(rule) = &divergence {
        check.names("spec.divergence.metrics", &rule.metrics, true, false);
        let factor = rule.worse_than_trivial_factor;
        let needed = rule.worse_than_trivial_values > 0;
        check.that(
            !needed || (factor.is_finite() && factor > 0.0),
            "spec.divergence.worse_than_trivial_factor",
            format!("is {factor}; it must be finite and over 0"),
        );
        check.that(
            !needed || rule.trivial.is_finite(),
            "spec.divergence.trivial",
            format!("is {}; it must be finite", rule.trivial),
        );
    }
    check_packages(&spec.packages, &mut check);
    check_labels("spec.labels", &spec.labels, &mut check);
    if !check.0.is_empty() {
        return Err(SpecError(check.0));
    }
    Ok(CheckedSpec {
        image: spec.image,
        backend: spec.backend,
        inputs,
        params,
        seed: spec.seed,
        stream_seeds,
        limits,
        gpus: spec.gpus,
        required_metrics: spec.required_metrics,
        divergence,
        stdout_metrics: spec.stdout_metrics,
        data_sets: spec.data_sets,
        packages: spec.packages,
        labels: spec.labels,
        smoke: spec.smoke,
    })
}

fn check_packages(packages: &[String], check: &mut Check) {
    check.that(
        packages.len() <= REQUIREMENTS_MAX,
        "spec.packages",
        format!("at most {REQUIREMENTS_MAX} packages"),
    );
    for (index, text) in packages.iter().enumerate().take(REQUIREMENTS_MAX) {
        if let Err(error) = check_requirement(text) {
            check.wrong(format!("spec.packages[{index}]"), error);
        }
    }
}

/// Checks labels of a spec or of a filter.
///
/// # Errors
/// Every label at fault.
pub fn check_label_filter(field: &str, labels: &[Label]) -> Result<(), SpecError> {
    let mut check = Check(Vec::new());
    check_labels(field, labels, &mut check);
    if check.0.is_empty() { Ok(()) } else { Err(SpecError(check.0)) }
}

fn check_labels(field: &str, labels: &[Label], check: &mut Check) {
    check.that(labels.len() <= LABELS_MAX, field, format!("at most {LABELS_MAX} labels"));
    let mut keys = BTreeSet::new();
    for (index, label) in labels.iter().enumerate().take(LABELS_MAX) {
        if let Err(error) = kit::name::check_name(&label.key) {
            check.wrong(format!("{field}[{index}].key"), error);
        }
        check.that(keys.insert(&label.key), format!("{field}[{index}].key"), "comes twice");
        check.that(
            label.value.len() <= LABEL_VALUE_BYTES_MAX,
            format!("{field}[{index}].value"),
            format!("at most {LABEL_VALUE_BYTES_MAX} bytes"),
        );
    }
}

fn inputs(spec: &RunSpec, check: &mut Check) -> Vec<Input> {
    let mut inputs: Vec<Input> = Vec::new();
    let mut programs = 0;
    check.that(spec.files.len() <= FILES_MAX, "spec.files", format!("at most {FILES_MAX} files"));
    for (index, file) in spec.files.iter().enumerate().take(FILES_MAX) {
        let field = |name: &str| format!("spec.files[{index}].{name}");
        check.that(
            is_input_path(&file.path),
            field("path"),
            "must be at most 4 parts of A-Z a-z 0-9 . _ -, each beginning with a letter or digit",
        );
        // A file cannot be the folder of another one.
        let clash = |other: &Input| {
            let (a, b) = (format!("{}/", other.path), format!("{}/", file.path));
            a.starts_with(&b) || b.starts_with(&a)
        };
        check.that(
            !inputs.iter().any(clash),
            field("path"),
            "comes twice, or lies below another file of the same run",
        );
        let program = match file.role() {
            InputRole::Program => true,
            InputRole::Data => false,
            InputRole::Unspecified => {
                check.wrong(field("role"), "must be PROGRAM or DATA");
                false
            }
        };
        programs += u32::from(program);
        match file.digest.parse() {
            Ok(digest) => inputs.push(Input { path: file.path.clone(), digest, program }),
            Err(error) => check.wrong(field("digest"), error),
        }
    }
    check.that(
        programs == 1,
        "spec.files",
        format!("exactly one file must have the role PROGRAM, and {programs} have"),
    );
    inputs
}

fn is_input_path(path: &str) -> bool {
    let part_ok = |part: &str| {
        (1..=63).contains(&part.len())
            && part.as_bytes()[0].is_ascii_alphanumeric()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let parts: Vec<&str> = path.split('/').collect();
    parts.len() <= 4 && parts.into_iter().all(part_ok)
}

fn params(text: &str, check: &mut Check) -> serde_json::Value {
    let field = "spec.params_json";
    let empty = || serde_json::Value::Object(serde_json::Map::new());
    if text.is_empty() {
        return empty();
    }
    if text.len() > PARAMS_BYTES_MAX {
        check.wrong(field, format!("is {} bytes; at most {PARAMS_BYTES_MAX}", text.len()));
        return empty();
    }
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) if value.is_object() => value,
        Ok(_) => {
            check.wrong(field, "must be a JSON object");
            empty()
        }
        Err(error) => {
            check.wrong(field, format!("is no JSON: {error}"));
            empty()
        }
    }
}

fn check_limits(asked: &Limits, largest: &Limits, check: &mut Check) {
    let mut at_most = |name: &str, asked: u64, largest: u64| {
        check.that(
            asked <= largest,
            format!("spec.limits.{name}"),
            format!("is {asked}; this worker's largest is {largest}"),
        );
    };
    at_most("time_ms", asked.time_ms, largest.time_ms);
    at_most("grace_ms", asked.grace_ms, largest.grace_ms);
    at_most("memory_bytes", asked.memory_bytes, largest.memory_bytes);
    at_most("cpu_millis", asked.cpu_millis.into(), largest.cpu_millis.into());
    at_most("pids", asked.pids.into(), largest.pids.into());
    at_most("disk_bytes", asked.disk_bytes, largest.disk_bytes);
    at_most("shm_bytes", asked.shm_bytes, largest.shm_bytes);
    at_most("stdout_bytes", asked.stdout_bytes, largest.stdout_bytes);
    at_most("stderr_bytes", asked.stderr_bytes, largest.stderr_bytes);
    at_most("metrics_bytes", asked.metrics_bytes, largest.metrics_bytes);
    at_most("metric_points", asked.metric_points, largest.metric_points);
    at_most("artifact_bytes", asked.artifact_bytes, largest.artifact_bytes);
    at_most("artifact_files", asked.artifact_files.into(), largest.artifact_files.into());
    at_most("stall_ms", asked.stall_ms, largest.stall_ms);
    // Below these no sandbox can be made at all.
    let mut at_least = |name: &str, asked: u64, least: u64| {
        check.that(
            asked == 0 || asked >= least,
            format!("spec.limits.{name}"),
            format!("is {asked}; at least {least}"),
        );
    };
    at_least("time_ms", asked.time_ms, 100);
    at_least("memory_bytes", asked.memory_bytes, 32 << 20);
    at_least("cpu_millis", asked.cpu_millis.into(), 10);
    at_least("pids", asked.pids.into(), 8);
    at_least("disk_bytes", asked.disk_bytes, 32 << 20);
    at_least("shm_bytes", asked.shm_bytes, 1 << 20);
}

#[cfg(test)]
mod tests {
    use proto::v1::{InputFile, StreamSeed};

    use super::*;

    fn rules() -> LimitRules {
        crate::config::WorkerConfig::default().limit_rules(8 << 30, 4000)
    }

    fn program() -> InputFile {
        InputFile {
            path: "main.py".into(),
            digest: Digest::of(b"x").to_string(),
            size_bytes: 1,
            role: InputRole::Program.into(),
        }
    }

    fn good() -> RunSpec {
        RunSpec { image: "lite".into(), files: vec![program()], ..RunSpec::default() }
    }

    #[test]
    fn a_small_spec_is_enough() {
        let checked = check(good(), &rules()).unwrap();
        assert!(checked.params.as_object().unwrap().is_empty());
        let limits = rules().resolve(&checked.limits, 4 << 30, 2000);
        assert_eq!((limits.memory_bytes, limits.cpu_millis, limits.shm_bytes), (4 << 30, 2000, 1 << 30));
        assert_eq!((limits.time_ms, limits.grace_ms, limits.pids), (600_000, 5000, 1024));
        assert!(limits.disk_reservation() > limits.disk_bytes + limits.artifact_bytes);
    }

    #[test]
    fn each_wrong_field_is_named() {
        type Change = (&'static str, Box<dyn Fn(&mut RunSpec)>);
        let change: Vec<Change> = vec![
            ("spec.image", Box::new(|s| s.image = "../x".into())),
            ("spec.backend", Box::new(|s| s.backend = "podman".into())),
            ("spec.files", Box::new(|s| s.files.clear())),
            ("spec.files[0].path", Box::new(|s| s.files[0].path = "../main.py".into())),
            ("spec.files[0].path", Box::new(|s| s.files[0].path = "a/b/c/d/e".into())),
            ("spec.files[0].digest", Box::new(|s| s.files[0].digest = "sha256:x".into())),
            (
                "spec.files[1].path",
                Box::new(|s| {
                    s.files.push(InputFile {
                        path: "main.py/a".into(),
                        role: InputRole::Data.into(),
                        ..program()
                    });
                }),
            ),
            ("spec.params_json", Box::new(|s| s.params_json = "[1]".into())),
            ("spec.params_json", Box::new(|s| s.params_json = "{\"lr\":NaN}".into())),
            (
                "spec.stream_seeds[0].stream",
                Box::new(|s| s.stream_seeds.push(StreamSeed { stream: "luck".into(), seed: 1 })),
            ),
            (
                "spec.limits.time_ms",
                Box::new(|s| s.limits = Some(Limits { time_ms: u64::MAX, ..Limits::default() })),
            ),
            (
                "spec.limits.memory_bytes",
                Box::new(|s| s.limits = Some(Limits { memory_bytes: 5, ..Limits::default() })),
            ),
            ("spec.required_metrics[0]", Box::new(|s| s.required_metrics.push("a b".into()))),
            ("spec.required_metrics[0]", Box::new(|s| s.required_metrics.push("*".into()))),
            ("spec.packages[0]", Box::new(|s| s.packages.push("../einops".into()))),
            ("spec.packages[1]", Box::new(|s| s.packages = vec!["einops".into(), "-r x".into()])),
            ("spec.packages", Box::new(|s| s.packages = vec!["einops".into(); 33])),
            (
                "spec.labels[0].key",
                Box::new(|s| s.labels.push(Label { key: "A".into(), value: String::new() })),
            ),
            (
                "spec.labels[0].value",
                Box::new(|s| s.labels.push(Label { key: "a".into(), value: "x".repeat(257) })),
            ),
            (
                "spec.divergence.trivial",
                Box::new(|s| {
                    s.divergence = Some(DivergenceRule {
                        worse_than_trivial_values: 1,
                        worse_than_trivial_factor: 1.0,
                        trivial: f64::NAN,
                        ..DivergenceRule::default()
                    });
                }),
            ),
        ];
        for (field, change) in change {
            let mut spec = good();
            change(&mut spec);
            let error = check(spec, &rules()).unwrap_err();
            assert!(error.0.iter().any(|v| v.field == field), "{field}: {error}");
        }
    }
}
