//! Which entries of the tree are taken, and what is said of the rest.

use std::{fs::File, os::fd::OwnedFd, path::Path, time::Instant};

use proto::v1::{Artifact, LeftOut};
use rustix::fs::{AtFlags, FileType, OFlags, Stat};

use super::{ArtifactError, ArtifactRules, Collected, copy::Copier, open::Lookup};

/// Folders in folders.
pub(super) const DEPTH_MAX: usize = 16;
/// Of a name with its folders.
const NAME_BYTES_MAX: usize = 512;
/// Of the whole list of artifacts: it goes into one event, whose frame holds 3 MiB.
const LIST_BYTES_MAX: usize = 2 << 20;
/// In that list, besides the name: digest, size and the encoding.
const LIST_ENTRY_BYTES: usize = 96;
/// Entries that are looked at, whatever they are.
pub(super) const ENTRIES_MAX: usize = 100_000;
/// Named among what was left out; the rest is counted.
pub(super) const LEFT_OUT_MAX: usize = 100;

/// One walk through one tree.
pub(super) struct Walk {
    rules: ArtifactRules,
    lookup: Lookup,
    deadline: Instant,
    copier: Copier,
    out: Collected,
    entries: usize,
    list_bytes: usize,
    left_out_more: u64,
    /// Count or bytes are used up: nothing more is copied.
    full: Option<String>,
    /// Entries or time are used up: nothing more is looked at.
    stopped: bool,
}

/// Folders that are still to be read are kept by name and opened one at a time: a wide and deep tree costs no
/// descriptors and no stack.
struct Waiting {
    /// Empty, or with a slash at its end.
    prefix: String,
    depth: usize,
}

impl Walk {
    pub(super) fn new(rules: ArtifactRules, target: &Path, lookup: Lookup) -> Self {
        let deadline = Instant::now() + rules.time_max;
        Self {
            rules,
            lookup,
            deadline,
            copier: Copier::new(target, deadline),
            out: Collected::default(),
            entries: 0,
            list_bytes: 0,
            left_out_more: 0,
            full: None,
            stopped: false,
        }
    }

    /// What came out, in the order of names.
    pub(super) fn finish(mut self) -> Collected {
        if self.left_out_more > 0 {
            let more = self.left_out_more;
            self.out.left_out.push(LeftOut { name: String::new(), reason: format!("and {more} more") });
        }
        self.out
    }

    pub(super) fn leave_out(&mut self, name: &str, reason: &str) {
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

    fn stop(&mut self, name: &str, reason: String) {
        self.over_limit(name, reason);
        self.stopped = true;
    }

    /// Whether the walk ends here.
    fn is_over(&mut self, name: &str) -> bool {
        if !self.stopped && Instant::now() > self.deadline {
            let limit = kit::duration::Span(self.rules.time_max);
            self.stop(name, format!("looking through the artifacts took longer than {limit}"));
        }
        self.stopped
    }

    /// Takes what may be taken from the tree below a folder.
    pub(super) fn tree(&mut self, root: &OwnedFd) -> Result<(), ArtifactError> {
        let mut waiting = vec![Waiting { prefix: String::new(), depth: 0 }];
        while let Some(Waiting { prefix, depth }) = waiting.pop() {
            if self.is_over(&prefix) {
                break;
            }
            let path = if prefix.is_empty() { "." } else { prefix.trim_end_matches('/') };
            let folder = match self.lookup.open(root, path, OFlags::DIRECTORY) {
                Ok(folder) => folder,
                Err(error) => {
                    self.leave_out(&prefix, &format!("the folder cannot be opened: {error}"));
                    continue;
                }
            };
            let mut below = Vec::new();
            for name in self.names(&folder, &prefix) {
                let whole = format!("{prefix}{name}");
                if self.is_over(&whole) {
                    break;
                }
                match rustix::fs::statat(&folder, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                    Err(error) => self.leave_out(&whole, &format!("cannot be read: {error}")),
                    Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                        FileType::Directory if depth >= DEPTH_MAX => {
                            self.over_limit(&whole, format!("lies more than {DEPTH_MAX} folders deep"));
                        }
                        FileType::Directory => {
                            below.push(Waiting { prefix: format!("{whole}/"), depth: depth + 1 });
                        }
                        FileType::RegularFile => self.file(&folder, &name, whole)?,
                        other => self.leave_out(&whole, &format!("is no regular file ({})", kind(other))),
                    },
                }
            }
            waiting.extend(below.into_iter().rev());
        }
        self.out.artifacts.sort_unstable_by(|one, other| one.name.cmp(&other.name));
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
                self.stop(prefix, format!("there are more than {ENTRIES_MAX} entries"));
                // In the order in which the kernel gives them: which of them would come is chance.
                names.clear();
                break;
            }
            match name_rule(bytes, prefix) {
                Ok(name) => names.push(name.to_owned()),
                Err(reason) => {
                    let shown = String::from_utf8_lossy(bytes);
                    self.leave_out(&format!("{prefix}{shown}"), &reason);
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
        let file = match self.lookup.open(folder, name, OFlags::empty()) {
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
        if let Err(reason) = file_rule(&stat, self.rules.uid) {
            self.leave_out(&whole, reason);
            return Ok(());
        }
        // The size that it claims is charged, so that a sparse file costs what reading it would.
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if let Err(reason) = self.room_for(size, whole.len()) {
            self.used_up(&whole, reason);
            return Ok(());
        }
        match self.copier.copy(File::from(file), &stat)? {
            Ok(digest) => {
                self.list_bytes += whole.len() + LIST_ENTRY_BYTES;
                self.out.bytes += size;
                let digest = digest.to_string();
                self.out.artifacts.push(Artifact { name: whole, size_bytes: size, digest });
            }
            Err(reason) => self.leave_out(&whole, &reason),
        }
        Ok(())
    }

    fn room_for(&self, size: u64, name_bytes: usize) -> Result<(), String> {
        let limit = if size > self.rules.bytes_max.saturating_sub(self.out.bytes) {
            kit::size::Bytes(self.rules.bytes_max).to_string()
        } else if self.out.artifacts.len() as u64 >= u64::from(self.rules.files_max) {
            format!("{} files", self.rules.files_max)
        } else if self.list_bytes + name_bytes + LIST_ENTRY_BYTES > LIST_BYTES_MAX {
            format!("{} of names", kit::size::Bytes(LIST_BYTES_MAX as u64))
        } else {
            return Ok(());
        };
        Err(format!("the run's artifacts are limited to {limit}"))
    }
}

/// A name that may stand in a list, a log line and on another machine's disk.
///
/// # Errors
/// Why not, for a person.
pub fn name_rule<'a>(bytes: &'a [u8], prefix: &str) -> Result<&'a str, String> {
    let Ok(name) = std::str::from_utf8(bytes) else { return Err("the name is not UTF-8".to_owned()) };
    if name.chars().any(char::is_control) {
        return Err("the name has control characters".to_owned());
    }
    if prefix.len() + name.len() > NAME_BYTES_MAX {
        return Err(format!("the name with its folders is over {NAME_BYTES_MAX} bytes"));
    }
    Ok(name)
}

/// A file that may be read, by what it is when it is open.
pub(super) fn file_rule(stat: &Stat, uid: u32) -> Result<(), &'static str> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        Err("is no regular file")
    } else if stat.st_nlink != 1 {
        Err("has more than one name (hard links)")
    } else if stat.st_uid != uid {
        Err("is not owned by the sandbox's user")
    } else {
        Ok(())
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
