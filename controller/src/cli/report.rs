//! `autoresearch report ID`

use std::{path::Path, process::ExitCode};

use super::{
    Global,
    error::CliError,
    out::{Format, Printer},
    session,
};

/// Print a campaign's report, or its path.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A campaign's id, or the beginning of one.
    id: String,
    /// Open the page in the browser.
    #[arg(long)]
    open: bool,
    /// Print only the path of the page.
    #[arg(long)]
    path: bool,
}

pub(super) async fn run(args: Args, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let journal = session::read_or_fail(global).await?;
    let id = journal.find_campaign(&args.id).await.map_err(session::not_found)?;
    let files = crate::report::files(&journal.campaign_folder(id));
    if !files.html.exists() {
        return Err(CliError::Failed(format!("campaign {id} has no report yet (autoresearch show {id})")));
    }
    if args.open {
        let opened = tokio::process::Command::new("xdg-open").arg(&files.html).status().await;
        if !opened.is_ok_and(|status| status.success()) {
            printer.say(&format!("no browser could be opened; the page is {}", files.html.display()));
        }
    }
    match printer.format {
        Format::Json => printer.line(read(&files.json)?.trim_end().replace('\n', " ").as_str())?,
        Format::Text if args.path || args.open => printer.line(&files.html.display().to_string())?,
        Format::Text => {
            printer.line(&read(&files.markdown)?)?;
            printer.line(&files.html.display().to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path)
        .map_err(|e| CliError::Failed(format!("cannot read {}: {e}", path.display())))
}
