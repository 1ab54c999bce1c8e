use super::{
    super::wire::testing::{data, decode, request},
    *,
};

fn wire() -> Anthropic {
    Anthropic { model: "claude-sonnet-5-5".into() }
}

const WHOLE: &str = include_str!("../../tests/llm/anthropic.sse");

#[test]
fn the_body_holds_nothing_that_new_models_refuse() {
    let body = wire().body(&request(), 16_000).expect("a body");
    for refused in ["temperature", "top_p", "top_k", "tool_choice", "tools", "thinking"] {
        assert!(body.get(refused).is_none(), "{refused}");
    }
    assert_eq!(body["system"][0]["cache_control"]["type"], "ephemeral");
    assert_eq!(body["output_config"]["format"]["schema"]["additionalProperties"], false);
    assert!(body["output_config"]["format"]["schema"]["properties"]["score"].get("minimum").is_none());
    assert_eq!((&body["stream"], &body["max_tokens"]), (&json!(true), &json!(16_000)));
}

#[test]
fn the_prefix_is_the_same_from_call_to_call() {
    let mut other = request();
    other.messages[0].text = "Another question.".into();
    let prefix = |request: &Request| {
        let mut body = wire().body(request, 16_000).expect("a body");
        body.as_object_mut().expect("an object").remove("messages");
        body.to_string()
    };
    assert_eq!(prefix(&request()), prefix(&other));
}

#[test]
fn text_comes_from_text_blocks_and_counts_replace_each_other() {
    let answer = decode(&wire(), &request(), &data(WHOLE)).expect("complete");
    assert_eq!(answer.text, "{\"title\":\"Größe 🌍\",\"score\":3}");
    assert_eq!(
        answer.usage,
        Usage {
            input_uncached: Some(12),
            cache_read: Some(2048),
            cache_write_5m: Some(0),
            cache_write_1h: Some(0),
            output_total: Some(310),
            output_reasoning: Some(280),
        }
    );
}

#[test]
fn a_stream_cut_anywhere_is_no_answer() {
    let frames = data(WHOLE);
    for end in 0..frames.len() {
        let cut = decode(&wire(), &request(), &frames[..end]);
        assert!(matches!(cut, Err(Fault::MidStream(_))), "{end} frames: {cut:?}");
    }
}

fn stopped(delta: &str) -> Result<Answer, Fault> {
    let end = format!("{{\"type\":\"message_delta\",\"delta\":{delta},\"usage\":{{\"output_tokens\":5}}}}");
    let mut frames = data(WHOLE);
    let last = frames.len() - 2;
    frames[last] = &end;
    decode(&wire(), &request(), &frames)
}

#[test]
fn every_other_stop_reason_is_an_error_of_its_own() {
    assert_eq!(
        stopped(r#"{"stop_reason":"max_tokens"}"#),
        Err(Fault::Truncated { limit: 16_000, reasoning: None })
    );
    assert!(matches!(
        stopped(r#"{"stop_reason":"refusal","stop_details":{"category":"frontier_llm","explanation":null}}"#),
        Err(Fault::Refused(why)) if why == "frontier_llm"
    ));
    assert!(matches!(
        stopped(r#"{"stop_reason":"model_context_window_exceeded"}"#),
        Err(Fault::ContextFull(_))
    ));
    for other in ["pause_turn", "tool_use", "something_new"] {
        let delta = format!("{{\"stop_reason\":\"{other}\"}}");
        assert_eq!(stopped(&delta), Err(Fault::Incomplete(other.into())));
    }
}

#[test]
fn a_refusal_with_no_content_is_a_refusal() {
    let reply = r#"{"id":"msg_s3","type":"message","role":"assistant","model":"claude-opus-5-5","content":[],"stop_reason":"refusal","stop_details":{"type":"refusal","category":"frontier_llm","explanation":null},"usage":{"input_tokens":40,"output_tokens":0}}"#;
    let mut decoder = wire().decoder(&request(), 100);
    decoder.whole(&serde_json::from_str(reply).expect("JSON")).expect("read");
    assert!(matches!(decoder.finish(), Err(Fault::Refused(_))));
    assert_eq!(decoder.usage().input_uncached, Some(40));
}

#[test]
fn errors_are_classed_by_type_and_code() {
    let fault = |status, kind: &str, code: &str| {
        let body = json!({"type": "error", "error": {"type": kind, "message": "m", "details": {"error_code": code}}});
        wire().http_fault(status, &body.to_string())
    };
    for code in ["enforced_spend_limit_reached", "contract_spend_limit_reached"] {
        assert!(matches!(fault(429, "rate_limit_error", code), Fault::Quota(_)));
    }
    assert!(matches!(fault(429, "rate_limit_error", "ramp_limit_exceeded"), Fault::RateLimit { .. }));
    assert!(matches!(fault(529, "overloaded_error", ""), Fault::Overload { .. }));
    assert!(matches!(fault(500, "api_error", ""), Fault::Server { status: 500, .. }));
    assert!(matches!(fault(404, "not_found_error", ""), Fault::ModelMissing(_)));
    assert!(matches!(fault(401, "authentication_error", ""), Fault::Auth(_, "ANTHROPIC_API_KEY")));
    assert!(matches!(fault(400, "invalid_request_error", ""), Fault::BadRequest { status: 400, .. }));
    let long =
        json!({"error": {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8"}});
    assert!(matches!(wire().http_fault(400, &long.to_string()), Fault::ContextFull(_)));
    assert!(matches!(wire().http_fault(413, "<html>"), Fault::TooLarge));
    assert!(matches!(wire().http_fault(502, "<html>"), Fault::Server { status: 502, .. }));
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    assert!(matches!(decode(&wire(), &request(), &[overloaded]), Err(Fault::Overload { .. })));
}
