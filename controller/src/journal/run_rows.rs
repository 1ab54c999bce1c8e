//! What a run is to its readers: its row, its words, and what is kept beside the row.

use std::time::Duration;

use kit::digest::Digest;
use proto::v1;
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::Serialize;

use super::{
    CampaignId, JournalError, RunId,
    rows::{InOrder, words},
};

words! {
    /// What a run is for.
    RunPurpose {
        /// A tiny trial before the real thing: journalled and never analysed.
        Smoke = "smoke",
        /// One variant and one seed of an experiment.
        Full = "full",
        /// A user's own program.
        Exec = "exec",
    }
}

words! {
    /// Where a run is: before a worker has it, and then as WORKER §2 has it.
    RunState {
        /// Written down, with its reservation.
        Planned = "planned",
        /// Sent to a worker, which may or may not have it.
        Sent = "sent",
        /// On the worker's disk.
        Accepted = "accepted",
        /// Image, packages, volume.
        Preparing = "preparing",
        /// Sandbox made, gate shut.
        Starting = "starting",
        /// Its program runs.
        Running = "running",
        /// On its way to the end.
        Ending = "ending",
        /// Artifacts are copied.
        Harvesting = "harvesting",
        /// With exactly one outcome.
        Finished = "finished",
    }
}

words! {
    /// A stream of a run; the word is its file's name.
    LogStream {
        /// Standard output.
        Stdout = "stdout",
        /// Standard error.
        Stderr = "stderr",
        /// The metrics channel's JSON lines.
        Metrics = "metrics",
    }
}

impl LogStream {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Metrics];
}

/// What a run begins with.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Made by the caller.
    pub id: RunId,
    /// Whose.
    pub campaign: CampaignId,
    /// 1 is "e1"; `None` for `exec`.
    pub experiment: Option<u32>,
    /// Of the code.
    pub revision: Option<Digest>,
    /// "v1", …
    pub variant: String,
    /// Of the four streams.
    pub seed: u64,
    /// What it is for.
    pub purpose: RunPurpose,
    /// The lost run that it stands in for.
    pub predecessor: Option<RunId>,
    /// By name.
    pub image: String,
    /// The encoded `RunSpec`, sent again as it is.
    pub spec: Vec<u8>,
    /// The longest it may hold each of its devices: its limit, its grace, and half a second to end.
    pub reserve: Duration,
    /// GPUs, or 1 where it takes a CPU slot.
    pub devices: u32,
}

/// How a run ended that no worker told the end of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndedHere {
    /// The worker refused the request, so that no run was made. Charged nothing.
    Rejected {
        /// The field at fault.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The worker is out of reach, or another one, or forgot it. Charged in full, as unknown.
    Lost {
        /// Why.
        cause: v1::LostCause,
        /// One line.
        message: String,
    },
    /// Before any worker had it: charged nothing where it was never sent, else in full, as unknown.
    Cancelled {
        /// One line.
        message: String,
    },
}

/// One run, without its bodies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunRow {
    /// Its id.
    pub id: RunId,
    /// Whose.
    pub campaign: CampaignId,
    /// 1 is "e1"; `None` for `exec`.
    pub experiment: Option<u32>,
    /// Of the code.
    pub revision: Option<Digest>,
    /// "v1", …
    pub variant: String,
    /// Of the four streams.
    pub seed: u64,
    /// What it is for.
    pub purpose: RunPurpose,
    /// The lost run that it stands in for.
    pub predecessor: Option<RunId>,
    /// By name.
    pub image: String,
    /// Where it is.
    pub state: RunState,
    /// The worker it was sent to.
    pub worker_id: Option<String>,
    /// Of that worker, when it was sent.
    pub boot_id: Option<String>,
    /// It holds so many.
    pub devices: u32,
    /// Device time that was set aside.
    pub reserved: Duration,
    /// Device time that it was charged, once it is over.
    pub charged: Option<Duration>,
    /// False where it was charged in full because nobody knows what it used.
    pub usage_known: bool,
    /// Watch on after this.
    pub last_sequence: u64,
    /// Journalled bytes of standard output: what lies past them in the file is not to be read.
    pub stdout_bytes: u64,
    /// Journalled bytes of standard error.
    pub stderr_bytes: u64,
    /// Journalled bytes of the metrics channel.
    pub metrics_bytes: u64,
    /// Metric points of all names.
    pub points: u64,
    /// WORKER §5's word, once it is over.
    pub outcome: Option<String>,
    /// One line, once it is over.
    pub message: Option<String>,
    /// Of the program, where it ended by itself.
    pub exit_code: Option<i32>,
    /// From the start gate to the last process gone.
    pub wall: Option<Duration>,
    /// Of the whole sandbox.
    pub memory_peak_bytes: Option<u64>,
    /// Every artifact is on this disk.
    pub artifacts_done: bool,
    /// The worker was told to forget it.
    pub released: bool,
    /// ns since 1970, by this machine's clock.
    pub planned_ns: i64,
    /// ns since 1970, by the worker's clock.
    pub started_ns: Option<i64>,
    /// ns since 1970, by the clock of whoever ended it.
    pub finished_ns: Option<i64>,
}

