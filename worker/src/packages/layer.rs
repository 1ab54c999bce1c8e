//! One read-only file system made of a folder, without a mount: `mke2fs -d`. Everything in it is root's and readable by
//! all, so that it does not matter which uid a run has.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown},
    path::Path,
    process::Stdio,
};

use super::PackageError;
use crate::sandbox::find_tool;

const BLOCK: u64 = 4096;
/// An inode of ext4 as it is made below.
const INODE_BYTES: u64 = 256;
/// Group descriptors, bitmaps, the root. The file is sparse: room that is not used costs nothing.
const SLACK_BYTES: u64 = 32 << 20;

/// What a tree comes to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tree {
    /// On the disk.
    pub(super) bytes: u64,
    /// Files and folders.
    pub(super) count: u64,
}

/// What a file takes of the disk.
pub(super) fn allocated(meta: &fs::Metadata) -> u64 {
    meta.blocks().saturating_mul(512)
}

/// Measures a tree that somebody may be writing: what goes away meanwhile is not counted.
pub(super) fn measure(folder: &Path) -> Tree {
    let mut tree = Tree::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            tree.bytes = tree.bytes.saturating_add(allocated(&meta));
            tree.count += 1;
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    tree
}

/// Makes everything in a tree readable by all and, where we may, root's. Wheels hold files and folders; anything else
/// is removed.
fn settle(folder: &Path, as_root: bool) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        own(&folder, 0o755, as_root)?;
        for entry in fs::read_dir(&folder)? {
            let (path, kind) = {
                let entry = entry?;
                (entry.path(), entry.file_type()?)
            };
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let mode = fs::symlink_metadata(&path)?.permissions().mode();
                own(&path, if mode & 0o111 == 0 { 0o644 } else { 0o755 }, as_root)?;
            } else {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

fn own(path: &Path, mode: u32, as_root: bool) -> io::Result<()> {
    if as_root {
        lchown(path, Some(0), Some(0))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Makes `image` of a folder, which nobody else writes any more. Dropping the future ends it.
pub(super) async fn make(folder: &Path, image: &Path) -> Result<(), PackageError> {
    let of = folder.to_owned();
    let as_root = nix::unistd::geteuid().is_root();
    let work = move || settle(&of, as_root).map(|()| measure(&of));
    let stopped = || PackageError::Host("making the layer stopped; see the worker's log".to_owned());
    let tree = kit::task::blocking("measure packages", work).await.ok_or_else(stopped)?;
    let tree = tree.map_err(|e| PackageError::of_io(&e, "settle the packages"))?;
    let inodes = tree.count + 64;
    // Folders and the map of large files take a little more than their contents.
    let bytes = tree.bytes + tree.bytes / 16 + tree.count * BLOCK / 2 + inodes * INODE_BYTES + SLACK_BYTES;
    let tool = find_tool("mke2fs").ok_or_else(|| {
        PackageError::Host("mke2fs is not installed: install the package e2fsprogs".to_owned())
    })?;
    let output = tokio::process::Command::new(tool)
        .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal,^resize_inode", "-m", "0"])
        .args(["-b", "4096", "-I", "256", "-E", "root_owner=0:0,lazy_itable_init=0", "-L", "packages"])
        .args(["-N", &inodes.to_string()])
        .arg("-d")
        .arg(folder)
        .arg(image)
        .arg((bytes / BLOCK).to_string())
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| PackageError::of_io(&e, "mke2fs"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = kit::text::one_line(&String::from_utf8_lossy(&output.stderr), 300);
    Err(if words.contains("No space left on device") {
        PackageError::DiskFull(words)
    } else {
        PackageError::Host(format!("mke2fs failed ({}): {words}", output.status))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tree_becomes_a_file_system_with_everything_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("site");
        for number in 0..300 {
            let below = site.join(format!("p{}", number % 7));
            fs::create_dir_all(&below).unwrap();
            fs::write(below.join(format!("f{number}.py")), vec![b'x'; number * 37]).unwrap();
        }
        fs::set_permissions(site.join("p0/f0.py"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", site.join("link")).unwrap();
        let image = folder.path().join("x.ext4");
        make(&site, &image).await.unwrap();
        let list = |path: &str| {
            let tool = find_tool("debugfs").unwrap();
            let output = std::process::Command::new(tool).args(["-R", path]).arg(&image).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let stat = list("stat /p0/f0.py");
        assert!(stat.contains("Mode:  0644"), "{stat}");
        assert!(list("ls -l /p6").contains("f293.py"));
        assert!(!list("ls -l /").contains("link"));
        assert!(allocated(&fs::metadata(&image).unwrap()) < 16 << 20);
    }
}
