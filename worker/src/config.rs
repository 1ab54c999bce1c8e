//! Configuration, turned once into values that the rest trusts: defaults, then `autoresearch-worker.toml`, then
//! `AUTORESEARCH_WORKER_*`, then flags. An unknown key is an error that names it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};
use kit::{duration::Span, size::Bytes, telemetry::LogFormat};
use serde::{Deserialize, Serialize};

use crate::{
    packages::PackageRules,
    run::spec::{LimitRules, RunLimits},
};

/// The file that is read where no other is named.
pub const FILE: &str = "autoresearch-worker.toml";
/// Before every variable; a key inside a table is written with two underscores: `AUTORESEARCH_WORKER_BLOBS__TOTAL`.
pub const PREFIX: &str = "AUTORESEARCH_WORKER_";

/// The worker's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// State: runs, blobs, sandboxes, lock and socket. Unset: `$XDG_DATA_HOME/autoresearch/worker`.
    pub data_dir: Option<PathBuf>,
    /// An address to listen on besides the socket: on loopback without TLS, and every local user is then the worker's
    /// owner; on any other with TLS, for which `init` must have made keys.
    pub listen: Option<SocketAddr>,
    /// Stop as soon as there is neither a connection nor a run that has not ended.
    pub idle_exit: bool,
    /// How many slots; more than the cores are refused. Unset: one for each GPU, or for each core where there is none.
    pub slots: Option<u32>,
    /// Which backend makes the sandboxes of runs that name none. Unset: docker where an engine answers, else native.
    pub backend: Option<BackendName>,
    /// The engine.
    pub docker: DockerConfig,
    /// What input files may take.
    pub blobs: BlobConfig,
    /// Data sets.
    pub datasets: DataSetConfig,
    /// What runs may install.
    pub packages: PackageConfig,
    /// Of runs.
    pub limits: LimitConfig,
    /// Reaching it from other machines.
    pub remote: RemoteConfig,
    /// Finished runs that nobody released are kept for so long, counted while a worker runs.
    pub retention: Span,
    /// Where Prometheus may read `/metrics`, like `127.0.0.1:9464`. Unset: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Where spans go by OTLP over gRPC, like `http://127.0.0.1:4317`; `OTEL_EXPORTER_OTLP_ENDPOINT` goes before it.
    /// Unset: nowhere.
    pub otlp_endpoint: Option<String>,
    /// `text` or `json`.
    pub log_format: LogFormat,
}

/// A way to make sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum BackendName {
    /// The container engine
    Docker,
    /// The kernel alone, with root file systems that the worker makes itself
    Native,
}

impl BackendName {
    /// As runs name it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Native => "native",
        }
    }
}

/// The engine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DockerConfig {
    /// Like `unix:///run/docker.sock`. Unset: `DOCKER_HOST`, else the engine's usual socket.
    pub host: Option<String>,
    /// An OCI runtime that the engine knows, like `runsc`.
    pub runtime: Option<String>,
}

/// Stored input files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobConfig {
    /// All of them together.
    pub total: Bytes,
}

/// Data sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSetConfig {
    /// One of them, all its files together.
    pub largest: Bytes,
}

/// What runs may install besides what is in their image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageConfig {
    /// That one request may download and unpack.
    pub size: Bytes,
    /// That one request may take.
    pub time: Span,
    /// All that is kept for later runs.
    pub cache: Bytes,
}

/// Of runs: what they get, and what they may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitConfig {
    /// For what a run leaves unset.
    pub default: LimitTable,
    /// What a run may ask for.
    pub largest: LimitTable,
}

/// One set of limits. Memory and CPUs that are unset are the slot's share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitTable {
    /// Wall clock.
    pub time: Span,
    /// From SIGTERM to SIGKILL.
    pub grace: Span,
    /// No output, no metric, idle devices.
    pub stall: Span,
    /// With no swap.
    pub memory: Option<Bytes>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids: u32,
    /// Of the run's volume.
    pub disk: Bytes,
    /// /dev/shm. Unset: a quarter of memory.
    pub shm: Option<Bytes>,
    /// Stored of standard output.
    pub stdout: Bytes,
    /// Stored of standard error.
    pub stderr: Bytes,
    /// Stored of the metrics stream.
    pub metrics: Bytes,
    /// Stored points.
    pub metric_points: u64,
    /// Copied out, in all.
    pub artifacts: Bytes,
    /// Copied out.
    pub artifact_files: u32,
}

