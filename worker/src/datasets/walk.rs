//! Copying files into the staging folder, hashed while they are copied. A folder is walked beneath its own descriptor: no
//! link, no mount and no `..` is followed, and what is no regular file or has a name that no list could show is refused
//! by name, because a data set with a hole in it is worse than none.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::Path,
};

use kit::{
    digest::{Digest, Hasher},
    size::Bytes,
};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use super::{Bounds, DataSetError, FileEntry, Progress};

/// Folders in folders.
const DEPTH_MAX: usize = 32;
/// Of a path below the folder.
const PATH_BYTES_MAX: usize = 1024;
const BUFFER_BYTES: usize = 1 << 20;
/// Every file system of this kind has a folder of this name at its root.
const RESERVED: &str = "lost+found";

/// Whether a file may have this name in a data set.
pub(super) fn check_file_name(name: &[u8]) -> Result<&str, &'static str> {
    match std::str::from_utf8(name) {
        Err(_) => Err("its name is not UTF-8"),
        Ok(name) if name.chars().any(char::is_control) => Err("its name has control characters"),
        Ok(name) => Ok(name),
    }
}

/// A file, opened without waiting for a FIFO's writer and without becoming a terminal's owner; links in the path that
/// the user gave are theirs to follow.
pub(super) fn open_given(path: &Path) -> Result<(File, FileType, u64), DataSetError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty());
    let file = file.map_err(|e| DataSetError::io("open", path, e.into()))?;
    let stat = rustix::fs::fstat(&file).map_err(|e| DataSetError::io("look at", path, e.into()))?;
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    Ok((File::from(file), FileType::from_raw_mode(stat.st_mode), size))
}

fn open_beneath(folder: impl AsFd, name: &str, kind: OFlags) -> io::Result<OwnedFd> {
    let flags =
        kind | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(&folder, name, flags, Mode::empty(), resolve) {
            // Beneath and no-xdev lookups may be asked to come again when something is renamed or mounted.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

/// Copies a stream of exactly `size` bytes into a new file that everybody may read, synced by the image that is made of it.
pub(super) fn copy(
    from: &mut dyn Read,
    size: u64,
    target: &Path,
    mut told: impl FnMut(u64),
) -> Result<Result<Digest, &'static str>, DataSetError> {
    let mut to = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(target)
        .map_err(|e| DataSetError::io("create", target, e))?;
    let (mut hasher, mut copied) = (Hasher::new(), 0_u64);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(DataSetError::io("read what goes into", target, error)),
        };
        copied += count as u64;
        // One that grows for ever ends here.
        if copied > size {
            return Ok(Err("its size changed while it was copied"));
        }
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count]).map_err(|e| DataSetError::io("write", target, e))?;
        told(count as u64);
    }
    if copied != size {
        return Ok(Err("its size changed while it was copied"));
    }
    readable(target, 0o444)?;
    Ok(Ok(hasher.finish()))
}

/// The mode of a file or folder inside, whatever this process's umask.
pub(super) fn readable(path: &Path, mode: u32) -> Result<(), DataSetError> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|e| DataSetError::io("set the mode of", path, e))
}

/// Copies a folder's files into `target`, which is there and empty. Empty folders are not kept. Gives the files in the
/// order of their paths' bytes.
///
/// # Errors
/// The first entry that is not taken, by name; a bound; the disk.
pub(super) fn copy_folder(
    source: &File,
    target: &Path,
    bounds: Bounds,
    progress: Progress<'_>,
) -> Result<Vec<FileEntry>, DataSetError> {
    let mut walk = Walk { source, target, bounds, progress, files: Vec::new(), entries: 0, bytes: 0 };
    walk.all()?;
    walk.files.sort_unstable_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    Ok(walk.files)
}

struct Walk<'a> {
    source: &'a File,
    target: &'a Path,
    bounds: Bounds,
    progress: Progress<'a>,
    files: Vec<FileEntry>,
    entries: u64,
    bytes: u64,
}

