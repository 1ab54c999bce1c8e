//! A sandbox's own volume: a sparse ext4 image on a loop device, so that its size is a wall of the file system and
//! not a watcher's opinion, and throwing it away is one unmount however hostile its content is.
//!
//! `work/` and `tmp/` belong to the program's uid. `logs/` holds the three streams, append-only and with their limit
//! allocated, so that a full volume cannot silence them. `in/` is what the program and PID 1 are given. What the
//! file system has beyond the run's disk limit is taken by a ballast file before the gate opens, so that the limit
//! is what the program gets, to the block.
//!
//! Everything here blocks: call it off the event loop. Nothing here writes below the volume once the gate is open.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{FallocateFlags, IFlags, fallocate, ioctl_getflags, ioctl_setflags, statvfs};

use super::{SandboxClass, SandboxError, SandboxId, SandboxLimits, StreamPaths, init, loops};

/// Room for `in/`, PID 1 and the file system's own small change; sparse, so it costs the host what is written.
const SPARE_BYTES: u64 = 80 << 20;
/// One inode for 16 KiB, as mke2fs has it for a disk of ordinary size; 256 bytes each.
const BYTES_PER_INODE: u64 = 16 << 10;
/// Where less than this is free the volume is full: ext4 gives out whole clusters and keeps a few blocks.
const FULL_BELOW_BYTES: u64 = 256 << 10;
const MOUNT_POINT: &str = "volume";
const IMAGE: &str = "volume.ext4";
const BALLAST: &str = "ballast";
/// Before the number of a layer's mount point.
const LAYER: &str = "layer-";
const STREAMS: [&str; 3] = ["stdout", "stderr", "metrics"];

/// The volume of one sandbox, in that sandbox's folder.
#[derive(Debug)]
pub(crate) struct Volume {
    id: SandboxId,
    folder: PathBuf,
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
    /// Of a sandbox whose folder is `sandboxes_dir/ID`; it may or may not be there.
    pub(crate) fn at(sandboxes_dir: &Path, id: SandboxId) -> Self {
        Self { id, folder: sandboxes_dir.join(id.to_string()), free_at_start: AtomicU64::new(0) }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(MOUNT_POINT)
    }

    /// Where the layer of this number is mounted.
    pub(crate) fn layer(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{LAYER}{number}"))
    }

    /// PID 1's program, on the volume so that a bind of it tells nothing of the host.
    pub(crate) fn init_program(&self) -> PathBuf {
        self.path().join("init").join("sandbox-init")
    }

    pub(crate) fn streams(&self) -> StreamPaths {
        let logs = self.path().join("logs");
        let [stdout, stderr, metrics] = STREAMS.map(|name| logs.join(name));
        StreamPaths { stdout, stderr, metrics }
    }

    /// Makes the folder first, because it is what a sweep finds after a crash, then all the rest.
    ///
    /// # Errors
    /// Says what was tried. Something may be left: call [`Volume::remove`].
    pub(crate) fn create(&self, class: &SandboxClass) -> Result<(), SandboxError> {
        let limits = &class.limits;
        let private =
            |path: &Path| DirBuilder::new().mode(0o700).create(path).map_err(|e| self.io("create", path, &e));
        private(&self.folder)?;
        private(&self.path())?;
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
        self.tool("mkfs.ext4", "e2fsprogs", &arguments)?;
        // mount(8) takes a loop device that detaches itself at the last unmount.
        let mount = self.path();
        let mut arguments: Vec<&OsStr> =
            ["-t", "ext4", "-o", "loop,nosuid,nodev,noatime,noinit_itable"].iter().map(OsStr::new).collect();
        arguments.extend([image.as_os_str(), mount.as_os_str()]);
        self.tool("mount", "mount", &arguments)?;
        fs::remove_dir(mount.join("lost+found"))
            .map_err(|e| self.io("remove", &mount.join("lost+found"), &e))?;
        self.furnish(class.slot.uid, limits)?;
        for (number, layer) in class.layers.iter().enumerate() {
            let place = self.layer(number);
            private(&place)?;
            let options = ["-t", "ext4", "-o", "loop,ro,noload,nosuid,nodev,noatime"].map(OsStr::new);
            let arguments = options.into_iter().chain([layer.image.as_os_str(), place.as_os_str()]);
            let arguments: Vec<&OsStr> = arguments.collect();
            self.tool("mount", "mount", &arguments)?;
        }
        Ok(())
    }