/// Reaching the worker from other machines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteConfig {
    /// Of this worker's certificate, which is renewed by itself. At most 400 days count.
    pub certificate_lifetime: Span,
    /// How long the string that `init` prints can be used.
    pub invitation_lifetime: Span,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Default for WorkerConfig {
    fn default() -> Self {
        let span = |seconds| Span(Duration::from_secs(seconds));
        let log = Bytes(64 * MIB);
        Self {
            data_dir: None,
            listen: None,
            idle_exit: false,
            slots: None,
            backend: None,
            docker: DockerConfig::default(),
            blobs: BlobConfig { total: Bytes(16 * GIB) },
            datasets: DataSetConfig { largest: Bytes(1024 * GIB) },
            packages: PackageConfig { size: Bytes(4 * GIB), time: span(600), cache: Bytes(16 * GIB) },
            limits: LimitConfig {
                default: LimitTable {
                    time: span(600),
                    grace: span(5),
                    stall: span(600),
                    memory: None,
                    cpu_millis: None,
                    pids: 1024,
                    disk: Bytes(4 * GIB),
                    shm: None,
                    stdout: log,
                    stderr: log,
                    metrics: log,
                    metric_points: 1_000_000,
                    artifacts: Bytes(GIB),
                    artifact_files: 1000,
                },
                largest: LimitTable {
                    time: span(7 * 86_400),
                    grace: span(300),
                    stall: span(7 * 86_400),
                    memory: None,
                    cpu_millis: None,
                    pids: 16_384,
                    disk: Bytes(256 * GIB),
                    shm: None,
                    stdout: Bytes(GIB),
                    stderr: Bytes(GIB),
                    metrics: Bytes(GIB),
                    metric_points: 10_000_000,
                    artifacts: Bytes(64 * GIB),
                    artifact_files: 5000,
                },
            },
            remote: RemoteConfig {
                certificate_lifetime: Span(kit::identity::LIFETIME),
                invitation_lifetime: Span(kit::identity::INVITATION_LIFETIME),
            },
            retention: span(30 * 86_400),
            metrics_listen: None,
            otlp_endpoint: None,
            log_format: LogFormat::Text,
        }
    }
}

fn milliseconds(span: Span) -> u64 {
    u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX)
}

