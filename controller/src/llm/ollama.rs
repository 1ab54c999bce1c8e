//! `ollama`: its own chat format, one JSON object a line.
//!
//! Design notes. The size of the context is sent with every call and is the same in all of them: left out, the
//! server's own is a few thousand tokens on a small card and the front of the prompt is dropped in silence;
//! changed, the model is loaded anew. `truncate` and `shift` are off for the same reason, and because older
//! servers ignore them, the counts that come back are checked against what was sent. A model is never pulled by
//! us: it may be 40 GB. Thinking is off unless a server answers badly because of it.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{
    Request,
    error::Fault,
    keys::Keys,
    spec::Provider,
    usage::Usage,
    wire::{Answer, Decoder, Framing, Step, Wire, by_status, parse, short, text},
};

pub(super) struct Ollama {
    model: String,
    context: u32,
    think_unset: AtomicBool,
}

/// Fewer tokens of answer than this are not worth asking for.
const LEAST_ANSWER: u64 = 1024;

impl Ollama {
    pub fn new(model: String, context: u32) -> Self {
        Self { model, context, think_unset: AtomicBool::new(false) }
    }

    fn system(request: &Request) -> Result<String, Fault> {
        // The grammar only constrains, it does not explain: the schema goes into the prompt as well.
        let schema = request.schema.as_ref().map(super::Schema::for_prompt).transpose()?;
        Ok(format!("{}{}", request.system, schema.unwrap_or_default()))
    }
}

/// Bytes of the prompt as the server gets it.
fn prompt_bytes(system: &str, request: &Request) -> u64 {
    (system.len() + request.messages.iter().map(|message| message.text.len()).sum::<usize>()) as u64
}

impl Wire for Ollama {
    fn path(&self) -> &'static str {
        "/api/chat"
    }

    fn framing(&self) -> Framing {
        Framing::Lines
    }

    fn body(&self, request: &Request, limit: u32) -> Result<Value, Fault> {
        let system = Self::system(request)?;
        let prompt = prompt_bytes(&system, request) / 3;
        let room = u64::from(self.context).saturating_sub(prompt);
        if room < LEAST_ANSWER.min(u64::from(limit)) {
            let context = self.context;
            return Err(Fault::ContextFull(format!(
                "about {prompt} tokens of prompt, and the context holds {context}"
            )));
        }
        let mut messages = Vec::new();
        if !system.is_empty() {
            messages.push(json!({"role": "system", "content": system}));
        }
        messages.extend(
            request
                .messages
                .iter()
                .map(|message| json!({"role": message.role.as_str(), "content": message.text})),
        );
        let mut body = json!({
            "model": self.model,
            "stream": true,
            "keep_alive": "30m",
            "messages": messages,
            "options": {"num_ctx": self.context, "num_predict": u64::from(limit).min(room), "temperature": 0},
            "truncate": false,
            "shift": false,
        });
        if !self.think_unset.load(Ordering::Relaxed) {
            body["think"] = json!(false);
        }
        if let Some(schema) = &request.schema {
            body["format"] = schema.for_body()?;
        }
        Ok(body)
    }

    fn decoder(&self, request: &Request, limit: u32) -> Box<dyn Decoder> {
        let system = Self::system(request).unwrap_or_default();
        Box::new(Chat {
            limit,
            context: u64::from(self.context),
            sent: prompt_bytes(&system, request),
            ..Chat::default()
        })
    }

    fn http_fault(&self, status: u16, body: &str) -> Fault {
        let value: Value = serde_json::from_str(body).unwrap_or_default();
        let said = if value["error"].is_string() { text(&value, "error") } else { body };
        let detail = short(said);
        let full = ["exceed_context_size_error", "context length", "available context"];
        match status {
            400 if full.iter().any(|words| said.contains(words)) => Fault::ContextFull(detail),
            404 => Fault::ModelMissing(format!("{detail}; run `ollama pull {}`", self.model)),
            _ => by_status(status, detail, Keys::variable(Provider::Ollama)),
        }
    }

    fn adapt(&self, fault: &Fault) -> Option<&'static str> {
        let ignored_format = fault.answer().is_some();
        let refused = matches!(fault, Fault::BadRequest { detail, .. } if detail.contains("think"));
        ((ignored_format || refused) && !self.think_unset.swap(true, Ordering::Relaxed))
            .then_some("thinking as the model has it: with it off, some servers ignore the format")
    }

    fn untidy(&self) -> bool {
        true
    }
}

/// One chat reply in the making.
#[derive(Default)]
struct Chat {
    limit: u32,
    context: u64,
    /// Bytes of the prompt.
    sent: u64,
    model: Option<String>,
    text: String,
    reason: String,
    usage: Usage,
    done: bool,
}

/// Prompts below this many bytes are not judged by their token count.
const JUDGED: u64 = 4096;

impl Chat {
    fn take_object(&mut self, line: &Value) -> Result<Step, Fault> {
        if let Some(error) = line.get("error") {
            let said = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
            return Err(Fault::MidStream(short(&said)));
        }
        if let Some(model) = line["model"].as_str() {
            self.model.get_or_insert_with(|| model.to_owned());
        }
        self.text.push_str(text(&line["message"], "content"));
        if line["done"] != Value::Bool(true) {
            return Ok(Step::More);
        }
        self.done = true;
        self.reason = text(line, "done_reason").to_owned();
        let read = line["prompt_eval_cached_count"].as_u64();
        self.usage.cache_read = read;
        self.usage.input_uncached =
            line["prompt_eval_count"].as_u64().map(|all| all.saturating_sub(read.unwrap_or(0)));
        self.usage.output_total = line["eval_count"].as_u64();
        Ok(Step::Done)
    }

    /// Whether the counts say that the server dropped a part of the prompt without a word (PROVIDERS §4.6).
    fn cut(&self) -> bool {
        let (Some(prompt), Some(written)) = (self.usage.input_total(), self.usage.output_total) else {
            return false;
        };
        let context = self.context;
        let half = context / 2 + 2;
        // A token is three to five bytes of what we send. Half of what the sparsest text gives is a cut.
        prompt + 1 >= context
            || prompt + written == context
            || (prompt.abs_diff(half) <= 4 && self.sent / 4 > half)
            || (self.sent >= JUDGED && prompt < self.sent / 10)
    }
}

impl Decoder for Chat {
    fn take(&mut self, frame: &str) -> Result<Step, Fault> {
        let line = parse(frame)?;
        self.take_object(&line)
    }

    fn whole(&mut self, reply: &Value) -> Result<(), Fault> {
        self.take_object(reply).map(|_| ())
    }

    fn finish(&mut self) -> Result<Answer, Fault> {
        if !self.done {
            return Err(Fault::MidStream("the stream ended before its last line".into()));
        }
        if self.cut() {
            let (prompt, context) = (self.usage.input_total().unwrap_or(0), self.context);
            return Err(Fault::ContextFull(format!(
                "the server read {prompt} tokens of {} bytes of prompt (a context of {context} was asked for)",
                self.sent
            )));
        }
        match self.reason.as_str() {
            "stop" => Ok(Answer {
                text: std::mem::take(&mut self.text),
                aside: None,
                usage: self.usage,
                model: self.model.take(),
            }),
            "length" => Err(Fault::Truncated { limit: self.limit, reasoning: None }),
            other => Err(Fault::Incomplete(short(if other.is_empty() { "none given" } else { other }))),
        }
    }

    fn written(&self) -> usize {
        self.text.len()
    }

    fn usage(&self) -> Usage {
        self.usage
    }
}

#[cfg(test)]
#[path = "ollama_tests.rs"]
mod tests;
