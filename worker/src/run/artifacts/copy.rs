//! The bytes of one file: at most as many as it had when it was checked and one more, hashed while they are written
//! beside their place, synced, renamed.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use kit::digest::{Digest, Hasher};
use rustix::fs::Stat;

use super::{ArtifactError, copy_path};

const BUFFER_BYTES: usize = 256 << 10;

/// Why a file is left out; the words are for a person.
pub(super) type Refused = String;

/// Writes copies into one folder, each under its digest.
#[derive(Debug)]
pub(super) struct Copier {
    target: PathBuf,
    copied: BTreeSet<Digest>,
    deadline: Instant,
}

impl Copier {
    pub(super) fn new(target: &Path, deadline: Instant) -> Self {
        Self { target: target.to_owned(), copied: BTreeSet::new(), deadline }
    }

    /// Copies a file that `stat` is of. The inner error is the file's fault, the outer one the worker's disk.
    pub(super) fn copy(&mut self, from: File, stat: &Stat) -> Result<Result<Digest, Refused>, ArtifactError> {
        let beside = self.target.join(".partial");
        let kept = self.copy_to(&beside, from, stat);
        if !matches!(kept, Ok(Ok(_))) {
            match std::fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound && kept.is_ok() => {
                    return Err(ArtifactError::at("remove", &beside)(error));
                }
                _ => {}
            }
        }
        kept
    }

    fn copy_to(
        &mut self,
        beside: &Path,
        mut from: File,
        stat: &Stat,
    ) -> Result<Result<Digest, Refused>, ArtifactError> {
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        let mut to = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(beside)
            .map_err(ArtifactError::at("create", beside))?;
        let (mut hasher, mut copied) = (Hasher::new(), 0_u64);
        let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(size).unwrap_or(BUFFER_BYTES) + 1)];
        loop {
            if Instant::now() > self.deadline {
                return Ok(Err("the time for artifacts was over while it was copied".to_owned()));
            }
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(format!("cannot be read: {error}"))),
            };
            copied += count as u64;
            if copied > size {
                break;
            }
            hasher.update(&buffer[..count]);
            to.write_all(&buffer[..count]).map_err(ArtifactError::at("write", beside))?;
        }
        if copied != size {
            return Ok(Err("its size changed while it was copied".to_owned()));
        }
        match rustix::fs::fstat(&from) {
            Ok(after) if same_state(stat, &after) => {}
            Ok(_) => return Ok(Err("it changed while it was copied".to_owned())),
            Err(error) => return Ok(Err(format!("cannot be read: {error}"))),
        }
        let digest = hasher.finish();
        if self.copied.insert(digest) {
            to.sync_all().map_err(ArtifactError::at("sync", beside))?;
            let place = copy_path(&self.target, &digest);
            std::fs::rename(beside, &place).map_err(ArtifactError::at("rename into", &place))?;
        } else {
            std::fs::remove_file(beside).map_err(ArtifactError::at("remove", beside))?;
        }
        Ok(Ok(digest))
    }
}

/// Whether nobody wrote to the file or gave it another name or owner in between: each of these moves the change time.
fn same_state(before: &Stat, after: &Stat) -> bool {
    let seen = |stat: &Stat| (stat.st_size, stat.st_nlink, stat.st_uid, stat.st_ctime, stat.st_ctime_nsec);
    seen(before) == seen(after)
}
