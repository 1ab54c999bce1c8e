//! Input files by their SHA-256. A blob is written beside its place, verified, and renamed into it; what was reported
//! as there is kept for an hour; all of them together are bounded, and the ones that were used longest ago go first.
//!
//! ```text
//! blobs/HEX          whole, verified
//! blobs/partial/HEX  received so far; goes on after a broken upload
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kit::{
    clock::Clock,
    digest::{Digest, Hasher},
    folder::FolderError,
};

/// What was reported as there stays for so long.
pub const KEPT: Duration = Duration::from_secs(3600);
/// A partial upload that nobody goes on with is dropped after so long.
const PARTIAL_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Why bytes were not taken.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Somebody else writes it now.
    #[error("blob {0} is being written by another caller")]
    Busy(Digest),
    /// The caller goes on at another place than where we are.
    #[error("blob {digest}: the offset is {asked}, and {received} bytes are there")]
    Offset {
        /// Which one.
        digest: Digest,
        /// By the caller.
        asked: u64,
        /// On disk.
        received: u64,
    },
    /// More bytes than were announced, or fewer.
    #[error("blob {digest}: {announced} bytes were announced, and {came} came")]
    Size {
        /// Which one.
        digest: Digest,
        /// In the header.
        announced: u64,
        /// In all.
        came: u64,
    },
    /// They are other bytes.
    #[error("blob {digest}: the bytes have the digest {found}; nothing was kept")]
    Digest {
        /// As announced.
        digest: Digest,
        /// As computed.
        found: Digest,
    },
    /// It is larger than all blobs may be, or what is there is still wanted.
    #[error(
        "blob {digest} of {size} bytes: there is no room among the worker's {total} bytes for input files"
    )]
    NoRoom {
        /// Which one.
        digest: Digest,
        /// Of it.
        size: u64,
        /// Of all.
        total: u64,
    },
    /// The worker's disk.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    size: u64,
    /// Reported as there, or used: monotonic.
    wanted_at: Duration,
}

#[derive(Debug, Default)]
struct State {
    whole: BTreeMap<Digest, Entry>,
    writing: BTreeSet<Digest>,
    /// Announced by the uploads that are under way.
    promised: u64,
}

