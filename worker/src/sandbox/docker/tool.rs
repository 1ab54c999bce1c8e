//! Packages' tool in a container of the run's image: an unprivileged uid with no capability, a read-only root, the host's network
//! and its settings for pip, one folder to write in. No code of a package runs in it. Labelled and named like a sandbox,
//! so that a sweep removes it after a crash.

use std::{collections::HashMap, os::unix::fs::PermissionsExt as _, path::Path};

use async_trait::async_trait;
use bollard::{
    container::LogOutput,
    models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, ResourcesUlimits},
    query_parameters::{CreateContainerOptions, LogsOptions, WaitContainerOptions},
};
use futures_util::StreamExt as _;
use kit::task::CancellationToken;

use super::{DockerBackend, OWNER_LABEL, SANDBOX_LABEL, Shared, container_name, remove_container, words};
use crate::{
    image::{HostSettings, native::TOOL_UID},
    packages::{PackageTool, SHARED_FOLDER, ToolEnd, ToolError, ToolJob},
    sandbox::SandboxId,
};

/// pip holds the index's pages and unpacks wheels as streams; the page cache counts too, and gives way.
const MEMORY_BYTES: i64 = 2 << 30;
const PIDS: i64 = 128;
const NANO_CPUS: i64 = 2_000_000_000;
const TMP_OPTIONS: &str = "rw,nosuid,nodev,noexec,size=64m,mode=1777";
const SETTINGS_FOLDER: &str = "/mnt/settings";
/// Of what it printed, for a tool that broke.
const OUTPUT_BYTES: usize = 4 << 10;

#[async_trait]
impl PackageTool for DockerBackend {
    async fn run(&self, job: &ToolJob, stop: &CancellationToken) -> Result<ToolEnd, ToolError> {
        let shared = &self.shared;
        let id = SandboxId::new();
        let failed = |what: &str, error: std::io::Error| ToolError::Engine(format!("{what}: {error}"));
        // Beside the tool's folder, seen read-only, and gone with this call.
        let beside = job.folder.parent().unwrap_or(&job.folder);
        let settings = tempfile::tempdir_in(beside).map_err(|e| failed("make a folder", e))?;
        let environment = environment(settings.path()).map_err(|e| failed("write the settings", e))?;
        let owner = give(&job.folder).map_err(|e| failed("give the tool its folder", e))?;
        let body = body(shared, id, job, owner, settings.path(), environment);
        let ended = stop.run_until_cancelled(in_container(shared, id, body)).await;
        // However it ended; also where the call that made it was cut off.
        if let Err(error) = remove_container(shared, id).await {
            tracing::error!(%error, "a container of the package resolver stays until the next sweep");
        }
        ended.unwrap_or(Err(ToolError::Stopped))
    }
}

/// Certificates, proxy, index. The variables are seen by `inspect` for as long as the container lives, by those who
/// may do anything with the engine anyway.
fn environment(folder: &Path) -> std::io::Result<Vec<String>> {
    let settings = HostSettings::read();
    let variables = settings.write_below(folder, SETTINGS_FOLDER)?;
    readable(folder)?;
    let proxies = settings.proxies().iter().map(|(name, value)| format!("{name}={value}"));
    let own = ["LANG=C.UTF-8".to_owned(), "PATH=/usr/local/bin:/usr/bin:/bin".to_owned()];
    Ok(variables
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .chain(proxies)
        .chain(own)
        .collect())
}

fn readable(path: &Path) -> std::io::Result<()> {
    let is_dir = std::fs::symlink_metadata(path)?.is_dir();
    if is_dir {
        for entry in std::fs::read_dir(path)? {
            readable(&entry?.path())?;
        }
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(if is_dir { 0o755 } else { 0o644 }))
}

/// Who owns nothing on this host but the folder; a worker that is not root can give nothing away, and is unprivileged
/// itself.
fn give(folder: &Path) -> std::io::Result<u32> {
    let own = nix::unistd::geteuid();
    if !own.is_root() {
        return Ok(own.as_raw());
    }
    std::os::unix::fs::lchown(folder, Some(TOOL_UID), Some(TOOL_UID))?;
    Ok(TOOL_UID)
}

