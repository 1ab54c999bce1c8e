//! Twenty workers, a thousand runs and a bad night, with a real journal: every job is done once. Only counts are asserted;
//! `benches/fleet.rs` is the same with two hundred workers, and measures.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};

use super::{
    chaos::{Chaos, night},
    *,
};
use crate::{
    campaign::{executor::sink::JournalSink, progress::Watchers},
    journal::{CampaignId, CampaignKind, EndedHere, Journal, Limits, NewCampaign, NewRun, RunId, RunPurpose},
};

const WORKERS: usize = 20;
const SLOTS: u32 = 10;
const JOBS: u32 = 1_000;
/// More than there are slots, so that some wait.
const AT_ONCE: usize = 300;

struct Office {
    journal: Journal,
    campaign: CampaignId,
    fleet: Fleet,
}

impl Office {
    /// Runs of one job until one of them has an end of its own; how many were lost before it.
    async fn job(&self, number: u32) -> u32 {
        let watchers = Watchers::nobody();
        for lost in 0.. {
            let id = RunId::new();
            let spec = run(0, &format!("v{}", number % 4)).spec;
            let new = NewRun {
                id,
                campaign: self.campaign,
                experiment: None,
                revision: None,
                variant: format!("v{}", number % 4),
                seed: u64::from(number),
                purpose: RunPurpose::Exec,
                predecessor: None,
                image: "lite".to_owned(),
                spec: spec.to_vec(),
                reserve: Duration::from_secs(5),
                devices: 1,
            };
            self.journal.plan_run(new).await.unwrap();
            let start = v1::StartRunRequest {
                run_id: id.to_string(),
                controller_id: self.journal.controller_id().to_string(),
                spec,
            };
            let mut sink = JournalSink::open(&self.journal, self.campaign, id, "v", &watchers).await.unwrap();
            let end = self.fleet.run(start, &mut sink, &CancellationToken::new()).await;
            match end.unwrap() {
                RunEnd::Finished(_) => return lost,
                RunEnd::Lost { cause, detail } => {
                    self.journal.end_run(id, EndedHere::Lost { cause, message: detail }).await.unwrap();
                }
                rejected @ RunEnd::Rejected { .. } => panic!("{rejected:?}"),
            }
        }
        0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_of_a_bad_night_is_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), SystemClock::shared()).unwrap();
    let campaign = CampaignId::new();
    let new = NewCampaign {
        id: campaign,
        kind: CampaignKind::Exec,
        question: "?".to_owned(),
        settings: serde_json::json!({}),
        researcher: "none".to_owned(),
        seed: None,
        limits: Limits::default(),
    };
    journal.create_campaign(new).await.unwrap();
    let workers: Vec<FakeWorker> = (0..WORKERS)
        .map(|number| {
            let run_time = (Duration::from_millis(20), Duration::from_millis(400));
            FakeWorker::new(Shape { run_time, ..Shape::cpu(&format!("w{number:02}"), SLOTS) })
        })
        .collect();
    let pace = Pace { patience: Duration::from_secs(1800), ..quick() };
    let fleet = fleet_with(&workers.iter().collect::<Vec<_>>(), pace, &Awake::start(SystemClock::shared()));
    let office = Office { journal, campaign, fleet };

    let stop = CancellationToken::new();
    let chaos = Chaos { pause: Duration::from_millis(15), away: Duration::from_millis(150), wipe_every: 12 };
    let all = workers.clone();
    let token = stop.clone();
    let night = kit::task::spawn("night", async move { night(&all, chaos, token).await });
    let jobs = stream::iter(0..JOBS).map(|number| office.job(number)).buffer_unordered(AT_ONCE);
    let lost: u32 = jobs.collect::<Vec<u32>>().await.into_iter().sum();
    stop.cancel();
    let happened = night.await.unwrap().unwrap();
    assert!(happened.cuts > 0 && happened.absences > 0 && happened.wipes > 0, "{happened:?}");

    let mut begun: BTreeMap<String, u32> = BTreeMap::new();
    for worker in &workers {
        let seen = worker.seen();
        assert!(seen.most_at_once <= SLOTS as usize);
        for (run, times) in seen.begun {
            *begun.entry(run).or_default() += times;
        }
    }
    assert!(begun.values().all(|times| *times == 1), "a run was begun twice");
    let rows = office.journal.runs(campaign).await.unwrap();
    let ended = |word: &str| rows.iter().filter(|row| row.outcome.as_deref() == Some(word)).count();
    assert_eq!(ended("succeeded"), JOBS as usize, "{happened:?}");
    assert_eq!(ended("lost"), lost as usize);
    assert_eq!(rows.len(), (JOBS + lost) as usize);
    assert!(office.journal.unfinished_runs().await.unwrap().is_empty());
    let kept: usize = workers.iter().map(FakeWorker::held).sum();
    assert_eq!(kept, 0, "every run is released on its worker");
}
