//! From a plan, a variant and a seed to the bytes that a worker is sent. The same inputs give the same bytes.

use kit::digest::Digest;
use proto::v1;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{
    plan::{Plan, Stream, Variant},
    record::Purpose,
};

/// A smoke run is tiny: it needs its imports, its data and a few steps.
pub const SMOKE_SECONDS: u32 = 240;
/// From SIGTERM to SIGKILL, as the worker has it by default.
pub const GRACE_MS: u64 = 5_000;
/// What the end of a run takes beyond limit and grace (DESIGN §9).
pub const END_MS: u64 = 500;
/// The program's name in `in/`.
const PROGRAM: &str = "program.py";

/// A file that is on the workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
}

/// What all runs of a revision have in common.
#[derive(Debug, Clone)]
pub struct Common<'a> {
    /// As registered.
    pub plan: &'a Plan,
    /// By name.
    pub image: &'a str,
    /// "docker", "native" or empty.
    pub backend: &'a str,
    /// The revision's program.
    pub program: &'a Blob,
    /// The revision's packages.
    pub packages: &'a [String],
    /// The data set, where it travels with the run; else the worker has it.
    pub data: Option<&'a Blob>,
    /// GPUs of a run.
    pub gpus: u32,
    /// Seconds that the time limit was raised to.
    pub time_seconds: u32,
    /// Of the campaign.
    pub campaign: &'a str,
    /// "e1".
    pub experiment: &'a str,
    /// What streams that a seed does not vary are seeded with.
    pub fixed_seed: u64,
}

/// `ar.params`: what the plan says, with the horizon and the data set's name where the plan has no such parameter.
#[must_use]
pub fn params(plan: &Plan, variant: &Variant) -> Value {
    let mut params = variant.params.clone();
    params.entry("steps").or_insert_with(|| Value::from(plan.limits.steps));
    params.entry("data_set").or_insert_with(|| Value::from(plan.data_set.as_str()));
    Value::Object(params)
}

/// The metrics that must come, finite, once each.
#[must_use]
pub fn required_metrics(plan: &Plan) -> Vec<String> {
    let mut names = vec![plan.metric.name.clone()];
    if let super::super::plan::Reduce::AtBestValidation { validation_metric, .. } = &plan.reduce {
        names.push(validation_metric.clone());
    }
    names.extend(plan.secondary.iter().map(|s| s.metric.clone()));
    names.sort();
    names.dedup();
    names
}

/// The rule that stops a run as diverged: on the plan's own series only.
fn divergence(plan: &Plan) -> v1::DivergenceRule {
    let rule = &plan.diverged_when;
    let metrics = if rule.metrics.is_empty() { vec![plan.metric.name.clone()] } else { rule.metrics.clone() };
    let worse = rule.worse_than_trivial.as_ref();
    v1::DivergenceRule {
        metrics,
        non_finite: rule.non_finite,
        worse_than_trivial_factor: worse.map_or(0.0, |w| w.factor),
        worse_than_trivial_values: worse.map_or(0, |w| w.values),
        trivial: plan.metric.trivial,
        higher_is_better: plan.metric.better == super::super::plan::Better::Higher,
    }
}

fn word(stream: Stream) -> &'static str {
    match stream {
        Stream::Init => "init",
        Stream::Order => "order",
        Stream::Dropout => "dropout",
        Stream::Split => "split",
    }
}

