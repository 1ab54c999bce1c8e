//! What a worker streams of a run, made durable: bytes to the log files, a sync, then one transaction with points,
//! samples, gaps, state, `last_sequence` and the files' lengths. A kill before the transaction leaves files that are
//! longer than the journal says, and they are cut when the run is opened again; the worker sends those events once more.

use std::sync::PoisonError;

use prost::Message as _;
use proto::v1;
use rusqlite::Connection;

use super::{
    Journal, JournalError, LogStream, RunId, RunRow, RunState,
    budget::Charge,
    log_files::Files,
    points::NewPoints,
    rows::signed,
    run_rows::{load, number},
    runs::{End, finish},
    seal::cut,
};

/// Usage samples of one run that are kept. When there are more, every second one goes.
const SAMPLES_MAX: u64 = 512;

/// A run's streams, open for appending. One at a time for each run.
#[derive(Debug)]
pub struct RunLog {
    journal: Journal,
    run: RunId,
    last_sequence: u64,
    finished: bool,
    /// `None` while a batch is on its way; it stays so where that was dropped half-way or failed.
    files: Option<Files>,
}

/// What a batch of events brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The run's last event that is journalled.
    pub last_sequence: u64,
    /// Events that were new.
    pub new_events: u64,
    /// The run is over.
    pub finished: bool,
}

/// A batch, sorted by where it goes.
#[derive(Debug, Default)]
struct Batch {
    bytes: [Vec<u8>; 3],
    points: NewPoints,
    samples: Vec<(u64, u64, v1::Usage)>,
    gaps: Vec<(u64, LogStream, v1::Gap)>,
    state: Option<RunState>,
    /// The worker's wall clock when the program started.
    started_ns: Option<i64>,
    finished: Option<(v1::Finished, i64, u64)>,
    last_sequence: u64,
    new_events: u64,
}

/// WORKER §5's word for an outcome.
pub(super) fn outcome_word(kind: v1::OutcomeKind) -> &'static str {
    match kind {
        v1::OutcomeKind::Succeeded => "succeeded",
        v1::OutcomeKind::Failed => "failed",
        v1::OutcomeKind::MissingMetrics => "missing_metrics",
        v1::OutcomeKind::Diverged => "diverged",
        v1::OutcomeKind::OutOfMemory => "out_of_memory",
        v1::OutcomeKind::GpuOutOfMemory => "gpu_out_of_memory",
        v1::OutcomeKind::TimedOut => "timed_out",
        v1::OutcomeKind::Stalled => "stalled",
        v1::OutcomeKind::LimitExceeded => "limit_exceeded",
        v1::OutcomeKind::DependencyConflict => "dependency_conflict",
        v1::OutcomeKind::Cancelled => "cancelled",
        v1::OutcomeKind::Rejected => "rejected",
        // A later worker's word that we do not know: we do not know how the run ended.
        v1::OutcomeKind::Lost | v1::OutcomeKind::Unspecified => "lost",
    }
}

fn stream_index(stream: i32) -> Option<usize> {
    match v1::Stream::try_from(stream) {
        Ok(v1::Stream::Stdout) => Some(0),
        Ok(v1::Stream::Stderr) => Some(1),
        Ok(v1::Stream::Metrics) => Some(2),
        Ok(v1::Stream::Unspecified) | Err(_) => None,
    }
}

fn state_word(state: i32) -> Option<RunState> {
    Some(match v1::RunState::try_from(state).ok()? {
        v1::RunState::Accepted => RunState::Accepted,
        v1::RunState::Preparing => RunState::Preparing,
        v1::RunState::Starting => RunState::Starting,
        v1::RunState::Running => RunState::Running,
        v1::RunState::Ending => RunState::Ending,
        v1::RunState::Harvesting => RunState::Harvesting,
        // Finished is the `finished` event's to say, because it brings the outcome.
        v1::RunState::Finished | v1::RunState::Unspecified => return None,
    })
}

