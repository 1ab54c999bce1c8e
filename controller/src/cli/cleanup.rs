//! What a killed `exec` left behind is ended before the next command: its campaign is marked as interrupted, its run is
//! cancelled on the worker, followed to its end and released; and a worker that was killed itself is started once, because
//! its start sweeps. A research campaign that can be gone on with is left as it is: its runs go on by themselves and are
//! fetched by `autoresearch resume`. Of one that is over, what the worker still keeps is let go.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use kit::{
    clock::{Clock, SystemClock},
    task::CancellationToken,
};
use proto::v1;

use super::{
    config::LocalWorkerUse,
    error::{CliError, chain},
    local_worker::{self, LocalWorker},
    registry::{Registry, absent},
    session::journal_failed,
};
use crate::{
    campaign::{executor::sink::JournalSink, is_resumable, progress::Watchers},
    fleet::{Fleet, Link, LinkState, RunEnd},
    journal::{
        CampaignId, CampaignKind, CampaignState, EndedHere, FleetState, FleetWorkerRow, Journal, RunRow,
    },
};

/// A command that only reads waits so long for workers of other machines.
const SOON: Duration = Duration::from_secs(10);

/// Before a command that only reads: what a kill left is ended on the workers that have it and answer soon; what the others
/// have is left for a command that uses workers. One of this machine is started only for what it has itself, because its
/// start sweeps.
///
/// # Errors
/// Where the journal cannot be opened.
pub(super) async fn after_a_kill(data_dir: &Path, may: LocalWorkerUse) -> Result<(), CliError> {
    if !data_dir.join("journal.db").exists() {
        return Ok(());
    }
    let clock: Arc<dyn Clock> = SystemClock::shared();
    let read = Journal::open_read_only(data_dir, clock.clone());
    let read = read.map_err(|e| super::session::open_failed(&e))?;
    // Where none may be started, whoever runs the worker starts it again, and that start sweeps.
    let swept = may == LocalWorkerUse::Start && left_something(data_dir);
    let runs = abandoned(&read).await?;
    if runs.is_empty() && ownerless(&read).await?.is_empty() && !swept {
        return Ok(());
    }
    drop(read);
    let journal = Journal::open(data_dir, clock.clone()).map_err(|e| super::session::open_failed(&e))?;
    let rows = journal.fleet_workers().await.map_err(journal_failed)?;
    let registry = Registry::new(data_dir, &journal, &clock);
    let mut links = Vec::new();
    for row in rows.iter().filter(|row| row.state != FleetState::Revoked && may_have_any(row, &runs)) {
        // One that dials in is not awaited by a command that only reads.
        links.push(Link::unopened(registry.dialer(row).unwrap_or_else(|e| absent(row, &e))));
    }
    let answers = links.iter().map(|link| tokio::time::timeout(SOON, link.client()));
    futures_util::future::join_all(answers).await;
    let local = LocalWorker::new(data_dir, clock, may);
    let mut usable = true;
    if swept || here(data_dir, &rows, &runs) {
        match Link::open(Box::new(local.handle())).await {
            Ok(link) => links.push(link),
            Err(error) => {
                // A command that only reads works without an engine.
                tracing::warn!(error = %chain(&error), "what a killed command left could not be ended");
                usable = false;
            }
        }
    }
    if usable {
        end_abandoned(&journal, &Fleet::new(links)).await?;
    }
    local.wait_gone(Duration::from_secs(5)).await;
    Ok(())
}

/// Whether a registered worker may have one of these.
fn may_have_any(row: &FleetWorkerRow, runs: &[RunRow]) -> bool {
    runs.iter().any(|run| run.worker_id.is_none() || run.worker_id == row.worker_id)
}

/// Whether the worker of this machine may have one of these.
fn here(data_dir: &Path, rows: &[FleetWorkerRow], runs: &[RunRow]) -> bool {
    let id = local_worker::worker_id(data_dir);
    match rows {
        [] => !runs.is_empty(),
        // Where nobody wrote down who has it, only a worker that was ever started here may.
        _ => id.is_some() && runs.iter().any(|run| run.worker_id.is_none() || run.worker_id == id),
    }
}

/// A lock that nobody holds beside a socket or a sandbox: the worker was killed.
fn left_something(data_dir: &Path) -> bool {
    let lock = local_worker::folder_of(data_dir).join("lock");
    let dead = lock.exists() && kit::folder::Lock::take(&lock).is_ok();
    dead && local_worker::left_something(data_dir)
}

