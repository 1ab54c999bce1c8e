//! One-time secrets that were given out: `invitations.json` in the keys' folder, with their hash only. A secret lets one
//! key in. The same key may show it again while it lives, because an answer can be lost on the way; every other key is
//! told that it was used.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Fingerprint, Secret,
    shared_file::{SharedFile, StoreError},
};
use crate::clock::Clock;

/// How long a secret works where nothing else is said.
pub const INVITATION_LIFETIME: Duration = Duration::from_secs(3600);
/// That may be open at one time.
const OPEN_MAX: usize = 64;
/// Ended ones are kept for so long, to say why they do not work.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
const KEPT_MAX: usize = 512;

/// What a secret was given out for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// How the invited side is to be called, where that was said.
    pub name: Option<String>,
    /// Until when it works.
    pub expires: Timestamp,
}

/// A secret that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redeemed {
    /// Now it is used.
    First(Invitation),
    /// By the same key as before: its owner did not get the answer. Nothing that was taken back since may come back by it.
    Again(Invitation),
}

impl Redeemed {
    /// Either way.
    #[must_use]
    pub fn invitation(&self) -> &Invitation {
        let (Self::First(invitation) | Self::Again(invitation)) = self;
        invitation
    }
}

/// Why a secret is not good.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// Never given out, or long ago.
    #[error("the secret is not known here: print a new string and use that")]
    Unknown,
    /// By another key.
    #[error("the secret was used already, at {at}: each string works once; print a new one")]
    Used {
        /// When.
        at: Timestamp,
    },
    /// By our clock.
    #[error("the secret ended at {ended}, and the clock here says {now}: print a new string and use that")]
    Expired {
        /// Its end.
        ended: Timestamp,
        /// Our clock.
        now: Timestamp,
    },
    /// The file.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Entries {
    invitations: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    hash: String,
    name: Option<String>,
    made: Timestamp,
    expires: Timestamp,
    used: Option<Use>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Use {
    by: Fingerprint,
    at: Timestamp,
}

/// The file. Its calls block for a moment.
#[derive(Debug)]
pub struct Invitations {
    file: SharedFile<Entries>,
    clock: Arc<dyn Clock>,
}

impl Invitations {
    /// In the keys' folder.
    #[must_use]
    pub fn new(keys: &Path, clock: Arc<dyn Clock>) -> Self {
        Self { file: SharedFile::new(keys, "invitations.json"), clock }
    }

    /// A new secret.
    ///
    /// # Errors
    /// The file; too many that are open.
    pub fn issue(&self, name: Option<String>, lifetime: Duration) -> Result<Secret, StoreError> {
        let (secret, now) = (Secret::new(), self.clock.wall());
        let expires = now.checked_add(lifetime).unwrap_or(Timestamp::MAX);
        self.file.change(|entries| {
            entries.forget(now);
            if entries.invitations.iter().filter(|e| e.used.is_none() && now < e.expires).count() >= OPEN_MAX
            {
                let remedy = "use them, or wait until they end";
                return Err(StoreError::Full { path: self.file.path().to_owned(), most: OPEN_MAX, remedy });
            }
            let hash = secret.hash().hex();
            entries.invitations.push(Entry { hash, name, made: now, expires, used: None });
            Ok(())
        })?;
        Ok(secret)
    }

    /// Uses a secret for a key.
    ///
    /// # Errors
    /// [`RedeemError`]; then nothing has changed.
    pub fn redeem(&self, secret: &Secret, by: &Fingerprint) -> Result<Redeemed, RedeemError> {
        let (hash, now) = (secret.hash(), self.clock.wall());
        self.file.change(|entries| {
            // All are looked at, whichever it is.
            let found = entries.invitations.iter_mut().filter(|entry| hash.is(&entry.hash)).last();
            let entry = found.ok_or(RedeemError::Unknown)?;
            if let Some(Use { by: other, at }) = &entry.used
                && other != by
            {
                return Err(RedeemError::Used { at: *at });
            }
            if now >= entry.expires {
                return Err(RedeemError::Expired { ended: entry.expires, now });
            }
            let invitation = Invitation { name: entry.name.clone(), expires: entry.expires };
            if entry.used.is_some() {
                return Ok(Redeemed::Again(invitation));
            }
            entry.used = Some(Use { by: *by, at: now });
            Ok(Redeemed::First(invitation))
        })
    }

