//! What a command works with: the journal alone for reading, or the journal and connected workers. Opening checks, before
//! anything is written, that the machine can do what is asked.

use std::{net::SocketAddr, path::Path, sync::Arc};

use kit::{
    clock::{Clock, SystemClock},
    size::Bytes,
};
use proto::v1;

use super::{
    Global, cleanup,
    config::LocalWorkerUse,
    connect::Workers,
    error::{CliError, chain},
    local_worker,
    upkeep::Upkeep,
};
use crate::{
    fleet::{Fleet, Link},
    journal::{Journal, JournalError, OpenError},
};

/// Less room than this holds no journal and no log.
const ROOM: Bytes = Bytes(256 << 20);

/// Journal and workers.
pub struct Session {
    /// The durable record.
    pub journal: Journal,
    /// Connected, or tried again and again.
    pub fleet: Fleet,
    /// The one clock.
    pub clock: Arc<dyn Clock>,
    workers: Workers,
    upkeep: Upkeep,
}

/// What a command wants of its workers.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// "docker", "native", or each worker's choice.
    pub backend: Option<String>,
    /// Where workers that dial in are awaited; where they were invited to if unset.
    pub listen: Option<SocketAddr>,
    /// Whether a worker may be started here.
    pub local_worker: LocalWorkerUse,
}

impl Session {
    /// As [`Session::open_with`], listening where workers were invited to.
    ///
    /// # Errors
    /// [`CliError::Usage`] with what the machine lacks.
    pub async fn open(data_dir: &Path, backend: Option<&str>) -> Result<Self, CliError> {
        let options = SessionOptions { backend: backend.map(str::to_owned), ..SessionOptions::default() };
        Self::open_with(data_dir, &options).await
    }

    /// Opens the journal, connects to the registered workers, or, where there are none, starts or finds the local one, ends
    /// what killed commands left, and checks that a sandbox can be made at all.
    ///
    /// # Errors
    /// [`CliError::Usage`] with what the machine lacks.
    pub async fn open_with(data_dir: &Path, options: &SessionOptions) -> Result<Self, CliError> {
        let clock = SystemClock::shared();
        room_on_disk(data_dir)?;
        kit::folder::create_private(data_dir)?;
        let journal = Journal::open(data_dir, clock.clone()).map_err(|e| CliError::Usage(chain(&e)))?;
        let workers = Workers::connect(data_dir, &journal, &clock, options).await?;
        let fleet = workers.fleet();
        let upkeep = Upkeep::start(&journal, &fleet).await?;
        let session = Self { fleet, journal, clock, workers, upkeep };
        if let Err(error) = usable(session.workers.links(), options.backend.as_deref()) {
            session.end().await;
            return Err(error);
        }
        cleanup::end_abandoned(&session.journal, &session.fleet).await?;
        Ok(session)
    }

    /// What a user should know before the work begins, one line each: workers that are out of reach, and, for one who
    /// expects Docker, where sandboxes are made without it, and why.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.workers.notes.clone();
        for link in self.workers.links() {
            notes.extend(without_docker(&link.name(), &link.view().info.backends));
        }
        notes
    }

    /// Workers that are out of reach and the like, and nothing of backends.
    #[must_use]
    pub fn absences(&self) -> &[String] {
        &self.workers.notes
    }

    /// Lets go of the workers, and waits until the local one has gone.
    pub async fn end(self) {
        let Self { fleet, workers, upkeep, .. } = self;
        upkeep.end().await;
        drop(fleet);
        workers.end().await;
    }
}

fn without_docker(worker: &str, backends: &[v1::Backend]) -> Option<String> {
    let first = backends.first().filter(|backend| backend.available && backend.name != "docker")?;
    let docker = backends.iter().find(|backend| backend.name == "docker" && !backend.available)?;
    let on = if worker == local_worker::NAME { String::new() } else { format!(" on {worker}") };
    Some(format!("sandboxes are made without Docker{on} ({}): {}", first.name, docker.reason))
}

/// Whether the disk of the data folder has room for a journal at all, before anything is written to it.
fn room_on_disk(data_dir: &Path) -> Result<(), CliError> {
    let there = data_dir.ancestors().find(|folder| folder.exists()).unwrap_or(data_dir);
    let status = nix::sys::statvfs::statvfs(there)
        .map_err(|e| CliError::field("data_dir", format!("{}: {e}", there.display())))?;
    let free = status.blocks_available().saturating_mul(status.fragment_size());
    if free < ROOM.0 {
        let shown = if free == 0 { "nothing".to_owned() } else { Bytes(free).to_string() };
        return Err(CliError::field(
            "data_dir",
            format!("the disk of {} is full: {shown} is free and {ROOM} are needed", data_dir.display()),
        ));
    }
    Ok(())
}

/// Whether any worker that has answered can make a sandbox as it is wanted. Each one's reasons, if not.
fn usable(links: &[Arc<Link>], wanted: Option<&str>) -> Result<(), CliError> {
    let mut reasons = Vec::new();
    let mut without = Vec::new();
    let several = links.len() > 1;
    for link in links {
        let Some(view) = link.known() else { continue };
        let backends = &view.info.backends;
        let matching = || backends.iter().filter(|b| wanted.is_none_or(|name| name == b.name));
        if matching().any(|backend| backend.available) {
            return Ok(());
        }
        let on = if several { format!("{}: ", link.name()) } else { String::new() };
        reasons.extend(matching().map(|b| format!("{on}{}: {}", b.name, b.reason)));
        if let (0, Some(wanted)) = (matching().count(), wanted) {
            let known: Vec<&str> = backends.iter().map(|b| b.name.as_str()).collect();
            without.push(format!("worker {} has no `{wanted}`; it has {}", link.name(), known.join(", ")));
        }
    }
    if reasons.is_empty() && !without.is_empty() {
        return Err(CliError::field("--backend", without.join("; ")));
    }
    Err(CliError::Usage(format!(
        "no sandbox can be made: {} (autoresearch doctor tells more)",
        reasons.join("; ")
    )))
}

/// The journal for reading; `None` where nothing was run yet. Before that, what a killed command left is ended.
///
/// # Errors
/// Damaged, or another program's.
pub(super) async fn read(global: &Global) -> Result<Option<Journal>, CliError> {
    let config = super::config::Config::load(global)?;
    let data_dir = config.data_dir()?;
    cleanup::after_a_kill(&data_dir, config.local_worker).await?;
    match Journal::open_read_only(&data_dir, SystemClock::shared()) {
        Ok(journal) => Ok(Some(journal)),
        Err(error) if error.is_not_there() => Ok(None),
        Err(error) => Err(open_failed(&error)),
    }
}

/// As [`read`], where the command needs something to be there.
///
/// # Errors
/// Also where nothing was run yet.
pub(super) async fn read_or_fail(global: &Global) -> Result<Journal, CliError> {
    let nothing = || CliError::Failed("nothing was run with this data folder yet".to_owned());
    read(global).await?.ok_or_else(nothing)
}

/// Of opening.
pub(super) fn open_failed(error: &OpenError) -> CliError {
    CliError::Usage(chain(error))
}

/// Of reading and writing.
pub(super) fn journal_failed(error: JournalError) -> CliError {
    CliError::Failed(chain(&error))
}

/// Of looking an id up: the user's id is at fault.
pub(super) fn not_found(error: JournalError) -> CliError {
    CliError::Usage(chain(&error))
}
