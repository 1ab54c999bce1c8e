//! A file system of a test's own that it fills to the last byte and frees again.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Mounted until it is dropped.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

const FILLER: &str = "all-that-is-left";

impl Disk {
    /// Mounts one on an empty folder.
    ///
    /// # Panics
    /// Where this is not root.
    #[must_use]
    pub fn mount(folder: &Path, mebibytes: u32) -> Self {
        fs::create_dir_all(folder).expect("a folder to mount on");
        let options = format!("size={mebibytes}m,mode=0700");
        let mut mount = Command::new("mount");
        let done =
            mount.args(["-t", "tmpfs", "-o", &options, "ar-test"]).arg(folder).output().expect("mount");
        assert!(done.status.success(), "these tests mount a file system: {done:?}");
        Self { folder: folder.to_owned() }
    }

    /// Takes all that is free, and sees that a byte more is refused.
    ///
    /// # Panics
    /// Where there is still room.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.folder.join(FILLER)).expect("a file");
        let mut piece = vec![0x5a; 1 << 20];
        while !piece.is_empty() {
            if file.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
        let told = fs::write(self.folder.join("one-more"), "x");
        fs::remove_file(self.folder.join("one-more")).ok();
        assert!(told.is_err_and(|e| e.kind() == std::io::ErrorKind::StorageFull), "the disk is full");
    }

    /// Gives it back.
    ///
    /// # Panics
    /// Where it was never taken.
    pub fn free(&self) {
        fs::remove_file(self.folder.join(FILLER)).expect("it was filled");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: what a failed test left open goes with it.
        Command::new("umount").arg("-l").arg(&self.folder).output().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_full_and_free_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::mount(folder.path(), 4);
        disk.fill();
        assert!(fs::write(folder.path().join("a"), "a").is_err());
        disk.free();
        fs::write(folder.path().join("a"), "a").expect("there is room");
        drop(disk);
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0, "it is gone");
    }
}
