//! Answers that look well and are not, and servers that fall silent.

use controller::llm::{CallPolicy, Fault, Wait};
use kit::task::CancellationToken;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    ALL, ANTHROPIC, Bench, COMPATIBLE, OLLAMA, OPENAI, request,
    server::{Answer, End, Server},
};

const CLAUDE: &str = "anthropic:claude-sonnet-5-5";

#[tokio::test]
async fn text_behind_the_json_is_not_forgiven() {
    for (spec, _, _, sample) in ALL {
        let sample = sample.replace("\\\"score\\\":3}", "\\\"score\\\":3} done");
        let server = Server::start((0..2).map(|_| Answer::stream(&sample))).await;
        let error = Bench::new(spec, &server).call().await.expect_err(spec);
        assert!(matches!(error.fault, Fault::NotJson { .. }), "{spec}: {error}");
        assert!(error.fault.answer().expect("it can be sent back").ends_with("done"));
        assert!(error.lost.last().expect("it is billed").output_total.is_some(), "{spec}");
    }
}

#[tokio::test]
async fn json_of_another_shape_names_the_field() {
    for (spec, _, _, sample) in ALL {
        let sample = sample.replace("\\\"score\\\":3}", "\\\"score\\\":-3}");
        let server = Server::start((0..2).map(|_| Answer::stream(&sample))).await;
        let error = Bench::new(spec, &server).call().await.expect_err(spec);
        assert!(matches!(&error.fault, Fault::WrongShape { path, .. } if path == "score"), "{spec}: {error}");
    }
}

#[tokio::test]
async fn ollama_is_asked_once_more_with_thinking_where_the_format_was_ignored() {
    let ignored = OLLAMA.replace("{\\\"title\\\":\\\"x\\\",", "{\\\"thought\\\":\\\"x\\\",");
    let server = Server::start([Answer::stream(&ignored), Answer::stream(OLLAMA)]).await;
    let reply = Bench::new("ollama:qwen3:8b", &server).call().await.expect("an answer");
    assert_eq!((reply.attempts, reply.lost.len()), (2, 1));
    let think: Vec<_> = server.seen().iter().map(|seen| seen.body.get("think").cloned()).collect();
    assert_eq!(think, [Some(json!(false)), None]);
}

#[tokio::test]
async fn whole_json_with_a_stop_reason_that_is_not_complete_is_no_answer() {
    let cases = [
        (CLAUDE, ANTHROPIC.replace("end_turn", "max_tokens")),
        (
            "openai:gpt-6.2-sol",
            OPENAI
                .replace("response.completed", "response.incomplete")
                .replace("\"completed_at\":1795478402,\"status\":\"completed\"", "\"status\":\"incomplete\"")
                .replace(
                    "\"incomplete_details\":null,\"usage\":{",
                    "\"incomplete_details\":{\"reason\":\"max_output_tokens\"},\"usage\":{",
                ),
        ),
        ("ollama:qwen3:8b", OLLAMA.replace("\"done_reason\":\"stop\"", "\"done_reason\":\"length\"")),
        ("compatible:m", COMPATIBLE.replace("\"stop\"", "\"length\"")),
    ];
    for (spec, sample) in cases {
        let server = Server::start((0..2).map(|_| Answer::stream(&sample))).await;
        let error = Bench::new(spec, &server).call().await.expect_err(spec);
        assert!(matches!(error.fault, Fault::Truncated { limit: 2000, .. }), "{spec}: {error}");
        assert_eq!(server.seen().len(), 2);
    }
}

#[tokio::test]
async fn twice_the_room_is_not_asked_for_where_there_is_none() {
    let cut = OLLAMA.replace("\"done_reason\":\"stop\"", "\"done_reason\":\"length\"");
    let server = Server::start([Answer::stream(&cut)]).await;
    let asked = controller::llm::Request { max_output_tokens: 40_000, ..request() };
    let bench = Bench::new("ollama:qwen3:8b", &server);
    let error = bench.model.call(&asked, &CancellationToken::new(), None).await.expect_err("cut");
    assert!(matches!(error.fault, Fault::Truncated { .. }) && server.seen().len() == 1, "{error}");
}

#[tokio::test]
async fn a_refusal_is_not_asked_again() {
    let whole = json!({"id": "msg_s3", "type": "message", "role": "assistant", "model": "claude-opus-5-5", "content": [],
        "stop_reason": "refusal", "stop_details": {"type": "refusal", "category": "frontier_llm", "explanation": null},
        "usage": {"input_tokens": 40, "output_tokens": 0}});
    let streamed = ANTHROPIC.replace("\"stop_reason\":\"end_turn\"", "\"stop_reason\":\"refusal\"");
    for answer in [Answer::json(200, &whole.to_string()), Answer::stream(&streamed)] {
        let server = Server::start([answer]).await;
        let error = Bench::new(CLAUDE, &server).call().await.expect_err("refused");
        assert!(matches!(error.fault, Fault::Refused(_)) && server.seen().len() == 1, "{error}");
        assert!(error.lost[0].input_uncached.is_some(), "a refusal is billed");
    }
}

