//! What everyone but the driver sees of a run.

use std::{path::PathBuf, time::Duration};

use kit::{digest::Digest, task::CancellationToken};
use proto::v1::{Finished, Label, Run};
use tokio::sync::watch;

use super::{RunId, state::State};

/// What the driver publishes.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Where the run is.
    pub state: State,
    /// Monotonic, at the start gate.
    pub gate: Option<Duration>,
    /// Fixed at the end, as the clock may be another boot's.
    pub elapsed: Option<Duration>,
    /// With the last event.
    pub finished: Option<Finished>,
    /// The spool cannot be read to its end: watchers are told so.
    pub spool_damaged: bool,
}

/// A run, for everyone. Cheap to share; nothing in it moves the run but `cancel`.
#[derive(Debug)]
pub struct RunHandle {
    /// The folder's name.
    pub id: RunId,
    /// Whose run it is.
    pub controller_id: String,
    /// Of the spec's bytes.
    pub spec_digest: Digest,
    /// As the spec has them.
    pub labels: Vec<Label>,
    /// Where record, segments and artifacts lie.
    pub folder: PathBuf,
    /// Ns since 1970.
    pub accepted_wall_ns: i64,
    /// Its index.
    pub slot: u32,
    /// From the driver.
    pub published: watch::Receiver<Published>,
    /// The last sequence on disk.
    pub synced: watch::Receiver<u64>,
    /// The one thing that anyone may ask of the driver.
    pub cancel: CancellationToken,
    /// For retention; 0 until it has finished.
    pub finished_at_running_s: std::sync::atomic::AtomicU64,
}

impl RunHandle {
    /// As the protocol says it, at a monotonic moment.
    #[must_use]
    pub fn wire(&self, now: Duration) -> Run {
        let published = self.published.borrow().clone();
        let elapsed = published
            .elapsed
            .or_else(|| published.gate.map(|gate| now.saturating_sub(gate)))
            .unwrap_or_default();
        Run {
            run_id: self.id.to_string(),
            state: published.state.wire().into(),
            last_sequence: *self.synced.borrow(),
            accepted_wall_time_ns: self.accepted_wall_ns,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            labels: self.labels.clone(),
            spec_digest: self.spec_digest.to_string(),
            finished: published.finished,
        }
    }

    /// Whether the last event is written.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.published.borrow().state == State::Finished
    }

    /// A watcher may have the last event a moment before it is published here: whoever comes with it waits that moment.
    pub async fn settle(&self, longest: std::time::Duration) {
        if self.published.borrow().state == State::Harvesting {
            // Past it the caller hears that the run has not finished.
            tokio::time::timeout(longest, self.wait_finished()).await.ok();
        }
    }

    /// Waits for the last event.
    pub async fn wait_finished(&self) {
        // An error means that the driver is gone, which it is only after the end.
        self.published.clone().wait_for(|p| p.state == State::Finished).await.ok();
    }
}
