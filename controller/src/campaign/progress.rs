//! What a campaign tells whoever watches it: typed events over a bounded channel, for the command line to draw. Events
//! are for the eye: where the watcher is slow they are left out, and nothing waits for it.

use tokio::sync::mpsc;

use super::researcher::BudgetLeft;

/// How many events may wait.
pub const CHANNEL: usize = 1024;

/// Something to show.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The researcher's first line.
    FirstLine(String),
    /// The campaign's id is known.
    Started {
        /// Of the campaign.
        id: String,
    },
    /// Another step of the loop.
    Step {
        /// From 1; 0 before the first plan.
        iteration: u32,
        /// Of at most so many.
        iterations: u32,
        /// Like "planning".
        step: &'static str,
        /// Like a plan's title; empty where there is nothing to add.
        detail: String,
    },
    /// An image is being made.
    Image {
        /// The step's name.
        name: String,
        /// So much of `total`.
        done: u64,
        /// 0 where it is not known.
        total: u64,
        /// The last line that it printed.
        line: String,
    },
    /// Runs of the step that is going on.
    Runs {
        /// Ended.
        done: u32,
        /// Of so many.
        total: u32,
        /// On a slot now.
        running: u32,
    },
    /// A run ended.
    RunEnded {
        /// Its id.
        run: String,
        /// "v1".
        variant: String,
        /// As issued.
        seed: u64,
        /// WORKER §5's word.
        outcome: &'static str,
        /// One line; empty where it succeeded.
        message: String,
    },
    /// A metric came. (For the watcher: the researcher sees no metric of an open experiment.)
    Metric {
        /// Its run.
        run: String,
        /// "v1".
        variant: String,
        /// As logged.
        name: String,
        /// The program's step.
        step: Option<i64>,
        /// As logged.
        value: f64,
    },
    /// What is left.
    Budget(BudgetLeft),
    /// A sentence by rule, worth a line of its own: a verdict, a repair, an amendment.
    Said(String),
}

/// Where events go; cheap to clone.
#[derive(Debug, Clone)]
pub struct Watchers(Option<mpsc::Sender<Progress>>);

impl Watchers {
    /// A channel for one watcher.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Progress>) {
        let (sender, receiver) = mpsc::channel(CHANNEL);
        (Self(Some(sender)), receiver)
    }

    /// Nobody watches.
    #[must_use]
    pub fn nobody() -> Self {
        Self(None)
    }

    /// Tells, or leaves it out where the watcher is slow or gone.
    pub fn tell(&self, event: Progress) {
        if let Some(sender) = &self.0 {
            sender.try_send(event).ok();
        }
    }
}
