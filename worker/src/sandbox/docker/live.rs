//! One sandbox from its container's birth to its removal: the orders, the readings, the end.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bollard::query_parameters::{CreateContainerOptions, KillContainerOptions};
use kit::task::CancellationToken;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::sync::{oneshot, watch};

use super::{
    Shared, blocking, container_name, create, engine, follow, remove_container, status_of, verify, words,
};
use crate::sandbox::{
    Assignment, Evidence, Order, Reading, Reports, Sandbox, SandboxClass, SandboxError, SandboxId,
    StreamPaths,
    cgroup::Cgroup,
    init::{self, OrderSignal},
    volume::Volume,
};

/// PID 1 needs milliseconds; a cold page cache or a busy engine may need seconds.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// An order is given again until it is reported.
const REPEAT: Duration = Duration::from_millis(100);
const ORDER_LIMIT: Duration = Duration::from_secs(10);
/// After this the engine kills instead, and the reading before it stands.
const KILL_LIMIT: Duration = Duration::from_millis(300);
/// The engine itself waits 12 s for the exit.
const ENGINE_KILL_LIMIT: Duration = Duration::from_secs(15);
const END_LIMIT: Duration = Duration::from_secs(5);

/// A container with PID 1 of ours in it.
#[derive(Debug)]
pub(super) struct DockerSandbox {
    shared: Arc<Shared>,
    class: SandboxClass,
    volume: Arc<Volume>,
    pid: i32,
    /// A number may be another process's after the end; this never is.
    process: Option<OwnedFd>,
    cgroup: Cgroup,
    reports: watch::Sender<Reports>,
    /// Stops the follower; also when this is dropped.
    stop: CancellationToken,
    /// Shared memory is gone with the program, so that it was full is kept.
    shm_was_full: Arc<AtomicBool>,
    /// The reading behind the end gate, or the one before the engine's kill.
    standing: Mutex<Option<Evidence>>,
}

impl Drop for DockerSandbox {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl DockerSandbox {
    /// Volume, container, PID 1 ready; on an error nothing of it is left. A caller that goes away meanwhile stops
    /// nothing: a half-made sandbox cannot be let go of, so it is made and then removed.
    pub(super) async fn prepare(shared: Arc<Shared>, class: SandboxClass) -> Result<Self, SandboxError> {
        let id = class.id;
        let (answer, wait) = oneshot::channel();
        let making = async move {
            let volume = Arc::new(Volume::at(&shared.sandboxes_dir, id));
            let made = Self::make(Arc::clone(&shared), class, Arc::clone(&volume)).await;
            if made.is_err() {
                remove_logged(&shared, id, Arc::clone(&volume)).await;
            }
            if let Err(Ok(unwanted)) = answer.send(made) {
                drop(unwanted);
                remove_logged(&shared, id, volume).await;
            }
        };
        drop(kit::task::spawn("sandbox-prepare", making)); // it ends by itself
        let died = || engine("making the sandbox failed; see the log".to_owned(), false);
        wait.await.unwrap_or_else(|_| Err(died()))
    }

    async fn make(
        shared: Arc<Shared>,
        class: SandboxClass,
        volume: Arc<Volume>,
    ) -> Result<Self, SandboxError> {
        let id = class.id;
        if !nix::unistd::geteuid().is_root() {
            return Err(engine(super::describe::NEEDS_ROOT.to_owned(), true));
        }
        let (uid, limits, own) = (class.slot.uid, class.limits.clone(), Arc::clone(&volume));
        blocking(id, move || own.create(uid, &limits)).await?;
        let name = container_name(id);
        let call = |verb| move |e: bollard::errors::Error| SandboxError::Call { verb, id, detail: words(&e) };
        let docker = &shared.docker;

        let image = docker.inspect_image(&class.image_id).await.map_err(call("find the image of"))?;
        let config = image.config.unwrap_or_default();
        let (volumes, environment) = (config.volumes.unwrap_or_default(), config.env.unwrap_or_default());
        if let Some(detail) = create::refuse_image(&volumes, &environment) {
            return Err(SandboxError::NotInForce { id, rule: "image", detail });
        }

        let options =
            CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
        let body = create::body(&shared, &class, &volume);
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
        let pid =
            pid.ok_or_else(|| gone(format!("PID 1 ended at once: {}", state.error.unwrap_or_default())))?;
        let unseen = |detail| SandboxError::NotInForce { id, rule: "memory", detail };
        let process = open_process(pid, &created.id).map_err(unseen)?;
        let cgroup = Cgroup::of_process(pid)
            .map_err(|e| unseen(format!("its cgroup cannot be seen from here: {e}")))?;

        let mut seen = reports.subscribe();
        match tokio::time::timeout(READY_LIMIT, seen.wait_for(|r| r.ready || r.gone.is_some())).await {
            Ok(Ok(now)) if now.ready => {}
            Ok(Ok(now)) => return Err(gone(now.gone.as_ref().map(|g| g.detail.clone()).unwrap_or_default())),
            _ => return Err(gone(format!("PID 1 was not ready after {READY_LIMIT:?}"))),
        }
        drop(guard.disarm());
        Ok(Self {
            shared,
            class,
            volume,
            pid,
            process,
            cgroup,
            reports,
            stop,
            shm_was_full: Arc::default(),
            standing: Mutex::new(None),
        })
    }

