//! What a command ends with when it does not succeed. The kind decides the exit code: 1 failed, 2 bad usage,
//! configuration or a machine that is not set up, 130 interrupted. One line on stderr says what and what to do.

use std::process::ExitCode;

/// Why a command ended.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line, the configuration, or what the machine lacks: nothing was done.
    #[error("{0}")]
    Usage(String),
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    /// A usage error about a named field.
    pub fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::Usage(format!("{field}: {problem}"))
    }

    /// 1, 2 or 130.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Interrupted => 130,
        })
    }
}

impl From<kit::folder::FolderError> for CliError {
    fn from(error: kit::folder::FolderError) -> Self {
        Self::Usage(chain(&error))
    }
}

impl From<crate::fleet::FleetError> for CliError {
    fn from(error: crate::fleet::FleetError) -> Self {
        Self::Failed(chain(&error))
    }
}

impl From<kit::telemetry::ScrapeError> for CliError {
    fn from(error: kit::telemetry::ScrapeError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    kit::text::chain(error, 600)
}
