//! What every sandbox test needs: an image with one static program in it, made here, a backend with a worker's id
//! and folder of its own, and the proof that nothing is left.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bollard::{Docker, models::ImageInspect, query_parameters as query};
use futures_util::StreamExt as _;
use kit::{clock::SystemClock, id::new_uuid};
use worker::sandbox::{
    Assignment, Backend, Evidence, Order, ProgramEnd, Sandbox, SandboxClass, SandboxId, SandboxLimits,
    SlotGrant,
    docker::{DockerBackend, DockerOptions},
    native::{NativeBackend, NativeOptions},
};

pub const MIB: u64 = 1 << 20;
pub const UID: u32 = 50_007;

/// Compiles the test program once for this test binary.
fn program() -> &'static [u8] {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("sandboxed");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/sandboxed.rs");
        let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let status = Command::new(compiler)
            .args(["--edition=2024", "-O", "-Ctarget-feature=+crt-static", "-Cstrip=symbols", "-o"])
            .args([&out, &source])
            .status()
            .unwrap();
        assert!(status.success(), "the test program does not compile");
        fs::read(out).unwrap()
    })
}

/// Which backend a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Docker,
    Native,
}

impl On {
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Native => "native",
        }
    }
}

/// A backend as it was made, so that it can be given another program.
#[derive(Clone)]
pub enum Maker {
    Docker(DockerBackend),
    Native(NativeBackend),
}

impl Maker {
    async fn new(on: On, worker_id: &str, folder: &Path) -> Self {
        let (worker_id, sandboxes_dir) = (worker_id.to_owned(), folder.join("sandboxes"));
        let clock = SystemClock::shared();
        match on {
            On::Docker => Self::Docker(DockerBackend::connect(options(&worker_id, folder)).await.unwrap()),
            On::Native => {
                let rootfs_dir = folder.join("rootfs");
                let options = NativeOptions { worker_id, sandboxes_dir, rootfs_dir, clock };
                Self::Native(NativeBackend::new(options))
            }
        }
    }

    /// Its sandboxes start this.
    pub fn running(&self, program: Vec<String>) -> Arc<dyn Backend> {
        match self {
            Self::Docker(backend) => Arc::new(backend.clone().with_program(program)),
            Self::Native(backend) => Arc::new(backend.clone().with_program(program)),
        }
    }
}

pub struct Fixture {
    pub maker: Maker,
    pub worker_id: String,
    image: String,
    folder: PathBuf,
}

impl Fixture {
    pub async fn new(on: On) -> Self {
        Self::of_worker(on, format!("scratch-{}", new_uuid())).await
    }

    /// With a worker's id that somebody else chose.
    pub async fn of_worker(on: On, worker_id: String) -> Self {
        let root = nix::unistd::geteuid().is_root();
        assert!(root || on == On::Native, "these tests mount volumes: run them as root");
        let folder = std::env::temp_dir().join(&worker_id);
        let maker = Maker::new(on, &worker_id, &folder).await;
        let image = match &maker {
            Maker::Docker(backend) => import(&backend.docker(), &worker_id).await.id.unwrap(),
            Maker::Native(_) => unpack(&folder.join("rootfs")),
        };
        Self { maker, worker_id, image, folder }
    }

    pub fn backend(&self) -> Arc<dyn Backend> {
        self.running(&["exit", "0"])
    }

    pub fn running(&self, program: &[&str]) -> Arc<dyn Backend> {
        self.maker.running(words(program))
    }

    /// The same worker after a crash: same id, same folder, nothing remembered.
    pub async fn again(&self) -> Arc<dyn Backend> {
        let on = match self.maker {
            Maker::Docker(_) => On::Docker,
            Maker::Native(_) => On::Native,
        };
        Maker::new(on, &self.worker_id, &self.folder).await.running(words(&["exit", "0"]))
    }

    /// The same worker with another OCI runtime.
    pub async fn with_runtime(&self, name: &str) -> DockerBackend {
        let options = options(&self.worker_id, &self.folder);
        DockerBackend::connect(DockerOptions { runtime: Some(name.to_owned()), ..options }).await.unwrap()
    }

    pub fn sandboxes(&self) -> PathBuf {
        self.folder.join("sandboxes")
    }

