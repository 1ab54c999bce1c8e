//! The one writer of a run's spool. It tails the log files, reads metrics from them, follows the divergence rule,
//! and appends what the driver hands it. Disk work runs off the event loop; one `fdatasync` covers a whole step.
//!
//! It runs beside the driver and not in it, so that a slow disk never holds up a limit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kit::clock::{Clock, wall_ns};
use proto::v1::{Event, Finished, Frame, Gap, MetricPoint, event::Kind};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    divergence::DivergenceWatch,
    metrics::MetricReader,
    spec::{CheckedSpec, RunLimits},
    spool::{SpoolError, SpoolWriter, read::stream_index},
    tail::{LAST_BYTES, Piece, STREAMS, Tail, TailError},
};
use crate::sandbox::StreamPaths;

/// Between two looks at the logs.
const STEP: Duration = Duration::from_millis(50);
/// Read in one step before it is synced.
const STEP_BYTES: usize = 8 << 20;
/// Orders that wait for the recorder.
pub const INBOX: usize = 16;

/// What the driver decides on; published after each step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Of all streams, as they were read: a change is a sign of life.
    pub output_bytes: u64,
    /// How the divergence rule is met.
    pub diverged: Option<String>,
    /// Why nothing can be recorded any more, and whether the host's disk is full.
    pub failed: Option<(String, bool)>,
}

/// What the logs came to, once they were drained.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Drained {
    /// The last 64 KiB of standard error.
    pub stderr_tail: Vec<u8>,
    /// Written by the program: stdout, stderr, metrics.
    pub stream_bytes: [u64; 3],
    /// Stored.
    pub metric_points: u64,
    /// Asked for, and not there whole and finite.
    pub missing_metrics: Vec<String>,
    /// How the divergence rule is met.
    pub diverged: Option<String>,
    /// Worth telling: lines that were no metrics, what was dropped.
    pub notes: Vec<String>,
}

/// To the recorder. A dropped sender in an answer means that recording failed.
#[derive(Debug)]
pub enum Order {
    /// Append one event and sync it.
    Append(Box<Kind>, oneshot::Sender<()>),
    /// Begin to tail.
    Follow(StreamPaths, Duration, oneshot::Sender<()>),
    /// Read what the logs have by now; answered when it is recorded, with the bytes that were new.
    CatchUp(oneshot::Sender<u64>),
    /// Read the logs to their end.
    Drain(oneshot::Sender<Drained>),
    /// Append the last event; its sequence is filled in. Ends the recorder.
    Finish(Box<Finished>, oneshot::Sender<Finished>),
}

#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Tail(#[from] TailError),
}

/// Everything that the steps work on; moved to the blocking pool and back.
#[derive(Debug)]
pub struct Recorder {
    spool: SpoolWriter,
    clock: Arc<dyn Clock>,
    gate: Option<Duration>,
    tail: Option<Tail>,
    limits: RunLimits,
    readers: [Option<MetricReader>; 3],
    divergence: Option<DivergenceWatch>,
    /// The last value of each metric that was asked for: finite or not.
    required: BTreeMap<String, Option<bool>>,
    /// Metrics that lack points.
    incomplete: BTreeSet<String>,
    points: u64,
    points_dropped: u64,
    /// How many of them the events tell already.
    points_dropped_told: u64,
    stored_ends: [u64; 3],
    stderr_tail: Vec<u8>,
    progress: Progress,
}

impl Recorder {
    /// Over a spool that was just made or recovered.
    #[must_use]
    pub fn new(spool: SpoolWriter, clock: Arc<dyn Clock>, spec: &CheckedSpec, limits: RunLimits) -> Self {
        let stdout = (!spec.stdout_metrics.is_empty()).then(|| MetricReader::plain(&spec.stdout_metrics));
        Self {
            spool,
            clock,
            gate: None,
            tail: None,
            limits,
            readers: [stdout, None, Some(MetricReader::json())],
            divergence: spec.divergence.clone().map(DivergenceWatch::new),
            required: spec.required_metrics.iter().map(|name| (name.clone(), None)).collect(),
            incomplete: BTreeSet::new(),
            points: 0,
            points_dropped: 0,
            points_dropped_told: 0,
            stored_ends: [0; 3],
            stderr_tail: Vec::new(),
            progress: Progress::default(),
        }
    }

