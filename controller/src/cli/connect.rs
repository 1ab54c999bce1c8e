//! From the registry to a fleet: the workers that a command uses. Registered ones are dialled all at once, and whoever does not
//! answer in time is said and tried again later by its link; a worker of this machine is started only where none is
//! registered, or where one that was started earlier still has runs.

use std::{path::Path, sync::Arc, time::Duration};

use kit::{clock::Clock, task::CancellationToken};
use tokio_util::sync::DropGuard;

use super::{
    error::{CliError, chain},
    local_worker::{self, LocalWorker},
    registry::{Registry, absent},
    session::SessionOptions,
};
use crate::{
    fleet::{Fleet, Link, Wish},
    journal::{FleetState, FleetWorkerRow, Journal, JournalError},
};

/// A command begins without those that have not answered by then.
const FIRST_ANSWER: Duration = Duration::from_secs(20);
/// An invited worker that has never been here is given longer where nobody else is there.
const FIRST_ARRIVAL: Duration = Duration::from_secs(60);
/// A command that ends waits so long for the local worker to go (WORKER §6).
const GOODBYE: Duration = Duration::from_secs(5);
/// What another command has changed in the registry is seen so soon.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The workers of one command.
pub struct Workers {
    links: Vec<Arc<Link>>,
    local: Option<LocalWorker>,
    /// What a person should know: who is out of reach, who is another one than before. One line each.
    pub notes: Vec<String>,
    /// Keeps the port open where workers dial in.
    _registry: Registry,
    _following: DropGuard,
}

impl Workers {
    /// Connects.
    ///
    /// # Errors
    /// Where nobody is there, with each one's reason.
    pub async fn connect(
        data_dir: &Path,
        journal: &Journal,
        clock: &Arc<dyn Clock>,
        options: &SessionOptions,
    ) -> Result<Self, CliError> {
        let rows = journal.fleet_workers().await.map_err(super::session::journal_failed)?;
        let mut registry = Registry::new(data_dir, journal, clock);
        let mut notes = Vec::new();
        if let Err(error) = registry.listen(&rows, options.listen).await {
            notes.push(error.to_string());
        }
        let wanted: Vec<&FleetWorkerRow> = rows.iter().filter(|row| may_be_reached(row)).collect();
        let local = if rows.is_empty() || has_local_runs(data_dir, journal).await? {
            Some(LocalWorker::new(data_dir, Arc::clone(clock), options.local_worker))
        } else {
            None
        };
        if !rows.iter().any(may_run) && local.is_none() {
            return Err(nobody_may_run(&rows));
        }
        let mut links = Vec::new();
        let mut asked = Vec::new();
        for row in wanted {
            match registry.dialer(row) {
                Ok(dialer) => {
                    let link = Link::unopened(dialer);
                    link.wish(wish(Some(row)));
                    if may_run(row) {
                        asked.push((row, Arc::clone(&link)));
                    }
                    links.push(link);
                }
                Err(error) => {
                    notes.push(error.to_string());
                    links.push(Link::unopened(absent(row, &error)));
                }
            }
        }
        let longest = match asked.iter().all(|(row, _)| row.seen_ns.is_none()) {
            true => FIRST_ARRIVAL,
            false => FIRST_ANSWER,
        };
        let answers = futures_util::future::join_all(
            asked.iter().map(|(row, link)| first_answer(journal, row, link, longest)),
        )
        .await;
        let mut reached = 0;
        for answer in answers {
            match answer {
                Ok(news) => {
                    reached += 1;
                    notes.extend(news);
                }
                Err(problem) => notes.push(problem),
            }
        }
        if let Some(local) = &local {
            let opened = Link::open(Box::new(local.handle())).await;
            links.push(opened.map_err(|e| CliError::Usage(chain(&e)))?);
            reached += 1;
        }
        let stop = CancellationToken::new();
        kit::task::spawn("registry", follow(journal.clone(), links.clone(), stop.clone()));
        let workers = Self { links, local, notes, _registry: registry, _following: stop.drop_guard() };
        if reached == 0 {
            let problem = workers.notes.join("; ");
            workers.end().await;
            return Err(CliError::Usage(format!("no worker answers: {problem}")));
        }
        Ok(workers)
    }

