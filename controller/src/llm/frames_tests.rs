use proptest::prelude::*;

use super::{super::retry::SystemTimer, *};

fn pieces(parts: Vec<Vec<u8>>) -> Pieces {
    Box::pin(stream::iter(parts.into_iter().map(Ok)))
}

async fn read(parts: Vec<Vec<u8>>, framing: Framing) -> Vec<Result<String, FrameFault>> {
    frames(pieces(parts), framing).collect().await
}

/// Tests run on one thread without a clock: nothing here waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

#[test]
fn events_come_in_every_spelling() {
    let body = "\u{feff}: a comment\r\n\r\nevent: x\r\ndata: one\r\n\r\ndata:two\n\ndata: a\ndata: b\n\nid: 7\n\n: OPENROUTER PROCESSING\n\ndata: last";
    let frames = now(read(vec![body.into()], Framing::Events));
    assert_eq!(frames, ["one", "two", "a\nb", "last"].map(|text| Ok(text.to_owned())));
}

#[test]
fn lines_may_be_blank_or_lack_their_end() {
    let frames = now(read(vec![b"{1}\n\n\r\n{2}\r\n".to_vec(), b"{3}".to_vec()], Framing::Lines));
    assert_eq!(frames, ["{1}", "{2}", "{3}"].map(|text| Ok(text.to_owned())));
    assert_eq!(now(read(vec![], Framing::Lines)), []);
    let wrong = now(read(vec![b"ok\n\xff\xfe\n".to_vec()], Framing::Lines));
    assert_eq!(wrong, [Ok("ok".to_owned()), Err(FrameFault::NotText)]);
}

#[test]
fn a_character_cut_in_two_arrives_whole_wherever_it_is_cut() {
    for (body, framing) in [
        ("data: ä€🌍你\r\n\r\ndata: 你\n\n", Framing::Events),
        ("\u{feff}data: ä\r\rdata: 你\r\n\n", Framing::Events),
        ("{\"a\":\"ä€🌍你\"}\n{\"b\":\"你\"}\n", Framing::Lines),
    ] {
        let whole = now(read(vec![body.into()], framing));
        assert!(whole.iter().all(Result::is_ok) && whole.len() == 2);
        for cut in 0..=body.len() {
            let (left, right) = body.as_bytes().split_at(cut);
            assert_eq!(now(read(vec![left.to_vec(), right.to_vec()], framing)), whole, "cut at {cut}");
        }
        let bytes = body.bytes().map(|byte| vec![byte]).collect();
        assert_eq!(now(read(bytes, framing)), whole, "byte by byte");
    }
}

#[test]
fn a_line_or_a_stream_without_end_is_stopped() {
    let timer: Arc<dyn Timer> = Arc::new(SystemTimer);
    let wide = pieces(vec![vec![b'x'; 1 << 20]; 9]);
    let last = now(bounded(wide, timer.clone(), Duration::from_secs(60)).collect::<Vec<_>>());
    assert_eq!(last.last(), Some(&Err(FrameFault::TooLong("a line of more than 8 MiB"))));
    let mut line = vec![b'x'; 1 << 20];
    line.push(b'\n');
    let long = pieces(vec![line; 70]);
    let last = now(bounded(long, timer, Duration::from_secs(60)).collect::<Vec<_>>());
    assert_eq!(last.last(), Some(&Err(FrameFault::TooLong("more than 64 MiB"))));
}

#[test]
fn silence_ends_a_stream() {
    struct Impatient;
    #[async_trait::async_trait]
    impl Timer for Impatient {
        async fn sleep(&self, _why: Wait, _span: Duration) {}
    }
    let silent: Pieces = Box::pin(stream::pending());
    let all = now(bounded(silent, Arc::new(Impatient), Duration::from_secs(120)).collect::<Vec<_>>());
    assert_eq!(all, [Err(FrameFault::Silence(120))]);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..12)) {
        for framing in [Framing::Events, Framing::Lines] {
            now(read(parts.clone(), framing));
        }
    }
}