impl Batch {
    /// Sorts events; what was journalled before is passed over, a hole is refused.
    fn sort(run: RunId, last_sequence: u64, events: Vec<v1::Event>) -> Result<Self, JournalError> {
        let mut batch = Self { last_sequence, ..Self::default() };
        for event in events {
            let sequence = event.sequence;
            if sequence <= batch.last_sequence && sequence > 0 {
                continue;
            }
            let wrong = |problem: &str| JournalError::Event { run, sequence, problem: problem.to_owned() };
            let wanted = batch.last_sequence.saturating_add(1);
            if sequence != wanted {
                return Err(JournalError::Hole { run, wanted, found: sequence });
            }
            if batch.finished.is_some() {
                return Err(wrong("it comes after the end"));
            }
            batch.last_sequence = sequence;
            batch.new_events += 1;
            let Some(kind) = event.kind else {
                return Err(wrong("it is of a kind that this program does not know"));
            };
            match kind {
                v1::event::Kind::StateChange(change) => {
                    if let Some(state) = state_word(change.state) {
                        batch.state = Some(state);
                        if state == RunState::Running {
                            batch.started_ns = Some(event.wall_time_ns);
                        }
                    }
                }
                v1::event::Kind::Frame(frame) => {
                    let index = stream_index(frame.stream).ok_or_else(|| wrong("its stream has no name"))?;
                    // Names become rows of the journal and words of a report: the worker's check is not ours.
                    for point in &frame.points {
                        kit::name::check_metric(&point.name).map_err(|error| wrong(&error.to_string()))?;
                    }
                    batch.bytes[index].extend_from_slice(&frame.data);
                    batch.points.add(sequence, frame.points);
                }
                v1::event::Kind::Usage(usage) => batch.samples.push((sequence, event.elapsed_ns, usage)),
                v1::event::Kind::Gap(gap) => {
                    let index = stream_index(gap.stream).ok_or_else(|| wrong("its stream has no name"))?;
                    batch.gaps.push((sequence, LogStream::ALL[index], gap));
                }
                v1::event::Kind::Finished(finished) => {
                    if finished.outcome.is_none() {
                        return Err(wrong("it is the end and has no outcome"));
                    }
                    batch.finished = Some((finished, event.wall_time_ns, event.elapsed_ns));
                }
            }
        }
        Ok(batch)
    }

    /// Everything but the bytes.
    fn store(&self, connection: &Connection, run: RunId, lengths: [u64; 3]) -> Result<(), JournalError> {
        let row = load(connection, run)?;
        if row.state == RunState::Finished {
            return Err(JournalError::state("run", run, "it is over, and this came after"));
        }
        if row.last_sequence + self.new_events != self.last_sequence {
            let problem = "another process journals it: is it watched twice?";
            return Err(JournalError::state("run", run, problem));
        }
        let number = number(connection, run)?;
        self.points.store(connection, number)?;
        self.store_samples(connection, number)?;
        for (sequence, stream, gap) in &self.gaps {
            connection
                .prepare_cached(
                    "INSERT INTO gaps (run, sequence, stream, from_offset, dropped_bytes, dropped_points, reason)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute((
                    number,
                    signed(*sequence),
                    *stream,
                    signed(gap.from_offset),
                    signed(gap.dropped_bytes),
                    signed(gap.dropped_points),
                    cut(&gap.reason),
                ))?;
        }
        connection
            .prepare_cached(
                "UPDATE runs SET state = coalesce(?2, state), started_ns = coalesce(started_ns, ?3), last_sequence = ?4,
                     stdout_bytes = ?5, stderr_bytes = ?6, metrics_bytes = ?7, points = points + ?8 WHERE number = ?1",
            )?
            .execute((
                number,
                self.state,
                self.started_ns,
                signed(self.last_sequence),
                signed(lengths[0]),
                signed(lengths[1]),
                signed(lengths[2]),
                signed(self.points.count()),
            ))?;
        match &self.finished {
            Some(finished) => end(connection, &row, finished),
            None => Ok(()),
        }
    }

    /// Keeps every `stride`-th sample and the last one; doubles the stride where there are too many.
    fn store_samples(&self, connection: &Connection, run: i64) -> Result<(), JournalError> {
        let Some((last, _, _)) = self.samples.last() else { return Ok(()) };
        let (mut seen, mut stride): (u64, u64) = connection
            .prepare_cached("SELECT usage_seen, usage_stride FROM runs WHERE number = ?1")?
            .query_row([run], |row| {
                Ok((super::rows::unsigned(row, "usage_seen")?, super::rows::unsigned(row, "usage_stride")?))
            })?;
        // What was kept only for being the last one so far.
        let strays = "DELETE FROM usage_samples WHERE run = ?1 AND ordinal % ?2 <> 0";
        connection.prepare_cached(strays)?.execute((run, signed(stride)))?;
        for (sequence, elapsed_ns, usage) in &self.samples {
            if seen % stride == 0 || sequence == last {
                connection
                    .prepare_cached(
                        "INSERT INTO usage_samples (run, sequence, ordinal, elapsed_ns, sample)
                         VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute((
                        run,
                        signed(*sequence),
                        signed(seen),
                        signed(*elapsed_ns),
                        usage.encode_to_vec(),
                    ))?;
            }
            seen += 1;
            if seen / stride >= SAMPLES_MAX {
                stride *= 2;
                connection
                    .prepare_cached(
                        "DELETE FROM usage_samples WHERE run = ?1 AND ordinal % ?2 <> 0 AND sequence <> ?3",
                    )?
                    .execute((run, signed(stride), signed(*last)))?;
            }
        }
        connection
            .prepare_cached("UPDATE runs SET usage_seen = ?2, usage_stride = ?3 WHERE number = ?1")?
            .execute((run, signed(seen), signed(stride)))?;
        Ok(())
    }
}

