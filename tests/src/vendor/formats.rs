//! The four wire formats, from the vendors' documentation: what a request must look like, and a streamed answer.

use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::{Asked, Vendor, Wanted};

/// Of a prompt in plain English and JSON; a server that read far fewer tokens has cut the prompt.
const BYTES_A_TOKEN: usize = 4;

/// What is asked, or why the vendor would refuse.
pub(super) fn read(vendor: Vendor, path: &str, headers: &HeaderMap, body: &Value) -> Result<Asked, String> {
    let wanted_path = match vendor {
        Vendor::Anthropic => "/v1/messages",
        Vendor::OpenAi => "/v1/responses",
        Vendor::Ollama => "/api/chat",
        Vendor::Compatible => "/v1/chat/completions",
    };
    if path != wanted_path {
        return Err(format!("path {path}"));
    }
    if body["stream"] != true {
        return Err("`stream` is not true".to_owned());
    }
    authorised(vendor, headers)?;
    let schema = match vendor {
        Vendor::Anthropic => &body["output_config"]["format"]["schema"],
        Vendor::OpenAi => &body["text"]["format"]["schema"],
        Vendor::Ollama => &body["format"],
        Vendor::Compatible => &body["response_format"]["json_schema"]["schema"],
    };
    let text = texts(body, &["messages", "input", "system", "instructions"]);
    let has = |name: &str| schema["properties"][name].is_object();
    let wanted = match () {
        () if has("decision") => Wanted::Decision,
        () if has("plan") => Wanted::Plan,
        () if has("threats") => Wanted::Interpretation,
        // The first program and a mended one have one shape; what failed is only in a repair's prompt.
        () if has("program") && text.contains("What failed:") => Wanted::Repair,
        () if has("program") => Wanted::Code,
        () => return Err(format!("no shape that a researcher is asked for: {schema}")),
    };
    let tokens = (text.len() / BYTES_A_TOKEN) as u64;
    Ok(Asked { wanted, text, tokens })
}

fn authorised(vendor: Vendor, headers: &HeaderMap) -> Result<(), String> {
    let bearer = headers.get("authorization").is_some_and(|v| v.as_bytes().starts_with(b"Bearer "));
    let key = headers.contains_key("x-api-key");
    match vendor {
        Vendor::Anthropic if !headers.contains_key("anthropic-version") => {
            Err("no anthropic-version".to_owned())
        }
        Vendor::Anthropic if bearer == key => Err("one of authorization and x-api-key is wanted".to_owned()),
        Vendor::OpenAi if !bearer => Err("no authorization".to_owned()),
        _ => Ok(()),
    }
}

/// What an answer claims to have cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens {
    pub(super) read: u64,
    pub(super) written: u64,
}

