//! A sandbox's own volume: a sparse ext4 image on a loop device, so that its size is a wall of the file system and
//! not a watcher's opinion, and throwing it away is one unmount however hostile its content is.
//!
//! `work/` and `tmp/` belong to the program's uid. `logs/` holds the three streams, append-only and with their limit
//! allocated, so that a full volume cannot silence them. `in/` is what the program and PID 1 are given. What the
//! file system has beyond the run's disk limit is taken by a ballast file before the gate opens, so that the limit
//! is what the program gets, to the block.
//!
//! What needs root is done by [`Hands`], once to make and once to remove (`sandbox-init/volume.rs` has the owners and
//! modes). All else is this worker's own doing, as whatever user it is: the image, `in/`, the ballast, the folders.
//!
//! Where the worker has no hand with root's rights, as without an engine for a plain user, the volume is a tmpfs that
//! another process holds (`native/holder.rs`): exactly as large, charged to the run's memory, and seen through that process.
//! The logs are then plain files in the sandbox's folder, written from outside (`sandbox-init/pump.rs`).
//!
//! Everything here blocks: call it off the event loop. Nothing here writes below the volume once the gate is open.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::{
    SandboxClass, SandboxError, SandboxId, SandboxLimits, StreamPaths,
    hands::{Hands, OwnHands, Seen, Work},
    init, loops,
};

/// Room for `in/`, PID 1 and the file system's own small change; sparse, so it costs the host what is written.
const SPARE_BYTES: u64 = 80 << 20;
/// One inode for 16 KiB, as mke2fs has it for a disk of ordinary size; 256 bytes each.
const BYTES_PER_INODE: u64 = 16 << 10;
/// Where less than this is free the volume is full: ext4 gives out whole clusters and keeps a few blocks.
const FULL_BELOW_BYTES: u64 = 256 << 10;
// These names are also in `sandbox-init/volume.rs`.
const MOUNT_POINT: &str = "volume";
/// What a held volume has for `work/` and `tmp/`; also in `sandbox-init/hold.rs`.
const DISK: &str = "disk";
/// The same file system, on which no link is followed and nothing runs: artifacts are read through it.
const VIEW: &str = "view";
const IMAGE: &str = "volume.ext4";
const BALLAST: &str = "ballast";
/// Beside the image: what was free when the gate opened, for a later process.
const FREE: &str = "free";
/// Before the number of a layer's mount point.
const LAYER: &str = "layer-";
const STREAMS: [&str; 3] = ["stdout", "stderr", "metrics"];
/// The program of [`Hands`] that cannot take it from this worker's memory.
pub(crate) const HELPER: &str = "helper";

/// What a mount that this worker cannot see comes from.
const NOT_SEEN: &str = "the state folder must lie on a shared mount that the engine shares too, see `doctor`";

/// The volume of one sandbox, in that sandbox's folder.
#[derive(Debug)]
pub(crate) struct Volume {
    id: SandboxId,
    folder: PathBuf,
    hands: Arc<dyn Hands>,
    /// Free bytes when the gate opened.
    free_at_start: AtomicU64,
}

/// How full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fill {
    pub used_bytes: u64,
    pub full: bool,
}

impl Volume {
    /// Of a sandbox whose folder is `sandboxes_dir/ID`, for a worker that is root; it may or may not be there.
    pub(crate) fn at(sandboxes_dir: &Path, id: SandboxId) -> Self {
        Self::with_hands(sandboxes_dir, id, Arc::new(OwnHands))
    }

    /// As [`Volume::at`], where somebody else has root's rights.
    pub(crate) fn with_hands(sandboxes_dir: &Path, id: SandboxId, hands: Arc<dyn Hands>) -> Self {
        Self { id, folder: sandboxes_dir.join(id.to_string()), hands, free_at_start: AtomicU64::new(0) }
    }

    /// Where this worker sees it.
    pub(crate) fn path(&self) -> PathBuf {
        self.base().join(MOUNT_POINT)
    }

    /// Where it is mounted, in the mount namespace in which a sandbox is built.
    pub(crate) fn mounted_at(&self) -> PathBuf {
        self.folder.join(MOUNT_POINT)
    }

    /// The process that holds it, where it is not mounted here; 0 is one that is gone.
    pub(crate) fn holder(&self) -> Option<i32> {
        match self.hands.seen(&self.folder) {
            Seen::Here => None,
            Seen::Held { pid, .. } => Some(pid),
        }
    }

