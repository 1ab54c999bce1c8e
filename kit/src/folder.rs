//! Folders of the user (XDG base directories), files that are replaced whole, and the lock of a folder.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

/// What went wrong with which path.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Neither the variable nor HOME is set.
    #[error("neither {0} nor HOME is set: set one, or give --data-dir")]
    NoHome(&'static str),
    /// An I/O error, with what was tried.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// "create", "write", …
        verb: &'static str,
        /// The path at fault.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process holds the lock.
    #[error("{} is in use by process {pid}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Of the holder, as it wrote it.
        pid: String,
    },
}

impl FolderError {
    /// An I/O error about `path`.
    pub fn io(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { verb, path: path.to_owned(), source }
    }
}

fn xdg(variable: &'static str, below_home: &str) -> Result<PathBuf, FolderError> {
    // The XDG specification says that a relative path is invalid and is to be ignored.
    let set = std::env::var_os(variable).map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || std::env::var_os("HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    match set.or_else(|| home().map(|h| h.join(below_home))) {
        Some(folder) => Ok(folder.join("autoresearch")),
        None => Err(FolderError::NoHome(variable)),
    }
}

/// `$XDG_DATA_HOME/autoresearch`.
///
/// # Errors
/// Where neither it nor HOME is set.
pub fn data() -> Result<PathBuf, FolderError> {
    xdg("XDG_DATA_HOME", ".local/share")
}

/// `$XDG_CACHE_HOME/autoresearch`.
///
/// # Errors
/// Where neither it nor HOME is set.
pub fn cache() -> Result<PathBuf, FolderError> {
    xdg("XDG_CACHE_HOME", ".cache")
}

/// Makes a folder and its parents, for this user alone.
///
/// # Errors
/// Names the path.
pub fn create_private(path: &Path) -> Result<(), FolderError> {
    fs::create_dir_all(path).map_err(|e| FolderError::io("create the folder", path, e))?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .map_err(|e| FolderError::io("set the mode of", path, e))
}

/// Replaces a file whole: written beside it, synced, renamed, and the folder synced, so that after a kill or
/// a power cut there is the old file or the new one. What a process that was killed had written beside it goes.
///
/// # Errors
/// Names the path; nothing is left beside it.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        remove_abandoned(path)?;
        sync_parent(path)
    };
    write().map_err(|e| {
        // The error that matters is the first one.
        fs::remove_file(&beside).ok();
        FolderError::io("write", path, e)
    })
}

/// What processes that are no more had written beside `path`.
fn remove_abandoned(path: &Path) -> io::Result<()> {
    let (Some(folder), Some(stem)) = (path.parent(), path.file_stem().and_then(|stem| stem.to_str())) else {
        return Ok(());
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let writer = name.to_str().and_then(|name| name.strip_prefix(stem)?.strip_prefix(".new-"));
        let writer = writer.and_then(|pid| pid.parse::<u32>().ok());
        if writer.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // Another process may have seen it at the same moment.
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Syncs the folder that holds `path`, so that its entry survives a power cut.
///
/// # Errors
/// Whatever opening or syncing gives.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// An exclusive lock on a file, with the holder's process id inside. Let go when dropped or killed.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock, or says at once who has it.
    ///
    /// # Errors
    /// [`FolderError::Locked`] with the holder's process id.
    pub fn take(path: &Path) -> Result<Self, FolderError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|e| FolderError::io("open", path, e))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                let write = |file: &mut File| -> io::Result<()> {
                    file.set_len(0)?;
                    file.rewind()?;
                    file.write_all(std::process::id().to_string().as_bytes())
                };
                write(&mut file).map_err(|e| FolderError::io("write", path, e))?;
                Ok(Self { _file: file })
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).ok();
                Err(FolderError::Locked { path: path.to_owned(), pid: pid.chars().take(20).collect() })
            }
            Err((_, errno)) => Err(FolderError::io("lock", path, errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = replace(&folder.path().join("not/there"), b"").unwrap_err();
        assert!(error.to_string().contains("not/there"));
    }

    #[test]
    fn what_a_killed_writer_left_beside_a_file_goes_with_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        // No process has this number: it is above the kernel's largest.
        for left in ["report.new-4194305", "other.new-4194305", "report.new-1", "report.new-x"] {
            fs::write(file(left), b"half").unwrap();
        }
        replace(&file("report.html"), b"whole").unwrap();
        let mut there: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        there.sort();
        assert_eq!(there, ["other.new-4194305", "report.html", "report.new-1", "report.new-x"]);
    }

    #[test]
    fn a_lock_has_one_holder_and_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = Lock::take(&path).unwrap();
        let refused = Lock::take(&path).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(held);
        Lock::take(&path).unwrap();
    }
}
