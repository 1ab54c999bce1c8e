//! A sandbox from its volume until PID 1 is ready, and what only this backend can do to it later.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use kit::{digest::Digest, task::CancellationToken};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    sync::watch,
};

use super::{
    Shared, follow,
    gpu::{self, GpuParts},
    groups::{Groups, Places},
    rights::Rights,
    spec,
};
use crate::sandbox::{
    Reports, SandboxClass, SandboxError, SandboxId, birth, blocking,
    cgroup::Cgroup,
    init::OrderSignal,
    live::{Live, Memory, Walls},
    volume::Volume,
};

/// The launcher needs milliseconds; a busy host may need seconds.
const LAUNCH_LIMIT: Duration = Duration::from_secs(30);
/// It answers one line.
const ANSWER_BYTES: u64 = 4096;
/// A process that is killed may have much memory to give back.
const REMOVE_LIMIT: Duration = Duration::from_secs(20);
/// From PID 1's end to its supervisor's own.
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// What PID 1 starts, and for tests which of the launcher's steps fails.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub program: Vec<String>,
    pub fault: usize,
}

/// The folder of a class's image.
///
/// # Errors
/// Where the id is no digest, or the image was not prepared.
pub(super) fn image(shared: &Shared, class: &SandboxClass) -> Result<PathBuf, SandboxError> {
    let fail = |detail| SandboxError::NotInForce { id: class.id, rule: "image", detail };
    let digest: Digest = class
        .image_id
        .parse()
        .map_err(|e| fail(format!("`{}`: {e}", kit::text::one_line(&class.image_id, 80))))?;
    let folder = shared.rootfs_dir.join(digest.hex());
    match fs::symlink_metadata(&folder) {
        Ok(found) if found.is_dir() => Ok(folder),
        _ => Err(fail(format!("no root file system at {}: prepare the image", folder.display()))),
    }
}

/// Packages and data sets are file systems in files, which only root may mount.
///
/// # Errors
/// Where the run has one and this worker is not root.
pub(super) fn without_layers(shared: &Shared, class: &SandboxClass) -> Result<(), SandboxError> {
    let root = shared.rights.as_ref().is_none_or(Rights::is_root);
    match class.layers.first().filter(|_| !root) {
        None => Ok(()),
        Some(layer) => Err(SandboxError::NotInForce {
            id: class.id,
            rule: "files",
            detail: format!(
                "{} cannot be mounted without root: packages and data sets need a worker of root's, or the docker backend",
                layer.target
            ),
        }),
    }
}

/// Volume, walls, PID 1 ready; on an error nothing of it is left.
pub(super) async fn prepare(
    shared: Arc<Shared>,
    class: SandboxClass,
    image: PathBuf,
    recipe: Recipe,
) -> Result<Live, SandboxError> {
    let volume = Arc::new(shared.volume(class.id));
    let walls: Arc<dyn Walls> = Arc::clone(&shared) as _;
    birth::guarded(class.id, Arc::clone(&volume), walls, make(shared, class, volume, image, recipe)).await
}