    /// The sandbox's folder, where its mounts are seen.
    fn base(&self) -> PathBuf {
        match self.hands.seen(&self.folder) {
            Seen::Here => self.folder.clone(),
            Seen::Held { root, .. } => root,
        }
    }

    /// Where the layer of this number is mounted.
    pub(crate) fn layer(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{LAYER}{number}"))
    }

    /// What the program made, through a mount that follows no link, opens no device and runs nothing.
    pub(crate) fn artifacts(&self) -> PathBuf {
        self.base().join(VIEW).join("work").join("artifacts")
    }

    /// The names that a program may use, on the volume for the same reason as PID 1's program.
    pub(crate) fn hosts(&self) -> PathBuf {
        self.path().join("init").join("hosts")
    }

    /// PID 1's program, on the volume so that a bind of it tells nothing of the host.
    pub(crate) fn init_program(&self) -> PathBuf {
        self.path().join("init").join("sandbox-init")
    }

    pub(crate) fn streams(&self) -> StreamPaths {
        let logs = match self.holder() {
            None => self.path().join("logs"),
            // Never where a sandbox could see them.
            Some(_) => self.folder.clone(),
        };
        let [stdout, stderr, metrics] = STREAMS.map(|name| logs.join(name));
        StreamPaths { stdout, stderr, metrics }
    }

    /// Makes the folder first, because it is what a sweep finds after a crash, then all the rest.
    ///
    /// # Errors
    /// Says what was tried. Something may be left: call [`Volume::remove`].
    pub(crate) fn create(&self, class: &SandboxClass) -> Result<(), SandboxError> {
        let limits = &class.limits;
        let held = self.holder().is_some();
        let layers = (0..class.layers.len()).map(|number| self.layer(number));
        for path in [self.folder.clone(), self.mounted_at(), self.folder.join(VIEW)].into_iter().chain(layers)
        {
            DirBuilder::new().mode(0o700).create(&path).map_err(|e| self.io("create", &path, &e))?;
        }
        if held {
            let disk = self.folder.join(DISK);
            DirBuilder::new().mode(0o700).create(&disk).map_err(|e| self.io("create", &disk, &e))?;
            self.logs(limits)?;
        } else {
            self.image(limits)?;
        }
        let work = Work::Make {
            worker: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            slot_uid: class.slot.uid,
            log_bytes: limits.log_bytes,
            disk_bytes: limits.disk_bytes,
            layers: class.layers.iter().map(|layer| layer.image.clone()).collect(),
        };
        self.hands.work(self.id, &self.folder, &work).map_err(|words| self.words(words))?;
        if held {
            let within = self.path().join("in");
            return fs::metadata(&within).map(drop).map_err(|e| self.io("see", &within, &e));
        }
        let mounted = self.mounted()?;
        match [self.path(), self.folder.join(VIEW)].iter().find(|place| !mounted.contains(place)) {
            None => Ok(()),
            // A helper's mount did not come out of its container.
            Some(place) => Err(self.error(
                format!("{} was mounted where this worker cannot see it: {NOT_SEEN}", place.display()),
                false,
            )),
        }
    }

    /// The files that a held volume's pipes go to, with their limit allocated.
    fn logs(&self, limits: &SandboxLimits) -> Result<(), SandboxError> {
        let StreamPaths { stdout, stderr, metrics } = self.streams();
        for (path, bytes) in [stdout, stderr, metrics].iter().zip(limits.log_bytes) {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let file = file.map_err(|e| self.io("create", path, &e))?;
            if bytes > 0 {
                fallocate(&file, FallocateFlags::KEEP_SIZE, 0, bytes)
                    .map_err(|e| self.io("allocate", path, &e.into()))?;
            }
        }
        Ok(())
    }

