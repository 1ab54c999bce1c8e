//! A backend whose sandboxes play a script: log bytes, reports, evidence, artifacts. They live in a [`World`] that outlives the
//! process that made them, as an engine's do. It notes every call, can stop the caller at one for ever, so that a test can kill
//! it there, and writes down what must never happen: two sandboxes of a run, a signal before its reason, a start before its moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    run::registry::lock,
    sandbox::{
        Assignment, Backend, BackendInfo, Evidence, Gone, Layer, Order, ProgramEnd, Reading, Reports,
        Sandbox, SandboxClass, SandboxError, SandboxId, StreamPaths,
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
    /// PID 1 ends it, because nobody else did.
    Backstop,
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
    /// On standard output, half the way to the end.
    pub later: Vec<u8>,
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
            later: Vec::new(),
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

/// Before a call has done anything, or when it has done all and was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    Before,
    After,
}

/// What is there whether or not a worker is.
#[derive(Debug)]
pub struct World {
    root: PathBuf,
    pub script: Mutex<Script>,
    sandboxes: Mutex<BTreeMap<SandboxId, Arc<Inner>>>,
    pub calls: Mutex<Vec<String>>,
    pub run_json: Mutex<Vec<u8>>,
    /// Of the last sandbox.
    pub layers: Mutex<Vec<Layer>>,
    /// Where the next caller that comes by stops for ever.
    halt: Mutex<Option<(String, Moment)>>,
    halted: watch::Sender<bool>,
    /// What must never happen.
    pub wrong: Mutex<Vec<String>>,
}

impl World {
    pub fn new(root: &Path, script: Script) -> Arc<Self> {
        Arc::new(Self {
            root: root.to_owned(),
            script: Mutex::new(script),
            sandboxes: Mutex::default(),
            calls: Mutex::default(),
            run_json: Mutex::default(),
            layers: Mutex::default(),
            halt: Mutex::default(),
            halted: watch::Sender::new(false),
            wrong: Mutex::default(),
        })
    }