async fn make(
    shared: Arc<Shared>,
    class: SandboxClass,
    volume: Arc<Volume>,
    image: PathBuf,
    recipe: Recipe,
) -> Result<Live, SandboxError> {
    let id = class.id;
    let (own, of) = (Arc::clone(&volume), class.clone());
    blocking(id, move || own.create(&of)).await?;
    let (own, parts_of) = (Arc::clone(&shared), (class.clone(), Arc::clone(&volume), recipe.fault));
    let orders = blocking(id, move || {
        let (class, volume, fault) = parts_of;
        orders(&own, &class, &volume, &image, fault)
    })
    .await?;

    let pid = launch(id, &volume.init_program(), &orders).await?;
    let groups = shared.groups(id)?;
    let process = open_process(groups, id, pid)?;
    let unseen = |detail| SandboxError::NotInForce { id, rule: "memory", detail };
    let cgroup =
        Cgroup::of_process(pid).map_err(|e| unseen(format!("its cgroup cannot be seen from here: {e}")))?;

    let (reports, stop) = (watch::Sender::new(Reports::default()), CancellationToken::new());
    let guard = stop.clone().drop_guard();
    let followed = process.try_clone().map_err(|e| failed(id, "follow", e.to_string()))?;
    let follower = follow::follow(spec::reports(&shared.folder(id)), followed, reports.clone(), stop.clone());
    drop(kit::task::spawn("sandbox-reports", follower)); // it ends with its token

    birth::until_ready(id, &reports).await?;
    drop(guard.disarm());
    Ok(Live {
        clock: Arc::clone(&shared.clock),
        program: recipe.program,
        walls: shared,
        class,
        volume,
        pid,
        process: Some(process),
        cgroup: Some(cgroup),
        reports,
        stop,
        memory: Memory::default(),
    })
}

/// Makes the cgroups and the files outside the volume; gives what the launcher is told.
fn orders(
    shared: &Shared,
    class: &SandboxClass,
    volume: &Volume,
    image: &Path,
    fault: usize,
) -> Result<String, SandboxError> {
    let id = class.id;
    let folder = shared.folder(id);
    let (reports, place) = (spec::reports(&folder), spec::place(&folder));
    let io = |path: &Path, e: io::Error| failed(id, "make", format!("{}: {e}", path.display()));
    DirBuilder::new().mode(0o700).create(&place).map_err(|e| io(&place, e))?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&reports)
        .map_err(|e| io(&reports, e))?;
    let gpus: GpuParts = gpu::find(&class.slot.gpu_uuids).map_err(|detail| SandboxError::NotInForce {
        id,
        rule: "devices",
        detail,
    })?;
    let places: Places = shared
        .groups(id)?
        .create(class, &gpus.numbers)
        .map_err(|e| SandboxError::NotInForce { id, rule: "limits", detail: e.to_string() })?;
    let parts = spec::Parts {
        class,
        volume,
        image,
        place: &place,
        reports: &reports,
        places: &places,
        gpus: &gpus,
        filter: &shared.filter,
        fault,
    };
    spec::render(&parts).ok_or_else(|| {
        failed(id, "make", format!("the path {} has a tab or a line break", shared.sandboxes_dir.display()))
    })
}

/// Starts the launcher, and gives PID 1 as the host counts.
async fn launch(id: SandboxId, program: &Path, orders: &str) -> Result<i32, SandboxError> {
    let mut child = Command::new(program)
        .arg("launch")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed(id, "launch", e.to_string()))?;
    let told = tokio::time::timeout(LAUNCH_LIMIT, tell(&mut child, orders)).await;
    let answer = match told {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => format!("failed\tspeak to it: {error}\t0"),
        Err(_) => format!("failed\tanswer within {LAUNCH_LIMIT:?}\t0"),
    };
    let words: Vec<&str> = answer.trim_end_matches('\n').split('\t').collect();
    if let ["started", pid] = words.as_slice()
        && let Ok(pid) = pid.parse()
    {
        // It is taken when it ends, also where this worker is gone by then: its parent is then another.
        drop(kit::task::spawn("sandbox-supervisor", async move { child.wait().await.map(drop).ok() }));
        return Ok(pid);
    }
    if let Err(error) = child.kill().await {
        tracing::debug!(%error, sandbox = %id, "the launcher has ended by itself");
    }
    let detail = match words.as_slice() {
        ["failed", step, errno] => {
            let errno = errno.parse().ok().filter(|number| *number > 0);
            let why = errno.map(|number| format!(": {}", io::Error::from_raw_os_error(number)));
            format!("it could not {step}{}", why.unwrap_or_default())
        }
        _ => format!("it answered `{}`", kit::text::one_line(&answer, 200)),
    };
    Err(failed(id, "launch", detail))
}

