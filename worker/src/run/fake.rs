//! A sandbox that plays a script, for tests: log bytes, reports, evidence, artifacts. It notes every call, and what is
//! still there at the end of a test was left behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use kit::digest::Digest;
use proto::v1::{Image, ImageStep, InputFile, InputRole, Limits, RunSpec};
use tokio::sync::{mpsc, watch};

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
    sandbox::{
        Assignment, Backend, BackendInfo, Evidence, Gone, Layer, Order, ProgramEnd, Reading, Reports,
        Sandbox, SandboxClass, SandboxError, SandboxId, SlotGrant, StreamPaths,
    },
};

/// How the program ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    Exit(i32),
    Signal(i32),
    /// Runs until it is stopped, and obeys SIGTERM.
    Obedient,
    /// Runs until SIGKILL.
    Stubborn,
    /// PID 1 goes without a report.
    Vanish(i64),
}

/// What a sandbox plays.
#[derive(Debug, Clone)]
pub struct Script {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub metrics: Vec<u8>,
    /// Written, and only then it ends.
    pub ending: Ending,
    pub after: Duration,
    pub evidence: Evidence,
    pub artifacts: Vec<(String, Vec<u8>)>,
    pub prepare_fails: bool,
    pub verify_fails: bool,
    pub remove_fails: bool,
    pub kill_fails: bool,
    pub end_fails: bool,
    /// A sweep removes nothing.
    pub stays: bool,
    pub cpu: Duration,
}

impl Script {
    pub fn exit(code: i32) -> Self {
        Self {
            stdout: Vec::new(),
            stderr: Vec::new(),
            metrics: Vec::new(),
            ending: Ending::Exit(code),
            after: Duration::ZERO,
            evidence: Evidence { complete: true, ..Evidence::default() },
            artifacts: Vec::new(),
            prepare_fails: false,
            verify_fails: false,
            remove_fails: false,
            kill_fails: false,
            end_fails: false,
            stays: false,
            cpu: Duration::ZERO,
        }
    }
    pub fn ending(ending: Ending) -> Self {
        Self { ending, ..Self::exit(0) }
    }
}

#[derive(Debug)]
pub struct FakeBackend {
    pub folder: PathBuf,
    pub script: Mutex<Script>,
    pub live: Arc<Mutex<BTreeSet<SandboxId>>>,
    pub calls: Arc<Mutex<Vec<String>>>,
    pub run_json: Arc<Mutex<Vec<u8>>>,
    /// Of the last sandbox.
    pub layers: Mutex<Vec<Layer>>,
}

impl FakeBackend {
    fn note(&self, call: &str) {
        lock(&self.calls).push(call.to_owned());
    }
}

#[async_trait]
impl Backend for FakeBackend {
    fn name(&self) -> &'static str {
        "docker"
    }
    async fn describe(&self) -> BackendInfo {
        BackendInfo { name: "docker".into(), version: "fake".into(), ..BackendInfo::default() }
    }
    async fn prepare(&self, class: SandboxClass) -> Result<Arc<dyn Sandbox>, SandboxError> {
        self.note("prepare");
        lock(&self.layers).clone_from(&class.layers);
        let script = lock(&self.script).clone();
        if script.prepare_fails {
            return Err(SandboxError::Call { verb: "create", id: class.id, detail: "on purpose".into() });
        }
        let folder = self.folder.join(class.id.to_string());
        std::fs::create_dir_all(folder.join("work/artifacts")).unwrap();
        for name in ["stdout", "stderr", "metrics"] {
            std::fs::write(folder.join(name), b"").unwrap();
        }
        lock(&self.live).insert(class.id);
        Ok(Arc::new(FakeSandbox {
            id: class.id,
            folder,
            script,
            reports: watch::Sender::new(Reports { ready: true, ..Reports::default() }),
            live: Arc::clone(&self.live),
            calls: Arc::clone(&self.calls),
            run_json: Arc::clone(&self.run_json),
        }))
    }
    async fn sweep(&self, keep: &BTreeSet<SandboxId>) -> Result<Vec<String>, SandboxError> {
        self.note("sweep");
        if lock(&self.script).stays {
            return Ok(Vec::new());
        }
        let mut live = lock(&self.live);
        let gone: Vec<SandboxId> = live.difference(keep).copied().collect();
        for id in &gone {
            std::fs::remove_dir_all(self.folder.join(id.to_string())).ok();
            live.remove(id);
        }
        Ok(gone.iter().map(ToString::to_string).collect())
    }
    async fn left(&self) -> BTreeSet<SandboxId> {
        if !lock(&self.script).stays {
            return BTreeSet::new();
        }
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}

#[derive(Debug)]
struct FakeSandbox {
    id: SandboxId,
    folder: PathBuf,
    script: Script,
    reports: watch::Sender<Reports>,
    live: Arc<Mutex<BTreeSet<SandboxId>>>,
    calls: Arc<Mutex<Vec<String>>>,
    run_json: Arc<Mutex<Vec<u8>>>,
}

impl FakeSandbox {
    fn note(&self, call: &str) {
        lock(&self.calls).push(call.to_owned());
    }
    fn end_with(&self, exit_code: Option<i32>, signal: Option<i32>) {
        self.reports.send_modify(|r| {
            r.ended.get_or_insert(ProgramEnd { exit_code, signal, elapsed: Duration::from_millis(1) });
        });
    }
}

