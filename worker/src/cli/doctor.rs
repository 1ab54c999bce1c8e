//! `autoresearch-worker doctor`.

use std::process::ExitCode;

use super::{CommandResult, Common, EXIT_FAILED, Flags, Output, data_dir, print, worker_id_or_new};
use crate::doctor;

/// Say what works on this host, and what to do about the rest
///
/// Exit code 0 where runs can be made here, 1 where they cannot.
#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    /// Print as
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Doctor {
    pub(super) async fn run(&self, common: &Common) -> CommandResult {
        let config = common.configure(Flags::default())?;
        let folder = data_dir(&config)?;
        let examination = doctor::examine(&config, &folder, &worker_id_or_new(&folder)).await;
        print(&match self.output {
            Output::Text => examination.text(),
            Output::Json => format!("{}\n", serde_json::to_string_pretty(&examination)?),
        })?;
        Ok(if examination.ok { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
    }
}
