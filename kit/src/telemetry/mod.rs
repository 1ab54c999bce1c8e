//! What a program tells those who watch it: log lines on standard error, spans for an OTLP collector, and numbers for a
//! scraper. Which numbers is each program's own business (`telemetry/` of each); how they leave it is here. Nothing
//! leaves it unless it is configured, and a watcher that is slow, wrong or gone never holds up what is watched.

/// Log lines, as text or JSON.
mod logs;
/// The page that Prometheus reads.
mod scrape;
/// Spans, and how one trace spans two programs.
mod traces;

pub use logs::LogFormat;
pub use scrape::{ScrapeError, serve};
pub use traces::{TraceError, endpoint, follow, traceparent};

use tracing_subscriber::{Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// What a program was told about being watched.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The program, as a trace shows it.
    pub service: &'static str,
    /// Like `info` or `worker=debug`.
    pub log: String,
    /// Of log lines.
    pub log_format: LogFormat,
    /// Whether log lines may be coloured.
    pub colour: bool,
    /// Where spans go, like `http://127.0.0.1:4317`; see [`endpoint`].
    pub otlp: Option<String>,
}

/// Keeps spans going out; dropping it sends what is left, for at most some seconds.
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<traces::Traces>,
}

impl Telemetry {
    /// Starts logs and traces of this process. To be called where a runtime is, and once; where another subscriber is
    /// there already, as in a test, that one stays. What is wrong with the filter or the endpoint is logged: no run is
    /// given up for it.
    #[must_use]
    pub fn start(settings: &Settings) -> Self {
        let (filter, wrong) = logs::filter(&settings.log);
        let traces = settings.otlp.as_deref().map(|to| traces::Traces::to(to, settings.service)).transpose();
        let (traces, unusable) = match traces {
            Ok(traces) => (traces, None),
            Err(error) => (None, Some(error)),
        };
        let layers = traces.as_ref().map(traces::Traces::layer);
        let lines = logs::layer(settings.log_format, settings.colour).with_filter(filter);
        tracing_subscriber::registry().with(lines).with(layers).try_init().ok();
        if let Some(error) = wrong {
            tracing::warn!(%error, "the log's filter cannot be read; using `info`");
        }
        if let Some(error) = unusable {
            tracing::warn!(%error, "no traces are sent");
        }
        Self { traces }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = self.traces.take() {
            traces.end();
        }
    }
}