/// Ends a run as its worker tells it.
fn end(
    connection: &Connection,
    row: &RunRow,
    (finished, at_ns, elapsed_ns): &(v1::Finished, i64, u64),
) -> Result<(), JournalError> {
    let outcome = finished.outcome.clone().unwrap_or_default();
    let usage = finished.usage.clone();
    let wall_ms = usage.as_ref().map(|usage| usage.wall_ms).filter(|wall| *wall > 0);
    let devices = u64::from(row.devices);
    let lost = matches!(outcome.kind(), v1::OutcomeKind::Lost | v1::OutcomeKind::Unspecified);
    let charge = match wall_ms {
        // The worker itself does not know how long: the whole reservation (DESIGN §7).
        _ if lost => Charge::Unknown,
        Some(wall) => Charge::Known(wall.saturating_mul(devices)),
        // The gate never opened.
        None if *elapsed_ns == 0 => Charge::Known(0),
        None => Charge::Unknown,
    };
    finish(
        connection,
        row,
        &End {
            outcome: outcome.kind(),
            message: &outcome.message,
            exit_code: outcome.exit_code,
            wall_ms,
            memory_peak_bytes: usage.map(|usage| usage.memory_peak_bytes).filter(|peak| *peak > 0),
            finished,
            charge,
            at_ns: *at_ns,
        },
    )
}

impl Journal {
    /// Opens a run's streams for appending, and cuts its files to what is journalled. One at a time for each run.
    ///
    /// # Errors
    /// [`JournalError::State`] where it is open already; [`JournalError::Damaged`] where a file is shorter than what
    /// was journalled.
    pub async fn open_run(&self, run: RunId) -> Result<RunLog, JournalError> {
        if self.inner.writer.is_none() {
            return Err(JournalError::ReadOnly);
        }
        if !self.inner.open_runs.lock().unwrap_or_else(PoisonError::into_inner).insert(run) {
            return Err(JournalError::state("run", run, "its log is open already"));
        }
        // From here on the drop of the log makes the run free again.
        let mut log = RunLog { journal: self.clone(), run, last_sequence: 0, finished: false, files: None };
        // Asked of the writer and not of a reader: a batch whose caller was dropped may still be queued, and the files
        // must not be cut to what was true before it.
        let row = self.write(move |c| load(c, run)).await?;
        (log.last_sequence, log.finished) = (row.last_sequence, row.state == RunState::Finished);
        let folder = self.run_folder(row.campaign, run);
        let lengths = LogStream::ALL.map(|stream| row.stream_bytes(stream));
        let files = kit::task::blocking("open a run's log", move || Files::open(folder, lengths)).await;
        log.files = Some(files.unwrap_or(Err(JournalError::Stopped("file thread")))?);
        Ok(log)
    }
}

impl RunLog {
    /// Whose streams these are.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Watch on after this.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Whether the run is over.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// Makes a batch durable. Events that are journalled already are passed over. On disk when this returns.
    ///
    /// # Errors
    /// [`JournalError::Hole`] and [`JournalError::Event`] leave everything as it was. After any other error, or where
    /// this was dropped half-way, the run is to be opened again.
    pub async fn apply(&mut self, events: Vec<v1::Event>) -> Result<Applied, JournalError> {
        let batch = Batch::sort(self.run, self.last_sequence, events)?;
        let applied = Applied {
            last_sequence: batch.last_sequence,
            new_events: batch.new_events,
            finished: self.finished || batch.finished.is_some(),
        };
        if batch.new_events == 0 {
            return Ok(applied);
        }
        let mut files =
            self.files.take().ok_or(JournalError::Stopped("run log (a batch failed: open the run again)"))?;
        let appended = kit::task::blocking("append to a run's log", move || {
            files.append(&batch.bytes)?;
            Ok((files, batch))
        })
        .await;
        let (files, batch) = appended.unwrap_or(Err(JournalError::Stopped("file thread")))?;
        let (run, lengths) = (self.run, files.lengths);
        self.journal.write(move |c| batch.store(c, run, lengths)).await?;
        self.files = Some(files);
        self.last_sequence = applied.last_sequence;
        self.finished = applied.finished;
        Ok(applied)
    }
}

impl Drop for RunLog {
    fn drop(&mut self) {
        self.journal.inner.open_runs.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.run);
    }
}

#[cfg(test)]
mod hostile;
