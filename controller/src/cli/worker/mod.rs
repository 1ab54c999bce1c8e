//! `autoresearch worker …`: the workers of this data folder, one file a command. What belongs here: what a person asks and
//! is told. Ways to workers are `fleet::dial`'s, what is remembered is the journal's.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Subcommand;
use kit::clock::{Clock, SystemClock};

use super::{
    Global,
    config::Config,
    error::{CliError, chain},
    out::Printer,
    registry::Registry,
};
use crate::journal::{Journal, JournalError};

mod add;
/// What is wrong with a worker that has answered.
pub(super) mod check;
/// What a worker says of itself, as text and as JSON.
pub(super) mod described;
mod drain;
mod invite;
mod leave;
mod list;
mod show;
/// The two calls by which a worker comes to trust our key, and forgets it.
mod trust;

/// Register workers on this and on other machines, and look after them.
///
/// Where none is registered, `run` and `exec` start one on this machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(add::Args),
    Invite(invite::Args),
    List(list::Args),
    Show(show::Args),
    Drain(drain::Args),
    Revoke(leave::Revoke),
    Remove(leave::Remove),
}

pub(super) async fn run(args: Args, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    match args.command {
        Command::Add(args) => add::run(args, &Desk::open(global)?, printer).await,
        Command::Invite(args) => invite::run(args, &Desk::open(global)?, printer).await,
        Command::List(args) => list::run(args, global, printer).await,
        Command::Show(args) => show::run(args, &Desk::open(global)?, printer).await,
        Command::Drain(args) => drain::run(args, &Desk::open(global)?, printer).await,
        Command::Revoke(args) => leave::revoke(args, &Desk::open(global)?, printer).await,
        Command::Remove(args) => leave::remove(args, &Desk::open(global)?, printer).await,
    }
}

/// What these commands work with.
struct Desk {
    config: Config,
    data_dir: PathBuf,
    journal: Journal,
    clock: Arc<dyn Clock>,
}

impl Desk {
    fn open(global: &Global) -> Result<Self, CliError> {
        let config = Config::load(global)?;
        let data_dir = config.data_dir()?;
        let clock = SystemClock::shared();
        let journal = Journal::open(&data_dir, Arc::clone(&clock)).map_err(|e| CliError::Usage(chain(&e)))?;
        Ok(Self { config, data_dir, journal, clock })
    }

    fn registry(&self) -> Registry {
        Registry::new(&self.data_dir, &self.journal, &self.clock)
    }
}

/// A name that a worker may be given.
fn check_name(name: &str) -> Result<(), CliError> {
    kit::name::check_name(name).map_err(|e| CliError::field("NAME", e))?;
    if name == super::local_worker::NAME {
        return Err(CliError::field(
            "NAME",
            "`local` is the worker that commands start by themselves: choose another",
        ));
    }
    Ok(())
}

/// A name that is wrong is the user's; the rest is ours.
fn registry_failed(error: JournalError) -> CliError {
    match &error {
        JournalError::NotFound { .. } => {
            CliError::Usage(format!("{} (`autoresearch worker list` shows them)", chain(&error)))
        }
        JournalError::State { .. } | JournalError::TooLarge { .. } => CliError::Usage(chain(&error)),
        _ => CliError::Failed(chain(&error)),
    }
}
