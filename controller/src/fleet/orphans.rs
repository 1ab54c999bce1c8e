//! Runs that were given up while their worker was out of reach (WORKER §2: `lost` is final). When the worker is back they
//! are cancelled and released there, unread: nothing of them reaches an analysis, and nothing of them stays behind.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use proto::v1;
use tokio::sync::Notify;
use tonic::Code;

use super::line::{Fault, Line};

/// More than a controller has under way; beyond it the oldest are left to the worker's retention.
const ORPHANS: usize = 10_000;
/// A run that was cancelled is looked at so often until it has ended.
const PAUSE: Duration = Duration::from_millis(500);

/// Of one link.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    runs: Mutex<BTreeMap<String, Orphan>>,
    more: Notify,
}

/// A run that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Which.
    pub run_id: String,
    /// Whose.
    pub controller_id: String,
    /// Where it was, if it is known; a worker with another id has never had it.
    pub worker_id: Option<String>,
}

impl Orphans {
    pub(super) fn add(&self, orphan: Orphan) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        // Ids are UUIDs of version 7: the first is the oldest.
        if runs.len() >= ORPHANS
            && let Some((id, _)) = runs.pop_first()
        {
            tracing::warn!(
                run = id,
                "too many runs were given up: this one is left to the worker's retention"
            );
        }
        runs.insert(orphan.run_id.clone(), orphan);
        drop(runs);
        self.more.notify_one();
    }

    pub(super) fn len(&self) -> usize {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether this one is still to be ended.
    pub(super) fn has(&self, run_id: &str) -> bool {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).contains_key(run_id)
    }

    /// Ends them over this connection, and those that come later; returns only where the connection does not do.
    pub(super) async fn end_all(&self, line: &Line) {
        loop {
            let more = self.more.notified();
            let next = self
                .runs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .first_key_value()
                .map(|(_, o)| o.clone());
            let Some(orphan) = next else {
                more.await;
                continue;
            };
            match end(line, &orphan).await {
                Ok(()) => {
                    self.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(&orphan.run_id);
                }
                Err(fault) => {
                    tracing::warn!(
                        run = orphan.run_id,
                        ?fault,
                        "a run that was given up could not be ended yet"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn end(line: &Line, orphan: &Orphan) -> Result<(), Fault> {
    if orphan.worker_id.as_ref().is_some_and(|id| *id != line.view.worker_id) {
        return Ok(());
    }
    let (run_id, controller_id) = (orphan.run_id.clone(), orphan.controller_id.clone());
    let mut client = line.client.clone();
    let cancel = v1::CancelRunRequest { run_id: run_id.clone(), controller_id: controller_id.clone() };
    line.ask("CancelRun", client.cancel_run(cancel)).await?;
    let last_sequence = loop {
        let get = v1::GetRunRequest { run_id: run_id.clone(), controller_id: controller_id.clone() };
        match line.ask("GetRun", client.get_run(get)).await {
            Ok(reply) => match reply.run {
                Some(run) if run.state() == v1::RunState::Finished => break run.last_sequence,
                _ => tokio::time::sleep(PAUSE).await,
            },
            // It has never had it, or has forgotten it.
            Err(fault) if matches!(fault.code(), Code::NotFound | Code::FailedPrecondition) => return Ok(()),
            Err(fault) => return Err(fault),
        }
    };
    let release = v1::ReleaseRunRequest { run_id, controller_id, last_sequence };
    line.ask("ReleaseRun", client.release_run(release)).await?;
    tracing::info!(
        run = orphan.run_id,
        worker = line.name(),
        "a run that was given up is ended and released"
    );
    Ok(())
}
