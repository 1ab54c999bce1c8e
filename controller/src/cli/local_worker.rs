//! The local worker: with no worker configured, a command starts one from this same binary (`cargo run -p controller`
//! builds no other), over the same socket and protocol as any other. This is the one file that links the worker's
//! library. It starts in a session of its own, so that Ctrl-C does not reach it, and goes by itself when it has
//! neither a connection nor a run.

use std::{
    fs::OpenOptions,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use kit::{clock::Clock, folder, task::CancellationToken};
use tokio::{
    process::{Child, Command},
    sync::Mutex,
};
use tonic::transport::Channel;

use super::{
    config::LocalWorkerUse,
    error::{CliError, chain},
};
use crate::fleet::{Dialer, FleetError, connect_unix};

/// The hidden command that this binary runs the worker under.
pub const COMMAND: &str = "local-worker";
/// What it is called.
pub const NAME: &str = "local";
/// Both the socket and starting one are tried for so long (WORKER §6).
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// A worker that ends at once is started again so often.
const STARTS: u32 = 3;
/// The worker's log is begun anew when it has grown past this.
const LOG_BYTES: u64 = 16 << 20;

/// The folder of the local worker.
#[must_use]
pub fn folder_of(data_dir: &Path) -> PathBuf {
    data_dir.join("worker")
}

/// The id of the worker of this data folder, where one was ever started.
#[must_use]
pub fn worker_id(data_dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder_of(data_dir).join("worker-id")).ok()?;
    Some(text.trim().to_owned())
}

/// Whether a worker that was killed has left something that its next start would remove.
#[must_use]
pub fn left_something(data_dir: &Path) -> bool {
    let any = |name: &str| {
        std::fs::read_dir(folder_of(data_dir).join(name)).is_ok_and(|mut entries| entries.next().is_some())
    };
    any("sandboxes")
        || any("sandboxes-native")
        || worker::serve::socket_path(&folder_of(data_dir)).is_ok_and(|socket| socket.exists())
}

/// The program that has the hidden command: this one, or, for a program that only links the library, the one named in
/// AUTORESEARCH_PROGRAM, the one beside it or above its folder, or the one on PATH.
pub(super) fn program() -> Result<PathBuf, String> {
    const NAME: &str = "autoresearch";
    if let Some(named) = std::env::var_os("AUTORESEARCH_PROGRAM") {
        return Ok(named.into());
    }
    let this = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    if this.file_name().is_some_and(|name| name == NAME) {
        return Ok(this);
    }
    let near = this.ancestors().skip(1).take(2).map(|folder| folder.join(NAME));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path).map(|folder| folder.join(NAME)).collect();
    let found = near.chain(on_path).find(|program| program.is_file());
    found.ok_or_else(|| {
        "the program `autoresearch` is not beside this one and not on PATH: install it, or name it in AUTORESEARCH_PROGRAM"
            .to_owned()
    })
}

/// Starts the local worker where none listens, and connects to it.
pub struct LocalWorker {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    may: LocalWorkerUse,
    child: Arc<Mutex<Option<Child>>>,
}

impl LocalWorker {
    /// Of the controller's data folder.
    #[must_use]
    pub fn new(data_dir: &Path, clock: Arc<dyn Clock>, may: LocalWorkerUse) -> Self {
        Self { folder: folder_of(data_dir), clock, may, child: Arc::new(Mutex::new(None)) }
    }

