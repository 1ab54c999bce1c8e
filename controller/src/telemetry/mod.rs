//! The controller's numbers, by Prometheus' conventions, and what goes along with a call so that one run is one trace
//! over both programs. Counted where it happens; the page is there only where `metrics_listen` is set, and as long as
//! the command that researches.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use kit::{task::CancellationToken, telemetry::ScrapeError};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

type Labels = [(&'static str, String); 1];

/// A disk syncs in milliseconds, a busy one in many.
const COMMIT_SECONDS: [f64; 8] = [0.0005, 0.001, 0.003, 0.01, 0.03, 0.1, 0.5, 2.0];
const MICRO: f64 = 1e-6;

/// What is counted where it happens.
#[derive(Debug)]
pub struct Metrics {
    /// Campaigns that this process is at.
    pub campaigns: Gauge,
    /// Runs that a worker took.
    pub runs_placed: Counter,
    ended: Family<Labels, Counter>,
    /// Connections to workers that broke.
    pub connections_broken: Counter,
    calls: Family<Labels, Counter>,
    tokens: Family<Labels, Counter>,
    cost: Counter<f64>,
    commits: Histogram,
}

/// Of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    campaigns: Gauge::default(),
    runs_placed: Counter::default(),
    ended: Family::default(),
    connections_broken: Counter::default(),
    calls: Family::default(),
    tokens: Family::default(),
    cost: Counter::default(),
    commits: Histogram::new(COMMIT_SECONDS),
});

impl Metrics {
    /// A campaign is at work for as long as this lives.
    #[must_use]
    pub fn campaign(&self) -> AtWork {
        self.campaigns.inc();
        AtWork(self.campaigns.clone())
    }

    /// A run has come to an end: `finished`, `lost` or `rejected`.
    pub fn run_ended(&self, how: &str) {
        self.ended.get_or_create(&[("how", how.to_owned())]).inc();
    }

    /// A model was called: the tokens by kind, and what it cost in millionths of a dollar where that is known.
    pub fn called(&self, purpose: &str, tokens: &[(&str, u64)], cost: Option<u64>) {
        self.calls.get_or_create(&[("purpose", purpose.to_owned())]).inc();
        for (kind, count) in tokens {
            self.tokens.get_or_create(&[("kind", (*kind).to_owned())]).inc_by(*count);
        }
        self.cost.inc_by(cost.map_or(0.0, |micro| micro as f64 * MICRO));
    }

    /// A transaction of the journal is on disk.
    pub fn committed(&self, took: Duration) {
        self.commits.observe(took.as_secs_f64());
    }
}

/// One campaign at work.
#[derive(Debug)]
pub struct AtWork(Gauge);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Serves the page where the configuration says so, until the process ends.
///
/// # Errors
/// Where the address cannot be had.
pub async fn serve(address: Option<std::net::SocketAddr>) -> Result<(), ScrapeError> {
    let Some(address) = address else { return Ok(()) };
    kit::telemetry::serve(address, Arc::new(registry()), CancellationToken::new()).await.map(drop)
}

fn registry() -> Registry {
    let mut registry = Registry::with_prefix("autoresearch");
    let m = &*METRICS;
    registry.register("campaigns", "Campaigns at work in this process", m.campaigns.clone());
    registry.register("runs_placed", "Runs that a worker took", m.runs_placed.clone());
    registry.register("runs_ended", "Runs that came to an end, by how", m.ended.clone());
    registry.register(
        "worker_connections_broken",
        "Connections to workers that broke and were opened anew",
        m.connections_broken.clone(),
    );
    registry.register("model_calls", "Calls of a model, by purpose", m.calls.clone());
    registry.register("model_tokens", "Tokens of a model's calls, by kind", m.tokens.clone());
    registry.register(
        "model_cost_dollars",
        "What calls of a model cost, where its price is known",
        m.cost.clone(),
    );
    registry.register_with_unit(
        "journal_commit",
        "A transaction of the journal, from its begin to the disk",
        Unit::Seconds,
        m.commits.clone(),
    );
    registry
}

/// A call that belongs to the trace it is made in.
pub(crate) fn traced<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(parent) = kit::telemetry::traceparent().and_then(|text| text.parse().ok()) {
        request.metadata_mut().insert("traceparent", parent);
    }
    request
}
