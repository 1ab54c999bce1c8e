//! Ids that are forgotten, and must stay so: a released run, one past its retention, and one that was cancelled before
//! it was ever seen. One line of JSON each, appended and synced; old ones go when the worker starts.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use kit::folder::FolderError;
use serde::{Deserialize, Serialize};

use super::RunId;

/// Kept for 90 days.
const KEPT_NS: i64 = 90 * 86_400 * 1_000_000_000;
/// The oldest go beyond it.
const COUNT_MAX: usize = 1_000_000;

/// What is left of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Of the run.
    pub id: RunId,
    /// Of its spec; empty where there never was one.
    pub spec_digest: String,
    /// Whose it was.
    pub controller_id: String,
    /// How it ended, like `OUTCOME_KIND_SUCCEEDED`; empty where there never was a run.
    pub outcome: String,
    /// When it was put up, ns since 1970.
    pub wall_ns: i64,
}

/// All of them, in memory and on disk.
#[derive(Debug)]
pub struct Tombstones {
    path: PathBuf,
    by_id: BTreeMap<RunId, Tombstone>,
}

impl Tombstones {
    /// Reads the file, and writes it anew without what is too old. A line that is no tombstone can only be one that
    /// a kill cut off.
    ///
    /// # Errors
    /// Names the file.
    pub fn open(path: &Path, now_ns: i64) -> Result<Self, FolderError> {
        let text = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(FolderError::io("read", path, error)),
        };
        let mut all: Vec<Tombstone> = Vec::new();
        for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Tombstone>(line) {
                Ok(stone) => all.push(stone),
                Err(error) => {
                    tracing::warn!(%error, "a line of the tombstones cannot be read and is dropped")
                }
            }
        }
        all.retain(|stone| now_ns.saturating_sub(stone.wall_ns) < KEPT_NS);
        let over = all.len().saturating_sub(COUNT_MAX);
        all.drain(..over);
        let mut bytes = Vec::new();
        for stone in &all {
            push_line(&mut bytes, stone);
        }
        if bytes != text {
            kit::folder::replace(path, &bytes)?;
        }
        Ok(Self { path: path.to_owned(), by_id: all.into_iter().map(|s| (s.id, s)).collect() })
    }

    /// The one of an id.
    #[must_use]
    pub fn get(&self, id: RunId) -> Option<&Tombstone> {
        self.by_id.get(&id)
    }

    /// Puts one up, synced before it returns. The first one of an id stays.
    ///
    /// # Errors
    /// Names the file.
    pub fn put(&mut self, stone: Tombstone) -> Result<(), FolderError> {
        if self.by_id.contains_key(&stone.id) {
            return Ok(());
        }
        let mut line = Vec::new();
        push_line(&mut line, &stone);
        let append = || -> io::Result<()> {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
            file.write_all(&line)?;
            file.sync_all()?;
            kit::folder::sync_parent(&self.path)
        };
        append().map_err(|e| FolderError::io("append to", &self.path, e))?;
        self.by_id.insert(stone.id, stone);
        // Ids are in the order of time, so the first is the oldest; the file follows at the next start.
        while self.by_id.len() > COUNT_MAX {
            self.by_id.pop_first();
        }
        Ok(())
    }
}

fn push_line(bytes: &mut Vec<u8>, stone: &Tombstone) {
    if serde_json::to_writer(&mut *bytes, stone).is_ok() {
        bytes.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stone(wall_ns: i64) -> Tombstone {
        Tombstone {
            id: RunId::new(),
            spec_digest: String::new(),
            controller_id: "c".into(),
            outcome: "OUTCOME_KIND_LOST".into(),
            wall_ns,
        }
    }

    #[test]
    fn they_last_and_a_cut_line_costs_itself_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tombstones");
        let mut stones = Tombstones::open(&path, 0).unwrap();
        let (old, new, cut) = (stone(5), stone(KEPT_NS), stone(KEPT_NS));
        for each in [&old, &new, &cut] {
            stones.put(each.clone()).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let stones = Tombstones::open(&path, KEPT_NS + 4).unwrap();
        assert_eq!(stones.get(old.id), Some(&old));
        assert_eq!(stones.get(new.id), Some(&new));
        assert_eq!(stones.get(cut.id), None);
        let stones = Tombstones::open(&path, KEPT_NS + 5).unwrap();
        assert_eq!((stones.get(old.id), stones.get(new.id)), (None, Some(&new)));
    }
}
