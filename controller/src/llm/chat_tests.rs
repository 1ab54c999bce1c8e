use super::{
    super::wire::testing::{data, decode, request},
    *,
};

fn wire() -> Chat {
    Chat::new("m".into())
}

const WHOLE: &str = include_str!("../../tests/llm/compatible.sse");

fn bad(detail: &str) -> Fault {
    Fault::BadRequest { status: 400, detail: detail.into() }
}

#[test]
fn the_sample_is_an_answer_and_its_reasoning_is_not() {
    let answer = decode(&wire(), &request(), &data(WHOLE)).expect("complete");
    assert_eq!(answer.text, "{\"title\":\"x\",\"score\":3}");
    assert_eq!(answer.aside.as_deref(), Some("hm"));
    assert_eq!((answer.usage.input_uncached, answer.usage.output_reasoning), (Some(176), Some(192)));
}

#[test]
fn without_a_finish_reason_there_is_no_answer() {
    let frames = data(WHOLE);
    for end in 0..4 {
        assert!(matches!(decode(&wire(), &request(), &frames[..end]), Err(Fault::MidStream(_))), "{end}");
    }
    assert!(matches!(decode(&wire(), &request(), &["[DONE]"]), Err(Fault::MidStream(_))));
    assert!(decode(&wire(), &request(), &frames[..frames.len() - 1]).is_ok(), "[DONE] alone may be missing");
}

#[test]
fn finish_reasons_are_told_apart() {
    let finish = |reason: &str| {
        let frame =
            json!({"choices": [{"delta": {"content": "{\"items\":[1,2]}"}, "finish_reason": reason}]});
        decode(&wire(), &request(), &[&frame.to_string(), "[DONE]"])
    };
    assert!(finish("stop").is_ok());
    assert!(matches!(finish("length"), Err(Fault::Truncated { .. })));
    assert!(matches!(finish("content_filter"), Err(Fault::Refused(_))));
    assert!(matches!(finish("insufficient_system_resource"), Err(Fault::Overload { .. })));
    assert!(matches!(finish("error"), Err(Fault::MidStream(_))));
    assert_eq!(finish("end_turn"), Err(Fault::Incomplete("end_turn".into())));
    assert!(matches!(finish(""), Err(Fault::MidStream(_))), "an empty reason is none");
}

#[test]
fn errors_inside_a_200_are_classed_by_their_code() {
    let inside = |error: Value| {
        let frame = json!({"error": error}).to_string();
        decode(&wire(), &request(), &[&frame]).expect_err("an error")
    };
    assert!(matches!(inside(json!({"code": 502, "message": "m"})), Fault::Server { status: 502, .. }));
    assert!(matches!(inside(json!({"code": 429, "message": "m"})), Fault::RateLimit { .. }));
    assert!(matches!(inside(json!({"code": 402, "message": "m"})), Fault::Quota(_)));
    assert!(matches!(inside(json!({"code": 400, "message": "m"})), Fault::BadRequest { .. }));
    assert!(matches!(inside(json!("broken")), Fault::MidStream(_)));
    let mut decoder = wire().decoder(&request(), 10);
    assert!(decoder.whole(&json!({"error": {"code": 502, "message": "m"}})).is_err());
    let mut decoder = wire().decoder(&request(), 10);
    assert!(decoder.whole(&json!({"choices": []})).is_ok() && decoder.finish().is_err());
}

#[test]
fn odd_frames_are_borne() {
    let frames = [
        r#"{"choices":[{"delta":{"role":null,"content":null},"finish_reason":""}],"usage":{}}"#,
        r#"{"choices":[{"delta":{}}],"usage":null,"more":1}"#,
        r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop","stop_reason":2}]}"#,
    ];
    let answer = decode(&wire(), &request(), &frames).expect("complete");
    assert_eq!((answer.text.as_str(), answer.usage), ("x", Usage::UNKNOWN));
}

#[test]
fn the_form_of_the_request_follows_the_server_once_for_each_fault() {
    let wire = wire();
    let body = || wire.body(&request(), 100).expect("a body");
    assert_eq!(body()["response_format"]["type"], "json_schema");
    assert!(wire.adapt(&bad("response_format json_schema is not supported")).is_some());
    assert_eq!(body()["response_format"]["type"], "json_object");
    assert!(body()["messages"][0]["content"].as_str().expect("text").contains("JSON Schema"));
    assert!(wire.adapt(&bad("unknown field response_format")).is_some());
    assert!(body().get("response_format").is_none());
    assert!(wire.adapt(&bad("unknown field response_format")).is_none());
    assert!(wire.adapt(&bad("max_tokens is not supported, use max_completion_tokens")).is_some());
    assert_eq!((body().get("max_tokens"), &body()["max_completion_tokens"]), (None, &json!(100)));
    assert!(wire.adapt(&bad("max_completion_tokens is not supported")).is_none());
    assert!(wire.adapt(&bad("stream_options")).is_some() && wire.adapt(&bad("stream_options")).is_none());
    assert!(wire.adapt(&bad("something else")).is_none());
    assert!(wire.adapt(&Fault::Quota("max_tokens".into())).is_none());
}

#[test]
fn integer_codes_and_context_errors_are_read() {
    let body = r#"{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_prompt_tokens":9000,"n_ctx":4096}}"#;
    assert!(matches!(wire().http_fault(400, body), Fault::ContextFull(_)));
    let body = r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#;
    assert!(matches!(wire().http_fault(503, body), Fault::Overload { .. }));
}
