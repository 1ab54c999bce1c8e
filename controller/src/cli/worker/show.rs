//! `autoresearch worker show NAME`

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use super::{
    Desk, check, described,
    list::{self, Seen, json, shown_address},
    registry_failed,
};
use crate::{
    cli::{error::CliError, list::when, out::Printer, registry::address_of},
    journal::FleetWorkerRow,
};

/// Longer than in the list: whoever asks for one waits for it.
const REACH: Duration = Duration::from_secs(40);

/// Show everything about one registered worker.
///
/// Exits 0 where it answers and could be given runs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As it was added.
    name: String,
}

pub(super) async fn run(args: Args, desk: &Desk, printer: Printer) -> Result<ExitCode, CliError> {
    let row = desk.journal.fleet_worker(&args.name).await.map_err(registry_failed)?;
    let address = address_of(&row)?;
    let mut registry = desk.registry();
    // Where the port is taken a campaign has this worker; the dialer says so.
    registry.listen(std::slice::from_ref(&row), desk.config.listen).await.ok();
    let seen = list::one(desk, &registry, &row, REACH).await;
    let checked = match &seen {
        Seen::Met(met, _) => check::check(met, address.kind()),
        Seen::Away(problem) => Err(problem.clone()),
        Seen::NotAsked(why) => Err((*why).to_owned()),
    };
    let mut all = json(&row, &seen);
    if let Some(all) = all.as_object_mut() {
        let (problem, warnings) = match &checked {
            Ok(checked) => (None, checked.warnings.clone()),
            Err(problem) => (Some(problem), Vec::new()),
        };
        all.insert("problem".to_owned(), serde_json::json!(problem));
        all.insert("warnings".to_owned(), serde_json::json!(warnings));
        if let Seen::Met(met, _) = &seen {
            all.insert("worker".to_owned(), described::json(&met.info));
        }
    }
    let told = text(&row, &seen, &checked).unwrap_or_default();
    printer.result(&all, told.trim_end())?;
    Ok(if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(
    row: &FleetWorkerRow,
    seen: &Seen,
    checked: &Result<check::Checked, String>,
) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let mut fact = |name: &str, value: &str| writeln!(out, "{name:12} {value}");
    fact("name", &row.name)?;
    fact("address", &shown_address(row))?;
    fact("state", &row.state.to_string())?;
    if let Some(reason) = &row.reason {
        fact("reason", reason)?;
    }
    if let Some(fingerprint) = &row.fingerprint {
        fact("fingerprint", fingerprint)?;
    }
    fact("added", &when(row.added_ns))?;
    if let Some(seen_ns) = row.seen_ns {
        fact("last seen", &when(seen_ns))?;
    }
    match checked {
        Ok(checked) => checked.warnings.iter().try_for_each(|warning| fact("warning", warning))?,
        Err(problem) => fact("problem", problem)?,
    }
    if let Seen::Met(met, before) = seen {
        fact("worker id", &met.info.worker_id)?;
        if let Some(before) = before {
            fact(
                "was",
                &format!(
                    "{before}: its disk was wiped, or another machine has its address; runs that it had are lost"
                ),
            )?;
        }
        let (free, busy) = described::slots(&met.info);
        fact("slots", &format!("{free} free, {busy} busy"))?;
        for set in &met.info.data_sets {
            fact("data set", &kit::text::one_line(&set.name, 63))?;
        }
        described::text(&mut out, &row.name, &met.info)?;
    }
    Ok(out)
}
