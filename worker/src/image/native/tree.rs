//! What must hold of every root, and how one goes. All of it works by path: nobody but this worker writes here.

use std::{
    collections::HashSet,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown},
    path::Path,
    thread::sleep,
    time::Duration,
};

use nix::mount::{MntFlags, umount2};

use crate::{
    image::debootstrap::LEFT_OUT,
    sandbox::{layout, loops::mounts_of},
};

/// Files that would say something of the host, or that a build step needs something mounted on.
const NEUTRAL: [(&str, &str); 6] = [
    ("etc/hostname", "sandbox\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/resolv.conf", ""),
    // Holds the mirror, which may be one of the house.
    ("etc/apt/sources.list", ""),
    ("etc/machine-id", ""),
    ("etc/fstab", ""),
];
/// What is left of a build, besides what no image has a use for.
const LEAVINGS: [&str; 5] = ["./tmp/*", "./run/*", "./mnt/*", "./var/tmp/*", "./root/.*"];
/// Where a sandbox mounts something: a read-only root cannot be given a folder later.
const MOUNT_POINTS: [&str; 7] = ["dev", "proc", "sys", "tmp", "mnt", "packages", "data"];

/// Takes the host out of the tree and gives it every place that something is mounted on.
pub(super) fn neutral(root: &Path) -> io::Result<()> {
    for pattern in LEFT_OUT.iter().chain(&LEAVINGS) {
        let Some((folder, rest)) = pattern.trim_start_matches("./").rsplit_once('/') else { continue };
        empty(&root.join(folder), rest.strip_suffix('*').unwrap_or(rest))?;
    }
    for (name, text) in NEUTRAL {
        let path = root.join(name);
        // A link would lead out of the tree.
        if fs::symlink_metadata(&path).is_ok() {
            fs::remove_file(&path)?;
        }
        write(&path, text)?;
    }
    let inside = layout::BINDS.iter().map(|(_, target, _)| target.trim_start_matches('/'));
    for name in MOUNT_POINTS.into_iter().chain(inside) {
        let path = root.join(name);
        fs::create_dir_all(&path)?;
        set_mode(&path, if name == "tmp" { 0o1777 } else { 0o755 })?;
    }
    set_mode(root, 0o755)?;
    write(&root.join(layout::INIT_PATH.trim_start_matches('/')), "")
}

/// A file as an engine's context has it, whatever our umask says.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    set_mode(path, 0o644)
}

/// A folder below the root and those above it that are not there, open to all whatever our umask says.
pub(super) fn make_folders(root: &Path, folder: &Path) -> io::Result<()> {
    if folder == root || folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folders(root, parent)?;
    }
    fs::create_dir(folder)?;
    set_mode(folder, 0o755)
}

/// Removes what a folder has under this prefix.
fn empty(folder: &Path, prefix: &str) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Every file root's, no setuid or setgid bit, no capability, nothing but files, folders and links. Answers the bytes
/// that the tree has on disk.
pub(super) fn settle(root: &Path) -> io::Result<u64> {
    let (mut bytes, mut seen) = (0, HashSet::new());
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let found = fs::symlink_metadata(&path)?;
            let kind = found.file_type();
            if !kind.is_file() && !kind.is_dir() && !kind.is_symlink() {
                fs::remove_file(&path)?;
                continue;
            }
            if found.uid() != 0 || found.gid() != 0 {
                lchown(&path, Some(0), Some(0))?;
            }
            if kind.is_dir() {
                folders.push(path.clone());
            }
            if !kind.is_symlink() && found.mode() & 0o6000 != 0 {
                set_mode(&path, found.mode() & 0o1777)?;
            }
            if kind.is_file() {
                no_capability(&path)?;
            }
            // A file with two names is there once.
            if found.nlink() == 1 || kind.is_dir() || seen.insert(found.ino()) {
                bytes += found.blocks() * 512;
            }
        }
    }
    Ok(bytes)
}

/// A file's capabilities are a setuid bit under another name.
fn no_capability(path: &Path) -> io::Result<()> {
    match rustix::fs::lremovexattr(path, "security.capability") {
        Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Everything that was written below is on disk.
pub(super) fn sync(root: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(root)?)?)
}

