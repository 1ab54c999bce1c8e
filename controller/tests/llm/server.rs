//! A server with a script: each request gets the next answer, and is kept. A request beyond the script is answered
//! with 418, which no client retries, so that it shows.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    response::Response,
};
use futures_util::Stream;
use kit::task::{CancellationToken, spawn};
use serde_json::Value;
use tokio::net::TcpListener;

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Clean,
    /// The connection breaks.
    Broken,
    /// Nothing more comes, and the connection stays.
    Hangs,
}

/// One answer.
pub struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    pieces: VecDeque<Vec<u8>>,
    end: End,
}

impl Answer {
    pub fn new(status: u16, kind: &str, body: &str) -> Self {
        let headers = vec![("content-type", kind.to_owned()), ("request-id", "req_test".to_owned())];
        Self { status, headers, pieces: VecDeque::from([body.as_bytes().to_vec()]), end: End::Clean }
    }

    /// A stream, in one piece.
    pub fn stream(body: &str) -> Self {
        let lines = body.starts_with('{');
        Self::new(200, if lines { "application/x-ndjson" } else { "text/event-stream; charset=utf-8" }, body)
    }

    /// A JSON body.
    pub fn json(status: u16, body: &str) -> Self {
        Self::new(status, "application/json", body)
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// In pieces of so many bytes.
    pub fn cut(mut self, size: usize) -> Self {
        let all: Vec<u8> = self.pieces.drain(..).flatten().collect();
        self.pieces = all.chunks(size).map(<[u8]>::to_vec).collect();
        self
    }

    pub fn end(mut self, end: End) -> Self {
        self.end = end;
        self
    }
}

/// A request as it came.
#[derive(Clone)]
pub struct Seen {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

struct Inner {
    script: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Seen>>,
    /// Cancelled when a client goes away before the end of a body.
    left: CancellationToken,
}

/// The server; it stops when it is dropped.
pub struct Server {
    address: SocketAddr,
    inner: Arc<Inner>,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    pub async fn start(script: impl IntoIterator<Item = Answer>) -> Self {
        let inner = Arc::new(Inner {
            script: Mutex::new(script.into_iter().collect()),
            seen: Mutex::default(),
            left: CancellationToken::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let router = Router::new().fallback(answer).with_state(inner.clone());
        let stopped = stop.clone();
        spawn("test server", async move {
            let serving = axum::serve(listener, router);
            tokio::select! {
                served = serving => served.expect("serves"),
                () = stopped.cancelled() => {}
            }
        });
        Self { address, inner, stop }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().expect("lock").clone()
    }

    /// Returns when a client has gone away in the middle of a body.
    pub async fn left(&self) {
        self.inner.left.cancelled().await;
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Result<Response, Infallible> {
    let path = request.uri().path().to_owned();
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let body = axum::body::to_bytes(request.into_body(), 1 << 22).await.expect("a body");
    let body = serde_json::from_slice(&body).expect("requests are JSON");
    inner.seen.lock().expect("lock").push(Seen { path, headers, body });
    let next = inner.script.lock().expect("lock").pop_front();
    let next = next.unwrap_or_else(|| Answer::json(418, "{\"error\":{\"message\":\"beyond the script\"}}"));
    let mut response = Response::builder().status(next.status);
    for (name, value) in &next.headers {
        response = response.header(*name, value);
    }
    let pieces = Pieces { pieces: next.pieces, end: next.end, left: Some(inner.left.clone()) };
    Ok(response.body(Body::from_stream(pieces)).expect("a response"))
}

struct Pieces {
    pieces: VecDeque<Vec<u8>>,
    end: End,
    left: Option<CancellationToken>,
}

impl Stream for Pieces {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match (self.pieces.pop_front(), self.end) {
            (Some(piece), _) => Poll::Ready(Some(Ok(piece.into()))),
            (None, End::Clean) => {
                self.left = None;
                Poll::Ready(None)
            }
            (None, End::Broken) => {
                self.left = None;
                Poll::Ready(Some(Err(std::io::Error::other("broken on purpose"))))
            }
            (None, End::Hangs) => Poll::Pending,
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if let Some(left) = self.left.take() {
            left.cancel();
        }
    }
}
