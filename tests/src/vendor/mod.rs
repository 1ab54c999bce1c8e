//! A language model's vendor that says what a test tells it to: an HTTP server on loopback in one of the four formats that
//! the controller speaks, streaming as the real ones do. It knows which answer is wanted by the shape that the request asks
//! for, keeps every request, and never looks into the controller.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use serde_json::Value;
use tokio::{net::TcpListener, runtime::Runtime};

/// How each vendor wraps a text.
mod formats;
/// A researcher's answers: a plan that is sound, programs, readings, decisions.
pub mod script;

/// Whose format is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// Messages, server-sent events.
    Anthropic,
    /// Responses, server-sent events.
    OpenAi,
    /// Newline-delimited JSON.
    Ollama,
    /// Chat Completions, server-sent events.
    Compatible,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The next experiment, or the end.
    Plan,
    /// A program for a registered plan.
    Code,
    /// A program, mended.
    Repair,
    /// What the numbers mean.
    Interpretation,
    /// Whether to go on.
    Decision,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// By its shape.
    pub wanted: Wanted,
    /// All of its text: system, prompts and what was sent back.
    pub text: String,
    /// What the vendor says that it read.
    pub tokens: u64,
}

/// Answers a request; the number counts requests of the same kind, from 1.
pub type Script = dyn Fn(&Asked, usize) -> Value + Send + Sync;

/// Tokens that an answer claims to have taken.
pub const WRITTEN: u64 = 240;

struct Shared {
    vendor: Vendor,
    script: Box<Script>,
    written: u64,
    asked: Mutex<Vec<Asked>>,
    wrong: Mutex<Vec<String>>,
}

/// A vendor that listens until it is dropped.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    // Its threads serve; dropping it ends them.
    _runtime: Runtime,
}

impl Server {
    /// Listens on a port of its own.
    ///
    /// # Panics
    /// Where there is no port.
    pub fn start(vendor: Vendor, script: impl Fn(&Asked, usize) -> Value + Send + Sync + 'static) -> Self {
        Self::with_cost(vendor, WRITTEN, script)
    }

    /// The same, with answers that claim to have taken so many tokens (a model that reasons at length).
    ///
    /// # Panics
    /// Where there is no port.
    pub fn with_cost(
        vendor: Vendor,
        written: u64,
        script: impl Fn(&Asked, usize) -> Value + Send + Sync + 'static,
    ) -> Self {
        let (asked, wrong) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { vendor, script: Box::new(script), written, asked, wrong });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime for the vendor");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port on loopback");
        let address = listener.local_addr().expect("its address");
        let router = Router::new().fallback(answer).with_state(shared.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { shared, address, _runtime: runtime }
    }

    /// For `--llm-url`.
    #[must_use]
    pub fn url(&self) -> String {
        let base = match self.shared.vendor {
            Vendor::Anthropic | Vendor::Ollama => "",
            Vendor::OpenAi | Vendor::Compatible => "/v1",
        };
        format!("http://{}{base}", self.address)
    }

    /// Requests for one kind of answer, oldest first.
    ///
    /// # Panics
    /// Where a handler panicked.
    #[must_use]
    pub fn asked(&self, wanted: Wanted) -> Vec<Asked> {
        let asked = self.shared.asked.lock().expect("no handler panicked");
        asked.iter().filter(|a| a.wanted == wanted).cloned().collect()
    }

    /// Tokens that the vendor says it read, over all requests.
    ///
    /// # Panics
    /// Where a handler panicked.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.shared.asked.lock().expect("no handler panicked").iter().map(|a| a.tokens).sum()
    }

    /// Requests that the vendor would have refused.
    ///
    /// # Panics
    /// Where a handler panicked.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        self.shared.wrong.lock().expect("no handler panicked").clone()
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: axum::http::HeaderMap,
    body: Bytes,
) -> Response {
    let read = serde_json::from_slice::<Value>(&body)
        .map_err(|e| format!("not JSON: {e}"))
        .and_then(|body| formats::read(shared.vendor, uri.path(), &headers, &body));
    let (asked, count) = match read {
        Ok(asked) => {
            let mut all = shared.asked.lock().expect("no handler panicked");
            all.push(asked.clone());
            let count = all.iter().filter(|a| a.wanted == asked.wanted).count();
            (asked, count)
        }
        Err(problem) => {
            shared.wrong.lock().expect("no handler panicked").push(problem.clone());
            let error = serde_json::json!({ "type": "error", "error": { "type": "invalid_request_error", "message": problem } });
            return (StatusCode::BAD_REQUEST, error.to_string()).into_response();
        }
    };
    let text = match (shared.script)(&asked, count) {
        Value::String(text) => text,
        value => value.to_string(),
    };
    let tokens = formats::Tokens { read: asked.tokens, written: shared.written };
    let kind = match shared.vendor {
        Vendor::Ollama => "application/x-ndjson",
        _ => "text/event-stream; charset=utf-8",
    };
    ([(header::CONTENT_TYPE, kind)], formats::stream(shared.vendor, &text, tokens)).into_response()
}
