//! Reading a spool: for a watcher, from a sequence on; and whole, at start, to cut a torn tail and to learn how
//! far it goes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
};

use proto::v1::{Event, Finished, Stream, event::Kind};

use super::{
    SpoolError, count_segments,
    format::{self, Header, Parsed, Seal},
    segment_path,
};
use crate::run::RunId;

/// Read at once for a watcher.
const READ_BYTES: usize = 256 << 10;
/// Read at once where only the heads of frames are looked at: most of a large frame is passed over.
const SKIP_BYTES: usize = 4 << 10;
/// More than a frame needs to announce itself.
const HEAD_BYTES: usize = format::FRAME_HEADER_BYTES + 11;

/// Summed up at most, while a torn end is searched for good frames: a second's work.
const SUMMED_BYTES_MAX: usize = 1 << 30;

/// What a whole spool says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// Of the last segment; 0 where there is none.
    pub ordinal: u64,
    /// Good bytes of the last segment.
    pub segment_bytes: u64,
    /// Good bytes of all segments.
    pub total_bytes: u64,
    /// Of the last event.
    pub last_sequence: u64,
    /// End of the last frame or gap of stdout, stderr and metrics: where to read on.
    pub stream_ends: [u64; 3],
    /// Since the start gate, at the last event.
    pub elapsed_ns: u64,
    /// The last event, where the run has one.
    pub finished: Option<Finished>,
    /// Bytes that were cut off at the end.
    pub cut_bytes: u64,
    /// Of the last segment's frames; `None` where there is none.
    pub seal: Option<Seal>,
}

/// Index of a stream in arrays of three.
#[must_use]
pub fn stream_index(stream: Stream) -> Option<usize> {
    match stream {
        Stream::Stdout => Some(0),
        Stream::Stderr => Some(1),
        Stream::Metrics => Some(2),
        Stream::Unspecified => None,
    }
}

impl Recovered {
    fn take(&mut self, event: Event) {
        self.last_sequence = event.sequence;
        self.elapsed_ns = event.elapsed_ns;
        let (stream, end) = match event.kind {
            Some(Kind::Frame(frame)) => {
                (frame.stream(), frame.offset.saturating_add(frame.data.len() as u64))
            }
            Some(Kind::Gap(gap)) => (gap.stream(), gap.from_offset.saturating_add(gap.dropped_bytes)),
            Some(Kind::Finished(finished)) => {
                self.finished = Some(finished);
                return;
            }
            _ => return,
        };
        if let Some(index) = stream_index(stream) {
            self.stream_ends[index] = self.stream_ends[index].max(end);
        }
    }
}

/// Reads all segments, cuts a torn tail off the last one, and says how far the spool goes.
///
/// # Errors
/// [`SpoolError::Damaged`] for bad bytes that are not the end of the last segment.
pub fn recover(folder: &Path, run_id: RunId) -> Result<Recovered, SpoolError> {
    scan(folder, run_id, 1)
}

/// As [`recover`], from the last segment alone: enough to find how a finished run ended.
///
/// # Errors
/// As [`recover`].
pub fn recover_last(folder: &Path, run_id: RunId) -> Result<Recovered, SpoolError> {
    let found = scan(folder, run_id, count_segments(folder).max(1))?;
    // The last segment had no whole header and is gone: the one before it is the last one now.
    if found.ordinal == 0 { scan(folder, run_id, count_segments(folder).max(1)) } else { Ok(found) }
}

fn scan(folder: &Path, run_id: RunId, from: u64) -> Result<Recovered, SpoolError> {
    let mut found = Recovered::default();
    let last = count_segments(folder);
    for ordinal in 1..from {
        let path = segment_path(folder, ordinal);
        let size = std::fs::metadata(&path).map_err(|e| SpoolError::io("read", &path, e))?.len();
        found.total_bytes += size;
    }
    for ordinal in from..=last {
        let path = segment_path(folder, ordinal);
        let bytes = std::fs::read(&path).map_err(|e| SpoolError::io("read", &path, e))?;
        let place = match (ordinal == from, ordinal == last) {
            (true, true) => Place::Only,
            (true, false) => Place::First,
            (false, true) => Place::Last,
            (false, false) => Place::Middle,
        };
        let good = examine(&mut found, &bytes, run_id, place).map_err(|Damage { offset, detail }| {
            SpoolError::Damaged { path: path.clone(), offset: offset as u64, detail }
        })?;
        found.total_bytes += good as u64;
        if good < bytes.len() || good == 0 {
            found.cut_bytes = (bytes.len() - good) as u64;
            cut(&path, good)?;
        }
        if good > 0 {
            found.ordinal = ordinal;
            found.segment_bytes = good as u64;
        }
    }
    Ok(found)
}

