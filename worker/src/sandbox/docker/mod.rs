//! The docker backend: sandboxes as containers of an engine of API 1.41 or later.
//!
//! What belongs here: everything that speaks to the engine. The volume, the cgroup and PID 1 are the worker's own
//! and lie beside this folder, for the backends that come later.
//!
//! `create` is the body of a container, which is where most of the walls are; with `gpus` for its devices;
//! `make` brings it to life, `adopt` takes up what an earlier process made; `follow` reads PID 1's reports; `sweep` removes what nobody owns; `describe`, with
//! `standing` and `warnings`, says what this engine can enforce.
//! `helper` is root's hands of a worker that is not root, and `plain` says what such a worker needs. `missing` stands
//! in where no engine answers.

use std::{
    collections::BTreeSet,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bollard::{API_DEFAULT_VERSION, Docker};
use kit::clock::Clock;

use super::{Backend, BackendInfo, Sandbox, SandboxClass, SandboxError, SandboxId, init, seccomp};

mod adopt;
mod create;
mod describe;
mod follow;
mod gpus;
mod helper;
mod make;
mod missing;
mod plain;
mod standing;
mod sweep;
mod tool;
mod warnings;

pub use missing::MissingDocker;

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// The first with a cgroup namespace of the container's own (engine 20.10).
const OLDEST_API: (usize, usize) = (1, 41);
/// Of one call to its answer's head. A kill alone may take 15 s (the engine waits for the exit).
const CALL_SECONDS: u64 = 60;
/// To say who it is an engine gets so long; a controller waits 10 s for its worker's socket.
const ANSWER_LIMIT: Duration = Duration::from_secs(6);
/// The label that says whose a container is; its value is the worker's id.
const OWNER_LABEL: &str = "autoresearch";
/// The label that says which sandbox a container is.
const SANDBOX_LABEL: &str = "autoresearch.sandbox";

/// What the backend is made with.
#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// Labels everything that it makes: a sweep touches nothing else.
    pub worker_id: String,
    /// Where the sandboxes' folders are; made if it is not there.
    pub sandboxes_dir: PathBuf,
    /// `unix:///path/of/docker.sock`; `None`: the variable DOCKER_HOST, then the usual socket.
    pub docker_host: Option<String>,
    /// The engine's name of the OCI runtime, like "runsc"; `None`: "runc".
    pub runtime: Option<String>,
    /// For time-outs.
    pub clock: Arc<dyn Clock>,
}

/// Sandboxes in containers.
#[derive(Debug, Clone)]
pub struct DockerBackend {
    shared: Arc<Shared>,
}

/// What the backend and its sandboxes have in common.
#[derive(Debug)]
struct Shared {
    docker: Docker,
    socket: String,
    worker_id: String,
    sandboxes_dir: PathBuf,
    runtime: String,
    program: Vec<String>,
    /// The table of system calls, as the engine takes it.
    seccomp: String,
    clock: Arc<dyn Clock>,
}

