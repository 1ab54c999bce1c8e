//! `autoresearch pause | cancel | hint | budget ID`: what a terminal wants of a campaign that another one runs. It is
//! left in the journal, its owner takes it within a second, and this waits for that.

use std::{io::Read as _, process::ExitCode, time::Duration};

use kit::{clock::SystemClock, duration::Span};

use super::{
    Global,
    error::CliError,
    out::Printer,
    resume, session,
    values::{Count, Dollars},
};
use crate::{
    campaign::steering::{Command, HINT_BYTES},
    journal::{CampaignId, CampaignKind, CampaignRow, CampaignState, Journal, Limits, MicroUsd},
};

/// An owner looks twice a second; one that is busy writing a report takes longer.
const TAKEN: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Pause a campaign: nothing new is begun, what runs goes on to its end, and the time does not count.
#[derive(Debug, clap::Args)]
pub struct Pause {
    /// A campaign's id, or the beginning of one.
    id: String,
}

/// End a campaign: its runs are cancelled, and the report says what was found so far.
#[derive(Debug, clap::Args)]
pub struct Cancel {
    /// A campaign's id, or the beginning of one.
    id: String,
}

/// Tell the researcher something: it counts from the next plan on.
#[derive(Debug, clap::Args)]
pub struct Hint {
    /// A campaign's id, or the beginning of one.
    id: String,
    /// The hint, 2,000 bytes at most; `-` reads it from standard input.
    text: String,
}

/// Show a campaign's limits, or set some of them; they hold from the next step on.
#[derive(Debug, clap::Args)]
pub struct Budget {
    /// A campaign's id, or the beginning of one.
    id: String,
    /// Time awake and not paused in all, like 12h.
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    time_budget: Option<Span>,
    /// Device time in all, like 6h.
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    gpu_budget: Option<Span>,
    /// US dollars for model calls in all.
    #[arg(long, value_name = "DOLLARS", allow_negative_numbers = true)]
    cost_budget: Option<Dollars>,
    /// Experiments in all.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_iterations: Option<Count>,
    /// Failures in a row that stop the campaign.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_failures: Option<Count>,
}

pub(super) async fn pause(args: Pause, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let told = "paused: what runs goes on to its end, nothing new is begun";
    steer(&args.id, global, printer, Command::Pause, told).await
}

/// Lifts the pause of a campaign that somebody runs.
pub(super) async fn lift(id: &str, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    steer(id, global, printer, Command::Resume, "the pause is over").await
}