/// Campaigns of `exec` that are marked as running and belong to no living command.
async fn ownerless(journal: &Journal) -> Result<Vec<CampaignId>, CliError> {
    let campaigns = journal.list_campaigns(true).await.map_err(journal_failed)?;
    let running = |state| matches!(state, CampaignState::Running | CampaignState::Paused);
    Ok(campaigns
        .into_iter()
        .filter(|campaign| campaign.kind == CampaignKind::Exec && running(campaign.state))
        .filter(|campaign| matches!(journal.is_owned(campaign.id), Ok(None)))
        .map(|campaign| campaign.id)
        .collect())
}

/// Runs that no living command follows and none will: not over, or over and not yet fetched and released.
async fn abandoned(journal: &Journal) -> Result<Vec<RunRow>, CliError> {
    let mut runs = journal.unfinished_runs().await.map_err(journal_failed)?;
    runs.extend(journal.unreleased_runs().await.map_err(journal_failed)?);
    if runs.is_empty() {
        return Ok(runs);
    }
    let campaigns = journal.list_campaigns(true).await.map_err(journal_failed)?;
    let waiting: BTreeSet<CampaignId> =
        campaigns.iter().filter(|row| is_resumable(row)).map(|row| row.id).collect();
    // What this side gave up is `given_up`'s.
    runs.retain(|run| !run.is_given_up() && !waiting.contains(&run.campaign));
    runs.retain(|run| matches!(journal.is_owned(run.campaign), Ok(None)));
    Ok(runs)
}

/// Ends them: each is cancelled, followed to its end, and released. What a worker has that is out of reach is left until it
/// is back: its end is not known, and may be a good one.
///
/// # Errors
/// Where the journal fails.
pub(super) async fn end_abandoned(journal: &Journal, fleet: &Fleet) -> Result<(), CliError> {
    for campaign in ownerless(journal).await? {
        let reason = Some("interrupted".to_owned());
        let state = CampaignState::Interrupted;
        journal.set_campaign_state(campaign, state, reason).await.map_err(journal_failed)?;
        journal.settle_open_calls(campaign).await.map_err(journal_failed)?;
    }
    let cancel = CancellationToken::new();
    cancel.cancel();
    let runs = abandoned(journal).await?;
    let ending = runs.into_iter().filter(|run| can_be_asked(fleet, run)).map(|run| {
        let (journal, fleet, cancel) = (journal.clone(), fleet.clone(), cancel.clone());
        async move {
            if let Err(error) = end_one(&journal, &fleet, &run, &cancel).await {
                tracing::warn!(run = %run.id, %error, "a run that a killed command left could not be ended");
            }
        }
    });
    futures_util::future::join_all(ending).await;
    Ok(())
}

/// Whether the worker that has it answers, or all do, so that one of them has it or none.
fn can_be_asked(fleet: &Fleet, run: &RunRow) -> bool {
    let states = fleet.states();
    let there = |state: &LinkState| matches!(state, LinkState::Open | LinkState::Draining);
    let has = |id: &str| run.worker_id.as_deref() == Some(id);
    states.iter().all(|worker| there(&worker.state))
        || states.iter().any(|worker| there(&worker.state) && has(&worker.worker_id))
}

async fn end_one(
    journal: &Journal,
    fleet: &Fleet,
    run: &RunRow,
    cancel: &CancellationToken,
) -> Result<(), CliError> {
    let ended_here = |how| async { journal.end_run(run.id, how).await.map_err(journal_failed).map(|_| ()) };
    let start = Arc::new(v1::StartRunRequest {
        run_id: run.id.to_string(),
        controller_id: journal.controller_id().to_string(),
        spec: bytes::Bytes::new(),
    });
    let watchers = Watchers::nobody();
    let mut sink = JournalSink::open(journal, run.campaign, run.id, &run.variant, &watchers)
        .await
        .map_err(journal_failed)?;
    match fleet.resume(&start, run.worker_id.as_deref(), &mut sink, cancel).await? {
        RunEnd::Finished(_) => Ok(()),
        RunEnd::Lost { .. } if run.worker_id.is_none() => {
            let message = "the command was killed before a worker had the run".to_owned();
            ended_here(EndedHere::Cancelled { message }).await
        }
        RunEnd::Lost { cause, detail } => ended_here(EndedHere::Lost { cause, message: detail }).await,
        RunEnd::Rejected { field, reason } => ended_here(EndedHere::Rejected { field, reason }).await,
    }
}
