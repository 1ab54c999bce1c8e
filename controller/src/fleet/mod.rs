//! The workers that a campaign may use: connections, placing runs on free slots, following them to their end.
//! It speaks the protocol and knows nothing of experiments; where the events of a run go is the caller's business
//! ([`RunSink`]), so that nothing is released before the caller has it on disk.
//!
//! A run's way: wait for a slot → `StartRun` (the same bytes again after a broken connection: the run's id makes that safe) →
//! `WatchRun` from the sink's last sequence, again after each break → artifacts, checked by digest → the sink says that
//! all is safe → `ReleaseRun`.

use std::sync::Arc;

use kit::{digest::Digest, task::CancellationToken};
use proto::v1;
use tokio::sync::mpsc;

use crate::telemetry::METRICS;

/// Where a worker is, as people write it.
pub mod address;
/// Artifacts onto this machine's disk.
mod artifacts;
/// Bytes to a worker.
mod blobs;
/// The ways to a worker.
pub mod dial;
/// What opens a channel.
mod dialer;
/// What goes wrong.
mod error;
/// A run that is on a worker, to its end.
mod follow;
/// An image on one worker.
mod images;
/// One connection, and what is asked over it.
mod line;
/// The way to one worker, which outlives every connection.
mod link;
/// What a run needs of a worker.
pub mod needs;
/// Runs that were given up.
mod orphans;
/// How long things are waited for.
mod pace;
/// When a run whose worker is out of reach is given up.
mod reach;
/// How the rules of a worker's sandboxes stand on its host.
pub mod rules;
/// One run, from a free slot to its release.
mod run;
/// What a run gives its caller.
mod sink;
/// `StartRun` on one worker.
mod start;
/// A run's way to its worker.
mod way;

pub use dial::connect_unix;
pub use dialer::{Client, Dialer};
pub use error::FleetError;
pub(crate) use error::is_transient;
pub use link::{Link, LinkState};
pub use orphans::Orphan;
pub use pace::Pace;
pub use sink::{ImageChoice, ImageProgress, PreparedImage, RunEnd, RunSink, SinkError, WorkerView};

/// The workers that a campaign may use, connected or not. A clone is the same fleet; with the last one the connections end.
#[derive(Debug, Clone)]
pub struct Fleet {
    links: Arc<Vec<Arc<Link>>>,
    pantry: Arc<blobs::Pantry>,
}

/// A worker as it stands, for display.
#[derive(Debug, Clone, serde::Serialize)]
pub struct WorkerState {
    /// Its name or address.
    pub name: String,
    /// Empty where it was never reached.
    pub worker_id: String,
    /// Of the connection, or why the worker is not used.
    #[serde(flatten)]
    pub state: LinkState,
    /// Its usable slots, as far as it is known.
    pub slots: usize,
    /// Runs that were given up and are to be ended there when it is back.
    pub given_up: usize,
}

impl Fleet {
    /// Of these links, connected or not.
    #[must_use]
    pub fn new(links: Vec<Arc<Link>>) -> Self {
        Self { links: Arc::new(links), pantry: Arc::default() }
    }

    /// What each worker that was ever reached said of itself when it was last asked.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerView> {
        self.links.iter().filter_map(|link| link.known()).map(|view| WorkerView::clone(&view)).collect()
    }

    /// How each worker stands, in the order of the links.
    #[must_use]
    pub fn states(&self) -> Vec<WorkerState> {
        let state = |link: &Arc<Link>| WorkerState {
            name: link.name(),
            worker_id: link.known().map(|view| view.worker_id.clone()).unwrap_or_default(),
            state: link.state(),
            slots: link.slots(),
            given_up: link.core.orphans.len(),
        };
        self.links.iter().map(state).collect()
    }

    /// A run that an earlier process gave up: it is cancelled and released where it is as soon as that worker is there.
    pub fn end_given_up(&self, orphan: &Orphan) {
        for link in self.links.iter() {
            link.core.orphans.add(orphan.clone());
        }
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
                result = async { images::prepare(&link.line().await?, image, Some(&progress)).await } => result?,
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
        self.pantry.keep(digest, bytes.clone());
        for link in self.links.iter() {
            blobs::put(&link.line().await?, &digest, &bytes).await?;
        }
        Ok(digest)
    }

    /// One run, from a free slot to its release. Cancelling the token cancels the run on the worker and still follows it to
    /// its end.
    ///
    /// # Errors
    /// Where the run's end is not known: the storage failed, or the worker stays away.
    #[tracing::instrument(name = "run", skip_all, fields(run_id = start.run_id))]
    pub async fn run(
        &self,
        start: v1::StartRunRequest,
        sink: &mut dyn RunSink,
        cancel: &CancellationToken,
    ) -> Result<RunEnd, FleetError> {
        let end = run::to_its_end(self, &start, sink, cancel).await?;
        METRICS.run_ended(match &end {
            RunEnd::Finished(_) => "finished",
            RunEnd::Lost { .. } => "lost",
            RunEnd::Rejected { .. } => "rejected",
        });
        Ok(end)
    }

    /// Follows a run that an earlier process started to its end, artifacts and release included; `start.spec` does not matter.
    /// Where no worker knows it, it is lost.
    ///
    /// # Errors
    /// Where its end is not known.
    #[tracing::instrument(name = "run", skip_all, fields(run_id = start.run_id))]
    pub async fn end(
        &self,
        start: &v1::StartRunRequest,
        sink: &mut dyn RunSink,
        cancel: &CancellationToken,
    ) -> Result<RunEnd, FleetError> {
        let unknown =
            RunEnd::Lost { cause: v1::LostCause::Unspecified, detail: "no worker knows the run".to_owned() };
        for link in self.links.iter() {
            let mut way = way::Way::new(link, start, cancel, std::time::Duration::ZERO);
            match follow::to_its_end(&mut way, sink).await? {
                RunEnd::Lost { .. } => {}
                end => return Ok(end),
            }
        }
        Ok(unknown)
    }
}