impl RunRow {
    /// Whether it was this side that said it was lost, and no worker has confirmed since that it is gone there: whatever
    /// it still tells stays out (WORKER §2). One that its worker called lost and still keeps counts as well: all that it has
    /// is its end, which is here.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        let lost = self.outcome.as_deref() == Some(super::apply::outcome_word(v1::OutcomeKind::Lost));
        lost && !self.usage_known && !self.artifacts_done && !self.released
    }

    /// Journalled bytes of one stream.
    #[must_use]
    pub fn stream_bytes(&self, stream: LogStream) -> u64 {
        match stream {
            LogStream::Stdout => self.stdout_bytes,
            LogStream::Stderr => self.stderr_bytes,
            LogStream::Metrics => self.metrics_bytes,
        }
    }

    /// In the order of [`COLUMNS`]: by place, because 10,000 rows of 30 columns are slow to read by name.
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let mut columns = InOrder::of(row);
        Ok(Self {
            id: columns.parsed()?,
            campaign: columns.parsed()?,
            experiment: columns.get()?,
            revision: columns.parsed_option()?,
            variant: columns.get()?,
            seed: columns.get::<i64>()?.cast_unsigned(),
            purpose: columns.get()?,
            predecessor: columns.parsed_option()?,
            image: columns.get()?,
            state: columns.get()?,
            worker_id: columns.get()?,
            boot_id: columns.get()?,
            devices: columns.get()?,
            reserved: columns.unsigned().map(Duration::from_millis)?,
            charged: columns.unsigned_option()?.map(Duration::from_millis),
            usage_known: columns.get()?,
            last_sequence: columns.unsigned()?,
            stdout_bytes: columns.unsigned()?,
            stderr_bytes: columns.unsigned()?,
            metrics_bytes: columns.unsigned()?,
            points: columns.unsigned()?,
            outcome: columns.get()?,
            message: columns.get()?,
            exit_code: columns.get()?,
            wall: columns.unsigned_option()?.map(Duration::from_millis),
            memory_peak_bytes: columns.unsigned_option()?,
            artifacts_done: columns.get()?,
            released: columns.get()?,
            planned_ns: columns.get()?,
            started_ns: columns.get()?,
            finished_ns: columns.get()?,
        })
    }
}

/// A usage sample that was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageSample {
    /// Since the start gate.
    pub elapsed_ns: u64,
    /// As the worker sent it.
    pub usage: v1::Usage,
}

/// What a worker dropped of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GapRow {
    /// Which stream.
    pub stream: LogStream,
    /// From where.
    pub from_offset: u64,
    /// How much.
    pub dropped_bytes: u64,
    /// How many points with it.
    pub dropped_points: u64,
    /// Why.
    pub reason: String,
}

/// What [`RunRow::of`] reads, in its order.
pub(super) const COLUMNS: &str =
    "SELECT runs.id, campaigns.id, experiment, revision, variant, runs.seed, purpose, predecessor, image, runs.state,
         worker, boot, devices, reserved_ms, charged_ms, usage_known, last_sequence, stdout_bytes, stderr_bytes,
         metrics_bytes, points, outcome, message, exit_code, wall_ms, memory_peak_bytes, artifacts_done, released,
         planned_ns, started_ns, finished_ns
     FROM runs JOIN campaigns ON campaigns.number = runs.campaign";

/// A run's number, which the other tables refer to.
pub(super) fn number(connection: &Connection, run: RunId) -> Result<i64, JournalError> {
    connection
        .prepare_cached("SELECT number FROM runs WHERE id = ?1")?
        .query_row([run.to_string()], |row| row.get(0))
        .optional()?
        .ok_or_else(|| JournalError::not_found("run", run))
}

/// One run.
pub(super) fn load(connection: &Connection, run: RunId) -> Result<RunRow, JournalError> {
    connection
        .prepare_cached(&format!("{COLUMNS} WHERE runs.id = ?1"))?
        .query_row([run.to_string()], RunRow::of)
        .optional()?
        .ok_or_else(|| JournalError::not_found("run", run))
}