/// Where a segment lies among those that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Its first sequence is taken as it is, and its end may be torn.
    Only,
    /// Its first sequence is taken as it is.
    First,
    /// It follows another and is followed.
    Middle,
    /// It follows another, and its end may be torn.
    Last,
}

/// What is wrong with the bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Of the first bad frame, in the segment.
    pub offset: usize,
    /// What was found.
    pub detail: &'static str,
}

/// Takes the events of one segment; gives how many of its bytes are good. The rest is a torn end.
///
/// # Errors
/// Where bad bytes are no torn end, or it does not follow what was found before.
pub fn examine(found: &mut Recovered, bytes: &[u8], run_id: RunId, place: Place) -> Result<usize, Damage> {
    let damage = |offset, detail| Err(Damage { offset, detail });
    let begins = matches!(place, Place::Only | Place::First);
    let ends = matches!(place, Place::Only | Place::Last);
    let header = Header::decode(bytes, run_id);
    match header {
        Some(header) if begins => found.last_sequence = header.first_sequence.saturating_sub(1),
        Some(header) if follows(header.first_sequence, found.last_sequence) => {}
        Some(_) => return damage(0, "its first sequence does not follow the segment before"),
        // A kill between making a segment and its header leaves a short file.
        None if ends && bytes.len() < format::HEADER_BYTES => return Ok(0),
        None => return damage(0, "the header is not what was written"),
    }
    let seal = header.map_or(Seal::Run(run_id), |header| header.seal());
    found.seal = Some(seal);
    let mut good = format::HEADER_BYTES;
    while good < bytes.len() {
        match format::parse_frame(&bytes[good..], seal) {
            Parsed::Frame(event, size) if follows(event.sequence, found.last_sequence) => {
                found.take(*event);
                good += size;
            }
            Parsed::Frame(..) => return damage(good, "a sequence is missing or comes twice"),
            Parsed::Short | Parsed::Bad if !ends => return damage(good, "a frame is not what was written"),
            Parsed::Short | Parsed::Bad => {
                if later_frame(&bytes[good..], found.last_sequence.saturating_add(1), seal) {
                    return damage(good, "a frame is not what was written, and good ones follow it");
                }
                break;
            }
        }
    }
    Ok(good)
}

fn follows(sequence: u64, last: u64) -> bool {
    last.checked_add(1) == Some(sequence)
}

/// Whether a good frame of a later sequence begins anywhere after the first byte: then the bad bytes before it
/// are damage and no torn end. Data of a frame may look like frames, so the sequence has to fit as well.
///
/// The bytes may be the program's own output, made to look like the heads of ever so many large frames. So the
/// sequence, which comes first, is looked at before anything is summed up, and a torn end whose sums come to more than
/// [`SUMMED_BYTES_MAX`] is called damage: it costs that run and holds up no start.
fn later_frame(bytes: &[u8], bad: u64, seal: Seal) -> bool {
    let fits = |sequence: u64| sequence > bad && sequence - bad <= bytes.len() as u64;
    let mut summed = 0;
    (1..bytes.len()).any(|at| {
        let rest = &bytes[at..];
        let Some((payload, sequence)) = format::announced(rest) else { return false };
        if !fits(sequence) || rest.len() < payload {
            return false;
        }
        summed += payload;
        summed > SUMMED_BYTES_MAX
            || matches!(format::parse_frame(rest, seal), Parsed::Frame(event, _) if fits(event.sequence))
    })
}

fn cut(path: &Path, good: usize) -> Result<(), SpoolError> {
    let work = || -> io::Result<()> {
        if good == 0 {
            std::fs::remove_file(path)?;
            return kit::folder::sync_parent(path);
        }
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(good as u64)?;
        file.sync_all()
    };
    work().map_err(|e| SpoolError::io("cut the torn end of", path, e))
}

/// Reads events in order from the segments while a writer appends. Its memory is one small buffer.
#[derive(Debug)]
pub struct SpoolReader {
    folder: PathBuf,
    run_id: RunId,
    ordinal: u64,
    file: File,
    /// Of this segment's frames.
    seal: Seal,
    /// What was read and not yet parsed begins at `start`.
    buffer: Vec<u8>,
    start: usize,
    /// Of `buffer[start]` in the segment, for messages.
    offset: u64,
    last: u64,
}

