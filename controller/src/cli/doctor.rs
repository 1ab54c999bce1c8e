//! `autoresearch doctor`

use std::{fmt::Write as _, path::Path, process::ExitCode, sync::Arc, time::Duration};

use kit::clock::{Clock, SystemClock};
use proto::v1;

use super::{
    Global,
    config::Config,
    error::{CliError, chain},
    local_worker::{self, LocalWorker},
    out::Printer,
    registry::{self, Registry},
    worker::{check, described},
};
use crate::{
    fleet::{Link, address::AddressKind, dial},
    journal::{FleetState, FleetWorkerRow, Journal},
    llm::Keys,
};

/// Tell what works here, and what to do about what does not.
///
/// Exits 0 where a campaign could run.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// A worker that does not answer holds the others up no longer.
const REACH: Duration = Duration::from_secs(20);

pub(super) async fn run(_: Args, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let config = Config::load(global)?;
    let data_dir = config.data_dir()?;
    let clock = SystemClock::shared();
    let (journal, registered) = match Journal::open_read_only(&data_dir, clock.clone()) {
        Ok(journal) => {
            let whole = journal.check().await.map_or_else(|e| chain(&e), |()| "in order".to_owned());
            let rows = journal.fleet_workers().await.unwrap_or_default();
            (whole, Some((journal, rows)))
        }
        Err(error) if error.is_not_there() => ("none yet".to_owned(), None),
        Err(error) => (chain(&error), None),
    };
    let workers = match registered {
        Some((journal, rows)) if !rows.is_empty() => {
            registered_workers(&config, &data_dir, &journal, &rows, &clock).await
        }
        _ => vec![local_worker(&config, &data_dir, &clock).await],
    };
    let usable = workers.iter().any(Looked::is_usable);
    let keys = Keys::from_env().seen();
    let json = serde_json::json!({
        "usable": usable,
        "version": env!("CARGO_PKG_VERSION"),
        "data_dir": data_dir,
        "journal": journal,
        "keys_seen": keys,
        // One of them for programs that know of one only.
        "worker": workers.iter().find(|w| w.is_usable()).or(workers.first()).map(Looked::json),
        "workers": workers.iter().map(Looked::json).collect::<Vec<_>>(),
    });
    let mut text = String::new();
    let mut fact = |name: &str, value: &str| writeln!(text, "{name:12} {value}").unwrap_or_default();
    fact("data folder", &data_dir.display().to_string());
    fact("journal", &journal);
    let keys = if keys.is_empty() { "none seen in the environment".to_owned() } else { keys.join(", ") };
    fact("model keys", &keys);
    for worker in &workers {
        worker.text(&mut text).unwrap_or_default();
    }
    write!(
        text,
        "{}",
        if usable { "A campaign can run here." } else { "No campaign can run here: see above." }
    )
    .unwrap_or_default();
    printer.result(&json, &text)?;
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A worker that was asked.
struct Looked {
    name: String,
    /// Where it is, with its state where it gets no runs.
    place: String,
    may_run: bool,
    found: Result<v1::GetWorkerResponse, String>,
    warnings: Vec<String>,
}

impl Looked {
    fn is_usable(&self) -> bool {
        let able = |info: &v1::GetWorkerResponse| info.backends.iter().any(|backend| backend.available);
        self.may_run && self.found.as_ref().is_ok_and(able)
    }

    fn json(&self) -> serde_json::Value {
        let mut json = match &self.found {
            Ok(info) => described::json(info),
            Err(error) => serde_json::json!({ "error": error }),
        };
        if let Some(all) = json.as_object_mut() {
            all.insert("name".to_owned(), self.name.clone().into());
            all.insert("warnings".to_owned(), self.warnings.clone().into());
        }
        json
    }

    fn text(&self, out: &mut String) -> std::fmt::Result {
        match &self.found {
            Ok(info) => described::text(out, &self.place, info)?,
            Err(error) if self.name == local_worker::NAME => {
                writeln!(out, "worker       cannot be started: {error}")?;
            }
            Err(error) => writeln!(out, "worker       {}: {error}", self.place)?,
        }
        self.warnings.iter().try_for_each(|warning| writeln!(out, "warning      {}: {warning}", self.name))
    }
}

async fn local_worker(config: &Config, data_dir: &Path, clock: &Arc<dyn Clock>) -> Looked {
    let local = LocalWorker::new(data_dir, Arc::clone(clock), config.local_worker);
    let found = match Link::open(Box::new(local.handle())).await {
        Ok(link) => Ok(link.view().info),
        Err(error) => Err(chain(&error)),
    };
    local.wait_gone(Duration::from_secs(5)).await;
    let name = local_worker::NAME.to_owned();
    Looked { place: name.clone(), name, may_run: true, found, warnings: Vec::new() }
}

/// All of them at once.
async fn registered_workers(
    config: &Config,
    data_dir: &Path,
    journal: &Journal,
    rows: &[FleetWorkerRow],
    clock: &Arc<dyn Clock>,
) -> Vec<Looked> {
    let mut registry = Registry::new(data_dir, journal, clock);
    let listening = registry.listen(rows, config.listen).await;
    if let Err(error) = listening {
        tracing::info!(%error, "workers that dial in cannot be asked");
    }
    let looks = rows.iter().filter(|row| row.state != FleetState::Revoked).map(|row| {
        let (registry, clock) = (&registry, clock.as_ref());
        async move {
            let met = match registry.dialer(row) {
                Ok(dialer) => dial::meet(dialer.as_ref(), REACH, clock).await.map_err(|e| chain(&e)),
                Err(error) => Err(error.to_string()),
            };
            let kind = registry::address_of(row).map_or(AddressKind::Ssh, |address| address.kind());
            let warnings = match met.as_ref().map(|met| check::check(met, kind)) {
                Ok(Ok(checked)) => checked.warnings,
                Ok(Err(problem)) => vec![problem],
                Err(_) => Vec::new(),
            };
            let may_run = matches!(row.state, FleetState::Active | FleetState::Invited);
            let state = if may_run { String::new() } else { format!(", {}", row.state) };
            let place = format!("{} ({}{state})", row.name, row.address);
            Looked { name: row.name.clone(), place, may_run, found: met.map(|met| met.info), warnings }
        }
    });
    futures_util::future::join_all(looks).await
}
