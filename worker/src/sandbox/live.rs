//! One sandbox from PID 1's `ready` to its removal, whichever backend made it: the orders, the readings, the end. What
//! only the backend can do to it is behind [`Walls`].

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
use kit::{clock::Clock, task::CancellationToken};
use rustix::process::pidfd_send_signal;
use tokio::sync::watch;

use super::{
    Assignment, Evidence, Order, Reading, Reports, Sandbox, SandboxClass, SandboxError, SandboxId,
    StreamPaths, blocking,
    cgroup::Cgroup,
    init::{self, OrderSignal},
    verify,
    volume::Volume,
};

/// An order is given again until it is reported.
const REPEAT: Duration = Duration::from_millis(100);
const ORDER_LIMIT: Duration = Duration::from_secs(10);
/// After this the backend kills instead, and the reading before it stands.
const KILL_LIMIT: Duration = Duration::from_millis(300);
/// An engine itself waits 12 s for the exit.
const HARD_KILL_LIMIT: Duration = Duration::from_secs(15);
/// What is in the pipes of a sandbox after its program's end is some megabytes at most.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
const END_LIMIT: Duration = Duration::from_secs(5);

/// What a backend does to a sandbox that it made.
#[async_trait]
pub(crate) trait Walls: Send + Sync + std::fmt::Debug {
    /// Passes a signal on to PID 1, where this worker has no handle of it. One that is gone is no error.
    async fn signal(&self, id: SandboxId, signal: OrderSignal);

    /// SIGKILL to everything in it, PID 1 too, without PID 1's help. Does not wait for the end.
    async fn kill(&self, id: SandboxId);

    /// Removes the container, or what stands for one (processes, cgroups), and waits until it is gone. Idempotent.
    ///
    /// # Errors
    /// What is still there.
    async fn remove(&self, id: SandboxId) -> Result<(), SandboxError>;
}

/// A sandbox with PID 1 of ours in it.
#[derive(Debug)]
pub(crate) struct Live {
    pub walls: Arc<dyn Walls>,
    pub clock: Arc<dyn Clock>,
    pub class: SandboxClass,
    pub volume: Arc<Volume>,
    /// What PID 1 starts: an absolute path, then its arguments.
    pub program: Vec<String>,
    /// PID 1, as the host counts; 0 where it is gone.
    pub pid: i32,
    /// A number may be another process's after the end; this never is. `None` where it cannot be had.
    pub process: Option<OwnedFd>,
    /// `None` where it was gone before this process looked.
    pub cgroup: Option<Cgroup>,
    pub reports: watch::Sender<Reports>,
    /// Stops whoever reads PID 1's reports; also when this is dropped.
    pub stop: CancellationToken,
    pub memory: Memory,
}

