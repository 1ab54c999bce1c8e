//! How many connections there may be, from where, and how often a refusal is told: nothing that a stranger does costs
//! memory or log without a bound.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kit::clock::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections of owners and of keys that were let in.
const KNOWN_MAX: usize = 256;
/// Connections that are in a handshake or may only join.
const STRANGERS_MAX: usize = 64;
/// Of these, from one place.
const STRANGERS_OF_ONE: usize = 16;
/// Lines about refusals in a window.
const LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// Wrong secrets from one place in a window.
const ATTEMPTS: u32 = 10;
/// Places that are remembered.
const PLACES_MAX: usize = 1024;

/// The bounds of all doors.
#[derive(Debug)]
pub struct Bounds {
    known: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    sources: Mutex<HashMap<IpAddr, usize>>,
    lines: Mutex<Window>,
    clock: Arc<dyn Clock>,
}

/// A count that begins anew after a while.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    since: Duration,
    count: u32,
}

impl Window {
    /// Counts one more and says how many there are in this window, and how many were over `most` in one that has ended.
    fn count(&mut self, now: Duration, most: u32) -> (u32, u32) {
        let mut over = 0;
        if self.count == 0 || now.saturating_sub(self.since) >= WINDOW {
            over = self.count.saturating_sub(most);
            *self = Self { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        (self.count, over)
    }
}

/// A place among the strangers.
#[derive(Debug)]
pub struct StrangerPermit {
    _place: OwnedSemaphorePermit,
    source: IpAddr,
    bounds: Arc<Bounds>,
}

impl Drop for StrangerPermit {
    fn drop(&mut self) {
        let mut sources = self.bounds.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sources.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

impl Bounds {
    /// Nobody is there yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            known: Arc::new(Semaphore::new(KNOWN_MAX)),
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            sources: Mutex::default(),
            lines: Mutex::default(),
            clock,
        }
    }

    /// A place for one that is known, if there is one.
    pub fn known(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.known).try_acquire_owned().ok()
    }

    /// A place for one of whom nothing is known yet.
    pub fn stranger(self: &Arc<Self>, from: IpAddr) -> Option<StrangerPermit> {
        let source = place(from);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(source).or_default();
        let permit = (*count < STRANGERS_OF_ONE)
            .then(|| Arc::clone(&self.strangers).try_acquire_owned().ok())
            .flatten();
        match permit {
            Some(permit) => {
                *count += 1;
                Some(StrangerPermit { _place: permit, source, bounds: Arc::clone(self) })
            }
            None => {
                if *count == 0 {
                    sources.remove(&source);
                }
                None
            }
        }
    }

    /// Tells of a refusal, at most so often; what was left out is told with the next one.
    pub fn tell(&self, from: impl std::fmt::Display, what: &dyn std::error::Error) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, left_out) = lines.count(self.clock.monotonic(), LINES);
        drop(lines);
        if left_out > 0 {
            tracing::warn!(left_out, "refused connections that were not logged one by one");
        }
        if count <= LINES {
            tracing::warn!(%from, reason = %kit::text::chain(what, 300), "a connection was refused");
        }
    }
}

/// Where an address belongs: a machine with IPv6 has a whole /64.
fn place(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
        v4 => v4,
    }
}

/// There are too many.
#[derive(Debug, thiserror::Error)]
#[error("there are too many connections")]
pub struct TooMany;

/// Wrong secrets, by place.
#[derive(Debug, Default)]
pub struct Attempts {
    places: Mutex<HashMap<IpAddr, Window>>,
}

impl Attempts {
    /// Whether this place has tried too often lately.
    pub fn too_many(&self, from: IpAddr, now: Duration) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, window| now.saturating_sub(window.since) < WINDOW);
        // So many places at once are one attacker.
        places.len() >= PLACES_MAX || places.get(&place(from)).is_some_and(|window| window.count >= ATTEMPTS)
    }

    /// It has tried in vain.
    pub fn failed(&self, from: IpAddr, now: Duration) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(place(from)).or_default().count(now, ATTEMPTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::clock::ManualClock;

    fn from(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_place_cannot_take_all_and_gives_back_what_it_had() {
        let bounds = Arc::new(Bounds::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH)));
        let mut held: Vec<_> = (0..40).filter_map(|n| bounds.stranger(from(&format!("fd00::{n}")))).collect();
        assert_eq!(held.len(), STRANGERS_OF_ONE, "all of one /64");
        held.extend((0..100).filter_map(|n| bounds.stranger(from(&format!("10.0.0.{n}")))));
        assert_eq!(held.len(), STRANGERS_MAX);
        drop(held);
        assert!(bounds.sources.lock().unwrap().is_empty());
        assert!(bounds.stranger(from("fd00::1")).is_some());
    }

    #[test]
    fn wrong_secrets_are_counted_by_place_and_forgotten() {
        let attempts = Attempts::default();
        let at = |seconds| Duration::from_secs(seconds);
        for _ in 0..ATTEMPTS {
            assert!(!attempts.too_many(from("10.0.0.1"), at(5)));
            attempts.failed(from("10.0.0.1"), at(5));
        }
        assert!(attempts.too_many(from("10.0.0.1"), at(6)));
        assert!(!attempts.too_many(from("10.0.0.2"), at(6)));
        assert!(!attempts.too_many(from("10.0.0.1"), at(66)));
        for n in 0..2000_u32 {
            let place = IpAddr::from(std::net::Ipv4Addr::from(n));
            if !attempts.too_many(place, at(70)) {
                attempts.failed(place, at(70));
            }
        }
        assert_eq!(attempts.places.lock().unwrap().len(), PLACES_MAX);
    }

    #[test]
    fn a_flood_is_told_in_a_few_lines() {
        let mut window = Window::default();
        let at = |seconds| Duration::from_secs(seconds);
        let told = (0..1000).filter(|_| window.count(at(1), LINES).0 <= LINES).count();
        assert_eq!(told, LINES as usize);
        assert_eq!(window.count(at(62), LINES), (1, 1000 - LINES));
    }
}