    /// The last sequence on disk; wakes at each sync.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<u64> {
        self.spool.synced()
    }

    /// Takes in an event that an earlier process recorded, each in its turn: afterwards everything here is as it was in that
    /// process when it had recorded the last of them.
    pub fn replay(&mut self, event: Event) {
        match event.kind {
            Some(Kind::Frame(frame)) => {
                let Some(index) = stream_index(frame.stream()) else { return };
                self.stored_ends[index] = frame.offset.saturating_add(frame.data.len() as u64);
                let mut points = Vec::new();
                if let Some(reader) = &mut self.readers[index] {
                    // Without bytes it is the last line of a stream that was drained.
                    match frame.data.is_empty() {
                        true => reader.finish(&mut points),
                        false => reader.feed(&frame.data, &mut points),
                    }
                }
                self.take_points(points);
                if index == 1 {
                    self.keep_stderr(&frame.data);
                }
            }
            Some(Kind::Gap(gap)) if gap.dropped_bytes > 0 => {
                if let Some(index) = stream_index(gap.stream()) {
                    self.skip(index, gap.from_offset.saturating_add(gap.dropped_bytes));
                }
            }
            Some(Kind::Gap(gap)) => self.points_dropped_told = gap.dropped_points,
            _ => {}
        }
    }

    /// Time since the gate, where it is open since an earlier process.
    pub fn set_gate(&mut self, gate: Duration) {
        self.gate = Some(gate);
    }

    /// Bytes up to here are never read.
    fn skip(&mut self, index: usize, end: u64) {
        self.stored_ends[index] = end;
        if let Some(reader) = &mut self.readers[index] {
            reader.gap();
            // Any of them may have been in what is missing.
            self.incomplete.extend(self.required.keys().cloned());
        }
        if index == 1 {
            self.stderr_tail.clear();
        }
    }

    fn elapsed_ns(&self) -> u64 {
        let since = self.gate.map(|gate| self.clock.monotonic().saturating_sub(gate)).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn append(&mut self, kind: Kind) -> Result<u64, SpoolError> {
        let elapsed = self.elapsed_ns();
        self.spool.append(wall_ns(self.clock.wall()), elapsed, kind)
    }

    /// Reads what is new, at most [`STEP_BYTES`]; true where there may be more.
    fn step(&mut self) -> Result<bool, RecordError> {
        let mut left = STEP_BYTES;
        let mut more = true;
        while more && left > 0 {
            more = false;
            for index in 0..STREAMS.len() {
                let Some(tail) = &mut self.tail else { return Ok(false) };
                if let Some(piece) = tail.read(index)? {
                    more |= matches!(&piece, Piece::Bytes { data, .. } if data.len() == proto::CHUNK_BYTES);
                    left = left.saturating_sub(proto::CHUNK_BYTES);
                    self.take(index, piece)?;
                }
            }
        }
        self.spool.sync()?;
        Ok(more)
    }

    fn take(&mut self, index: usize, piece: Piece) -> Result<(), SpoolError> {
        let stream = STREAMS[index].into();
        match piece {
            Piece::Bytes { offset, data } => {
                self.stored_ends[index] = offset + data.len() as u64;
                self.progress.output_bytes += data.len() as u64;
                let mut points = Vec::new();
                if let Some(reader) = &mut self.readers[index] {
                    reader.feed(&data, &mut points);
                }
                let points = self.take_points(points);
                crate::telemetry::METRICS.stored(index, data.len());
                if index == 1 {
                    self.keep_stderr(&data);
                }
                self.append(Kind::Frame(Frame { stream, offset, data: data.into(), points }))?;
            }
            Piece::Dropped { offset, bytes } => {
                self.skip(index, offset + bytes);
                self.append(Kind::Gap(Gap {
                    stream,
                    from_offset: offset,
                    dropped_bytes: bytes,
                    dropped_points: 0,
                    reason: format!(
                        "over the stream's limit of {}",
                        limit_text(self.limits.log_bytes[index])
                    ),
                }))?;
            }
        }
        Ok(())
    }

    fn keep_stderr(&mut self, data: &[u8]) {
        self.stderr_tail.extend_from_slice(data);
        let over = self.stderr_tail.len().saturating_sub(LAST_BYTES as usize);
        // In large steps, so that a long stream is not moved byte by byte.
        if over > 4 * LAST_BYTES as usize {
            self.stderr_tail.drain(..over);
        }
    }

    /// Judges points, and gives those that are stored.
    fn take_points(&mut self, mut points: Vec<MetricPoint>) -> Vec<MetricPoint> {
        for point in &points {
            if self.progress.diverged.is_none()
                && let Some(watch) = &mut self.divergence
            {
                self.progress.diverged = watch.take(point);
            }
            if let Some(last) = self.required.get_mut(&point.name) {
                *last = Some(point.value.is_finite());
            }
        }
        let room = self.limits.metric_points.saturating_sub(self.points);
        let keep = usize::try_from(room).unwrap_or(usize::MAX).min(points.len());
        for dropped in &points[keep..] {
            self.points_dropped += 1;
            if self.required.contains_key(&dropped.name) {
                self.incomplete.insert(dropped.name.clone());
            }
        }
        points.truncate(keep);
        self.points += keep as u64;
        points
    }

    fn drain(&mut self) -> Result<Drained, RecordError> {
        for (index, stream) in STREAMS.into_iter().enumerate() {
            while let Some(tail) = &mut self.tail
                && let Some(piece) = tail.read_to_end(index)?
            {
                self.take(index, piece)?;
            }
            let mut points = Vec::new();
            if let Some(reader) = &mut self.readers[index] {
                reader.finish(&mut points);
            }
            let points = self.take_points(points);
            if !points.is_empty() {
                let (stream, offset) = (stream.into(), self.stored_ends[index]);
                self.append(Kind::Frame(Frame { stream, offset, data: Vec::new().into(), points }))?;
            }
        }
        self.tail = None;
        let mut notes = Vec::new();
        let bad_lines = self.readers[2].as_ref().map_or(0, MetricReader::bad_lines);
        if bad_lines > 0 {
            notes.push(format!("{bad_lines} lines of the metrics stream were no metrics"));
        }
        if self.points_dropped > 0 {
            let reason = format!("over the run's limit of {} metric points", self.limits.metric_points);
            notes.push(format!("{} metric points were dropped: {reason}", self.points_dropped));
            if self.points_dropped_told < self.points_dropped {
                self.points_dropped_told = self.points_dropped;
                self.append(Kind::Gap(Gap {
                    stream: STREAMS[2].into(),
                    from_offset: self.stored_ends[2],
                    dropped_bytes: 0,
                    dropped_points: self.points_dropped,
                    reason,
                }))?;
            }
        }
        self.spool.sync()?;
        let from = self.stderr_tail.len().saturating_sub(LAST_BYTES as usize);
        let missing = |(name, finite): (&String, &Option<bool>)| {
            (*finite != Some(true) || self.incomplete.contains(name)).then(|| name.clone())
        };
        Ok(Drained {
            stderr_tail: self.stderr_tail.split_off(from),
            stream_bytes: self.stored_ends,
            metric_points: self.points,
            missing_metrics: self.required.iter().filter_map(missing).collect(),
            diverged: self.progress.diverged.clone(),
            notes,
        })
    }

    fn finish(&mut self, mut finished: Finished) -> Result<Finished, SpoolError> {
        finished.last_sequence = self.spool.last_sequence() + 1;
        self.append(Kind::Finished(finished.clone()))?;
        kit::halt::at("worker.finishing");
        self.spool.sync()?;
        Ok(finished)
    }
}