    pub fn class(&self) -> SandboxClass {
        let limits = SandboxLimits {
            memory_bytes: 64 * MIB,
            cpu_millis: 1000,
            pids: 32,
            disk_bytes: 24 * MIB,
            shm_bytes: 8 * MIB,
            log_bytes: [4 * MIB; 3],
        };
        let slot = SlotGrant { index: 7, uid: UID, cpuset: Some("0".into()), gpu_uuids: Vec::new() };
        SandboxClass { id: SandboxId::new(), image_id: self.image.clone(), slot, limits, layers: Vec::new() }
    }

    /// Up to the open start gate.
    pub async fn start(&self, program: &[&str]) -> Arc<dyn Sandbox> {
        let sandbox = self.gated(program).await;
        sandbox.order(Order::Start).await.unwrap();
        sandbox
    }

    /// Up to the start gate, every wall checked.
    pub async fn gated(&self, program: &[&str]) -> Arc<dyn Sandbox> {
        let sandbox = self.running(program).prepare(self.class()).await.unwrap();
        sandbox.assign(&self.assignment()).await.unwrap();
        sandbox.verify().await.unwrap();
        sandbox
    }

    pub fn assignment(&self) -> Assignment {
        let code = self.folder.join("main.py");
        fs::write(&code, "print('code')\n").unwrap();
        Assignment {
            run_json: b"{\"seed\":3}\n".to_vec(),
            files: vec![("code/main.py".into(), code)],
            time_limit: Duration::from_secs(60),
            grace: Duration::from_secs(1),
        }
    }

    /// As the host counts.
    pub async fn pid_1(&self, sandbox: &Arc<dyn Sandbox>) -> i32 {
        let id = sandbox.id();
        match &self.maker {
            Maker::Docker(backend) => {
                let found = backend.docker().inspect_container(&format!("ar-{id}"), None).await.unwrap();
                found.state.unwrap().pid.unwrap() as i32
            }
            // It was there first.
            Maker::Native(_) => {
                let list = self.native_cgroup(id).join("run/cgroup.procs");
                let list = fs::read_to_string(list).unwrap();
                list.lines().map(|line| line.parse().unwrap()).min().unwrap()
            }
        }
    }

    /// The folder of a sandbox without an engine that has its processes.
    pub fn native_cgroup(&self, id: SandboxId) -> PathBuf {
        let place = format!("autoresearch-{}/{id}", self.worker_id);
        let mut roots = bases().into_iter().map(|root| root.join(&place));
        roots.find(|folder| folder.join("run/cgroup.procs").exists()).unwrap()
    }

    /// The folders of a sandbox's cgroup, under every controller that has one.
    pub async fn cgroups(&self, sandbox: &Arc<dyn Sandbox>) -> Vec<PathBuf> {
        let pid = self.pid_1(sandbox).await;
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let paths =
            text.lines().map(|line| line.splitn(3, ':').nth(2).unwrap().trim_start_matches('/').to_owned());
        let roots =
            ["memory", "pids", "cpu", "unified", ""].map(|name| Path::new("/sys/fs/cgroup").join(name));
        // The root of a hierarchy that it did not join is nobody's.
        let all =
            paths.filter(|path| !path.is_empty()).flat_map(|path| roots.clone().map(|root| root.join(&path)));
        all.filter(|folder| folder.join("cgroup.procs").exists()).collect()
    }

    /// Every trace of this worker that there is, by the kernel's and the engine's own lists.
    pub async fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        if let Maker::Docker(backend) = &self.maker {
            let filters = [("label".to_owned(), vec![format!("autoresearch={}", self.worker_id)])].into();
            let options =
                query::ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
            let containers = backend.docker().list_containers(Some(options)).await.unwrap();
            traces.extend(containers.into_iter().map(|c| format!("container {:?}", c.names)));
        }
        traces.extend(cgroups_of(&self.worker_id));
        traces.extend(processes_of(&self.worker_id));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        traces.extend(mounts.lines().filter(|l| l.contains(&self.worker_id)).map(str::to_owned));
        for device in fs::read_dir("/sys/block").unwrap().flatten() {
            let backing = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
            if backing.contains(&self.worker_id) {
                traces.push(format!("{:?} holds {backing}", device.file_name()));
            }
        }
        traces.extend(fs::read_dir(self.sandboxes()).unwrap().flatten().map(|e| format!("{:?}", e.path())));
        traces
    }
}

