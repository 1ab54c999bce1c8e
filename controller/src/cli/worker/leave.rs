//! `autoresearch worker revoke NAME` and `remove NAME`: the key is no longer trusted, the worker is forgotten.

use std::{process::ExitCode, time::Duration};

use kit::identity::Invitations;

use super::{Desk, registry_failed, trust};
use crate::{
    cli::{
        error::{CliError, chain},
        out::Printer,
        registry,
    },
    fleet::{address::AddressKind, dial},
    journal::{FleetState, FleetWorkerRow, JournalError},
};

/// The other side is told if it can be reached; what counts is done here.
const REACH: Duration = Duration::from_secs(10);

/// Never trust a worker's key again, here and at once: for a machine that was stolen or broken into.
///
/// Campaigns that run drop it within seconds. Over TLS the worker is also asked to forget this controller's key.
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// As it was added.
    name: String,
    /// Why, for the list.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Forget a worker. Runs that it still has stay there until they end; this controller no longer asks for them.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// As it was added.
    name: String,
    /// Also where runs of this controller are still on it.
    #[arg(long)]
    force: bool,
}

pub(super) async fn revoke(args: Revoke, desk: &Desk, printer: Printer) -> Result<ExitCode, CliError> {
    let name = args.name.as_str();
    let row = desk.journal.fleet_worker(name).await.map_err(registry_failed)?;
    let reason = args.reason.as_deref();
    let state = FleetState::Revoked;
    let before = desk.journal.set_fleet_worker_state(name, state, reason).await.map_err(registry_failed)?;
    withdraw(desk, &row)?;
    let told = tell(desk, &row).await;
    let json = serde_json::json!({ "name": name, "state": state, "was": before, "worker_told": told });
    printer.result(&json, &format!("{name} is revoked{}", words(&row, told)))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn remove(args: Remove, desk: &Desk, printer: Printer) -> Result<ExitCode, CliError> {
    let name = args.name.as_str();
    let row = desk.journal.fleet_worker(name).await.map_err(registry_failed)?;
    if !args.force {
        let there = runs_there(desk, &row).await.map_err(registry_failed)?;
        if there > 0 {
            let problem = format!(
                "{there} runs of yours are on it and not yet fetched: let the campaign end, or give --force"
            );
            return Err(CliError::Failed(format!("worker {name}: {problem}")));
        }
    }
    let told = if row.state == FleetState::Revoked { None } else { tell(desk, &row).await };
    withdraw(desk, &row)?;
    desk.journal.remove_fleet_worker(name).await.map_err(registry_failed)?;
    let json = serde_json::json!({ "name": name, "state": "removed", "was": row.state, "worker_told": told });
    printer.result(&json, &format!("{name} is removed{}", words(&row, told)))?;
    Ok(ExitCode::SUCCESS)
}

async fn runs_there(desk: &Desk, row: &FleetWorkerRow) -> Result<usize, JournalError> {
    let mut runs = desk.journal.unfinished_runs().await?;
    runs.extend(desk.journal.unreleased_runs().await?);
    Ok(runs.iter().filter(|run| run.worker_id.is_some() && run.worker_id == row.worker_id).count())
}

/// What was given out for it and not used is good for nothing any more.
fn withdraw(desk: &Desk, row: &FleetWorkerRow) -> Result<(), CliError> {
    if row.kind != AddressKind::Dialled.word() {
        return Ok(());
    }
    let keys = registry::keys_folder(&desk.data_dir);
    let withdrawn = Invitations::new(&keys, desk.clock.clone()).withdraw(&row.name);
    withdrawn.map(|_| ()).map_err(|e| CliError::Failed(chain(&e)))
}

/// Asks a worker that knows our key to forget it: whether it did; `None` where it knows none.
async fn tell(desk: &Desk, row: &FleetWorkerRow) -> Option<bool> {
    if row.kind != AddressKind::Tls.word() {
        return None;
    }
    let dialer = desk.registry().dialer(row).ok()?;
    let client = match dial::open(dialer.as_ref(), REACH).await {
        Ok(client) => client,
        Err(error) => {
            tracing::info!(error = %chain(&error), "the worker was not told");
            return Some(false);
        }
    };
    Some(trust::leave(client).await)
}

fn words(row: &FleetWorkerRow, told: Option<bool>) -> String {
    match told {
        Some(true) => ", and it has forgotten this controller's key".to_owned(),
        Some(false) => format!(
            "; it could not be told: run `autoresearch-worker controllers revoke` on that machine ({})",
            row.address
        ),
        None => String::new(),
    }
}