impl LimitTable {
    fn run_limits(&self) -> RunLimits {
        RunLimits {
            time_ms: milliseconds(self.time),
            grace_ms: milliseconds(self.grace),
            stall_ms: milliseconds(self.stall),
            memory_bytes: self.memory.map_or(0, |bytes| bytes.0),
            cpu_millis: self.cpu_millis.unwrap_or(0),
            pids: self.pids,
            disk_bytes: self.disk.0,
            shm_bytes: self.shm.map_or(0, |bytes| bytes.0),
            log_bytes: [self.stdout.0, self.stderr.0, self.metrics.0],
            metric_points: self.metric_points,
            artifact_bytes: self.artifacts.0,
            artifact_files: self.artifact_files,
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named is not there.
    #[error("there is no configuration file {}", .0.display())]
    NoFile(PathBuf),
    /// A key that is unknown or has a wrong value; names it and where it stands.
    #[error("{0}")]
    Key(String),
    /// A time in which nothing can be done.
    #[error("remote.{0} is too short: {1} at least")]
    TooShort(&'static str, Span),
    /// A number that makes no run possible.
    #[error("limits.{0} must be over 0")]
    Zero(&'static str),
}

impl WorkerConfig {
    /// Reads all layers. `flags` hold only what was given; `file` is one that must be there.
    ///
    /// # Errors
    /// Names the file or the key.
    pub fn load(file: Option<&Path>, flags: impl Serialize) -> Result<Self, ConfigError> {
        if let Some(path) = file.filter(|path| !path.is_file()) {
            return Err(ConfigError::NoFile(path.to_owned()));
        }
        let figment = Figment::from(Serialized::defaults(Self::default()))
            .merge(Toml::file(file.unwrap_or(Path::new(FILE))))
            .merge(Env::prefixed(PREFIX).split("__"))
            .merge(Serialized::defaults(flags));
        let config: Self = figment.extract().map_err(|error| ConfigError::Key(key_error(&error)))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let long = |name, span: Span, least: Span| {
            if span.0 < least.0 { Err(ConfigError::TooShort(name, least)) } else { Ok(()) }
        };
        long("certificate_lifetime", self.remote.certificate_lifetime, Span(Duration::from_secs(3600)))?;
        long("invitation_lifetime", self.remote.invitation_lifetime, Span(Duration::from_secs(1)))?;
        let zero = |name, zero: bool| if zero { Err(ConfigError::Zero(name)) } else { Ok(()) };
        zero("default.pids", self.limits.default.pids == 0)?;
        zero("default.metric_points", self.limits.default.metric_points == 0)?;
        zero("default.artifact_files", self.limits.default.artifact_files == 0)?;
        zero("default.cpu_millis", self.limits.default.cpu_millis == Some(0))
    }

    /// The limits of runs, on slots of at most this share.
    #[must_use]
    pub fn limit_rules(&self, slot_memory: u64, slot_cpu_millis: u32) -> LimitRules {
        let mut largest = self.limits.largest.run_limits();
        // More than a slot's share would be another slot's.
        largest.memory_bytes =
            if largest.memory_bytes == 0 { slot_memory } else { largest.memory_bytes.min(slot_memory) };
        largest.cpu_millis =
            if largest.cpu_millis == 0 { slot_cpu_millis } else { largest.cpu_millis.min(slot_cpu_millis) };
        if largest.shm_bytes == 0 {
            largest.shm_bytes = largest.memory_bytes;
        }
        let mut default = self.limits.default.run_limits();
        default.memory_bytes = default.memory_bytes.min(largest.memory_bytes);
        default.cpu_millis = default.cpu_millis.min(largest.cpu_millis);
        LimitRules { default, largest }
    }

    /// The bounds of packages.
    #[must_use]
    pub fn package_rules(&self) -> PackageRules {
        let PackageConfig { size, time, cache } = &self.packages;
        PackageRules { size: size.0, time: time.0, cache: cache.0 }
    }

    /// Where the state lies.
    ///
    /// # Errors
    /// Where neither it nor a home is known.
    pub fn data_folder(&self) -> Result<PathBuf, kit::folder::FolderError> {
        match &self.data_dir {
            Some(folder) => Ok(folder.clone()),
            None => Ok(kit::folder::data()?.join("worker")),
        }
    }
}

/// One line: the key, what is wrong, where it was set.
fn key_error(error: &figment::Error) -> String {
    let one = |error: &figment::Error| {
        let key = error.path.join(".");
        let place = match &error.metadata {
            Some(metadata) => match &metadata.source {
                Some(source) => format!(" (in {source})"),
                None => format!(" (in {})", metadata.name),
            },
            None => String::new(),
        };
        if key.is_empty() {
            format!("{}{place}", error.kind)
        } else {
            format!("{key}: {}{place}", error.kind)
        }
    };
    error.clone().into_iter().map(|e| one(&e)).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Serialize)]
    struct Flags {
        #[serde(skip_serializing_if = "Option::is_none")]
        listen: Option<SocketAddr>,
    }

    fn load(text: &str) -> Result<WorkerConfig, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        WorkerConfig::load(Some(&path), Flags::default())
    }

    #[test]
    fn defaults_file_and_flags_in_this_order() {
        let config = load("[limits.default]\ntime = \"90s\"\nmemory = \"2GiB\"\n").unwrap();
        assert_eq!(config.limits.default.time, Span(Duration::from_secs(90)));
        assert_eq!(config.limits.default.pids, 1024);
        let rules = config.limit_rules(8 << 30, 2000);
        assert_eq!((rules.default.memory_bytes, rules.largest.memory_bytes), (2 << 30, 8 << 30));

        let flags = Flags { listen: Some("127.0.0.1:1".parse().unwrap()) };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, "listen = \"127.0.0.1:2\"").unwrap();
        assert_eq!(WorkerConfig::load(Some(&path), flags).unwrap().listen.unwrap().port(), 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |text: &str| load(text).unwrap_err().to_string();
        assert!(message("colour = 1").contains("colour"));
        assert_eq!(load("backend = \"native\"").unwrap().backend, Some(BackendName::Native));
        let backend = message("backend = \"podman\"");
        assert!(backend.contains("backend") && backend.contains("podman"), "{backend}");
        let nested = message("[limits.default]\nmemroy = \"1GiB\"");
        assert!(nested.contains("memroy") && nested.contains("c.toml"), "{nested}");
        let value = message("[limits.default]\ntime = \"8x\"");
        assert!(value.contains("limits.default.time") && value.contains("8x"), "{value}");
        let short = message("[remote]\ncertificate_lifetime = \"1m\"");
        assert!(short.contains("remote.certificate_lifetime") && short.contains("1h"), "{short}");
        assert!(message("[limits.default]\npids = 0").contains("limits.default.pids"));
        let missing = WorkerConfig::load(Some(Path::new("/nowhere/x.toml")), Flags::default());
        assert!(missing.unwrap_err().to_string().contains("/nowhere/x.toml"));
    }
}
