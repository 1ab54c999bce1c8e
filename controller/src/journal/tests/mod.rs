//! Behaviour of the journal over real files: one subject to a file, and here what all of them need.

mod budgets;
mod campaigns;
mod damage;
mod fleet_workers;
mod random;
mod runs;

use std::{path::Path, time::Duration};

use kit::clock::SystemClock;
use proto::v1::{self, event::Kind};
use serde_json::json;

use super::*;

fn open(folder: &Path) -> Journal {
    Journal::open(folder, SystemClock::shared()).unwrap()
}

async fn campaign(journal: &Journal, limits: Limits) -> CampaignId {
    let id = CampaignId::new();
    let new = NewCampaign {
        id,
        kind: CampaignKind::Research,
        question: "Does it help?".to_owned(),
        settings: json!({"seeds": 3}),
        researcher: "offline".to_owned(),
        seed: Some(u64::MAX),
        limits,
    };
    journal.create_campaign(new).await.unwrap();
    id
}

fn new_run(campaign: CampaignId) -> NewRun {
    NewRun {
        id: RunId::new(),
        campaign,
        experiment: None,
        revision: None,
        variant: "v1".to_owned(),
        seed: u64::MAX,
        purpose: RunPurpose::Exec,
        predecessor: None,
        image: "lite".to_owned(),
        spec: b"spec".to_vec(),
        reserve: Duration::from_secs(10),
        devices: 2,
    }
}

async fn planned(journal: &Journal, campaign: CampaignId) -> RunId {
    let new = new_run(campaign);
    let id = new.id;
    journal.plan_run(new).await.unwrap();
    id
}

fn event(sequence: u64, kind: Kind) -> v1::Event {
    v1::Event { sequence, wall_time_ns: 5, elapsed_ns: 1_000 * sequence, kind: Some(kind) }
}

fn output(sequence: u64, stream: v1::Stream, data: &[u8]) -> v1::Event {
    event(
        sequence,
        Kind::Frame(v1::Frame { stream: stream.into(), data: data.to_vec().into(), ..Default::default() }),
    )
}

fn metric(sequence: u64, name: &str, values: &[f64]) -> v1::Event {
    let points = values.iter().enumerate().map(|(step, value)| v1::MetricPoint {
        name: name.to_owned(),
        value: *value,
        step: (step % 2 == 0).then_some(-(step as i64)),
        elapsed_ns: step as u64,
    });
    let frame = v1::Frame {
        stream: v1::Stream::Metrics.into(),
        data: b"{}\n".to_vec().into(),
        points: points.collect(),
        ..Default::default()
    };
    event(sequence, Kind::Frame(frame))
}

fn end(sequence: u64, kind: v1::OutcomeKind, wall_ms: u64) -> v1::Event {
    let outcome = v1::Outcome {
        kind: kind.into(),
        exit_code: Some(0),
        message: "it ended".to_owned(),
        traceback: "Traceback".to_owned(),
        ..Default::default()
    };
    let usage = v1::UsageTotals { wall_ms, complete: true, memory_peak_bytes: 7, ..Default::default() };
    let finished = v1::Finished {
        outcome: Some(outcome),
        usage: Some(usage),
        last_sequence: sequence,
        ..Default::default()
    };
    event(sequence, Kind::Finished(finished))
}