fn body(
    shared: &Shared,
    id: SandboxId,
    job: &ToolJob,
    owner: u32,
    settings: &Path,
    environment: Vec<String>,
) -> ContainerCreateBody {
    let labels = [(OWNER_LABEL, shared.worker_id.clone()), (SANDBOX_LABEL, id.to_string())];
    let bind = |source: &Path, target: &str, read_only: bool| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    };
    let (program, arguments) =
        job.command.split_first().map_or((String::new(), &[][..]), |(p, a)| (p.clone(), a));
    ContainerCreateBody {
        image: Some(job.image_id.clone()),
        user: Some(format!("{owner}:{owner}")),
        working_dir: Some("/".to_owned()),
        entrypoint: Some(vec![program]),
        cmd: Some(arguments.to_vec()),
        env: Some(environment),
        labels: Some(labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        open_stdin: Some(false),
        host_config: Some(HostConfig {
            runtime: Some(shared.runtime.clone()),
            memory: Some(MEMORY_BYTES),
            memory_swap: Some(MEMORY_BYTES),
            nano_cpus: Some(NANO_CPUS),
            pids_limit: Some(PIDS),
            ulimits: Some(vec![ResourcesUlimits {
                name: Some("core".to_owned()),
                soft: Some(0),
                hard: Some(0),
            }]),
            privileged: Some(false),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
            network_mode: Some("host".to_owned()),
            readonly_rootfs: Some(true),
            tmpfs: Some(HashMap::from([("/tmp".to_owned(), TMP_OPTIONS.to_owned())])),
            mounts: Some(vec![
                bind(&job.folder, SHARED_FOLDER, false),
                bind(settings, SETTINGS_FOLDER, true),
            ]),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), "64k".to_owned()),
                    ("max-file".to_owned(), "1".to_owned()),
                ])),
            }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

async fn in_container(
    shared: &Shared,
    id: SandboxId,
    body: ContainerCreateBody,
) -> Result<ToolEnd, ToolError> {
    use bollard::errors::Error as EngineError;
    let docker = &shared.docker;
    let failed = |what: &'static str| {
        move |error: EngineError| ToolError::Engine(format!("{what} the package resolver: {}", words(&error)))
    };
    let name = container_name(id);
    let options = CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
    docker.create_container(Some(options), body).await.map_err(failed("create"))?;
    docker.start_container(&name, None).await.map_err(failed("start"))?;
    let code = match docker.wait_container(&name, None::<WaitContainerOptions>).next().await {
        Some(Ok(answer)) => answer.status_code,
        // The client's way to say that it ended with another code than 0.
        Some(Err(EngineError::DockerContainerWaitError { code, .. })) => code,
        Some(Err(error)) => return Err(failed("wait for")(error)),
        None => return Err(ToolError::Engine("the engine ended while packages were resolved".to_owned())),
    };
    let output = if code == 0 { String::new() } else { output(shared, &name).await };
    Ok(ToolEnd { code: Some(code), output })
}

/// The last that it printed.
async fn output(shared: &Shared, name: &str) -> String {
    let options = LogsOptions { stdout: true, stderr: true, tail: "40".to_owned(), ..LogsOptions::default() };
    let mut lines = shared.docker.logs(name, Some(options));
    let mut text = String::new();
    while let Some(Ok(line)) = lines.next().await {
        let bytes = match line {
            LogOutput::StdErr { message }
            | LogOutput::StdOut { message }
            | LogOutput::Console { message } => message,
            LogOutput::StdIn { .. } => continue,
        };
        text.push_str(&String::from_utf8_lossy(&bytes));
        if text.len() > 4 * OUTPUT_BYTES {
            text = kit::text::tail(&text, OUTPUT_BYTES).to_owned();
        }
    }
    kit::text::tail(&text, OUTPUT_BYTES).to_owned()
}