/// The spec of one run.
#[must_use]
pub fn spec(common: &Common<'_>, variant: &Variant, seed: u64, purpose: Purpose) -> v1::RunSpec {
    let plan = common.plan;
    let input = |path: &str, blob: &Blob, role: v1::InputRole| v1::InputFile {
        path: path.to_owned(),
        digest: blob.digest.to_string(),
        size_bytes: blob.bytes,
        role: role.into(),
    };
    let mut files = vec![input(PROGRAM, common.program, v1::InputRole::Program)];
    files.extend(common.data.map(|blob| input(&plan.data_set, blob, v1::InputRole::Data)));
    let fixed = [Stream::Init, Stream::Order, Stream::Dropout, Stream::Split];
    let fixed = fixed.into_iter().filter(|stream| !plan.replicate.contains(stream));
    let seconds = match purpose {
        Purpose::Smoke => common.time_seconds.min(SMOKE_SECONDS),
        Purpose::Full => common.time_seconds,
    };
    let label = |key: &str, value: &str| v1::Label { key: key.to_owned(), value: value.to_owned() };
    v1::RunSpec {
        image: common.image.to_owned(),
        backend: common.backend.to_owned(),
        files,
        params_json: params(plan, variant).to_string(),
        seed,
        stream_seeds: fixed
            .map(|stream| v1::StreamSeed { stream: word(stream).to_owned(), seed: common.fixed_seed })
            .collect(),
        limits: Some(v1::Limits {
            time_ms: u64::from(seconds) * 1000,
            grace_ms: GRACE_MS,
            memory_bytes: plan.limits.memory_mib.map_or(0, |mib| u64::from(mib) << 20),
            ..v1::Limits::default()
        }),
        gpus: common.gpus,
        required_metrics: required_metrics(plan),
        divergence: Some(divergence(plan)),
        stdout_metrics: Vec::new(),
        data_sets: if common.data.is_some() { Vec::new() } else { vec![plan.data_set.clone()] },
        packages: common.packages.to_vec(),
        labels: vec![
            label("campaign", common.campaign),
            label("experiment", common.experiment),
            label("variant", &variant.id),
            label("purpose", purpose.word()),
        ],
        smoke: purpose == Purpose::Smoke,
    }
}

/// The longest that a run holds its devices: limit, grace and the time to end.
#[must_use]
pub fn longest(spec: &v1::RunSpec) -> std::time::Duration {
    let limits = spec.limits.unwrap_or_default();
    std::time::Duration::from_millis(limits.time_ms + limits.grace_ms + END_MS)
}

/// A number drawn by name, 1 to 2³¹ − 1, so that every library takes it as a seed and JSON keeps it whole.
fn draw(name: &str) -> u64 {
    let hex = Digest::of(name.as_bytes()).hex();
    u64::from_str_radix(&hex[..12], 16).unwrap_or(1) % 0x7fff_ffff + 1
}

/// Seeds of an experiment's full runs: new for each experiment, all different.
#[must_use]
pub fn seeds(campaign: &str, experiment: &str, count: u32) -> Vec<u64> {
    let mut seeds = Vec::with_capacity(count as usize);
    let mut index = 0u32;
    while seeds.len() < count as usize {
        let seed = draw(&format!("{campaign}/{experiment}/full/{index}"));
        if !seeds.contains(&seed) {
            seeds.push(seed);
        }
        index += 1;
    }
    seeds
}

/// The smoke run's own seed: its numbers are never analysed.
#[must_use]
pub fn smoke_seed(campaign: &str, experiment: &str) -> u64 {
    draw(&format!("{campaign}/{experiment}/smoke"))
}

/// The seed of the streams that a campaign's seeds do not vary.
#[must_use]
pub fn fixed_seed(campaign: &str) -> u64 {
    draw(&format!("{campaign}/fixed"))
}

