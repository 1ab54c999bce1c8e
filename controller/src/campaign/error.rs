//! What ends a campaign without a report that answers: everything else is an outcome and stands in the report.

use crate::{
    journal::{CampaignId, CampaignState, JournalError, LockError},
    stats::LedgerError,
};

use super::{executor::ExecutorError, kept::KeptError, machine::Refused, settings::SettingsError};

/// Why a campaign could not be run or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// The researcher does not cover the question. Nothing was built, started or written.
    #[error("{reason}")]
    CannotAnswer {
        /// What it covers, for a person.
        reason: String,
    },
    /// An option. Nothing was written.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The campaign's lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journal: nothing may go on.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A run's events or files.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The loop met an event that has no meaning where it is: a fault of this program.
    #[error("the loop is broken, please report it: {0}")]
    Machine(#[from] Refused),
    /// A look that was never registered: a fault of this program.
    #[error("the error ledger refused a look, please report it: {0}")]
    Ledger(#[from] LedgerError),
    /// What was kept for going on.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// Of a campaign of an earlier version.
    #[error(
        "campaign {id} cannot be taken up: it was run by an earlier version, which kept nothing for that; its report so far is \
         `autoresearch report {id}`"
    )]
    NothingKept {
        /// Which.
        id: CampaignId,
    },
    /// It is over.
    #[error("campaign {id} is {state}: there is nothing to go on with")]
    Over {
        /// Which.
        id: CampaignId,
        /// As it is marked.
        state: CampaignState,
    },
    /// What a campaign that goes on needs of the workers.
    #[error("{0}")]
    Workers(String),
    /// The researcher met the journal's failure.
    #[error("{0}")]
    Researcher(String),
    /// A file of the report.
    #[error("cannot write the report: {0}")]
    Report(String),
}

impl CampaignError {
    /// Whether the user can mend it before anything is started: exit 2.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::CannotAnswer { .. } | Self::Settings(_))
    }
}