/// Removes what killed builds left in a folder; the caller's lock says that none of them runs.
pub(super) fn sweep(folder: &Path, prefix: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            tracing::info!(path = %entry.path().display(), "removing what a build left");
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// How often a tree is tried whose last process is just ending.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Removes a tree, if it is there. Never reaches into a mount: those go first, and one that stays is an error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for mount in mounts_of("self")?.iter().rev().filter(|mount| mount.target.starts_with(path)) {
        umount2(&mount.target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    if let Some(mount) = mounts_of("self")?.iter().find(|mount| mount.target.starts_with(path)) {
        return Err(io::Error::other(format!("{} is still mounted", mount.target.display())));
    }
    let mut tries = 0;
    loop {
        match fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if tries == TRIES => return Err(error),
            Err(_) => {
                tries += 1;
                sleep(BETWEEN_TRIES);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, process::Command};

    use super::*;

    fn as_root() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            println!("left out: needs root");
        }
        root
    }

    #[test]
    fn a_settled_tree_has_one_owner_no_setuid_bit_and_no_device() {
        if !as_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["setuid", "plain"] {
            fs::write(at(name), vec![1; 10_000]).unwrap();
        }
        fs::create_dir(at("shared")).unwrap();
        set_mode(&at("setuid"), 0o6755).unwrap();
        set_mode(&at("shared"), 0o3775).unwrap();
        lchown(at("plain"), Some(1000), Some(42)).unwrap();
        symlink("/etc/shadow", at("link")).unwrap();
        lchown(at("link"), Some(1000), None).unwrap();
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        fs::hard_link(at("plain"), at("again")).unwrap();
        let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(at("plain"), "security.capability", &capability, flags).unwrap();

        let bytes = settle(folder.path()).unwrap();
        assert!((20_000..60_000).contains(&bytes), "{bytes}: a file with two names counts once");
        let mode = |name: &str| fs::symlink_metadata(at(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("setuid"), mode("shared")), (0o755, 0o1775));
        for name in ["plain", "link"] {
            let found = fs::symlink_metadata(at(name)).unwrap();
            assert_eq!((found.uid(), found.gid()), (0, 0), "{name}");
        }
        assert!(fs::symlink_metadata(at("pipe")).is_err());
        let mut value = [0; 32];
        let left = rustix::fs::getxattr(at("plain"), "security.capability", &mut value);
        assert_eq!(left, Err(rustix::io::Errno::NODATA));
    }

    #[test]
    fn the_host_is_taken_out_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        for name in ["etc/apt", "var/log", "tmp", "root"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let outside = folder.path().join("outside");
        fs::write(&outside, "of the host").unwrap();
        fs::write(root.join("etc/hostname"), "of the host").unwrap();
        fs::write(root.join("var/log/bootstrap.log"), "of the host").unwrap();
        fs::write(root.join("tmp/x"), "of the host").unwrap();
        symlink(&outside, root.join("etc/resolv.conf")).unwrap();
        neutral(&root).unwrap();
        neutral(&root).unwrap();
        assert_eq!(fs::read_to_string(&outside).unwrap(), "of the host");
        assert_eq!(fs::read_to_string(root.join("etc/resolv.conf")).unwrap(), "");
        let grep = Command::new("grep").args(["-r", "of the host"]).arg(&root).output().unwrap();
        assert!(grep.stdout.is_empty(), "{}", String::from_utf8_lossy(&grep.stdout));
        for name in ["work", "logs", "in", "packages", "sys", "sandbox-init"] {
            assert!(root.join(name).exists(), "{name}");
        }
    }

    #[test]
    fn files_and_folders_are_open_to_all_who_may_enter_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        make_folders(folder.path(), &deep).unwrap();
        make_folders(folder.path(), &deep).unwrap();
        write(&deep.join("file"), "x").unwrap();
        for (path, mode) in [("a", 0o755), ("a/b", 0o755), ("a/b/c", 0o755), ("a/b/c/file", 0o644)] {
            let found = fs::metadata(folder.path().join(path)).unwrap().mode() & 0o7777;
            assert_eq!(found, mode, "{path}");
        }
    }

    #[test]
    fn what_a_killed_build_left_goes_with_its_mounts_and_nothing_below_them() {
        if !as_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "keep").unwrap();
        let place = folder.path().join("building-x-1/root/mnt");
        fs::create_dir_all(&place).unwrap();
        let mounted = Command::new("mount").arg("--bind").args([&precious, &place]).status().unwrap();
        assert!(mounted.success() && place.join("file").exists());
        sweep(folder.path(), "building-x-").unwrap();
        assert!(!folder.path().join("building-x-1").exists());
        assert_eq!(fs::read_to_string(precious.join("file")).unwrap(), "keep");
        let below = |mount: &crate::sandbox::loops::MountLine| mount.target.starts_with(folder.path());
        assert!(!mounts_of("self").unwrap().iter().any(below));
    }
}
