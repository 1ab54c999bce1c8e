//! What the kernel's tables and a worker's own folder still show of sandboxes, whichever backend made them: nothing has
//! to have been written down.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{SandboxId, loops};

/// Sandboxes of which a folder, a mount or a loop device is left.
pub(crate) fn find(folder: &Path) -> BTreeSet<SandboxId> {
    let entries =
        fs::read_dir(folder).map(|entries| entries.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    let entries: Vec<PathBuf> = entries;
    let mounts = loops::mounts_of("self").unwrap_or_default().into_iter().map(|m| m.target);
    let devices = loops::loop_devices().into_iter().map(|d| d.backing);
    entries.into_iter().chain(mounts).chain(devices).filter_map(|path| sandbox_of(folder, &path)).collect()
}

/// The sandbox whose folder a path is or lies in.
fn sandbox_of(folder: &Path, path: &Path) -> Option<SandboxId> {
    let first = path.strip_prefix(folder).ok()?.components().next()?;
    first.as_os_str().to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_below_our_folder_is_ours() {
        let id = SandboxId::new();
        let folder = Path::new("/var/lib/x/sandboxes");
        assert_eq!(sandbox_of(folder, &folder.join(format!("{id}/volume.ext4"))), Some(id));
        assert_eq!(sandbox_of(folder, Path::new(&format!("/var/lib/y/sandboxes/{id}/volume"))), None);
        assert_eq!(sandbox_of(folder, &folder.join("other")), None);
        assert_eq!(sandbox_of(folder, folder), None);
    }
}
