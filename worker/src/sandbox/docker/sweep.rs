//! Removes what no run owns: after a crash, at start, at the end. The worker's label finds its containers, the
//! kernel's tables find its mounts and loop devices, and its own folder finds the rest, so nothing has to have
//! been written down. What cannot be removed stays, is logged, and is found by the next sweep.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bollard::query_parameters::ListContainersOptions;

use super::{OWNER_LABEL, SANDBOX_LABEL, Shared, engine, helper, remove_container, remove_named, words};
use crate::sandbox::{SandboxError, SandboxId, blocking, leftovers};

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
    let found = kit::task::blocking("sweep", move || leftovers::find(&folder)).await.unwrap_or_default();
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