/// The variants in an order that only the seed knows: interleaved, so that a machine that gets slower takes no side.
#[must_use]
pub fn shuffled(variants: &[Variant], seed: u64) -> Vec<Variant> {
    let mut variants = variants.to_vec();
    variants.sort_by_cached_key(|variant| Digest::of(format!("{seed}/{}", variant.id).as_bytes()).hex());
    variants
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::fixtures::{ablation, stability};

    fn blob() -> Blob {
        Blob { digest: Digest::of(b"x"), bytes: 1 }
    }

    fn common<'a>(plan: &'a Plan, program: &'a Blob, data: Option<&'a Blob>) -> Common<'a> {
        Common {
            plan,
            image: "torch",
            backend: "",
            program,
            packages: &plan.packages,
            data,
            gpus: 0,
            time_seconds: 600,
            campaign: "c",
            experiment: "e1",
            fixed_seed: 7,
        }
    }

    /// What a model writes is a plan and a program: neither has a place for an image, a backend or a package, and a
    /// parameter that is called so is the program's and nothing else.
    #[test]
    fn no_plan_and_no_parameter_names_an_image() {
        let (plan, blob) = (ablation(), blob());
        for key in ["image", "images", "backend", "container"] {
            let mut written = serde_json::to_value(&plan).unwrap();
            written[key] = "evil".into();
            let refused = serde_json::from_value::<Plan>(written).unwrap_err().to_string();
            assert!(refused.contains(key), "{refused}");
        }
        let mut variant = plan.variants()[0].clone();
        variant.params.insert("image".to_owned(), "evil".into());
        variant.params.insert("backend".to_owned(), "evil".into());
        let spec = spec(&common(&plan, &blob, None), &variant, 5, Purpose::Full);
        assert_eq!((spec.image.as_str(), spec.backend.as_str()), ("torch", ""));
        let params: Value = serde_json::from_str(&spec.params_json).unwrap();
        assert_eq!(params["image"], "evil");
    }

    #[test]
    fn streams_that_a_seed_does_not_vary_are_fixed() {
        let (mut plan, blob) = (ablation(), blob());
        plan.packages = vec!["einops==0.8.0".into()];
        let variant = &plan.variants()[0];
        let spec = spec(&common(&plan, &blob, Some(&blob)), variant, 5, Purpose::Full);
        assert_eq!(spec.stream_seeds, [v1::StreamSeed { stream: "dropout".into(), seed: 7 }]);
        assert_eq!((spec.seed, spec.smoke), (5, false));
        assert_eq!(spec.required_metrics, ["test_accuracy"]);
        assert!(spec.data_sets.is_empty() && spec.files.len() == 2);
        let params: Value = serde_json::from_str(&spec.params_json).unwrap();
        assert_eq!(params["batch_norm"], false);
        assert_eq!((&params["steps"], &params["data_set"]), (&Value::from(100), &Value::from("digits")));
        assert_eq!(spec.packages, ["einops==0.8.0"]);
        assert!(!spec.params_json.contains("v1"), "a program is not told which variant it is");
    }

    #[test]
    fn a_smoke_run_is_tiny_and_a_workers_data_set_is_named() {
        let (plan, blob) = (ablation(), blob());
        let spec = spec(&common(&plan, &blob, None), &plan.variants()[1], 5, Purpose::Smoke);
        assert!(spec.smoke);
        assert_eq!(spec.limits.unwrap().time_ms, u64::from(SMOKE_SECONDS) * 1000);
        assert_eq!(spec.data_sets, ["digits"]);
        assert_eq!(longest(&spec).as_millis(), 245_500);
    }

    #[test]
    fn seeds_differ_between_experiments_and_fit_every_library() {
        let first = seeds("c", "e1", 20);
        let second = seeds("c", "e2", 20);
        assert!(first.iter().all(|s| !second.contains(s) && (1..1 << 31).contains(s)));
        assert_eq!(first[..5], seeds("c", "e1", 5), "a later look goes on with the same seeds");
        assert!(!first.contains(&smoke_seed("c", "e1")));
    }

    #[test]
    fn the_order_of_variants_changes_with_the_seed_and_only_with_it() {
        let variants = stability().variants();
        let orders: Vec<Vec<String>> =
            (0..8).map(|seed| shuffled(&variants, seed).into_iter().map(|v| v.id).collect()).collect();
        assert!(orders.windows(2).any(|pair| pair[0] != pair[1]));
        assert_eq!(shuffled(&variants, 3), shuffled(&variants, 3));
    }
}
