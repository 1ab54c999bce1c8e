//! `autoresearch resume ID`: lifts a pause of a campaign that somebody runs; goes on with one that nobody runs, at the step
//! where a kill, an interruption or a full disk left it; prints the report of one that is over.

use std::process::ExitCode;

use super::{
    Global,
    config::Config,
    detach,
    error::{CliError, chain},
    out::Printer,
    research::{self, Thinking},
    run, session,
    session::{Session, SessionOptions},
    steer,
};
use crate::{
    campaign::{self, CampaignEnd, CampaignSettings},
    journal::{CampaignId, CampaignKind, CampaignRow, CampaignState, Journal},
    llm,
};

/// Lift a campaign's pause; or go on with one that nobody runs, where it was left, to its end.
///
/// After a kill, a closed terminal or Ctrl-C nothing is repeated: runs that ended are kept, those that went on are
/// fetched, replies of a model are not paid for again. A finished campaign prints its report.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A campaign's id, or the beginning of one.
    id: String,
    /// Go on without this terminal; `autoresearch attach ID` comes back to it.
    #[arg(long)]
    detach: bool,
    /// Who `--detach` started.
    #[arg(long, hide = true, value_name = "ID")]
    detached_as: Option<CampaignId>,
}

pub(super) async fn run(args: Args, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    if args.detached_as.is_some() {
        detach::leave_the_terminal();
    }
    let journal = session::read_or_fail(global).await?;
    let id = journal.find_campaign(&args.id).await.map_err(session::not_found)?;
    let row = journal.campaign(id).await.map_err(session::journal_failed)?;
    if row.kind == CampaignKind::Exec {
        let problem =
            "is one program's run: there is nothing to go on with, run it again with `autoresearch exec`";
        return Err(CliError::Usage(format!("campaign {id} {problem}")));
    }
    if !campaign::is_resumable(&row) {
        return over(&journal, &row, printer).await;
    }
    if let Some(pid) = owner(&journal, id)? {
        if row.state != CampaignState::Paused {
            let problem =
                format!("campaign {id} belongs to process {pid}: `autoresearch attach {id}` shows it");
            return Err(CliError::Usage(problem));
        }
        return steer::lift(&args.id, global, printer).await;
    }
    drop(journal);
    if args.detach {
        return detach::detach(id, "", global, printer).await;
    }
    go_on(row, global, printer).await
}

/// In the foreground, to the end.
pub(super) async fn go_on(row: CampaignRow, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let config = Config::load(global)?;
    crate::telemetry::serve(config.metrics_listen).await?;
    let settings: CampaignSettings = serde_json::from_value(row.settings.clone())
        .map_err(|e| CliError::Failed(format!("campaign {}: its settings cannot be read: {e}", row.id)))?;
    let url = settings.llm_url.clone().or(config.llm_url.clone());
    let thinking = Thinking::open(&settings.llm, url, llm::Keys::from_env())?;
    let options = SessionOptions {
        backend: settings.backend.clone(),
        listen: config.listen,
        local_worker: config.local_worker,
    };
    let session = Session::open_with(&config.data_dir()?, &options).await?;
    session.absences().iter().for_each(|note| printer.say(note));
    let ended = run::watched(printer, async |watchers, cancel| {
        research::resume(&session, thinking, row.id, &settings, watchers, cancel).await
    })
    .await;
    session.end().await;
    run::finish(&ended?, printer)
}

/// Its end once more, as `run` prints it.
async fn over(journal: &Journal, row: &CampaignRow, printer: Printer) -> Result<ExitCode, CliError> {
    match campaign::end_of(journal, row.id).await.map_err(|e| CliError::Failed(chain(&e)))? {
        Some(end) => run::finish(&end, printer),
        None => Err(CliError::Usage(format!(
            "campaign {} is {}: there is nothing to go on with (autoresearch show {0})",
            row.id, row.state
        ))),
    }
}

/// The process that runs it, if one does.
pub(super) fn owner(journal: &Journal, id: CampaignId) -> Result<Option<u32>, CliError> {
    journal.is_owned(id).map_err(|e| CliError::Failed(chain(&e)))
}

/// A campaign as people see it: one that is marked as running and that nobody runs was left by a kill, and waits.
pub(super) fn seen(journal: &Journal, mut row: CampaignRow) -> CampaignRow {
    let running = matches!(row.state, CampaignState::Running | CampaignState::Paused);
    if running && matches!(journal.is_owned(row.id), Ok(None)) {
        row.state = CampaignState::Interrupted;
    }
    row
}

/// What to do about a campaign that waits.
pub(super) fn advice(row: &CampaignRow) -> Option<String> {
    let waits = row.state == CampaignState::Interrupted && row.kind == CampaignKind::Research;
    waits.then(|| format!("autoresearch resume {}", row.id))
}

/// The newest campaign with this question that waits.
pub(super) async fn waiting(journal: &Journal, question: &str) -> Result<Option<CampaignRow>, CliError> {
    let campaigns = journal.list_campaigns(false).await.map_err(session::journal_failed)?;
    let mut same = campaigns.into_iter().filter(|row| row.question == question);
    Ok(same.find(|row| campaign::is_resumable(row) && matches!(journal.is_owned(row.id), Ok(None))))
}

/// Ends a campaign that nobody runs: what its runs still do is cancelled, and the report says what was found.
pub(super) async fn cancel_ownerless(
    row: &CampaignRow,
    global: &Global,
    printer: Printer,
) -> Result<CampaignEnd, CliError> {
    let config = Config::load(global)?;
    let settings: Option<CampaignSettings> = serde_json::from_value(row.settings.clone()).ok();
    let backend = settings.and_then(|settings| settings.backend);
    let options = SessionOptions { backend, listen: config.listen, local_worker: config.local_worker };
    let session = Session::open_with(&config.data_dir()?, &options).await?;
    let ended =
        run::watched(printer, async |watchers, _| research::cancel(&session, row, watchers).await).await;
    session.end().await;
    ended
}
