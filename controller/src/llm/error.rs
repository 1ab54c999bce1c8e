//! Why a call failed, and what to do. One enum for all providers, so that the campaign decides by class and never
//! by a vendor's prose. Server texts are cut to one printable line and the key is taken out of them before they
//! come here.

use std::time::Duration;

use super::{spec::ModelSpec, usage::Usage};

/// A call that gave no accepted answer.
#[derive(Debug, thiserror::Error)]
#[error("{spec}: {fault}{}", after(*attempts))]
pub struct CallError {
    /// The model that was asked.
    pub spec: ModelSpec,
    /// What happened, and what to do.
    pub fault: Fault,
    /// Requests sent.
    pub attempts: u32,
    /// Tokens that may be billed though no answer came; see [`super::Reply::lost`].
    pub lost: Vec<Usage>,
    /// The provider's id of the last request, where it gave one.
    pub request_id: Option<String>,
}

fn after(attempts: u32) -> String {
    if attempts > 1 { format!(" (after {attempts} attempts)") } else { String::new() }
}

impl CallError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.fault.is_retryable()
    }
}

/// What happened in one attempt, or to the call as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The key is missing, wrong, or may not use the model.
    #[error("the provider refused the key: {0}; check {1}")]
    Auth(String, &'static str),
    /// Money or a hard limit is used up. Asking again does not help.
    #[error(
        "the account's credit or spending limit is used up: {0}; raise it at the provider, then `resume`"
    )]
    Quota(String),
    /// We found fault with the request and did not send it.
    #[error("the request cannot be sent: {0}")]
    Unsendable(String),
    /// The server found fault with the request.
    #[error("the server refused the request (HTTP {status}): {detail}")]
    BadRequest {
        /// Its status.
        status: u16,
        /// Its words.
        detail: String,
    },
    /// The server does not have the model.
    #[error("the server does not have this model: {0}")]
    ModelMissing(String),
    /// The request is larger than the server takes.
    #[error("the request is larger than the server takes (HTTP 413); shorten the prompt")]
    TooLarge,
    /// Too many requests.
    #[error("rate limit: {detail}{}", wait(*retry_after))]
    RateLimit {
        /// How long the server wants us to wait.
        retry_after: Option<Duration>,
        /// Its words.
        detail: String,
    },
    /// The server has too much to do, or is loading the model.
    #[error("the server is overloaded: {detail}{}", wait(*retry_after))]
    Overload {
        /// How long the server wants us to wait.
        retry_after: Option<Duration>,
        /// Its words.
        detail: String,
    },
    /// The server failed.
    #[error("the server failed (HTTP {status}): {detail}{}", wait(*retry_after))]
    Server {
        /// Its status; 200 where it failed after it had begun to answer well.
        status: u16,
        /// Its words.
        detail: String,
        /// How long the server wants us to wait.
        retry_after: Option<Duration>,
    },
    /// Nobody listens at the address.
    #[error("nobody answers at {0}: is the server running, and is --llm-url right?")]
    Connect(String),
    /// The connection broke before an answer began.
    #[error("the connection failed: {0}")]
    Transport(String),
    /// The answer broke off.
    #[error("the answer broke off: {0}")]
    MidStream(String),
    /// The answer did not fit into the budget of tokens, not even into the doubled one.
    #[error("the answer was cut off at {limit} tokens{}; ask for less, or raise the limit", reasoned(*reasoning))]
    Truncated {
        /// The budget of the last attempt.
        limit: u32,
        /// How much of it went into reasoning, where known.
        reasoning: Option<u64>,
    },
    /// The prompt does not fit into the model's context.
    #[error(
        "the prompt does not fit into the model's context: {0}; shorten it or use a model with a larger one"
    )]
    ContextFull(String),
    /// The model declined.
    #[error("the model declined to answer: {0}; try another model")]
    Refused(String),
    /// It stopped for a reason that is not "complete"; the raw word.
    #[error("the answer is not complete: the server's reason is `{0}`")]
    Incomplete(String),
    /// A shape was asked for and the answer is not JSON as a whole.
    #[error("the answer is not one JSON value: {why}")]
    NotJson {
        /// Where it fails.
        why: String,
        /// What was received, for sending it back.
        text: String,
    },
    /// The answer is JSON of another shape.
    #[error("the answer has the wrong shape at `{path}`: {why}")]
    WrongShape {
        /// The field at fault, as a path (`variants[2].name`), `.` for the whole.
        path: String,
        /// What is wrong with it.
        why: String,
        /// What was received, for sending it back.
        text: String,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// All attempts together took too long.
    #[error("no answer within {}", kit::duration::Span(*.0))]
    Deadline(Duration),
}