/// Also where a test fails: nothing of it stays.
impl Drop for Fixture {
    fn drop(&mut self) {
        let (maker, image, folder) = (self.maker.clone(), self.image.clone(), self.folder.clone());
        let clean = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                maker.running(Vec::new()).sweep(&Default::default()).await.ok();
                if let Maker::Docker(backend) = maker {
                    let options = query::RemoveImageOptions { force: true, ..Default::default() };
                    backend.docker().remove_image(&image, Some(options), None).await.ok();
                }
            });
            fs::remove_dir_all(folder).ok();
        };
        std::thread::spawn(clean).join().ok();
    }
}

/// A sandbox's cgroups under every hierarchy, and the folder that holds them, as one line each.
fn cgroups_of(worker_id: &str) -> Vec<String> {
    let roots = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|root| root.path());
    let roots: std::collections::BTreeSet<PathBuf> = roots.chain(bases()).collect();
    let mut found = Vec::new();
    for parent in
        roots.into_iter().map(|root| root.join(format!("autoresearch-{worker_id}"))).filter(|p| p.exists())
    {
        let sandboxes = fs::read_dir(&parent).unwrap().flatten().filter(|entry| entry.path().is_dir());
        let before = found.len();
        found.extend(sandboxes.map(|entry| entry.path().display().to_string()));
        if found.len() == before {
            found.push(parent.display().to_string());
        }
    }
    found
}

/// Where a worker without an engine makes its cgroups: under version 1 a controller's root, else its own or those above.
fn bases() -> Vec<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let own = Path::new("/sys/fs/cgroup").join(own);
    let above = own.ancestors().take(2).map(Path::to_owned);
    [PathBuf::from("/sys/fs/cgroup/pids")].into_iter().chain(above).collect()
}

/// Launchers and holders, which have the worker's folder in their names.
fn processes_of(worker_id: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        Some(format!("process {:?}: {}", entry.file_name(), String::from_utf8_lossy(&line)))
    });
    lines.filter(|line| line.contains(worker_id) && line.contains("sandbox-init")).collect()
}

/// A root file system with the program in it, and nothing else; gives the image's id.
fn unpack(rootfs_dir: &Path) -> String {
    let digest = "5a".repeat(32);
    let folder = rootfs_dir.join(&digest);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("sandboxed"), program()).unwrap();
    fs::set_permissions(folder.join("sandboxed"), fs::Permissions::from_mode(0o755)).unwrap();
    format!("sha256:{digest}")
}

fn options(worker_id: &str, folder: &Path) -> DockerOptions {
    DockerOptions {
        worker_id: worker_id.to_owned(),
        sandboxes_dir: folder.join("sandboxes"),
        docker_host: None,
        runtime: None,
        clock: SystemClock::shared(),
    }
}

async fn import(docker: &Docker, tag: &str) -> ImageInspect {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(program().len() as u64);
    archive.append_data(&mut header, "sandboxed", program()).unwrap();
    let body = bollard::body_full(archive.into_inner().unwrap().into());
    let name = format!("scratch-sandbox:{tag}");
    let options = query::CreateImageOptions {
        from_src: Some("-".into()),
        repo: Some("scratch-sandbox".into()),
        tag: Some(tag.into()),
        ..Default::default()
    };
    let mut steps = Box::pin(docker.create_image(Some(options), Some(body), None));
    while let Some(step) = steps.next().await {
        step.unwrap();
    }
    docker.inspect_image(&name).await.unwrap()
}

pub fn words(program: &[&str]) -> Vec<String> {
    std::iter::once("/sandboxed").chain(program.iter().copied()).map(str::to_owned).collect()
}

/// Waits for the program's own end.
pub async fn ended(sandbox: &Arc<dyn Sandbox>) -> ProgramEnd {
    let mut reports = sandbox.reports();
    let wait = reports.wait_for(|now| now.ended.is_some() || now.gone.is_some());
    let now =
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the program does not end").unwrap();
    now.ended.clone().unwrap_or_else(|| panic!("PID 1 is gone: {:?}", now.gone))
}

/// Waits for a piece of text on a stream, with a limit that says what was there instead.
pub async fn said(path: &Path, text: &str) -> String {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let found = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        if found.contains(text) {
            return found;
        }
        assert!(Instant::now() < until, "`{text}` was never said, only `{found}`");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// From the program's end to the last trace: kill, read, end, remove.
pub async fn finish(sandbox: &Arc<dyn Sandbox>) -> Evidence {
    sandbox.order(Order::Kill).await.unwrap();
    let evidence = sandbox.evidence().await;
    sandbox.end().await.unwrap();
    sandbox.remove().await.unwrap();
    evidence
}
