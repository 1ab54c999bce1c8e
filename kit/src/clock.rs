//! The one clock. Limits and time-outs run on the monotonic clock (it stands while the machine sleeps);
//! the boot clock only notices sleep; the wall clock is for display and records.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// A source of time. Code that needs the time takes an `Arc<dyn Clock>`.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock.
    fn wall(&self) -> Timestamp;
    /// Time since some fixed moment of this boot; stands while the machine sleeps (CLOCK_MONOTONIC).
    fn monotonic(&self) -> Duration;
    /// Time since boot, sleep included (CLOCK_BOOTTIME).
    fn boot(&self) -> Duration;
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Shared, as most callers want it.
    #[must_use]
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

fn read(id: ClockId) -> Duration {
    // These clocks exist on every Linux since 2.6.39; zero would only make a time-out late.
    clock_gettime(id).map(Duration::from).unwrap_or_default()
}

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }
    fn monotonic(&self) -> Duration {
        read(ClockId::CLOCK_MONOTONIC)
    }
    fn boot(&self) -> Duration {
        read(ClockId::CLOCK_BOOTTIME)
    }
}

/// A clock that moves only when it is told to: for tests.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(Timestamp, Duration, Duration)>,
}

impl ManualClock {
    /// Starts at `wall`, with both other clocks at zero.
    #[must_use]
    pub fn new(wall: Timestamp) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new((wall, Duration::ZERO, Duration::ZERO)) })
    }

    /// Moves all three clocks on.
    pub fn advance(&self, by: Duration) {
        self.shift(by, by);
    }

    /// The machine slept: the monotonic clock stood.
    pub fn sleep(&self, by: Duration) {
        self.shift(Duration::ZERO, by);
    }

    fn shift(&self, awake: Duration, all: Duration) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let wall = i64::try_from(all.as_nanos()).unwrap_or(i64::MAX);
        state.0 = state.0.checked_add(jiff::SignedDuration::from_nanos(wall)).unwrap_or(Timestamp::MAX);
        state.1 += awake;
        state.2 += all;
    }

    fn get(&self) -> (Timestamp, Duration, Duration) {
        *self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        self.get().0
    }
    fn monotonic(&self) -> Duration {
        self.get().1
    }
    fn boot(&self) -> Duration {
        self.get().2
    }
}

/// Nanoseconds since 1970, as the protocol carries a wall time.
#[must_use]
pub fn wall_ns(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeping_machine_moves_only_wall_and_boot() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        clock.advance(Duration::from_secs(5));
        clock.sleep(Duration::from_secs(60));
        assert_eq!(clock.monotonic(), Duration::from_secs(5));
        assert_eq!(clock.boot(), Duration::from_secs(65));
        assert_eq!(wall_ns(clock.wall()), 65_000_000_000);
    }

    #[test]
    fn the_system_clock_moves_on() {
        let clock = SystemClock;
        let before = clock.monotonic();
        assert!(clock.monotonic() >= before && clock.boot() > Duration::ZERO);
    }
}
