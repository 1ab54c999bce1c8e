//! What a session does beside its work, for other processes and later ones: runs that were given up are ended where they turn
//! up again, and that a worker is set aside is written down for `worker list` of another terminal.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kit::task::CancellationToken;
use tokio_util::sync::DropGuard;

use super::{error::CliError, session::journal_failed};
use crate::{
    fleet::{Fleet, Orphan, WeakFleet},
    journal::{FleetState, Journal, JournalError, RunId},
};

/// The fleet is looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Goes on until it is dropped.
pub struct Upkeep {
    journal: Journal,
    fleet: WeakFleet,
    _going_on: DropGuard,
}

impl Upkeep {
    /// Hands the fleet what earlier processes gave up, and begins to look after it.
    ///
    /// # Errors
    /// Where the journal fails.
    pub async fn start(journal: &Journal, fleet: &Fleet) -> Result<Self, CliError> {
        let lost = given_up(journal).await.map_err(journal_failed)?;
        for (_, orphan) in &lost {
            fleet.end_given_up(orphan);
        }
        // A process that was killed cannot take it back; one that lives writes it again.
        for row in journal.fleet_workers().await.map_err(journal_failed)? {
            if row.state == FleetState::SetAside {
                take_back(journal, &row.name).await;
            }
        }
        let stop = CancellationToken::new();
        kit::task::spawn("upkeep", follow(journal.clone(), fleet.downgrade(), lost, stop.clone()));
        Ok(Self { journal: journal.clone(), fleet: fleet.downgrade(), _going_on: stop.drop_guard() })
    }

    /// With the session ends what it knows of its workers.
    pub async fn end(self) {
        let Self { journal, fleet, _going_on } = self;
        drop(_going_on);
        if let Some(fleet) = fleet.upgrade() {
            for name in fleet.set_aside().keys() {
                take_back(&journal, name).await;
            }
        }
    }
}

/// Those of campaigns that a living process looks after are that one's.
async fn given_up(journal: &Journal) -> Result<Vec<(RunId, Orphan)>, JournalError> {
    let mut rows = journal.given_up_runs().await?;
    rows.retain(|run| matches!(journal.is_owned(run.campaign), Ok(None)));
    let orphan = |run: crate::journal::RunRow| {
        let controller_id = journal.controller_id().to_string();
        (run.id, Orphan { run_id: run.id.to_string(), controller_id, worker_id: run.worker_id })
    };
    Ok(rows.into_iter().map(orphan).collect())
}

async fn follow(journal: Journal, fleet: WeakFleet, mut lost: Vec<(RunId, Orphan)>, stop: CancellationToken) {
    let mut told: BTreeSet<String> = BTreeSet::new();
    while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        let Some(fleet) = fleet.upgrade() else { return };
        let ended: Vec<RunId> = lost.iter().filter(|(_, o)| fleet.has_ended(o)).map(|(id, _)| *id).collect();
        lost.retain(|(id, _)| !ended.contains(id));
        for run in ended {
            if let Err(error) = journal.mark_released(run).await {
                tracing::warn!(%run, %error, "that a run was released could not be written down");
            }
        }
        let aside = fleet.set_aside();
        drop(fleet);
        for name in told.iter().filter(|name| !aside.contains_key(*name)) {
            take_back(&journal, name).await;
        }
        write_down(&journal, &aside).await;
        told = aside.into_keys().collect();
    }
}

/// Again, where somebody else said otherwise meanwhile.
async fn write_down(journal: &Journal, aside: &BTreeMap<String, String>) {
    if aside.is_empty() {
        return;
    }
    let rows = match journal.fleet_workers().await {
        Ok(rows) => rows,
        Err(error) => return tracing::warn!(%error, "the registry of workers cannot be read"),
    };
    for row in rows.iter().filter(|row| row.state == FleetState::Active) {
        let Some(reason) = aside.get(&row.name) else { continue };
        match journal.set_fleet_worker_state(&row.name, FleetState::SetAside, Some(reason)).await {
            // It may have been removed or revoked a moment ago.
            Ok(_) | Err(JournalError::NotFound { .. } | JournalError::State { .. }) => {}
            Err(error) => {
                tracing::warn!(worker = row.name, %error, "that a worker is set aside could not be written down");
            }
        }
    }
}

async fn take_back(journal: &Journal, name: &str) {
    if let Err(error) = journal.take_back_fleet_worker(name).await {
        tracing::warn!(worker = name, %error, "that a worker is taken back could not be written down");
    }
}
