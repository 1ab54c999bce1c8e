//! When a run whose worker is out of reach is given up (WORKER §2): after so long of this program's own awake time, and
//! past the run's limit and grace, for until then it may still be running. A laptop that slept all night has waited for
//! nothing. Pure: time comes in from outside.

use std::time::Duration;

use kit::awake::Awake;

/// A moment, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// Awake time.
    pub awake: Duration,
    /// All time.
    pub boot: Duration,
}

impl Moment {
    pub(super) fn now(awake: &Awake) -> Self {
        Self { awake: awake.now(), boot: awake.boot() }
    }
}

/// How long is waited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Awake time without a word.
    pub silence: Duration,
    /// The same, where somebody has cancelled the run.
    pub cancelled: Duration,
    /// The run's limit and grace.
    pub longest: Duration,
}

/// The last word of a run's worker about that run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    patience: Patience,
    heard: Moment,
    /// When the program began, as far as this side knows it.
    began: Moment,
    cancelled: Option<Moment>,
}

impl Reach {
    /// From this moment on.
    pub(super) fn new(patience: Patience, now: Moment) -> Self {
        Self { patience, heard: now, began: now, cancelled: None }
    }

    /// The worker said something about the run.
    pub(super) fn heard(&mut self, now: Moment) {
        self.heard = now;
    }

    /// The program began: its limit runs from here.
    pub(super) fn began(&mut self, now: Moment) {
        self.began = now;
    }

    /// Somebody cancelled the run.
    pub(super) fn cancelled(&mut self, now: Moment) {
        self.cancelled.get_or_insert(now);
    }

    /// Whether it is given up, and what is said then.
    pub(super) fn given_up(&self, now: Moment) -> Option<String> {
        let silent = now.awake.saturating_sub(self.heard.awake);
        if let Some(cancelled) = self.cancelled
            && silent >= self.patience.cancelled
            && now.awake.saturating_sub(cancelled.awake) >= self.patience.cancelled
        {
            let detail = "cancelled while the worker was out of reach; it is cancelled there when it is back";
            return Some(detail.to_owned());
        }
        let over = now.boot.saturating_sub(self.began.boot) >= self.patience.longest;
        (silent >= self.patience.silence && over)
            .then(|| format!("no word from the worker for {} min", silent.as_secs() / 60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn mins(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    fn at(awake: u64, asleep: u64) -> Moment {
        Moment { awake: mins(awake), boot: mins(awake + asleep) }
    }

    fn reach(longest: u64) -> Reach {
        let patience = Patience { silence: mins(30), cancelled: mins(1), longest: mins(longest) };
        Reach::new(patience, at(0, 0))
    }

    #[test]
    fn it_takes_thirty_minutes_awake() {
        assert_eq!(reach(10).given_up(at(29, 0)), None);
        assert!(reach(10).given_up(at(30, 0)).unwrap().contains("30 min"));
    }

    #[test]
    fn a_night_asleep_is_no_time_without_a_word() {
        assert_eq!(reach(10).given_up(at(1, 8 * 60)), None);
        assert!(reach(10).given_up(at(30, 8 * 60)).is_some());
    }

    #[test]
    fn it_is_not_given_up_before_its_limit_and_grace() {
        let mut reach = reach(120);
        assert_eq!(reach.given_up(at(119, 0)), None);
        assert!(reach.given_up(at(120, 0)).is_some());
        assert!(reach.given_up(at(60, 60)).is_some(), "the worker's time went on while this side slept");
        reach.began(at(10, 0));
        assert_eq!(reach.given_up(at(120, 0)), None);
        assert!(reach.given_up(at(130, 0)).is_some());
    }

    #[test]
    fn every_word_begins_it_anew() {
        let mut reach = reach(10);
        reach.heard(at(20, 0));
        assert_eq!(reach.given_up(at(49, 0)), None);
        assert!(reach.given_up(at(50, 0)).is_some());
    }

    #[test]
    fn whoever_cancels_does_not_wait_for_a_worker_that_is_away() {
        let mut reach = reach(120);
        reach.cancelled(at(5, 0));
        assert_eq!(reach.given_up(at(5, 100)), None);
        assert!(reach.given_up(at(6, 0)).unwrap().contains("cancelled"));
        reach.heard(at(6, 0));
        assert_eq!(reach.given_up(at(6, 30)), None, "it is back: its own end is waited for");
    }
}
