//! A container that an earlier process of this worker made, taken up as it is: running, ended, or never started. What was made
//! before the container, or is left after it, is the volume, and counts too.

use std::sync::Arc;

use bollard::models::ContainerInspectResponse;
use kit::task::CancellationToken;
use tokio::sync::watch;

use super::{
    Shared, container_name, engine, follow, helper, make::open_process, remove_named, status_of, words,
};
use crate::sandbox::{
    Reports, SandboxClass, SandboxError, blocking,
    cgroup::Cgroup,
    leftovers,
    live::{Live, Memory, Walls},
};

/// `None` where there is neither a container nor anything of a volume.
pub(super) async fn adopt(shared: Arc<Shared>, class: SandboxClass) -> Result<Option<Live>, SandboxError> {
    let id = class.id;
    let name = container_name(id);
    let container = match shared.docker.inspect_container(&name, None).await {
        Ok(found) => Some(found),
        Err(error) if status_of(&error) == Some(404) => None,
        Err(error) => return Err(engine(words(&error), false)),
    };
    if !nix::unistd::geteuid().is_root() {
        // One that was left half-way holds the mounts, and its name.
        remove_named(&shared, &helper::name(id), id).await?;
    }
    let folder = shared.sandboxes_dir.clone();
    let has_volume = blocking(id, move || Ok(leftovers::find(&folder).contains(&id))).await?;
    if container.is_none() && !has_volume {
        return Ok(None);
    }
    let volume = Arc::new(shared.volume(id, Some(&class.image_id)));
    volume.recall(class.limits.disk_bytes);

    let (reports, stop) = (watch::Sender::new(Reports::default()), CancellationToken::new());
    follow::look(&shared.docker, &name, &reports).await.map_err(|words| engine(words, false))?;
    let running = container.and_then(running);
    let found = running.and_then(|(pid, container)| {
        // One that ends at this moment has neither, and the follower says so.
        let process = open_process(pid, &container).ok()?;
        Some((pid, process, Cgroup::of_process(pid).ok()))
    });
    let (pid, process, cgroup) = found.unwrap_or_default();
    if reports.borrow().gone.is_none() {
        let follower = follow::follow(shared.docker.clone(), name, reports.clone(), stop.clone());
        drop(kit::task::spawn("sandbox-reports", follower)); // it ends with its token
    }
    Ok(Some(Live {
        clock: Arc::clone(&shared.clock),
        program: shared.program.clone(),
        walls: Arc::clone(&shared) as Arc<dyn Walls>,
        class,
        volume,
        pid,
        process,
        cgroup,
        reports,
        stop,
        memory: Memory::default(),
    }))
}

/// PID 1 as the host counts, and the engine's id of the container.
fn running(container: ContainerInspectResponse) -> Option<(i32, String)> {
    let state = container.state?;
    let pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0)?;
    Some((pid, container.id?)).filter(|_| state.running == Some(true))
}