impl SpoolReader {
    /// Opens a spool after an event that the caller has; `synced` is the last one on disk.
    ///
    /// # Errors
    /// [`SpoolError::PastEnd`], [`SpoolError::Damaged`], [`SpoolError::Io`].
    pub fn open(folder: &Path, run_id: RunId, after: u64, synced: u64) -> Result<Self, SpoolError> {
        if after > synced {
            return Err(SpoolError::PastEnd { asked: after, last: synced });
        }
        // The last segment that begins at or before the wanted event.
        let (mut low, mut high) = (1, count_segments(folder).max(1));
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let (_, header) = open_segment(folder, run_id, middle)?;
            if header.first_sequence <= after + 1 { low = middle } else { high = middle - 1 }
        }
        let (file, header) = open_segment(folder, run_id, low)?;
        let mut reader = Self {
            folder: folder.to_owned(),
            run_id,
            ordinal: low,
            file,
            seal: header.seal(),
            buffer: Vec::new(),
            start: 0,
            offset: format::HEADER_BYTES as u64,
            last: header.first_sequence.saturating_sub(1),
        };
        reader.pass_over(after)?;
        while reader.last < after {
            // Not past `after`, which is synced.
            if reader.next(after)?.is_none() {
                return Err(reader.damaged("the segment ends too early"));
            }
        }
        Ok(reader)
    }

    /// Of the event that was read last.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The next event, or `None` where the caller is at `synced`.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`], [`SpoolError::Io`].
    pub fn next(&mut self, synced: u64) -> Result<Option<Event>, SpoolError> {
        if self.last >= synced {
            return Ok(None);
        }
        loop {
            match format::parse_frame(&self.buffer[self.start..], self.seal) {
                Parsed::Frame(event, size) => {
                    if !follows(event.sequence, self.last) {
                        return Err(self.damaged("a sequence is missing or comes twice"));
                    }
                    self.start += size;
                    self.offset += size as u64;
                    self.last = event.sequence;
                    return Ok(Some(*event));
                }
                Parsed::Bad => return Err(self.damaged("a frame is not what was written")),
                Parsed::Short => {
                    if !self.fill(READ_BYTES)? {
                        self.next_segment()?;
                    }
                }
            }
        }
    }

    /// Goes past events that the caller has by the heads of their frames alone, as far as those follow each other: whoever
    /// comes back over and over is not made to wait for the sum of everything that it has. What is not as it should be is
    /// left to the careful way of reading.
    fn pass_over(&mut self, upto: u64) -> Result<(), SpoolError> {
        while self.last < upto {
            let rest = &self.buffer[self.start..];
            let (size, sequence) = match format::announced(rest) {
                Some(announced) => announced,
                None if rest.len() < HEAD_BYTES && self.fill(SKIP_BYTES)? => continue,
                None => return Ok(()),
            };
            if !follows(sequence, self.last) {
                return Ok(());
            }
            match size.checked_sub(rest.len()) {
                None => self.start += size,
                Some(beyond) => {
                    let failed =
                        |error| SpoolError::io("read", &segment_path(&self.folder, self.ordinal), error);
                    self.file.seek_relative(beyond as i64).map_err(failed)?;
                    self.buffer.clear();
                    self.start = 0;
                }
            }
            self.offset += size as u64;
            self.last = sequence;
        }
        Ok(())
    }

    /// Reads more; false at the end of the segment.
    fn fill(&mut self, bytes: usize) -> Result<bool, SpoolError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let had = self.buffer.len();
        self.buffer.resize(had + bytes, 0);
        let count = loop {
            match self.file.read(&mut self.buffer[had..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match count {
            Ok(count) => {
                self.buffer.truncate(had + count);
                Ok(count > 0)
            }
            Err(error) => Err(SpoolError::io("read", &segment_path(&self.folder, self.ordinal), error)),
        }
    }

    fn next_segment(&mut self) -> Result<(), SpoolError> {
        if self.start < self.buffer.len() || !segment_path(&self.folder, self.ordinal + 1).exists() {
            // Synced events are missing, whatever the reason.
            return Err(self.damaged("the segment ends too early"));
        }
        let (file, header) = open_segment(&self.folder, self.run_id, self.ordinal + 1)?;
        self.ordinal += 1;
        self.file = file;
        self.seal = header.seal();
        self.offset = format::HEADER_BYTES as u64;
        if !follows(header.first_sequence, self.last) {
            return Err(self.damaged("its first sequence does not follow the segment before"));
        }
        Ok(())
    }

    fn damaged(&self, detail: &'static str) -> SpoolError {
        SpoolError::Damaged { path: segment_path(&self.folder, self.ordinal), offset: self.offset, detail }
    }
}

fn open_segment(folder: &Path, run_id: RunId, ordinal: u64) -> Result<(File, Header), SpoolError> {
    let path = segment_path(folder, ordinal);
    let mut file = File::open(&path).map_err(|e| SpoolError::io("open", &path, e))?;
    let mut bytes = [0; format::HEADER_BYTES];
    let read = file.read_exact(&mut bytes);
    match (read, Header::decode(&bytes, run_id)) {
        (Ok(()), Some(header)) => Ok((file, header)),
        _ => Err(SpoolError::Damaged { path, offset: 0, detail: "the header is not what was written" }),
    }
}
