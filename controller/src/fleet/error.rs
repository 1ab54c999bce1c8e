//! What goes wrong between controller and worker, and whether it is worth trying again.

use super::SinkError;

/// What went wrong between controller and worker.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// No connection.
    #[error("worker {worker} cannot be reached: {detail}")]
    Unreachable {
        /// Its name or address.
        worker: String,
        /// What was tried.
        detail: String,
    },
    /// It speaks another protocol.
    #[error(
        "worker {worker} speaks protocol {min} to {max}, this program speaks {ours}: install matching versions"
    )]
    Version {
        /// Its name or address.
        worker: String,
        /// Its oldest.
        min: u32,
        /// Its newest.
        max: u32,
        /// Ours.
        ours: u32,
    },
    /// A call was refused.
    #[error("{call}: {message}")]
    Call {
        /// The rpc.
        call: &'static str,
        /// The worker's words.
        message: String,
        /// The status.
        code: tonic::Code,
    },
    /// An artifact or blob arrived damaged.
    #[error("{what} arrived with digest {found} instead of {wanted}")]
    Damaged {
        /// Its name.
        what: String,
        /// What was promised.
        wanted: String,
        /// What came.
        found: String,
    },
    /// The caller's storage failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A file of ours.
    #[error("cannot write {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// There is no worker.
    #[error("no worker is connected")]
    NoWorker,
    /// Stopped from outside before the run was placed.
    #[error("cancelled")]
    Cancelled,
}

impl FleetError {
    pub(crate) fn call(call: &'static str, status: &tonic::Status) -> Self {
        Self::Call { call, message: status.message().to_owned(), code: status.code() }
    }

    /// The same again, for another who waited for the same thing.
    pub(super) fn copy(&self) -> Self {
        match self {
            Self::Version { worker, min, max, ours } => {
                Self::Version { worker: worker.clone(), min: *min, max: *max, ours: *ours }
            }
            Self::Call { call, message, code } => Self::Call { call, message: message.clone(), code: *code },
            Self::Unreachable { worker, detail } => {
                Self::Unreachable { worker: worker.clone(), detail: detail.clone() }
            }
            Self::NoWorker => Self::NoWorker,
            Self::Cancelled => Self::Cancelled,
            other => Self::Unreachable { worker: String::new(), detail: other.to_string() },
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Damaged { .. } => true,
            Self::Call { code, .. } => is_transient(*code),
            Self::Version { .. } | Self::Sink(_) | Self::File { .. } | Self::NoWorker | Self::Cancelled => {
                false
            }
        }
    }
}

/// A broken connection shows as one of these: the call may be made again.
pub(crate) fn is_transient(code: tonic::Code) -> bool {
    use tonic::Code::{Aborted, Cancelled, DeadlineExceeded, Unavailable, Unknown};
    matches!(code, Unavailable | Unknown | Cancelled | DeadlineExceeded | Aborted)
}
