//! Segments of the spool. Their bytes are the worker's own, but what they hold is the program's, and a power cut or a
//! bad disk may leave anything: every event comes back as it was, and any flipped bit is noticed or cut at the tail.

use proto::v1::{Event, Finished, Frame, Gap, MetricPoint, Outcome, StateChange, Stream, Usage, event::Kind};
use worker::run::{
    RunId,
    spool::{
        format::{
            FRAME_HEADER_BYTES, HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, Parsed, Seal, parse_frame,
            push_frame,
        },
        read::{Place, Recovered, examine},
    },
};

use crate::cases::{EVERY_DAY, MILLION, Random, cases, within};

/// A segment that is right, and where its frames begin; its end is the last of them.
struct Segment {
    run_id: RunId,
    first: u64,
    bytes: Vec<u8>,
    starts: Vec<usize>,
    events: Vec<Event>,
}

fn some_bytes(random: &mut Random) -> Vec<u8> {
    // Heads of frames among them, as a program may print them.
    let head = [4, 0, 0, 0, 1, 2, 3, 4, 8, 5, 16, 0];
    (0..random.below(60)).map(|at| if at < 24 { head[at % 12] } else { random.word() as u8 }).collect()
}

fn kind(random: &mut Random) -> Kind {
    let stream = Stream::Stderr.into();
    match random.below(6) {
        0 => Kind::StateChange(StateChange { state: random.below(9) as i32, ..Default::default() }),
        1 => Kind::Usage(Usage { cpu_ns: random.word(), ..Default::default() }),
        2 => Kind::Gap(Gap {
            stream,
            from_offset: random.word(),
            dropped_bytes: random.word(),
            dropped_points: 1,
            reason: "over".into(),
        }),
        3 => Kind::Finished(Finished {
            outcome: Some(Outcome { message: "x".into(), ..Default::default() }),
            ..Default::default()
        }),
        _ => {
            let point = |random: &mut Random| MetricPoint {
                name: "loss".into(),
                value: random.word() as f64,
                step: None,
                elapsed_ns: random.word(),
            };
            let points = (0..random.below(3)).map(|_| point(random)).collect();
            Kind::Frame(Frame { stream, offset: random.word(), data: some_bytes(random).into(), points })
        }
    }
}

fn segment(random: &mut Random) -> Segment {
    let run_id = RunId::new();
    // The last sequences that there are among them: nothing may overflow.
    let first = if random.one_in(8) { u64::MAX - 6 } else { 1 + random.word() % 1000 };
    let mut made = Segment {
        run_id,
        first,
        bytes: Header::new(run_id, first).encode().to_vec(),
        starts: Vec::new(),
        events: Vec::new(),
    };
    for index in 0..1 + random.below(6) as u64 {
        let event = Event {
            sequence: first + index,
            wall_time_ns: random.word() as i64,
            elapsed_ns: random.word(),
            kind: Some(kind(random)),
        };
        made.starts.push(made.bytes.len());
        assert!(push_frame(&mut made.bytes, &event, Seal::Run(made.run_id)));
        made.events.push(event);
    }
    made
}

fn pool() -> Vec<Segment> {
    let mut random = Random::new(7);
    (0..500).map(|_| segment(&mut random)).collect()
}

#[test]
fn every_event_comes_back_as_it_was() {
    for segment in pool() {
        let mut at = HEADER_BYTES;
        for event in &segment.events {
            let Parsed::Frame(read, size) = parse_frame(&segment.bytes[at..], Seal::Run(segment.run_id))
            else {
                panic!("{event:?}")
            };
            assert_eq!(*read, *event);
            at += size;
        }
        assert_eq!(at, segment.bytes.len());
        for place in [Place::Only, Place::First] {
            let mut found = Recovered::default();
            assert_eq!(examine(&mut found, &segment.bytes, segment.run_id, place), Ok(at));
            assert_eq!(found.last_sequence, segment.first + segment.events.len() as u64 - 1);
        }
    }
}