    fn error_gone(&self, now: &Reports) -> SandboxError {
        let detail = now.gone.as_ref().map(|gone| gone.detail.clone()).unwrap_or_default();
        SandboxError::Gone { id: self.class.id, detail }
    }

    /// To the host's pid where it is seen, which takes less than a millisecond; else by the engine.
    async fn send(&self, signal: OrderSignal) {
        if let Some(process) = &self.process {
            // Fails only where the process is gone, and then the follower says so.
            if let Err(error) = pidfd_send_signal(process, signal.number) {
                tracing::debug!(%error, sandbox = %self.class.id, signal = signal.name, "PID 1 is gone");
            }
            return;
        }
        self.engine_kill(signal.name).await;
    }

    async fn engine_kill(&self, signal: &str) {
        let options = KillContainerOptions { signal: signal.to_owned() };
        match self.shared.docker.kill_container(&container_name(self.class.id), Some(options)).await {
            Err(e) if !matches!(status_of(&e), Some(404 | 409)) => {
                tracing::warn!(sandbox = %self.class.id, signal, error = words(&e), "the engine did not pass on a signal");
            }
            _ => {}
        }
    }

    /// Sends until `done`, for at most `limit`.
    async fn insist(&self, signal: OrderSignal, limit: Duration, done: impl Fn(&Reports) -> bool) -> bool {
        let mut seen = self.reports.subscribe();
        let deadline = self.shared.clock.monotonic() + limit;
        loop {
            if done(&seen.borrow_and_update()) {
                return true;
            }
            let left = deadline.saturating_sub(self.shared.clock.monotonic());
            if left.is_zero() {
                return false;
            }
            self.send(signal).await;
            let wait = seen.wait_for(|now| done(now));
            if let Ok(answer) = tokio::time::timeout(REPEAT.min(left), wait).await {
                return answer.is_ok();
            }
        }
    }

    async fn kill(&self) -> Result<(), SandboxError> {
        let done = |now: &Reports| now.killed || now.gone.is_some();
        if self.insist(Order::Kill.signal(), KILL_LIMIT, done).await {
            return Ok(());
        }
        tracing::warn!(sandbox = %self.class.id, "PID 1 did not report the kill; the engine kills instead");
        let evidence = self.read_evidence().await;
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(evidence);
        self.engine_kill("SIGKILL").await;
        let mut seen = self.reports.subscribe();
        let wait = seen.wait_for(done);
        match tokio::time::timeout(ENGINE_KILL_LIMIT, wait).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(SandboxError::NoAnswer {
                id: self.class.id,
                order: Order::Kill,
                waited: ENGINE_KILL_LIMIT,
            }),
        }
    }

    async fn read(&self) -> Result<(Reading, Evidence), SandboxError> {
        let (id, pid) = (self.class.id, self.pid);
        let (cgroup, volume) = (self.cgroup.clone(), Arc::clone(&self.volume));
        let shm_was_full = Arc::clone(&self.shm_was_full);
        blocking(id, move || {
            let counters = cgroup.counters().map_err(|e| SandboxError::Gone { id, detail: e.to_string() })?;
            let fill = volume.fill_now()?;
            if verify::shm_is_full(pid) {
                shm_was_full.store(true, Ordering::Relaxed);
            }
            let reading = Reading {
                cpu: counters.cpu,
                memory_bytes: counters.memory_bytes,
                memory_peak_bytes: counters.memory_peak_bytes,
                pids: counters.pids,
                disk_bytes: fill.used_bytes,
            };
            let evidence = Evidence {
                reading: reading.clone(),
                oom_kills: counters.oom_kills,
                memory_limit_met: counters.memory_limit_met,
                pids_refused: counters.pids_refused,
                disk_full: fill.full,
                shm_full: shm_was_full.load(Ordering::Relaxed),
                complete: true,
            };
            Ok((reading, evidence))
        })
        .await
    }