    fn furnish(&self, uid: u32, limits: &SandboxLimits) -> Result<(), SandboxError> {
        let mount = self.path();
        // Root's, the program's, and what the program's group may enter.
        for (name, owner, group, mode) in [
            ("work", uid, uid, 0o755),
            ("tmp", uid, uid, 0o755),
            ("in", 0, uid, 0o750),
            ("logs", 0, 0, 0o750),
            ("init", 0, 0, 0o700),
        ] {
            self.make_folder(&mount.join(name), owner, group, mode)?;
        }
        self.make_file(&self.init_program(), init::PROGRAM, 0, 0o500)?;
        for (name, bytes) in STREAMS.iter().zip(limits.log_bytes) {
            let path = mount.join("logs").join(name);
            self.make_file(&path, b"", 0, 0o640)?;
            let fail = |verb, e: rustix::io::Errno| self.io(verb, &path, &e.into());
            let file = OpenOptions::new().append(true).open(&path).map_err(|e| self.io("open", &path, &e))?;
            if bytes > 0 {
                fallocate(&file, FallocateFlags::KEEP_SIZE, 0, bytes).map_err(|e| fail("allocate", e))?;
            }
            let flags = ioctl_getflags(&file).map_err(|e| fail("read the flags of", e))?;
            ioctl_setflags(&file, flags | IFlags::APPEND).map_err(|e| fail("make append-only", e))?;
        }
        Ok(())
    }

    /// Writes `in/`: a file for each `(path, bytes or a file of the host)`, and PID 1's settings for root alone. Then
    /// takes away what the volume has beyond `disk_bytes`. Once only, before the gate opens.
    ///
    /// # Errors
    /// Says what was tried.
    pub(crate) fn fill(
        &self,
        uid: u32,
        run_json: &[u8],
        files: &[(String, PathBuf)],
        settings: &str,
        disk_bytes: u64,
    ) -> Result<(), SandboxError> {
        let within = self.path().join("in");
        self.make_file(&within.join("run.json"), run_json, uid, 0o640)?;
        let base = within.join("files");
        self.make_folder(&base, 0, uid, 0o750)?;
        for (name, source) in files {
            let target = self.checked(&base, name)?;
            let mut parents: Vec<&Path> = target.ancestors().skip(1).take_while(|p| *p != base).collect();
            parents.reverse();
            for parent in parents {
                if !parent.is_dir() {
                    self.make_folder(parent, 0, uid, 0o750)?;
                }
            }
            let mut from = File::open(source).map_err(|e| self.io("open", source, &e))?;
            let mut to = self.new_file(&target, uid, 0o640)?;
            io::copy(&mut from, &mut to).map_err(|e| self.io("write", &target, &e))?;
        }
        self.make_file(&within.join(init::SETTINGS), settings.as_bytes(), 0, 0o600)?;
        self.set_aside(disk_bytes)
    }

    fn set_aside(&self, disk_bytes: u64) -> Result<(), SandboxError> {
        let path = self.path().join(BALLAST);
        let free = self.free()?;
        if let Some(beyond) = free.checked_sub(disk_bytes).filter(|beyond| *beyond > 0) {
            let file = self.new_file(&path, 0, 0o600)?;
            fallocate(&file, FallocateFlags::empty(), 0, beyond)
                .map_err(|e| self.io("allocate", &path, &e.into()))?;
        }
        // A last block may have gone to the file system's own tables.
        let free = self.free()?;
        if free + (1 << 20) < disk_bytes {
            return Err(self.error(format!("{free} bytes are left for a disk limit of {disk_bytes}"), false));
        }
        self.free_at_start.store(free, Ordering::Relaxed);
        Ok(())
    }

    /// How full it is now.
    ///
    /// # Errors
    /// Where it is not there.
    pub(crate) fn fill_now(&self) -> Result<Fill, SandboxError> {
        let path = self.path();
        let stat = statvfs(&path).map_err(|e| self.io("look at", &path, &e.into()))?;
        let free = stat.f_bavail * stat.f_frsize;
        let used_bytes = self.free_at_start.load(Ordering::Relaxed).saturating_sub(free);
        Ok(Fill { used_bytes, full: free < FULL_BELOW_BYTES || stat.f_favail == 0 })
    }

