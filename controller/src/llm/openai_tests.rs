use super::{
    super::wire::testing::{data, decode, request},
    *,
};

fn wire() -> OpenAi {
    OpenAi { model: "gpt-6.2-sol".into() }
}

const WHOLE: &str = include_str!("../../tests/llm/openai.sse");

fn after_200(frame: &str) -> Fault {
    decode(&wire(), &request(), &[data(WHOLE)[0], frame]).expect_err("not complete")
}

#[test]
fn the_body_asks_for_strict_structure_and_stores_nothing() {
    let body = wire().body(&request(), 16_000).expect("a body");
    assert_eq!((&body["store"], &body["max_output_tokens"]), (&json!(false), &json!(16_000)));
    assert_eq!(body["text"]["format"]["strict"], true);
    assert_eq!(body["text"]["format"]["schema"]["required"], json!(["title", "score"]));
    for refused in ["temperature", "reasoning", "max_tokens", "truncation"] {
        assert!(body.get(refused).is_none(), "{refused}");
    }
}

#[test]
fn the_terminal_event_is_the_answer() {
    let answer = decode(&wire(), &request(), &data(WHOLE)).expect("complete");
    assert_eq!(answer.text, "{\"title\":\"x\",\"score\":3}");
    assert_eq!((answer.usage.input_uncached, answer.usage.cache_read), (Some(176), Some(1024)));
    assert_eq!((answer.usage.output_total, answer.usage.output_reasoning), (Some(240), Some(192)));
    let frames = data(WHOLE);
    for end in 0..frames.len() {
        assert!(matches!(decode(&wire(), &request(), &frames[..end]), Err(Fault::MidStream(_))), "{end}");
    }
}

#[test]
fn error_events_are_read_flat_and_nested_and_classed_by_code() {
    let nested = r#"{"type":"error","sequence_number":2,"error":{"type":"insufficient_quota","code":"credit_balance_exhausted","message":"no credits","param":null}}"#;
    assert!(matches!(after_200(nested), Fault::Quota(_)));
    let flat =
        r#"{"type":"error","sequence_number":2,"code":"rate_limit_exceeded","message":"slow","param":null}"#;
    assert!(matches!(after_200(flat), Fault::RateLimit { .. }));
    let flat = r#"{"type":"error","code":"credit_balance_exhausted","message":"no"}"#;
    assert!(matches!(after_200(flat), Fault::Quota(_)));
    assert!(matches!(after_200(r#"{"type":"error","code":"new_code","message":"?"}"#), Fault::MidStream(_)));
}

#[test]
fn incomplete_and_failed_responses_are_not_answers() {
    let cut = r#"{"type":"response.incomplete","response":{"status":"incomplete","output":[{"id":"rs_s5","type":"reasoning","summary":[]}],"incomplete_details":{"reason":"max_output_tokens"},"usage":{"input_tokens":90,"output_tokens":400,"output_tokens_details":{"reasoning_tokens":400}}}}"#;
    assert_eq!(after_200(cut), Fault::Truncated { limit: 16_000, reasoning: Some(400) });
    let filtered = r#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"content_filter"}}}"#;
    assert!(matches!(after_200(filtered), Fault::Refused(_)));
    let steered = r#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"steered"}}}"#;
    assert_eq!(after_200(steered), Fault::Incomplete("steered".into()));
    let failed = r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"m"},"usage":null}}"#;
    assert!(matches!(after_200(failed), Fault::Server { .. }));
    let refused = r#"{"type":"response.completed","response":{"status":"completed","output":[{"type":"message","content":[{"type":"refusal","refusal":"no"}]}]}}"#;
    assert_eq!(after_200(refused), Fault::Refused("no".into()));
}

#[test]
fn quota_is_told_from_rate_limit_by_code_and_never_by_status() {
    let fault = |status, kind: &str, code: &str| {
        wire().http_fault(status, &json!({"error": {"type": kind, "code": code, "message": "m"}}).to_string())
    };
    for code in [
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    ] {
        assert!(matches!(fault(429, "insufficient_quota", code), Fault::Quota(_)));
        assert!(matches!(fault(429, "", code), Fault::Quota(_)), "{code}");
    }
    assert!(matches!(fault(429, "tokens", "rate_limit_exceeded"), Fault::RateLimit { .. }));
    assert!(matches!(
        fault(503, "service_unavailable_error", "server_is_overloaded"),
        Fault::Overload { .. }
    ));
    assert!(matches!(fault(400, "invalid_request_error", "context_length_exceeded"), Fault::ContextFull(_)));
    assert!(matches!(fault(404, "invalid_request_error", "model_not_found"), Fault::ModelMissing(_)));
    assert!(matches!(fault(401, "invalid_request_error", "invalid_api_key"), Fault::Auth(..)));
    assert!(matches!(fault(500, "server_error", ""), Fault::Server { .. }));
    let hinted = json!({"error": {"code": "rate_limit_exceeded", "message": "Please try again in 6.57s."}});
    assert_eq!(
        wire().http_fault(429, &hinted.to_string()).retry_after(),
        Some(std::time::Duration::from_millis(6570))
    );
}
