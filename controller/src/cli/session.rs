//! What a command works with: the journal alone for reading, or the journal and connected workers. Opening checks, before
//! anything is written, that the machine can do what is asked.

use std::{path::Path, sync::Arc, time::Duration};

use kit::{
    clock::{Clock, SystemClock},
    size::Bytes,
};

use super::{
    Global, cleanup,
    error::{CliError, chain},
    local_worker::LocalWorker,
};
use crate::{
    fleet::{Fleet, Link},
    journal::{Journal, JournalError, OpenError},
};

/// A command that ends waits so long for its worker to go (WORKER §6).
const GOODBYE: Duration = Duration::from_secs(5);
/// Less room than this holds no journal and no log.
const ROOM: Bytes = Bytes(256 << 20);

/// Journal and workers.
pub struct Session {
    /// The durable record.
    pub journal: Journal,
    /// Connected.
    pub fleet: Fleet,
    /// The one clock.
    pub clock: Arc<dyn Clock>,
    local: LocalWorker,
}

impl Session {
    /// Opens the journal, ends what killed commands left, starts or finds the local worker, and checks that a sandbox can be
    /// made at all.
    ///
    /// # Errors
    /// [`CliError::Usage`] with what the machine lacks.
    pub async fn open(data_dir: &Path, backend: Option<&str>) -> Result<Self, CliError> {
        let clock = SystemClock::shared();
        room_on_disk(data_dir)?;
        kit::folder::create_private(data_dir)?;
        let journal = Journal::open(data_dir, clock.clone()).map_err(|e| CliError::Usage(chain(&e)))?;
        let local = LocalWorker::new(data_dir, clock.clone());
        let dialer = Box::new(local.handle());
        let link = Link::open(dialer).await.map_err(|e| CliError::Usage(chain(&e)))?;
        let session = Self { journal, fleet: Fleet::new(vec![link.clone()]), clock, local };
        if let Err(error) = usable(&link, backend) {
            session.close(link).await;
            return Err(error);
        }
        drop(link);
        cleanup::end_abandoned(&session.journal, &session.fleet).await?;
        Ok(session)
    }

    /// What a user who expects Docker should know: that sandboxes are made without it, and why.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        let views = self.fleet.workers();
        let backends = &views.first()?.info.backends;
        let first = backends.first().filter(|backend| backend.available && backend.name != "docker")?;
        let docker = backends.iter().find(|backend| backend.name == "docker" && !backend.available)?;
        Some(format!("sandboxes are made without Docker ({}): {}", first.name, docker.reason))
    }

    /// Lets go of the workers, and waits until the local one has gone.
    pub async fn end(self) {
        let Self { fleet, local, .. } = self;
        drop(fleet);
        local.wait_gone(GOODBYE).await;
    }

    async fn close(self, link: Arc<Link>) {
        drop(link);
        self.end().await;
    }
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

fn usable(link: &Link, wanted: Option<&str>) -> Result<(), CliError> {
    let view = link.view();
    let backends = &view.info.backends;
    let matching = backends.iter().filter(|b| wanted.is_none_or(|name| name == b.name));
    let mut reasons = Vec::new();
    for backend in matching {
        if backend.available {
            return Ok(());
        }
        reasons.push(format!("{}: {}", backend.name, backend.reason));
    }
    if let (true, Some(wanted)) = (reasons.is_empty(), wanted) {
        let known: Vec<&str> = backends.iter().map(|b| b.name.as_str()).collect();
        return Err(CliError::field(
            "--backend",
            format!("worker {} has no `{wanted}`; it has {}", link.name(), known.join(", ")),
        ));
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
    cleanup::after_a_kill(&data_dir).await?;
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