    /// Once the container is gone: what is read from here on is read from a mount that follows no link, opens no
    /// device and runs nothing. A second wall, so a kernel without it (before 5.10) is told in the log only.
    pub(crate) fn seal(&self) {
        const NO_SYMLINK_FOLLOW: u64 = 256; // MS_NOSYMFOLLOW of linux/mount.h
        let own = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOATIME;
        let walls = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let links = MsFlags::from_bits_retain(NO_SYMLINK_FOLLOW);
        let none: Option<&str> = None;
        if let Err(error) = mount(none, &self.path(), none, own | walls | links, none) {
            tracing::warn!(sandbox = %self.id, %error, "its volume could not be made read-only");
        }
    }

    /// Unmounts, detaches, deletes. What the program left behind is never walked through. Idempotent.
    ///
    /// # Errors
    /// What is still there.
    pub(crate) fn remove(&self) -> Result<(), SandboxError> {
        let (mount, image) = (self.path(), self.folder.join(IMAGE));
        self.remove_layers()?;
        self.unmount(&mount)?;
        self.detach(&image)?;
        for (path, remove) in [
            (&image, (|path| fs::remove_file(path)) as fn(&Path) -> io::Result<()>),
            (&mount, |path| fs::remove_dir(path)),
            (&self.folder, |path| fs::remove_dir(path)),
        ] {
            match remove(path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(self.io("remove", path, &e)),
            }
        }
        Ok(())
    }

    /// A layer's image is another's and stays; its loop device lets go by itself at the unmount.
    fn remove_layers(&self) -> Result<(), SandboxError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|e| self.io("list", &self.folder, &e))?,
        };
        for place in entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(LAYER)) {
            self.unmount(&place.path())?;
            fs::remove_dir(place.path()).map_err(|e| self.io("remove", &place.path(), &e))?;
        }
        Ok(())
    }

    fn unmount(&self, mount: &Path) -> Result<(), SandboxError> {
        const TRIES: u32 = 50;
        for attempt in 0..TRIES {
            let mounted = loops::mounts_of("self").map_err(|e| self.io("read the mounts of", mount, &e))?;
            if !mounted.iter().any(|m| m.target == mount) {
                return Ok(());
            }
            // Lazily in the end: the name goes now, the device when its last user has gone.
            let flags = if attempt + 5 < TRIES { MntFlags::UMOUNT_NOFOLLOW } else { MntFlags::MNT_DETACH };
            if umount2(mount, flags).is_err() {
                thread::sleep(Duration::from_millis(20));
            }
        }
        Err(self.error(format!("{} is still mounted", mount.display()), false))
    }

    fn detach(&self, image: &Path) -> Result<(), SandboxError> {
        const TRIES: u32 = 100;
        let mut last = String::new();
        for attempt in 0..TRIES {
            let Some(found) = loops::loop_devices().into_iter().find(|d| d.backing == image) else {
                return Ok(());
            };
            // It lets go by itself unless a worker was killed between taking and mounting it.
            if attempt % 10 == 5 {
                let arguments = [OsStr::new("-d"), found.device.as_os_str()];
                last = loops::run_tool("losetup", "mount", &arguments).err().unwrap_or_default();
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(self.error(format!("a loop device still holds {}; {last}", image.display()), false))
    }

    fn free(&self) -> Result<u64, SandboxError> {
        let path = self.path();
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

    fn make_folder(&self, path: &Path, owner: u32, group: u32, mode: u32) -> Result<(), SandboxError> {
        fs::create_dir(path)
            .and_then(|()| chown(path, Some(owner), Some(group)))
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
            .map_err(|e| self.io("create", path, &e))
    }

    /// Root's, of this group; the mode is what it says whatever the umask is.
    fn new_file(&self, path: &Path, group: u32, mode: u32) -> Result<File, SandboxError> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(|file| chown(path, Some(0), Some(group)).map(|()| file))
            .and_then(|file| file.set_permissions(Permissions::from_mode(mode)).map(|()| file))
            .map_err(|e| self.io("create", path, &e))
    }

    fn make_file(&self, path: &Path, bytes: &[u8], group: u32, mode: u32) -> Result<(), SandboxError> {
        let mut file = self.new_file(path, group, mode)?;
        file.write_all(bytes).map_err(|e| self.io("write", path, &e))
    }

    fn tool(&self, name: &str, package: &str, arguments: &[&OsStr]) -> Result<(), SandboxError> {
        loops::run_tool(name, package, arguments).map_err(|words| {
            let full = words.contains("No space left");
            self.error(words, full)
        })
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
