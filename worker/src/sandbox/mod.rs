//! Sandboxes behind one trait. A backend makes a sandbox of a class (`prepare`: volume, PID 1, limits, gate
//! shut), then a run is assigned to it (`assign`, `verify`, the order to start). A cold start is both at once; a
//! warm sandbox was prepared before its run was known.
//!
//! What belongs here: the words that every backend speaks, and nothing of an engine. What a run is, and how it
//! ended, belongs in `run`.
//!
//! The order of calls in a sandbox's life:
//!
//! ```text
//! prepare ─▶ assign ─▶ verify ─▶ order(Start) ─▶ usage … ─▶ [order(Terminate) ─▶] order(Kill) ─▶ evidence ─▶ end ─▶ remove
//! ```
//!
//! `remove` is allowed at any point, is idempotent, and leaves nothing: no process, container, cgroup, mount,
//! loop device or file.
//!
//! A sandbox outlives the process that made it: `adopt` gives the next one what `prepare` gave the first, and it goes on
//! from wherever in this order the sandbox is.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::watch;

mod birth;
mod cgroup;
/// Docker Engine, through its API.
pub mod docker;
mod hands;
mod init;
pub(crate) mod layout;
mod leftovers;
mod live;
#[doc(hidden)] // for tests/parsers alone
pub mod loops;
/// The kernel's own namespaces and cgroups, without an engine.
pub mod native;
#[doc(hidden)] // for tests/parsers alone
pub mod report;
/// What a sandbox promises.
pub mod rules;
mod seccomp;
mod verify;
mod volume;

pub(crate) use loops::find_tool;

kit::id_type!(
    /// Of a sandbox; the container's name is `ar-SANDBOX_ID`.
    SandboxId,
    "sandbox"
);

/// What a sandbox is made with.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxClass {
    /// The sandbox's own id, not the run's.
    pub id: SandboxId,
    /// The engine's content id of the image, "sha256:…": never a name.
    pub image_id: String,
    /// Where it runs.
    pub slot: SlotGrant,
    /// What it may use.
    pub limits: SandboxLimits,
    /// Read-only trees that it sees besides its image: packages, data sets.
    pub layers: Vec<Layer>,
}

/// A read-only tree as a file with an ext4 file system in it: mounted whole, it says nothing of where it lies on the
/// host, and the same file serves any number of sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Where it is seen inside: `/packages`, `/data/NAME`.
    pub target: String,
    /// The file on the host; this worker made it, and it changes no more.
    pub image: PathBuf,
}

/// The part of a slot that a sandbox is told of.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SlotGrant {
    /// From 0.
    pub index: u32,
    /// The unprivileged uid (and gid) of the program: 50000 + index.
    pub uid: u32,
    /// CPUs it is bound to, like "0-3"; `None`: any.
    pub cpuset: Option<String>,
    /// The GPUs it sees, and no others.
    pub gpu_uuids: Vec<String>,
}

/// Hard limits, all set, all over zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxLimits {
    /// No swap beyond it.
    pub memory_bytes: u64,
    /// Thousandths of a CPU.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub pids: u32,
    /// Of the volume, for `work/` and `tmp/`.
    pub disk_bytes: u64,
    /// /dev/shm, counted in memory.
    pub shm_bytes: u64,
    /// Allocated for each log file, in the order stdout, stderr, metrics.
    pub log_bytes: [u64; 3],
}

/// What a run puts into its sandbox.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// `in/run.json`: what the runner reads.
    pub run_json: Vec<u8>,
    /// Files for `in/files/`, by a relative path that was checked, copied from a blob on the host.
    pub files: Vec<(String, PathBuf)>,
    /// The wall-clock limit, for PID 1's backstop.
    pub time_limit: Duration,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
}

/// An order to PID 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// Open the start gate.
    Start,
    /// SIGTERM to the program's group.
    Terminate,
    /// SIGKILL to everything but PID 1, until nothing is left.
    Kill,
}

/// What PID 1 has reported so far, and whether the sandbox is still there. It only ever grows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reports {
    /// PID 1 waits at the start gate.
    pub ready: bool,
    /// The program was started.
    pub started: bool,
    /// SIGTERM was sent.
    pub terminating: bool,
    /// How the program's main process ended.
    pub ended: Option<ProgramEnd>,
    /// PID 1's own limit came, because no order did: it has killed the program.
    pub backstop: bool,
    /// /dev/shm was full when the program's main process ended.
    pub shm_full: bool,
    /// Everything but PID 1 is gone.
    pub killed: bool,
    /// Nobody is left who could write to the logs, and what was written is in them. Only where they come through pipes.
    pub drained: bool,
    /// The sandbox itself is gone, and what the engine said of it (exit code of PID 1, engine error). Where
    /// PID 1 has reported `ended`, this means nothing for the outcome.
    pub gone: Option<Gone>,
}

