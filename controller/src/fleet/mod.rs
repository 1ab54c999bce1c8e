//! The workers that a campaign may use: connections, placing runs on free slots, following them to their end.
//! It speaks the protocol and knows nothing of experiments; where the events of a run go is the caller's business
//! ([`RunSink`]), so that nothing is released before the caller has it on disk.
//!
//! A run's way: wait for a slot → `StartRun` (the same bytes again after a broken connection: the run's id makes that safe) →
//! `WatchRun` from the sink's last sequence, again after each break → artifacts, checked by digest → the sink says that
//! all is safe → `ReleaseRun`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use kit::{awake::Awake, clock::SystemClock, digest::Digest, task::CancellationToken};
use proto::v1;
use tokio::sync::mpsc;

use crate::telemetry::METRICS;

/// Where a worker is, as people write it.
pub mod address;
/// Artifacts onto this machine's disk.
mod artifacts;
/// Bytes to a worker.
mod blobs;
/// Who waits for a place, and who has one.
mod board;
/// The ways to a worker.
pub mod dial;
/// What opens a channel.
mod dialer;
/// What goes wrong.
mod error;
/// The same thing on all workers.
mod everywhere;
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
/// What a worker has to give.
pub mod offer;
/// Runs that were given up.
mod orphans;
/// How long things are waited for.
mod pace;
/// Where a run goes.
pub mod place;
/// When a run whose worker is out of reach is given up.
mod reach;
/// How the rules of a worker's sandboxes stand on its host.
pub mod rules;
/// One run, from a free slot to its release.
mod run;
/// What a run gives its caller.
mod sink;
/// Whether a worker may be trusted with runs.
mod standing;
/// `StartRun` on one worker.
mod start;
/// A run's way to its worker.
mod way;

pub use dial::connect_unix;
pub use dialer::{Client, Dialer};
pub use error::FleetError;
pub(crate) use error::is_transient;
pub use link::{Link, LinkState, Wish};
pub use orphans::Orphan;
pub use pace::Pace;
pub use sink::{ImageChoice, ImageProgress, PreparedImage, RunEnd, RunSink, SinkError, WorkerView};

/// Workers that rest, and runs that wait, are looked at so often.
const TICK: Duration = Duration::from_millis(250);

/// The workers that a campaign may use, connected or not. A clone is the same fleet; with the last one the connections end.
#[derive(Debug, Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
}

/// See [`Fleet::downgrade`].
#[derive(Debug, Clone)]
pub struct WeakFleet(Weak<Shared>);

impl WeakFleet {
    /// The fleet, while anybody uses it.
    #[must_use]
    pub fn upgrade(&self) -> Option<Fleet> {
        self.0.upgrade().map(|shared| Fleet { shared })
    }
}

#[derive(Debug)]
struct Shared {
    links: Vec<Arc<Link>>,
    pantry: blobs::Pantry,
    board: Arc<board::Board>,
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
    /// Runs of ours on it.
    pub runs: usize,
    /// Runs that were given up and are to be ended there when it is back.
    pub given_up: usize,
}

impl Fleet {
    /// Of these links, connected or not.
    #[must_use]
    pub fn new(links: Vec<Arc<Link>>) -> Self {
        let core = links.first().map(|link| link.core.clone());
        let awake =
            core.as_ref().map_or_else(|| Awake::start(SystemClock::shared()), |core| core.awake.clone());
        let pace = core.map_or_else(Pace::default, |core| core.pace);
        let board = board::Board::new(links.iter().map(|link| link.name()).collect(), awake, pace);
        for (worker, link) in links.iter().enumerate() {
            watch(&board, worker, link);
        }
        let ticking = Arc::downgrade(&board);
        kit::task::spawn("fleet", async move {
            loop {
                tokio::time::sleep(TICK).await;
                match ticking.upgrade() {
                    Some(board) => board.tick(),
                    None => return,
                }
            }
        });
        Self { shared: Arc::new(Shared { links, pantry: blobs::Pantry::default(), board }) }
    }