impl DockerBackend {
    /// Finds the engine and agrees on a version of its API.
    ///
    /// # Errors
    /// [`SandboxError::Engine`] with what is wrong and what to do about it.
    pub async fn connect(options: DockerOptions) -> Result<Self, SandboxError> {
        let socket = socket_path(options.docker_host.or_else(|| std::env::var("DOCKER_HOST").ok()))?;
        knock(&socket)?;
        let docker = Docker::connect_with_unix(&socket, CALL_SECONDS, API_DEFAULT_VERSION)
            .map_err(|e| engine(format!("{socket}: {e}: set DOCKER_HOST"), false))?;
        let docker = tokio::time::timeout(ANSWER_LIMIT, docker.negotiate_version())
            .await
            .map_err(|_| silent(&socket, &format!("nothing came within {ANSWER_LIMIT:?}")))?
            .map_err(|e| silent(&socket, &words(&e)))?;
        let spoken = docker.client_version();
        if (spoken.major_version, spoken.minor_version) < OLDEST_API {
            return Err(engine(
                format!("the engine at {socket} speaks API {spoken}, 1.41 is needed: update it"),
                false,
            ));
        }
        let folder = options.sandboxes_dir;
        kit::folder::create_private(&folder).map_err(|e| engine(format!("{e}: {}", cause(&e)), false))?;
        // The kernel's tables have the path without links.
        let sandboxes_dir = folder
            .canonicalize()
            .map_err(|e| engine(format!("cannot resolve {}: {e}", folder.display()), false))?;
        let shared = Shared {
            docker,
            socket,
            worker_id: options.worker_id,
            sandboxes_dir,
            runtime: options.runtime.unwrap_or_else(|| "runc".to_owned()),
            program: init::RUNNER.map(str::to_owned).to_vec(),
            seccomp: seccomp::profile().map_err(|e| engine(e.to_string(), false))?,
            clock: options.clock,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Another program for PID 1 to start than the runner: its absolute path, then its arguments.
    #[must_use]
    pub fn with_program(self, program: Vec<String>) -> Self {
        let old = &self.shared;
        let shared = Shared {
            docker: old.docker.clone(),
            socket: old.socket.clone(),
            worker_id: old.worker_id.clone(),
            sandboxes_dir: old.sandboxes_dir.clone(),
            runtime: old.runtime.clone(),
            program,
            seccomp: old.seccomp.clone(),
            clock: Arc::clone(&old.clock),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The engine's client, for building images.
    #[must_use]
    pub fn docker(&self) -> Docker {
        self.shared.docker.clone()
    }
}

#[async_trait]
impl Backend for DockerBackend {
    fn name(&self) -> &'static str {
        "docker"
    }

    async fn describe(&self) -> BackendInfo {
        describe::describe(&self.shared).await
    }

    async fn prepare(&self, class: SandboxClass) -> Result<Arc<dyn Sandbox>, SandboxError> {
        Ok(Arc::new(make::prepare(Arc::clone(&self.shared), class).await?))
    }

    async fn adopt(&self, class: SandboxClass) -> Result<Option<Arc<dyn Sandbox>>, SandboxError> {
        let found = adopt::adopt(Arc::clone(&self.shared), class).await?;
        Ok(found.map(|live| Arc::new(live) as Arc<dyn Sandbox>))
    }

    async fn sweep(&self, keep: &BTreeSet<SandboxId>) -> Result<Vec<String>, SandboxError> {
        sweep::sweep(&self.shared, keep).await
    }

    async fn left(&self) -> BTreeSet<SandboxId> {
        sweep::left(&self.shared).await
    }
}

fn socket_path(host: Option<String>) -> Result<String, SandboxError> {
    let host = host.filter(|h| !h.is_empty()).unwrap_or_else(|| format!("unix://{DEFAULT_SOCKET}"));
    match host.strip_prefix("unix://").unwrap_or(&host) {
        path if Path::new(path).is_absolute() => Ok(path.to_owned()),
        _ => Err(engine(
            format!(
                "`{host}` is no Unix socket: sandboxes need the engine of this machine, like unix://{DEFAULT_SOCKET}"
            ),
            false,
        )),
    }
}

/// The client gives one error for everything, so the socket is tried by hand first.
fn knock(socket: &str) -> Result<(), SandboxError> {
    use std::io::ErrorKind;
    let Err(error) = UnixStream::connect(socket) else { return Ok(()) };
    Err(match error.kind() {
        ErrorKind::NotFound => engine(
            format!("no Docker engine at {socket}: install Docker and start it, or set DOCKER_HOST"),
            false,
        ),
        ErrorKind::ConnectionRefused => engine(format!("nobody listens at {socket}: start Docker"), false),
        ErrorKind::PermissionDenied => engine(plain::no_permission(socket), true),
        _ => engine(
            format!("{socket} is no engine's socket ({error}): start Docker, or set DOCKER_HOST"),
            false,
        ),
    })
}

/// It takes the connection and gives no answer, or none that makes sense.
fn silent(socket: &str, what: &str) -> SandboxError {
    engine(silent_words(socket, what), false)
}

fn silent_words(socket: &str, what: &str) -> String {
    let what = kit::text::one_line(what, 300);
    format!("the engine at {socket} does not answer ({what}): restart Docker, or set DOCKER_HOST")
}

fn engine(detail: String, permission: bool) -> SandboxError {
    SandboxError::Engine { detail, permission }
}

fn cause(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

/// The engine's own words where it answered.
fn words(error: &bollard::errors::Error) -> String {
    match error {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message.clone(),
        other => {
            let cause = cause(other);
            if cause.is_empty() { other.to_string() } else { format!("{other}: {cause}") }
        }
    }
}

fn status_of(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn container_name(id: SandboxId) -> String {
    format!("ar-{id}")
}

/// Removes a sandbox's container and waits until the engine no longer knows it.
async fn remove_container(shared: &Shared, id: SandboxId) -> Result<(), SandboxError> {
    remove_named(shared, &container_name(id), id).await
}

/// The engine may answer before it is done, refuse while it is busy, or be done before the call.
async fn remove_named(shared: &Shared, name: &str, id: SandboxId) -> Result<(), SandboxError> {
    const LIMIT: Duration = Duration::from_secs(20);
    let deadline = shared.clock.monotonic() + LIMIT;
    let mut pause = Duration::from_millis(20);
    loop {
        let options = bollard::query_parameters::RemoveContainerOptions { v: true, force: true, link: false };
        let detail = match shared.docker.remove_container(name, Some(options)).await {
            Ok(()) => match shared.docker.inspect_container(name, None).await {
                Err(e) if status_of(&e) == Some(404) => return Ok(()),
                Err(e) => words(&e),
                Ok(_) => "it is still there".to_owned(),
            },
            Err(e) if status_of(&e) == Some(404) => return Ok(()),
            Err(e) => words(&e),
        };
        if shared.clock.monotonic() >= deadline {
            return Err(SandboxError::Call { verb: "remove", id, detail });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_of_this_machine_is_taken() {
        assert_eq!(socket_path(None).unwrap(), DEFAULT_SOCKET);
        assert_eq!(socket_path(Some("unix:///run/x.sock".into())).unwrap(), "/run/x.sock");
        let error = socket_path(Some("tcp://example:2375".into())).unwrap_err().to_string();
        assert!(error.contains("tcp://example:2375"), "{error}");
    }

    #[test]
    fn a_missing_engine_is_told_apart_from_a_silent_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let text = path.to_string_lossy().into_owned();
        assert!(knock(&text).unwrap_err().to_string().contains("install Docker"));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(knock(&text).unwrap_err().to_string().contains("start Docker"));
    }
}
