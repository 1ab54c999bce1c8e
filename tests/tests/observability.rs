//! What those who watch see of a real campaign: numbers that move while it runs, one trace of each run over both programs,
//! log lines that say which run and campaign they are about.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use e2e::{Home, wait_for};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
};
use serde_json::Value as Json;

const QUESTION: &str = "Does batch normalisation help a small MLP on digits?";
/// Six runs on a machine that others use too.
const CAMPAIGN: Duration = Duration::from_secs(900);

/// A span, as far as this test looks.
#[derive(Debug, Clone)]
struct Seen {
    service: String,
    name: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    run: Option<String>,
}

/// A collector that keeps everything.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let mut kept = self.0.lock().expect("the collector");
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|r| r.attributes).unwrap_or_default();
            let service = text(&attributes, "service.name").unwrap_or_default();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let run = text(&span.attributes, "run_id");
                let (name, trace, id, parent) = (span.name, span.trace_id, span.span_id, span.parent_span_id);
                kept.push(Seen { service: service.clone(), name, trace, id, parent, run });
            }
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("a free port")
}

/// The page's values by name and labels; empty while nobody listens.
fn scrape(address: SocketAddr) -> BTreeMap<String, f64> {
    let read = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    };
    let page = read().unwrap_or_default();
    let lines = page.lines().skip_while(|line| !line.is_empty()).filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|l| l.rsplit_once(' '))
        .filter_map(|(k, v)| Some((k.to_owned(), v.parse().ok()?)))
        .collect()
}

fn value(page: &BTreeMap<String, f64>, name: &str) -> f64 {
    page.get(name).copied().unwrap_or_default()
}

/// Lines that are about a run or a campaign, as both programs write them.
fn lines(text: &str) -> Vec<Json> {
    let objects = text.lines().filter(|line| line.starts_with('{'));
    objects.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The field of whichever span of the line has it.
fn of_spans(line: &Json, field: &str) -> Option<String> {
    let spans = line["spans"].as_array()?;
    spans.iter().find_map(|span| Some(span[field].as_str()?.to_owned()))
}

#[test]
fn a_campaign_can_be_watched_by_numbers_traces_and_lines() {
    let collector = Collector::default();
    let (otlp, kept) = (free(), Arc::clone(&collector.0));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector));
    runtime.spawn(server.serve(otlp));

    let (mine, workers) = (free(), free());
    let mut home = Home::new();
    let mut set = |name: &str, value: String| home.environment.push((name.to_owned(), value));
    set("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{otlp}"));
    set("AUTORESEARCH_METRICS_LISTEN", mine.to_string());
    set("AUTORESEARCH_WORKER_METRICS_LISTEN", workers.to_string());
    set("AUTORESEARCH_WORKER_LOG_FORMAT", "json".to_owned());
    set("AUTORESEARCH_LOG", "info".to_owned());
    let arguments = ["run", QUESTION, "--max-iterations", "1", "--seeds", "3", "--log-format", "json"];
    let child = home.spawn(&arguments);

    let moved = |name: &'static str, address: SocketAddr, over: f64| {
        wait_for(name, CAMPAIGN, || match value(&scrape(address), name) {
            now if now > over => Ok(now),
            now => Err(now.to_string()),
        })
    };
    let first = moved("autoresearch_runs_placed_total", mine, 0.0);
    moved("autoresearch_runs_placed_total", mine, first);
    let page = scrape(mine);
    assert_eq!(value(&page, "autoresearch_campaigns"), 1.0, "{page:#?}");
    assert!(value(&page, "autoresearch_journal_commit_seconds_count") > 3.0, "{page:#?}");
    let accepted = moved("autoresearch_worker_runs_accepted_total", workers, 0.0);
    moved("autoresearch_worker_runs_accepted_total", workers, accepted);
    moved("autoresearch_worker_output_bytes_total{stream=\"metrics\"}", workers, 0.0);
    moved("autoresearch_worker_runs_finished_total{outcome=\"succeeded\"}", workers, 0.0);
    let page = scrape(workers);
    assert!(value(&page, "autoresearch_worker_sandbox_start_seconds_count") > 0.0, "{page:#?}");
    for name in ["runs{state=\"running\"}", "slots{state=\"free\"}", "disk_reserved_bytes", "watchers"] {
        assert!(page.contains_key(&format!("autoresearch_worker_{name}")), "{name}: {page:#?}");
    }

    let ran = home.finish(child, CAMPAIGN).expect(0);
    let log = std::fs::read_to_string(home.data_dir().join("worker/worker.log")).expect("the worker's log");
    let (ours, theirs) = (lines(&ran.stderr), lines(&log));
    let about = |lines: &[Json]| -> BTreeSet<String> {
        lines.iter().filter_map(|line| of_spans(line, "run_id")).collect()
    };
    let (placed, run) = (about(&ours), about(&theirs));
    assert!(placed.len() >= 6 && placed == run, "both name the same runs: {placed:?} {run:?}");
    let took = ours.iter().filter(|line| of_spans(line, "run_id").is_some());
    for line in took {
        assert!(of_spans(line, "campaign_id").is_some(), "{line}");
    }

    // The worker sends its last spans on its way out, which `run` waits for.
    let spans = kept.lock().expect("the collector").clone();
    let of = |service: &str, name: &str| -> Vec<Seen> {
        spans.iter().filter(|s| s.service == service && s.name == name).cloned().collect()
    };
    let campaigns = of("autoresearch", "campaign");
    assert_eq!(campaigns.len(), 1, "{spans:#?}");
    for run in of("autoresearch", "run") {
        let start = of("autoresearch-worker", "StartRun").into_iter().find(|s| s.run == run.run);
        let driven = of("autoresearch-worker", "run").into_iter().find(|s| s.run == run.run);
        let (start, driven) = (start.expect("the worker's call"), driven.expect("the worker's run"));
        assert_eq!((&start.trace, &start.parent), (&run.trace, &run.id), "{run:#?}\n{start:#?}");
        assert_eq!(driven.trace, run.trace);
    }
    assert!(of("autoresearch", "run").len() >= 6);
}

#[test]
fn a_port_that_is_taken_is_named_with_its_key() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut home = Home::without_engine();
    home.environment.push(("AUTORESEARCH_METRICS_LISTEN".to_owned(), address.clone()));
    let ran = home.run(&["run", QUESTION]).expect(2);
    assert!(ran.stderr.contains("metrics_listen") && ran.stderr.contains(&address), "{}", ran.stderr);
    home.environment[0].1 = "9464".to_owned();
    let ran = home.run(&["run", QUESTION]).expect(2);
    assert!(ran.stderr.contains("metrics_listen"), "{}", ran.stderr);
}

#[test]
fn the_lines_of_one_program_name_its_campaign_too() {
    let mut home = Home::new();
    home.environment.push(("AUTORESEARCH_LOG".to_owned(), "info".to_owned()));
    let program = home.path().join("program.py");
    std::fs::write(&program, "print('here')\n").expect("a program");
    let path = program.display().to_string();
    let ran = home.run(&["exec", &path, "--image", "lite", "--log-format", "json"]).expect(0);
    let lines = lines(&ran.stderr);
    let about: Vec<&Json> = lines.iter().filter(|line| of_spans(line, "run_id").is_some()).collect();
    assert!(!about.is_empty(), "{}", ran.stderr);
    for line in about {
        assert!(of_spans(line, "campaign_id").is_some(), "{line}");
    }
}
