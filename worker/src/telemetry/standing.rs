//! What is asked at each scrape, and so is never wrong by an increment that somebody forgot: runs by state, slots, the
//! disk that is reserved.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Weak},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::gauge::ConstGauge,
    registry::Unit,
};
use proto::v1::{OutcomeKind, RunState};

use crate::run::registry::Registry as Runs;

/// The registry may go before the page does.
#[derive(Debug)]
pub(super) struct Standing(Weak<Runs>);

impl Standing {
    pub(super) fn of(runs: &Arc<Runs>) -> Self {
        Self(Arc::downgrade(runs))
    }
}

impl Collector for Standing {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(runs) = self.0.upgrade() else { return Ok(()) };
        let mut states: BTreeMap<String, i64> = STATES.iter().map(|state| (word(*state), 0)).collect();
        for state in runs.states() {
            *states.entry(word(state)).or_default() += 1;
        }
        family(&mut out, "runs", "Runs that are kept, by state", "state", states)?;
        let mut slots = BTreeMap::from(["free", "taken", "set_aside"].map(|state| (state.to_owned(), 0)));
        for slot in runs.options().slots.view() {
            let state = match (&slot.quarantined, slot.holder) {
                (why, _) if !why.is_empty() => "set_aside",
                (_, Some(_)) => "taken",
                (_, None) => "free",
            };
            *slots.entry(state.to_owned()).or_default() += 1;
        }
        family(&mut out, "slots", "Places to run in, by what they are", "state", slots)?;
        let help = "Disk that running runs may still fill";
        let reserved = i64::try_from(runs.reserved_bytes()).unwrap_or(i64::MAX);
        let gauge = ConstGauge::new(reserved);
        gauge.encode(out.encode_descriptor("disk_reserved", help, Some(&Unit::Bytes), gauge_type())?)
    }
}

fn gauge_type() -> prometheus_client::metrics::MetricType {
    prometheus_client::metrics::MetricType::Gauge
}

fn family(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    values: BTreeMap<String, i64>,
) -> fmt::Result {
    let mut family = out.encode_descriptor(name, help, None, gauge_type())?;
    for (value, count) in values {
        ConstGauge::new(count).encode(family.encode_family(&[(label, value.as_str())])?)?;
    }
    Ok(())
}

const STATES: [RunState; 7] = [
    RunState::Accepted,
    RunState::Preparing,
    RunState::Starting,
    RunState::Running,
    RunState::Ending,
    RunState::Harvesting,
    RunState::Finished,
];

/// As everywhere: the protocol's name in small letters, without what it begins with.
fn word(state: RunState) -> String {
    state.as_str_name().trim_start_matches("RUN_STATE_").to_ascii_lowercase()
}

/// The same of an outcome.
pub(super) fn outcome(kind: i32) -> String {
    let kind = OutcomeKind::try_from(kind).unwrap_or_default();
    kind.as_str_name().trim_start_matches("OUTCOME_KIND_").to_ascii_lowercase()
}
