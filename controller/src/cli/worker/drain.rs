//! `autoresearch worker drain NAME`

use std::{process::ExitCode, time::Duration};

use proto::v1;

use super::{Desk, registry_failed};
use crate::{
    cli::{
        error::{CliError, chain},
        out::Printer,
    },
    fleet::dial,
    journal::FleetState,
};

const REACH: Duration = Duration::from_secs(40);
const ANSWER: Duration = Duration::from_secs(10);

/// Give a worker no new runs; what runs on it goes on to its own end.
///
/// Campaigns that run take notice within seconds. --undo lifts it, also where a campaign has set the worker aside.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As it was added.
    name: String,
    /// Give it runs again.
    #[arg(long, conflicts_with = "for_all")]
    undo: bool,
    /// Tell the worker itself: it takes no new runs from any controller until it is started again.
    #[arg(long)]
    for_all: bool,
}

pub(super) async fn run(args: Args, desk: &Desk, printer: Printer) -> Result<ExitCode, CliError> {
    let name = args.name.as_str();
    let row = desk.journal.fleet_worker(name).await.map_err(registry_failed)?;
    let running = if args.for_all {
        let mut registry = desk.registry();
        registry.listen(std::slice::from_ref(&row), desk.config.listen).await?;
        let dialer = registry.dialer(&row)?;
        let failed = |e| CliError::Failed(chain(&e));
        let mut client = dial::open(dialer.as_ref(), REACH).await.map_err(failed)?;
        let call = client.drain(v1::DrainRequest { cancel_running: false });
        let answer = tokio::time::timeout(ANSWER, call).await;
        let answer = answer.map_err(|_| CliError::Failed(format!("worker {name}: no answer to Drain")))?;
        let answer =
            answer.map_err(|s| CliError::Failed(format!("worker {name}: Drain: {}", s.message())))?;
        Some(answer.into_inner().running)
    } else {
        None
    };
    let (state, reason) = if args.undo { (FleetState::Active, None) } else { (FleetState::Drained, None) };
    let before = desk.journal.set_fleet_worker_state(name, state, reason).await.map_err(registry_failed)?;
    let json = serde_json::json!({ "name": name, "state": state, "was": before, "running": running });
    let text = match (state, running) {
        (FleetState::Active, _) => format!("{name} gets runs again"),
        (_, Some(running)) => format!("{name} takes no new runs from anybody; {running} go on"),
        (_, None) => format!("{name} gets no new runs; what runs there goes on"),
    };
    printer.result(&json, &text)?;
    Ok(ExitCode::SUCCESS)
}
