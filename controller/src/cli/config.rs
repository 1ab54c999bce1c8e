//! Configuration: defaults, then `autoresearch.toml` (of the user, then of the current folder), then `AUTORESEARCH_*`,
//! then flags. An unknown key is an error that names it. Keys to models are not configuration: they come from the
//! environment alone (`llm::Keys`).

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};
use kit::duration::Span;
use serde::{Deserialize, Serialize};

use super::{
    error::CliError,
    values::{Count, Dollars},
};

/// The file in the current folder.
pub const FILE: &str = "autoresearch.toml";

/// What a command does where no worker listens at the data folder's socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalWorkerUse {
    /// It starts one.
    #[default]
    Start,
    /// It waits a while for the one that a service or another container runs there, and never starts its own.
    Find,
}

/// Every key. What is `None` has no limit or is the worker's to choose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: Option<PathBuf>,
    /// Who does the thinking.
    pub llm: String,
    /// Another base address of the provider.
    pub llm_url: Option<String>,
    /// A data set's name.
    pub dataset: Option<String>,
    /// The image that experiments run in.
    pub image: String,
    /// A single look at so many seeds.
    pub seeds: Option<Count>,
    /// At most so many experiments.
    pub max_iterations: Count,
    /// Awake and not paused.
    pub time_budget: Span,
    /// Of devices.
    pub gpu_budget: Option<Span>,
    /// US dollars for model calls.
    pub cost_budget: Option<Dollars>,
    /// As written: "0.5pt".
    pub smallest_effect: Option<String>,
    /// In a row.
    pub max_failures: Count,
    /// Of one experiment's program.
    pub max_repairs: u32,
    /// "docker" or "native"; the worker's choice where unset.
    pub backend: Option<String>,
    /// Whether a command may start a worker on this machine: `start`, or `find` where something else keeps it running.
    pub local_worker: LocalWorkerUse,
    /// Where workers that dial in are awaited, like 0.0.0.0:7434; where they were invited to if unset.
    pub listen: Option<SocketAddr>,
    /// Where Prometheus may read `/metrics` while a command researches, like `127.0.0.1:9464`.
    pub metrics_listen: Option<std::net::SocketAddr>,
    /// Where spans go by OTLP over gRPC; `OTEL_EXPORTER_OTLP_ENDPOINT` goes before it.
    pub otlp_endpoint: Option<String>,
    /// `text` or `json`.
    pub log_format: kit::telemetry::LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        const HOUR: u64 = 3600;
        Self {
            data_dir: None,
            llm: "offline".to_owned(),
            llm_url: None,
            dataset: None,
            image: "torch".to_owned(),
            seeds: None,
            max_iterations: Count(3),
            time_budget: Span(std::time::Duration::from_secs(8 * HOUR)),
            gpu_budget: None,
            cost_budget: None,
            smallest_effect: None,
            max_failures: Count(5),
            max_repairs: 3,
            backend: None,
            local_worker: LocalWorkerUse::Start,
            listen: None,
            metrics_listen: None,
            otlp_endpoint: None,
            log_format: kit::telemetry::LogFormat::Text,
        }
    }
}

impl Config {
    /// Reads the chain; `flags` holds only what was given on the command line.
    ///
    /// # Errors
    /// [`CliError::Usage`] that names the key and where it stands.
    pub fn load<F: Serialize>(flags: &F) -> Result<Self, CliError> {
        Self::from(Self::figment(user_file().as_deref()).merge(Serialized::globals(flags)))
    }

    fn figment(user: Option<&Path>) -> Figment {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        for file in user.into_iter().chain([Path::new(FILE)]).filter(|file| file.exists()) {
            figment = figment.merge(Toml::file_exact(file));
        }
        // The worker has its own prefix below ours; the log's filter, the program and a test's halts are no settings.
        let ours = Env::prefixed("AUTORESEARCH_")
            .filter(|key| {
                !key.starts_with("worker_")
                    && key != "log"
                    && key != "program"
                    && key != "halt"
                    && key != "ssh"
            })
            .lowercase(true);
        figment.merge(ours)
    }

    fn from(figment: Figment) -> Result<Self, CliError> {
        figment.extract().map_err(|error| {
            // The first one: a person mends one key at a time.
            let first = error.into_iter().next();
            CliError::Usage(first.map_or_else(|| "configuration: unreadable".to_owned(), |e| describe(&e)))
        })
    }

    /// Where everything is kept: `--data-dir`, else the user's data folder.
    ///
    /// # Errors
    /// Where there is no home.
    pub fn data_dir(&self) -> Result<PathBuf, CliError> {
        let chosen = match &self.data_dir {
            Some(folder) => folder.clone(),
            None => kit::folder::data()?,
        };
        std::path::absolute(&chosen).map_err(|e| CliError::field("data_dir", e))
    }
}

fn user_file() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)?;
    Some(folder.join("autoresearch").join(FILE))
}

fn describe(error: &figment::Error) -> String {
    let place = error.metadata.as_ref().map_or_else(
        || "configuration".to_owned(),
        |metadata| match metadata.source.as_ref().and_then(|source| source.file_path()) {
            Some(path) => path.display().to_string(),
            None => metadata.name.to_string(),
        },
    );
    let key = error.path.join(".");
    let line = match &error.kind {
        figment::error::Kind::UnknownField(field, known) => {
            format!("{place}: unknown key `{field}`; the keys are {}", known.join(", "))
        }
        kind if key.is_empty() => format!("{place}: {kind}"),
        kind => format!("{place}: {key}: {kind}"),
    };
    kit::text::one_line(&line, 600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> Result<Config, CliError> {
        let figment = Figment::from(Serialized::defaults(Config::default())).merge(Toml::string(text));
        Config::from(figment)
    }

    #[test]
    fn defaults_are_whole_and_a_file_changes_them() {
        assert_eq!(with_file("").unwrap(), Config::default());
        let config = with_file("time_budget = '1h30m'\nseeds = 5\ncost_budget = 2.5").unwrap();
        assert_eq!(config.time_budget.0.as_secs(), 5400);
        assert_eq!(config.seeds, Some(Count(5)));
        assert_eq!(config.cost_budget, Some(Dollars(2_500_000)));
    }

    #[test]
    fn a_wrong_key_or_value_is_named() {
        let message = |text| with_file(text).unwrap_err().to_string();
        assert!(message("sedes = 5").contains("unknown key `sedes`"));
        for (text, key) in [
            ("time_budget = '8x'", "time_budget"),
            ("max_iterations = 0", "max_iterations"),
            ("cost_budget = -1", "cost_budget"),
            ("cost_budget = nan", "cost_budget"),
        ] {
            assert!(message(text).contains(key), "{}", message(text));
        }
    }
}
