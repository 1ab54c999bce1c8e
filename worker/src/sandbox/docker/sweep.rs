//! Removes what no run owns: after a crash, at start, at the end. The worker's label finds its containers, the
//! kernel's tables find its mounts and loop devices, and its own folder finds the rest, so nothing has to have
//! been written down. What cannot be removed stays, is logged, and is found by the next sweep.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bollard::query_parameters::ListContainersOptions;

use super::{OWNER_LABEL, SANDBOX_LABEL, Shared, engine, helper, remove_container, remove_named, words};
use crate::sandbox::{SandboxError, SandboxId, blocking, loops};

pub(super) async fn sweep(
    shared: &Arc<Shared>,
    keep: &BTreeSet<SandboxId>,
) -> Result<Vec<String>, SandboxError> {
    let mut removed = Vec::new();
    // Containers first: they hold the mounts.
    for id in containers(shared).await?.difference(keep) {
        // A helper that was left half-way holds the mounts, too.
        let helper = remove_named(shared, &helper::name(*id), *id).await;
        match helper.and(remove_container(shared, *id).await) {
            Ok(()) => removed.push(format!("container ar-{id}")),
            Err(error) => tracing::error!(%error, "a container that nobody owns stays"),
        }
    }
    let folder = shared.sandboxes_dir.clone();
    let found = kit::task::blocking("sweep", move || leftovers(&folder)).await.unwrap_or_default();
    for id in found.difference(keep).copied() {
        // A container may have lost its label's value, never its name.
        remove_container(shared, id)
            .await
            .unwrap_or_else(|error| tracing::error!(%error, "a container stays"));
        let volume = shared.volume(id, None);
        match blocking(id, move || volume.remove()).await {
            Ok(()) => removed.push(format!("volume of sandbox {id}")),
            Err(error) => tracing::error!(%error, "a volume that nobody owns stays"),
        }
    }
    Ok(removed)
}

/// Our containers that are still there. An engine that does not answer makes no new ones either.
pub(super) async fn left(shared: &Shared) -> BTreeSet<SandboxId> {
    containers(shared).await.unwrap_or_else(|error| {
        tracing::error!(%error, "the engine does not say what is left");
        BTreeSet::new()
    })
}

async fn containers(shared: &Shared) -> Result<BTreeSet<SandboxId>, SandboxError> {
    let label = format!("{OWNER_LABEL}={}", shared.worker_id);
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
        ..ListContainersOptions::default()
    };
    let listed = shared.docker.list_containers(Some(options)).await.map_err(|e| engine(words(&e), false))?;
    let mut ids = BTreeSet::new();
    for container in listed {
        let text = container.labels.unwrap_or_default().remove(SANDBOX_LABEL).unwrap_or_default();
        match text.parse() {
            Ok(id) => {
                ids.insert(id);
            }
            Err(error) => {
                tracing::error!(container = container.id, %error, "a container with our label is not ours")
            }
        }
    }
    Ok(ids)
}

/// Sandboxes of which a folder, a mount or a loop device is left.
fn leftovers(folder: &Path) -> BTreeSet<SandboxId> {
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
