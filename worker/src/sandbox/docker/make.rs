//! A sandbox's container from the create call until PID 1 is ready, and what only the engine can do to it later.

use std::{os::fd::OwnedFd, sync::Arc};

use async_trait::async_trait;
use bollard::query_parameters::{CreateContainerOptions, KillContainerOptions};
use kit::task::CancellationToken;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::watch;

use super::{
    Shared, container_name, create, engine, follow, gpus, plain, remove_container, status_of, words,
};
use crate::sandbox::{
    Reports, SandboxClass, SandboxError, SandboxId, birth, blocking,
    cgroup::Cgroup,
    init::OrderSignal,
    live::{Live, Memory, Walls},
    volume::Volume,
};

/// Volume, container, PID 1 ready; on an error nothing of it is left.
pub(super) async fn prepare(shared: Arc<Shared>, class: SandboxClass) -> Result<Live, SandboxError> {
    let volume = Arc::new(shared.volume(class.id, Some(&class.image_id)));
    let walls: Arc<dyn Walls> = Arc::clone(&shared) as _;
    birth::guarded(class.id, Arc::clone(&volume), walls, make(shared, class, volume)).await
}

async fn make(shared: Arc<Shared>, class: SandboxClass, volume: Arc<Volume>) -> Result<Live, SandboxError> {
    let id = class.id;
    if let Some(reason) = plain::lacks(&shared.sandboxes_dir) {
        return Err(engine(reason, true));
    }
    let (own, of) = (Arc::clone(&volume), class.clone());
    blocking(id, move || own.create(&of)).await?;
    let name = container_name(id);
    let call = |verb| move |e: bollard::errors::Error| SandboxError::Call { verb, id, detail: words(&e) };
    let docker = &shared.docker;

    let image = docker.inspect_image(&class.image_id).await.map_err(call("find the image of"))?;
    let config = image.config.unwrap_or_default();
    if let Some(reason) = crate::image::refuse(&config) {
        let detail = format!("the image {reason}");
        return Err(SandboxError::NotInForce { id, rule: "image", detail });
    }

    let options = CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
    let body = create::body(&shared, &class, &volume, gpus::road(&shared, &class.slot.gpu_uuids).await);
    let created = docker.create_container(Some(options), body).await.map_err(call("create"))?;
    // The engine drops a limit that it cannot set, and answers that all is well.
    if !created.warnings.is_empty() {
        let detail = created.warnings.join("; ");
        return Err(SandboxError::NotInForce { id, rule: "limits", detail });
    }
    docker.start_container(&name, None).await.map_err(call("start"))?;

    let (reports, stop) = (watch::Sender::new(Reports::default()), CancellationToken::new());
    let guard = stop.clone().drop_guard();
    let follower = follow::follow(docker.clone(), name.clone(), reports.clone(), stop.clone());
    drop(kit::task::spawn("sandbox-reports", follower)); // it ends with its token

    let state =
        docker.inspect_container(&name, None).await.map_err(call("inspect"))?.state.unwrap_or_default();
    let pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let gone = |detail: String| SandboxError::Gone { id, detail };
    let pid = pid.ok_or_else(|| gone(format!("PID 1 ended at once: {}", state.error.unwrap_or_default())))?;
    let unseen = |detail| SandboxError::NotInForce { id, rule: "memory", detail };
    let process = open_process(pid, &created.id).map_err(unseen)?;
    let cgroup =
        Cgroup::of_process(pid).map_err(|e| unseen(format!("its cgroup cannot be seen from here: {e}")))?;

    birth::until_ready(id, &reports).await?;
    drop(guard.disarm());
    Ok(Live {
        clock: Arc::clone(&shared.clock),
        program: shared.program.clone(),
        walls: shared,
        class,
        volume,
        pid,
        process,
        cgroup: Some(cgroup),
        reports,
        stop,
        memory: Memory::default(),
    })
}

/// The process by a handle, where the kernel has them. It must be that container's own: between the engine's answer
/// and now it may have ended, or this worker may see other processes than the engine does.
pub(super) fn open_process(pid: i32, container: &str) -> Result<Option<OwnedFd>, String> {
    // A plain user may open any process's handle and signal none of root's: then the engine passes signals on.
    let process = Pid::from_raw(pid)
        .filter(|_| nix::unistd::geteuid().is_root())
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    if cgroup.contains(container) {
        return Ok(process);
    }
    Err(format!(
        "process {pid} is not the container's: the worker must run on the host, or in its pid namespace"
    ))
}

#[async_trait]
impl Walls for Shared {
    async fn signal(&self, id: SandboxId, signal: OrderSignal) {
        self.pass_on(id, signal.name).await;
    }

    async fn kill(&self, id: SandboxId) {
        self.pass_on(id, "SIGKILL").await;
    }

    async fn remove(&self, id: SandboxId) -> Result<(), SandboxError> {
        remove_container(self, id).await
    }
}

impl Shared {
    async fn pass_on(&self, id: SandboxId, signal: &str) {
        let options = KillContainerOptions { signal: signal.to_owned() };
        match self.docker.kill_container(&container_name(id), Some(options)).await {
            Err(e) if !matches!(status_of(&e), Some(404 | 409)) => {
                tracing::warn!(sandbox = %id, signal, error = words(&e), "the engine did not pass on a signal");
            }
            _ => {}
        }
    }
}
