//! How fast a full journal is read: 10,000 runs with 1,000 metric points each (DESIGN §9: listing and one campaign's
//! page under 50 ms). A plain program, because filling the journal is most of the work:
//!
//!     cargo bench -p controller --bench journal
//!
//! Says what it measured, and ends with 1 where a budget was not kept.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use controller::journal::{
    CampaignId, CampaignKind, Journal, Limits, NewCampaign, NewRun, RunId, RunPurpose, request_digest,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use proto::v1::{self, event::Kind};
use serde_json::json;

const CAMPAIGNS: u64 = 10;
const EXPERIMENTS: u32 = 20;
const RUNS_OF_EXPERIMENT: u64 = 50;
const POINTS: u64 = 1_000;
const TRIES: usize = 15;
const BUDGET: Duration = Duration::from_millis(50);

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if !runtime.block_on(measure())? {
        anyhow::bail!("over the budget of {BUDGET:?}");
    }
    Ok(())
}

async fn measure() -> anyhow::Result<bool> {
    let folder = tempfile::tempdir()?;
    let open = || Journal::open(folder.path(), kit::clock::SystemClock::shared());
    let begun = Instant::now();
    let journal = open()?;
    let mut last = CampaignId::new();
    for _ in 0..CAMPAIGNS {
        last = CampaignId::new();
        fill(&journal, last).await?;
    }
    let size = std::fs::metadata(folder.path().join("journal.db"))?.len();
    let runs = CAMPAIGNS * u64::from(EXPERIMENTS) * RUNS_OF_EXPERIMENT;
    say(&format!("filled: {runs} runs × {POINTS} points, {} MiB, in {:.1?}", size >> 20, begun.elapsed()))?;
    drop(journal);

    let opened = Instant::now();
    let journal = open()?;
    say(&format!("open: {:.1?}", opened.elapsed()))?;
    let listing =
        time("list every campaign", || async { journal.list_campaigns(true).await.map(|rows| rows.len()) });
    let listing = listing.await?;
    let page = time("one campaign's page", || async {
        let experiments = journal.experiments(last).await?.len();
        journal.campaign(last).await?;
        journal.findings(last).await?;
        Ok::<_, controller::journal::JournalError>(experiments + journal.runs(last).await?.len())
    });
    let page = page.await?;
    time("curves of one experiment", || async { journal.series(last, 1, "loss").await.map(|s| s.len()) })
        .await?;
    Ok(listing < BUDGET && page < BUDGET)
}

async fn fill(journal: &Journal, campaign: CampaignId) -> anyhow::Result<()> {
    let new = NewCampaign {
        id: campaign,
        kind: CampaignKind::Research,
        question: "Does it help?".to_owned(),
        settings: json!({}),
        researcher: "offline".to_owned(),
        seed: None,
        limits: Limits::default(),
    };
    journal.create_campaign(new).await?;
    let plan = json!({"title": "bench"});
    for experiment in 1..=EXPERIMENTS {
        journal
            .register_experiment(campaign, experiment, &plan, request_digest(&plan), "exploratory")
            .await?;
        stream::iter(0..RUNS_OF_EXPERIMENT)
            .map(|seed| run(journal, campaign, experiment, seed))
            .buffer_unordered(64)
            .try_collect::<Vec<()>>()
            .await?;
    }
    Ok(())
}

async fn run(journal: &Journal, campaign: CampaignId, experiment: u32, seed: u64) -> anyhow::Result<()> {
    let new = NewRun {
        id: RunId::new(),
        campaign,
        experiment: Some(experiment),
        revision: None,
        variant: "v1".to_owned(),
        seed,
        purpose: RunPurpose::Full,
        predecessor: None,
        image: "torch".to_owned(),
        spec: vec![0; 500],
        reserve: Duration::from_secs(60),
        devices: 1,
    };
    let id = new.id;
    journal.plan_run(new).await?;
    let points = (0..POINTS).map(|step| v1::MetricPoint {
        name: "loss".to_owned(),
        value: 1.0 / (step + 1) as f64,
        step: i64::try_from(step).ok(),
        elapsed_ns: step * 1_000_000,
    });
    let frame =
        v1::Frame { stream: v1::Stream::Metrics.into(), points: points.collect(), ..Default::default() };
    let outcome = v1::Outcome { kind: v1::OutcomeKind::Succeeded.into(), ..Default::default() };
    let usage = v1::UsageTotals { wall_ms: 30_000, ..Default::default() };
    let finished = v1::Finished { outcome: Some(outcome), usage: Some(usage), ..Default::default() };
    let event = |sequence, kind| v1::Event { sequence, wall_time_ns: 1, elapsed_ns: 1, kind: Some(kind) };
    let events = vec![event(1, Kind::Frame(frame)), event(2, Kind::Finished(finished))];
    journal.open_run(id).await?.apply(events).await?;
    Ok(())
}

/// The median of some tries.
async fn time<T, E, F>(what: &str, mut work: impl FnMut() -> F) -> anyhow::Result<Duration>
where
    F: Future<Output = Result<T, E>>,
    T: std::fmt::Display,
    anyhow::Error: From<E>,
{
    let mut spans = Vec::new();
    let mut things = String::new();
    for _ in 0..TRIES {
        let begun = Instant::now();
        things = work().await?.to_string();
        spans.push(begun.elapsed());
    }
    spans.sort();
    let median = spans[TRIES / 2];
    say(&format!("{what}: {median:.1?} (median of {TRIES}; {things} things)"))?;
    Ok(median)
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
