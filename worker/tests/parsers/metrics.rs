//! The metrics stream and the reader of plain lines: what is fed in pieces gives what is fed whole, a gap costs the
//! line that it cuts and no other, and what is given are names and floats that may be kept.

use proto::v1::MetricPoint;
use worker::run::metrics::{LINE_BYTES_MAX, MetricReader};

use crate::cases::{EVERY_DAY, Random, cases, in_pieces, within, wreck};

const JSON: &[&[u8]] = &[
    b"{\"t\":1234567,\"step\":10,\"v\":{\"loss\":\"0.25\"}}\n",
    b"{\"t\":1,\"v\":{\"a\":\"nan\",\"b\":\"-inf\"}}\n",
    b"{\"t\":18446744073709551615,\"step\":-9223372036854775808,\"v\":{}}\n",
    b"{\"t\":1,\"step\":null,\"v\":{\"val/acc@1\":\"1e-05\"}}\n",
    b"{\"v\":{\"a\":\"1e999\",\"\\u0061\":\"2\"},\"t\":0}\n",
    b"[[[[[[[[[[",
    b"\"a\":\"1\",",
    b"\n",
];

const PLAIN: &[&[u8]] = &[
    b"loss: 0.25\n",
    b"val/acc@1: nan\r\n",
    b" 12:30\n",
    b"epoch 3, loss: 0.5\n",
    b"acc : -1e308\n",
    b"\xc3\xa9t\xc3\xa9: 1\n",
    b":::\n",
    b"loss:",
];

/// What a point says, bit by bit: NaN is to equal itself.
fn bits(point: &MetricPoint) -> (&str, u64, Option<i64>, u64) {
    (&point.name, point.value.to_bits(), point.step, point.elapsed_ns)
}

fn whole(mut reader: MetricReader, bytes: &[u8]) -> (Vec<MetricPoint>, u64) {
    let mut out = Vec::new();
    reader.feed(bytes, &mut out);
    reader.finish(&mut out);
    (out, reader.bad_lines())
}

fn check(random: &mut Random, bytes: &[u8], reader: &MetricReader) {
    // A point takes 8 bytes at least ("a":"1",) and costs three short texts, a node of a set and two rows of lists that
    // double.
    let bound = (16 << 10) + 64 * bytes.len();
    let (points, bad) = within(bound, || whole(reader.clone(), bytes));
    let lines = memchr::memchr_iter(b'\n', bytes).count() as u64 + 1;
    assert!(bad <= lines);
    assert!(points.len() <= bytes.len() / 2);
    assert!(points.iter().all(|point| kit::name::check_metric(&point.name).is_ok()));

    let (mut pieces, mut out) = (reader.clone(), Vec::new());
    in_pieces(random, bytes, |piece| pieces.feed(piece, &mut out));
    pieces.finish(&mut out);
    assert_eq!(pieces.bad_lines(), bad);
    assert!(
        out.len() == points.len() && out.iter().zip(&points).all(|(one, other)| bits(one) == bits(other))
    );

    if random.one_in(8) {
        after_a_gap(random, bytes, reader);
    }
}

fn after_a_gap(random: &mut Random, bytes: &[u8], reader: &MetricReader) {
    let (before, after) = bytes.split_at(random.below(bytes.len() + 1));
    let (mut cut, mut out) = (reader.clone(), Vec::new());
    cut.feed(before, &mut out);
    cut.gap();
    cut.feed(after, &mut out);
    cut.finish(&mut out);
    // As if neither the line that was cut nor what is missing had ever been.
    let whole_lines = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
    let rest = memchr::memchr(b'\n', after).map_or(after.len(), |end| end + 1);
    let (mut kept, mut expected) = (reader.clone(), Vec::new());
    kept.feed(&before[..whole_lines], &mut expected);
    kept.feed(&after[rest..], &mut expected);
    kept.finish(&mut expected);
    assert!(out.iter().map(bits).eq(expected.iter().map(bits)));
    // The line that was cut may have been too long already, which was counted.
    let too_long = u64::from(before.len() - whole_lines > LINE_BYTES_MAX);
    assert!((kept.bad_lines()..=kept.bad_lines() + too_long).contains(&cut.bad_lines()));
}

#[test]
fn metric_lines_of_any_bytes_in_any_pieces() {
    let reader = MetricReader::json();
    let mut seen = 0;
    cases(EVERY_DAY, |random, bytes| {
        wreck(random, bytes, JSON);
        check(random, bytes, &reader);
        seen += u64::from(whole(reader.clone(), bytes).1 == 0);
    });
    assert!(seen > 0, "some cases are good, or nothing but refusals was tried");
}

#[test]
fn plain_lines_of_any_bytes_in_any_pieces() {
    let all = MetricReader::plain(&["*".to_owned()]);
    let named = MetricReader::plain(&["loss".to_owned(), "acc".to_owned()]);
    let mut seen = 0;
    cases(EVERY_DAY, |random, bytes| {
        wreck(random, bytes, PLAIN);
        let reader = if random.one_in(2) { &all } else { &named };
        check(random, bytes, reader);
        seen += whole(all.clone(), bytes).0.len();
    });
    assert!(seen > 0);
}