fn wait(retry_after: Option<Duration>) -> String {
    retry_after
        .map_or_else(String::new, |wait| format!(" (it asks to wait {:.0} s)", wait.as_secs_f64().ceil()))
}

fn reasoned(reasoning: Option<u64>) -> String {
    reasoning.map_or_else(String::new, |tokens| format!(", {tokens} of them spent on reasoning"))
}

impl Fault {
    /// Whether a whole new call may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::RateLimit { .. }
            | Self::Overload { .. }
            | Self::Server { .. }
            | Self::Connect(_)
            | Self::Transport(_)
            | Self::MidStream(_) => true,
            Self::Auth(..)
            | Self::Quota(_)
            | Self::Unsendable(_)
            | Self::BadRequest { .. }
            | Self::ModelMissing(_)
            | Self::TooLarge
            | Self::Truncated { .. }
            | Self::ContextFull(_)
            | Self::Refused(_)
            | Self::Incomplete(_)
            | Self::NotJson { .. }
            | Self::WrongShape { .. }
            | Self::Cancelled
            | Self::Deadline(_) => false,
        }
    }

    /// The class as one word: what the journal keeps beside the message.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Auth(..) => "auth",
            Self::Quota(_) => "quota",
            Self::Unsendable(_) => "unsendable",
            Self::BadRequest { .. } => "bad_request",
            Self::ModelMissing(_) => "model_missing",
            Self::TooLarge => "too_large",
            Self::RateLimit { .. } => "rate_limit",
            Self::Overload { .. } => "overload",
            Self::Server { .. } => "server",
            Self::Connect(_) => "connect",
            Self::Transport(_) => "transport",
            Self::MidStream(_) => "mid_stream",
            Self::Truncated { .. } => "truncated",
            Self::ContextFull(_) => "context_full",
            Self::Refused(_) => "refused",
            Self::Incomplete(_) => "incomplete",
            Self::NotJson { .. } => "not_json",
            Self::WrongShape { .. } => "wrong_shape",
            Self::Cancelled => "cancelled",
            Self::Deadline(_) => "deadline",
        }
    }

    /// How long the server wants us to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimit { retry_after, .. }
            | Self::Overload { retry_after, .. }
            | Self::Server { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The text that was received, where the answer can be sent back with what is wrong with it.
    #[must_use]
    pub fn answer(&self) -> Option<&str> {
        match self {
            Self::NotJson { text, .. } | Self::WrongShape { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Changes the server's words; an answer that can be sent back stays as it is.
    pub(super) fn map_words(mut self, change: impl Fn(String) -> String) -> Self {
        let words = match &mut self {
            Self::Auth(words, _)
            | Self::Quota(words)
            | Self::Unsendable(words)
            | Self::ModelMissing(words)
            | Self::Connect(words)
            | Self::Transport(words)
            | Self::MidStream(words)
            | Self::ContextFull(words)
            | Self::Refused(words)
            | Self::Incomplete(words)
            | Self::BadRequest { detail: words, .. }
            | Self::RateLimit { detail: words, .. }
            | Self::Overload { detail: words, .. }
            | Self::Server { detail: words, .. } => words,
            Self::TooLarge
            | Self::Truncated { .. }
            | Self::NotJson { .. }
            | Self::WrongShape { .. }
            | Self::Cancelled
            | Self::Deadline(_) => return self,
        };
        *words = change(std::mem::take(words));
        self
    }

    /// Adds what the response's headers said.
    pub(super) fn with_retry_after(mut self, after: Option<Duration>) -> Self {
        if let Self::RateLimit { retry_after, .. }
        | Self::Overload { retry_after, .. }
        | Self::Server { retry_after, .. } = &mut self
            && after.is_some()
        {
            *retry_after = after;
        }
        self
    }
}
