//! The record of a run on disk: what was intended, written and synced before it is done. One small JSON file that
//! is replaced whole, beside the spec's bytes and the segments.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kit::digest::Digest;
use serde::{Deserialize, Serialize};

use super::{RunId, spec::RunLimits, state::Reason};
use crate::{
    packages::Package,
    sandbox::{SandboxId, SlotGrant},
};

/// Of this file's form.
const VERSION: u32 = 2;
/// Forms that this program still reads: what is new in a later one has a value for what is old.
const OLDEST_VERSION: u32 = 1;
const FILE: &str = "record.json";
/// The bytes that the controller sent.
const SPEC_FILE: &str = "spec.bin";

/// What is known of a run without its events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Of the form.
    pub version: u32,
    /// The folder's name.
    pub run_id: RunId,
    /// Whose run it is.
    pub controller_id: String,
    /// Of the spec's bytes.
    pub spec_digest: Digest,
    /// Ns since 1970.
    pub accepted_wall_ns: i64,
    /// The kernel's, at acceptance: times below are of its clocks.
    pub boot_id: String,
    /// Monotonic, at acceptance.
    pub accepted_monotonic: Duration,
    /// Made after this was synced.
    pub sandbox_id: SandboxId,
    /// The backend that makes it.
    pub backend: String,
    /// The engine's content id.
    pub image_id: String,
    /// Its index.
    pub slot: u32,
    /// What its sandbox is told of the slot: a later process must have the same to give. Not in version 1.
    #[serde(default)]
    pub grant: Option<SlotGrant>,
    /// All set.
    pub limits: RunLimits,
    /// How often a later process has made its sandbox again.
    #[serde(default)]
    pub made_again: u32,
    /// What was installed besides the image's own.
    #[serde(default)]
    pub packages: Vec<Package>,
    /// Monotonic, at the start gate; written before the gate is opened.
    #[serde(default)]
    pub gate_monotonic: Option<Duration>,
    /// Ours, written before the first signal.
    #[serde(default)]
    pub reason: Option<Reason>,
    /// What ended it that was neither the program nor a limit; written before what it leads to.
    #[serde(default)]
    pub lost: Option<Lost>,
    /// The last event is in the spool.
    #[serde(default)]
    pub finished: bool,
    /// Seconds that workers on this folder had run when it finished: retention counts from it.
    #[serde(default)]
    pub finished_at_running_s: u64,
}

/// A cause of `lost`, and words for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The number of the protocol's `LostCause`.
    pub cause: i32,
    /// What happened.
    pub detail: String,
}

/// What went wrong with which record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Reading or writing failed.
    #[error(transparent)]
    Folder(#[from] kit::folder::FolderError),
    /// It is not what was written.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        source: serde_json::Error,
    },
    /// The spec's bytes are not those whose digest the record holds.
    #[error("{} does not have the digest that the record names", path.display())]
    Spec {
        /// The file.
        path: PathBuf,
    },
    /// A form that this program does not know.
    #[error("{} has version {found}, and this program knows {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// In the file.
        found: u32,
    },
}

impl Record {
    /// As the protocol says it.
    #[must_use]
    pub fn wire_packages(&self) -> Vec<proto::v1::Package> {
        let wire = |p: &Package| proto::v1::Package { name: p.name.clone(), version: p.version.clone() };
        self.packages.iter().map(wire).collect()
    }

    /// The version that this program writes.
    #[must_use]
    pub fn version() -> u32 {
        VERSION
    }

    /// Replaces the record on disk, synced.
    ///
    /// # Errors
    /// [`RecordError::Folder`].
    pub fn save(&self, folder: &Path) -> Result<(), RecordError> {
        let path = folder.join(FILE);
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|source| RecordError::Damaged { path: path.clone(), source })?;
        Ok(kit::folder::replace(&path, &bytes)?)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Names the file.
    pub fn load(folder: &Path) -> Result<Self, RecordError> {
        let path = folder.join(FILE);
        let bytes = std::fs::read(&path).map_err(|e| kit::folder::FolderError::io("read", &path, e))?;
        let record: Self = serde_json::from_slice(&bytes)
            .map_err(|source| RecordError::Damaged { path: path.clone(), source })?;
        if !(OLDEST_VERSION..=VERSION).contains(&record.version) {
            return Err(RecordError::Version { path, found: record.version });
        }
        Ok(record)
    }
}

