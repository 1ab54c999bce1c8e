//! How many connections there may be, from where, and how often a refusal is told: nothing that a stranger does costs
//! memory or log without a bound.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kit::{clock::Clock, identity::Fingerprint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Caller;

/// Connections of whoever can open the socket or is on this machine.
const OWNERS_MAX: usize = 256;
/// Connections of keys that were let in, and of one of them.
const KEYS_MAX: usize = 256;
const KEYS_OF_ONE: usize = 64;
/// Connections that are in a handshake or may only join, and from one place.
const STRANGERS_MAX: usize = 64;
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
    owners: Places<()>,
    keys: Places<Fingerprint>,
    strangers: Places<IpAddr>,
    lines: Mutex<Window>,
    clock: Arc<dyn Clock>,
}

/// Places that are shared out: so many in all, and so many for one.
#[derive(Debug)]
struct Places<K> {
    all: Arc<Semaphore>,
    of_one: usize,
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub struct Permit<K: Eq + Hash> {
    _place: OwnedSemaphorePermit,
    of: K,
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Eq + Hash + Copy> Places<K> {
    fn new(in_all: usize, of_one: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(in_all)), of_one, taken: Arc::default() }
    }

    fn take(&self, of: K) -> Option<Permit<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.get(&of).is_some_and(|count| *count >= self.of_one) {
            return None;
        }
        let place = Arc::clone(&self.all).try_acquire_owned().ok()?;
        *taken.entry(of).or_default() += 1;
        Some(Permit { _place: place, of, taken: Arc::clone(&self.taken) })
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.of) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

/// A place among the strangers.
pub type StrangerPermit = Permit<IpAddr>;

/// A place among those that are known.
#[derive(Debug)]
pub enum KnownPermit {
    /// On this machine.
    Owner { _permit: Permit<()> },
    /// On another one.
    Key { _permit: Permit<Fingerprint> },
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

impl Bounds {
    /// Nobody is there yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            owners: Places::new(OWNERS_MAX, OWNERS_MAX),
            keys: Places::new(KEYS_MAX, KEYS_OF_ONE),
            strangers: Places::new(STRANGERS_MAX, STRANGERS_OF_ONE),
            lines: Mutex::default(),
            clock,
        }
    }

    /// A place for one that is known, if there is one.
    pub fn known(&self, caller: &Caller) -> Option<KnownPermit> {
        match caller {
            Caller::Owner => self.owners.take(()).map(|permit| KnownPermit::Owner { _permit: permit }),
            Caller::Remote(remote) => {
                let permit = self.keys.take(remote.certificate.fingerprint)?;
                Some(KnownPermit::Key { _permit: permit })
            }
        }
    }

    /// A place for one of whom nothing is known yet.
    pub fn stranger(&self, from: IpAddr) -> Option<StrangerPermit> {
        self.strangers.take(place(from))
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
        let bounds = Bounds::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let mut held: Vec<_> = (0..40).filter_map(|n| bounds.stranger(from(&format!("fd00::{n}")))).collect();
        assert_eq!(held.len(), STRANGERS_OF_ONE, "all of one /64");
        held.extend((0..100).filter_map(|n| bounds.stranger(from(&format!("10.0.0.{n}")))));
        assert_eq!(held.len(), STRANGERS_MAX);
        drop(held);
        assert!(bounds.strangers.taken.lock().unwrap().is_empty());
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
