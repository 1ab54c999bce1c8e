//! What a provider's file must say: what it sends and how it reads what comes back. All of it is pure, so that a
//! table of frames tests a provider without a server.

use serde_json::Value;

use super::{Request, error::Fault, usage::Usage};

/// How a stream is cut into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Server-sent events.
    Events,
    /// One JSON object a line.
    Lines,
}

/// What the decoder wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// More frames.
    More,
    /// All that matters is here, a last frame may follow: wait for it, but not long.
    Almost,
    /// The terminal marker was seen.
    Done,
}

/// An answer that the provider calls complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The text, reasoning left out.
    pub text: String,
    /// Where `text` is empty and the server put something into its reasoning field: that.
    pub aside: Option<String>,
    /// Tokens.
    pub usage: Usage,
    /// The model, as the server names it.
    pub model: Option<String>,
}

/// A provider's format.
pub(super) trait Wire: Send + Sync {
    /// Below the base URL.
    fn path(&self) -> &'static str;
    /// How its streams are cut.
    fn framing(&self) -> Framing {
        Framing::Events
    }
    /// Headers beside content type and key.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
    /// The request's body with a budget of `limit` tokens of output.
    fn body(&self, request: &Request, limit: u32) -> Result<Value, Fault>;
    /// Reads the frames of one attempt at that request.
    fn decoder(&self, request: &Request, limit: u32) -> Box<dyn Decoder>;
    /// The class of an HTTP error; `body` is whatever came, JSON or not.
    fn http_fault(&self, status: u16, body: &str) -> Fault;
    /// Whether another body may pass where this one failed; says what was changed. Each change is made once.
    fn adapt(&self, _fault: &Fault) -> Option<&'static str> {
        None
    }
    /// Whether servers of this format leave reasoning or Markdown fences in the answer's text.
    fn untidy(&self) -> bool {
        false
    }
}

/// The state of one attempt.
pub(super) trait Decoder: Send {
    /// Takes one frame.
    fn take(&mut self, frame: &str) -> Result<Step, Fault>;
    /// Takes a reply that came whole though a stream was asked for.
    fn whole(&mut self, reply: &Value) -> Result<(), Fault>;
    /// After the last frame: the answer, if it is complete.
    fn finish(&mut self) -> Result<Answer, Fault>;
    /// Bytes of answer so far.
    fn written(&self) -> usize;
    /// Tokens as far as they are known.
    fn usage(&self) -> Usage;
}

/// One frame as JSON. A frame that is none means that the stream is broken.
pub(super) fn parse(frame: &str) -> Result<Value, Fault> {
    serde_json::from_str(frame)
        .map_err(|error| Fault::MidStream(format!("a frame is not JSON ({error}): {}", short(frame))))
}

/// A text field, or "" where it is absent or not a text.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A server's words on one printable line.
pub(super) fn short(text: &str) -> String {
    kit::text::one_line(text, 200)
}

/// The class that a status alone gives, the same for all providers.
pub(super) fn by_status(status: u16, detail: String, key: &'static str) -> Fault {
    match status {
        401 | 403 => Fault::Auth(detail, key),
        402 => Fault::Quota(detail),
        404 => Fault::ModelMissing(detail),
        413 => Fault::TooLarge,
        429 => Fault::RateLimit { retry_after: None, detail },
        503 | 529 => Fault::Overload { retry_after: None, detail },
        408 | 409 | 500..=599 => Fault::Server { status, detail, retry_after: None },
        // A page where an answer should be: a proxy or a login form.
        200..=299 => Fault::Server { status, detail, retry_after: None },
        300..=399 => {
            Fault::BadRequest { status, detail: format!("a redirect, which is not followed: {detail}") }
        }
        _ => Fault::BadRequest { status, detail },
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! Feeds frames to a decoder as the client does.
    use super::*;

    /// Frames in, answer out.
    pub fn decode(wire: &dyn Wire, request: &Request, frames: &[&str]) -> Result<Answer, Fault> {
        let mut decoder = wire.decoder(request, request.max_output_tokens);
        for frame in frames {
            if decoder.take(frame)? == Step::Done {
                break;
            }
        }
        decoder.finish()
    }

    /// The frames of a stream of events, without its other lines.
    pub fn data(events: &str) -> Vec<&str> {
        events.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
    }

    /// A request of the samples' shape.
    pub fn request() -> Request {
        Request {
            purpose: "plan".into(),
            system: "Be brief.".into(),
            messages: vec![super::super::Message::user("Name it.")],
            schema: Some(super::super::Schema {
                name: "answer".into(),
                json: serde_json::json!({"type": "object", "required": ["title", "score"], "properties": {
                    "title": {"type": "string"}, "score": {"type": "integer", "minimum": 0}}}),
            }),
            max_output_tokens: 16_000,
        }
    }
}