#[tokio::test]
async fn a_page_for_people_is_no_answer() {
    let once = |policy: CallPolicy| CallPolicy {
        retry: kit::retry::Policy { attempts: 1, ..policy.retry },
        ..policy
    };
    for (status, kind) in
        [(200, "text/html"), (502, "text/html"), (503, "text/plain"), (200, "application/json")]
    {
        for (spec, ..) in ALL {
            let server = Server::start([Answer::new(status, kind, "<html>Please log in</html>")]).await;
            let error = Bench::with(spec, &server, once).call().await.expect_err(spec);
            assert!(
                error.is_retryable() && error.to_string().contains("Please log in"),
                "{spec} {status}: {error}"
            );
        }
    }
    let server = Server::start([Answer::new(413, "text/html", "<html>")]).await;
    let error = Bench::new(CLAUDE, &server).call().await.expect_err("too large");
    assert_eq!((error.fault, server.seen().len()), (Fault::TooLarge, 1));
}

/// Calls with the progress in sight; `then` is run once that many numbers have come.
async fn call_until(
    bench: &Bench,
    numbers: usize,
    cancel: &CancellationToken,
    then: impl FnOnce(),
) -> Result<controller::llm::Reply, controller::llm::CallError> {
    let (sender, mut receiver) = mpsc::channel(64);
    let watch = async {
        let mut seen = Vec::new();
        while seen.len() < numbers {
            seen.push(receiver.recv().await.expect("progress"));
        }
        then();
        // The channel stays open until the call ends.
        std::future::pending::<()>().await;
    };
    let asked = request();
    tokio::select! {
        outcome = bench.model.call(&asked, cancel, Some(&sender)) => outcome,
        () = watch => unreachable!("it pends"),
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let once = |policy: CallPolicy| CallPolicy {
        retry: kit::retry::Policy { attempts: 1, ..policy.retry },
        ..policy
    };
    let half = &ANTHROPIC[..ANTHROPIC.find("event: message_delta").expect("in the sample")];
    let server = Server::start([Answer::stream(half).end(End::Hangs)]).await;
    let bench = Bench::with(CLAUDE, &server, once);
    let error = call_until(&bench, 6, &CancellationToken::new(), || bench.timer.end(Wait::Silence)).await;
    let error = error.expect_err("silent");
    assert!(matches!(&error.fault, Fault::MidStream(said) if said.contains("120 s")), "{error}");
    assert_eq!(error.lost[0].cache_read, Some(2048));
    server.left().await;
}

#[tokio::test]
async fn the_deadline_ends_the_call() {
    let server = Server::start([Answer::stream(": still here\n\n").end(End::Hangs)]).await;
    let bench = Bench::new(CLAUDE, &server);
    let error = call_until(&bench, 1, &CancellationToken::new(), || bench.timer.end(Wait::Deadline)).await;
    assert!(matches!(error.expect_err("late").fault, Fault::Deadline(_)));
}

#[tokio::test]
async fn cancelling_closes_the_connection_and_counts_what_was_begun() {
    for (spec, _, _, sample) in ALL {
        let half = &sample[..sample.find("score").expect("in the sample")];
        let half = &half[..half.rfind('\n').expect("a line")];
        let half = format!("{half}\n");
        let server = Server::start([Answer::stream(&half).end(End::Hangs)]).await;
        let bench = Bench::new(spec, &server);
        let cancel = CancellationToken::new();
        let error = call_until(&bench, 2, &cancel, || cancel.cancel()).await.expect_err("cancelled");
        assert_eq!((&error.fault, error.lost.len()), (&Fault::Cancelled, 1), "{spec}");
        server.left().await;
    }
}

#[tokio::test]
async fn a_last_frame_that_never_comes_is_not_waited_for_long() {
    let without = COMPATIBLE.replace("data: [DONE]", "");
    let server = Server::start([Answer::stream(&without).end(End::Hangs)]).await;
    let bench = Bench::new("compatible:m", &server);
    // The beginning and five frames.
    let reply = call_until(&bench, 6, &CancellationToken::new(), || bench.timer.end(Wait::Grace)).await;
    let reply = reply.expect("the answer was whole");
    assert_eq!((reply.attempts, reply.usage.output_total), (1, Some(240)));
}

#[tokio::test]
async fn progress_counts_the_bytes_of_the_answer() {
    let server = Server::start([Answer::stream(ANTHROPIC)]).await;
    let (sender, mut receiver) = mpsc::channel(64);
    let bench = Bench::new(CLAUDE, &server);
    let reply =
        bench.model.call(&request(), &CancellationToken::new(), Some(&sender)).await.expect("an answer");
    drop(sender);
    let mut numbers = Vec::new();
    while let Some(number) = receiver.recv().await {
        numbers.push(number);
    }
    assert_eq!((numbers[0], numbers.last()), (0, Some(&reply.text.len())));
    assert!(numbers.is_sorted());
}
