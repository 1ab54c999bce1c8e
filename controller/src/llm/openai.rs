//! `openai`: the Responses format.
//!
//! Design notes. Nothing is stored at the provider (`store` is true where it is left out). Text and usage are
//! taken from the terminal event, which holds the whole response; the deltas only show progress. An error event
//! is documented flat and sent nested: both are read, and classed by code, because quota and rate limits may come
//! after HTTP 200. Sampling parameters and effort are never sent: which values are allowed changes by model.

use serde_json::{Value, json};

use super::{
    Request,
    error::Fault,
    keys::Keys,
    retry::retry_after_hint,
    spec::Provider,
    usage::{Usage, inclusive},
    wire::{Answer, Decoder, Step, Wire, by_status, parse, short, text},
};

pub(super) struct OpenAi {
    pub model: String,
}

impl Wire for OpenAi {
    fn path(&self) -> &'static str {
        "/responses"
    }

    fn body(&self, request: &Request, limit: u32) -> Result<Value, Fault> {
        let mut body = json!({
            "model": self.model,
            "stream": true,
            "store": false,
            "stream_options": {"include_obfuscation": false},
            "max_output_tokens": limit,
            "prompt_cache_key": format!("autoresearch-{}", request.purpose.chars().take(40).collect::<String>()),
            "input": request.messages.iter()
                .map(|message| json!({"role": message.role.as_str(), "content": message.text}))
                .collect::<Vec<_>>(),
        });
        if !request.system.is_empty() {
            body["instructions"] = json!(request.system);
        }
        if let Some(schema) = &request.schema {
            body["text"] = json!({"format": {"type": "json_schema", "name": schema.safe_name(), "strict": true,
                "schema": schema.for_body()?}});
        }
        Ok(body)
    }

    fn decoder(&self, _request: &Request, limit: u32) -> Box<dyn Decoder> {
        Box::new(Response { limit, written: 0, last: None })
    }

    fn http_fault(&self, status: u16, body: &str) -> Fault {
        http_fault(status, body, Keys::variable(Provider::OpenAi))
    }
}

/// The class of an HTTP error in OpenAI's form, which `compatible` servers share.
pub(super) fn http_fault(status: u16, body: &str, key: &'static str) -> Fault {
    match serde_json::from_str::<Value>(body) {
        Ok(value) if value["error"].is_object() => classify(status, &value["error"], key),
        Ok(value) if value["error"].is_string() => by_status(status, short(text(&value, "error")), key),
        _ => by_status(status, short(body), key),
    }
}

/// The class of an error object. `status` is the HTTP status, which after a 200 says nothing: then a number in
/// `code` takes its place (compatible servers) or the code's word decides.
pub(super) fn classify(status: u16, error: &Value, key: &'static str) -> Fault {
    let (kind, code) = (text(error, "type"), text(error, "code"));
    let message = text(error, "message");
    let words = [message, code, kind].into_iter().find(|text| !text.is_empty()).unwrap_or("no message");
    let detail = short(words);
    let number = error["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    let either = |known: &[&str]| known.contains(&kind) || known.contains(&code);
    if either(&[
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    ]) {
        return Fault::Quota(detail);
    }
    if either(&["context_length_exceeded", "exceed_context_size_error"]) {
        return Fault::ContextFull(detail);
    }
    if either(&["model_not_found"]) {
        return Fault::ModelMissing(detail);
    }
    if either(&["invalid_api_key", "authentication_error", "permission_error"]) {
        return Fault::Auth(detail, key);
    }
    if either(&["server_is_overloaded", "slow_down", "service_unavailable_error", "unavailable_error"]) {
        return Fault::Overload { retry_after: None, detail };
    }
    if either(&["rate_limit_exceeded", "rate_limit_error"]) {
        return Fault::RateLimit { retry_after: retry_after_hint(message), detail };
    }
    if either(&["server_error"]) {
        return Fault::Server { status, detail, retry_after: None };
    }
    if either(&["content_filter", "bio_policy", "invalid_prompt"]) && status == 200 {
        return Fault::Refused(detail);
    }
    match (status, number) {
        (200, Some(number)) if number >= 400 => by_status(number, detail, key),
        (200, _) if either(&["invalid_request_error"]) => Fault::BadRequest { status, detail },
        (200, _) => Fault::MidStream(detail),
        (400, _) if message.contains("context length") || message.contains("context window") => {
            Fault::ContextFull(detail)
        }
        _ => by_status(status, detail, key),
    }
}

/// One response in the making.
struct Response {
    limit: u32,
    written: usize,
    /// The terminal event's response.
    last: Option<Value>,
}

const USAGE: [&str; 4] = ["input_tokens", "input_tokens_details", "output_tokens", "output_tokens_details"];

impl Decoder for Response {
    fn take(&mut self, frame: &str) -> Result<Step, Fault> {
        let mut event = parse(frame)?;
        match text(&event, "type") {
            "response.output_text.delta" => self.written += text(&event, "delta").len(),
            "response.completed" | "response.incomplete" | "response.failed" => {
                self.last = Some(event["response"].take());
                return Ok(Step::Done);
            }
            "error" => {
                let error = if event["error"].is_object() { &event["error"] } else { &event };
                // The flat form's own `type` is the event's name and no class.
                let error = json!({"type": if event["error"].is_object() { &error["type"] } else { &Value::Null },
                    "code": error["code"], "message": error["message"]});
                return Err(classify(200, &error, Keys::variable(Provider::OpenAi)));
            }
            _ => {}
        }
        Ok(Step::More)
    }

    fn whole(&mut self, reply: &Value) -> Result<(), Fault> {
        if reply["error"].is_object() && reply["status"].is_null() {
            return Err(classify(200, &reply["error"], Keys::variable(Provider::OpenAi)));
        }
        self.last = Some(reply.clone());
        Ok(())
    }

    fn finish(&mut self) -> Result<Answer, Fault> {
        let Some(response) = &self.last else {
            return Err(Fault::MidStream("the stream ended before its terminal event".into()));
        };
        let usage = self.usage();
        match text(response, "status") {
            "completed" => {}
            "failed" => return Err(classify(200, &response["error"], Keys::variable(Provider::OpenAi))),
            "incomplete" => {
                return Err(match text(&response["incomplete_details"], "reason") {
                    "max_output_tokens" => {
                        Fault::Truncated { limit: self.limit, reasoning: usage.output_reasoning }
                    }
                    "content_filter" => Fault::Refused("stopped by the provider's content filter".into()),
                    other => Fault::Incomplete(short(other)),
                });
            }
            other => return Err(Fault::Incomplete(short(other))),
        }
        let mut out = String::new();
        let items = response["output"].as_array().into_iter().flatten();
        for item in items.filter(|item| item["type"] == "message" && item["phase"] != "commentary") {
            for part in item["content"].as_array().into_iter().flatten() {
                match text(part, "type") {
                    "output_text" => out.push_str(text(part, "text")),
                    "refusal" => return Err(Fault::Refused(short(text(part, "refusal")))),
                    _ => {}
                }
            }
        }
        let model = response["model"].as_str().map(str::to_owned);
        Ok(Answer { text: out, aside: None, usage, model })
    }

    fn written(&self) -> usize {
        self.written
    }

    fn usage(&self) -> Usage {
        self.last.as_ref().map_or(Usage::UNKNOWN, |response| inclusive(&response["usage"], USAGE))
    }
}

#[cfg(test)]
#[path = "openai_tests.rs"]
mod tests;
