use super::{
    super::wire::testing::{decode, request},
    *,
};

const CONTEXT: u32 = 8192;

fn wire() -> Ollama {
    Ollama::new("qwen3:8b".into(), CONTEXT)
}

const WHOLE: &str = include_str!("../../tests/llm/ollama.ndjson");

#[test]
fn the_body_fixes_the_context_and_forbids_silent_cuts() {
    let wire = wire();
    let body = wire.body(&request(), 16_000).expect("a body");
    assert_eq!(body["options"]["num_ctx"], CONTEXT);
    assert_eq!(
        (&body["truncate"], &body["shift"], &body["think"]),
        (&json!(false), &json!(false), &json!(false))
    );
    assert_eq!(body["format"]["type"], "object");
    assert!(body["options"]["num_predict"].as_u64().expect("a number") < u64::from(CONTEXT));
    assert!(body["messages"][0]["content"].as_str().expect("text").contains("JSON Schema"));
    let mut long = request();
    long.messages[0].text = "word ".repeat(6000);
    assert!(matches!(wire.body(&long, 4096), Err(Fault::ContextFull(_))));
}

#[test]
fn the_sample_is_an_answer_without_its_thinking() {
    let lines: Vec<&str> = WHOLE.lines().collect();
    let answer = decode(&wire(), &request(), &lines).expect("complete");
    assert_eq!(answer.text, "{\"title\":\"x\",\"score\":3}");
    assert_eq!((answer.usage.input_uncached, answer.usage.cache_read), (Some(176), Some(1024)));
    assert_eq!((answer.usage.output_total, answer.usage.output_reasoning), (Some(240), None));
    for end in 0..lines.len() {
        assert!(matches!(decode(&wire(), &request(), &lines[..end]), Err(Fault::MidStream(_))), "{end}");
    }
}

fn last(done_reason: &str, prompt: u64, written: u64) -> Result<Answer, Fault> {
    let line = json!({"message": {"content": "{}"}, "done": true, "done_reason": done_reason,
        "prompt_eval_count": prompt, "eval_count": written});
    decode(&wire(), &request(), &[&line.to_string()])
}

#[test]
fn the_done_reason_decides() {
    assert!(last("stop", 100, 10).is_ok());
    assert!(matches!(last("length", 100, 10), Err(Fault::Truncated { .. })));
    assert_eq!(last("load", 100, 10), Err(Fault::Incomplete("load".into())));
    let absent = r#"{"message":{"content":"{}"},"done":true}"#;
    assert!(matches!(decode(&wire(), &request(), &[absent]), Err(Fault::Incomplete(_))));
    let aborted = r#"{"message":{"content":"{}"},"done":false}"#;
    assert!(matches!(decode(&wire(), &request(), &[aborted]), Err(Fault::MidStream(_))));
}

#[test]
fn a_prompt_cut_in_silence_is_noticed_by_its_counts() {
    let context = u64::from(CONTEXT);
    for (prompt, written) in [(context - 1, 10), (context, 10), (context - 100, 100)] {
        assert!(matches!(last("stop", prompt, written), Err(Fault::ContextFull(_))), "{prompt}");
    }
    let mut long = request();
    long.messages[0].text = "word ".repeat(3600);
    let half = json!({"message": {"content": "{}"}, "done": true, "done_reason": "stop",
        "prompt_eval_count": context / 2 + 2, "eval_count": 10});
    assert!(matches!(decode(&wire(), &long, &[&half.to_string()]), Err(Fault::ContextFull(_))));
    assert!(last("stop", context / 2 + 2, 10).is_ok(), "a short prompt is only long in tokens");
}

#[test]
fn missing_counts_are_unknown_and_not_zero() {
    let line = r#"{"message":{"content":"{}"},"done":true,"done_reason":"stop"}"#;
    assert_eq!(decode(&wire(), &request(), &[line]).map(|answer| answer.usage), Ok(Usage::UNKNOWN));
}

#[test]
fn errors_are_classed_by_status() {
    let error = |status, text: &str| wire().http_fault(status, &json!({"error": text}).to_string());
    for text in ["model 'nope:1b' not found", "model \"nope:1b\" not found, try pulling it first"] {
        let fault = error(404, text);
        assert!(
            matches!(&fault, Fault::ModelMissing(said) if said.contains("ollama pull qwen3:8b")),
            "{fault}"
        );
    }
    assert!(matches!(
        error(503, "server busy, please try again.  maximum pending requests exceeded"),
        Fault::Overload { .. }
    ));
    let nested = r#"{"error":{"code":400,"type":"exceed_context_size_error","n_ctx":4096}}"#;
    assert!(matches!(error(400, nested), Fault::ContextFull(_)));
    assert!(matches!(error(500, "runner died"), Fault::Server { .. }));
    let line = r#"{"error":"an error was encountered while running the model: CUDA error"}"#;
    assert!(matches!(decode(&wire(), &request(), &[line]), Err(Fault::MidStream(_))));
}

#[test]
fn thinking_is_left_to_the_model_once_the_format_was_ignored() {
    let wire = wire();
    let ignored = Fault::WrongShape { path: "title".into(), why: "is missing".into(), text: "{}".into() };
    assert!(wire.adapt(&ignored).is_some());
    assert!(wire.body(&request(), 100).expect("a body").get("think").is_none());
    assert!(wire.adapt(&ignored).is_none());
}