/// How the program's main process ended, by PID 1's wait status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramEnd {
    /// Where it exited.
    pub exit_code: Option<i32>,
    /// Where a signal ended it.
    pub signal: Option<i32>,
    /// From the start gate, by PID 1's monotonic clock.
    pub elapsed: Duration,
}

/// The end of the sandbox itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// PID 1's own exit code or 128 + signal, where the engine tells.
    pub exit_code: Option<i64>,
    /// The engine's words; empty where it had none.
    pub detail: String,
}

/// Where the three append-only log files lie on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPaths {
    /// File descriptor 1 of the program.
    pub stdout: PathBuf,
    /// File descriptor 2.
    pub stderr: PathBuf,
    /// File descriptor 3.
    pub metrics: PathBuf,
}

/// A reading of the sandbox's cgroup and volume. Counters are since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// CPU time, user and system.
    pub cpu: Duration,
    /// Charged now.
    pub memory_bytes: u64,
    /// The most that was charged.
    pub memory_peak_bytes: u64,
    /// Processes and threads now.
    pub pids: u32,
    /// Used on the volume outside the log files' allocation.
    pub disk_bytes: u64,
}

/// The kernel's own word on which limits were met, read behind the end gate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The last reading.
    pub reading: Reading,
    /// Processes that the kernel killed for memory in this cgroup.
    pub oom_kills: u64,
    /// Whether the cgroup's own limit was met (v2: `oom` rose; v1: the peak reached the limit). With `oom_kills`
    /// and without this, it was the host that was out of memory.
    pub memory_limit_met: bool,
    /// Forks that the pid limit refused.
    pub pids_refused: u64,
    /// The volume has no free block or inode.
    pub disk_full: bool,
    /// /dev/shm is full, where that can be seen.
    pub shm_full: bool,
    /// False where the cgroup was gone before the reading: then nothing above counts.
    pub complete: bool,
}

/// Which backend and how much of the table of rules this host enforces.
#[derive(Debug, Clone, Default)]
pub struct BackendInfo {
    /// "docker".
    pub name: String,
    /// The engine's version and API.
    pub version: String,
    /// Why it cannot be used, and what to do; `None` where it can.
    pub unavailable: Option<String>,
    /// One line for each rule.
    pub rules: Vec<Rule>,
    /// Said loudly: old versions, the engine's own warnings.
    pub warnings: Vec<String>,
}

/// One rule of the sandbox on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Like "memory", "network", "seccomp".
    pub name: &'static str,
    /// Whether it holds here.
    pub enforcement: Enforcement,
    /// How, or why not.
    pub detail: String,
    /// The one command that would mend it; empty where nothing is to be mended.
    pub remedy: String,
}

/// Whether a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    /// As the table says.
    Enforced,
    /// In part, or by weaker means.
    Weaker,
    /// Not at all.
    NotEnforced,
}

/// What went wrong with which sandbox. None of these is the program's doing.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No engine answers.
    #[error("the engine cannot be reached: {detail}")]
    Engine {
        /// What was tried and what came back.
        detail: String,
        /// Whether this user lacks the permission.
        permission: bool,
    },
    /// The engine refused or failed one call.
    #[error("{verb} sandbox {id}: {detail}")]
    Call {
        /// "create", "start", …
        verb: &'static str,
        /// Which one.
        id: SandboxId,
        /// The engine's words.
        detail: String,
    },
    /// A limit is not in force, so the gate stays shut.
    #[error("sandbox {id}: {rule} is not in force: {detail}")]
    NotInForce {
        /// Which one.
        id: SandboxId,
        /// Which rule.
        rule: &'static str,
        /// Wanted and found.
        detail: String,
    },
    /// The volume could not be made, mounted or removed.
    #[error("volume of sandbox {id}: {detail}")]
    Volume {
        /// Which one.
        id: SandboxId,
        /// What was tried.
        detail: String,
        /// Whether the host's disk is full.
        disk_full: bool,
    },
    /// PID 1 did not answer an order in time.
    #[error("sandbox {id} did not answer the order {order:?} within {waited:?}")]
    NoAnswer {
        /// Which one.
        id: SandboxId,
        /// Which order.
        order: Order,
        /// How long.
        waited: Duration,
    },
    /// The sandbox is gone.
    #[error("sandbox {id} is gone: {detail}")]
    Gone {
        /// Which one.
        id: SandboxId,
        /// What the engine said.
        detail: String,
    },
}