    /// The same fleet, for somebody who only looks at it: it does not keep the connections open.
    #[must_use]
    pub fn downgrade(&self) -> WeakFleet {
        WeakFleet(Arc::downgrade(&self.shared))
    }

    fn links(&self) -> &[Arc<Link>] {
        &self.shared.links
    }

    fn pantry(&self) -> &blobs::Pantry {
        &self.shared.pantry
    }

    fn board(&self) -> &Arc<board::Board> {
        &self.shared.board
    }

    /// What each worker that was ever reached said of itself when it was last asked.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerView> {
        self.links().iter().filter_map(|link| link.known()).map(|view| WorkerView::clone(&view)).collect()
    }

    /// How each worker stands, in the order of the links.
    #[must_use]
    pub fn states(&self) -> Vec<WorkerState> {
        let state = |(worker, link): (usize, &Arc<Link>)| {
            let (aside, runs) = self.board().standing(worker);
            WorkerState {
                name: link.name(),
                worker_id: link.known().map(|view| view.worker_id.clone()).unwrap_or_default(),
                state: aside.map_or_else(|| link.state(), |reason| LinkState::SetAside { reason }),
                slots: link.slots(),
                runs,
                given_up: link.core.orphans.len(),
            }
        };
        self.links().iter().enumerate().map(state).collect()
    }

    /// Each worker that runs failed on over and over, with the reason, while it is set aside.
    #[must_use]
    pub fn set_aside(&self) -> BTreeMap<String, String> {
        let aside = |(worker, link): (usize, &Arc<Link>)| {
            self.board().standing(worker).0.map(|reason| (link.name(), reason))
        };
        self.links().iter().enumerate().filter_map(aside).collect()
    }

    /// Places that run at once, over all workers that were ever reached.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.links().iter().map(|link| link.slots()).sum()
    }

    /// Where one more run would go as things are now, and why. Changes nothing.
    ///
    /// # Errors
    /// Where the request holds no spec.
    pub fn plan(&self, start: &v1::StartRunRequest) -> Result<place::Plan, prost::DecodeError> {
        let (needs, variant) = needs::Needs::of(start)?;
        Ok(self.board().plan(&needs, &variant))
    }

    /// Runs of this experiment go on to the kind of device that this worker has: some of them ran there before this process
    /// was. Nothing happens where the worker is not connected or the experiment is bound already.
    pub fn keep_kind(&self, campaign: &str, experiment: &str, worker_id: &str, gpus: u32) {
        let is_it = |link: &Arc<Link>| link.known().is_some_and(|view| view.worker_id == worker_id);
        if let Some(worker) = self.links().iter().position(is_it) {
            self.board().bind(&needs::group(campaign, experiment), worker, gpus);
        }
    }

    /// Builds or finds an image on every worker that is there; the others get it with their first run. Where none is there,
    /// the first to come is waited for.
    ///
    /// # Errors
    /// Where no worker can: the first one's reason.
    pub async fn prepare_image(
        &self,
        image: ImageChoice<'_>,
        progress: mpsc::Sender<ImageProgress>,
        cancel: &CancellationToken,
    ) -> Result<PreparedImage, FleetError> {
        let (name, backend) = (image.name.to_owned(), image.backend.to_owned());
        let work = |line: line::Line| -> BoxFuture<'static, _> {
            let (name, backend, progress) = (name.clone(), backend.clone(), progress.clone());
            Box::pin(async move {
                let image = ImageChoice { name: &name, backend: &backend };
                let prepared = images::prepare(&line, image, Some(&progress)).await?;
                // So that placement knows of it.
                line.refresh().await;
                Ok(prepared)
            })
        };
        tokio::select! {
            prepared = everywhere::everywhere(self.links(), work) => prepared,
            () = cancel.cancelled() => Err(FleetError::Cancelled),
        }
    }

    /// Puts bytes on every worker that is there and does not have them yet; the others get them with the first run that
    /// asks for them.
    ///
    /// # Errors
    /// Where no worker can take them: the first one's reason.
    pub async fn put_blob(&self, bytes: bytes::Bytes) -> Result<Digest, FleetError> {
        let digest = Digest::of(&bytes);
        self.pantry().keep(digest, bytes.clone());
        let work = |line: line::Line| -> BoxFuture<'static, _> {
            let bytes = bytes.clone();
            Box::pin(async move { blobs::put(&line, &digest, &bytes).await })
        };
        everywhere::everywhere(self.links(), work).await?;
        Ok(digest)
    }

    /// One run, from a free slot to its release. Cancelling the token cancels the run on the worker and still follows it to
    /// its end.
    ///
    /// # Errors
    /// Where the storage failed, and where no worker that could take it was there for long.
    #[tracing::instrument(name = "run", skip_all, fields(run_id = start.run_id))]
    pub async fn run(
        &self,
        start: v1::StartRunRequest,
        sink: &mut dyn RunSink,
        cancel: &CancellationToken,
    ) -> Result<RunEnd, FleetError> {
        if self.links().is_empty() {
            return Err(FleetError::NoWorker);
        }
        let end = match run::Errand::new(self, &start, cancel) {
            Ok(errand) => errand.to_its_end(sink).await?,
            Err(rejected) => rejected,
        };
        METRICS.run_ended(match &end {
            RunEnd::Finished(_) => "finished",
            RunEnd::Lost { .. } => "lost",
            RunEnd::Rejected { .. } => "rejected",
        });
        Ok(end)
    }

    /// As [`Fleet::resume`], where it is not known which worker has the run.
    ///
    /// # Errors
    /// As there.
    #[tracing::instrument(name = "run", skip_all, fields(run_id = start.run_id))]
    pub async fn end(
        &self,
        start: &v1::StartRunRequest,
        sink: &mut dyn RunSink,
        cancel: &CancellationToken,
    ) -> Result<RunEnd, FleetError> {
        self.resume(start, None, sink, cancel).await
    }

    /// Follows a run that an earlier process started to its end, artifacts and release included; of `start.spec` only the
    /// limits matter. Lost where no worker knows it; a worker that may have it and is away is waited for as long as
    /// [`Fleet::run`] would.
    ///
    /// # Errors
    /// Where the storage failed.
    pub async fn resume(
        &self,
        start: &v1::StartRunRequest,
        worker_id: Option<&str>,
        sink: &mut dyn RunSink,
        cancel: &CancellationToken,
    ) -> Result<RunEnd, FleetError> {
        match run::Errand::new(self, start, cancel) {
            Ok(errand) => errand.resume(worker_id, sink).await,
            Err(rejected) => Ok(rejected),
        }
    }

    /// A run that an earlier process gave up: it is cancelled and released where it is as soon as that worker is there.
    pub fn end_given_up(&self, orphan: &Orphan) {
        for link in self.links() {
            link.core.orphans.add(orphan.clone());
        }
    }

    /// Whether a run that was given up is ended and released by now: the worker that had it has answered, or, where nobody
    /// knows which that is, all have.
    #[must_use]
    pub fn has_ended(&self, orphan: &Orphan) -> bool {
        let met = |link: &Arc<Link>| match &orphan.worker_id {
            Some(id) => link.known().is_some_and(|view| view.worker_id == *id),
            None => true,
        };
        let mut met = self.links().iter().filter(|link| met(link)).peekable();
        met.peek().is_some() && met.all(|link| !link.core.orphans.has(&orphan.run_id))
    }
}

/// Tells the board how a link stands, now and whenever that changes, until the link is gone.
fn watch(board: &Arc<board::Board>, worker: usize, link: &Arc<Link>) {
    let look = move |board: &Arc<board::Board>, link: &Link| {
        board.seen(worker, &link.state(), link.known().as_deref());
    };
    let mut changes = link.every_change();
    look(board, link);
    let (board, link) = (Arc::downgrade(board), Arc::downgrade(link));
    kit::task::spawn("a link's state", async move {
        while changes.next().await {
            match (board.upgrade(), link.upgrade()) {
                (Some(board), Some(link)) => look(&board, &link),
                _ => return,
            }
        }
    });
}

#[cfg(test)]
mod tests;
