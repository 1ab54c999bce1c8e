//! `autoresearch list`

use std::process::ExitCode;

use super::{
    Global,
    error::CliError,
    out::{Format, Printer, table},
    resume, session,
};
use crate::journal::CampaignRow;

/// List campaigns, newest first.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also those of `exec`.
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(args: Args, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let Some(journal) = session::read(global).await? else {
        if printer.format == Format::Text {
            printer.say("no campaigns yet");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let campaigns = journal.list_campaigns(args.all).await.map_err(session::journal_failed)?;
    let campaigns: Vec<CampaignRow> = campaigns.into_iter().map(|row| resume::seen(&journal, row)).collect();
    if printer.format == Format::Json {
        for campaign in &campaigns {
            printer.result(&json(campaign), "")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = campaigns.iter().map(row).collect();
    printer.line(&table(&["ID", "KIND", "STATE", "RUNS", "STARTED", "QUESTION"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

/// What `list` and `show` say of a campaign, as JSON.
pub(super) fn json(campaign: &CampaignRow) -> serde_json::Value {
    serde_json::json!({
        "id": campaign.id.to_string(),
        "kind": campaign.kind,
        "state": campaign.state,
        "question": campaign.question,
        "researcher": campaign.researcher,
        "stopped_by": campaign.stop_reason,
        "created_at": when(campaign.created_ns),
        "iterations": campaign.iterations,
        "runs": campaign.runs,
        "outcomes": campaign.outcomes,
        "answer": campaign.answer,
        "report": campaign.report,
        "resume": resume::advice(campaign),
    })
}

fn row(campaign: &CampaignRow) -> Vec<String> {
    vec![
        campaign.id.to_string(),
        campaign.kind.to_string(),
        campaign.state.to_string(),
        campaign.runs.to_string(),
        when(campaign.created_ns),
        kit::text::one_line(&campaign.question, 70),
    ]
}

/// RFC 3339, in seconds.
pub(super) fn when(ns: i64) -> String {
    jiff::Timestamp::from_second(ns / 1_000_000_000).map(|t| t.to_string()).unwrap_or_default()
}
