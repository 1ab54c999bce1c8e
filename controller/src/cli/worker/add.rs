//! `autoresearch worker add NAME ADDRESS|JOIN_STRING`: reaches the worker, checks everything, and only then writes it down.

use std::{process::ExitCode, time::Duration};

use kit::identity::JoinString;

use super::{Desk, check, check_name, described, registry_failed, trust};
use crate::{
    cli::{
        error::{CliError, chain},
        out::Printer,
        registry,
    },
    fleet::{
        Dialer, FleetError,
        address::{Address, Target},
        dial::{self, Met, Ssh, Tls, Unix},
    },
    journal::{FleetState, JournalError, NewFleetWorker},
};

/// Reaching it takes no longer: ssh may have to start the worker over there.
const REACH: Duration = Duration::from_secs(40);

/// Register a worker on another machine, or on this one.
///
/// ADDRESS is ssh://[user@]host[:port][/path/to/autoresearch-worker], which needs nothing but that ssh works without a
/// question; unix:/path/to/worker.sock; or the join string that `autoresearch-worker init` printed there (TLS). The worker is
/// reached and checked first: where something is wrong nothing is stored.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to call it.
    name: String,
    /// Where it is.
    #[arg(value_name = "ADDRESS|JOIN_STRING")]
    target: String,
}

pub(super) async fn run(args: Args, desk: &Desk, printer: Printer) -> Result<ExitCode, CliError> {
    let name = args.name.as_str();
    check_name(name)?;
    let target: Target = args.target.parse().map_err(|e| CliError::field("ADDRESS", e))?;
    // Before a one-time secret is spent.
    match desk.journal.fleet_worker(name).await {
        Ok(row) => {
            let problem = format!("the name is taken by {} ({})", row.address, row.state);
            return Err(CliError::field(
                name,
                format!("{problem}: choose another, or `worker remove` that one"),
            ));
        }
        Err(JournalError::NotFound { .. }) => {}
        Err(error) => return Err(registry_failed(error)),
    }
    let reached = match target {
        Target::There(address) => there(name, address, desk).await?,
        Target::Join(join) => join_it(name, &join, desk).await?,
    };
    finish(name, reached, desk, printer).await
}

/// A worker that was reached, and may be written down.
struct Reached {
    met: Met,
    address: Address,
    fingerprint: Option<String>,
}

async fn there(name: &str, address: Address, desk: &Desk) -> Result<Reached, CliError> {
    let dialer: Box<dyn Dialer> = match &address {
        Address::Unix(path) => Box::new(Unix::new(name, path.clone())),
        Address::Ssh(to) => Box::new(Ssh::new(name, to.clone())),
        other => return Err(CliError::field("ADDRESS", format!("{other} cannot be added"))),
    };
    let met = dial::meet(dialer.as_ref(), REACH, desk.clock.as_ref()).await.map_err(failed)?;
    Ok(Reached { met, address, fingerprint: None })
}

/// Shows the secret once, and meets the worker over a connection that it trusts.
async fn join_it(name: &str, join: &JoinString, desk: &Desk) -> Result<Reached, CliError> {
    let identity = registry::identity(&desk.data_dir, &desk.clock)?;
    let tls = Tls::new(name, join.address.clone(), join.fingerprint, identity);
    let client = dial::open(&tls, REACH).await.map_err(failed)?;
    let ours = desk.journal.controller_id().to_string();
    trust::join(name, client, &ours, &join.secret).await?;
    let met = dial::meet(&tls, REACH, desk.clock.as_ref()).await.map_err(failed)?;
    let address = Address::Tls(join.address.clone());
    Ok(Reached { met, address, fingerprint: Some(join.fingerprint.to_string()) })
}

async fn finish(name: &str, reached: Reached, desk: &Desk, printer: Printer) -> Result<ExitCode, CliError> {
    let kind = reached.address.kind();
    let new = NewFleetWorker {
        name: name.to_owned(),
        kind: kind.word(),
        address: reached.address.to_string(),
        worker_id: Some(reached.met.info.worker_id.clone()),
        fingerprint: reached.fingerprint.clone(),
        state: FleetState::Active,
    };
    let stored = match check::check(&reached.met, kind) {
        Ok(checked) => desk.journal.add_fleet_worker(new).await.map(|()| checked).map_err(registry_failed),
        Err(problem) => Err(CliError::Failed(format!("worker {name}: {problem}"))),
    };
    let checked = match stored {
        Ok(checked) => checked,
        Err(error) => {
            // What is not registered here shall not trust us there. It goes by itself with the certificate where this fails.
            if reached.fingerprint.is_some() {
                trust::leave(reached.met.client).await;
            }
            return Err(error);
        }
    };
    for warning in &checked.warnings {
        printer.say(&format!("warning: {warning}"));
    }
    let info = &reached.met.info;
    let (free, busy) = described::slots(info);
    let json = serde_json::json!({
        "name": name,
        "id": info.worker_id,
        "kind": kind,
        "address": reached.address.to_string(),
        "state": FleetState::Active,
        "fingerprint": reached.fingerprint,
        "warnings": checked.warnings,
        "worker": described::json(info),
    });
    let text = format!("{name} is added: {}; {} slots", described::devices(info), free + busy);
    printer.result(&json, &text)?;
    Ok(ExitCode::SUCCESS)
}

fn failed(error: FleetError) -> CliError {
    CliError::Failed(chain(&error))
}