async fn tell(child: &mut Child, orders: &str) -> io::Result<String> {
    let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
    let mut to = child.stdin.take().ok_or_else(closed)?;
    let from = child.stdout.take().ok_or_else(closed)?;
    to.write_all(orders.as_bytes()).await?;
    drop(to);
    let mut answer = String::new();
    from.take(ANSWER_BYTES).read_to_string(&mut answer).await?;
    Ok(answer)
}

/// PID 1 by a handle, which must be the sandbox's own: it may have ended, and its number be another's.
pub(super) fn open_process(groups: &Groups, id: SandboxId, pid: i32) -> Result<OwnedFd, SandboxError> {
    let number = Pid::from_raw(pid).ok_or_else(|| failed(id, "launch", format!("PID 1 is {pid}")))?;
    let handle = pidfd_open(number, PidfdFlags::empty()).map_err(|e| {
        failed(id, "launch", format!("PID 1 has no handle (a kernel before 5.3, or it ended): {e}"))
    })?;
    if groups.holds(id, pid) {
        return Ok(handle);
    }
    Err(SandboxError::Gone { id, detail: "PID 1 ended at once".to_owned() })
}

fn failed(id: SandboxId, verb: &'static str, detail: String) -> SandboxError {
    SandboxError::Call { verb, id, detail }
}

impl Shared {
    pub(super) fn folder(&self, id: SandboxId) -> PathBuf {
        self.sandboxes_dir.join(id.to_string())
    }

    pub(super) fn groups(&self, id: SandboxId) -> Result<&Groups, SandboxError> {
        self.groups.as_ref().map_err(|detail| SandboxError::NotInForce {
            id,
            rule: "limits",
            detail: detail.clone(),
        })
    }

    /// Kills, and waits until nothing is left in the cgroups; then they go.
    async fn clear_groups(&self, groups: &Groups, id: SandboxId) -> Result<(), SandboxError> {
        let begun = self.clock.monotonic();
        let deadline = begun + REMOVE_LIMIT;
        let mut pause = PAUSE;
        loop {
            let own = groups.clone();
            let patient = self.clock.monotonic() < begun + SUPERVISOR_LIMIT;
            let cleared = blocking(id, move || {
                own.kill(id);
                if !patient {
                    own.kill_supervisor(id);
                }
                let left = own.processes(id);
                // The kernel lists one no more when it is dead, and lets the cgroup go a moment later.
                let removed = own.remove(id);
                Ok(match removed {
                    Ok(()) => None,
                    Err(error) if left.is_empty() => Some(error.to_string()),
                    Err(_) => Some(format!("the processes {left:?} do not end")),
                })
            })
            .await?;
            let Some(detail) = cleared else { return Ok(()) };
            if self.clock.monotonic() >= deadline {
                return Err(failed(id, "remove", detail));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[async_trait]
impl Walls for Shared {
    async fn signal(&self, id: SandboxId, signal: OrderSignal) {
        if let Ok(groups) = &self.groups {
            groups.signal_init(id, signal.number);
        }
    }

    async fn kill(&self, id: SandboxId) {
        if let Ok(groups) = &self.groups {
            groups.kill(id);
        }
    }

    async fn remove(&self, id: SandboxId) -> Result<(), SandboxError> {
        if let Ok(groups) = &self.groups {
            self.clear_groups(groups, id).await?;
        }
        let folder = self.folder(id);
        blocking(id, move || {
            let (reports, place) = (spec::reports(&folder), spec::place(&folder));
            let gone = |removed: io::Result<()>, path: &Path| match removed {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    Err(failed(id, "remove", format!("{}: {e}", path.display())))
                }
                _ => Ok(()),
            };
            gone(fs::remove_file(&reports), &reports)?;
            gone(fs::remove_dir(&place), &place)
        })
        .await
    }
}
