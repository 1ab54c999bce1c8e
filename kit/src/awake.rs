//! Time that counts only while this program runs, and word when it did not: a laptop that slept, a process that was
//! stopped. Noticed by a tick that comes late by CLOCK_BOOTTIME, which goes on through sleep. What is to be done then
//! (every connection opened anew) is others' business.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::clock::Clock;

/// A tick comes so often.
pub const TICK: Duration = Duration::from_secs(1);
/// A tick that is late by so much means sleep: a busy machine is late by less.
pub const LATE: Duration = Duration::from_secs(10);

/// The pure part: readings of the boot clock in, awake time and sleeps out.
#[derive(Debug, Clone, Copy)]
pub struct Ticks {
    last: Duration,
    awake: Duration,
}

impl Ticks {
    /// From this reading on.
    #[must_use]
    pub fn new(boot: Duration) -> Self {
        Self { last: boot, awake: Duration::ZERO }
    }

    /// A tick at this reading; `Some` is how long the machine slept before it.
    pub fn tick(&mut self, boot: Duration) -> Option<Duration> {
        let slept = self.slept(boot);
        self.awake = self.awake_at(boot);
        self.last = self.last.max(boot);
        slept
    }

    /// Awake time at this reading. Of a gap that was sleep one tick counts: more of it was not seen.
    #[must_use]
    pub fn awake_at(&self, boot: Duration) -> Duration {
        let passed = boot.saturating_sub(self.last);
        self.awake + if self.slept(boot).is_some() { TICK } else { passed }
    }

    fn slept(&self, boot: Duration) -> Option<Duration> {
        let late = boot.saturating_sub(self.last).saturating_sub(TICK);
        (late >= LATE).then_some(late)
    }
}

/// The ticking clock of a process. It ticks for as long as somebody holds it.
#[derive(Debug)]
pub struct Awake {
    clock: Arc<dyn Clock>,
    ticks: Mutex<Ticks>,
    sleeps: watch::Sender<u64>,
}

impl Awake {
    /// Begins to tick, once a [`TICK`] of tokio's time.
    #[must_use]
    pub fn start(clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::start_at_pace(clock, TICK)
    }

    /// As [`Awake::start`], looking at the clock at another pace: for tests, whose clock is moved by hand.
    #[must_use]
    pub fn start_at_pace(clock: Arc<dyn Clock>, pace: Duration) -> Arc<Self> {
        let ticks = Mutex::new(Ticks::new(clock.boot()));
        let awake = Arc::new(Self { clock, ticks, sleeps: watch::Sender::new(0) });
        let weak = Arc::downgrade(&awake);
        crate::task::spawn("awake", async move {
            loop {
                tokio::time::sleep(pace).await;
                match weak.upgrade() {
                    Some(awake) => awake.tick(),
                    None => return,
                }
            }
        });
        awake
    }

    fn tick(&self) {
        let slept = self.ticks.lock().unwrap_or_else(PoisonError::into_inner).tick(self.clock.boot());
        if let Some(slept) = slept {
            tracing::info!(seconds = slept.as_secs(), "this machine slept");
            self.sleeps.send_modify(|sleeps| *sleeps += 1);
        }
    }

    /// Time since the start that this program was awake.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.ticks.lock().unwrap_or_else(PoisonError::into_inner).awake_at(self.clock.boot())
    }

    /// All time, sleep included.
    #[must_use]
    pub fn boot(&self) -> Duration {
        self.clock.boot()
    }

    /// Changes each time that the machine slept.
    #[must_use]
    pub fn sleeps(&self) -> watch::Receiver<u64> {
        self.sleeps.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::clock::ManualClock;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_tick_that_is_ten_seconds_late_is_sleep_and_one_that_is_nine_late_is_not() {
        let mut ticks = Ticks::new(secs(100));
        assert_eq!(ticks.tick(secs(101)), None);
        assert_eq!(ticks.tick(secs(111)), None);
        assert_eq!(ticks.tick(secs(122)), Some(secs(10)));
        assert_eq!(ticks.awake_at(secs(122)), secs(12), "all but the ten");
    }

    #[test]
    fn awake_time_never_goes_back_and_a_night_counts_one_tick() {
        let mut ticks = Ticks::new(Duration::ZERO);
        ticks.tick(secs(1));
        assert_eq!(ticks.awake_at(secs(30_000)), secs(2));
        assert_eq!(ticks.tick(secs(30_000)), Some(secs(29_998)));
        assert_eq!(ticks.awake_at(secs(29_000)), secs(2), "a clock that went back moves nothing");
        assert_eq!(ticks.tick(secs(30_001)), None);
        assert_eq!(ticks.awake_at(secs(30_001)), secs(3));
    }

    #[tokio::test]
    async fn whoever_waits_hears_of_sleep() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let awake = Awake::start_at_pace(clock.clone(), Duration::from_millis(2));
        let mut sleeps = awake.sleeps();
        clock.sleep(secs(3600));
        sleeps.changed().await.unwrap();
        assert_eq!(*sleeps.borrow(), 1);
        assert_eq!((awake.now(), awake.boot()), (secs(1), secs(3600)));
    }
}
