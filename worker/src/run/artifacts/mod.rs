//! Copying what the program made out of a hostile tree (SANDBOXES.md 4.8). The sandbox's end is confirmed and its
//! volume is sealed before this runs, so a check and the read after it see the same tree; and everything holds all the
//! same where something still writes.
//!
//! Everything is opened beneath the folder's own descriptor, with no link, no mount and no `..` followed; only
//! regular files of the sandbox's uid with one name are read; count, bytes, depth, names and time are bounded; a copy
//! is hashed while it is written, beside its place, synced and renamed. Copies lie under their digest, so no name of
//! the program's is ever a path of ours. Modes, times and attributes are not copied, and nothing is decompressed.
//!
//! What belongs here: the words (rules, what came out) and the one entry. Opening is in `open`, which entries are
//! taken is in `walk`, and the bytes are in `copy`.

mod copy;
mod open;
#[cfg(test)]
mod tests;
mod walk;

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use kit::digest::Digest;
use proto::v1::{Artifact, LeftOut};
use rustix::fs::OFlags;

#[doc(hidden)] // for tests/parsers alone
pub use self::walk::name_rule;
use self::{open::Lookup, walk::Walk};

/// What may be copied, and whose it must be.
#[derive(Debug, Clone, Copy)]
pub struct ArtifactRules {
    /// The sandbox's uid.
    pub uid: u32,
    /// Copied in all.
    pub bytes_max: u64,
    /// Copied.
    pub files_max: u32,
    /// Walking and copying end after this.
    pub time_max: Duration,
}

impl ArtifactRules {
    /// A time that a slow disk needs for so many bytes: a minute, and a second for every 10 MB.
    #[must_use]
    pub fn time_for(bytes_max: u64) -> Duration {
        Duration::from_secs(60 + bytes_max / 10_000_000)
    }
}

/// What came out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collected {
    /// By name, in order.
    pub artifacts: Vec<Artifact>,
    /// Named, with why.
    pub left_out: Vec<LeftOut>,
    /// The first limit that left something out, for a person.
    pub exceeded: Option<String>,
    /// Of the copies.
    pub bytes: u64,
}

impl Collected {
    /// Nothing was copied, for one reason.
    #[must_use]
    pub fn nothing(reason: &str) -> Self {
        let left_out = vec![LeftOut { name: String::new(), reason: reason.to_owned() }];
        Self { left_out, ..Self::default() }
    }
}

/// The worker's own disk failed; nothing of the program's doing ends here.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}", path.display())]
pub struct ArtifactError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl ArtifactError {
    fn at(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { verb, path, source }
    }

    /// Whether the host's disk has no room.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Where a copy lies.
#[must_use]
pub fn copy_path(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join(digest.hex())
}

/// Copies what may be copied from `source` into the folder `target`, which is made. The folder above `source` may be
/// the program's to write; the one above that must be the worker's own.
///
/// # Errors
/// Only for the worker's own disk. What the program made wrong is left out and named.
pub fn collect(source: &Path, target: &Path, rules: ArtifactRules) -> Result<Collected, ArtifactError> {
    kit::folder::create_private(target)
        .map_err(|e| ArtifactError::at("make the folder", target)(io::Error::other(e.to_string())))?;
    let (Some(above), Some(name)) = (source.parent(), source.file_name().and_then(|name| name.to_str()))
    else {
        return Ok(Collected::default());
    };
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW)
        .open(above);
    let above = match opened {
        // The program owns its folder and may shut it; a worker that is root is let in all the same.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let reason = format!("work/ cannot be opened: {error}");
            return Ok(Collected {
                left_out: vec![LeftOut { name: String::new(), reason }],
                ..Collected::default()
            });
        }
        opened => opened.map_err(ArtifactError::at("open", above))?,
    };
    let lookup = Lookup::of_this_host(&above);
    let mut walk = Walk::new(rules, target, lookup);
    match lookup.open(&above, name, OFlags::DIRECTORY) {
        Ok(root) => walk.tree(&root)?,
        // A program that made no artifacts may have taken its folder away.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => walk.leave_out("", &format!("work/artifacts cannot be opened as a folder: {error}")),
    }
    let collected = walk.finish();
    kit::folder::sync_parent(&target.join("x")).map_err(ArtifactError::at("sync", target))?;
    Ok(collected)
}
