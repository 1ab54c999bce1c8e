//! Root's hands of a worker that is not root: a short container of the run's image that mounts or unmounts one volume
//! and ends. It holds what mounting needs and nothing else: five capabilities, the host's `/dev` of which the device
//! rules open loop devices alone, and the folder of the sandboxes, `rshared`, so that what it mounts is seen outside.
//! No network, a read-only root, a limit on memory and processes. Its program is the embedded one; no code of a run
//! is ever in it, so it has the engine's own seccomp table: the run's denies mounting.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bollard::{
    container::LogOutput,
    models::{
        ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
        MountBindOptionsPropagationEnum, MountType, RestartPolicy, RestartPolicyNameEnum,
    },
    query_parameters::{CreateContainerOptions, ListImagesOptions, LogsOptions, WaitContainerOptions},
};
use futures_util::StreamExt as _;

use super::{OWNER_LABEL, SANDBOX_LABEL, Shared, plain, remove_named, words};
use crate::sandbox::{
    SandboxId,
    hands::{Hands, Work},
    init,
    volume::{HELPER, Volume},
};

/// Where it sees the sandboxes' folder.
const STATE: &str = "/state";
/// Below it, by number, the layers' images.
const LAYERS: &str = "/layers";
/// From the start to the end. Mounting takes milliseconds, a busy engine some seconds.
const LIMIT: Duration = Duration::from_secs(60);
const MEMORY_BYTES: i64 = 128 << 20;
const PIDS: i64 = 16;
/// Fewer do not do: mounting, append-only, the worker's private folder, and modes and owners of what is another's.
const CAPABILITIES: [&str; 5] = ["SYS_ADMIN", "LINUX_IMMUTABLE", "DAC_OVERRIDE", "FOWNER", "CHOWN"];
/// Every loop device, and the one that gives out free ones: all else of `/dev` stays shut.
const DEVICES: [&str; 2] = ["b 7:* rw", "c 10:237 rw"];

/// Of one sandbox, for a worker that is not root.
#[derive(Debug)]
pub(super) struct EngineHands {
    shared: Arc<Shared>,
    /// The run's; unknown after a crash.
    image: Option<String>,
}

impl Shared {
    /// The volume of a sandbox, with the hands that this worker has for it. Where no image is named, any does.
    pub(super) fn volume(self: &Arc<Self>, id: SandboxId, image: Option<&str>) -> Volume {
        if nix::unistd::geteuid().is_root() {
            return Volume::at(&self.sandboxes_dir, id);
        }
        let hands = EngineHands { shared: Arc::clone(self), image: image.map(str::to_owned) };
        Volume::with_hands(&self.sandboxes_dir, id, Arc::new(hands))
    }
}

/// The name of a sandbox's helper; it has that sandbox's label.
pub(super) fn name(id: SandboxId) -> String {
    format!("ar-{id}-volume")
}

impl Hands for EngineHands {
    fn work(&self, id: SandboxId, folder: &Path, work: &Work) -> Result<(), String> {
        if let Some(reason) = plain::lacks(&self.shared.sandboxes_dir) {
            return Err(reason);
        }
        put_program(&folder.join(HELPER))
            .map_err(|e| format!("cannot write {}: {e}", folder.join(HELPER).display()))?;
        // This thread is one for blocking work.
        tokio::runtime::Handle::current().block_on(async {
            let done = self.run(id, work).await;
            // Also where it failed half-way: the name must be free for the next one.
            let removed = remove_named(&self.shared, &name(id), id).await.map_err(|e| e.to_string());
            done.and(removed)
        })
    }
}

/// Once: the second helper finds the first one's.
fn put_program(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let partial = path.with_extension("partial");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o500)
        .open(&partial)
        .and_then(|mut file| file.write_all(init::PROGRAM))?;
    fs::rename(&partial, path)
}

