//! The native backend: sandboxes out of the kernel's own parts, for a host without an engine.
//!
//! What belongs here: what an engine would do. The volume, the reading of cgroups, PID 1 and its reports are shared and
//! lie beside this folder; the launcher that builds the walls is `worker/sandbox-init/launch.rs`.
//!
//! `spec` is what the launcher is told, which is where most of the walls are; `make` brings a sandbox to life,
//! `adopt` takes up what an earlier process made; `groups` makes and removes cgroups (`v1`, `v2`); `rights` says whether
//! this worker is root, and `holder` has the volumes of one that is not; `gpu` finds a slot's devices; `follow` reads
//! PID 1's reports; `sweep` removes what nobody owns; `prove` tries every wall on this host once, before the first run; `describe` and
//! `standing` say how it went.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use kit::clock::Clock;
use tokio::sync::OnceCell;

use self::{groups::Groups, holder::Holder, prove::Proof};
use super::{
    Backend, BackendInfo, Sandbox, SandboxClass, SandboxError, SandboxId, init, seccomp, volume::Volume,
};

mod adopt;
mod describe;
mod follow;
mod gpu;
mod groups;
mod holder;
mod make;
mod prove;
mod rights;
mod spec;
mod standing;
mod sweep;
mod v1;
mod v2;

pub(crate) use rights::{Range, Rights};

/// What the backend is made with.
#[derive(Debug, Clone)]
pub struct NativeOptions {
    /// In the names of everything that it makes: a sweep touches nothing else.
    pub worker_id: String,
    /// Where the sandboxes' folders are; made if it is not there. No other backend's.
    pub sandboxes_dir: PathBuf,
    /// Where the images are: each a folder that is named by the 64 digits of its id.
    pub rootfs_dir: PathBuf,
    /// For time-outs.
    pub clock: Arc<dyn Clock>,
}

/// Sandboxes without an engine. A clone is the same.
#[derive(Debug, Clone)]
pub struct NativeBackend {
    shared: Arc<Shared>,
    program: Vec<String>,
    fault: usize,
}

/// What the backend and its sandboxes have in common.
#[derive(Debug)]
struct Shared {
    sandboxes_dir: PathBuf,
    rootfs_dir: PathBuf,
    clock: Arc<dyn Clock>,
    /// What this worker may do itself; where that is too little, no cgroup is made.
    rights: Option<Rights>,
    /// Where cgroups can be made, or why not and what to do.
    groups: Result<Groups, String>,
    /// The system calls that are let through, as the kernel takes them.
    filter: Vec<u8>,
    /// What was tried on this host, once for this process.
    proof: OnceCell<Proof>,
}

impl NativeBackend {
    /// Looks at the host. Where no sandbox can be made here, [`Backend::describe`] says why.
    #[must_use]
    pub fn new(options: NativeOptions) -> Self {
        let made = kit::folder::create_private(&options.sandboxes_dir).map_err(|e| e.to_string());
        // The kernel's tables have the path without links.
        let resolved = made.and_then(|()| options.sandboxes_dir.canonicalize().map_err(|e| e.to_string()));
        let (sandboxes_dir, no_folder) = match resolved {
            Ok(folder) => (folder, Ok(())),
            Err(why) => {
                let why = format!("cannot use {}: {why}", options.sandboxes_dir.display());
                (options.sandboxes_dir, Err(why))
            }
        };
        let (filter, no_filter) = match seccomp::program() {
            Ok(filter) => (filter, Ok(())),
            Err(why) => (Vec::new(), Err(why.to_string())),
        };
        let usable = no_folder.and(no_filter).and_then(|()| Rights::find());
        let usable = usable.and_then(|rights| describe::host(&rights).map(|()| rights));
        let shared = Shared {
            sandboxes_dir,
            rootfs_dir: options.rootfs_dir,
            clock: options.clock,
            rights: usable.clone().ok(),
            groups: usable.and_then(|rights| Groups::find(&options.worker_id, &rights)),
            filter,
            proof: OnceCell::new(),
        };
        let program = init::RUNNER.map(str::to_owned).to_vec();
        Self { shared: Arc::new(shared), program, fault: 0 }
    }

    /// Another program for PID 1 to start than the runner: its absolute path, then its arguments.
    #[must_use]
    pub fn with_program(self, program: Vec<String>) -> Self {
        Self { program, ..self }
    }

    /// For tests: the launcher's step of this number, from 1, fails.
    #[must_use]
    pub fn with_fault(self, step: usize) -> Self {
        Self { fault: step, ..self }
    }

    fn recipe(&self) -> make::Recipe {
        make::Recipe { program: self.program.clone(), fault: self.fault }
    }
}

impl Shared {
    /// The volume of a sandbox, whether or not it is there.
    fn volume(&self, id: SandboxId) -> Volume {
        match &self.rights {
            Some(Rights::Plain(range)) => {
                Volume::with_hands(&self.sandboxes_dir, id, Arc::new(Holder::new(range.clone())))
            }
            Some(Rights::Root) | None => Volume::at(&self.sandboxes_dir, id),
        }
    }
}

#[async_trait]
impl Backend for NativeBackend {
    fn name(&self) -> &'static str {
        "native"
    }

    async fn describe(&self) -> BackendInfo {
        describe::describe(&self.shared)
    }

    async fn prove(&self) {
        prove::once(&self.shared).await;
    }

    async fn prepare(&self, class: SandboxClass) -> Result<Arc<dyn Sandbox>, SandboxError> {
        prove::once(&self.shared).await.allow(class.id)?;
        make::without_layers(&self.shared, &class)?;
        let image = make::image(&self.shared, &class)?;
        Ok(Arc::new(make::prepare(Arc::clone(&self.shared), class, image, self.recipe()).await?))
    }

    async fn adopt(&self, class: SandboxClass) -> Result<Option<Arc<dyn Sandbox>>, SandboxError> {
        let found = adopt::adopt(Arc::clone(&self.shared), class, self.program.clone()).await?;
        Ok(found.map(|live| Arc::new(live) as Arc<dyn Sandbox>))
    }

    async fn sweep(&self, keep: &BTreeSet<SandboxId>) -> Result<Vec<String>, SandboxError> {
        sweep::sweep(&self.shared, keep).await
    }
}
