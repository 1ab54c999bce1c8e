//! `autoresearch show ID`

use std::{fmt::Write as _, process::ExitCode};

use super::{
    Global,
    error::CliError,
    list,
    out::{Printer, table},
    resume, session,
};
use crate::journal::{CampaignRow, RunRow};

/// Show one campaign: its state, its answer so far, and every run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A campaign's id, or the beginning of one.
    id: String,
}

pub(super) async fn run(args: Args, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let journal = session::read_or_fail(global).await?;
    let id = journal.find_campaign(&args.id).await.map_err(session::not_found)?;
    let campaign = journal.campaign(id).await.map_err(session::journal_failed)?;
    let campaign = resume::seen(&journal, campaign);
    let runs = journal.runs(id).await.map_err(session::journal_failed)?;
    let mut json = list::json(&campaign);
    json["settings"] = campaign.settings.clone();
    json["run_list"] = runs.iter().map(run_json).collect();
    printer.result(&json, &text(&campaign, &runs))?;
    Ok(ExitCode::SUCCESS)
}

fn run_json(run: &RunRow) -> serde_json::Value {
    serde_json::json!({
        "id": run.id.to_string(),
        "experiment": run.experiment.map(|n| format!("e{n}")),
        "variant": run.variant,
        "seed": run.seed,
        "purpose": run.purpose,
        "state": run.state,
        "outcome": run.outcome,
        "message": run.message,
        "exit_code": run.exit_code,
        "seconds": run.wall.map(|wall| wall.as_secs_f64()),
        "memory_peak_bytes": run.memory_peak_bytes,
    })
}

fn text(campaign: &CampaignRow, runs: &[RunRow]) -> String {
    let mut out = format!("{}\n", kit::text::printable(&campaign.question));
    let mut fact = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        writeln!(out, "{name:11} {value}").unwrap_or_default();
    };
    fact("id", &campaign.id.to_string());
    fact("kind", campaign.kind.as_str());
    fact("state", campaign.state.as_str());
    fact("researcher", &campaign.researcher);
    fact("started", &list::when(campaign.created_ns));
    if let Some(reason) = &campaign.stop_reason {
        fact("stopped by", reason);
    }
    if let Some(command) = resume::advice(campaign) {
        fact("go on with", &command);
    }
    if let Some(report) = &campaign.report {
        fact("report", &report.html.display().to_string());
    }
    if let Some(answer) = &campaign.answer {
        writeln!(out, "\n{}", kit::text::printable(answer)).unwrap_or_default();
    }
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    let head = ["RUN", "EXPERIMENT", "VARIANT", "SEED", "PURPOSE", "OUTCOME", "TIME", "MESSAGE"];
    format!("{out}\n{}", table(&head, &rows))
}

fn row(run: &RunRow) -> Vec<String> {
    let time = crate::report::shown::seconds(run.wall.map(|wall| wall.as_secs_f64()));
    vec![
        run.id.to_string(),
        run.experiment.map_or_else(|| "–".to_owned(), |n| format!("e{n}")),
        run.variant.clone(),
        run.seed.to_string(),
        run.purpose.to_string(),
        run.outcome.clone().unwrap_or_else(|| run.state.to_string()),
        time,
        kit::text::one_line(run.message.as_deref().unwrap_or_default(), 80),
    ]
}
