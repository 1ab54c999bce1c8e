//! A small JSON file that several processes change: read whole, changed under a lock beside it, replaced whole. A worker
//! that serves so sees what a command beside it has written.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    marker::PhantomData,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Serialize, de::DeserializeOwned};

use crate::folder::{self, FolderError};

/// Nothing that is kept so comes near it.
const LONGEST: u64 = 4 << 20;
/// A change takes milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Why a file of peers or invitations cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder or the file.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// It was written by something else, or is damaged.
    #[error("{} is damaged ({problem}): remove it, and join anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Another process holds the lock for too long.
    #[error("{} is held by another process: try again", .0.display())]
    Busy(PathBuf),
    /// A bound.
    #[error("{} is full: it holds {most} entries; {remedy}", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// The bound.
        most: usize,
        /// What to do.
        remedy: &'static str,
    },
}

/// What changes when a file is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    changed: (i64, i64),
    length: u64,
}

/// The file.
#[derive(Debug)]
pub struct SharedFile<T> {
    path: PathBuf,
    holds: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned + Default> SharedFile<T> {
    /// In a folder that is made with the first change.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(name), holds: PhantomData }
    }

    /// Of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes when the file does; `None` where there is no file yet.
    ///
    /// # Errors
    /// Names the path.
    pub fn stamp(&self) -> Result<Option<Stamp>, StoreError> {
        match std::fs::metadata(&self.path) {
            Ok(found) => Ok(Some(Stamp {
                inode: found.ino(),
                changed: (found.mtime(), found.mtime_nsec()),
                length: found.len(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FolderError::io("look at", &self.path, error).into()),
        }
    }

    /// What it holds now; the default where there is no file yet.
    ///
    /// # Errors
    /// Names the path.
    pub fn read(&self) -> Result<T, StoreError> {
        let failed = |error| StoreError::from(FolderError::io("read", &self.path, error));
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| StoreError::Damaged { path: self.path.clone(), problem: error.to_string() })
    }

    /// Reads, changes, and replaces the file, with nobody between. Where the change refuses, nothing is written.
    /// Blocks for a moment.
    ///
    /// # Errors
    /// The file's, or the change's own.
    pub fn change<R, E: From<StoreError>>(
        &self,
        change: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, E> {
        if let Some(folder) = self.path.parent() {
            folder::create_private(folder).map_err(StoreError::from)?;
        }
        let _lock = lock(&self.path.with_extension("lock"))?;
        let mut value = self.read()?;
        let result = change(&mut value)?;
        let bytes = serde_json::to_vec_pretty(&value)
            .map_err(|error| FolderError::io("write", &self.path, error.into()))
            .map_err(StoreError::from)?;
        folder::replace(&self.path, &bytes).map_err(StoreError::from)?;
        Ok(result)
    }
}

/// Waits a moment for the lock; let go when dropped or killed.
pub(super) fn lock(path: &Path) -> Result<Flock<File>, StoreError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| FolderError::io("open", path, error))?;
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Ok(held),
            Err((back, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < until => {
                file = back;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Err(StoreError::Busy(path.to_owned())),
            Err((_, errno)) => return Err(FolderError::io("lock", path, errno.into()).into()),
        }
    }
}
