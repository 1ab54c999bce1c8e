//! `anthropic`: the Messages format, version 2026-10-21.
//!
//! Design notes. Sampling parameters and forced tools are refused by the newest models, so neither is ever sent;
//! structured output is `output_config.format`. Thinking is left to the model's default and its blocks are
//! skipped by type: on those models the first block is never the text. Counts in `message_delta` are cumulative:
//! they replace, they are not added.

use serde_json::{Value, json};

use super::{
    Request,
    error::Fault,
    keys::Keys,
    spec::Provider,
    usage::Usage,
    wire::{Answer, Decoder, Step, Wire, by_status, parse, short, text},
};

const VERSION: &str = "2026-10-21";

pub(super) struct Anthropic {
    pub model: String,
}

impl Wire for Anthropic {
    fn path(&self) -> &'static str {
        "/v1/messages"
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("anthropic-version", VERSION)]
    }

    fn body(&self, request: &Request, limit: u32) -> Result<Value, Fault> {
        let mut body = json!({
            "model": self.model,
            "max_tokens": limit,
            "stream": true,
            "messages": request.messages.iter()
                .map(|message| json!({"role": message.role.as_str(), "content": message.text}))
                .collect::<Vec<_>>(),
        });
        if !request.system.is_empty() {
            body["system"] = json!([{"type": "text", "text": request.system,
                "cache_control": {"type": "ephemeral", "ttl": "5m"}}]);
        }
        if let Some(schema) = &request.schema {
            body["output_config"] = json!({"format": {"type": "json_schema", "schema": schema.for_body()?}});
        }
        Ok(body)
    }

    fn decoder(&self, _request: &Request, limit: u32) -> Box<dyn Decoder> {
        Box::new(Message { limit, ..Message::default() })
    }

    fn http_fault(&self, status: u16, body: &str) -> Fault {
        match serde_json::from_str::<Value>(body) {
            Ok(value) if value["error"].is_object() => classify(status, &value["error"]),
            _ => by_status(status, short(body), Keys::variable(Provider::Anthropic)),
        }
    }
}

/// The class of an error object: by type and code, never by its words, except for the one class that has no type.
fn classify(status: u16, error: &Value) -> Fault {
    let key = Keys::variable(Provider::Anthropic);
    let kind = text(error, "type");
    let code = text(&error["details"], "error_code");
    let message = text(error, "message");
    let detail = short(if message.is_empty() { kind } else { message });
    if matches!(code, "enforced_spend_limit_reached" | "contract_spend_limit_reached") {
        return Fault::Quota(detail);
    }
    match kind {
        "authentication_error" | "permission_error" => Fault::Auth(detail, key),
        "billing_error" => Fault::Quota(detail),
        "not_found_error" => Fault::ModelMissing(detail),
        "request_too_large" => Fault::TooLarge,
        "rate_limit_error" => Fault::RateLimit { retry_after: None, detail },
        "overloaded_error" => Fault::Overload { retry_after: None, detail },
        "api_error" | "timeout_error" => Fault::Server { status, detail, retry_after: None },
        "invalid_request_error" if message.contains("prompt is too long") => Fault::ContextFull(detail),
        "invalid_request_error" if message.contains("credit balance") || message.contains("usage limits") => {
            Fault::Quota(detail)
        }
        "invalid_request_error" => Fault::BadRequest { status, detail },
        // After HTTP 200 the status says nothing.
        _ if status == 200 => Fault::MidStream(detail),
        _ => by_status(status, detail, key),
    }
}

/// One message in the making.
#[derive(Default)]
struct Message {
    limit: u32,
    model: Option<String>,
    text: String,
    stop_reason: Option<String>,
    stop_details: Value,
    usage: Usage,
    stopped: bool,
}

impl Message {
    fn take_usage(&mut self, usage: &Value) {
        let set = |slot: &mut Option<u64>, value: &Value| {
            if let Some(count) = value.as_u64() {
                *slot = Some(count);
            }
        };
        set(&mut self.usage.input_uncached, &usage["input_tokens"]);
        set(&mut self.usage.cache_read, &usage["cache_read_input_tokens"]);
        let writes = &usage["cache_creation"];
        if writes.is_object() {
            set(&mut self.usage.cache_write_5m, &writes["ephemeral_5m_input_tokens"]);
            set(&mut self.usage.cache_write_1h, &writes["ephemeral_1h_input_tokens"]);
        } else if self.usage.cache_write_1h.is_none() {
            set(&mut self.usage.cache_write_5m, &usage["cache_creation_input_tokens"]);
        }
        set(&mut self.usage.output_total, &usage["output_tokens"]);
        set(&mut self.usage.output_reasoning, &usage["output_tokens_details"]["thinking_tokens"]);
    }

    fn take_head(&mut self, message: &Value) {
        self.model = message["model"].as_str().map(str::to_owned);
        self.take_usage(&message["usage"]);
    }

    fn take_stop(&mut self, of: &Value) {
        if let Some(reason) = of["stop_reason"].as_str() {
            self.stop_reason = Some(reason.to_owned());
            self.stop_details = of["stop_details"].clone();
        }
    }
}

impl Decoder for Message {
    fn take(&mut self, frame: &str) -> Result<Step, Fault> {
        let event = parse(frame)?;
        match text(&event, "type") {
            "message_start" => self.take_head(&event["message"]),
            "content_block_start" if event["content_block"]["type"] == "text" => {
                self.text.push_str(text(&event["content_block"], "text"));
            }
            "content_block_delta" if event["delta"]["type"] == "text_delta" => {
                self.text.push_str(text(&event["delta"], "text"));
            }
            "message_delta" => {
                self.take_stop(&event["delta"]);
                self.take_usage(&event["usage"]);
            }
            "message_stop" => {
                self.stopped = true;
                return Ok(Step::Done);
            }
            "error" => return Err(classify(200, &event["error"])),
            // Other blocks and deltas, `ping`, and what future versions add.
            _ => {}
        }
        Ok(Step::More)
    }

    fn whole(&mut self, reply: &Value) -> Result<(), Fault> {
        if reply["type"] == "error" {
            return Err(classify(200, &reply["error"]));
        }
        self.take_head(reply);
        for block in reply["content"].as_array().into_iter().flatten().filter(|block| block["type"] == "text")
        {
            self.text.push_str(text(block, "text"));
        }
        self.take_stop(reply);
        self.stopped = self.stop_reason.is_some();
        Ok(())
    }

    fn finish(&mut self) -> Result<Answer, Fault> {
        let reason = match &self.stop_reason {
            Some(reason) if self.stopped => reason.as_str(),
            _ => return Err(Fault::MidStream("the stream ended before `message_stop`".into())),
        };
        match reason {
            "end_turn" => Ok(Answer {
                text: std::mem::take(&mut self.text),
                aside: None,
                usage: self.usage,
                model: self.model.take(),
            }),
            "max_tokens" => {
                Err(Fault::Truncated { limit: self.limit, reasoning: self.usage.output_reasoning })
            }
            "model_context_window_exceeded" => {
                Err(Fault::ContextFull("the context was full before the answer was complete".into()))
            }
            "refusal" => {
                let category = self.stop_details["category"].as_str().unwrap_or("no category given");
                let explanation = text(&self.stop_details, "explanation");
                Err(Fault::Refused(short(format!("{category} {explanation}").trim())))
            }
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
#[path = "anthropic_tests.rs"]
mod tests;
