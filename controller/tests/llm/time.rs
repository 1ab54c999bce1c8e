//! Waits that end when the test says so.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use controller::llm::{Timer, Wait};
use jiff::Timestamp;
use kit::{clock::ManualClock, task::CancellationToken};
use tokio::sync::watch;

/// Records every wait before an attempt and lets it pass at once, with the clock moved on; other waits last until
/// they are ended.
pub struct TestTimer {
    pub clock: Arc<ManualClock>,
    waits: Mutex<Vec<Duration>>,
    seen: watch::Sender<usize>,
    ends: Mutex<HashMap<Wait, CancellationToken>>,
}

impl TestTimer {
    pub fn new() -> Arc<Self> {
        let past = CancellationToken::new();
        past.cancel();
        Arc::new(Self {
            clock: ManualClock::new("2026-11-24T06:00:00Z".parse::<Timestamp>().expect("a time")),
            waits: Mutex::new(Vec::new()),
            seen: watch::channel(0).0,
            ends: Mutex::new(HashMap::from([(Wait::Retry, past)])),
        })
    }

    /// Waits before attempts, so far.
    pub fn waits(&self) -> Vec<Duration> {
        self.waits.lock().expect("lock").clone()
    }

    /// From now on waits of this kind last until they are ended.
    pub fn hold(&self, why: Wait) {
        self.ends.lock().expect("lock").insert(why, CancellationToken::new());
    }

    /// Ends all waits of this kind, those to come too.
    pub fn end(&self, why: Wait) {
        self.end_of(why).cancel();
    }

    /// Returns when that many waits before attempts have begun.
    pub async fn begun(&self, count: usize) {
        let mut seen = self.seen.subscribe();
        seen.wait_for(|seen| *seen >= count).await.expect("the timer lives");
    }

    fn end_of(&self, why: Wait) -> CancellationToken {
        self.ends.lock().expect("lock").entry(why).or_default().clone()
    }
}

#[async_trait::async_trait]
impl Timer for TestTimer {
    async fn sleep(&self, why: Wait, span: Duration) {
        if why == Wait::Retry {
            self.waits.lock().expect("lock").push(span);
            self.seen.send_modify(|seen| *seen += 1);
        }
        self.end_of(why).cancelled().await;
        if why == Wait::Retry {
            self.clock.advance(span);
        }
    }
}
