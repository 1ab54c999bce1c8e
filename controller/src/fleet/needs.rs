//! What a run needs of a worker: read once from the bytes that the worker gets.

use std::time::Duration;

use prost::Message as _;
use proto::v1;

/// The worker's own, where it was never reached and the spec says nothing (WORKER §4).
const TIME: Duration = Duration::from_secs(600);
const GRACE: Duration = Duration::from_secs(5);

/// Of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Needs {
    /// From the allow-list.
    pub image: String,
    /// Empty: the worker's choice.
    pub backend: String,
    /// 0 is a CPU slot.
    pub gpus: u32,
    /// 0 is the slot's share.
    pub memory_bytes: u64,
    /// 0 is the slot's share.
    pub cpu_millis: u32,
    /// 0 is the worker's default.
    pub disk_bytes: u64,
    /// 0 is the worker's default.
    pub time_ms: u64,
    /// 0 is the worker's default.
    pub grace_ms: u64,
    /// Of the worker, by name.
    pub data_sets: Vec<String>,
    /// Runs of one group are only compared on the same kind of device: the experiment. Empty: it belongs to none.
    pub group: String,
}

impl Needs {
    /// What the bytes say, with the run's variant.
    ///
    /// # Errors
    /// Where they are no spec.
    pub fn of(start: &v1::StartRunRequest) -> Result<(Self, String), prost::DecodeError> {
        let spec = v1::RunSpec::decode(start.spec.as_ref())?;
        let limits = spec.limits.unwrap_or_default();
        let label = |key: &str| spec.labels.iter().find(|l| l.key == key).map_or("", |l| l.value.as_str());
        let (campaign, experiment) = (label("campaign"), label("experiment"));
        let group = group(campaign, experiment);
        let variant = label("variant").to_owned();
        let mut data_sets = spec.data_sets;
        data_sets.sort();
        let needs = Self {
            image: spec.image,
            backend: spec.backend,
            gpus: spec.gpus,
            memory_bytes: limits.memory_bytes,
            cpu_millis: limits.cpu_millis,
            disk_bytes: limits.disk_bytes,
            time_ms: limits.time_ms,
            grace_ms: limits.grace_ms,
            data_sets,
            group,
        };
        Ok((needs, variant))
    }

    /// The longest that the program may run: limit and grace, the worker's own where the spec has none.
    #[must_use]
    pub fn longest(&self, worker: Option<&v1::GetWorkerResponse>) -> Duration {
        let theirs = worker.and_then(|info| info.default_limits).unwrap_or_default();
        let first = |ours: u64, theirs: u64, known: Duration| match (ours, theirs) {
            (0, 0) => known,
            (0, theirs) => Duration::from_millis(theirs),
            (ours, _) => Duration::from_millis(ours),
        };
        first(self.time_ms, theirs.time_ms, TIME) + first(self.grace_ms, theirs.grace_ms, GRACE)
    }
}

/// Of an experiment; empty where there is none.
pub(super) fn group(campaign: &str, experiment: &str) -> String {
    if experiment.is_empty() { String::new() } else { format!("{campaign}/{experiment}") }
}