/// The caller's wish to end the run, on disk before the caller hears that it was taken.
const CANCEL_FILE: &str = "cancelled";

/// Puts the wish on disk, synced. Idempotent.
///
/// # Errors
/// [`RecordError::Folder`].
pub fn save_cancel(folder: &Path) -> Result<(), kit::folder::FolderError> {
    let path = folder.join(CANCEL_FILE);
    if path.exists() { Ok(()) } else { kit::folder::replace(&path, b"") }
}

/// Whether the wish is there.
#[must_use]
pub fn is_cancelled(folder: &Path) -> bool {
    folder.join(CANCEL_FILE).exists()
}

/// Writes the spec's bytes, synced.
///
/// # Errors
/// [`RecordError::Folder`].
pub fn save_spec(folder: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    Ok(kit::folder::replace(&folder.join(SPEC_FILE), bytes)?)
}

/// Reads the spec's bytes and checks them.
///
/// # Errors
/// Names the file.
pub fn load_spec(folder: &Path, digest: Digest) -> Result<Vec<u8>, RecordError> {
    let path = folder.join(SPEC_FILE);
    let bytes = std::fs::read(&path).map_err(|e| kit::folder::FolderError::io("read", &path, e))?;
    if Digest::of(&bytes) == digest { Ok(bytes) } else { Err(RecordError::Spec { path }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = Record {
            version: VERSION,
            run_id: RunId::new(),
            controller_id: "c".into(),
            spec_digest: Digest::of(b"spec"),
            accepted_wall_ns: 5,
            boot_id: "b".into(),
            accepted_monotonic: Duration::from_nanos(7),
            sandbox_id: SandboxId::new(),
            backend: "docker".into(),
            image_id: "sha256:x".into(),
            slot: 1,
            grant: Some(SlotGrant { index: 1, uid: 50_001, cpuset: None, gpu_uuids: vec!["GPU-1".into()] }),
            limits: RunLimits::default(),
            made_again: 0,
            packages: vec![Package { name: "einops".into(), version: "0.8.0".into() }],
            gate_monotonic: None,
            reason: None,
            lost: None,
            finished: false,
            finished_at_running_s: 0,
        };
        record.save(folder.path()).unwrap();
        assert_eq!(Record::load(folder.path()).unwrap(), record);
        record.reason = Some(Reason::Diverged { detail: "x".into() });
        record.gate_monotonic = Some(Duration::from_millis(1));
        record.save(folder.path()).unwrap();
        assert_eq!(Record::load(folder.path()).unwrap(), record);
        record.lost = Some(Lost { cause: 2, detail: "x".into() });
        record.save(folder.path()).unwrap();
        assert_eq!(Record::load(folder.path()).unwrap(), record);
        // What an earlier version wrote has none of the later fields.
        let mut old = serde_json::to_value(&record).unwrap();
        for field in ["grant", "made_again", "lost"] {
            old.as_object_mut().unwrap().remove(field);
        }
        old["version"] = 1.into();
        std::fs::write(folder.path().join(FILE), old.to_string()).unwrap();
        assert_eq!(Record::load(folder.path()).unwrap().grant, None);
        old["version"] = 3.into();
        std::fs::write(folder.path().join(FILE), old.to_string()).unwrap();
        assert!(matches!(Record::load(folder.path()), Err(RecordError::Version { found: 3, .. })));
        std::fs::write(folder.path().join(FILE), b"{").unwrap();
        assert!(matches!(Record::load(folder.path()), Err(RecordError::Damaged { .. })));

        save_spec(folder.path(), b"spec").unwrap();
        assert_eq!(load_spec(folder.path(), record.spec_digest).unwrap(), b"spec");
        save_spec(folder.path(), b"spec2").unwrap();
        assert!(matches!(load_spec(folder.path(), record.spec_digest), Err(RecordError::Spec { .. })));
    }
}