/// What a sandbox was once seen to be.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Shared memory is gone with the program, so that it was full is kept.
    shm_was_full: Arc<AtomicBool>,
    /// The reading behind the end gate, or the one before the backend's kill.
    standing: Mutex<Option<Evidence>>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Live {
    fn error_gone(&self, now: &Reports) -> SandboxError {
        let detail = now.gone.as_ref().map(|gone| gone.detail.clone()).unwrap_or_default();
        SandboxError::Gone { id: self.class.id, detail }
    }

    /// To the host's pid where it is seen, which takes less than a millisecond; else by the backend.
    async fn send(&self, signal: OrderSignal) {
        if let Some(process) = &self.process {
            // Fails only where the process is gone, and then the follower says so.
            if let Err(error) = pidfd_send_signal(process, signal.number) {
                tracing::debug!(%error, sandbox = %self.class.id, signal = signal.name, "PID 1 is gone");
            }
            return;
        }
        self.walls.signal(self.class.id, signal).await;
    }

    /// Sends until `done`, for at most `limit`.
    async fn insist(&self, signal: OrderSignal, limit: Duration, done: impl Fn(&Reports) -> bool) -> bool {
        let mut seen = self.reports.subscribe();
        let deadline = self.clock.monotonic() + limit;
        loop {
            if done(&seen.borrow_and_update()) {
                return true;
            }
            let left = deadline.saturating_sub(self.clock.monotonic());
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

    /// Where the logs come through pipes: until all of it is in the files, which is when the last writer is gone.
    async fn drained(&self) {
        if self.volume.holder().is_none() {
            return;
        }
        let mut seen = self.reports.subscribe();
        let wait = seen.wait_for(|now| now.drained || now.gone.is_some() || !now.started);
        if tokio::time::timeout(DRAIN_LIMIT, wait).await.is_err() {
            tracing::warn!(sandbox = %self.class.id, "the logs were not read to their end in time");
        }
    }

    async fn kill(&self) -> Result<(), SandboxError> {
        let done = |now: &Reports| now.killed || now.gone.is_some();
        if self.insist(Order::Kill.signal(), KILL_LIMIT, done).await {
            return Ok(());
        }
        tracing::warn!(sandbox = %self.class.id, "PID 1 did not report the kill; it is killed from outside");
        let evidence = self.read_evidence().await;
        self.memory.standing.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(evidence);
        self.walls.kill(self.class.id).await;
        let mut seen = self.reports.subscribe();
        let wait = seen.wait_for(done);
        match tokio::time::timeout(HARD_KILL_LIMIT, wait).await {
            Ok(Ok(_)) => Ok(()),
            _ => {
                Err(SandboxError::NoAnswer { id: self.class.id, order: Order::Kill, waited: HARD_KILL_LIMIT })
            }
        }
    }

    async fn read(&self) -> Result<(Reading, Evidence), SandboxError> {
        let (id, pid) = (self.class.id, self.pid);
        let (cgroup, volume) = (self.cgroup.clone(), Arc::clone(&self.volume));
        let shm_was_full = Arc::clone(&self.memory.shm_was_full);
        // By PID 1, where this worker cannot look itself.
        let reported = self.reports.borrow().shm_full;
        blocking(id, move || {
            let gone = || SandboxError::Gone { id, detail: "its cgroup is gone".to_owned() };
            let cgroup = cgroup.ok_or_else(gone)?;
            let counters = cgroup.counters().map_err(|e| SandboxError::Gone { id, detail: e.to_string() })?;
            let fill = volume.fill_now()?;
            if reported || verify::shm_is_full(pid) {
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

#[async_trait]
impl Sandbox for Live {
    fn id(&self) -> SandboxId {
        self.class.id
    }

    async fn assign(&self, assignment: &Assignment) -> Result<(), SandboxError> {
        let id = self.class.id;
        let settings = init::Settings {
            uid: self.class.slot.uid,
            limit: assignment.time_limit,
            grace: assignment.grace,
            arguments: &self.program,
        };
        let settings = settings.render().ok_or_else(|| SandboxError::Volume {
            id,
            detail: "the program's arguments are empty or have a line break".to_owned(),
            disk_full: false,
        })?;
        let disk_bytes = self.class.limits.disk_bytes;
        let (assignment, volume) = (assignment.clone(), Arc::clone(&self.volume));
        blocking(id, move || volume.fill(&assignment.run_json, &assignment.files, &settings, disk_bytes))
            .await
    }

    async fn verify(&self) -> Result<(), SandboxError> {
        let (class, pid, cgroup) = (self.class.clone(), self.pid, self.cgroup.clone());
        let volume = Arc::clone(&self.volume);
        let cgroup = cgroup.ok_or_else(|| self.error_gone(&self.reports.borrow()))?;
        blocking(self.class.id, move || verify::verify(&class, pid, &cgroup, &volume)).await
    }

    async fn order(&self, order: Order) -> Result<(), SandboxError> {
        let done: fn(&Reports) -> bool = match order {
            Order::Kill => {
                self.kill().await?;
                self.drained().await;
                return Ok(());
            }
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
        self.volume.artifacts()
    }

    async fn reading(&self) -> Result<Reading, SandboxError> {
        Ok(self.read().await?.0)
    }

    async fn evidence(&self) -> Evidence {
        let standing = self.memory.standing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match standing {
            Some(evidence) => evidence,
            None => {
                let evidence = self.read_evidence().await;
                if evidence.complete {
                    *self.memory.standing.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(evidence.clone());
                }
                evidence
            }
        }
    }

    async fn end(&self) -> Result<(), SandboxError> {
        if !self.insist(init::END, END_LIMIT, |now| now.gone.is_some()).await {
            self.walls.kill(self.class.id).await;
        }
        self.walls.remove(self.class.id).await?;
        self.stop.cancel();
        Ok(())
    }

    async fn remove(&self) -> Result<(), SandboxError> {
        self.end().await?;
        let volume = Arc::clone(&self.volume);
        blocking(self.class.id, move || volume.remove()).await
    }
}
