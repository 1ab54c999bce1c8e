//! What a worker sends, wrecked: a batch is taken whole or refused whole, nothing but good names becomes a row, and no
//! name of an artifact leads out of its folder. Two hundred thousand cases from a seed, as many as
//! `AUTORESEARCH_FUZZ_CASES` asks for where that is set.

use kit::clock::SystemClock;
use prost::Message as _;

use super::{
    super::{
        CampaignId,
        points::{Point, decode, encode},
    },
    *,
};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { ((self.word() >> 33) % end as u64) as usize }
    }
}

fn cases(mut check: impl FnMut(&mut Random)) {
    let asked = std::env::var("AUTORESEARCH_FUZZ_CASES").ok().and_then(|text| text.parse().ok());
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for _ in 0..asked.unwrap_or(200_000_u32) {
        check(&mut random);
    }
}

/// Events as they come over the wire.
fn good_events() -> Vec<Vec<u8>> {
    let point =
        |name: &str| v1::MetricPoint { name: name.into(), value: f64::NAN, step: Some(3), elapsed_ns: 9 };
    let frame = v1::Frame {
        stream: v1::Stream::Metrics.into(),
        offset: 7,
        data: b"{}\n".to_vec().into(),
        points: vec![point("loss"), point("val/acc@1")],
    };
    let gap = v1::Gap { stream: v1::Stream::Stderr.into(), dropped_bytes: u64::MAX, ..Default::default() };
    let outcome = Some(v1::Outcome { kind: v1::OutcomeKind::Failed.into(), ..Default::default() });
    let kinds = [
        v1::event::Kind::StateChange(v1::StateChange { state: 4, ..Default::default() }),
        v1::event::Kind::Frame(frame),
        v1::event::Kind::Usage(v1::Usage { cpu_ns: 5, ..Default::default() }),
        v1::event::Kind::Gap(gap),
        v1::event::Kind::Finished(v1::Finished { outcome, ..Default::default() }),
    ];
    kinds
        .into_iter()
        .zip(1..)
        .map(|(kind, sequence)| {
            v1::Event { sequence, wall_time_ns: 1, elapsed_ns: 2, kind: Some(kind) }.encode_to_vec()
        })
        .collect()
}

#[test]
fn a_batch_of_any_events_is_taken_whole_or_refused() {
    let good = good_events();
    let (run, mut taken, mut refused) = (RunId::new(), 0_u64, 0_u64);
    cases(|random| {
        let last = random.below(4) as u64;
        let mut events = Vec::new();
        let mut bytes = Vec::new();
        for index in 0..1 + random.below(5) {
            bytes.clear();
            bytes.extend_from_slice(&good[(last as usize + index) % good.len()]);
            if random.below(3) == 0 {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 => bytes.truncate(at),
                    _ => bytes.extend_from_within(at..),
                }
            }
            if let Ok(event) = v1::Event::decode(&bytes[..]) {
                events.push(event);
            }
        }
        let sent = events.len() as u64;
        let data: usize = events
            .iter()
            .map(|event| match &event.kind {
                Some(v1::event::Kind::Frame(frame)) => frame.data.len(),
                _ => 0,
            })
            .sum();
        match Batch::sort(run, last, events) {
            Ok(batch) => {
                assert!(batch.new_events <= sent && batch.last_sequence == last + batch.new_events);
                assert!(batch.bytes.iter().map(Vec::len).sum::<usize>() <= data);
                assert!(batch.points.names().all(|name| kit::name::check_metric(name).is_ok()));
                taken += batch.new_events;
            }
            Err(error) => {
                assert!(error.to_string().chars().all(|c| !c.is_control()));
                refused += 1;
            }
        }
    });
    assert!(taken > 0 && refused > 0);
}

#[test]
fn a_name_that_is_none_refuses_its_batch() {
    let point = v1::MetricPoint { name: "a\u{1b}[2J".into(), ..Default::default() };
    let frame = v1::Frame { stream: v1::Stream::Metrics.into(), points: vec![point], ..Default::default() };
    let event = v1::Event { sequence: 1, kind: Some(v1::event::Kind::Frame(frame)), ..Default::default() };
    let error = Batch::sort(RunId::new(), 0, vec![event]).unwrap_err();
    assert!(error.to_string().contains("metric's name"), "{error}");
}

#[test]
fn points_come_back_bit_by_bit_and_any_bytes_are_survived() {
    cases(|random| {
        let step = (random.below(2) == 0).then(|| random.word().cast_signed());
        let point = Point {
            sequence: random.word(),
            step,
            value: f64::from_bits(random.word()),
            elapsed_ns: random.word(),
        };
        let bits = |p: &Point| (p.sequence, p.step, p.value.to_bits(), p.elapsed_ns);
        let mut bytes = encode(&[point]);
        let mut back = Vec::new();
        decode(&bytes, &mut back);
        assert!(back.len() == 1 && bits(&back[0]) == bits(&point));
        let at = random.below(bytes.len());
        bytes.truncate(at);
        back.clear();
        decode(&bytes, &mut back);
        assert!(back.is_empty());
    });
}

#[test]
fn no_name_of_an_artifact_leads_out_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), SystemClock::shared()).unwrap();
    let (campaign, run) = (CampaignId::new(), RunId::new());
    let below = journal.run_folder(campaign, run).join("artifacts");
    let pieces = ["..", ".", "/", "a", "model.pt", "\\", "\n", "\0", "é", "//", " ", "\u{202e}", "~", "C:"];
    let (mut good, mut name) = (0_u64, String::new());
    cases(|random| {
        name.clear();
        for _ in 0..1 + random.below(8) {
            name.push_str(pieces[random.below(pieces.len())]);
        }
        match journal.artifact_path(campaign, run, &name) {
            Ok(path) => {
                let rest = path.strip_prefix(&below).unwrap();
                let plain = |part: std::path::Component| matches!(part, std::path::Component::Normal(_));
                assert!(rest.components().count() > 0 && rest.components().all(plain), "{name:?}");
                assert_eq!(rest.to_str(), Some(name.as_str()));
                good += 1;
            }
            Err(error) => assert!(error.to_string().chars().all(|c| !c.is_control())),
        }
    });
    assert!(good > 0);
}
