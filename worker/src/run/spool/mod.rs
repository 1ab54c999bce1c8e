//! The spool of a run: every stored event, in append-only, checksummed segments that any number of watchers read
//! while one writer appends.
//!
//! ```text
//! runs/RUN_ID/events-000001.seg, events-000002.seg, …      each from one sequence on, without holes
//! ```
//!
//! Invariants: sequences begin at 1 and have no holes; a watcher sees an event only when it was synced, so
//! nobody has seen what a power cut can take back; only the last segment is ever written to. Damage: bad
//! bytes at the very end of the last segment are a torn write and are cut off at start; anything else is
//! [`SpoolError::Damaged`] and is never read past.
//!
//! Design notes. Segments and not one file, so that finding a place to read on costs one segment and not the
//! whole; files and not SQLite, because the bytes are logs and are written once.

/// The layout of the bytes.
pub mod format;
/// Reading and recovering.
pub mod read;
/// Appending.
pub mod write;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use read::{Recovered, SpoolReader};
pub use write::SpoolWriter;

/// A segment is closed when it has this many bytes.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// What went wrong with which segment.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Reading or writing failed.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// "append to", "sync", …
        verb: &'static str,
        /// The segment.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Bytes that were synced are not what was written.
    #[error("{} is damaged at byte {offset}: {detail}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the first bad byte's frame begins.
        offset: u64,
        /// What was found.
        detail: &'static str,
    },
    /// The caller asks for what comes after an event that is not there.
    #[error("sequence {asked} is past the last one, {last}")]
    PastEnd {
        /// By the caller.
        asked: u64,
        /// On disk.
        last: u64,
    },
    /// An event over the frame's limit: a defect.
    #[error("an event of {bytes} bytes is over the limit of a frame")]
    TooLarge {
        /// Encoded.
        bytes: usize,
    },
}

impl SpoolError {
    fn io(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { verb, path: path.to_owned(), source }
    }

    /// Whether the host's disk has no room.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// Where a segment lies; ordinals begin at 1.
#[must_use]
pub fn segment_path(folder: &Path, ordinal: u64) -> PathBuf {
    folder.join(format!("events-{ordinal:06}.seg"))
}

/// How many segments there are: ordinals have no holes, so the first that is not there ends them.
fn count_segments(folder: &Path) -> u64 {
    (1..).take_while(|ordinal| segment_path(folder, *ordinal).exists()).last().unwrap_or(0)
}

#[cfg(test)]
mod tests;
