//! What a killed `exec` left behind is ended before the next command: its campaign is marked as interrupted, its run is
//! cancelled on the worker, followed to its end and released; and a worker that was killed itself is started once, because
//! its start sweeps. A research campaign that can be gone on with is left as it is: its runs go on by themselves and are
//! fetched by `autoresearch resume`. Of one that is over, what the worker still keeps is let go.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use kit::{clock::SystemClock, task::CancellationToken};
use proto::v1;

use super::{
    config::LocalWorkerUse,
    error::{CliError, chain},
    local_worker::{self, LocalWorker},
    session::journal_failed,
};
use crate::{
    campaign::{executor::sink::JournalSink, is_resumable, progress::Watchers},
    fleet::{Fleet, Link, RunEnd},
    journal::{CampaignId, CampaignKind, CampaignState, EndedHere, Journal, RunRow},
};

/// Before a command that only reads: where a kill left something, a worker is started, does its sweep, and goes.
///
/// # Errors
/// Where the journal cannot be opened.
pub(super) async fn after_a_kill(data_dir: &Path, may: LocalWorkerUse) -> Result<(), CliError> {
    if !data_dir.join("journal.db").exists() {
        return Ok(());
    }
    let clock = SystemClock::shared();
    let abandoned = {
        let journal = Journal::open_read_only(data_dir, clock.clone());
        match journal {
            Ok(journal) => !abandoned(&journal).await?.is_empty() || !ownerless(&journal).await?.is_empty(),
            Err(error) => return Err(super::session::open_failed(&error)),
        }
    };
    // Where none may be started, whoever runs the worker starts it again, and that start sweeps.
    let swept_here = may == LocalWorkerUse::Start && left_something(data_dir);
    if !abandoned && !swept_here {
        return Ok(());
    }
    let journal = Journal::open(data_dir, clock.clone()).map_err(|e| super::session::open_failed(&e))?;
    let local = LocalWorker::new(data_dir, clock, may);
    match Link::open(Box::new(local.handle())).await {
        Ok(link) => end_abandoned(&journal, &Fleet::new(vec![link])).await?,
        // A command that only reads works without an engine.
        Err(error) => tracing::warn!(error = %chain(&error), "what a killed command left could not be ended"),
    }
    local.wait_gone(std::time::Duration::from_secs(5)).await;
    Ok(())
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
    runs.retain(|run| !waiting.contains(&run.campaign) && matches!(journal.is_owned(run.campaign), Ok(None)));
    Ok(runs)
}

/// Ends them: each is cancelled, followed to its end, and released.
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
    let ending = abandoned(journal).await?.into_iter().map(|run| {
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
    match fleet.end(&start, &mut sink, cancel).await? {
        RunEnd::Finished(_) => Ok(()),
        RunEnd::Lost { .. } if run.worker_id.is_none() => {
            let message = "the command was killed before a worker had the run".to_owned();
            ended_here(EndedHere::Cancelled { message }).await
        }
        RunEnd::Lost { cause, detail } => ended_here(EndedHere::Lost { cause, message: detail }).await,
        RunEnd::Rejected { field, reason } => ended_here(EndedHere::Rejected { field, reason }).await,
    }
}
