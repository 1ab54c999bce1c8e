//! Whether a worker may be trusted with runs: one that fails over and over is set aside with its reason, and taken back
//! after a pause that doubles each time. Pure.

use std::time::Duration;

/// Failures in a row.
const STRIKES: u32 = 3;

/// Of one worker. Times are awake time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    strikes: u32,
    /// The moment of the last one: what was under way then is the same incident.
    struck: Option<Duration>,
    times_aside: u32,
    aside: Option<(Duration, String)>,
}

/// How long it is set aside for.
#[derive(Debug, Clone, Copy)]
pub struct Cooling {
    /// The first time.
    pub first: Duration,
    /// At most.
    pub longest: Duration,
}

impl Standing {
    /// A run that was begun at `begun` failed by the worker's own doing. Runs that were under way when the last one failed
    /// count with it: an engine that restarts takes all of them along.
    pub fn failed(&mut self, begun: Duration, now: Duration, reason: &str, cooling: Cooling) {
        if self.struck.is_some_and(|struck| begun <= struck) {
            return;
        }
        self.strikes += 1;
        self.struck = Some(now);
        // One that was set aside before has no three tries.
        if self.strikes < STRIKES && self.times_aside == 0 {
            return;
        }
        let pause = cooling.first.saturating_mul(1 << self.times_aside.min(16)).min(cooling.longest);
        self.times_aside += 1;
        let reason = format!("failed {} times in a row, the last time: {reason}", self.strikes);
        self.aside = Some((now + pause, reason));
    }

    /// A run ended as a run should.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Why it is not used at this moment, and for how long yet.
    #[must_use]
    pub fn aside(&self, now: Duration) -> Option<(&str, Duration)> {
        let (until, reason) = self.aside.as_ref()?;
        (*until > now).then(|| (reason.as_str(), *until - now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLING: Cooling = Cooling { first: secs(60), longest: secs(200) };

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn three_failures_in_a_row_and_it_is_set_aside_with_the_last_reason() {
        let mut standing = Standing::default();
        for second in [1, 2] {
            standing.failed(secs(second), secs(second), "no space", COOLING);
            assert_eq!(standing.aside(secs(second)), None);
        }
        standing.failed(secs(3), secs(3), "engine", COOLING);
        let (reason, left) = standing.aside(secs(13)).unwrap();
        assert!(reason.contains("3 times") && reason.contains("engine"), "{reason}");
        assert_eq!(left, secs(50));
        assert_eq!(standing.aside(secs(63)), None, "taken back");
    }

    #[test]
    fn one_that_fails_again_is_set_aside_at_once_and_for_longer() {
        let mut standing = Standing::default();
        for second in [1, 2, 3, 100, 300, 700] {
            standing.failed(secs(second), secs(second), "no", COOLING);
        }
        assert_eq!(standing.aside(secs(700)).unwrap().1, secs(200), "60, 120, then the longest");
    }

    #[test]
    fn what_falls_together_counts_once() {
        let mut standing = Standing::default();
        for _ in 0..8 {
            standing.failed(secs(1), secs(10), "the engine restarted", COOLING);
        }
        assert_eq!(standing.aside(secs(10)), None);
    }

    #[test]
    fn a_run_that_ends_well_wipes_it_out() {
        let mut standing = Standing::default();
        for second in [1, 2] {
            standing.failed(secs(second), secs(second), "no", COOLING);
        }
        standing.succeeded();
        standing.failed(secs(5), secs(5), "no", COOLING);
        assert_eq!(standing.aside(secs(5)), None);
    }
}