    async fn read_evidence(&self) -> Evidence {
        match self.read().await {
            Ok((_, evidence)) => evidence,
            Err(error) => {
                tracing::warn!(%error, "the last reading came too late");
                Evidence::default()
            }
        }
    }
}

/// The process by a handle, where the kernel has them. It must be that container's own: between the engine's answer
/// and now it may have ended, or this worker may see other processes than the engine does.
fn open_process(pid: i32, container: &str) -> Result<Option<OwnedFd>, String> {
    let process = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    if cgroup.contains(container) {
        return Ok(process);
    }
    Err(format!(
        "process {pid} is not the container's: the worker must run on the host, or in its pid namespace"
    ))
}

async fn remove_logged(shared: &Shared, id: SandboxId, volume: Arc<Volume>) {
    if let Err(left) = remove_all(shared, id, volume).await {
        tracing::error!(sandbox = %id, %left, "it could not be removed; the next sweep tries again");
    }
}

async fn remove_all(shared: &Shared, id: SandboxId, volume: Arc<Volume>) -> Result<(), SandboxError> {
    remove_container(shared, id).await?;
    blocking(id, move || volume.remove()).await
}

#[async_trait]
impl Sandbox for DockerSandbox {
    fn id(&self) -> SandboxId {
        self.class.id
    }

    async fn assign(&self, assignment: &Assignment) -> Result<(), SandboxError> {
        let id = self.class.id;
        let settings = init::Settings {
            uid: self.class.slot.uid,
            limit: assignment.time_limit,
            grace: assignment.grace,
            arguments: &self.shared.program,
        };
        let settings = settings.render().ok_or_else(|| SandboxError::Volume {
            id,
            detail: "the program's arguments are empty or have a line break".to_owned(),
            disk_full: false,
        })?;
        let (uid, disk_bytes) = (self.class.slot.uid, self.class.limits.disk_bytes);
        let (assignment, volume) = (assignment.clone(), Arc::clone(&self.volume));
        blocking(id, move || volume.fill(uid, &assignment.run_json, &assignment.files, &settings, disk_bytes))
            .await
    }

    async fn verify(&self) -> Result<(), SandboxError> {
        let (class, pid, cgroup) = (self.class.clone(), self.pid, self.cgroup.clone());
        let volume = self.volume.path();
        blocking(self.class.id, move || verify::verify(&class, pid, &cgroup, &volume)).await
    }

    async fn order(&self, order: Order) -> Result<(), SandboxError> {
        let done: fn(&Reports) -> bool = match order {
            Order::Kill => return self.kill().await,
            Order::Start => |now| now.started,
            // What has ended cannot be asked to.
            Order::Terminate => |now| now.terminating || now.ended.is_some() || now.killed,
        };
        let gone_or_done = |now: &Reports| done(now) || now.gone.is_some();
        let answered = self.insist(order.signal(), ORDER_LIMIT, gone_or_done).await;
        let now = self.reports.borrow();
        match (answered, done(&now)) {
            (_, true) => Ok(()),
            (true, false) => Err(self.error_gone(&now)),
            (false, false) => Err(SandboxError::NoAnswer { id: self.class.id, order, waited: ORDER_LIMIT }),
        }
    }

    fn reports(&self) -> watch::Receiver<Reports> {
        self.reports.subscribe()
    }

    fn streams(&self) -> StreamPaths {
        self.volume.streams()
    }

    fn artifacts(&self) -> PathBuf {
        self.volume.path().join("work").join("artifacts")
    }

    async fn reading(&self) -> Result<Reading, SandboxError> {
        Ok(self.read().await?.0)
    }

    async fn evidence(&self) -> Evidence {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match standing {
            Some(evidence) => evidence,
            None => {
                let evidence = self.read_evidence().await;
                if evidence.complete {
                    *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = Some(evidence.clone());
                }
                evidence
            }
        }
    }

    async fn end(&self) -> Result<(), SandboxError> {
        if !self.insist(init::END, END_LIMIT, |now| now.gone.is_some()).await {
            self.engine_kill("SIGKILL").await;
        }
        remove_container(&self.shared, self.class.id).await?;
        self.stop.cancel();
        let volume = Arc::clone(&self.volume);
        blocking(self.class.id, move || {
            volume.seal();
            Ok(())
        })
        .await
    }

    async fn remove(&self) -> Result<(), SandboxError> {
        self.end().await?;
        let volume = Arc::clone(&self.volume);
        blocking(self.class.id, move || volume.remove()).await
    }
}
