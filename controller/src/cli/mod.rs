//! The command line: one file per command, each of which reads its arguments, calls the library, and prints. No
//! rule of research, no SQL and no protocol belongs here. Help is the doc comment of a command's arguments.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Watching a campaign of another process.
mod attach;
/// What a killed command left behind is ended before the next one.
mod cleanup;
/// Defaults, file, environment, flags.
pub mod config;
/// From the registry to a fleet.
mod connect;
/// Going on without the terminal.
mod detach;
mod doctor;
/// What a command ends with.
pub mod error;
mod exec;
mod list;
/// The worker that a command starts by itself.
mod local_worker;
mod logs;
/// stdout is data, stderr is talk.
mod out;
mod progress;
/// From the registry's rows to the ways to those workers.
mod registry;
mod report;
/// From settings to the end of a campaign.
pub(crate) mod research;
/// Going on with a campaign.
mod resume;
mod run;
/// Journal and workers of one command.
pub(crate) mod session;
mod show;
/// Ctrl-C once, and twice.
mod signals;
/// Pause, cancel, hint, budget.
mod steer;
/// What a session does beside its work.
mod upkeep;
/// Values of flags that name what is wrong with them.
mod values;
mod worker;

use error::CliError;
use kit::telemetry::{Settings, Telemetry, endpoint};
use out::{Format, Printer};

/// Answers machine-learning research questions by experiment, with nobody in the loop.
///
/// Plans an experiment, writes the PyTorch code, runs every variant over several seeds in a sandbox, repairs code that
/// fails, does the statistics, decides whether to follow up, and writes a report.
#[derive(Debug, Parser)]
#[command(
    name = "autoresearch",
    version,
    after_help = "Exit codes: 0 success, 1 failure, 2 bad usage, configuration or set-up, 130 after Ctrl-C."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, serde::Serialize, clap::Args)]
struct Global {
    /// Where journal, reports and the local worker are kept [default: $XDG_DATA_HOME/autoresearch].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// How results are printed: text for people, or one JSON object on one line.
    #[serde(skip)]
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// Write log lines (AUTORESEARCH_LOG, like info) as text or json [default: text].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<kit::telemetry::LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Exec(exec::Args),
    List(list::Args),
    Show(show::Args),
    Logs(logs::Args),
    Report(report::Args),
    Pause(steer::Pause),
    Resume(resume::Args),
    Attach(attach::Args),
    Cancel(steer::Cancel),
    Hint(steer::Hint),
    Budget(steer::Budget),
    Worker(worker::Args),
    Doctor(doctor::Args),
    /// The worker that `run` and `exec` start.
    #[command(name = local_worker::COMMAND, hide = true)]
    LocalWorker {
        folder: PathBuf,
    },
}

/// The whole program: parse, configure, call, and an exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    let printer = Printer { format: cli.global.output };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            printer.say(&format!("error: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        let _telemetry = Telemetry::start(&watched(&cli));
        dispatch(cli, printer).await
    });
    match ended {
        Ok(code) => code,
        Err(CliError::Interrupted) => CliError::Interrupted.exit_code(),
        Err(error) => {
            printer.say(&format!("error: {error}"));
            error.exit_code()
        }
    }
}

/// What a command tells of itself. What is wrong with the configuration is the command's to say.
fn watched(cli: &Cli) -> Settings {
    let log = std::env::var("AUTORESEARCH_LOG").unwrap_or_else(|_| default_log(&cli.command).to_owned());
    let (service, log_format, otlp) = match &cli.command {
        Command::LocalWorker { .. } => local_worker::watched(),
        _ => {
            let config = config::Config::load(&cli.global).unwrap_or_default();
            ("autoresearch", config.log_format, config.otlp_endpoint)
        }
    };
    Settings { service, log, log_format, colour: false, otlp: endpoint(otlp.as_deref()) }
}

/// A worker's log is read by whoever looks for what went wrong; a command's stderr by whoever waits.
fn default_log(command: &Command) -> &'static str {
    match command {
        Command::LocalWorker { .. } => "info",
        _ => "error",
    }
}

async fn dispatch(cli: Cli, printer: Printer) -> Result<ExitCode, CliError> {
    let global = cli.global;
    match cli.command {
        Command::Run(args) => run::run(args, &global, printer).await,
        Command::Exec(args) => exec::run(args, &global, printer).await,
        Command::List(args) => list::run(args, &global, printer).await,
        Command::Show(args) => show::run(args, &global, printer).await,
        Command::Logs(args) => logs::run(args, &global, printer).await,
        Command::Report(args) => report::run(args, &global, printer).await,
        Command::Pause(args) => steer::pause(args, &global, printer).await,
        Command::Resume(args) => resume::run(args, &global, printer).await,
        Command::Attach(args) => attach::run(args, &global, printer).await,
        Command::Cancel(args) => steer::cancel(args, &global, printer).await,
        Command::Hint(args) => steer::hint(args, &global, printer).await,
        Command::Budget(args) => steer::budget(args, &global, printer).await,
        Command::Worker(args) => worker::run(args, &global, printer).await,
        Command::Doctor(args) => doctor::run(args, &global, printer).await,
        Command::LocalWorker { folder } => local_worker::serve(folder).await.map(|()| ExitCode::SUCCESS),
    }
}

/// Help and version go to stdout; anything else is one line on stderr and exit 2.
fn refused(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    match error.kind() {
        DisplayHelp | DisplayVersion => {
            error.print().ok();
            ExitCode::SUCCESS
        }
        DisplayHelpOnMissingArgumentOrSubcommand => {
            error.print().ok();
            ExitCode::from(2)
        }
        _ => {
            let text = error.render().to_string();
            // The first paragraph holds what is wrong; the rest repeats the usage.
            let paragraph: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).collect();
            let line = kit::text::one_line(&paragraph.join(" "), 600);
            Printer { format: Format::Text }.say(&line);
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