impl EngineHands {
    async fn run(&self, id: SandboxId, work: &Work) -> Result<(), String> {
        let (docker, name) = (&self.shared.docker, name(id));
        let call = |verb: &'static str| {
            move |e: bollard::errors::Error| format!("{verb} the helper container for volumes: {}", words(&e))
        };
        let options =
            CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
        let (owner, folder) = (&self.shared.worker_id, &self.shared.sandboxes_dir);
        let body = body(owner, folder, id, work, self.image().await?);
        let created = docker.create_container(Some(options), body).await.map_err(call("create"))?;
        if !created.warnings.is_empty() {
            tracing::debug!(sandbox = %id, warnings = created.warnings.join("; "), "the helper's limits");
        }
        docker.start_container(&name, None).await.map_err(call("start"))?;
        let end = async {
            // Only a wake-up; the inspection is the truth.
            let options = WaitContainerOptions { condition: "not-running".to_owned() };
            let mut ends = Box::pin(docker.wait_container(&name, Some(options)));
            drop(ends.next().await);
            loop {
                let answer = docker.inspect_container(&name, None).await.map_err(call("inspect"))?;
                let state = answer.state.unwrap_or_default();
                if state.running == Some(false) {
                    return Ok::<_, String>((state.exit_code, state.error.unwrap_or_default()));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let (code, error) = tokio::time::timeout(LIMIT, end)
            .await
            .map_err(|_| format!("the helper container for volumes did not end within {LIMIT:?}"))??;
        if code == Some(0) {
            return Ok(());
        }
        let said = self.said(&name).await;
        let parts = [said, error].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        Err(format!(
            "the helper container for volumes ended with {}: {}",
            code.unwrap_or(-1),
            parts.join("; ")
        ))
    }

    async fn said(&self, name: &str) -> String {
        let options = LogsOptions { stderr: true, tail: "5".to_owned(), ..LogsOptions::default() };
        let mut stream = Box::pin(self.shared.docker.logs(name, Some(options)));
        let mut text = Vec::new();
        while let Some(Ok(LogOutput::StdErr { message })) = stream.next().await {
            text.extend_from_slice(&message);
        }
        kit::text::one_line(&String::from_utf8_lossy(&text), 500)
    }

    /// The program needs nothing of an image, so after a crash the first one does.
    async fn image(&self) -> Result<String, String> {
        if let Some(image) = &self.image {
            return Ok(image.clone());
        }
        let listed = self.shared.docker.list_images(None::<ListImagesOptions>).await;
        let listed = listed.map_err(|e| format!("list images for the helper container: {}", words(&e)))?;
        let ours = |tags: &[String]| tags.iter().any(|tag| tag.starts_with("autoresearch/"));
        let found = listed.iter().find(|image| ours(&image.repo_tags)).or(listed.first());
        found.map(|image| image.id.clone()).ok_or_else(|| {
            "the engine has no image for the helper container: `autoresearch-worker image build lite`"
                .to_owned()
        })
    }
}

fn body(owner: &str, sandboxes_dir: &Path, id: SandboxId, work: &Work, image: String) -> ContainerCreateBody {
    let folder = Path::new(STATE).join(id.to_string());
    let layers: Vec<PathBuf> =
        (0..work.layers().len()).map(|number| Path::new(LAYERS).join(number.to_string())).collect();
    let words = work.arguments(&folder, &layers);
    let labels = [(OWNER_LABEL, owner.to_owned()), (SANDBOX_LABEL, id.to_string())];
    let sources = work.layers().iter().zip(&layers);
    let layers =
        sources.map(|(source, place)| bind(source, place, MountBindOptionsPropagationEnum::RPRIVATE));
    let mounts = [
        bind(sandboxes_dir, Path::new(STATE), MountBindOptionsPropagationEnum::RSHARED),
        // A loop device that is made while it runs must be seen, so it is the folder and not its nodes.
        bind(Path::new("/dev"), Path::new("/dev"), MountBindOptionsPropagationEnum::RPRIVATE),
    ];
    let host = HostConfig {
        runtime: Some("runc".to_owned()),
        memory: Some(MEMORY_BYTES),
        memory_swap: Some(MEMORY_BYTES),
        pids_limit: Some(PIDS),
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
        device_cgroup_rules: Some(DEVICES.map(str::to_owned).to_vec()),
        // AppArmor's and SELinux's usual rules for containers deny mounting; both are ignored where there is neither.
        security_opt: Some(
            ["no-new-privileges:true", "apparmor=unconfined", "label=disable"].map(str::to_owned).to_vec(),
        ),
        network_mode: Some("none".to_owned()),
        ipc_mode: Some("private".to_owned()),
        // Owners on the volume are the host's numbers.
        userns_mode: Some("host".to_owned()),
        readonly_rootfs: Some(true),
        mounts: Some(mounts.into_iter().chain(layers).collect()),
        init: Some(false),
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig { typ: Some("json-file".to_owned()), config: None }),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(image),
        user: Some("0:0".to_owned()),
        working_dir: Some("/".to_owned()),
        entrypoint: Some(vec![folder.join(HELPER).to_string_lossy().into_owned()]),
        cmd: Some(words.iter().map(|word| word.to_string_lossy().into_owned()).collect()),
        env: Some(Vec::new()),
        labels: Some(labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        network_disabled: Some(true),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

fn bind(source: &Path, target: &Path, propagation: MountBindOptionsPropagationEnum) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_string_lossy().into_owned()),
        read_only: Some(propagation == MountBindOptionsPropagationEnum::RPRIVATE),
        bind_options: Some(MountBindOptions {
            propagation: Some(propagation),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_has_what_mounting_needs_and_nothing_else() {
        let id = SandboxId::new();
        let work = Work::Make {
            worker: (1000, 1000),
            slot_uid: 50_000,
            log_bytes: [1; 3],
            disk_bytes: 0,
            layers: vec!["/blobs/packages.ext4".into()],
        };
        let body = body("worker-1", Path::new("/data/sandboxes"), id, &work, "sha256:0".to_owned());
        assert_eq!(body.entrypoint.unwrap(), [format!("/state/{id}/helper")]);
        let words = body.cmd.unwrap();
        assert_eq!(words[..3], ["volume".to_owned(), "make".into(), format!("/state/{id}")]);
        assert_eq!(words.last().unwrap(), "/layers/0");
        assert_eq!(body.labels.unwrap()["autoresearch"], "worker-1");
        let host = body.host_config.unwrap();
        assert_eq!((host.privileged, host.readonly_rootfs), (Some(false), Some(true)));
        assert_eq!(
            (host.network_mode.as_deref(), host.cap_drop.unwrap()),
            (Some("none"), vec!["ALL".to_owned()])
        );
        assert_eq!(host.cap_add.unwrap().len(), 5);
        assert_eq!(host.device_cgroup_rules.unwrap(), DEVICES);
        assert!(host.security_opt.unwrap().contains(&"no-new-privileges:true".to_owned()));
        let mounts = host.mounts.unwrap();
        let writable: Vec<_> = mounts.iter().filter(|mount| mount.read_only != Some(true)).collect();
        assert_eq!(writable.len(), 1);
        assert_eq!(writable[0].source.as_deref(), Some("/data/sandboxes"));
    }
}
