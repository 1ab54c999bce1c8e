//! From a question to a report: the campaign is locked and journalled, driven to its end, and marked.

use std::path::PathBuf;

use kit::task::CancellationToken;
use serde::Serialize;

use crate::journal::{CampaignId, CampaignKind, CampaignState, Limits, MicroUsd, NewCampaign};

use super::{
    driver::{Deps, Driver},
    error::CampaignError,
    machine::StoppedBy,
    progress::Progress,
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
    let mut driver = Driver::new(deps, id, settings, cancel);
    let stopped_by = match driver.drive().await {
        Ok(stopped) => stopped,
        Err(error) => {
            // The error itself goes to the caller; that it could not be noted as well is only logged.
            let note = Some(kit::text::one_line(&error.to_string(), 500));
            if let Err(second) = journal.set_campaign_state(id, CampaignState::Failed, note).await {
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
        any_succeeded: driver.record.any_succeeded(),
    })
}
