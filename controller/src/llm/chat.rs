//! The Chat Completions format, as `compatible` servers speak it: vLLM, llama.cpp, LM Studio, OpenRouter.
//!
//! Design notes. What such a server takes is found out once and remembered: a 400 that names the field changes the
//! form of the request (structured output from `json_schema` to `json_object` to words in the prompt; the name of
//! the token limit; usage in streams) and never anything else. A finish reason is the marker of the end; the
//! `[DONE]` behind it is waited for, but some servers never send it and hold the connection open.

use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::{
    Request,
    error::Fault,
    keys::Keys,
    openai::{classify, http_fault},
    spec::Provider,
    usage::{Usage, inclusive},
    wire::{Answer, Decoder, Step, Wire, parse, short, text},
};

pub(super) struct Chat {
    model: String,
    form: Mutex<Form>,
}

/// How structure is asked for, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Structured {
    Schema,
    Object,
    Prompt,
}

/// What the server was found to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    structured: Structured,
    limit_field: &'static str,
    limit_changed: bool,
    stream_usage: bool,
}

impl Chat {
    pub fn new(model: String) -> Self {
        let form = Form {
            structured: Structured::Schema,
            limit_field: "max_tokens",
            limit_changed: false,
            stream_usage: true,
        };
        Self { model, form: Mutex::new(form) }
    }

    fn form(&self) -> Form {
        *self.form.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire for Chat {
    fn path(&self) -> &'static str {
        "/chat/completions"
    }

    fn body(&self, request: &Request, limit: u32) -> Result<Value, Fault> {
        let form = self.form();
        let mut system = request.system.clone();
        let mut format = None;
        if let Some(schema) = &request.schema {
            match form.structured {
                Structured::Schema => {
                    format = Some(json!({"type": "json_schema", "json_schema": {"name": schema.safe_name(),
                        "strict": true, "schema": schema.for_body()?}}));
                }
                Structured::Object => {
                    format = Some(json!({"type": "json_object"}));
                    system.push_str(&schema.for_prompt()?);
                }
                Structured::Prompt => system.push_str(&schema.for_prompt()?),
            }
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
        let mut body = json!({"model": self.model, "messages": messages, "stream": true});
        body[form.limit_field] = json!(limit);
        if form.stream_usage {
            body["stream_options"] = json!({"include_usage": true});
        }
        if let Some(format) = format {
            body["response_format"] = format;
        }
        Ok(body)
    }

    fn decoder(&self, _request: &Request, limit: u32) -> Box<dyn Decoder> {
        Box::new(Completion { limit, ..Completion::default() })
    }

    fn http_fault(&self, status: u16, body: &str) -> Fault {
        http_fault(status, body, Keys::variable(Provider::Compatible))
    }

    fn adapt(&self, fault: &Fault) -> Option<&'static str> {
        let Fault::BadRequest { status: 400 | 422, detail } = fault else { return None };
        let mut form = self.form.lock().unwrap_or_else(PoisonError::into_inner);
        let names = |words: &[&str]| words.iter().any(|word| detail.contains(word));
        if names(&["stream_options"]) && form.stream_usage {
            form.stream_usage = false;
            return Some("without usage in the stream: its cost stays unknown");
        }
        if names(&["max_tokens", "max_completion_tokens"]) && !form.limit_changed {
            form.limit_changed = true;
            form.limit_field = "max_completion_tokens";
            return Some("the token limit as max_completion_tokens");
        }
        if names(&["response_format", "json_schema", "json_object", "structured", "grammar"]) {
            let (next, said) = match form.structured {
                Structured::Schema => {
                    (Structured::Object, "structure as json_object, the schema in the prompt")
                }
                Structured::Object => (Structured::Prompt, "structure by the prompt alone"),
                Structured::Prompt => return None,
            };
            form.structured = next;
            return Some(said);
        }
        None
    }

    fn untidy(&self) -> bool {
        true
    }
}

/// One completion in the making.
#[derive(Default)]
struct Completion {
    limit: u32,
    model: Option<String>,
    text: String,
    reasoning: String,
    refusal: String,
    finish: Option<String>,
    usage: Usage,
}

const USAGE: [&str; 4] =
    ["prompt_tokens", "prompt_tokens_details", "completion_tokens", "completion_tokens_details"];

impl Completion {
    /// A message or a delta.
    fn take_part(&mut self, part: &Value) {
        self.text.push_str(text(part, "content"));
        self.refusal.push_str(text(part, "refusal"));
        let reasoning = ["reasoning", "reasoning_content"].into_iter().map(|field| text(part, field));
        self.reasoning.push_str(reasoning.max_by_key(|text| text.len()).unwrap_or_default());
    }

    fn take_frame(&mut self, frame: &Value) -> Result<(), Fault> {
        if frame["error"].is_object() {
            return Err(classify(200, &frame["error"], Keys::variable(Provider::Compatible)));
        }
        if frame["error"].is_string() {
            return Err(Fault::MidStream(short(text(frame, "error"))));
        }
        if let Some(model) = frame["model"].as_str() {
            self.model.get_or_insert_with(|| model.to_owned());
        }
        if let Some(choice) = frame["choices"].as_array().and_then(|choices| choices.first()) {
            if choice["error"].is_object() {
                return Err(classify(200, &choice["error"], Keys::variable(Provider::Compatible)));
            }
            self.take_part(&choice["delta"]);
            self.take_part(&choice["message"]);
            let finish = text(choice, "finish_reason");
            if !finish.is_empty() {
                self.finish = Some(finish.to_owned());
            }
        }
        // Some servers repeat a running count with each chunk: the last one stands.
        if frame["usage"].as_object().is_some_and(|usage| !usage.is_empty()) {
            self.usage = inclusive(&frame["usage"], USAGE);
        }
        Ok(())
    }
}

impl Decoder for Completion {
    fn take(&mut self, frame: &str) -> Result<Step, Fault> {
        if frame.trim() == "[DONE]" {
            return Ok(Step::Done);
        }
        self.take_frame(&parse(frame)?)?;
        Ok(if self.finish.is_some() { Step::Almost } else { Step::More })
    }

    fn whole(&mut self, reply: &Value) -> Result<(), Fault> {
        self.take_frame(reply)
    }

    fn finish(&mut self) -> Result<Answer, Fault> {
        let Some(reason) = self.finish.take() else {
            return Err(Fault::MidStream("the stream ended without a finish reason".into()));
        };
        match reason.as_str() {
            "stop" if self.refusal.is_empty() => Ok(Answer {
                text: std::mem::take(&mut self.text),
                aside: Some(std::mem::take(&mut self.reasoning)).filter(|text| !text.is_empty()),
                usage: self.usage,
                model: self.model.take(),
            }),
            "stop" => Err(Fault::Refused(short(&self.refusal))),
            "length" => Err(Fault::Truncated { limit: self.limit, reasoning: self.usage.output_reasoning }),
            "content_filter" | "refusal" => {
                let said = if self.refusal.is_empty() { &reason } else { &self.refusal };
                Err(Fault::Refused(short(said)))
            }
            "insufficient_system_resource" => Err(Fault::Overload { retry_after: None, detail: reason }),
            "error" | "abort" => Err(Fault::MidStream(format!("the server's finish reason is `{reason}`"))),
            other => Err(Fault::Incomplete(short(other))),
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
#[path = "chat_tests.rs"]
mod tests;