    /// All of them, connected or not.
    #[must_use]
    pub fn fleet(&self) -> Fleet {
        Fleet::new(self.links.clone())
    }

    /// All of them, connected or not.
    #[must_use]
    pub fn links(&self) -> &[Arc<Link>] {
        &self.links
    }

    /// Lets go of them, and waits until the local one has gone. Whoever has a [`Fleet`] of them drops it first.
    pub async fn end(self) {
        let Self { links, local, .. } = self;
        drop(links);
        if let Some(local) = local {
            local.wait_gone(GOODBYE).await;
        }
    }
}

fn may_run(row: &FleetWorkerRow) -> bool {
    matches!(row.state, FleetState::Active | FleetState::Invited | FleetState::SetAside)
}

/// Also those that get nothing new: they may still have runs.
fn may_be_reached(row: &FleetWorkerRow) -> bool {
    row.state != FleetState::Revoked
}

/// What the registry says of a worker, for its link.
fn wish(row: Option<&FleetWorkerRow>) -> Wish {
    match row.map(|row| row.state) {
        // That another campaign has set it aside is for people to read: each finds out for itself, and tries again.
        Some(FleetState::Active | FleetState::Invited | FleetState::SetAside) => Wish::Use,
        Some(FleetState::Drained) => Wish::NothingNew,
        Some(FleetState::Revoked) => Wish::Cut("it was revoked".to_owned()),
        None => Wish::Cut("it was removed".to_owned()),
    }
}

/// What the user says in another terminal (drain, revoke, remove) reaches this command's links.
async fn follow(journal: Journal, links: Vec<Arc<Link>>, stop: CancellationToken) {
    let links: Vec<_> = links.iter().map(Arc::downgrade).collect();
    while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        let rows = match journal.fleet_workers().await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the registry of workers cannot be read");
                continue;
            }
        };
        for link in links.iter().filter_map(std::sync::Weak::upgrade) {
            let name = link.name();
            if name != local_worker::NAME {
                link.wish(wish(rows.iter().find(|row| row.name == name)));
            }
        }
    }
}

fn nobody_may_run(rows: &[FleetWorkerRow]) -> CliError {
    let states: Vec<String> = rows.iter().map(|row| format!("{} is {}", row.name, row.state)).collect();
    CliError::Usage(format!(
        "no registered worker may be given runs: {} (`autoresearch worker drain NAME --undo` gives it runs again, `worker remove NAME` forgets it)",
        states.join(", ")
    ))
}

/// What a worker says when it is first asked, or why it does not.
async fn first_answer(
    journal: &Journal,
    row: &FleetWorkerRow,
    link: &Link,
    longest: Duration,
) -> Result<Option<String>, String> {
    let name = &row.name;
    match tokio::time::timeout(longest, link.client()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(chain(&error)),
        Err(_) => return Err(format!("worker {name} has not answered in {} s", longest.as_secs())),
    }
    match journal.fleet_worker_seen(name, &link.view().worker_id).await {
        Ok(None) => Ok(None),
        Ok(Some(before)) => Ok(Some(format!(
            "worker {name} is another one than before (it was {before}): its disk was wiped, or another machine has its address; runs that it had are lost"
        ))),
        // Removed a moment ago: it is used for this command.
        Err(JournalError::NotFound { .. }) => Ok(None),
        Err(error) => Err(chain(&error)),
    }
}

/// Whether a worker that an earlier command started on this machine has runs that are not fetched.
async fn has_local_runs(data_dir: &Path, journal: &Journal) -> Result<bool, CliError> {
    let Some(local) = local_worker::worker_id(data_dir) else { return Ok(false) };
    let failed = super::session::journal_failed;
    let mut runs = journal.unfinished_runs().await.map_err(failed)?;
    runs.extend(journal.unreleased_runs().await.map_err(failed)?);
    Ok(runs.iter().any(|run| run.worker_id.as_deref() == Some(local.as_str())))
}
