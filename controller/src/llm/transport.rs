//! The HTTP client: one POST, its status, its headers, its body in pieces.
//!
//! Design notes. reqwest is built without a TLS provider and without certificates of its own: ring is installed
//! here, once for the process, and the system's certificates are used through the platform verifier, so that a
//! company's proxy works. There is no time-out on the whole of a body: it would kill a healthy slow stream;
//! `frames` bounds silence and `client` the call. Redirects are off, because they could carry a key to another
//! host. A server on this machine is reached without the proxy that the environment names.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{
    Client, Url,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::{
    error::Fault,
    frames::{FrameFault, Pieces},
};

/// Of an error with its causes, whose texts reqwest leaves out.
const CAUSES_CHARS: usize = 300;
const CONNECT: Duration = Duration::from_secs(10);
/// In bytes: providers' keys have 40 and more, and no word of their formats is as long.
const SHORTEST_SECRET: usize = 16;
/// As much of an error's body as is read.
const LONGEST_ERROR: usize = 64 << 10;
/// As much of a reply that is not a stream as is read.
const LONGEST_WHOLE: usize = 16 << 20;

/// A provider's address, ready to be posted to.
pub(super) struct Transport {
    client: Client,
    url: Url,
    headers: HeaderMap,
    key: Option<SecretString>,
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    /// TLS or the system's certificates.
    #[error("the HTTP client could not be made: {0}")]
    Client(String),
    /// A key that no header can hold.
    #[error("a key with characters that no header can hold")]
    Key,
}

impl Transport {
    pub fn new(
        url: Url,
        direct: bool,
        extra: &'static [(&'static str, &'static str)],
        key: Option<SecretString>,
    ) -> Result<Self, TransportError> {
        // A second call finds it installed, by us or by whoever linked us: both are well.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("text/event-stream, application/x-ndjson, application/json"),
        );
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for (name, value) in extra {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        if let Some(key) = &key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
                .map_err(|_| TransportError::Key)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut builder = Client::builder()
            .connect_timeout(CONNECT)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("autoresearch/", env!("CARGO_PKG_VERSION")));
        if direct {
            builder = builder.no_proxy();
            if url.scheme() == "http" {
                // A local model needs no certificates, and a bare container has none: reading them would fail.
                builder = builder.tls_certs_only([]);
            }
        }
        let client = builder
            .build()
            .map_err(|error| TransportError::Client(kit::text::chain(&error, CAUSES_CHARS)))?;
        Ok(Self { client, url, headers, key })
    }

    /// Sends a body and waits for the headers of the response.
    pub async fn post(&self, body: &Value) -> Result<Response, Fault> {
        let sent = self.client.post(self.url.clone()).headers(self.headers.clone()).json(body).send().await;
        sent.map(Response).map_err(|error| {
            if error.is_connect() {
                Fault::Connect(format!(
                    "{} ({})",
                    self.address(),
                    kit::text::chain(&error.without_url(), CAUSES_CHARS)
                ))
            } else {
                Fault::Transport(kit::text::chain(&error.without_url(), CAUSES_CHARS))
            }
        })
    }

    /// Takes the key out of what a server sent, before it is read or cut: some echo it. A key too short to be a
    /// secret (`none`, `x`, as local servers are given) stays, for it may be a word of the answer.
    pub fn redact(&self, text: String) -> String {
        if self.key.as_ref().is_some_and(|key| key.expose_secret().len() < SHORTEST_SECRET) {
            return text;
        }
        self.redact_words(text)
    }

    /// Takes the key, however short, out of words that are only shown.
    pub fn redact_words(&self, text: String) -> String {
        match &self.key {
            Some(key) if text.contains(key.expose_secret()) => text.replace(key.expose_secret(), "[key]"),
            _ => text,
        }
    }

    fn address(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// A response whose body has not been read.
pub(super) struct Response(reqwest::Response);

impl Response {
    pub fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        self.0.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }

    /// The provider's id of the request.
    pub fn request_id(&self) -> Option<String> {
        let id = self.header("request-id").or_else(|| self.header("x-request-id"))?;
        Some(kit::text::one_line(&id, 128))
    }

    /// Whether the body says that it is something else than a stream.
    pub fn kind(&self) -> Kind {
        let kind = self.header("content-type").unwrap_or_default().to_ascii_lowercase();
        match kind.split(';').next().unwrap_or_default().trim() {
            "application/json" => Kind::Whole,
            "text/html" => Kind::Page,
            _ => Kind::Stream,
        }
    }

    /// The body in pieces.
    pub fn pieces(self) -> Pieces {
        Box::pin(self.0.bytes_stream().map(|piece| match piece {
            Ok(piece) => Ok(piece.to_vec()),
            Err(error) => Err(FrameFault::Broken(kit::text::chain(&error.without_url(), CAUSES_CHARS))),
        }))
    }

    /// The longest text an error's body is read to.
    pub const fn error_limit() -> usize {
        LONGEST_ERROR
    }

    /// The longest a reply that is not a stream is read to.
    pub const fn whole_limit() -> usize {
        LONGEST_WHOLE
    }
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Events or lines.
    Stream,
    /// One JSON object.
    Whole,
    /// A page for people: never an answer.
    Page,
}
