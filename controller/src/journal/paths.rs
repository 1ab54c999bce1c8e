//! Where things lie below the data folder: `journal.db` and
//! `campaigns/ID/{lock,report.{md,html,json},runs/RUN_ID/{stdout,stderr,metrics,artifacts/}}`.

use std::path::{Path, PathBuf};

use super::{CampaignId, Journal, JournalError, LogStream, RunId};

/// The journal's file in the data folder.
pub(super) const FILE: &str = "journal.db";
/// The folder of the campaigns in the data folder.
pub(super) const CAMPAIGNS: &str = "campaigns";

impl Journal {
    /// The folder that everything of this journal lies in.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.inner.data_dir
    }

    pub(super) fn database_path(&self) -> PathBuf {
        self.inner.data_dir.join(FILE)
    }

    /// A campaign's folder: lock, report, runs.
    #[must_use]
    pub fn campaign_folder(&self, campaign: CampaignId) -> PathBuf {
        self.inner.data_dir.join(CAMPAIGNS).join(campaign.to_string())
    }

    /// A run's folder: logs and artifacts.
    #[must_use]
    pub fn run_folder(&self, campaign: CampaignId, run: RunId) -> PathBuf {
        self.campaign_folder(campaign).join("runs").join(run.to_string())
    }

    /// The file that holds a stream of a run. Read only as far as [`Journal::run`] says it goes.
    #[must_use]
    pub fn log_path(&self, campaign: CampaignId, run: RunId, stream: LogStream) -> PathBuf {
        self.run_folder(campaign, run).join(stream.as_str())
    }

    /// Where an artifact belongs. Its name comes from a sandbox, so it is checked: relative, no `.` or `..`, no
    /// control characters, at most 512 bytes and a file below 16 folders, each of 255 bytes.
    ///
    /// # Errors
    /// [`JournalError::ArtifactName`] with the name, escaped and cut.
    pub fn artifact_path(
        &self,
        campaign: CampaignId,
        run: RunId,
        name: &str,
    ) -> Result<PathBuf, JournalError> {
        let wrong =
            || JournalError::ArtifactName(name.chars().take(120).flat_map(char::escape_default).collect());
        let part_ok = |part: &str| {
            !part.is_empty()
                && part.len() <= 255
                && part != "."
                && part != ".."
                && !part.chars().any(char::is_control)
        };
        if name.len() > 512 || name.split('/').count() > 17 || !name.split('/').all(part_ok) {
            return Err(wrong());
        }
        Ok(self.run_folder(campaign, run).join("artifacts").join(name))
    }
}
