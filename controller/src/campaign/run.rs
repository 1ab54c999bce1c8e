//! From a question to a report: the campaign is locked and journalled, driven to its end, and marked; or taken up where a
//! kill or an interruption left it.

use std::path::PathBuf;

use kit::task::CancellationToken;
use serde::Serialize;

use crate::journal::{
    CampaignId, CampaignKind, CampaignRow, CampaignState, Journal, Limits, MicroUsd, NewCampaign, RunPurpose,
    RunRow,
};

use super::{
    driver::{Deps, Driver},
    error::CampaignError,
    kept::Kept,
    machine::{State, StoppedBy},
    progress::Progress,
    record::outcome_word,
    researcher::ResearchError,
    settings::CampaignSettings,
};

/// How a campaign ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CampaignEnd {
    /// Its id.
    pub id: CampaignId,
    /// As it is marked.
    pub state: CampaignState,
    /// A paragraph; the report's first.
    pub answer: String,
    /// Absolute.
    pub report_path: Option<PathBuf>,
    /// What ended it.
    pub stopped_by: StoppedBy,
    /// Whether a full run succeeded: if none did, `run` exits 1.
    pub any_succeeded: bool,
}

/// Runs a campaign to its report. `id` is made by the caller, because the model's calls are journalled under it.
/// Cancelling the token cancels its runs, writes the report so far and marks the campaign as interrupted.
///
/// # Errors
/// [`CampaignError`]: what is left without a report. Where [`CampaignError::is_usage`], nothing was written.
pub async fn run_campaign(
    deps: Deps,
    id: CampaignId,
    settings: CampaignSettings,
    cancel: CancellationToken,
) -> Result<CampaignEnd, CampaignError> {
    settings.check()?;
    deps.researcher.accepts(&settings.question).map_err(|error| match error {
        ResearchError::CannotAnswer { reason } => CampaignError::CannotAnswer { reason },
        other => CampaignError::CannotAnswer { reason: other.to_string() },
    })?;
    let journal = deps.journal.clone();
    let new = NewCampaign {
        id,
        kind: CampaignKind::Research,
        question: settings.question.clone(),
        settings: serde_json::to_value(&settings)
            .map_err(|source| crate::journal::JournalError::Json { what: "the settings", source })?,
        researcher: deps.researcher.name(),
        seed: None,
        limits: Limits {
            max_iterations: Some(settings.max_iterations),
            wall: Some(settings.time_budget),
            device: settings.gpu_budget,
            cost: settings.cost_budget.map(|dollars| MicroUsd((dollars * 1e6).round() as u64)),
            max_failures: Some(settings.max_failures),
        },
    };
    let _lock = journal.lock(id)?;
    journal.create_campaign(new).await?;
    deps.progress.tell(Progress::FirstLine(deps.researcher.first_line()));
    deps.progress.tell(Progress::Started { id: id.to_string() });
    let kept = Kept::new(id.to_string(), settings, deps.clock.wall().to_string());
    to_its_end(Driver::new(deps, id, kept, cancel)).await
}

/// Goes on with a campaign whose owner is gone, at the very step where it was: runs that ended are read, those under way
/// are followed, replies that are in the journal are not paid for again. One that is over gives its end once more.
///
/// # Errors
/// [`CampaignError`]: owned by somebody else, or not to be gone on with.
pub async fn resume_campaign(
    deps: Deps,
    id: CampaignId,
    cancel: CancellationToken,
) -> Result<CampaignEnd, CampaignError> {
    let journal = deps.journal.clone();
    let _lock = journal.lock(id)?;
    if let Some(end) = end_of(&journal, id).await? {
        return Ok(end);
    }
    let row = resumable(&journal, id).await?;
    // Read before anything is written: what cannot be read stays as it is.
    deps.progress.tell(Progress::FirstLine(deps.researcher.first_line()));
    let driver = Driver::take_up(deps, &row, cancel).await?;
    driver.deps.progress.tell(Progress::Started { id: id.to_string() });
    journal.settle_open_calls(id).await?;
    journal.set_campaign_state(id, CampaignState::Running, None).await?;
    to_its_end(driver).await
}

/// Ends a campaign whose owner is gone: its runs are cancelled on the workers, and the report says what was found so far.
///
/// # Errors
/// As [`resume_campaign`].
pub async fn cancel_campaign(deps: Deps, id: CampaignId) -> Result<CampaignEnd, CampaignError> {
    let journal = deps.journal.clone();
    let _lock = journal.lock(id)?;
    let row = resumable(&journal, id).await?;
    let mut driver = Driver::take_up(deps, &row, CancellationToken::new()).await?;
    journal.settle_open_calls(id).await?;
    driver.stop_first(StoppedBy::Cancelled);
    to_its_end(driver).await
}

async fn resumable(journal: &Journal, id: CampaignId) -> Result<CampaignRow, CampaignError> {
    let row = journal.campaign(id).await?;
    match is_resumable(&row) {
        true => Ok(row),
        false => Err(CampaignError::Over { id, state: row.state }),
    }
}

/// Whether somebody may go on with it, once nobody owns it.
#[must_use]
pub fn is_resumable(row: &CampaignRow) -> bool {
    let open =
        matches!(row.state, CampaignState::Running | CampaignState::Paused | CampaignState::Interrupted);
    open && row.kind == CampaignKind::Research
}

/// How a campaign ended, from the journal; `None` where it has not, or may still go on.
///
/// # Errors
/// Where the journal cannot be read, or what was kept is of another version.
pub async fn end_of(journal: &Journal, id: CampaignId) -> Result<Option<CampaignEnd>, CampaignError> {
    let row = journal.campaign(id).await?;
    if is_resumable(&row) {
        return Ok(None);
    }
    let Some(stored) = journal.snapshot(id).await? else { return Ok(None) };
    let State::Ended { stopped } = Kept::of(&stored.snapshot)?.machine.state else { return Ok(None) };
    let runs = journal.runs(id).await?;
    let good = outcome_word(proto::v1::OutcomeKind::Succeeded);
    let succeeded = |run: &RunRow| run.purpose == RunPurpose::Full && run.outcome.as_deref() == Some(good);
    Ok(Some(CampaignEnd {
        id,
        state: row.state,
        answer: row.answer.unwrap_or_default(),
        report_path: row.report.map(|report| report.html),
        stopped_by: stopped,
        any_succeeded: runs.iter().any(succeeded),
    }))
}

#[tracing::instrument(name = "campaign", skip_all, fields(campaign_id = %driver.id))]
async fn to_its_end(mut driver: Driver) -> Result<CampaignEnd, CampaignError> {
    let _at_work = crate::telemetry::METRICS.campaign();
    let (journal, id) = (driver.deps.journal.clone(), driver.id);
    let stopped_by = match driver.drive().await {
        Ok(stopped) => stopped,
        Err(error) => {
            // It stands where it stood: once the disk has room, or the worker is back, it can be gone on with. The error
            // itself goes to the caller; that it could not be noted as well is only logged.
            let note = Some(kit::text::one_line(&error.to_string(), 500));
            if let Err(second) = journal.set_campaign_state(id, CampaignState::Interrupted, note).await {
                tracing::error!(campaign = %id, error = %second, "the campaign's failure was not journalled");
            }
            return Err(error);
        }
    };
    Ok(CampaignEnd {
        id,
        state: driver.state(stopped_by),
        answer: std::mem::take(&mut driver.answer),
        report_path: driver.report_path.take(),
        stopped_by,
        any_succeeded: driver.kept.record.any_succeeded(),
    })
}
