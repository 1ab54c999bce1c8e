//! Copying what the program made out of a hostile tree (SANDBOXES.md 4.8). Nothing of the program lives when this
//! runs, so a check and the read after it see the same tree.
//!
//! Everything is opened beneath the folder's own descriptor, with no link, no mount and no `..` followed; only
//! regular files of the sandbox's uid with one name are read; count, bytes, depth and names are bounded; a copy is
//! hashed while it is written, beside its place, synced and renamed. Copies lie under their digest, so no name of
//! the program's is ever a path of ours. Modes, times and attributes are not copied.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
};

use kit::digest::{Digest, Hasher};
use proto::v1::{Artifact, LeftOut};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

/// Folders in folders.
const DEPTH_MAX: usize = 16;
/// Of a name with its folders.
const NAME_BYTES_MAX: usize = 512;
/// Of all names together: they go into one event.
const NAMES_BYTES_MAX: usize = 1 << 20;
/// Entries that are looked at, whatever they are.
const ENTRIES_MAX: usize = 100_000;
/// Named among what was left out; the rest is counted.
const LEFT_OUT_MAX: usize = 100;
const BUFFER_BYTES: usize = 256 << 10;

/// What may be copied, and whose it must be.
#[derive(Debug, Clone, Copy)]
pub struct ArtifactRules {
    /// The sandbox's uid.
    pub uid: u32,
    /// Copied in all.
    pub bytes_max: u64,
    /// Copied.
    pub files_max: u32,
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

/// The worker's own disk failed; nothing of the program's doing ends here.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}", path.display())]
pub struct ArtifactError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl ArtifactError {
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

fn resolve() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV
}

fn open_beneath(folder: impl AsFd, name: &str, kind: OFlags) -> io::Result<OwnedFd> {
    let flags =
        kind | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    loop {
        match rustix::fs::openat2(&folder, name, flags, Mode::empty(), resolve()) {
            // Beneath and no-xdev lookups may be asked to come again when something is renamed or mounted.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

struct Walk<'a> {
    rules: ArtifactRules,
    target: &'a Path,
    out: Collected,
    entries: usize,
    names_bytes: usize,
    left_out_more: u64,
    /// Count or bytes are used up: nothing more is copied.
    full: Option<String>,
    copied: BTreeSet<Digest>,
}

/// Copies what may be copied from `source` into the folder `target`, which is made. The folder above `source`
/// must be no link.
///
/// # Errors
/// Only for the worker's own disk. What the program made wrong is left out and named.
pub fn collect(source: &Path, target: &Path, rules: ArtifactRules) -> Result<Collected, ArtifactError> {
    let error = |verb, path: &Path| {
        let path = path.to_owned();
        move |source| ArtifactError { verb, path, source }
    };
    kit::folder::create_private(target)
        .map_err(|e| error("make the folder", target)(io::Error::other(e.to_string())))?;
    let mut walk = Walk {
        rules,
        target,
        out: Collected::default(),
        entries: 0,
        names_bytes: 0,
        left_out_more: 0,
        full: None,
        copied: BTreeSet::new(),
    };
    let (Some(above), Some(name)) = (source.parent(), source.file_name().and_then(|name| name.to_str()))
    else {
        return Ok(walk.out);
    };
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW)
        .open(above);
    let above = match opened {
        // The program owns its folder and may shut it; a worker that is root is let in all the same.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            walk.leave_out("", &format!("work/ cannot be opened: {error}"));
            return Ok(walk.out);
        }
        opened => opened.map_err(error("open", above))?,
    };
    match open_beneath(&above, name, OFlags::DIRECTORY) {
        Ok(root) => walk.folder(&root)?,
        // A program that made no artifacts may have taken its folder away.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => walk.leave_out("", &format!("work/artifacts cannot be opened as a folder: {error}")),
    }
    if walk.left_out_more > 0 {
        let more = walk.left_out_more;
        walk.out.left_out.push(LeftOut { name: String::new(), reason: format!("and {more} more") });
    }
    kit::folder::sync_parent(&target.join("x")).map_err(error("sync", target))?;
    Ok(walk.out)
}

impl Walk<'_> {
    fn leave_out(&mut self, name: &str, reason: &str) {
        if self.out.left_out.len() < LEFT_OUT_MAX {
            let name = kit::text::one_line(name, 200);
            self.out.left_out.push(LeftOut { name, reason: reason.to_owned() });
        } else {
            self.left_out_more += 1;
        }
    }