/// The store.
#[derive(Debug)]
pub struct Blobs {
    folder: PathBuf,
    total_max: u64,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl Blobs {
    /// Opens the store; what lies there counts as wanted now.
    ///
    /// # Errors
    /// Names the path.
    pub fn open(folder: &Path, total_max: u64, clock: Arc<dyn Clock>) -> Result<Arc<Self>, FolderError> {
        kit::folder::create_private(&folder.join("partial"))?;
        kit::folder::create_private(folder)?;
        let mut whole = BTreeMap::new();
        let entries = fs::read_dir(folder).map_err(|e| FolderError::io("read", folder, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| FolderError::io("read", folder, e))?;
            let name = entry.file_name();
            let Ok(digest) = format!("sha256:{}", name.to_string_lossy()).parse::<Digest>() else { continue };
            let size = entry.metadata().map_err(|e| FolderError::io("read", &entry.path(), e))?.len();
            whole.insert(digest, Entry { size, wanted_at: clock.monotonic() });
        }
        let state = Mutex::new(State { whole, ..State::default() });
        Ok(Arc::new(Self { folder: folder.to_owned(), total_max, clock, state }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    fn partial(&self, digest: &Digest) -> PathBuf {
        self.folder.join("partial").join(digest.hex())
    }

    /// Those that are not there whole. The others are kept for an hour from now.
    #[must_use]
    pub fn find_missing(&self, digests: &[Digest]) -> Vec<Digest> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        let mut missing = Vec::new();
        for digest in digests {
            match state.whole.get_mut(digest) {
                Some(entry) => entry.wanted_at = now,
                None => missing.push(*digest),
            }
        }
        missing
    }

    /// Where a blob lies, and that it is wanted.
    #[must_use]
    pub fn find(&self, digest: &Digest) -> Option<PathBuf> {
        self.find_missing(std::slice::from_ref(digest)).is_empty().then(|| self.path(digest))
    }

    /// Begins or goes on with an upload. `None` where the blob is there already.
    ///
    /// # Errors
    /// All of [`BlobError`] but `Size` and `Digest`.
    pub fn begin(
        self: &Arc<Self>,
        digest: Digest,
        size: u64,
        offset: u64,
    ) -> Result<Option<Upload>, BlobError> {
        if self.find(&digest).is_some() {
            return Ok(None);
        }
        {
            let mut state = self.state();
            if state.writing.contains(&digest) {
                return Err(BlobError::Busy(digest));
            }
            self.make_room(&mut state, digest, size)?;
            state.writing.insert(digest);
            state.promised += size;
        }
        // From here on dropping `upload` takes back what was promised.
        let path = self.partial(&digest);
        let mut upload =
            Upload { blobs: Arc::clone(self), digest, size, received: 0, hasher: Hasher::new(), file: None };
        let received = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(FolderError::io("read", &path, error).into()),
        };
        if offset != received {
            return Err(BlobError::Offset { digest, asked: offset, received });
        }
        let open = || -> io::Result<(File, Hasher)> {
            let mut hasher = Hasher::new();
            if received > 0 {
                let mut buffer = vec![0; 128 << 10];
                let mut file = File::open(&path)?;
                loop {
                    match io::Read::read(&mut file, &mut buffer)? {
                        0 => break,
                        count => hasher.update(&buffer[..count]),
                    }
                }
            }
            Ok((OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?, hasher))
        };
        let (file, hasher) = open().map_err(|e| FolderError::io("open", &path, e))?;
        upload.file = Some(file);
        upload.hasher = hasher;
        upload.received = received;
        Ok(Some(upload))
    }

    /// Drops blobs that nobody has wanted for an hour, the oldest first, until `size` fits.
    fn make_room(&self, state: &mut State, digest: Digest, size: u64) -> Result<(), BlobError> {
        let now = self.clock.monotonic();
        let used = |state: &State| state.whole.values().map(|e| e.size).sum::<u64>() + state.promised;
        while used(state).saturating_add(size) > self.total_max {
            let oldest = state
                .whole
                .iter()
                .filter(|(_, entry)| now.saturating_sub(entry.wanted_at) >= KEPT)
                .min_by_key(|(_, entry)| entry.wanted_at)
                .map(|(digest, _)| *digest);
            let Some(oldest) = oldest else {
                return Err(BlobError::NoRoom { digest, size, total: self.total_max });
            };
            let path = self.path(&oldest);
            fs::remove_file(&path).map_err(|e| FolderError::io("remove", &path, e))?;
            state.whole.remove(&oldest);
        }
        Ok(())
    }

    /// Drops partial uploads that nobody goes on with. Called now and then.
    ///
    /// # Errors
    /// Names the path.
    pub fn sweep_partial(&self) -> Result<(), FolderError> {
        let folder = self.folder.join("partial");
        let writing = self.state().writing.clone();
        let now = self.clock.wall();
        for entry in fs::read_dir(&folder).map_err(|e| FolderError::io("read", &folder, e))? {
            let entry = entry.map_err(|e| FolderError::io("read", &folder, e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if writing.iter().any(|digest| digest.hex() == name) {
                continue;
            }
            let changed = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .map_err(|e| FolderError::io("read", &entry.path(), e))?;
            let age = jiff::Timestamp::try_from(changed)
                .map(|changed| now.duration_since(changed).unsigned_abs())
                .unwrap_or_default();
            if age > PARTIAL_KEPT {
                fs::remove_file(entry.path()).map_err(|e| FolderError::io("remove", &entry.path(), e))?;
            }
        }
        Ok(())
    }
}

/// One blob on its way in. Dropped before its end it leaves what came, to go on with.
#[derive(Debug)]
pub struct Upload {
    blobs: Arc<Blobs>,
    digest: Digest,
    size: u64,
    received: u64,
    hasher: Hasher,
    file: Option<File>,
}

impl Upload {
    /// Takes more bytes.
    ///
    /// # Errors
    /// [`BlobError::Size`] for more than were announced; then nothing is kept.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let came = self.received.saturating_add(bytes.len() as u64);
        if came > self.size {
            self.discard()?;
            return Err(BlobError::Size { digest: self.digest, announced: self.size, came });
        }
        let path = self.blobs.partial(&self.digest);
        if let Some(file) = &mut self.file {
            file.write_all(bytes).map_err(|e| FolderError::io("write", &path, e))?;
        }
        self.hasher.update(bytes);
        self.received = came;
        Ok(())
    }

    /// Verifies and renames into place. Fewer bytes than announced are kept, to go on with.
    ///
    /// # Errors
    /// [`BlobError::Size`], [`BlobError::Digest`], [`BlobError::Folder`].
    pub fn finish(mut self) -> Result<u64, BlobError> {
        let (digest, size) = (self.digest, self.size);
        if self.received != size {
            return Err(BlobError::Size { digest, announced: size, came: self.received });
        }
        let found = std::mem::take(&mut self.hasher).finish();
        if found != digest {
            self.discard()?;
            return Err(BlobError::Digest { digest, found });
        }
        let (partial, place) = (self.blobs.partial(&digest), self.blobs.path(&digest));
        let work = |file: Option<File>| -> io::Result<()> {
            if let Some(file) = file {
                file.sync_all()?;
            }
            fs::rename(&partial, &place)?;
            kit::folder::sync_parent(&place)
        };
        work(self.file.take()).map_err(|e| FolderError::io("rename into", &place, e))?;
        let wanted_at = self.blobs.clock.monotonic();
        self.blobs.state().whole.insert(digest, Entry { size, wanted_at });
        Ok(size)
    }

    fn discard(&mut self) -> Result<(), BlobError> {
        self.file = None;
        let path = self.blobs.partial(&self.digest);
        Ok(fs::remove_file(&path).map_err(|e| FolderError::io("remove", &path, e))?)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut state = self.blobs.state();
        state.writing.remove(&self.digest);
        state.promised = state.promised.saturating_sub(self.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(total: u64) -> (tempfile::TempDir, Arc<kit::clock::ManualClock>, Arc<Blobs>) {
        let folder = tempfile::tempdir().unwrap();
        let clock = kit::clock::ManualClock::new(jiff::Timestamp::now());
        let blobs = Blobs::open(folder.path(), total, clock.clone()).unwrap();
        (folder, clock, blobs)
    }

    fn put(blobs: &Arc<Blobs>, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let mut upload = blobs.begin(digest, bytes.len() as u64, 0).unwrap().unwrap();
        upload.write(bytes).unwrap();
        upload.finish().unwrap();
        digest
    }

    #[test]
    fn an_upload_goes_on_after_a_break_and_is_verified() {
        let (folder, clock, blobs) = store(100);
        let digest = Digest::of(b"hello world");
        assert_eq!(blobs.find_missing(&[digest]), [digest]);
        let mut upload = blobs.begin(digest, 11, 0).unwrap().unwrap();
        upload.write(b"hello").unwrap();
        assert!(matches!(blobs.begin(digest, 11, 5), Err(BlobError::Busy(_))));
        drop(upload);
        assert!(matches!(blobs.begin(digest, 11, 0), Err(BlobError::Offset { received: 5, .. })));
        let mut upload = blobs.begin(digest, 11, 5).unwrap().unwrap();
        upload.write(b" world").unwrap();
        assert_eq!(upload.finish().unwrap(), 11);
        assert!(blobs.begin(digest, 11, 0).unwrap().is_none());
        assert_eq!(fs::read(blobs.find(&digest).unwrap()).unwrap(), b"hello world");
        let again = Blobs::open(folder.path(), 100, clock).unwrap();
        assert!(again.find_missing(&[digest]).is_empty());
    }

    #[test]
    fn wrong_bytes_leave_nothing() {
        let (folder, _, blobs) = store(100);
        let digest = Digest::of(b"right");
        let mut upload = blobs.begin(digest, 5, 0).unwrap().unwrap();
        upload.write(b"wrong").unwrap();
        assert!(matches!(upload.finish(), Err(BlobError::Digest { .. })));
        let mut upload = blobs.begin(digest, 5, 0).unwrap().unwrap();
        assert!(matches!(upload.write(b"too much"), Err(BlobError::Size { came: 8, .. })));
        drop(upload);
        let mut upload = blobs.begin(digest, 5, 0).unwrap().unwrap();
        upload.write(b"ri").unwrap();
        assert!(matches!(upload.finish(), Err(BlobError::Size { came: 2, .. })));
        assert_eq!(blobs.find_missing(&[digest]), [digest]);
        assert_eq!(fs::read_dir(folder.path().join("partial")).unwrap().count(), 1);
    }

    #[test]
    fn room_is_made_of_what_nobody_wanted_for_an_hour() {
        let (_folder, clock, blobs) = store(10);
        let (old, used) = (put(&blobs, b"aaaa"), put(&blobs, b"bbbb"));
        let new = Digest::of(b"cccc");
        assert!(matches!(blobs.begin(new, 4, 0), Err(BlobError::NoRoom { .. })));
        clock.advance(KEPT);
        assert!(blobs.find(&used).is_some());
        put(&blobs, b"cccc");
        assert_eq!(blobs.find_missing(&[old, used, new]), [old]);
        assert!(matches!(blobs.begin(old, 11, 0), Err(BlobError::NoRoom { .. })));
        // What an upload was promised counts until it is dropped.
        clock.advance(KEPT);
        let promised = blobs.begin(old, 10, 0).unwrap().unwrap();
        assert!(matches!(blobs.begin(new, 1, 0), Err(BlobError::NoRoom { .. })));
        drop(promised);
        put(&blobs, b"cccc");
    }
}