    /// Another handle on the same worker, for waiting until it is gone.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self {
            folder: self.folder.clone(),
            clock: self.clock.clone(),
            may: self.may,
            child: self.child.clone(),
        }
    }

    /// Waits until the worker that this process started has gone, at most so long.
    pub async fn wait_gone(&self, longest: Duration) {
        let mut child = self.child.lock().await;
        if let Some(child) = child.as_mut() {
            tokio::time::timeout(longest, child.wait()).await.ok();
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("worker.log")
    }

    fn start(&self) -> Result<(Child, u64), FleetError> {
        let unreachable = |detail: String| FleetError::Unreachable { worker: NAME.to_owned(), detail };
        folder::create_private(&self.folder).map_err(|e| unreachable(chain(&e)))?;
        let path = self.log();
        let open = || -> std::io::Result<_> {
            let mut log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
            if log.metadata()?.len() > LOG_BYTES {
                log.set_len(0)?;
            }
            let from = log.seek(SeekFrom::End(0))?;
            Ok((log.try_clone()?, log, from))
        };
        let (stdout, stderr, from) =
            open().map_err(|e| unreachable(format!("cannot write {}: {e}", path.display())))?;
        let program = program().map_err(unreachable)?;
        let child = Command::new(program)
            .arg(COMMAND)
            .arg(&self.folder)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn();
        Ok((child.map_err(|e| unreachable(format!("cannot start a worker: {e}")))?, from))
    }

    /// What the worker wrote last, for the error.
    fn last_words(&self, from: u64) -> String {
        let read = || -> std::io::Result<String> {
            let mut log = std::fs::File::open(self.log())?;
            log.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            log.take(64 << 10).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        kit::text::one_line(last, 400)
    }
}

#[async_trait]
impl Dialer for LocalWorker {
    async fn dial(&self) -> Result<Channel, FleetError> {
        let socket = worker::serve::socket_path(&self.folder)
            .map_err(|e| FleetError::Unreachable { worker: NAME.to_owned(), detail: chain(&e) })?;
        let mut child = self.child.lock().await;
        let (mut starts, mut log_from) = (0, 0);
        let since = self.clock.monotonic();
        loop {
            let refused = match connect_unix(socket.clone()).await {
                Ok(channel) => return Ok(channel),
                Err(refused) => refused,
            };
            let running = match child.as_mut() {
                Some(running) => matches!(running.try_wait(), Ok(None)),
                None => false,
            };
            let patient = self.clock.monotonic().saturating_sub(since) < PATIENCE;
            if self.may == LocalWorkerUse::Find {
                if !patient {
                    let detail = format!(
                        "nothing listens at {} and none is started here (local_worker = \"find\"): start the service or container that runs it",
                        socket.display()
                    );
                    return Err(FleetError::Unreachable { worker: NAME.to_owned(), detail });
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            if !running {
                if starts > 0 {
                    let words = self.last_words(log_from);
                    // Another worker holds the lock: it will listen in a moment, or go.
                    let taken = words.contains("in use by process");
                    if !taken && starts >= STARTS || !patient {
                        return Err(FleetError::Unreachable { worker: NAME.to_owned(), detail: words });
                    }
                    if !taken && words.contains("error:") {
                        let detail =
                            words.split_once("error:").map_or(words.clone(), |(_, w)| w.trim().to_owned());
                        return Err(FleetError::Unreachable { worker: NAME.to_owned(), detail });
                    }
                }
                let (started, from) = self.start()?;
                (*child, log_from) = (Some(started), from);
                starts += 1;
            } else if !patient {
                return Err(refused);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn name(&self) -> String {
        NAME.to_owned()
    }
}

/// How the local worker may be watched: as any worker, by its own configuration.
pub fn watched() -> (&'static str, kit::telemetry::LogFormat, Option<String>) {
    let config = worker::config::WorkerConfig::load(None, serde_json::json!({})).unwrap_or_default();
    ("autoresearch-worker", config.log_format, config.otlp_endpoint)
}

/// The hidden command: serves until idle.
///
/// # Errors
/// What the worker says, for the log that the starter reads.
pub async fn serve(folder: PathBuf) -> Result<(), CliError> {
    // In a session of its own, so that the terminal's signals do not reach it. It fails only where it is one already.
    nix::unistd::setsid().ok();
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    kit::task::spawn("signals", async move {
        let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(signal) => signal,
            Err(error) => return tracing::error!(%error, "cannot listen for SIGTERM"),
        };
        terminate.recv().await;
        stop.cancel();
    });
    let flags = serde_json::json!({ "data_dir": folder, "idle_exit": true });
    let config = worker::config::WorkerConfig::load(None, flags).map_err(|e| CliError::Usage(chain(&e)))?;
    worker::serve::serve(config, shutdown).await.map_err(|e| CliError::Failed(chain(&e)))
}