pub(super) async fn cancel(args: Cancel, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let told = "cancelled: its runs are ended and its report is written";
    let (journal, campaign) = find(&args.id, global).await?;
    if campaign.kind == CampaignKind::Research && resume::owner(&journal, campaign.id)?.is_none() {
        drop(journal);
        let end = resume::cancel_ownerless(&campaign, global, printer).await?;
        let report = end.report_path.map(|path| path.display().to_string()).unwrap_or_default();
        let json = serde_json::json!({ "id": end.id.to_string(), "command": "cancel", "taken": true, "report": report });
        printer.result(&json, &format!("{told}\n{report}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    steer(&args.id, global, printer, Command::Cancel, told).await
}

pub(super) async fn hint(args: Hint, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let text = hint_text(&args.text)?;
    steer(&args.id, global, printer, Command::Hint(text), "told: it counts from the next plan on").await
}

pub(super) async fn budget(args: Budget, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let (journal, campaign) = find(&args.id, global).await?;
    let before = journal.limits(campaign.id).await.map_err(session::journal_failed)?;
    let limits = args.over(before);
    if limits == before {
        let (json, text) = shown(campaign.id, &limits);
        printer.result(&json, &text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let spent = journal.spent(campaign.id).await.map_err(session::journal_failed)?;
    args.over_what_is_spent(spent.active, spent.device(), spent.cost())?;
    let journal = writable(global, &campaign, &Command::Budget)?;
    journal.set_limits(campaign.id, limits).await.map_err(session::journal_failed)?;
    let taken = leave(&journal, campaign.id, &Command::Budget).await?;
    let (mut json, text) = shown(campaign.id, &limits);
    json["taken"] = taken.into();
    printer.result(&json, &text)?;
    Ok(ExitCode::SUCCESS)
}

impl Budget {
    fn over(&self, before: Limits) -> Limits {
        Limits {
            max_iterations: self.max_iterations.map(|n| n.0).or(before.max_iterations),
            wall: self.time_budget.map(|span| span.0).or(before.wall),
            device: self.gpu_budget.map(|span| span.0).or(before.device),
            cost: self.cost_budget.map(|dollars| MicroUsd(dollars.0)).or(before.cost),
            max_failures: self.max_failures.map(|n| n.0).or(before.max_failures),
        }
    }

    fn over_what_is_spent(&self, active: Duration, device: Duration, cost: MicroUsd) -> Result<(), CliError> {
        let under = |field: &str, spent: String| {
            let problem =
                format!("{spent} are spent already: name more, or end it with `autoresearch cancel`");
            Err(CliError::field(field, problem))
        };
        match (self.time_budget, self.gpu_budget, self.cost_budget) {
            (Some(time), _, _) if time.0 <= active => under("--time-budget", Span(active).to_string()),
            (_, Some(time), _) if time.0 <= device => under("--gpu-budget", Span(device).to_string()),
            (_, _, Some(dollars)) if dollars.0 <= cost.0 && cost.0 > 0 => {
                under("--cost-budget", format!("{:.2} dollars", cost.dollars()))
            }
            _ => Ok(()),
        }
    }
}

fn shown(id: CampaignId, limits: &Limits) -> (serde_json::Value, String) {
    let span = |time: Option<Duration>| time.map_or_else(|| "no limit".to_owned(), |t| Span(t).to_string());
    let number = |n: Option<u32>| n.map_or_else(|| "no limit".to_owned(), |n| n.to_string());
    let cost = limits.cost.map_or_else(|| "no limit".to_owned(), |c| format!("{:.2} dollars", c.dollars()));
    let json = serde_json::json!({
        "id": id.to_string(),
        "time_budget_seconds": limits.wall.map(|t| t.as_secs_f64()),
        "gpu_budget_seconds": limits.device.map(|t| t.as_secs_f64()),
        "cost_budget_dollars": limits.cost.map(MicroUsd::dollars),
        "max_iterations": limits.max_iterations,
        "max_failures": limits.max_failures,
    });
    let text = format!(
        "time        {}\nGPU         {}\ncost        {cost}\niterations  {}\nfailures    {}",
        span(limits.wall),
        span(limits.device),
        number(limits.max_iterations),
        number(limits.max_failures),
    );
    (json, text)
}

fn hint_text(argument: &str) -> Result<String, CliError> {
    let mut text = argument.to_owned();
    if argument == "-" {
        text.clear();
        let limit = HINT_BYTES as u64 + 1;
        let read = std::io::stdin().lock().take(limit).read_to_string(&mut text);
        read.map_err(|e| CliError::field("text", format!("cannot read standard input: {e}")))?;
    }
    match text.trim() {
        "" => Err(CliError::field("text", "is empty")),
        text if text.len() > HINT_BYTES => {
            Err(CliError::field("text", format!("is {} bytes; at most {HINT_BYTES}", text.len())))
        }
        text => Ok(text.to_owned()),
    }
}

async fn steer(
    id: &str,
    global: &Global,
    printer: Printer,
    command: Command,
    told: &str,
) -> Result<ExitCode, CliError> {
    let (_, campaign) = find(id, global).await?;
    let journal = writable(global, &campaign, &command)?;
    let taken = leave(&journal, campaign.id, &command).await?;
    let json =
        serde_json::json!({ "id": campaign.id.to_string(), "command": command.kind(), "taken": taken });
    let waits = match journal.is_owned(campaign.id) {
        Ok(None) => "left for whoever goes on with it: nobody runs it now",
        _ => "left for its owner, which is busy and has not taken it yet",
    };
    printer.result(&json, if taken { told } else { waits })?;
    Ok(ExitCode::SUCCESS)
}

/// A campaign that somebody runs, or may go on with.
async fn find(id: &str, global: &Global) -> Result<(Journal, CampaignRow), CliError> {
    let journal = session::read_or_fail(global).await?;
    let id = journal.find_campaign(id).await.map_err(session::not_found)?;
    let campaign = journal.campaign(id).await.map_err(session::journal_failed)?;
    let words = match campaign.state {
        CampaignState::Running | CampaignState::Paused => return Ok((journal, campaign)),
        CampaignState::Interrupted if campaign.kind == CampaignKind::Research => {
            return Ok((journal, campaign));
        }
        CampaignState::Interrupted => "was interrupted: nobody runs it",
        CampaignState::Finished => "is finished: `autoresearch report` shows its report",
        CampaignState::Failed => "has failed: nobody runs it",
        CampaignState::Cancelled => "is cancelled: nobody runs it",
    };
    Err(CliError::Usage(format!("campaign {id} {words}")))
}

/// A hint or a budget also waits for whoever goes on with a campaign that nobody runs; a pause of such a one means nothing.
fn writable(global: &Global, campaign: &CampaignRow, command: &Command) -> Result<Journal, CliError> {
    let data_dir = super::config::Config::load(global)?.data_dir()?;
    let journal = Journal::open(&data_dir, SystemClock::shared()).map_err(|e| session::open_failed(&e))?;
    let owned = matches!(journal.is_owned(campaign.id), Ok(Some(_)));
    if owned || matches!(command, Command::Hint(_) | Command::Budget) {
        return Ok(journal);
    }
    let advice = match campaign.kind {
        CampaignKind::Research => format!("; go on with `autoresearch resume {}`", campaign.id),
        CampaignKind::Exec => String::new(),
    };
    Err(CliError::Usage(format!("campaign {}: nobody runs it{advice}", campaign.id)))
}

/// Whether its owner took it in time.
async fn leave(journal: &Journal, id: CampaignId, command: &Command) -> Result<bool, CliError> {
    let number = command.leave(journal, id).await.map_err(session::journal_failed)?;
    if matches!(journal.is_owned(id), Ok(None)) {
        return Ok(false);
    }
    let taken = async {
        while journal.is_waiting(id, number).await.map_err(session::journal_failed)? {
            tokio::time::sleep(ASK_AGAIN).await;
        }
        Ok(())
    };
    match tokio::time::timeout(TAKEN, taken).await {
        Ok(result) => result.map(|()| true),
        Err(_) => Ok(false),
    }
}