fn limit_text(bytes: u64) -> String {
    kit::size::Bytes(bytes).to_string()
}

/// Carries orders out and tails until it is told to finish. Where recording fails it says so in its progress,
/// drops every further order, and ends when nobody can order any more.
pub async fn run(recorder: Recorder, mut inbox: mpsc::Receiver<Order>, progress: watch::Sender<Progress>) {
    let mut held = Some(Box::new(recorder));
    let mut more = false;
    while let Some(recorder) = held.take() {
        let order = if more {
            inbox.try_recv().ok()
        } else {
            match tokio::time::timeout(STEP, inbox.recv()).await {
                Ok(Some(order)) => Some(order),
                Ok(None) => return,
                Err(_) => None,
            }
        };
        let finishing = matches!(order, Some(Order::Finish(..)));
        let worked = kit::task::blocking("recorder step", move || work(recorder, order)).await;
        let failed = match worked {
            Some((recorder, Ok(more_now))) => {
                more = more_now;
                progress.send_if_modified(|old| {
                    let new = *old != recorder.progress;
                    if new {
                        old.clone_from(&recorder.progress);
                    }
                    new
                });
                held = (!finishing).then_some(recorder);
                continue;
            }
            Some((_, Err(error))) => {
                let full = matches!(&error, RecordError::Spool(error) if error.is_disk_full());
                tracing::error!(error = %chain(&error), "the run's events cannot be recorded");
                (chain(&error), full)
            }
            None => ("the recorder stopped".to_owned(), false),
        };
        progress.send_modify(|old| old.failed = Some(failed));
        // Orders are taken and dropped, so that nobody waits for an answer.
        while inbox.recv().await.is_some() {}
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

type Worked = (Box<Recorder>, Result<bool, RecordError>);

fn work(mut recorder: Box<Recorder>, order: Option<Order>) -> Worked {
    let result = carry_out(&mut recorder, order);
    (recorder, result)
}

fn carry_out(recorder: &mut Recorder, order: Option<Order>) -> Result<bool, RecordError> {
    // An answer that nobody waits for any more is no error.
    match order {
        None => {}
        Some(Order::Append(kind, done)) => {
            recorder.append(*kind)?;
            recorder.spool.sync()?;
            done.send(()).ok();
        }
        Some(Order::Follow(paths, gate, done)) => {
            recorder.gate = Some(gate);
            recorder.tail = Some(Tail::open(&paths, recorder.stored_ends, recorder.limits.log_bytes)?);
            done.send(()).ok();
        }
        Some(Order::CatchUp(done)) => {
            while recorder.step()? {}
            done.send(recorder.progress.output_bytes).ok();
        }
        Some(Order::Drain(done)) => {
            let drained = recorder.drain()?;
            done.send(drained).ok();
        }
        Some(Order::Finish(finished, done)) => {
            let finished = recorder.finish(*finished)?;
            done.send(finished).ok();
            return Ok(false);
        }
    }
    recorder.step()
}
