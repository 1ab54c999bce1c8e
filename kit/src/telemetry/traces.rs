//! Spans for an OTLP collector, over gRPC, and the W3C `traceparent` that takes a trace from one program to the other.
//!
//! Only our own spans, and of those not the ones of tasks: what a library does on the wire is no step of a run, and the
//! spans of the connection to the collector would make more of themselves. Sending is a thread's work, from a bounded
//! queue that drops what it cannot hold.

use std::{collections::HashMap, time::Duration};

use opentelemetry::{
    propagation::TextMapPropagator as _,
    trace::{TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

/// A collector that takes longer gets nothing.
const SEND_LIMIT: Duration = Duration::from_secs(3);
/// An end waits so long for the last spans.
const END_LIMIT: Duration = Duration::from_secs(3);
/// As the standard names them, the more particular first.
const VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// Of the W3C's trace context; gRPC metadata has the same name.
const TRACEPARENT: &str = "traceparent";
const OURS: [&str; 3] = ["worker", "controller", "autoresearch"];

/// Why no traces are sent.
#[derive(Debug, thiserror::Error)]
#[error("otlp_endpoint: {endpoint:?} will not do: {source}")]
pub struct TraceError {
    endpoint: String,
    source: ExporterBuildError,
}

/// Where spans go: the standard's variables before the configuration's key; nowhere with `OTEL_SDK_DISABLED=true`.
#[must_use]
pub fn endpoint(configured: Option<&str>) -> Option<String> {
    choose(&|name| std::env::var(name).ok(), configured)
}

fn choose(variable: &dyn Fn(&str) -> Option<String>, configured: Option<&str>) -> Option<String> {
    if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    let named = VARIABLES.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
    named.or_else(|| configured.filter(|value| !value.is_empty()).map(str::to_owned))
}

#[derive(Debug)]
pub(super) struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    pub(super) fn to(endpoint: &str, service: &'static str) -> Result<Self, TraceError> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(SEND_LIMIT)
            .build()
            .map_err(|source| TraceError { endpoint: endpoint.to_owned(), source })?;
        let resource = Resource::builder().with_service_name(service).build();
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Self { provider })
    }

    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let ours = OURS.map(|target| (target, LevelFilter::INFO));
        let ours = Targets::new().with_targets(ours).with_target("autoresearch_kit", LevelFilter::OFF);
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("autoresearch"))
            .with_location(false)
            .with_threads(false)
            .with_filter(ours)
    }

    pub(super) fn end(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(END_LIMIT) {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

/// The current span, for the other program; `None` where no traces are made.
#[must_use]
pub fn traceparent() -> Option<String> {
    let context = tracing::Span::current().context();
    if !context.span().span_context().is_valid() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// Makes a span that was not entered yet a part of the other program's trace. What is no `traceparent` is ignored: it
/// comes from outside, and nothing depends on it.
pub fn follow(span: &tracing::Span, traceparent: Option<&str>) {
    let Some(traceparent) = traceparent else { return };
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    if context.span().span_context().is_valid() {
        // Fails only where this program makes no traces.
        span.set_parent(context).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_variables_go_before_the_key() {
        let none = |_: &str| None;
        assert_eq!(choose(&none, None), None);
        assert_eq!(choose(&none, Some("http://a:1")).as_deref(), Some("http://a:1"));
        let set = |name: &str| (name == VARIABLES[1]).then(|| "http://b:2".to_owned());
        assert_eq!(choose(&set, Some("http://a:1")).as_deref(), Some("http://b:2"));
        let off = |name: &str| (name == "OTEL_SDK_DISABLED").then(|| "true".to_owned());
        assert_eq!(choose(&off, Some("http://a:1")), None);
    }

    #[test]
    fn without_traces_there_is_no_parent_and_garbage_is_none() {
        assert_eq!(traceparent(), None);
        let span = tracing::info_span!("x");
        for text in ["", "00-0-0-00", "\u{1F600}", &"f".repeat(10_000)] {
            follow(&span, Some(text));
        }
    }
}