#[test]
fn any_flipped_bit_is_noticed_or_cut_at_the_tail() {
    let pool = pool();
    let (mut cut, mut damaged) = (0_u64, 0_u64);
    cases(EVERY_DAY, |random, bytes| {
        let segment = &pool[random.below(pool.len())];
        bytes.extend_from_slice(&segment.bytes);
        let bit = random.below(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let last = segment.starts.len() - 1;
        let mut found = Recovered::default();
        match examine(&mut found, bytes, segment.run_id, Place::Only) {
            Ok(good) => {
                // A torn end: only the last frame, and what stays is what was written.
                assert!(bit / 8 >= segment.starts[last], "byte {} of {}", bit / 8, segment.starts[last]);
                assert_eq!(good, segment.starts[last]);
                assert_eq!(found.last_sequence, segment.first + last as u64 - 1);
                cut += 1;
            }
            Err(damage) => {
                assert!(damage.offset <= bit / 8);
                damaged += 1;
            }
        }
        // A closed segment has no torn end.
        let mut found = Recovered::default();
        assert!(examine(&mut found, bytes, segment.run_id, Place::First).is_err());
    });
    assert!(cut > 0 && damaged > 0);
}

#[test]
fn wrecked_segments_give_nothing_but_what_was_written() {
    let pool = pool();
    let mut whole = 0_u64;
    cases(EVERY_DAY, |random, bytes| {
        let segment = &pool[random.below(pool.len())];
        bytes.extend_from_slice(&segment.bytes);
        for _ in 0..random.below(3) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.drain(at..at + random.below(bytes.len() - at).min(20)).for_each(drop),
                2 => bytes.extend_from_within(at..),
                _ => {
                    // Of its own: a frame does not say whose it is, so one of another run that lies at the
                    // right place under the right sequence would be taken.
                    let at = random.below(segment.bytes.len());
                    bytes.extend_from_slice(&segment.bytes[at..]);
                }
            }
        }
        let mut found = Recovered::default();
        let bound = (16 << 10) + 64 * bytes.len();
        let Ok(good) = within(bound, || examine(&mut found, bytes, segment.run_id, Place::Only)) else {
            return;
        };
        assert!(good <= bytes.len());
        if good == 0 {
            assert!(bytes.len() < HEADER_BYTES);
            return;
        }
        // The good bytes are the first frames that were written and no others.
        let events = segment.starts.iter().filter(|start| **start < good).count();
        assert!(good <= segment.bytes.len() && bytes[..good] == segment.bytes[..good]);
        assert_eq!(found.last_sequence, segment.first + events as u64 - 1);
        whole += u64::from(good == segment.bytes.len());
    });
    assert!(whole > 0);
}

#[test]
fn frames_of_any_bytes_also_under_a_good_checksum() {
    let pool = pool();
    let mut decoded = 0_u64;
    cases(MILLION, |random, bytes| {
        // A payload that is wrecked before it is summed up: the decoder itself meets it.
        let segment = &pool[random.below(pool.len())];
        let start = segment.starts[0] + FRAME_HEADER_BYTES;
        let end = segment.starts.get(1).copied().unwrap_or(segment.bytes.len());
        bytes.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        bytes.extend_from_slice(&segment.bytes[start..end]);
        for _ in 0..1 + random.below(3) {
            let at = FRAME_HEADER_BYTES + random.below(bytes.len() - FRAME_HEADER_BYTES);
            match random.below(3) {
                0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
                1 => bytes.extend_from_within(at..),
                _ => bytes.extend_from_slice(&random.word().to_le_bytes()),
            }
        }
        if random.one_in(4) {
            bytes[..8].copy_from_slice(&random.word().to_le_bytes());
        } else {
            let length = ((bytes.len() - FRAME_HEADER_BYTES) as u32).to_le_bytes();
            bytes[..4].copy_from_slice(&length);
            let sum = {
                let mut hasher = crc32fast::Hasher::new();
                hasher.update(&length);
                hasher.update(&bytes[FRAME_HEADER_BYTES..]);
                hasher.finalize()
            };
            bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        }
        // A list of empty points is 2 bytes each, and 56 in memory, twice while a list grows.
        match within((16 << 10) + 128 * bytes.len(), || parse_frame(bytes, Seal::None)) {
            Parsed::Frame(_, size) => {
                assert!(size <= bytes.len() && size <= FRAME_HEADER_BYTES + PAYLOAD_BYTES_MAX);
                decoded += 1;
            }
            Parsed::Short | Parsed::Bad => {}
        }
    });
    assert!(decoded > 0);
}
