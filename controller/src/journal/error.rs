//! What can go wrong with the journal, one enum for each way in: opening, using, locking, and the budget's refusal.

use std::{path::PathBuf, sync::Arc, time::Duration};

use kit::folder::FolderError;

use super::{MicroUsd, RunId};

/// Why a journal was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none, and it was to be read only.
    #[error("there is no journal at {}: nothing was run with this data folder yet", path.display())]
    NotThere {
        /// Where it would be.
        path: PathBuf,
    },
    /// Cut off, or its bytes are not what was written.
    #[error("the journal {} is damaged ({detail}): move it away or put a copy of it back", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite, or the seal, says.
        detail: String,
    },
    /// A SQLite file of something else.
    #[error("{} belongs to another program (application id {found:#010x}): give another --data-dir", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its `application_id`.
        found: i32,
    },
    /// Written by a later version of this program.
    #[error(
        "the journal {} has schema version {found}, and this program knows {known} at most: use a newer autoresearch",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its `user_version`.
        found: i32,
        /// The last one that we know.
        known: i32,
    },
    /// Anything else that SQLite says.
    #[error("cannot open the journal {}", path.display())]
    Sql {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The writer's thread was not started.
    #[error("cannot start the journal's thread")]
    Thread(#[source] std::io::Error),
}

impl OpenError {
    /// Whether there is simply no journal yet.
    #[must_use]
    pub fn is_not_there(&self) -> bool {
        matches!(self, Self::NotThere { .. })
    }
}

/// Why something was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is no such thing.
    #[error("there is no {what} {id}")]
    NotFound {
        /// "campaign", "run", …
        what: &'static str,
        /// As it was asked for.
        id: String,
    },
    /// The beginning of an id that several have.
    #[error("`{prefix}` is the beginning of several {what} ids: {}", matches.join(", "))]
    Ambiguous {
        /// "campaign" or "run".
        what: &'static str,
        /// As it was asked for.
        prefix: String,
        /// At most ten of them.
        matches: Vec<String>,
    },
    /// Nothing that an id could begin with.
    #[error("`{0}` is not the beginning of an id: hexadecimal digits and hyphens are wanted")]
    Prefix(String),
    /// It is over, or not yet begun, or registered with other contents.
    #[error("{what} {id}: {problem}")]
    State {
        /// "run", "experiment", …
        what: &'static str,
        /// Which.
        id: String,
        /// What is wrong.
        problem: String,
    },
    /// An event is missing.
    #[error("run {run}: event {wanted} was expected and {found} came: watch it again after {}", wanted - 1)]
    Hole {
        /// Whose.
        run: RunId,
        /// The sequence that was next.
        wanted: u64,
        /// The one that came.
        found: u64,
    },
    /// An event that says nothing, or what cannot be.
    #[error("run {run}: event {sequence}: {problem}")]
    Event {
        /// Whose.
        run: RunId,
        /// Which.
        sequence: u64,
        /// What is wrong.
        problem: String,
    },
    /// A text or blob over its limit.
    #[error("{what} has {bytes} bytes, and {longest} is the most that the journal takes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        longest: usize,
    },
    /// Not a name that a file below a run's folder may have.
    #[error("`{0}` is not a name that an artifact may have")]
    ArtifactName(String),
    /// Bytes are not what was written.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The journal or a log file.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// No room.
    #[error("the disk that holds {} is full: make room and resume", path.display())]
    Full {
        /// The journal.
        path: PathBuf,
    },
    /// Opened for reading.
    #[error("the journal was opened for reading only")]
    ReadOnly,
    /// The writer's thread is gone, or the work was dropped half-way.
    #[error("the journal's {0} has stopped: see the log above this line")]
    Stopped(&'static str),
    /// Anything else that SQLite says.
    #[error("journal")]
    Sql(#[from] Arc<rusqlite::Error>),
    /// A folder or a log file.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A body that is no JSON.
    #[error("journal: {what} is not valid JSON")]
    Json {
        /// Which body.
        what: &'static str,
        /// The cause.
        source: serde_json::Error,
    },
}

impl From<rusqlite::Error> for JournalError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(Arc::new(error))
    }
}

impl JournalError {
    pub(super) fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }

    pub(super) fn state(what: &'static str, id: impl ToString, problem: impl Into<String>) -> Self {
        Self::State { what, id: id.to_string(), problem: problem.into() }
    }

    /// Gives what SQLite says of the file itself the file's name.
    pub(super) fn at(self, path: &std::path::Path) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
        let Self::Sql(error) = &self else { return self };
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => {
                Self::Damaged { path: path.to_owned(), detail: error.to_string() }
            }
            Some(DiskFull) => Self::Full { path: path.to_owned() },
            _ => match &**error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::Utf8Error(..) => {
                    Self::Damaged { path: path.to_owned(), detail: error.to_string() }
                }
                _ => self,
            },
        }
    }
}

/// Why money or device time was not reserved. Nothing was written then.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// Device time.
    #[error("the device budget has {left:?} left, and {wanted:?} would be needed")]
    Device {
        /// What is neither spent nor reserved.
        left: Duration,
        /// What was asked for.
        wanted: Duration,
    },
    /// Money.
    #[error("the cost budget has {left} left, and up to {wanted} would be needed")]
    Cost {
        /// What is neither spent nor reserved.
        left: MicroUsd,
        /// What was asked for.
        wanted: MicroUsd,
    },
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why a campaign was not locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process owns it.
    #[error(
        "campaign {campaign} belongs to process {pid}: use pause, hint, budget, cancel or attach, or wait"
    )]
    Owned {
        /// Which.
        campaign: super::CampaignId,
        /// Of the owner.
        pid: String,
    },
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
}