/// Every text below these keys, in order.
fn texts(body: &Value, keys: &[&str]) -> String {
    fn collect(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::String(text) => into.push(text.clone()),
            Value::Array(list) => list.iter().for_each(|v| collect(v, into)),
            Value::Object(map) => map.values().for_each(|v| collect(v, into)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for key in keys {
        collect(&body[*key], &mut found);
    }
    found.join("\n")
}

/// The text in two pieces, cut at a character.
fn halves(text: &str) -> (&str, &str) {
    let middle = (text.len() / 2..).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text.split_at(middle)
}

pub(super) fn stream(vendor: Vendor, text: &str, tokens: Tokens) -> String {
    match vendor {
        Vendor::Anthropic => anthropic(text, tokens),
        Vendor::OpenAi => openai(text, tokens),
        Vendor::Ollama => ollama(text, tokens),
        Vendor::Compatible => compatible(text, tokens),
    }
}

fn events(events: &[Value]) -> String {
    let one =
        |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
    events.iter().map(one).collect()
}

fn anthropic(text: &str, tokens: Tokens) -> String {
    let (first, second) = halves(text);
    let delta = |text: &str| json!({ "type": "content_block_delta", "index": 1, "delta": { "type": "text_delta", "text": text } });
    let usage = |out: u64| {
        json!({ "input_tokens": tokens.read, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                "output_tokens": out })
    };
    events(&[
        json!({ "type": "message_start", "message": { "id": "msg_1", "type": "message", "role": "assistant",
            "model": "claude-sonnet-5-5", "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage(1) } }),
        json!({ "type": "content_block_start", "index": 0,
            "content_block": { "type": "thinking", "thinking": "", "signature": "" } }),
        json!({ "type": "ping" }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "content_block_start", "index": 1, "content_block": { "type": "text", "text": "" } }),
        delta(first),
        delta(second),
        json!({ "type": "content_block_stop", "index": 1 }),
        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn", "stop_sequence": null },
            "usage": usage(tokens.written) }),
        json!({ "type": "message_stop" }),
    ])
}

fn openai(text: &str, tokens: Tokens) -> String {
    let (first, second) = halves(text);
    let response = |status: &str, output: Value, usage: Value| {
        json!({ "id": "resp_1", "object": "response", "created_at": 1_795_478_400, "status": status,
            "model": "gpt-6.2-sol", "output": output, "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
            "error": null, "incomplete_details": null, "usage": usage })
    };
    let delta = |number: u32, text: &str| {
        json!({ "type": "response.output_text.delta", "sequence_number": number, "item_id": "msg_1", "output_index": 0,
            "content_index": 0, "delta": text, "logprobs": [] })
    };
    let whole = json!([{ "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
        "content": [{ "type": "output_text", "text": text, "annotations": [] }] }]);
    let usage = json!({ "input_tokens": tokens.read, "input_tokens_details": { "cached_tokens": 0, "cache_write_tokens": 0 },
        "output_tokens": tokens.written, "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": tokens.read + tokens.written });
    events(&[
        json!({ "type": "response.created", "sequence_number": 0,
            "response": response("in_progress", json!([]), Value::Null) }),
        json!({ "type": "response.output_item.added", "sequence_number": 1, "output_index": 0,
            "item": { "id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": [] } }),
        delta(2, first),
        delta(3, second),
        json!({ "type": "response.completed", "sequence_number": 4, "response": response("completed", whole, usage) }),
    ])
}

fn ollama(text: &str, tokens: Tokens) -> String {
    let (first, second) = halves(text);
    let line = |content: &str| {
        json!({ "model": "m", "created_at": "2026-11-24T02:00:00Z",
            "message": { "role": "assistant", "content": content }, "done": false })
    };
    let end = json!({ "model": "m", "created_at": "2026-11-24T02:00:01Z", "message": { "role": "assistant", "content": "" },
        "done": true, "done_reason": "stop", "total_duration": 900_000_000, "prompt_eval_count": tokens.read,
        "prompt_eval_duration": 90_000_000, "eval_count": tokens.written, "eval_duration": 700_000_000 });
    [line(first), line(second), end].iter().map(|value| format!("{value}\n")).collect()
}

fn compatible(text: &str, tokens: Tokens) -> String {
    let (first, second) = halves(text);
    let chunk = |choices: Value| {
        json!({ "id": "c_1", "object": "chat.completion.chunk", "created": 1_795_478_400, "model": "m",
            "choices": choices })
    };
    let said = |content: &str| {
        chunk(json!([{ "index": 0, "delta": { "content": content }, "finish_reason": null }]))
    };
    let mut last = chunk(json!([]));
    last["usage"] = json!({ "prompt_tokens": tokens.read, "completion_tokens": tokens.written,
        "total_tokens": tokens.read + tokens.written });
    let chunks = [
        said(first),
        said(second),
        chunk(json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }])),
        last,
    ];
    let data: String = chunks.iter().map(|value| format!("data: {value}\n\n")).collect();
    format!(": keep-alive\n\n{data}data: [DONE]\n\n")
}
