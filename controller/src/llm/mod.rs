//! Providers of language models behind one trait. A call goes in as a [`Request`] and comes out as a [`Reply`]
//! that was accepted, or as a [`CallError`] that says what to do. What belongs here: the wire shapes of the four
//! providers, retries, structured output, usage, prices. What does not: prompts, what a reply means, budgets,
//! the journal; those are the campaign's.
//!
//! A reply is accepted when five things hold (an HTTP 200 is not one of them): the transport ended cleanly, the
//! provider's own terminal marker was seen, the stop reason is "complete", the JSON parses as a whole with only
//! white space left over, and it has the shape that was asked for by our own check. Whatever falls short is an
//! error with the text that was received thrown away, so that half an answer is never taken for one.
//!
//! ```text
//! campaign ── Request ──▶ client (attempts, gate, deadline) ──▶ wire: body(request) ──▶ transport: POST
//!                            ▲                                                            │ bytes
//!          Reply/CallError ◀─┴── accept ◀── wire: decoder ◀── frames (events or lines) ◀──┘
//! ```
//!
//! Everything in a wire is pure: it makes a body and reads frames, and knows no socket and no clock.

/// From a text to an accepted value: clean-up, strict parse, shape.
mod accept;
/// `anthropic`: the Messages format.
mod anthropic;
/// The Chat Completions format, as `compatible` servers speak it.
mod chat;
/// The one loop of a call: attempts, gate, deadline, cancellation.
mod client;
/// Where a provider listens.
mod endpoint;
/// Why a call failed, and what to do.
mod error;
/// Bytes to frames: server-sent events and JSON lines, bounded.
mod frames;
/// Keys of providers: from the environment only, never shown.
mod keys;
/// `ollama`: its own chat format, one JSON object a line.
mod ollama;
/// From options to a model that can be called.
mod open;
/// `openai`: the Responses format.
mod openai;
/// What a call costs, from a table that ships as data.
pub mod price;
/// When and how long to wait before an attempt.
mod retry;
/// JSON Schema in the subset that every provider takes, and the check of a reply against it.
pub mod schema;
/// Which model: `anthropic:MODEL` and its like.
mod spec;
/// The HTTP client: TLS, proxy, redirects, one POST.
mod transport;
/// Tokens of one call, where unknown is not zero.
mod usage;
/// What a provider's file must say: its requests and how its replies are read.
mod wire;

use async_trait::async_trait;
use kit::task::CancellationToken;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use endpoint::url_from;
pub use error::{CallError, Fault};
pub use keys::Keys;
pub use open::{OpenError, OpenOptions, open};
pub use retry::{CallPolicy, SystemTimer, Timer, Wait};
pub use schema::Schema;
pub use spec::{ModelSpec, ParseSpecError, Provider};
pub use usage::Usage;

/// How many requests of one call may be billed, the one that is answered included. [`price::Price::reserve`]
/// counts on it.
pub const BILLED_ATTEMPTS: u32 = 3;

/// What is asked of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// A short, stable word for what the call is for (`plan`, `code`, …): logs and prompt caches are keyed by it.
    pub purpose: String,
    /// Instructions. Keep them byte-identical between calls of one purpose: providers cache the prefix.
    pub system: String,
    /// The conversation; the last message is the user's.
    pub messages: Vec<Message>,
    /// The shape the answer must have; without one the answer is text.
    pub schema: Option<Schema>,
    /// The most tokens the model may write, reasoning included. An answer cut off there is asked for once more
    /// with twice as many.
    pub max_output_tokens: u32,
}

impl Request {
    /// A guess from above at the tokens of the prompt: half its bytes. English and code need a quarter to a
    /// third; a reservation that is too large is given back, one that is too small overspends.
    #[must_use]
    pub fn prompt_tokens_at_most(&self) -> u64 {
        let schema = self.schema.as_ref().map_or(0, |schema| schema.json.to_string().len());
        let text: usize = self.messages.iter().map(|message| message.text.len() + 16).sum();
        (self.system.len() + text + schema) as u64 / 2 + 64
    }
}

/// One turn of the conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Whose turn.
    pub role: Role,
    /// What was said.
    pub text: String,
}

impl Message {
    /// A turn of the user.
    #[must_use]
    pub fn user(text: impl Into<String>) -> Self {
        Self { role: Role::User, text: text.into() }
    }
    /// A turn of the model.
    #[must_use]
    pub fn assistant(text: impl Into<String>) -> Self {
        Self { role: Role::Assistant, text: text.into() }
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// We.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// As all four providers spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// An accepted answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The answer; where a shape was asked for, the JSON it was given in.
    pub text: String,
    /// The answer as a value; present exactly where a shape was asked for, and of that shape.
    pub json: Option<serde_json::Value>,
    /// Tokens of the attempt that gave this answer.
    pub usage: Usage,
    /// The model that answered, as it names itself.
    pub model: String,
    /// The provider's id of the request: what its support asks for.
    pub request_id: Option<String>,
    /// Requests sent, this one included.
    pub attempts: u32,
    /// Tokens of attempts that may be billed and gave no answer; one with unknown counts stands for an attempt
    /// of which nothing is known.
    pub lost: Vec<Usage>,
}

/// A model that can be asked.
#[async_trait]
pub trait Model: Send + Sync {
    /// Which one.
    fn spec(&self) -> &ModelSpec;

    /// Asks, with retries, until an answer is accepted. `progress` gets the number of bytes of answer received
    /// in the attempt that runs (it falls to 0 at a new attempt); where the receiver is slow, numbers are left
    /// out. Dropping the future or cancelling closes the connection, at which servers stop writing.
    ///
    /// # Errors
    /// [`CallError`]: what happened, what to do, and the tokens that were lost on the way.
    async fn call(
        &self,
        request: &Request,
        cancel: &CancellationToken,
        progress: Option<&mpsc::Sender<usize>>,
    ) -> Result<Reply, CallError>;
}
