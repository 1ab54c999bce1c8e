//! The command line of `autoresearch-worker`. Standard output is data, standard error is talk.

/// `connect`.
mod connect;
/// `controllers list`, `revoke`.
mod controllers;
/// `dataset add`, `list`, `show`, `verify`, `remove`.
mod dataset;
/// `doctor`.
mod doctor;
/// `image …`.
mod image;
/// `init`.
mod init;
/// `serve`.
mod serve;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};
use kit::{
    task::CancellationToken,
    telemetry::{LogFormat, Settings, Telemetry, endpoint},
};
use serde::Serialize;

use crate::{
    config::{BackendName, ConfigError, WorkerConfig},
    datasets::DataSetError,
    serve::ServeError,
};

/// Runs one program per sandbox under hard limits, streams what it prints and measures, and keeps what it made.
///
/// A worker knows nothing of research or of models: `autoresearch` talks to it over its socket, and starts one itself
/// where none is configured.
#[derive(Debug, Parser)]
#[command(name = "autoresearch-worker", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, clap::Args)]
struct Common {
    /// Read this configuration file instead of ./autoresearch-worker.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep runs, blobs, lock and socket here [default: $XDG_DATA_HOME/autoresearch/worker]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Reach the engine here [default: $DOCKER_HOST, else the engine's usual socket]
    #[arg(long, global = true, value_name = "URL")]
    docker_host: Option<String>,
    /// Log what happens to standard error, like `info` or `worker=debug`
    #[arg(long, global = true, value_name = "FILTER", default_value = "info", env = "AUTORESEARCH_LOG")]
    log: String,
    /// Write log lines as `text` or `json` [default: text]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve runs until stopped
    Serve(serve::Serve),
    /// Let another machine in: make keys, listen with TLS, print one string to join with
    Init(init::Init),
    /// Bridge standard input and output to the worker, and start one where none runs
    Connect(connect::Connect),
    /// Who was let in from other machines
    #[command(subcommand)]
    Controllers(controllers::Controllers),
    /// Say what works on this host, and what to do about the rest
    Doctor(doctor::Doctor),
    /// Build, list and choose the images that runs may name
    #[command(subcommand)]
    Image(image::Image),
    /// Keep data sets that runs read at /data/NAME
    #[command(subcommand)]
    Dataset(dataset::Dataset),
    /// What the worker has done in a user namespace of its own
    #[command(name = crate::image::rootless::VERB, hide = true)]
    InNamespace {
        /// As JSON
        order: String,
    },
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// One JSON object
    Json,
}

/// The layer of flags over the configuration: only what was given.
#[derive(Debug, Default, Serialize)]
struct Flags {
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<std::net::SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_exit: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<BackendName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    docker: Option<DockerFlags>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Serialize)]
struct DockerFlags {
    host: String,
}

impl Common {
    fn configure(&self, more: Flags) -> Result<WorkerConfig, ConfigError> {
        let flags = Flags {
            data_dir: self.data_dir.clone(),
            docker: self.docker_host.clone().map(|host| DockerFlags { host }),
            log_format: self.log_format,
            ..more
        };
        WorkerConfig::load(self.config.as_deref(), flags)
    }

    /// Before anything else is said. What is wrong with the configuration is the command's to tell.
    fn telemetry(&self) -> Telemetry {
        let config = self.configure(Flags::default()).unwrap_or_default();
        Telemetry::start(&Settings {
            service: "autoresearch-worker",
            log: self.log.clone(),
            log_format: self.log_format.unwrap_or(config.log_format),
            colour: io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none(),
            otlp: endpoint(config.otlp_endpoint.as_deref()),
        })
    }
}

/// Bad usage or configuration.
const EXIT_USAGE: u8 = 2;
/// Something here does not work.
const EXIT_FAILED: u8 = 1;

/// Parses, configures, calls. 0: done; 1: it failed, or something here does not work; 2: bad usage.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            let text = format!("error: {}\n", chain(error.as_ref()));
            // Where standard error is closed there is nobody to tell.
            io::stderr().write_all(text.as_bytes()).ok();
            let data_set = error.downcast_ref::<DataSetError>().is_some_and(DataSetError::is_usage);
            let remote = error.is::<kit::identity::TextError>() || error.is::<init::InitError>();
            let keys = matches!(error.downcast_ref::<ServeError>(), Some(ServeError::NoKeys(_)));
            let usage = error.is::<ConfigError>() || data_set || remote || keys;
            ExitCode::from(if usage { EXIT_USAGE } else { EXIT_FAILED })
        }
    }
}

type CommandResult = Result<ExitCode, Box<dyn std::error::Error + Send + Sync>>;

fn run(arguments: &Arguments) -> CommandResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let shutdown = CancellationToken::new();
    let result = runtime.block_on(async {
        let _telemetry = arguments.common.telemetry();
        match &arguments.command {
            Command::Serve(command) => command.run(&arguments.common, shutdown.clone()).await,
            Command::Init(command) => command.run(&arguments.common),
            Command::Connect(command) => command.run(&arguments.common, &arguments.common.log).await,
            Command::Controllers(command) => command.run(&arguments.common),
            Command::Doctor(command) => command.run(&arguments.common).await,
            Command::Image(command) => command.run(&arguments.common, shutdown.clone()).await,
            Command::Dataset(command) => command.run(&arguments.common).await,
            Command::InNamespace { order } => {
                stop_on_signals(shutdown.clone())?;
                crate::image::rootless::serve(order, shutdown.clone()).await?;
                Ok(ExitCode::SUCCESS)
            }
        }
    });
    // Runs are left as they are; disk work that is under way gets a moment.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Cancels on SIGTERM and on SIGINT; a second one ends the process at once.
fn stop_on_signals(shutdown: CancellationToken) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    kit::task::spawn("signals", async move {
        tokio::select! {
            _ = term.recv() => tracing::info!("SIGTERM: stopping"),
            _ = int.recv() => tracing::info!("SIGINT: stopping"),
        }
        shutdown.cancel();
    });
    Ok(())
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The one printer to standard output.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn data_dir(config: &WorkerConfig) -> Result<PathBuf, kit::folder::FolderError> {
    config.data_folder()
}

/// The id of the worker of a folder, or a made-up one where there is none yet: looking leaves nothing.
fn worker_id_or_new(data_dir: &Path) -> String {
    let there = data_dir.join("worker-id").is_file();
    there
        .then(|| crate::serve::worker_id(data_dir).ok())
        .flatten()
        .unwrap_or_else(|| crate::serve::WorkerId::new().to_string())
}