    /// The file system's image, made and empty.
    fn image(&self, limits: &SandboxLimits) -> Result<(), SandboxError> {
        let image = self.folder.join(IMAGE);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&image);
        file.and_then(|f| f.set_len(image_bytes(limits))).map_err(|e| self.io("create", &image, &e))?;
        // No journal: a volume never outlives its run, so nothing is to be replayed.
        let per_inode = BYTES_PER_INODE.to_string();
        let options = ["-q", "-F", "-m", "0", "-b", "4096", "-I", "256", "-i", &per_inode];
        let features =
            ["-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0"];
        let mut arguments: Vec<&OsStr> = options.iter().chain(&features).map(OsStr::new).collect();
        arguments.push(image.as_os_str());
        loops::run_tool("mkfs.ext4", "e2fsprogs", &arguments).map_err(|words| self.words(words))
    }

    /// Writes `in/`: a file for each `(path, bytes or a file of the host)`, and PID 1's settings, which the program may
    /// not read. Then takes away what the volume has beyond `disk_bytes`. Once only, before the gate opens.
    ///
    /// # Errors
    /// Says what was tried.
    pub(crate) fn fill(
        &self,
        run_json: &[u8],
        files: &[(String, PathBuf)],
        settings: &str,
        disk_bytes: u64,
    ) -> Result<(), SandboxError> {
        let within = self.path().join("in");
        let write = |file: File, path: &Path, bytes: &[u8]| {
            (&file).write_all(bytes).map_err(|e| self.io("write", path, &e))
        };
        let run = within.join("run.json");
        write(self.new_file(&run)?, &run, run_json)?;
        let base = within.join("files");
        self.make_folder(&base)?;
        for (name, source) in files {
            let target = self.checked(&base, name)?;
            let mut parents: Vec<&Path> = target.ancestors().skip(1).take_while(|p| *p != base).collect();
            parents.reverse();
            for parent in parents {
                if !parent.is_dir() {
                    self.make_folder(parent)?;
                }
            }
            let mut from = File::open(source).map_err(|e| self.io("open", source, &e))?;
            let mut to = self.new_file(&target)?;
            io::copy(&mut from, &mut to).map_err(|e| self.io("write", &target, &e))?;
        }
        let path = within.join(init::SETTINGS);
        write(self.ready_made(&path)?, &path, settings.as_bytes())?;
        self.set_aside(disk_bytes)
    }

    fn set_aside(&self, disk_bytes: u64) -> Result<(), SandboxError> {
        let path = self.path().join(BALLAST);
        let free = self.free()?;
        // A held one has the limit's own size.
        let beyond = free.checked_sub(disk_bytes).filter(|beyond| *beyond > 0 && self.holder().is_none());
        if let Some(beyond) = beyond {
            let file = self.ready_made(&path)?;
            fallocate(&file, FallocateFlags::empty(), 0, beyond)
                .map_err(|e| self.io("allocate", &path, &e.into()))?;
        }
        // A last block may have gone to the file system's own tables.
        let free = self.free()?;
        if free + (1 << 20) < disk_bytes {
            return Err(self.error(format!("{free} bytes are left for a disk limit of {disk_bytes}"), false));
        }
        self.free_at_start.store(free, Ordering::Relaxed);
        let path = self.folder.join(FREE);
        fs::write(&path, free.to_string()).map_err(|e| self.io("write", &path, &e))
    }

    /// As [`Volume::fill`] left it, in an earlier process; without its word the limit is what was free, to a few blocks.
    pub(crate) fn recall(&self, disk_bytes: u64) {
        let free = fs::read_to_string(self.folder.join(FREE)).ok().and_then(|text| text.parse().ok());
        self.free_at_start.store(free.unwrap_or(disk_bytes), Ordering::Relaxed);
    }

    /// How full it is now.
    ///
    /// # Errors
    /// Where it is not there.
    pub(crate) fn fill_now(&self) -> Result<Fill, SandboxError> {
        let path = self.measured();
        let stat = statvfs(&path).map_err(|e| self.io("look at", &path, &e.into()))?;
        let free = stat.f_bavail * stat.f_frsize;
        let used_bytes = self.free_at_start.load(Ordering::Relaxed).saturating_sub(free);
        Ok(Fill { used_bytes, full: free < FULL_BELOW_BYTES || stat.f_favail == 0 })
    }

    /// Unmounts, detaches, deletes. What the program left behind is never walked through. Idempotent.
    ///
    /// # Errors
    /// What is still there.
    pub(crate) fn remove(&self) -> Result<(), SandboxError> {
        // A helper costs a second: none for a volume that was never mounted.
        if self.holder().is_some() || !self.mounted()?.is_empty() || self.has_loop() {
            self.hands.work(self.id, &self.folder, &Work::Remove).map_err(|words| self.words(words))?;
        }
        if let Some(place) = self.mounted()?.first() {
            return Err(self.error(format!("{} is still mounted: {NOT_SEEN}", place.display()), false));
        }
        // Only this worker's own names, and no folder with anything in it.
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|e| self.io("list", &self.folder, &e))?,
        };
        for entry in entries {
            let path = entry.map_err(|e| self.io("list", &self.folder, &e))?.path();
            let remove = if path.is_dir() { fs::remove_dir } else { fs::remove_file };
            remove(&path).map_err(|e| self.io("remove", &path, &e))?;
        }
        fs::remove_dir(&self.folder).map_err(|e| self.io("remove", &self.folder, &e))
    }

    /// Where something is mounted below its folder.
    fn mounted(&self) -> Result<Vec<PathBuf>, SandboxError> {
        let all = loops::mounts_of("self").map_err(|e| self.io("read the mounts of", &self.folder, &e))?;
        Ok(all.into_iter().map(|m| m.target).filter(|target| target.starts_with(&self.folder)).collect())
    }

    /// Whether a loop device holds its image.
    fn has_loop(&self) -> bool {
        let image = Path::new(&self.id.to_string()).join(IMAGE);
        // One that was opened in a container that is gone has only the end of its path.
        loops::loop_devices().iter().any(|device| device.backing.ends_with(&image))
    }

    /// Where the disk limit is the size of the file system.
    fn measured(&self) -> PathBuf {
        match self.holder() {
            None => self.path(),
            Some(_) => self.base().join(DISK),
        }
    }

    fn free(&self) -> Result<u64, SandboxError> {
        let path = self.measured();
        let stat = statvfs(&path).map_err(|e| self.io("look at", &path, &e.into()))?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    fn checked(&self, base: &Path, name: &str) -> Result<PathBuf, SandboxError> {
        let plain =
            !name.is_empty() && Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
        if plain {
            return Ok(base.join(name));
        }
        Err(self.error(format!("`{}` is no path below in/files", name.escape_debug()), false))
    }

    /// This worker's, and read by all: only the sandbox sees `in/`, and the folder above the volume is private.
    fn make_folder(&self, path: &Path) -> Result<(), SandboxError> {
        fs::create_dir(path)
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
            .map_err(|e| self.io("create", path, &e))
    }

    /// The mode is what it says whatever the umask is.
    fn new_file(&self, path: &Path) -> Result<File, SandboxError> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(|file| file.set_permissions(Permissions::from_mode(0o644)).map(|()| file))
            .map_err(|e| self.io("create", path, &e))
    }

    /// A file that was made with its owner and mode.
    fn ready_made(&self, path: &Path) -> Result<File, SandboxError> {
        OpenOptions::new().write(true).truncate(true).open(path).map_err(|e| self.io("open", path, &e))
    }

    fn words(&self, words: String) -> SandboxError {
        let full = words.contains("No space left");
        self.error(words, full)
    }

    fn io(&self, verb: &str, path: &Path, error: &io::Error) -> SandboxError {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        self.error(format!("cannot {verb} {}: {error}", path.display()), full)
    }

    fn error(&self, detail: String, disk_full: bool) -> SandboxError {
        SandboxError::Volume { id: self.id, detail, disk_full }
    }
}

