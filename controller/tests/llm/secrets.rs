//! The key goes into one header and nowhere else.

use std::sync::{Arc, Mutex};

use controller::llm::{CallPolicy, OpenOptions, open};
use serde_json::json;

use crate::{
    ALL, Bench, CANARY, keys,
    server::{Answer, Server},
};

#[tokio::test]
async fn a_server_that_echoes_the_key_does_not_make_us_say_it() {
    let once = |policy: CallPolicy| CallPolicy {
        retry: kit::retry::Policy { attempts: 1, ..policy.retry },
        ..policy
    };
    let said = format!("Incorrect API key provided: {CANARY}");
    let error =
        json!({"type": "error", "error": {"type": "authentication_error", "message": said}}).to_string();
    for (spec, ..) in ALL {
        let answers = [
            Answer::json(401, &error),
            Answer::json(401, &json!({"error": said}).to_string()),
            Answer::json(500, &said),
            Answer::new(429, "text/plain", &said).header("request-id", "r"),
            Answer::json(200, &error),
            Answer::json(200, &said),
            Answer::new(200, "text/html", &said),
            Answer::stream(&format!("data: {error}\n\n")),
            Answer::stream(&format!("{error}\n")),
            Answer::stream(&format!("data: {said}\n\n")),
        ];
        for answer in answers {
            let server = Server::start([answer]).await;
            let error = Bench::with(spec, &server, once).call().await.expect_err(spec);
            assert_eq!(server.seen().len(), 1);
            for shown in [error.to_string(), format!("{error:?}"), format!("{:#?}", error.fault)] {
                assert!(!shown.contains(CANARY) && !shown.contains("0123456789"), "{spec}: {shown}");
            }
            assert!(error.to_string().starts_with(spec), "{error}");
        }
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_key_is_in_no_log_not_even_at_its_most_talkative() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // One thread runs this test and its tasks, so all they say is heard.
    let _guard = tracing::subscriber::set_default(subscriber);
    for (spec, _, _, sample) in ALL {
        let server = Server::start([Answer::json(500, CANARY), Answer::stream(sample)]).await;
        Bench::new(spec, &server).call().await.expect(spec);
    }
    let log = String::from_utf8(log.0.lock().expect("lock").clone()).expect("text");
    assert!(log.contains("attempt failed"), "the log is heard");
    assert!(!log.contains(CANARY), "{log}");
}

/// Local servers are given keys that are no secrets, and may be words of every reply.
#[tokio::test]
async fn a_short_key_spoils_no_answer_and_is_not_shown_either() {
    for (spec, base, _, sample) in ALL {
        let server =
            Server::start([Answer::stream(sample), Answer::json(401, "{\"error\":\"not k\"}")]).await;
        let keys = controller::llm::Keys::from_lookup(|_| Some("k".to_owned()));
        let mut options = OpenOptions::new(spec.parse().expect("a model"), keys);
        options.url = Some(format!("{}{base}", server.url()));
        let model = open(options).expect("opens");
        let cancel = kit::task::CancellationToken::new();
        let reply = model.call(&crate::request(), &cancel, None).await.expect(spec);
        assert!(reply.usage.output_total.is_some(), "{spec}");
        let error = model.call(&crate::request(), &cancel, None).await.expect_err(spec);
        assert!(error.fault.to_string().contains("not [key]"), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_does_not_carry_the_key_away() {
    for (spec, ..) in ALL {
        let elsewhere = Server::start([]).await;
        let target = format!("{}/v1/messages", elsewhere.url());
        let server = Server::start([Answer::json(307, "{}").header("location", &target)]).await;
        let error = Bench::new(spec, &server).call().await.expect_err(spec);
        assert!(error.to_string().contains("redirect"), "{error}");
        assert!(elsewhere.seen().is_empty() && server.seen().len() == 1);
    }
}

#[tokio::test]
async fn the_key_of_one_provider_does_not_travel_to_another() {
    let server = Server::start([Answer::stream(crate::COMPATIBLE)]).await;
    let only_openai =
        controller::llm::Keys::from_lookup(|name| (name == "OPENAI_API_KEY").then(|| CANARY.to_owned()));
    let mut options = OpenOptions::new("compatible:m".parse().expect("a model"), only_openai);
    options.url = Some(format!("{}/v1", server.url()));
    let model = open(options).expect("opens");
    let cancel = kit::task::CancellationToken::new();
    model.call(&crate::request(), &cancel, None).await.expect("an answer");
    assert_eq!(server.seen()[0].header("authorization"), None);
    assert_eq!(keys().seen().len(), 5);
}
