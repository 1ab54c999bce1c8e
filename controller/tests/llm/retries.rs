//! What is asked again, when, and what never is.

use std::time::Duration;

use controller::llm::{CallPolicy, Fault, Wait};
use serde_json::json;

use crate::{
    ALL, ANTHROPIC, Bench, COMPATIBLE, OPENAI,
    server::{Answer, End, Server},
};

const CLAUDE: &str = "anthropic:claude-sonnet-5-5";

fn anthropic_error(status: u16, kind: &str) -> Answer {
    Answer::json(status, &json!({"type": "error", "error": {"type": kind, "message": "m"}}).to_string())
}

#[tokio::test]
async fn retry_after_is_the_least_that_is_waited() {
    let server = Server::start([
        anthropic_error(429, "rate_limit_error").header("retry-after", "700"),
        anthropic_error(529, "overloaded_error").header("retry-after-ms", "650000"),
        Answer::json(503, "<html>").header("retry-after", "Tue, 24 Nov 2026 06:32:00 GMT"),
        Answer::stream(ANTHROPIC),
    ])
    .await;
    let bench = Bench::new(CLAUDE, &server);
    let reply = bench.call().await.expect("an answer");
    assert_eq!((reply.attempts, reply.lost.len()), (4, 0), "a refused request costs nothing");
    // The clock has moved 1,350 s when the date comes, which is 1,920 s after the beginning.
    assert_eq!(bench.timer.waits(), [700, 650, 570].map(Duration::from_secs));
}

#[tokio::test]
async fn a_wait_that_is_too_long_fails_with_its_length() {
    let server =
        Server::start([anthropic_error(429, "rate_limit_error").header("retry-after", "3600")]).await;
    let bench = Bench::new(CLAUDE, &server);
    let error = bench.call().await.expect_err("too long");
    assert!(error.to_string().contains("3600 s"), "{error}");
    assert!(bench.timer.waits().is_empty() && server.seen().len() == 1);
}

#[tokio::test]
async fn five_attempts_and_no_more() {
    let server = Server::start((0..9).map(|_| anthropic_error(500, "api_error"))).await;
    let bench = Bench::new(CLAUDE, &server);
    let error = bench.call().await.expect_err("it never answers");
    assert!(matches!(error.fault, Fault::Server { status: 500, .. }) && error.is_retryable());
    assert_eq!((error.attempts, server.seen().len()), (5, 5));
    assert_eq!(bench.timer.waits().len(), 4);
}