    /// Takes back what was given out under a name and not used.
    ///
    /// # Errors
    /// The file.
    pub fn withdraw(&self, name: &str) -> Result<usize, StoreError> {
        self.file.change(|entries| {
            let before = entries.invitations.len();
            entries.invitations.retain(|e| e.used.is_some() || e.name.as_deref() != Some(name));
            Ok(before - entries.invitations.len())
        })
    }
}

impl Entries {
    fn forget(&mut self, now: Timestamp) {
        let until = |entry: &Entry| entry.expires.checked_add(KEPT).unwrap_or(Timestamp::MAX);
        self.invitations.retain(|entry| now < until(entry));
        let surplus = self.invitations.len().saturating_sub(KEPT_MAX);
        let mut left = surplus;
        self.invitations.retain(|entry| {
            let drop = left > 0 && (entry.used.is_some() || now >= entry.expires);
            left -= usize::from(drop);
            !drop
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const HOUR: Duration = INVITATION_LIFETIME;

    fn key(name: &str) -> Fingerprint {
        Fingerprint::of_key(name.as_bytes())
    }

    #[test]
    fn a_secret_lets_one_key_in_and_is_not_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let ours = Invitations::new(folder.path(), clock.clone());
        let secret = ours.issue(Some("laptop".to_owned()), HOUR).unwrap();
        let text = std::fs::read_to_string(folder.path().join("invitations.json")).unwrap();
        assert!(!text.contains(&secret.hex()));

        // Another process sees it at once.
        let theirs = Invitations::new(folder.path(), clock.clone());
        assert!(matches!(theirs.redeem(&Secret::new(), &key("a")), Err(RedeemError::Unknown)));
        let first = theirs.redeem(&secret, &key("a")).unwrap();
        assert_eq!(first.invitation().name.as_deref(), Some("laptop"));
        assert!(matches!(first, Redeemed::First(_)));
        assert!(matches!(ours.redeem(&secret, &key("a")), Ok(Redeemed::Again(_))));
        assert!(matches!(ours.redeem(&secret, &key("b")), Err(RedeemError::Used { .. })));
        clock.advance(HOUR);
        assert!(matches!(ours.redeem(&secret, &key("a")), Err(RedeemError::Expired { .. })));
        let late = ours.issue(None, HOUR).unwrap();
        clock.advance(HOUR);
        assert!(matches!(ours.redeem(&late, &key("a")), Err(RedeemError::Expired { .. })));
    }

    #[test]
    fn of_two_that_come_at_once_one_gets_in() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let secret = Invitations::new(folder.path(), clock.clone()).issue(None, HOUR).unwrap();
        let good = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|n| {
                    let (secret, clock, path) = (secret.clone(), clock.clone(), folder.path());
                    scope.spawn(move || {
                        let ours = Invitations::new(path, clock);
                        ours.redeem(&secret, &key(&n.to_string())).is_ok()
                    })
                })
                .collect();
            tries.into_iter().map(|t| usize::from(t.join().unwrap())).sum::<usize>()
        });
        assert_eq!(good, 1);
    }

    #[test]
    fn open_ones_are_bounded_and_can_be_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let ours = Invitations::new(folder.path(), clock.clone());
        let one = ours.issue(Some("x".to_owned()), HOUR).unwrap();
        assert_eq!(ours.withdraw("x").unwrap(), 1);
        assert!(matches!(ours.redeem(&one, &key("a")), Err(RedeemError::Unknown)));
        for _ in 0..OPEN_MAX {
            ours.issue(None, HOUR).unwrap();
        }
        assert!(ours.issue(None, HOUR).unwrap_err().to_string().contains("64"));
        clock.advance(HOUR);
        ours.issue(None, HOUR).unwrap();
        clock.advance(KEPT + 2 * HOUR);
        ours.issue(None, HOUR).unwrap();
        assert_eq!(ours.file.read().unwrap().invitations.len(), 1);
    }
}
