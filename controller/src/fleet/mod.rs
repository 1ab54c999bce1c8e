//! The workers that a campaign may use: connections, placing runs on free slots, following them to their end.
//! It speaks the protocol and knows nothing of experiments; where the events of a run go is the caller's business
//! ([`RunSink`]), so that nothing is released before the caller has it on disk.
//!
//! A run's way: wait for a slot → `StartRun` (the same bytes again after a broken connection: the run's id makes that safe) →
//! `WatchRun` from the sink's last sequence, again after each break → artifacts, checked by digest → the sink says that
//! all is safe → `ReleaseRun`.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use kit::{digest::Digest, task::CancellationToken};
use proto::v1;
use tokio::sync::mpsc;

/// Where a worker is, as people write it.
pub mod address;
/// Bytes to a worker.
mod blobs;
/// The ways to a worker.
pub mod dial;
/// A connection that is opened anew when it breaks.
mod link;
/// How the rules of a worker's sandboxes stand on its host.
pub mod rules;
/// One run, from a free slot to its release.
mod run;

pub use dial::connect_unix;
pub use link::{Dialer, Link};

/// What a planner and a scheduler see of a worker.
#[derive(Debug, Clone)]
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

/// Connected workers.
#[derive(Debug, Clone)]
pub struct Fleet {
    links: Arc<Vec<Arc<Link>>>,
}

/// Which image, and what makes sandboxes from it: each backend has images of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageChoice<'a> {
    /// From the workers' allow-lists.
    pub name: &'a str,
    /// Empty: each worker's choice.
    pub backend: &'a str,
}

impl Fleet {
    /// Of links that are connected.
    #[must_use]
    pub fn new(links: Vec<Arc<Link>>) -> Self {
        Self { links: Arc::new(links) }
    }

    /// What each worker says of itself, as of connecting.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerView> {
        self.links.iter().map(|link| link.view()).collect()
    }

    /// Places that run at once, over all workers.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.links.iter().map(|link| link.slots()).sum()
    }

    /// Builds or finds an image on every worker.
    ///
    /// # Errors
    /// The first worker's that cannot.
    pub async fn prepare_image(
        &self,
        image: ImageChoice<'_>,
        progress: mpsc::Sender<ImageProgress>,
        cancel: &CancellationToken,
    ) -> Result<PreparedImage, FleetError> {
        let mut prepared = PreparedImage::default();
        for link in self.links.iter() {
            prepared = tokio::select! {
                result = link.prepare_image(image, &progress) => result?,
                () = cancel.cancelled() => return Err(FleetError::Cancelled),
            };
        }
        if self.links.is_empty() { Err(FleetError::NoWorker) } else { Ok(prepared) }
    }

    /// Puts bytes on every worker, where they are not there yet.
    ///
    /// # Errors
    /// The first worker's that cannot take them.
    pub async fn put_blob(&self, bytes: bytes::Bytes) -> Result<Digest, FleetError> {
        let digest = Digest::of(&bytes);
        for link in self.links.iter() {
            blobs::put(link, &digest, &bytes).await?;
        }
        Ok(digest)
    }

    /// One run, from a free slot to its release. Cancelling the token cancels the run on the worker and still follows it to
    /// its end.
    ///
    /// # Errors
    /// Where the run's end is not known: the storage failed, or the worker stays away.
    pub async fn run(
        &self,
        start: v1::StartRunRequest,
        sink: &mut dyn RunSink,
        cancel: &CancellationToken,
    ) -> Result<RunEnd, FleetError> {
        run::to_its_end(&self.links, &start, sink, cancel).await
    }

    /// Follows a run that an earlier process started to its end, artifacts and release included; `start.spec` does not matter.
    /// Where no worker knows it, it is lost.
    ///
    /// # Errors
    /// Where its end is not known.
    pub async fn end(
        &self,
        start: &v1::StartRunRequest,
        sink: &mut dyn RunSink,
        cancel: &CancellationToken,
    ) -> Result<RunEnd, FleetError> {
        let unknown =
            RunEnd::Lost { cause: v1::LostCause::Unspecified, detail: "no worker knows the run".to_owned() };
        for link in self.links.iter() {
            match run::from_watching_on(link, start, sink, cancel).await? {
                RunEnd::Lost { .. } => {}
                end => return Ok(end),
            }
        }
        Ok(unknown)
    }
}