    fn folder(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    /// The next caller of this call stops there.
    pub fn halt_at(&self, call: &str, moment: Moment) {
        *lock(&self.halt) = Some((call.to_owned(), moment));
        self.halted.send_replace(false);
    }

    /// Nobody stops any more.
    pub fn go(&self) {
        *lock(&self.halt) = None;
    }

    /// Until somebody has stopped.
    pub async fn wait_halted(&self) {
        self.halted.subscribe().wait_for(|halted| *halted).await.unwrap();
    }

    async fn pass(&self, call: &str, moment: Moment) {
        if moment == Moment::Before {
            lock(&self.calls).push(call.to_owned());
        }
        let stop = {
            let mut halt = lock(&self.halt);
            let here = halt.as_ref().is_some_and(|(at, when)| at == call && *when == moment);
            if here {
                *halt = None;
            }
            here
        };
        if stop {
            self.halted.send_replace(true);
            std::future::pending::<()>().await;
        }
    }

    /// Of the run that has this sandbox.
    fn record(&self, id: SandboxId) -> serde_json::Value {
        let runs = std::fs::read_dir(self.root.join("runs")).into_iter().flatten().flatten();
        let records = runs.filter_map(|run| {
            serde_json::from_slice(&std::fs::read(run.path().join("record.json")).ok()?).ok()
        });
        let mut records = records.filter(|record: &serde_json::Value| record["sandbox_id"] == id.to_string());
        records.next().unwrap_or_default()
    }

    fn must(&self, good: bool, what: impl FnOnce() -> String) {
        if !good {
            lock(&self.wrong).push(what());
        }
    }

    fn remove(&self, id: SandboxId) {
        std::fs::remove_dir_all(self.folder().join(id.to_string())).ok();
        lock(&self.sandboxes).remove(&id);
    }

    #[track_caller]
    pub fn assert_empty(&self) {
        assert!(lock(&self.sandboxes).is_empty(), "sandboxes are left");
        let left = std::fs::read_dir(self.folder()).map(Iterator::count).unwrap_or(0);
        assert_eq!(left, 0, "files of sandboxes are left");
        assert_eq!(*lock(&self.wrong), Vec::<String>::new());
    }
}

/// The backend of one process.
#[derive(Debug)]
pub struct FakeBackend {
    pub world: Arc<World>,
}

impl FakeBackend {
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
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
        let world = &self.world;
        world.pass("prepare", Moment::Before).await;
        lock(&world.layers).clone_from(&class.layers);
        let script = lock(&world.script).clone();
        if script.prepare_fails {
            return Err(SandboxError::Call { verb: "create", id: class.id, detail: "on purpose".into() });
        }
        let folder = world.folder().join(class.id.to_string());
        world.must(!folder.exists(), || format!("a second sandbox {} is made", class.id));
        std::fs::create_dir_all(folder.join("work/artifacts")).unwrap();
        for name in ["stdout", "stderr", "metrics"] {
            std::fs::write(folder.join(name), b"").unwrap();
        }
        let reports = watch::Sender::new(Reports { ready: true, ..Reports::default() });
        let inner = Arc::new(Inner { id: class.id, folder, script, reports, container: Mutex::new(true) });
        lock(&world.sandboxes).insert(class.id, Arc::clone(&inner));
        world.pass("prepare", Moment::After).await;
        Ok(Arc::new(FakeSandbox { inner, world: Arc::clone(world) }))
    }
    async fn adopt(&self, class: SandboxClass) -> Result<Option<Arc<dyn Sandbox>>, SandboxError> {
        let world = &self.world;
        world.pass("adopt", Moment::Before).await;
        let found = lock(&world.sandboxes).get(&class.id).cloned();
        Ok(found.map(|inner| {
            Arc::new(FakeSandbox { inner: inner.seen_anew(), world: Arc::clone(world) }) as Arc<dyn Sandbox>
        }))
    }
    async fn sweep(&self, keep: &BTreeSet<SandboxId>) -> Result<Vec<String>, SandboxError> {
        self.world.pass("sweep", Moment::Before).await;
        if lock(&self.world.script).stays {
            return Ok(Vec::new());
        }
        let there: BTreeSet<SandboxId> = lock(&self.world.sandboxes).keys().copied().collect();
        let gone: Vec<SandboxId> = there.difference(keep).copied().collect();
        for id in &gone {
            self.world.remove(*id);
        }
        Ok(gone.iter().map(ToString::to_string).collect())
    }
    async fn left(&self) -> BTreeSet<SandboxId> {
        if !lock(&self.world.script).stays {
            return BTreeSet::new();
        }
        let entries = std::fs::read_dir(self.world.folder()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}

/// The sandbox itself: it has no part in who holds it.
#[derive(Debug)]
struct Inner {
    id: SandboxId,
    folder: PathBuf,
    script: Script,
    reports: watch::Sender<Reports>,
    /// Its logs and its counters go with it.
    container: Mutex<bool>,
}

impl Inner {
    fn end_with(&self, exit_code: Option<i32>, signal: Option<i32>) {
        let end = ProgramEnd { exit_code, signal, elapsed: Duration::from_millis(1) };
        self.reports.send_modify(|r| {
            r.ended.get_or_insert(end);
        });
    }

    /// Without its container there are no reports to read.
    fn seen_anew(self: Arc<Self>) -> Arc<Self> {
        if *lock(&self.container) {
            return self;
        }
        let gone = Gone { exit_code: None, detail: "the container was removed".into() };
        let reports = watch::Sender::new(Reports { gone: Some(gone), ..Reports::default() });
        Arc::new(Self {
            id: self.id,
            folder: self.folder.clone(),
            script: self.script.clone(),
            reports,
            container: Mutex::new(false),
        })
    }

    /// In a thread of its own: a worker's end is not the program's.
    fn play(self: &Arc<Self>) {
        self.reports.send_modify(|r| r.started = true);
        std::fs::write(self.folder.join("stdout"), &self.script.stdout).unwrap();
        std::fs::write(self.folder.join("stderr"), &self.script.stderr).unwrap();
        std::fs::write(self.folder.join("metrics"), &self.script.metrics).unwrap();
        for (name, bytes) in &self.script.artifacts {
            std::fs::write(self.folder.join("work/artifacts").join(name), bytes).unwrap();
        }
        let program = Arc::clone(self);
        std::thread::spawn(move || {
            let script = &program.script;
            std::thread::sleep(script.after / 2);
            let stdout = std::fs::OpenOptions::new().append(true).open(program.folder.join("stdout"));
            if let Ok(mut stdout) = stdout {
                stdout.write_all(&script.later).ok();
            }
            std::thread::sleep(script.after / 2);
            match script.ending {
                Ending::Exit(code) => program.end_with(Some(code), None),
                Ending::Signal(signal) => program.end_with(None, Some(signal)),
                Ending::Vanish(code) => program.reports.send_modify(|r| {
                    r.gone = Some(Gone { exit_code: Some(code), detail: String::new() });
                }),
                Ending::Backstop => {
                    program.reports.send_modify(|r| r.backstop = true);
                    program.end_with(None, Some(9));
                    program.reports.send_modify(|r| r.killed = true);
                }
                Ending::Obedient | Ending::Stubborn => {}
            }
        });
    }
}

/// A process's hold of it.
#[derive(Debug)]
struct FakeSandbox {
    inner: Arc<Inner>,
    world: Arc<World>,
}

#[async_trait]
impl Sandbox for FakeSandbox {
    fn id(&self) -> SandboxId {
        self.inner.id
    }
    async fn assign(&self, assignment: &Assignment) -> Result<(), SandboxError> {
        self.world.pass("assign", Moment::Before).await;
        lock(&self.world.run_json).clone_from(&assignment.run_json);
        self.world.pass("assign", Moment::After).await;
        Ok(())
    }
    async fn verify(&self) -> Result<(), SandboxError> {
        self.world.pass("verify", Moment::Before).await;
        if self.inner.script.verify_fails {
            let (id, detail) = (self.inner.id, "on purpose".into());
            return Err(SandboxError::NotInForce { id, rule: "memory", detail });
        }
        Ok(())
    }
    async fn order(&self, order: Order) -> Result<(), SandboxError> {
        let (inner, world, call) = (&self.inner, &self.world, format!("{order:?}"));
        world.pass(&call, Moment::Before).await;
        let seen = inner.reports.borrow().clone();
        match order {
            Order::Start => {
                let record = world.record(inner.id);
                world.must(!record["gate_monotonic"].is_null(), || "a start before its moment".into());
                if !seen.started {
                    inner.play();
                }
            }
            Order::Terminate => {
                let record = world.record(inner.id);
                world.must(!record["reason"].is_null(), || "a signal before its reason".into());
                inner.reports.send_modify(|r| r.terminating = true);
                if inner.script.ending == Ending::Obedient {
                    inner.end_with(None, Some(15));
                }
            }
            Order::Kill => {
                let id = inner.id;
                if inner.script.kill_fails {
                    return Err(SandboxError::NoAnswer { id, order, waited: Duration::from_secs(1) });
                }
                if seen.gone.is_some() {
                    return Err(SandboxError::Gone { id, detail: String::new() });
                }
                let record = world.record(id);
                let known = seen.ended.is_some() || !record["reason"].is_null() || !record["lost"].is_null();
                world.must(known || !seen.started, || format!("a kill before its reason: {record} {seen:?}"));
                inner.end_with(None, Some(9));
                inner.reports.send_modify(|r| r.killed = true);
            }
        }
        world.pass(&call, Moment::After).await;
        Ok(())
    }
    fn reports(&self) -> watch::Receiver<Reports> {
        self.inner.reports.subscribe()
    }
    fn streams(&self) -> StreamPaths {
        let at = |name: &str| self.inner.folder.join(name);
        StreamPaths { stdout: at("stdout"), stderr: at("stderr"), metrics: at("metrics") }
    }
    fn artifacts(&self) -> PathBuf {
        self.inner.folder.join("work/artifacts")
    }
    async fn reading(&self) -> Result<Reading, SandboxError> {
        Ok(Reading { cpu: self.inner.script.cpu, ..Reading::default() })
    }
    async fn evidence(&self) -> Evidence {
        self.world.pass("evidence", Moment::Before).await;
        let there = *lock(&self.inner.container);
        if there { self.inner.script.evidence.clone() } else { Evidence::default() }
    }
    async fn end(&self) -> Result<(), SandboxError> {
        self.world.pass("end", Moment::Before).await;
        if self.inner.script.end_fails {
            let (id, detail) = (self.inner.id, "on purpose".into());
            return Err(SandboxError::Call { verb: "remove", id, detail });
        }
        *lock(&self.inner.container) = false;
        self.world.pass("end", Moment::After).await;
        Ok(())
    }
    async fn remove(&self) -> Result<(), SandboxError> {
        self.world.pass("remove", Moment::Before).await;
        if self.inner.script.remove_fails {
            let (id, detail) = (self.inner.id, "on purpose".into());
            return Err(SandboxError::Volume { id, detail, disk_full: false });
        }
        self.world.remove(self.inner.id);
        self.world.pass("remove", Moment::After).await;
        Ok(())
    }
}