/// The limits, the inode tables and bitmaps for them, and some to spare; in whole blocks.
fn image_bytes(limits: &SandboxLimits) -> u64 {
    let content = limits.log_bytes.iter().fold(limits.disk_bytes, |sum, bytes| sum.saturating_add(*bytes));
    let content = content.saturating_add(SPARE_BYTES);
    let tables = content / BYTES_PER_INODE * 256 + content / 1024;
    content.saturating_add(tables).next_multiple_of(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_path_lies_below_in() {
        let volume = Volume::at(Path::new("/nowhere"), SandboxId::new());
        let base = Path::new("/base");
        for bad in ["", "..", "../x", "/etc/passwd", "a/../../b", "a/./../.."] {
            assert!(volume.checked(base, bad).is_err(), "{bad}");
        }
        assert_eq!(volume.checked(base, "a/b.py").unwrap(), Path::new("/base/a/b.py"));
    }

    #[test]
    fn the_image_holds_the_limits_and_their_tables() {
        let limits = SandboxLimits {
            memory_bytes: 1,
            cpu_millis: 1,
            pids: 1,
            disk_bytes: 4 << 30,
            shm_bytes: 1,
            log_bytes: [64 << 20; 3],
        };
        let bytes = image_bytes(&limits);
        assert!(bytes > (4 << 30) + (192 << 20) + ((4 << 30) / 64), "{bytes}");
        assert_eq!(bytes % 4096, 0);
    }

    #[test]
    fn removing_what_is_not_there_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        Volume::at(folder.path(), SandboxId::new()).remove().unwrap();
    }
}
