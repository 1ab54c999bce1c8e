//! One good path for each provider, and what it must survive on the way.

use controller::llm::{Fault, Message, Request, Schema, Usage, price::price};
use kit::task::CancellationToken;
use serde_json::json;

use crate::{
    ALL, Bench, CANARY, request,
    server::{Answer, Server},
};

#[tokio::test]
async fn every_provider_answers() {
    for (spec, _, path, sample) in ALL {
        let server = Server::start([Answer::stream(sample)]).await;
        let reply = Bench::new(spec, &server).call().await.expect(spec);
        let json = reply.json.expect("a value");
        assert_eq!(json["score"], 3, "{spec}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&reply.text).expect("JSON"), json);
        assert_eq!((reply.attempts, reply.lost.len()), (1, 0));
        assert_eq!(reply.request_id.as_deref(), Some("req_test"));
        assert!(spec.ends_with(&reply.model), "{spec} {}", reply.model);
        assert!(reply.usage.output_total.expect("known") >= 240);
        assert!(reply.usage.output_reasoning.unwrap_or(0) <= reply.usage.output_total.expect("known"));
        let seen = server.seen();
        assert_eq!((seen.len(), seen[0].path.as_str()), (1, path));
        assert_eq!(seen[0].header("authorization"), Some(format!("Bearer {CANARY}").as_str()));
        assert_eq!(seen[0].header("x-api-key"), None);
        assert_eq!(seen[0].body["stream"], true);
    }
}

#[tokio::test]
async fn pieces_of_any_size_give_the_same_answer() {
    for (spec, _, _, sample) in ALL {
        for size in [1, 7, 100_000] {
            let server = Server::start([Answer::stream(sample).cut(size)]).await;
            let reply = Bench::new(spec, &server).call().await.expect(spec);
            if spec.starts_with("anthropic") {
                assert_eq!(reply.json.expect("a value")["title"], "Größe 🌍");
            }
        }
        let server = Server::start([Answer::stream(&sample.replace('\n', "\r\n"))]).await;
        assert!(Bench::new(spec, &server).call().await.is_ok(), "{spec} with \\r\\n");
    }
}

#[tokio::test]
async fn anthropic_says_its_version_and_sends_nothing_that_new_models_refuse() {
    let server = Server::start([Answer::stream(crate::ANTHROPIC)]).await;
    Bench::new("anthropic:claude-sonnet-5-5", &server).call().await.expect("an answer");
    let seen = server.seen();
    assert_eq!(seen[0].header("anthropic-version"), Some("2026-10-21"));
    assert_eq!(seen[0].header("anthropic-beta"), None);
    for refused in ["temperature", "top_p", "top_k", "tool_choice"] {
        assert!(seen[0].body.get(refused).is_none(), "{refused}");
    }
}

#[tokio::test]
async fn the_same_call_costs_the_same_at_both_vendors() {
    let sample = crate::ANTHROPIC
        .replace("\"input_tokens\":12,", "\"input_tokens\":176,")
        .replace("2048", "1024")
        .replace("310", "240")
        .replace("280", "192");
    let mut costs = Vec::new();
    for (spec, sample) in
        [("anthropic:claude-sonnet-5-5", sample.as_str()), ("openai:gpt-6.2-sol", crate::OPENAI)]
    {
        let server = Server::start([Answer::stream(sample)]).await;
        let reply = Bench::new(spec, &server).call().await.expect(spec);
        assert_eq!((reply.usage.input_total(), reply.usage.cache_read), (Some(1200), Some(1024)));
        costs.push(price(&spec.parse().expect("a model")).expect("a price").cost(&reply.usage));
    }
    assert_eq!(costs[0], costs[1]);
}

#[tokio::test]
async fn a_reply_that_is_not_streamed_is_read_all_the_same() {
    let message = json!({"type": "message", "model": "claude-sonnet-5-5", "stop_reason": "end_turn",
        "content": [{"type": "thinking", "thinking": "", "signature": "c2ln"}, {"type": "text", "text": "{\"title\":\"x\",\"score\":3}"}],
        "usage": {"input_tokens": 12, "output_tokens": 310}});
    let chat = json!({"model": "m", "choices": [{"message": {"role": "assistant", "content": "{\"title\":\"x\",\"score\":3}"},
        "finish_reason": "stop"}]});
    for (spec, body) in [
        ("anthropic:claude-sonnet-5-5", message.to_string()),
        ("compatible:m", format!("{}{chat}", "\n".repeat(20))),
    ] {
        let server = Server::start([Answer::json(200, &body)]).await;
        let reply = Bench::new(spec, &server).call().await.expect(spec);
        assert_eq!(reply.json.expect("a value")["score"], 3, "{spec}");
        if spec.starts_with("compatible") {
            assert_eq!(reply.usage, Usage::UNKNOWN, "no usage was sent: unknown, not zero");
        }
    }
}

#[tokio::test]
async fn a_compatible_server_that_knows_no_schema_is_asked_in_another_form() {
    let refused = |what: &str| {
        Answer::json(400, &json!({"error": {"message": format!("{what} is not supported"), "type": "invalid_request_error"}}).to_string())
    };
    let fenced = "data: {\"choices\":[{\"delta\":{\"content\":\"<think>hm</think>\\n```json\\n{\\\"title\\\":\\\"x\\\",\\\"score\\\":3}\\n```\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let script = [
        refused("response_format json_schema"),
        refused("response_format"),
        Answer::stream(fenced),
        Answer::stream(fenced),
    ];
    let server = Server::start(script).await;
    let bench = Bench::new("compatible:m", &server);
    let reply = bench.call().await.expect("an answer");
    assert_eq!((reply.attempts, reply.lost.len()), (3, 0), "a refused form costs nothing");
    assert!(bench.timer.waits().is_empty());
    bench.call().await.expect("an answer");
    let forms: Vec<_> =
        server.seen().iter().map(|seen| seen.body["response_format"]["type"].clone()).collect();
    assert_eq!(
        forms,
        [json!("json_schema"), json!("json_object"), json!(null), json!(null)],
        "and is remembered"
    );
}