    fn over_limit(&mut self, name: &str, reason: String) {
        self.leave_out(name, &reason);
        self.out.exceeded.get_or_insert(reason);
    }

    fn used_up(&mut self, name: &str, reason: String) {
        self.full.get_or_insert_with(|| reason.clone());
        self.over_limit(name, reason);
    }

    /// Folders that are still to be read are kept by name and opened one at a time: a wide and deep tree costs no
    /// descriptors and no stack.
    fn folder(&mut self, root: &OwnedFd) -> Result<(), ArtifactError> {
        let mut waiting = vec![(String::new(), 0)];
        while let Some((prefix, depth)) = waiting.pop() {
            let opened = if prefix.is_empty() {
                open_beneath(root, ".", OFlags::DIRECTORY)
            } else {
                open_beneath(root, prefix.trim_end_matches('/'), OFlags::DIRECTORY)
            };
            let folder = match opened {
                Ok(folder) => folder,
                Err(error) => {
                    self.leave_out(&prefix, &format!("the folder cannot be opened: {error}"));
                    continue;
                }
            };
            let mut below = Vec::new();
            for name in self.names(&folder, &prefix) {
                let whole = format!("{prefix}{name}");
                match rustix::fs::statat(&folder, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                    Err(error) => self.leave_out(&whole, &format!("cannot be read: {error}")),
                    Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                        FileType::Directory if depth >= DEPTH_MAX => {
                            self.over_limit(&whole, format!("lies more than {DEPTH_MAX} folders deep"));
                        }
                        FileType::Directory => below.push((format!("{whole}/"), depth + 1)),
                        FileType::RegularFile => self.file(&folder, &name, whole)?,
                        other => self.leave_out(&whole, &format!("is no regular file ({})", kind(other))),
                    },
                }
            }
            waiting.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// The names in a folder that may be used, sorted.
    fn names(&mut self, folder: &OwnedFd, prefix: &str) -> Vec<String> {
        let mut names = Vec::new();
        let entries = match rustix::fs::Dir::read_from(folder) {
            Ok(entries) => entries,
            Err(error) => {
                self.leave_out(prefix, &format!("the folder cannot be read: {error}"));
                return names;
            }
        };
        for entry in entries {
            let Ok(entry) = entry else {
                self.leave_out(prefix, "the folder cannot be read to its end");
                break;
            };
            let bytes = entry.file_name().to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                self.over_limit(prefix, format!("there are more than {ENTRIES_MAX} entries"));
                break;
            }
            match std::str::from_utf8(bytes) {
                Ok(name) if name.chars().any(char::is_control) => {
                    self.leave_out(&format!("{prefix}{name}"), "the name has control characters");
                }
                Ok(name) if prefix.len() + name.len() > NAME_BYTES_MAX => {
                    let reason = format!("the name with its folders is over {NAME_BYTES_MAX} bytes");
                    self.leave_out(&format!("{prefix}{name}"), &reason);
                }
                Ok(name) => names.push(name.to_owned()),
                Err(_) => {
                    let shown = String::from_utf8_lossy(bytes);
                    self.leave_out(&format!("{prefix}{shown}"), "the name is not UTF-8");
                }
            }
        }
        names.sort_unstable();
        names
    }

