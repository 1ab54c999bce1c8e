//! Removes what no run owns: after a crash, at start, at the end. The worker's id finds its cgroups, and those its
//! processes; the kernel's tables find its mounts and loop devices, and its own folder finds the rest. What cannot be
//! removed stays, is logged, and is found by the next sweep.

use std::collections::BTreeSet;

use super::Shared;
use crate::sandbox::{SandboxError, SandboxId, blocking, leftovers, live::Walls as _};

pub(super) async fn sweep(shared: &Shared, keep: &BTreeSet<SandboxId>) -> Result<Vec<String>, SandboxError> {
    let mut removed = Vec::new();
    let groups = shared.groups.as_ref().map(super::Groups::list).unwrap_or_default();
    // Processes first: they hold the mounts.
    for id in groups.difference(keep) {
        match shared.remove(*id).await {
            Ok(()) => removed.push(format!("processes of sandbox {id}")),
            Err(error) => tracing::error!(%error, "a sandbox that nobody owns stays"),
        }
    }
    let folder = shared.sandboxes_dir.clone();
    let found = kit::task::blocking("sweep", move || leftovers::find(&folder)).await.unwrap_or_default();
    for id in found.difference(keep).copied() {
        // Its files outside the volume, where it has no cgroup any more.
        if let Err(error) = shared.remove(id).await {
            tracing::error!(%error, "a sandbox that nobody owns stays");
            continue;
        }
        let volume = shared.volume(id);
        match blocking(id, move || volume.remove()).await {
            Ok(()) => removed.push(format!("volume of sandbox {id}")),
            Err(error) => tracing::error!(%error, "a volume that nobody owns stays"),
        }
    }
    Ok(removed)
}
