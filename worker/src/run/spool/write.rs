//! Appending to a spool. Events are framed into a buffer, written in large pieces, and shown to watchers once a
//! `sync` has put them on disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use proto::v1::{Event, event::Kind};
use tokio::sync::watch;

use super::{
    SEGMENT_BYTES, SpoolError,
    format::{self, Header, Seal},
    read::Recovered,
    segment_path,
};
use crate::run::RunId;

/// The buffer is written out when it has this many bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// The one writer of a run's spool. After an error it refuses all further work: what is on disk is then unknown.
#[derive(Debug)]
pub struct SpoolWriter {
    folder: PathBuf,
    run_id: RunId,
    ordinal: u64,
    file: File,
    /// Of the segment, with what is still in the buffer.
    segment_bytes: u64,
    segment_bytes_max: u64,
    /// Of the segment's frames.
    seal: Seal,
    buffer: Vec<u8>,
    last_sequence: u64,
    synced: watch::Sender<u64>,
    /// Of all segments, for the disk ledger.
    total_bytes: u64,
    broken: bool,
}

fn create(folder: &Path, ordinal: u64, header: Header) -> Result<File, SpoolError> {
    let path = segment_path(folder, ordinal);
    let make = || -> io::Result<File> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&header.encode())?;
        file.sync_all()?;
        kit::folder::sync_parent(&path)?;
        Ok(file)
    };
    make().map_err(|e| SpoolError::io("create", &path, e))
}

impl SpoolWriter {
    /// Makes the first segment in a folder that is there and empty.
    ///
    /// # Errors
    /// [`SpoolError::Io`], also where there is a segment already.
    pub fn create(folder: &Path, run_id: RunId) -> Result<Self, SpoolError> {
        let file = create(folder, 1, Header::new(run_id, 1))?;
        Ok(Self::over(folder, run_id, file, Recovered { ordinal: 1, ..Recovered::default() }))
    }

    /// Goes on after what [`super::read::recover`] found; it has cut the torn tail off.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn resume(folder: &Path, run_id: RunId, recovered: &Recovered) -> Result<Self, SpoolError> {
        if recovered.ordinal == 0 {
            return Self::create(folder, run_id);
        }
        let path = segment_path(folder, recovered.ordinal);
        let file =
            OpenOptions::new().append(true).open(&path).map_err(|e| SpoolError::io("open", &path, e))?;
        Ok(Self::over(folder, run_id, file, recovered.clone()))
    }

    fn over(folder: &Path, run_id: RunId, file: File, from: Recovered) -> Self {
        let header = format::HEADER_BYTES as u64;
        Self {
            folder: folder.to_owned(),
            run_id,
            ordinal: from.ordinal,
            file,
            segment_bytes: from.segment_bytes.max(header),
            segment_bytes_max: SEGMENT_BYTES,
            seal: from.seal.unwrap_or(Seal::Run(run_id)),
            buffer: Vec::new(),
            last_sequence: from.last_sequence,
            synced: watch::Sender::new(from.last_sequence),
            total_bytes: from.total_bytes.max(header),
            broken: false,
        }
    }

    /// Closes segments at another size: for tests of rotation.
    #[cfg(test)]
    pub fn with_segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes_max = bytes;
        self
    }

    /// The last sequence on disk; wakes at each sync.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<u64> {
        self.synced.subscribe()
    }

    /// Of the last event that was appended, synced or not.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Appends an event under the next sequence, which it gives. Not yet shown to watchers.
    ///
    /// # Errors
    /// [`SpoolError::Io`] or [`SpoolError::TooLarge`].
    pub fn append(&mut self, wall_time_ns: i64, elapsed_ns: u64, kind: Kind) -> Result<u64, SpoolError> {
        self.check_whole()?;
        let sequence = self.last_sequence + 1;
        let event = Event { sequence, wall_time_ns, elapsed_ns, kind: Some(kind) };
        if self.segment_bytes >= self.segment_bytes_max {
            self.rotate(sequence)?;
        }
        let before = self.buffer.len();
        if !format::push_frame(&mut self.buffer, &event, self.seal) {
            return Err(SpoolError::TooLarge { bytes: prost::Message::encoded_len(&event) });
        }
        let grown = (self.buffer.len() - before) as u64;
        self.segment_bytes += grown;
        self.total_bytes += grown;
        self.last_sequence = sequence;
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_out()?;
        }
        Ok(sequence)
    }

    /// Puts on disk what was appended, then shows it to watchers. Costs nothing where nothing is new.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        self.check_whole()?;
        if *self.synced.borrow() == self.last_sequence {
            return Ok(());
        }
        self.write_out()?;
        if let Err(error) = self.file.sync_data() {
            return Err(self.fail("sync", error));
        }
        self.synced.send_replace(self.last_sequence);
        Ok(())
    }

    fn check_whole(&self) -> Result<(), SpoolError> {
        if self.broken {
            let path = segment_path(&self.folder, self.ordinal);
            return Err(SpoolError::io("go on with", &path, io::Error::other("an earlier write failed")));
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), SpoolError> {
        if let Err(error) = self.file.write_all(&self.buffer) {
            return Err(self.fail("append to", error));
        }
        self.buffer.clear();
        Ok(())
    }

    fn rotate(&mut self, first_sequence: u64) -> Result<(), SpoolError> {
        // All of a closed segment is on disk before the next one is there: recovery relies on it.
        self.sync()?;
        let header = Header::new(self.run_id, first_sequence);
        match create(&self.folder, self.ordinal + 1, header) {
            Ok(file) => (self.file, self.seal) = (file, header.seal()),
            Err(error) => {
                self.broken = true;
                return Err(error);
            }
        }
        self.ordinal += 1;
        self.segment_bytes = format::HEADER_BYTES as u64;
        self.total_bytes += self.segment_bytes;
        Ok(())
    }

    fn fail(&mut self, verb: &'static str, error: io::Error) -> SpoolError {
        self.broken = true;
        SpoolError::io(verb, &segment_path(&self.folder, self.ordinal), error)
    }
}
