//! The worker's numbers, by Prometheus' conventions: what a person who watches a machine asks. What is counted where it
//! happens is here; what can be asked when somebody scrapes (runs by state, slots, disk) is in `standing`. Counting
//! costs an addition and is always on; the page is there only where `metrics_listen` is set.

/// What is asked at each scrape.
mod standing;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use kit::task::CancellationToken;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{config::WorkerConfig, run::registry::Registry as Runs};

type Labels = [(&'static str, String); 1];

/// A sandbox takes some tenths of a second; a busy engine takes many.
const START_SECONDS: [f64; 10] = [0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];
const STREAMS: [&str; 3] = ["stdout", "stderr", "metrics"];

/// What is counted where it happens.
#[derive(Debug)]
pub struct Metrics {
    /// Admitted.
    pub runs_accepted: Counter,
    finished: Family<Labels, Counter>,
    /// Taken up from an earlier process, still alive.
    pub runs_adopted: Counter,
    starts: Histogram,
    stored: Family<Labels, Counter>,
    watchers: Gauge,
}

/// Of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    runs_accepted: Counter::default(),
    finished: Family::default(),
    runs_adopted: Counter::default(),
    starts: Histogram::new(START_SECONDS),
    stored: Family::default(),
    watchers: Gauge::default(),
});

impl Metrics {
    /// A run has ended so.
    pub fn finished(&self, outcome: i32) {
        self.finished.get_or_create(&[("outcome", standing::outcome(outcome))]).inc();
    }

    /// A sandbox was made and is ready for its start.
    pub fn sandbox_started(&self, took: Duration) {
        self.starts.observe(took.as_secs_f64());
    }

    /// Output of a run was stored; the stream by its number in [`crate::run`].
    pub fn stored(&self, stream: usize, bytes: usize) {
        let name = STREAMS.get(stream).copied().unwrap_or("other").to_owned();
        self.stored.get_or_create(&[("stream", name)]).inc_by(bytes as u64);
    }

    /// Somebody watches a run, for as long as this lives.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        self.watchers.inc();
        Watcher(self.watchers.clone())
    }
}

/// One watcher more.
#[derive(Debug)]
pub struct Watcher(Gauge);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Serves the page where the configuration says so.
///
/// # Errors
/// Where the address cannot be had.
pub async fn serve(
    config: &WorkerConfig,
    runs: &Arc<Runs>,
    stop: &CancellationToken,
) -> Result<(), kit::telemetry::ScrapeError> {
    let Some(address) = config.metrics_listen else { return Ok(()) };
    kit::telemetry::serve(address, Arc::new(registry(runs)), stop.clone()).await.map(drop)
}

fn registry(runs: &Arc<Runs>) -> Registry {
    let mut registry = Registry::with_prefix("autoresearch_worker");
    let m = &*METRICS;
    registry.register("runs_accepted", "Runs that were admitted", m.runs_accepted.clone());
    registry.register("runs_finished", "Runs that ended, by outcome", m.finished.clone());
    registry.register(
        "runs_adopted",
        "Runs of an earlier process that were found alive and followed on",
        m.runs_adopted.clone(),
    );
    registry.register_with_unit(
        "sandbox_start",
        "From the order for a sandbox to the moment at which its program may start",
        Unit::Seconds,
        m.starts.clone(),
    );
    registry.register_with_unit(
        "output",
        "Output of runs that was stored, by stream",
        Unit::Bytes,
        m.stored.clone(),
    );
    registry.register("watchers", "Streams of events that are being read", m.watchers.clone());
    registry.register_collector(Box::new(standing::Standing::of(runs)));
    registry
}
