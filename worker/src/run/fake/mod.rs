//! A worker's inside for tests, over sandboxes that play a script (`sandbox`): images, slots, and the house that holds them
//! all. What is still there at the end of a test was left behind.

mod sandbox;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use kit::digest::Digest;
use proto::v1::{Image, ImageStep, InputFile, InputRole, Limits, RunSpec};
use tokio::sync::mpsc;

use super::{
    RunId,
    registry::{Registry, RegistryOptions, lock},
    seams::{BackendParts, ImageError, ImageSource, NoGpus, SlotGuard, SlotLease, SlotSource, SlotView},
};
use crate::{
    blobs::Blobs,
    packages::{
        Packages,
        fake::{FakeTool, Play},
    },
    sandbox::SlotGrant,
};

pub use sandbox::{Ending, FakeBackend, Moment, Script, World};

/// Images that are there, but for "raw", which is not prepared.
#[derive(Debug)]
pub struct FakeImages;

#[async_trait]
impl ImageSource for FakeImages {
    async fn list(&self) -> Vec<Image> {
        let image = |name: &str, prepared| Image {
            name: name.to_owned(),
            prepared,
            image_id: format!("sha256:{name}"),
            ..Image::default()
        };
        vec![image("lite", true), image("raw", false)]
    }
    async fn find(&self, name: &str) -> Result<Image, ImageError> {
        let unknown = || ImageError::Unknown { name: name.to_owned(), known: "lite, raw".into() };
        self.list().await.into_iter().find(|image| image.name == name).ok_or_else(unknown)
    }
    async fn prepare(&self, name: &str, steps: mpsc::Sender<ImageStep>) -> Result<Image, ImageError> {
        for done in 0..3 {
            steps.send(ImageStep { name: "packages".into(), done, total: 3, line: String::new() }).await.ok();
        }
        Ok(Image { prepared: true, ..self.find(name).await? })
    }
}

/// Slots of one CPU.
#[derive(Debug)]
pub struct FakeSlots {
    pub holders: Arc<Mutex<BTreeMap<u32, Option<RunId>>>>,
    pub set_aside: Mutex<BTreeMap<u32, String>>,
}

#[derive(Debug)]
struct FakeGuard(Arc<Mutex<BTreeMap<u32, Option<RunId>>>>, u32);

impl SlotGuard for FakeGuard {}

impl Drop for FakeGuard {
    fn drop(&mut self) {
        lock(&self.0).insert(self.1, None);
    }
}

impl SlotSource for FakeSlots {
    fn view(&self) -> Vec<SlotView> {
        let view = |(index, holder): (&u32, &Option<RunId>)| SlotView {
            index: *index,
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            holder: *holder,
            gpu_uuids: vec![format!("GPU-{index}")],
            quarantined: lock(&self.set_aside).get(index).cloned().unwrap_or_default(),
        };
        lock(&self.holders).iter().map(view).collect()
    }
    fn take(&self, run_id: RunId, _gpus: u32) -> Option<SlotLease> {
        self.find(run_id, |_| true)
    }
    fn take_index(&self, run_id: RunId, index: u32) -> Option<SlotLease> {
        self.find(run_id, |of| of == index)
    }
    fn set_aside(&self, index: u32, why: &str) {
        lock(&self.set_aside).entry(index).or_insert_with(|| why.to_owned());
    }
}

impl FakeSlots {
    fn find(&self, run_id: RunId, wanted: impl Fn(u32) -> bool) -> Option<SlotLease> {
        let mut holders = lock(&self.holders);
        let aside = lock(&self.set_aside);
        let free = |(index, holder): &(&u32, &mut Option<RunId>)| {
            wanted(**index) && holder.is_none() && !aside.contains_key(index)
        };
        let (index, holder) = holders.iter_mut().find(free)?;
        *holder = Some(run_id);
        Some(SlotLease {
            grant: SlotGrant {
                index: *index,
                uid: rustix::process::getuid().as_raw(),
                cpuset: None,
                gpu_uuids: Vec::new(),
            },
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            guard: Box::new(FakeGuard(Arc::clone(&self.holders), *index)),
        })
    }
}

/// A worker's inside, over a folder that goes with it.
#[derive(Debug)]
pub struct House {
    pub root: Arc<tempfile::TempDir>,
    pub backend: Arc<FakeBackend>,
    pub slots: Arc<FakeSlots>,
    pub blobs: Arc<Blobs>,
    pub tool: Arc<FakeTool>,
    pub registry: Arc<Registry>,
}

pub const OWNER: &str = "controller-1";

impl House {
    pub async fn new(script: Script) -> Self {
        Self::over(tempfile::tempdir().unwrap(), script, "boot-1").await
    }

    /// As a new process would find it, where nothing of any sandbox is left.
    pub async fn over(root: impl Into<Arc<tempfile::TempDir>>, script: Script, boot_id: &str) -> Self {
        let root = root.into();
        let world = World::new(root.path(), script);
        Self::in_world(root, world, boot_id, 2).await
    }

    /// As a new process would find it, with the sandboxes that there are.
    pub async fn in_world(
        root: Arc<tempfile::TempDir>,
        world: Arc<World>,
        boot_id: &str,
        slots: u32,
    ) -> Self {
        let clock = kit::clock::SystemClock::shared();
        let backend = Arc::new(FakeBackend::new(world));
        let slots = Arc::new(FakeSlots {
            holders: Arc::new(Mutex::new((0..slots).map(|index| (index, None)).collect())),
            set_aside: Mutex::default(),
        });
        let blobs = Blobs::open(&root.path().join("blobs"), 1 << 20, Arc::clone(&clock)).unwrap();
        let tool = Arc::new(FakeTool::new(Play::Packages(vec![("einops", "0.8.0")])));
        let mut config = crate::config::WorkerConfig::default();
        config.limits.default.disk = kit::size::Bytes(1 << 20);
        config.limits.default.artifacts = kit::size::Bytes(1 << 20);
        let options = RegistryOptions {
            runs_dir: root.path().join("runs"),
            tombstones: root.path().join("tombstones"),
            boot_id: boot_id.to_owned(),
            backends: vec![BackendParts {
                backend: backend.clone(),
                images: Arc::new(FakeImages),
                packages: tool.clone(),
            }],
            slots: slots.clone(),
            gpus: Arc::new(NoGpus),
            blobs: blobs.clone(),
            data_sets: crate::datasets::Store::at(root.path()),
            packages: Packages::open(&root.path().join("packages"), config.package_rules()).unwrap(),
            rules: config.limit_rules(1 << 30, 1000),
            retention: Duration::from_secs(100),
            clock,
        };
        let registry = super::recovery::open(options, 0).await.unwrap();
        Self { root, backend, slots, blobs, tool, registry }
    }

    /// A spec whose program is stored.
    pub fn spec(&self) -> RunSpec {
        let program = b"print(1)";
        let digest = Digest::of(program);
        if let Some(mut upload) = self.blobs.begin(digest, program.len() as u64, 0).unwrap() {
            upload.write(program).unwrap();
            upload.finish().unwrap();
        }
        RunSpec {
            image: "lite".into(),
            files: vec![InputFile {
                path: "main.py".into(),
                digest: digest.to_string(),
                size_bytes: 8,
                role: InputRole::Program.into(),
            }],
            limits: Some(Limits { grace_ms: 200, ..Limits::default() }),
            ..RunSpec::default()
        }
    }

    /// Nothing of any sandbox is left, and no slot is taken.
    pub fn assert_clean(&self) {
        self.backend.world.assert_empty();
        assert!(lock(&self.slots.holders).values().all(Option::is_none), "slots are taken");
    }
}
