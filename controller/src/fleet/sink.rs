//! What a run gives its caller: where its events go, how it ended, and what is known of a worker and an image.

use std::path::PathBuf;

use async_trait::async_trait;
use proto::v1;

/// What a planner and a scheduler see of a worker.
#[derive(Debug, Clone, Default)]
pub struct WorkerView {
    /// Made with the worker's state folder.
    pub worker_id: String,
    /// Of the kernel.
    pub boot_id: String,
    /// Everything else that it says of itself.
    pub info: v1::GetWorkerResponse,
}

/// Progress of building an image.
#[derive(Debug, Clone, Default)]
pub struct ImageProgress {
    /// The step's name.
    pub name: String,
    /// So much of `total`.
    pub done: u64,
    /// 0 where it is not known.
    pub total: u64,
    /// The last line that it printed.
    pub line: String,
}

/// An image that is there.
#[derive(Debug, Clone, Default)]
pub struct PreparedImage {
    /// The engine's content id.
    pub image_id: String,
    /// "torch 2.15.0", …
    pub packages: Vec<String>,
}

/// How a run ended, for the one who asked for it.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEnd {
    /// The worker's own word. The sink has everything.
    Finished(Box<v1::Finished>),
    /// No run was made: the request was wrong.
    Rejected {
        /// Which field.
        field: String,
        /// Why.
        reason: String,
    },
    /// The worker no longer knows it, or is another one.
    Lost {
        /// For the journal.
        cause: v1::LostCause,
        /// For a person.
        detail: String,
    },
}

/// The caller's storage failed: nothing may be released.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SinkError(pub String);

/// Where the events of one run go.
#[async_trait]
pub trait RunSink: Send {
    /// The last sequence that is safe.
    fn last_sequence(&self) -> u64;

    /// The worker has the run on its disk.
    ///
    /// # Errors
    /// Where it could not be written.
    async fn placed(&mut self, worker_id: &str, boot_id: &str) -> Result<(), SinkError>;

    /// Events in order, each once; on return they are on disk.
    ///
    /// # Errors
    /// Where they could not be written.
    async fn apply(&mut self, events: Vec<v1::Event>) -> Result<(), SinkError>;

    /// Where an artifact goes. The name is the worker's: check it.
    ///
    /// # Errors
    /// Where the name is not one that may be written.
    fn artifact_path(&self, name: &str) -> Result<PathBuf, SinkError>;

    /// `finished` and every artifact are there: after this the run may be released.
    ///
    /// # Errors
    /// Where that could not be written.
    async fn complete(&mut self) -> Result<(), SinkError>;

    /// The worker has forgotten the run.
    ///
    /// # Errors
    /// Where that could not be written.
    async fn released(&mut self) -> Result<(), SinkError>;
}

/// Which image, and what makes sandboxes from it: each backend has images of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageChoice<'a> {
    /// From the workers' allow-lists.
    pub name: &'a str,
    /// Empty: each worker's choice.
    pub backend: &'a str,
}