    fn file(&mut self, folder: &OwnedFd, name: &str, whole: String) -> Result<(), ArtifactError> {
        if let Some(reason) = self.full.clone() {
            self.leave_out(&whole, &format!("after the limit: {reason}"));
            return Ok(());
        }
        let file = match open_beneath(folder, name, OFlags::empty()) {
            Ok(file) => file,
            Err(error) => {
                self.leave_out(&whole, &format!("cannot be opened: {error}"));
                return Ok(());
            }
        };
        // Again, on what was opened: this one counts.
        let stat = match rustix::fs::fstat(&file) {
            Ok(stat) => stat,
            Err(error) => {
                self.leave_out(&whole, &format!("cannot be read: {error}"));
                return Ok(());
            }
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            self.leave_out(&whole, "is no regular file");
            return Ok(());
        }
        if stat.st_nlink != 1 {
            self.leave_out(&whole, "has more than one name (hard links)");
            return Ok(());
        }
        if stat.st_uid != self.rules.uid {
            self.leave_out(&whole, "is not owned by the sandbox's user");
            return Ok(());
        }
        // The size that it claims is charged, so that a sparse file costs what reading it would.
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        let room = self.rules.bytes_max.saturating_sub(self.out.bytes);
        if size > room {
            let limit = kit::size::Bytes(self.rules.bytes_max);
            self.used_up(&whole, format!("the run's artifacts are limited to {limit}"));
            return Ok(());
        }
        if self.out.artifacts.len() as u64 >= u64::from(self.rules.files_max) {
            let limit = self.rules.files_max;
            self.used_up(&whole, format!("the run's artifacts are limited to {limit} files"));
            return Ok(());
        }
        if self.names_bytes + whole.len() > NAMES_BYTES_MAX {
            let limit = kit::size::Bytes(NAMES_BYTES_MAX as u64);
            self.used_up(&whole, format!("the artifacts' names together are limited to {limit}"));
            return Ok(());
        }
        match self.copy(File::from(file), size)? {
            Ok(digest) => {
                self.names_bytes += whole.len();
                self.out.bytes += size;
                self.out.artifacts.push(Artifact {
                    name: whole,
                    size_bytes: size,
                    digest: digest.to_string(),
                });
            }
            Err(reason) => self.leave_out(&whole, &reason),
        }
        Ok(())
    }