/// A way to make sandboxes.
#[async_trait]
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// "docker".
    fn name(&self) -> &'static str;

    /// What works on this host. Answers also where nothing does.
    async fn describe(&self) -> BackendInfo;

    /// Tries its walls on this host, once, so that [`Backend::describe`] says what was seen and not what is expected.
    /// Nothing to do where somebody else vouches for them.
    async fn prove(&self) {}

    /// Makes a sandbox with its gate shut: the volume, PID 1 ready. The caller has `class.id` on disk already. On an error
    /// nothing of it is left.
    ///
    /// # Errors
    /// None of them is the program's doing.
    async fn prepare(&self, class: SandboxClass) -> Result<Arc<dyn Sandbox>, SandboxError>;

    /// Takes up a sandbox that an earlier process of this worker made: running, waiting at its gate, ended, or half made. What
    /// PID 1 has reported so far is in its reports when this returns; where PID 1 is gone they say so, and the end and the
    /// removal are left to do. The class is the one that it was made with. `None` where nothing of it is there: no process, no
    /// container, no mount, no folder.
    ///
    /// # Errors
    /// Where the engine or the host does not say what is there. Nothing was changed then: try again.
    async fn adopt(&self, class: SandboxClass) -> Result<Option<Arc<dyn Sandbox>>, SandboxError>;

    /// Removes everything of this worker that is not in `keep`: containers, mounts, loop devices, cgroups,
    /// folders. Gives what it removed, for the log.
    ///
    /// # Errors
    /// Where the engine does not answer. What could not be removed stays and is logged.
    async fn sweep(&self, keep: &BTreeSet<SandboxId>) -> Result<Vec<String>, SandboxError>;

    /// Sandboxes of this worker of which something may still run although a sweep was to remove it: their slots must
    /// not be used. Where the backend cannot say, none.
    async fn left(&self) -> BTreeSet<SandboxId> {
        BTreeSet::new()
    }
}

/// One sandbox, from PID 1's `ready` on.
#[async_trait]
pub trait Sandbox: Send + Sync + std::fmt::Debug {
    /// Its id.
    fn id(&self) -> SandboxId;

    /// Writes `in/` for the program and for PID 1.
    ///
    /// # Errors
    /// [`SandboxError::Volume`].
    async fn assign(&self, assignment: &Assignment) -> Result<(), SandboxError>;

    /// Reads back, from the cgroup, /proc and the mounts, that every limit holds.
    ///
    /// # Errors
    /// [`SandboxError::NotInForce`] with the rule.
    async fn verify(&self) -> Result<(), SandboxError>;

    /// Gives PID 1 an order, again every 100 ms until it is reported, and returns then. `Kill` falls back to the engine's
    /// own SIGKILL where PID 1 does not report in time. Idempotent.
    ///
    /// # Errors
    /// [`SandboxError::NoAnswer`] or [`SandboxError::Gone`].
    async fn order(&self, order: Order) -> Result<(), SandboxError>;

    /// What PID 1 has reported; changes wake the receiver.
    fn reports(&self) -> watch::Receiver<Reports>;

    /// Where the logs are.
    fn streams(&self) -> StreamPaths;

    /// `work/artifacts` on the host. Hostile: open it only as SANDBOXES.md 4.8 says, after `Kill`.
    fn artifacts(&self) -> PathBuf;

    /// A reading now.
    ///
    /// # Errors
    /// [`SandboxError::Gone`].
    async fn reading(&self) -> Result<Reading, SandboxError>;

    /// The last reading, behind the end gate: after `killed` and before `end`.
    async fn evidence(&self) -> Evidence;

    /// Opens the end gate and removes the container. The volume stays, for the artifacts and the tails of the logs.
    ///
    /// # Errors
    /// Where the container is still there: the slot must be set aside.
    async fn end(&self) -> Result<(), SandboxError>;

    /// Removes all that is left. Allowed at any point; idempotent.
    ///
    /// # Errors
    /// What is still there.
    async fn remove(&self) -> Result<(), SandboxError>;
}

/// Blocking work of one sandbox off the event loop.
async fn blocking<T: Send + 'static>(
    id: SandboxId,
    work: impl FnOnce() -> Result<T, SandboxError> + Send + 'static,
) -> Result<T, SandboxError> {
    let panicked = || SandboxError::Volume {
        id,
        detail: "the worker failed at it; see its log".to_owned(),
        disk_full: false,
    };
    kit::task::blocking("sandbox", work).await.unwrap_or_else(|| Err(panicked()))
}