#[tokio::test]
async fn without_a_shape_the_answer_is_text() {
    let asked = Request { schema: None, ..request() };
    let cancel = CancellationToken::new();
    for (spec, _, _, sample) in ALL {
        let sample = sample.replace("{\\\"title\\\":", "import torch #");
        let empty = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        let server = Server::start([&sample, empty, empty, empty].map(Answer::stream)).await;
        let bench = Bench::new(spec, &server);
        let reply = bench.model.call(&asked, &cancel, None).await.expect(spec);
        assert!(reply.text.starts_with("import torch #") && reply.json.is_none(), "{spec}: {}", reply.text);
        for form in ["response_format", "format", "text", "output_config"] {
            assert!(server.seen()[0].body.get(form).is_none(), "{spec}");
        }
        let error = bench.model.call(&asked, &cancel, None).await.expect_err("nothing was said");
        assert!(matches!(error.fault, Fault::MidStream(_)), "{error}");
    }
}

#[tokio::test]
async fn what_no_provider_takes_is_not_sent() {
    for (spec, ..) in ALL {
        let server = Server::start([]).await;
        let bench = Bench::new(spec, &server);
        let cancel = CancellationToken::new();
        let mut ends_badly = request();
        ends_badly.messages.push(Message::assistant("{"));
        let mut free = request();
        let json = json!({"type": "object", "properties": {"params": {"type": "object"}}});
        free.schema = Some(Schema { name: "free".into(), json });
        for asked in [ends_badly, free] {
            let error = bench.model.call(&asked, &cancel, None).await.expect_err(spec);
            assert!(matches!(error.fault, Fault::Unsendable(_)), "{error}");
            assert!(error.lost.is_empty());
        }
        assert!(server.seen().is_empty(), "{spec}");
    }
}

/// The variables are read when a client is made, so this runs the good paths in a process of their own.
#[test]
fn a_proxy_of_the_environment_does_not_capture_this_machine() {
    let this = std::env::current_exe().expect("a path");
    let mut again = std::process::Command::new(this);
    again.args(["--exact", "good::every_provider_answers"]);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        again.env(name, "http://127.0.0.1:1");
    }
    // A bare container has no certificates: a server on this machine is reached all the same.
    again.env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "/nonexistent");
    let output = again.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn ollama_keeps_its_context_from_call_to_call() {
    let server = Server::start((0..3).map(|_| Answer::stream(crate::OLLAMA))).await;
    let bench = Bench::new("ollama:qwen3:8b", &server);
    for _ in 0..3 {
        bench.call().await.expect("an answer");
    }
    for seen in server.seen() {
        assert_eq!(seen.body["options"]["num_ctx"], 32_768);
        assert_eq!((&seen.body["truncate"], &seen.body["shift"]), (&json!(false), &json!(false)));
        assert_eq!(seen.body["keep_alive"], "30m");
    }
}