impl Walk<'_> {
    fn all(&mut self) -> Result<(), DataSetError> {
        let mut waiting = vec![(String::new(), 0_usize)];
        while let Some((prefix, depth)) = waiting.pop() {
            let at = prefix.trim_end_matches('/');
            let folder = open_beneath(self.source, if at.is_empty() { "." } else { at }, OFlags::DIRECTORY);
            let folder = folder.map_err(|e| DataSetError::entry(at, format!("cannot be opened: {e}")))?;
            for name in self.names(&folder, &prefix)? {
                let path = format!("{prefix}{name}");
                // What is opened is what is looked at: nothing can be put in its place between the two.
                let opened = open_beneath(&folder, &name, OFlags::empty());
                let opened = opened.map_err(|e| DataSetError::entry(&path, opening(&folder, &name, &e)))?;
                let stat = rustix::fs::fstat(&opened);
                let stat =
                    stat.map_err(|e| DataSetError::entry(&path, format!("cannot be looked at: {e}")))?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory if depth >= DEPTH_MAX => {
                        let problem = format!("lies more than {DEPTH_MAX} folders deep");
                        return Err(DataSetError::entry(&path, problem));
                    }
                    FileType::Directory => waiting.push((format!("{path}/"), depth + 1)),
                    FileType::RegularFile => {
                        self.file(File::from(opened), path, u64::try_from(stat.st_size).unwrap_or(u64::MAX))?;
                    }
                    other => return Err(DataSetError::entry(&path, kind(other))),
                }
            }
        }
        Ok(())
    }

    fn names(&mut self, folder: &OwnedFd, prefix: &str) -> Result<Vec<String>, DataSetError> {
        let failed = |e: rustix::io::Errno| DataSetError::entry(prefix, format!("cannot be read: {e}"));
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let bytes = entry.file_name().to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            self.entries += 1;
            if self.entries > u64::from(self.bounds.files) {
                let problem = format!("there are more than {} files and folders", self.bounds.files);
                return Err(DataSetError::entry(prefix, problem));
            }
            let shown = || format!("{prefix}{}", String::from_utf8_lossy(bytes));
            let name = check_file_name(bytes).map_err(|problem| DataSetError::entry(&shown(), problem))?;
            if prefix.len() + name.len() > PATH_BYTES_MAX {
                let problem = format!("the path is over {PATH_BYTES_MAX} bytes");
                return Err(DataSetError::entry(&shown(), problem));
            }
            if prefix.is_empty() && name == RESERVED {
                return Err(DataSetError::entry(name, "the file system has this name for itself: rename it"));
            }
            names.push(name.to_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn file(&mut self, mut from: File, path: String, size: u64) -> Result<(), DataSetError> {
        // The size that it claims is charged, so that a sparse file costs what reading it would.
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.bounds.bytes {
            return Err(DataSetError::TooLarge {
                what: format!("the folder up to {path}"),
                limit: Bytes(self.bounds.bytes),
            });
        }
        super::image::check_room(self.target, size)?;
        let target = self.target.join(&path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|e| DataSetError::io("create", parent, e))?;
        }
        let (before, progress) = (self.bytes - size, self.progress);
        let mut done = 0;
        let copied = copy(&mut from, size, &target, |count| {
            done += count;
            progress("copying", before + done, None);
        })?;
        let digest = copied.map_err(|problem| DataSetError::entry(&path, problem))?;
        self.files.push(FileEntry { path, size_bytes: size, digest });
        Ok(())
    }
}

/// Why an entry could not be opened, in the words of what it is: a link gives ELOOP, a socket ENXIO.
fn opening(folder: &OwnedFd, name: &str, error: &io::Error) -> String {
    let stat = rustix::fs::statat(folder, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
    match stat.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::RegularFile) | Err(_) => format!("cannot be opened: {error}"),
        Ok(FileType::Directory) => {
            format!("cannot be opened: {error} (a folder of another file system is not followed)")
        }
        Ok(other) => kind(other),
    }
}

pub(super) fn kind(kind: FileType) -> String {
    let what = match kind {
        FileType::Symlink => "is a symbolic link",
        FileType::Fifo => "is a FIFO",
        FileType::Socket => "is a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "is a device",
        _ => "is no regular file",
    };
    format!("{what}: a data set has regular files and folders only")
}
