//! `autoresearch worker list`

use std::{process::ExitCode, time::Duration};

use super::{Desk, described};
use crate::{
    cli::{
        Global,
        error::{CliError, chain},
        list::when,
        out::{Format, Printer, table},
        session,
    },
    fleet::{
        address::AddressKind,
        dial::{self, Met},
    },
    journal::{FleetState, FleetWorkerRow},
};

/// One that does not answer holds the list up no longer.
const REACH: Duration = Duration::from_secs(10);

/// List the registered workers, newest first: who answers, what is free.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ask nobody: only what is registered.
    #[arg(long)]
    offline: bool,
}

pub(super) async fn run(args: Args, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let desk = Desk::open(global)?;
    let rows = desk.journal.fleet_workers().await.map_err(session::journal_failed)?;
    if rows.is_empty() {
        if printer.format == Format::Text {
            printer.say("no workers are registered: `run` and `exec` start one on this machine");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let seen = look(&desk, &rows, args.offline).await;
    if printer.format == Format::Json {
        for (row, seen) in rows.iter().zip(&seen) {
            printer.result(&json(row, seen), "")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let cells: Vec<Vec<String>> = rows.iter().zip(&seen).map(|(row, seen)| cells(row, seen)).collect();
    printer.line(&table(&["NAME", "STATE", "REACHED", "SLOTS", "DEVICES", "ADDRESS"], &cells))?;
    Ok(ExitCode::SUCCESS)
}

/// How it stands with one worker now.
pub(super) enum Seen {
    /// It answered; with the id that it had before, where that was another.
    Met(Box<Met>, Option<String>),
    /// It did not, in its own words.
    Away(String),
    /// It was not asked, and why.
    NotAsked(&'static str),
}

/// Asks all of them at once.
async fn look(desk: &Desk, rows: &[FleetWorkerRow], offline: bool) -> Vec<Seen> {
    let mut registry = desk.registry();
    let asked = !offline;
    if asked && let Err(error) = registry.listen(rows, desk.config.listen).await {
        tracing::info!(%error, "workers that dial in cannot be asked");
    }
    let looks = rows.iter().map(|row| {
        let registry = &registry;
        async move {
            match row.state {
                _ if !asked => Seen::NotAsked("not asked"),
                FleetState::Revoked => Seen::NotAsked("revoked"),
                _ => one(desk, registry, row, REACH).await,
            }
        }
    });
    futures_util::future::join_all(looks).await
}

/// Asks one.
pub(super) async fn one(
    desk: &Desk,
    registry: &crate::cli::registry::Registry,
    row: &FleetWorkerRow,
    longest: Duration,
) -> Seen {
    let dialer = match registry.dialer(row) {
        Ok(dialer) => dialer,
        Err(error) => return Seen::Away(error.to_string()),
    };
    let met = match dial::meet(dialer.as_ref(), longest, desk.clock.as_ref()).await {
        Ok(met) => met,
        Err(error) => return Seen::Away(chain(&error)),
    };
    match desk.journal.fleet_worker_seen(&row.name, &met.info.worker_id).await {
        Ok(before) => Seen::Met(Box::new(met), before),
        Err(error) => Seen::Away(chain(&error)),
    }
}

/// One line of `list`, and the beginning of `show`.
pub(super) fn json(row: &FleetWorkerRow, seen: &Seen) -> serde_json::Value {
    let mut json = serde_json::json!({
        "name": row.name,
        "id": row.worker_id,
        "kind": row.kind,
        "state": row.state,
        "reason": row.reason,
        "address": row.address,
        "fingerprint": row.fingerprint,
        "added_at": when(row.added_ns),
        "seen_at": row.seen_ns.map(when),
        "reachable": match seen { Seen::Met(..) => Some(true), Seen::Away(_) => Some(false), Seen::NotAsked(_) => None },
        "problem": match seen { Seen::Away(problem) => Some(problem.as_str()), _ => None },
    });
    if let Seen::Met(met, before) = seen {
        let (free, busy) = described::slots(&met.info);
        let machine = met.info.machine.clone().unwrap_or_default();
        let more = serde_json::json!({
            "id": met.info.worker_id,
            "was_id": before,
            "version": met.info.version,
            "draining": met.info.draining,
            "clock_ahead_ms": met.clock_ahead_ns() / 1_000_000,
            "slots_free": free,
            "slots_busy": busy,
            "gpus": machine.gpus.iter().map(|gpu| &gpu.name).collect::<Vec<_>>(),
            "cpus": machine.cpus,
            "memory_bytes": machine.memory_bytes,
            "images": met.info.images.iter().filter(|i| i.prepared).map(|i| &i.name).collect::<Vec<_>>(),
        });
        if let (Some(all), serde_json::Value::Object(more)) = (json.as_object_mut(), more) {
            all.extend(more);
        }
    }
    json
}

fn cells(row: &FleetWorkerRow, seen: &Seen) -> Vec<String> {
    let state = match &row.reason {
        Some(reason) => format!("{} ({})", row.state, kit::text::one_line(reason, 60)),
        None => row.state.to_string(),
    };
    let (reached, slots, devices) = match seen {
        Seen::Met(met, before) => {
            let (free, busy) = described::slots(&met.info);
            let mut reached = "yes".to_owned();
            if met.info.draining {
                reached.push_str(", it drains");
            }
            if before.is_some() {
                reached.push_str(", another worker than before");
            }
            (reached, format!("{free} free, {busy} busy"), described::devices(&met.info))
        }
        Seen::Away(problem) => {
            (format!("no: {}", kit::text::one_line(problem, 100)), String::new(), String::new())
        }
        Seen::NotAsked(why) => ((*why).to_owned(), String::new(), String::new()),
    };
    vec![row.name.clone(), state, reached, slots, devices, shown_address(row)]
}

/// For people.
pub(super) fn shown_address(row: &FleetWorkerRow) -> String {
    if row.kind == AddressKind::Dialled.word() {
        return format!("dials in ({})", row.address.trim_start_matches("dialled:"));
    }
    row.address.clone()
}
