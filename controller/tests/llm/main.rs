//! The four clients against real HTTP servers that speak the vendors' formats, well and badly. No test waits: time
//! is a clock that moves only when told, and a wait ends when the test says so.

mod broken;
mod good;
mod retries;
mod secrets;
mod server;
mod time;

use std::sync::Arc;

use controller::llm::{
    CallError, CallPolicy, Keys, Message, Model, OpenOptions, Reply, Request, Schema, open,
};
use kit::task::CancellationToken;
use server::Server;
use time::TestTimer;

/// A key that must never be seen again.
pub const CANARY: &str = "canary-0123456789";

pub const ANTHROPIC: &str = include_str!("anthropic.sse");
pub const OPENAI: &str = include_str!("openai.sse");
pub const COMPATIBLE: &str = include_str!("compatible.sse");
pub const OLLAMA: &str = include_str!("ollama.ndjson");

/// A provider, its good sample, and where its server's paths begin.
pub const ALL: [(&str, &str, &str, &str); 4] = [
    ("anthropic:claude-sonnet-5-5", "", "/v1/messages", ANTHROPIC),
    ("openai:gpt-6.2-sol", "/v1", "/v1/responses", OPENAI),
    ("ollama:qwen3:8b", "", "/api/chat", OLLAMA),
    ("compatible:m", "/v1", "/v1/chat/completions", COMPATIBLE),
];

/// A model that asks the server, its waits and its clock.
pub struct Bench {
    pub model: Arc<dyn Model>,
    pub timer: Arc<TestTimer>,
}

impl Bench {
    pub fn new(spec: &str, server: &Server) -> Self {
        Self::with(spec, server, |policy| policy)
    }

    pub fn with(spec: &str, server: &Server, change: impl Fn(CallPolicy) -> CallPolicy) -> Self {
        let base = ALL.iter().find(|(name, ..)| *name == spec).expect("a known model").1;
        let timer = TestTimer::new();
        let mut options = OpenOptions::new(spec.parse().expect("a model"), keys());
        options.url = Some(format!("{}{base}", server.url()));
        options.timer = timer.clone();
        options.clock = timer.clock.clone();
        options.policy = Some(change(CallPolicy::hosted()));
        Self { model: open(options).expect("opens"), timer }
    }

    pub async fn call(&self) -> Result<Reply, CallError> {
        self.model.call(&request(), &CancellationToken::new(), None).await
    }
}

pub fn keys() -> Keys {
    Keys::from_lookup(|_| Some(CANARY.to_owned()))
}

pub fn request() -> Request {
    Request {
        purpose: "plan".into(),
        system: "Be brief.".into(),
        messages: vec![Message::user("Name it.")],
        schema: Some(Schema {
            name: "answer".into(),
            json: serde_json::json!({"type": "object", "required": ["title", "score"], "properties": {
                "title": {"type": "string"}, "score": {"type": "integer", "minimum": 0}}}),
        }),
        max_output_tokens: 1000,
    }
}
