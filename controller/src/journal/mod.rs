//! The journal: the controller's durable record of campaigns, experiments, runs, calls and what they cost.
//! DESIGN §6 is its contract.
//!
//! What belongs here: the schema, every SQL statement of the controller, the log files of runs, the lock of a
//! campaign. What does not: what a campaign does next (`campaign`), formulas (`stats`), the wire (`fleet`), pages
//! (`report`). Keys to models never enter it.
//!
//! # How it stays whole
//! One thread writes (`writer.rs`); what is queued while a transaction is synced shares the next one, each request in
//! a savepoint of its own, and nobody is answered before the commit. Readers have connections of their own and see
//! one snapshot each. Several processes may hold the journal open: SQLite's own lock orders their transactions, and
//! `campaigns/ID/lock` says whose a campaign is.
//!
//! Logs are files, never rows. A batch of events is appended to the files, they are synced, and one transaction holds
//! points, `last_sequence` and the files' lengths; what a kill left past those lengths is cut off at the next opening.
//!
//! # What is noticed
//! SQLite has no checksums of its own. So the bodies that a conclusion rests on (plans, sources, steps, replies,
//! results, metric points) carry a seal, which is compared on every read, and an opening walks a file of ordinary size.

mod apply;
mod budget;
mod calls;
mod campaigns;
mod commands;
mod error;
mod experiments;
mod findings;
mod fleet_workers;
mod lock;
mod log_files;
mod migrations;
mod open;
mod paths;
mod points;
mod reader;
mod rows;
mod run_reads;
mod run_rows;
mod runs;
mod seal;
mod snapshots;
mod steps;
mod workers;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use kit::clock::{Clock, wall_ns};

pub use apply::{Applied, RunLog};
pub use budget::{Limits, MicroUsd, Spent};
pub use calls::{CallReply, CallRow, CallState, NewCall, StoredReply, TokenUsage, request_digest};
pub use campaigns::{CampaignKind, CampaignRow, CampaignState, NewCampaign, OutcomeCount, ReportPaths};
pub use commands::CommandRow;
pub use error::{BudgetError, JournalError, LockError, OpenError};
pub use experiments::{ExperimentRow, RevisionRow};
pub use findings::FindingRow;
pub use fleet_workers::{FleetState, FleetWorkerRow, NewFleetWorker};
pub use lock::CampaignLock;
pub use points::{MetricSummary, Point, Series};
pub use rows::{CallId, CampaignId, ControllerId, RunId};
pub use run_rows::{EndedHere, GapRow, LogStream, NewRun, RunPurpose, RunRow, RunState, UsageSample};
pub use snapshots::{Snapshot, StoredSnapshot};
pub use steps::StepRow;
pub use workers::WorkerRow;

/// The journal of one data folder. Cheap to clone; the last clone that is dropped waits for what is queued.
#[derive(Clone, Debug)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    data_dir: PathBuf,
    clock: Arc<dyn Clock>,
    controller: ControllerId,
    /// `None` where it was opened for reading.
    writer: Option<writer::Writer>,
    readers: reader::Readers,
    /// Runs whose log files somebody in this process appends to.
    open_runs: Mutex<HashSet<RunId>>,
}

impl Journal {
    /// Opens the journal in `data_dir`, which is made where it is not there, and brings its schema up to date.
    /// Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`OpenError`] names the file: damaged, of another program, of a newer version, or not to be opened.
    pub fn open(data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        open::open(data_dir, clock)
    }

    /// Opens a journal that is there, to read from it: `list` and `show` need no more. Every writing method then
    /// fails with [`JournalError::ReadOnly`].
    ///
    /// # Errors
    /// As [`Journal::open`], and [`OpenError::NotThere`] where nothing was ever run.
    pub fn open_read_only(data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        open::open_read_only(data_dir, clock)
    }

    /// Who this journal's processes are to a worker: made with the journal, the same for all of them.
    #[must_use]
    pub fn controller_id(&self) -> ControllerId {
        self.inner.controller
    }

    /// Walks the whole file, however large: what `doctor` does. Reads every page.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] with the first fault that was found.
    pub async fn check(&self) -> Result<(), JournalError> {
        let path = self.database_path();
        self.read(move |c| open::walk(c, &path)).await
    }

    fn now(&self) -> i64 {
        wall_ns(self.inner.clock.wall())
    }
}