    /// Copies exactly `size` bytes. The inner error is the file's fault, the outer one the worker's disk.
    fn copy(&mut self, mut from: File, size: u64) -> Result<Result<Digest, String>, ArtifactError> {
        let beside = self.target.join(".partial");
        let error = |verb, path: &Path| {
            let path = path.to_owned();
            move |source| ArtifactError { verb, path, source }
        };
        let mut to = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .map_err(error("create", &beside))?;
        let (mut hasher, mut copied) = (Hasher::new(), 0_u64);
        let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(size).unwrap_or(BUFFER_BYTES) + 1)];
        loop {
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
            to.write_all(&buffer[..count]).map_err(error("write", &beside))?;
        }
        if copied != size {
            return Ok(Err("its size changed while it was copied".to_owned()));
        }
        let digest = hasher.finish();
        if self.copied.insert(digest) {
            to.sync_all().map_err(error("sync", &beside))?;
            let place = copy_path(self.target, &digest);
            std::fs::rename(&beside, &place).map_err(error("rename into", &place))?;
        } else {
            std::fs::remove_file(&beside).map_err(error("remove", &beside))?;
        }
        Ok(Ok(digest))
    }
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{ffi::OsStrExt as _, fs::symlink},
    };

    use super::*;

    struct Tree {
        root: tempfile::TempDir,
    }

    impl Tree {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("work/artifacts")).unwrap();
            Self { root }
        }
        fn source(&self) -> PathBuf {
            self.root.path().join("work/artifacts")
        }
        fn target(&self) -> PathBuf {
            self.root.path().join("out")
        }
        fn write(&self, name: &str, bytes: &[u8]) {
            let path = self.source().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        fn collect(&self, bytes_max: u64, files_max: u32) -> Collected {
            let uid = rustix::process::getuid().as_raw();
            collect(&self.source(), &self.target(), ArtifactRules { uid, bytes_max, files_max }).unwrap()
        }
    }

    fn names(out: &Collected) -> Vec<&str> {
        out.artifacts.iter().map(|a| a.name.as_str()).collect()
    }

    fn reason<'a>(out: &'a Collected, name: &str) -> &'a str {
        &out.left_out.iter().find(|l| l.name == name).unwrap_or_else(|| panic!("{name} in {out:?}")).reason
    }

    #[test]
    fn good_files_come_out_with_their_digests() {
        let tree = Tree::new();
        tree.write("model.pt", b"weights");
        tree.write("plots/a b é.svg", b"<svg/>");
        tree.write("plots/copy", b"weights");
        tree.write("empty", b"");
        let out = tree.collect(1000, 10);
        assert_eq!(names(&out), ["empty", "model.pt", "plots/a b é.svg", "plots/copy"]);
        assert_eq!((out.left_out.len(), out.exceeded.as_ref(), out.bytes), (0, None, 20));
        for artifact in &out.artifacts {
            let digest: Digest = artifact.digest.parse().unwrap();
            assert_eq!(Digest::of_file(&copy_path(&tree.target(), &digest)).unwrap(), digest);
        }
        assert!(!tree.target().join(".partial").exists());
    }

    #[test]
    fn links_fifos_sockets_and_second_names_are_left_out() {
        let tree = Tree::new();
        let secret = tree.root.path().join("secret");
        fs::write(&secret, b"of the host").unwrap();
        fs::create_dir(tree.root.path().join("outside")).unwrap();
        fs::write(tree.root.path().join("outside/x"), b"x").unwrap();
        symlink(&secret, tree.source().join("link")).unwrap();
        symlink("../../secret", tree.source().join("relative")).unwrap();
        symlink(tree.root.path().join("outside"), tree.source().join("folder")).unwrap();
        symlink("/proc/self/root/etc", tree.source().join("magic")).unwrap();
        fs::hard_link(&secret, tree.source().join("hard")).unwrap();
        nix::unistd::mkfifo(&tree.source().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(tree.source().join("socket")).unwrap();
        tree.write("good", b"yes");
        let out = tree.collect(1000, 10);
        assert_eq!(names(&out), ["good"]);
        for name in ["link", "relative", "folder", "magic"] {
            assert!(reason(&out, name).contains("symbolic link"), "{name}");
        }
        assert!(reason(&out, "hard").contains("hard links"));
        assert!(reason(&out, "fifo").contains("FIFO"));
        assert!(reason(&out, "socket").contains("socket"));
        assert_eq!(out.exceeded, None);
    }

    #[test]
    fn the_folder_itself_may_be_a_link_or_gone() {
        let tree = Tree::new();
        fs::remove_dir(tree.source()).unwrap();
        assert_eq!(tree.collect(10, 10), Collected::default());
        symlink("/etc", tree.source()).unwrap();
        let out = tree.collect(1 << 30, 1000);
        assert!(out.artifacts.is_empty() && out.left_out.len() == 1, "{out:?}");
    }

    #[test]
    fn another_owner_is_left_out() {
        let tree = Tree::new();
        tree.write("theirs", b"x");
        let uid = rustix::process::getuid().as_raw() + 1;
        let rules = ArtifactRules { uid, bytes_max: 10, files_max: 10 };
        let out = collect(&tree.source(), &tree.target(), rules).unwrap();
        assert!(out.artifacts.is_empty() && reason(&out, "theirs").contains("not owned"));
    }

    #[test]
    fn bytes_files_and_sparse_sizes_are_limits() {
        let tree = Tree::new();
        tree.write("a", b"12345");
        tree.write("b", b"12345");
        tree.write("c", b"1");
        let out = tree.collect(9, 10);
        assert_eq!(names(&out), ["a"]);
        assert!(out.exceeded.as_ref().unwrap().contains("9B"));
        // The rest is named, also what would have fitted.
        assert!(reason(&out, "c").starts_with("after the limit"));
        let out = tree.collect(100, 2);
        assert_eq!(names(&out), ["a", "b"]);
        assert!(out.exceeded.unwrap().contains("2 files"));
        let sparse = File::create(tree.source().join("0-sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        assert!(reason(&tree.collect(1 << 30, 10), "0-sparse").contains("1GiB"));
    }

    #[test]
    fn deep_and_strange_names() {
        let tree = Tree::new();
        let deep = vec!["d"; DEPTH_MAX + 1].join("/");
        tree.write(&format!("{deep}/x"), b"deep");
        tree.write(&format!("{}/y", vec!["d"; DEPTH_MAX].join("/")), b"less deep");
        fs::write(tree.source().join("a\nb"), b"x").unwrap();
        fs::write(tree.source().join("esc\x1b[2J"), b"x").unwrap();
        fs::write(tree.source().join(std::ffi::OsStr::from_bytes(b"bad\xff")), b"x").unwrap();
        let out = tree.collect(1000, 100);
        assert_eq!(out.artifacts.len(), 1);
        assert!(out.exceeded.unwrap().contains("deep"));
        assert!(out.left_out.iter().all(|l| !l.name.chars().any(char::is_control)));
        assert_eq!(out.left_out.len(), 4);
    }

    #[test]
    fn many_that_are_left_out_are_counted() {
        let tree = Tree::new();
        for index in 0..LEFT_OUT_MAX + 50 {
            symlink("x", tree.source().join(format!("{index}"))).unwrap();
        }
        let out = tree.collect(1000, 100);
        assert_eq!(out.left_out.len(), LEFT_OUT_MAX + 1);
        assert_eq!(out.left_out.last().unwrap().reason, "and 50 more");
    }
}
