//! Who does the part of a volume that needs root: this process's own child where it is root, an engine's short
//! container where not. Both run the same program, the embedded one under its role `volume`
//! (`sandbox-init/volume.rs`), so there is one way in which a volume is made and one to test.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
};

use super::{SandboxId, init};

/// The first argument of the embedded program for this role.
const ROLE: &str = "volume";

/// What is to be done with a sandbox's folder. The folders to mount on are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// Mount and furnish the volume, mount the layers.
    Make {
        /// The worker's uid and gid.
        worker: (u32, u32),
        /// The program's uid and gid.
        slot_uid: u32,
        /// To allocate for stdout, stderr and metrics.
        log_bytes: [u64; 3],
        /// The run's limit; a file system on an image has its size from the image.
        disk_bytes: u64,
        /// Images of the layers, in the order of their numbers.
        layers: Vec<PathBuf>,
    },
    /// Unmount everything and let go of the loop devices.
    Remove,
}

impl Work {
    /// The program's arguments, where the folder and the layers are seen at these places.
    pub(crate) fn arguments(&self, folder: &Path, layers: &[PathBuf]) -> Vec<OsString> {
        match self {
            Self::Remove => vec![ROLE.into(), "remove".into(), folder.into()],
            Self::Make { worker: (uid, gid), slot_uid, log_bytes, .. } => {
                let numbers = [*uid, *gid, *slot_uid].map(u64::from).into_iter().chain(*log_bytes);
                let head = [ROLE.into(), "make".into(), folder.into()];
                let numbers = numbers.map(|number| OsString::from(number.to_string()));
                head.into_iter().chain(numbers).chain(layers.iter().map(OsString::from)).collect()
            }
        }
    }

    /// Images of layers on the host.
    pub(crate) fn layers(&self) -> &[PathBuf] {
        match self {
            Self::Make { layers, .. } => layers,
            Self::Remove => &[],
        }
    }
}

/// Somebody with root's rights. Blocks.
pub(crate) trait Hands: Send + Sync + std::fmt::Debug {
    /// Does it and waits for the end.
    ///
    /// # Errors
    /// One line: what was tried, and what came back.
    fn work(&self, id: SandboxId, folder: &Path, work: &Work) -> Result<(), String>;

    /// Where what it mounts in a sandbox's folder is seen.
    fn seen(&self, _folder: &Path) -> Seen {
        Seen::Here
    }
}

/// Where a sandbox's mounts are seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// In this worker's own mount namespace: an ext4 image on a loop device.
    Here,
    /// In that of another process: tmpfs, and the logs are files outside.
    Held {
        /// The process, as the host counts; 0 where there is none.
        pid: i32,
        /// The sandbox's folder as that process sees it.
        root: PathBuf,
    },
}

/// A child of this process, which is root.
#[derive(Debug)]
pub(crate) struct OwnHands;

impl Hands for OwnHands {
    fn work(&self, _: SandboxId, folder: &Path, work: &Work) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("cannot start the program that mounts volumes: {e}");
        let (mut command, _program) = init::from_memory().map_err(failed)?;
        let output = command
            .args(work.arguments(folder, work.layers()))
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let words = kit::text::one_line(&String::from_utf8_lossy(&output.stderr), 500);
        Err(if words.is_empty() { format!("mounting ended with {}", output.status) } else { words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_name_the_arguments_in_the_same_order() {
        let work = Work::Make {
            worker: (1, 2),
            slot_uid: 3,
            log_bytes: [4, 5, 6],
            disk_bytes: 7,
            layers: vec!["/blob".into()],
        };
        let words = work.arguments(Path::new("/state/x"), &["/layers/0".into()]);
        assert_eq!(words, ["volume", "make", "/state/x", "1", "2", "3", "4", "5", "6", "/layers/0"]);
        assert_eq!(Work::Remove.arguments(Path::new("/x"), &[]), ["volume", "remove", "/x"]);
    }

    #[test]
    fn what_the_program_says_comes_back_as_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let work = Work::Make {
            worker: (0, 0),
            slot_uid: 50_000,
            log_bytes: [0; 3],
            disk_bytes: 0,
            layers: Vec::new(),
        };
        let words = OwnHands.work(SandboxId::new(), folder.path(), &work).unwrap_err();
        assert!(words.contains("cannot open") && words.contains("volume.ext4"), "{words}");
        OwnHands.work(SandboxId::new(), &folder.path().join("gone"), &Work::Remove).unwrap();
    }
}