#[tokio::test]
async fn what_cannot_help_is_asked_once() {
    let spend = json!({"type": "error", "error": {"type": "rate_limit_error", "message": "monthly cap",
        "details": {"error_code": "enforced_spend_limit_reached"}}, "request_id": "req_s3a"});
    let quota = json!({"error": {"message": "You exceeded your current quota", "type": "insufficient_quota",
        "param": null, "code": "insufficient_quota"}});
    let stream_quota = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"insufficient_quota\",\"code\":\"credit_balance_exhausted\",\"message\":\"no credits\"}}\n\n";
    for (spec, answer) in [
        (CLAUDE, Answer::json(429, &spend.to_string())),
        (CLAUDE, anthropic_error(402, "billing_error")),
        ("openai:gpt-6.2-sol", Answer::json(429, &quota.to_string())),
        ("openai:gpt-6.2-sol", Answer::stream(stream_quota)),
        ("compatible:m", Answer::json(402, "{\"error\":{\"code\":402,\"message\":\"credits\"}}")),
    ] {
        let server = Server::start([answer]).await;
        let error = Bench::new(spec, &server).call().await.expect_err("no money");
        assert!(matches!(error.fault, Fault::Quota(_)), "{error}");
        assert!(!error.is_retryable() && server.seen().len() == 1);
    }
    for (status, kind) in
        [(400, "invalid_request_error"), (401, "authentication_error"), (404, "not_found_error")]
    {
        let server = Server::start([anthropic_error(status, kind)]).await;
        assert!(!Bench::new(CLAUDE, &server).call().await.expect_err("refused").is_retryable());
        assert_eq!(server.seen().len(), 1, "{kind}");
    }
    let server = Server::start([Answer::json(500, "{}").header("x-should-retry", "false")]).await;
    assert!(Bench::new(CLAUDE, &server).call().await.is_err());
    assert_eq!(server.seen().len(), 1, "the server said not to");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_anew_and_nothing_of_it_is_kept() {
    for (spec, _, _, sample) in ALL {
        let half =
            &sample[..sample.rfind("\\\"score").or_else(|| sample.rfind("score")).expect("in the sample")];
        let half = &half[..half.rfind('\n').expect("a line")];
        for end in [End::Clean, End::Broken] {
            let server = Server::start([Answer::stream(half).end(end), Answer::stream(sample)]).await;
            let bench = Bench::new(spec, &server);
            let reply = bench.call().await.expect(spec);
            assert_eq!(reply.json.expect("a value")["score"], 3, "{spec}");
            assert_eq!((reply.attempts, reply.lost.len()), (2, 1), "{spec}: it may be billed");
            assert_eq!(bench.timer.waits().len(), 1);
        }
    }
}

#[tokio::test]
async fn an_answer_that_always_breaks_off_is_paid_for_three_times_at_most() {
    let half = &ANTHROPIC[..ANTHROPIC.find("event: message_delta").expect("in the sample")];
    let server = Server::start((0..9).map(|_| Answer::stream(half))).await;
    let error = Bench::new(CLAUDE, &server).call().await.expect_err("it always breaks off");
    assert!(matches!(error.fault, Fault::MidStream(_)));
    assert_eq!((error.attempts, error.lost.len(), server.seen().len()), (3, 3, 3));
}

#[tokio::test]
async fn an_overload_in_the_middle_is_an_overload() {
    let begun = &ANTHROPIC[..ANTHROPIC.find("event: ping").expect("in the sample")];
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"},\"request_id\":\"req_s2\"}\n\n";
    let first = Answer::stream(error);
    let middle = Answer::stream(&format!("{begun}{error}"));
    let server = Server::start([first, middle, Answer::stream(ANTHROPIC)]).await;
    let reply = Bench::new(CLAUDE, &server).call().await.expect("an answer");
    assert_eq!(reply.attempts, 3);
    assert_eq!(reply.lost.len(), 1, "an error in the place of an answer costs nothing");
    assert_eq!(reply.lost[0].input_uncached, Some(12), "what was said of the lost attempt is kept");
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_once_more_with_twice_the_room() {
    let cut = ANTHROPIC.replace("end_turn", "max_tokens");
    let server = Server::start([Answer::stream(&cut), Answer::stream(ANTHROPIC)]).await;
    let bench = Bench::new(CLAUDE, &server);
    let reply = bench.call().await.expect("an answer");
    assert_eq!(reply.lost.iter().map(|usage| usage.output_total).collect::<Vec<_>>(), [Some(310)]);
    let limits: Vec<_> = server.seen().iter().map(|seen| seen.body["max_tokens"].clone()).collect();
    assert_eq!(limits, [json!(1000), json!(2000)]);
    assert!(bench.timer.waits().is_empty());

    let server = Server::start([Answer::stream(&cut), Answer::stream(&cut)]).await;
    let error = Bench::new(CLAUDE, &server).call().await.expect_err("cut twice");
    assert_eq!(error.fault, Fault::Truncated { limit: 2000, reasoning: Some(280) });
    assert!(error.to_string().contains("280") && server.seen().len() == 2);
    assert_eq!(error.lost.len(), 2);
}

#[tokio::test]
async fn a_pause_that_one_call_was_asked_for_holds_for_all() {
    let server = Server::start([
        anthropic_error(429, "rate_limit_error").header("retry-after", "90"),
        Answer::stream(ANTHROPIC),
        Answer::stream(ANTHROPIC),
    ])
    .await;
    let bench = Bench::new(CLAUDE, &server);
    bench.timer.hold(Wait::Retry);
    let other = async {
        bench.timer.begun(1).await;
        bench.call().await
    };
    let judge = async {
        bench.timer.begun(2).await;
        assert_eq!(server.seen().len(), 1, "the other call waits too");
        bench.timer.end(Wait::Retry);
    };
    let (first, second, ()) = tokio::join!(bench.call(), other, judge);
    assert!(first.is_ok() && second.is_ok());
    assert!(bench.timer.waits().iter().all(|wait| *wait >= Duration::from_secs(90)));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn errors_inside_a_200_are_retried_by_their_class() {
    let inside = "{\"error\":{\"code\":502,\"message\":\"Provider returned error\",\"metadata\":{\"provider_name\":\"x\"}}}";
    let server = Server::start([
        Answer::json(200, inside),
        Answer::stream(&format!("data: {inside}\n\ndata: [DONE]\n\n")),
        Answer::stream("data: [DONE]\n\n"),
        Answer::stream(COMPATIBLE),
    ])
    .await;
    assert_eq!(Bench::new("compatible:m", &server).call().await.expect("an answer").attempts, 4);
    let flat = "data: {\"type\":\"error\",\"code\":\"rate_limit_exceeded\",\"message\":\"slow\"}\n\n";
    let failed = "data: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"server_error\",\"message\":\"m\"},\"usage\":null}}\n\n";
    let server = Server::start([Answer::stream(flat), Answer::stream(failed), Answer::stream(OPENAI)]).await;
    assert_eq!(Bench::new("openai:gpt-6.2-sol", &server).call().await.expect("an answer").attempts, 3);
}

#[tokio::test]
async fn nobody_at_the_address_is_said_soon() {
    let server = Server::start([]).await;
    let bench = Bench::new("ollama:qwen3:8b", &server);
    drop(server);
    // The listener closes when its task is next run.
    let error = loop {
        let error = bench.call().await.expect_err("nobody is there");
        if matches!(error.fault, Fault::Connect(_)) {
            break error;
        }
    };
    assert!(error.to_string().contains("is the server running"), "{error}");
    assert_eq!((error.attempts, error.lost.len()), (2, 0));
}

#[tokio::test]
async fn no_attempts_beyond_the_policy() {
    let once = |policy: CallPolicy| CallPolicy {
        retry: kit::retry::Policy { attempts: 1, ..policy.retry },
        ..policy
    };
    let server = Server::start([anthropic_error(500, "api_error")]).await;
    assert_eq!(Bench::with(CLAUDE, &server, once).call().await.expect_err("once").attempts, 1);
}
