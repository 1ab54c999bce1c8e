//! What a run's end came to, on disk before what it was read from is removed: the container with PID 1's reports and the
//! kernel's counters, then the volume with the artifacts. A process that is killed between the two loses neither.
//!
//! ```text
//! runs/RUN_ID/end: │ magic "AREND\0\0" and version, 8 │ stage u8 │ crc32 u32 of stage and payload │ payload: an encoded Finished │
//! ```
//!
//! Replaced whole, so it is there or it is not. It goes when the last event is in the spool.

use std::path::{Path, PathBuf};

use kit::folder::FolderError;
use prost::Message as _;
use proto::v1::Finished;

const FILE: &str = "end";
const MAGIC: &[u8; 8] = b"AREND\0\0\x01";
const HEADER_BYTES: usize = 8 + 1 + 4;

/// How far the harvest has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The outcome and the usage are there; the artifacts may still lie on the volume.
    Judged,
    /// Everything is there.
    Collected,
}

/// The last event as it will be, but for its sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// What is in it.
    pub stage: Stage,
    /// With no sequence yet.
    pub finished: Finished,
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

fn checksum(stage: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[stage]);
    hasher.update(payload);
    hasher.finalize()
}

impl Draft {
    fn encode(&self) -> Vec<u8> {
        let stage = match self.stage {
            Stage::Judged => 1,
            Stage::Collected => 2,
        };
        let payload = self.finished.encode_to_vec();
        let mut bytes = MAGIC.to_vec();
        bytes.push(stage);
        bytes.extend_from_slice(&checksum(stage, &payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let payload = bytes.get(HEADER_BYTES..)?;
        let sum = u32::from_le_bytes(*bytes.get(9..)?.first_chunk()?);
        if bytes[..8] != MAGIC[..] || checksum(bytes[8], payload) != sum {
            return None;
        }
        let stage = match bytes[8] {
            1 => Stage::Judged,
            2 => Stage::Collected,
            _ => return None,
        };
        Some(Self { stage, finished: Finished::decode(payload).ok()? })
    }

    /// Puts it on disk, synced.
    ///
    /// # Errors
    /// Names the file.
    pub fn save(&self, folder: &Path) -> Result<(), FolderError> {
        kit::folder::replace(&path(folder), &self.encode())
    }

    /// Reads it back. One that is damaged counts as not there: what it was made from is read again, as far as it is there.
    #[must_use]
    pub fn load(folder: &Path) -> Option<Self> {
        let bytes = std::fs::read(path(folder)).ok()?;
        let draft = Self::decode(&bytes);
        if draft.is_none() {
            tracing::error!(folder = %folder.display(), "what the run's end came to is damaged on disk");
        }
        draft
    }

    /// Takes it away, once the last event is in the spool.
    pub fn remove(folder: &Path) {
        if let Err(error) = std::fs::remove_file(path(folder)) {
            tracing::debug!(%error, "there is no draft of the last event");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Draft::load(folder.path()), None);
        for stage in [Stage::Judged, Stage::Collected] {
            let draft = Draft { stage, finished: Finished { slot: 3, ..Finished::default() } };
            draft.save(folder.path()).unwrap();
            assert_eq!(Draft::load(folder.path()), Some(draft.clone()));
            let bytes = draft.encode();
            for index in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[index] ^= 1;
                assert_eq!(Draft::decode(&damaged), None, "byte {index}");
                assert_eq!(Draft::decode(&bytes[..index]), None, "cut at {index}");
            }
        }
        Draft::remove(folder.path());
        assert_eq!(Draft::load(folder.path()), None);
    }
}