#[async_trait]
impl Sandbox for FakeSandbox {
    fn id(&self) -> SandboxId {
        self.id
    }
    async fn assign(&self, assignment: &Assignment) -> Result<(), SandboxError> {
        self.note("assign");
        lock(&self.run_json).clone_from(&assignment.run_json);
        Ok(())
    }
    async fn verify(&self) -> Result<(), SandboxError> {
        self.note("verify");
        if self.script.verify_fails {
            return Err(SandboxError::NotInForce {
                id: self.id,
                rule: "memory",
                detail: "on purpose".into(),
            });
        }
        Ok(())
    }
    async fn order(&self, order: Order) -> Result<(), SandboxError> {
        self.note(&format!("{order:?}"));
        let gone = || SandboxError::Gone { id: self.id, detail: String::new() };
        match order {
            Order::Start => {
                self.reports.send_modify(|r| r.started = true);
                std::fs::write(self.folder.join("stdout"), &self.script.stdout).unwrap();
                std::fs::write(self.folder.join("stderr"), &self.script.stderr).unwrap();
                std::fs::write(self.folder.join("metrics"), &self.script.metrics).unwrap();
                for (name, bytes) in &self.script.artifacts {
                    std::fs::write(self.folder.join("work/artifacts").join(name), bytes).unwrap();
                }
                let (reports, ending, after) =
                    (self.reports.clone(), self.script.ending.clone(), self.script.after);
                kit::task::spawn("fake program", async move {
                    tokio::time::sleep(after).await;
                    let end = |exit_code, signal| {
                        Some(ProgramEnd { exit_code, signal, elapsed: Duration::from_millis(1) })
                    };
                    reports.send_modify(|r| match ending {
                        Ending::Exit(code) => r.ended = end(Some(code), None),
                        Ending::Signal(signal) => r.ended = end(None, Some(signal)),
                        Ending::Vanish(code) => {
                            r.gone = Some(Gone { exit_code: Some(code), detail: String::new() });
                        }
                        Ending::Obedient | Ending::Stubborn => {}
                    });
                });
            }
            Order::Terminate => {
                self.reports.send_modify(|r| r.terminating = true);
                if self.script.ending == Ending::Obedient {
                    self.end_with(None, Some(15));
                }
            }
            Order::Kill => {
                if self.script.kill_fails {
                    return Err(SandboxError::NoAnswer {
                        id: self.id,
                        order,
                        waited: Duration::from_secs(1),
                    });
                }
                if self.reports.borrow().gone.is_some() {
                    return Err(gone());
                }
                self.end_with(None, Some(9));
                self.reports.send_modify(|r| r.killed = true);
            }
        }
        Ok(())
    }
    fn reports(&self) -> watch::Receiver<Reports> {
        self.reports.subscribe()
    }
    fn streams(&self) -> StreamPaths {
        StreamPaths {
            stdout: self.folder.join("stdout"),
            stderr: self.folder.join("stderr"),
            metrics: self.folder.join("metrics"),
        }
    }
    fn artifacts(&self) -> PathBuf {
        self.folder.join("work/artifacts")
    }
    async fn reading(&self) -> Result<Reading, SandboxError> {
        Ok(Reading { cpu: self.script.cpu, ..Reading::default() })
    }
    async fn evidence(&self) -> Evidence {
        self.note("evidence");
        self.script.evidence.clone()
    }
    async fn end(&self) -> Result<(), SandboxError> {
        self.note("end");
        if self.script.end_fails {
            return Err(SandboxError::Call { verb: "remove", id: self.id, detail: "on purpose".into() });
        }
        Ok(())
    }
    async fn remove(&self) -> Result<(), SandboxError> {
        self.note("remove");
        if self.script.remove_fails {
            return Err(SandboxError::Volume { id: self.id, detail: "on purpose".into(), disk_full: false });
        }
        std::fs::remove_dir_all(&self.folder).ok();
        lock(&self.live).remove(&self.id);
        Ok(())
    }
}

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
        let mut holders = lock(&self.holders);
        let aside = lock(&self.set_aside);
        let free =
            |(index, holder): &(&u32, &mut Option<RunId>)| holder.is_none() && !aside.contains_key(index);
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
    fn set_aside(&self, index: u32, why: &str) {
        lock(&self.set_aside).entry(index).or_insert_with(|| why.to_owned());
    }
}

/// A worker's inside, over a folder that goes with it.
#[derive(Debug)]
pub struct House {
    pub root: tempfile::TempDir,
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

    /// As a new process would find it.
    pub async fn over(root: tempfile::TempDir, script: Script, boot_id: &str) -> Self {
        let clock = kit::clock::SystemClock::shared();
        let backend = Arc::new(FakeBackend {
            folder: root.path().join("sandboxes"),
            script: Mutex::new(script),
            live: Arc::default(),
            calls: Arc::default(),
            run_json: Arc::default(),
            layers: Mutex::default(),
        });
        let slots = Arc::new(FakeSlots {
            holders: Arc::new(Mutex::new((0..2).map(|index| (index, None)).collect())),
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
        assert!(lock(&self.backend.live).is_empty(), "sandboxes are left");
        let left = std::fs::read_dir(&self.backend.folder).map(Iterator::count).unwrap_or(0);
        assert_eq!(left, 0, "files of sandboxes are left");
        assert!(lock(&self.slots.holders).values().all(Option::is_none), "slots are taken");
    }
}
