//! Whom we let in: `peers.json` in the keys' folder, replaced whole. A key that was taken back stays listed, so that its
//! owner is told why.
//!
//! An entry ends with the certificate that it was made with. Whoever comes again before that, with a certificate that
//! was renewed, has its entry prolonged: a key that is not used for a certificate's lifetime is no key any more.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Certificate, Fingerprint,
    shared_file::{SharedFile, Stamp, StoreError},
};
use crate::clock::Clock;

const PEERS_MAX: usize = 1000;
/// What has ended is listed for so long.
const KEPT: Duration = Duration::from_secs(90 * 86_400);
/// No certificate lets anybody in for longer at one time.
const LONGEST: Duration = Duration::from_secs(400 * 86_400);
/// A file is not written for less.
const WORTH_WRITING: Duration = Duration::from_secs(86_400);

/// One that was let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Of its key.
    pub fingerprint: Fingerprint,
    /// For people; not unique.
    pub name: String,
    /// Whose runs it may see and end.
    pub controller_id: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when, unless it comes again with a renewed certificate.
    pub expires: Timestamp,
    /// When it was taken back.
    pub revoked: Option<Timestamp>,
}

/// Why a key is not let in.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Never let in.
    #[error("the key {} is not known here: join with a new string", .0.short())]
    Unknown(Fingerprint),
    /// By its owner, or by the people here.
    #[error("`{name}` was revoked at {at}: join with a new string if that was not meant")]
    Revoked {
        /// Its name.
        name: String,
        /// When.
        at: Timestamp,
    },
    /// By our clock.
    #[error("the access of `{name}` ended at {ended}, and the clock here says {now}: join with a new string")]
    Expired {
        /// Its name.
        name: String,
        /// Its end.
        ended: Timestamp,
        /// Our clock.
        now: Timestamp,
    },
    /// The file.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What taking back did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// These are out now.
    Now(Vec<Peer>),
    /// They were already.
    Before,
    /// There is none of this name or fingerprint.
    Unknown,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Entries {
    peers: Vec<Peer>,
}

#[derive(Debug, Default)]
struct Seen {
    stamp: Option<Stamp>,
    peers: Arc<Vec<Peer>>,
}

/// The file. Looking is cheap; changes block for a moment.
#[derive(Debug)]
pub struct Peers {
    file: SharedFile<Entries>,
    seen: Mutex<Seen>,
    clock: Arc<dyn Clock>,
}

impl Peers {
    /// In the keys' folder.
    ///
    /// # Errors
    /// A file that is damaged.
    pub fn open(keys: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let peers = Self { file: SharedFile::new(keys, "peers.json"), seen: Mutex::default(), clock };
        peers.list()?;
        Ok(peers)
    }

    /// All, as the file has them now.
    ///
    /// # Errors
    /// The file.
    pub fn list(&self) -> Result<Arc<Vec<Peer>>, StoreError> {
        let stamp = self.file.stamp()?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.stamp != stamp {
            // The stamp is older than what is read, so a change in between is only read twice.
            *seen = Seen { stamp, peers: Arc::new(self.file.read()?.peers) };
        }
        Ok(Arc::clone(&seen.peers))
    }

    /// Whether a key is let in now.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn check(&self, fingerprint: &Fingerprint) -> Result<Peer, PeerError> {
        let (peers, now) = (self.list()?, self.clock.wall());
        let peer = peers.iter().find(|peer| peer.fingerprint == *fingerprint);
        let peer = peer.ok_or(PeerError::Unknown(*fingerprint))?.clone();
        match peer.revoked {
            Some(at) => Err(PeerError::Revoked { name: peer.name, at }),
            None if now >= peer.expires => {
                Err(PeerError::Expired { name: peer.name, ended: peer.expires, now })
            }
            None => Ok(peer),
        }
    }

    /// Lets a key in; what was known of it is replaced. Answers the entry.
    ///
    /// # Errors
    /// The file; too many.
    pub fn enrol(&self, with: &Certificate, name: &str, controller_id: &str) -> Result<Peer, StoreError> {
        let now = self.clock.wall();
        let peer = Peer {
            fingerprint: with.fingerprint,
            name: name.to_owned(),
            controller_id: controller_id.to_owned(),
            since: now,
            expires: self.end_of(with),
            revoked: None,
        };
        let entry = peer.clone();
        self.file.change(|entries| {
            let ended = |peer: &Peer| peer.revoked.unwrap_or(peer.expires);
            let over = |peer: &Peer| ended(peer).checked_add(KEPT).unwrap_or(Timestamp::MAX) <= now;
            entries.peers.retain(|peer| peer.fingerprint != entry.fingerprint && !over(peer));
            if entries.peers.len() >= PEERS_MAX {
                let remedy = "those that ended go after 90 days";
                return Err(StoreError::Full { path: self.file.path().to_owned(), most: PEERS_MAX, remedy });
            }
            entries.peers.push(entry);
            Ok(())
        })?;
        Ok(peer)
    }

    /// One that is let in has come with a certificate that may have been renewed.
    ///
    /// # Errors
    /// The file.
    pub fn prolong(&self, peer: &Peer, with: &Certificate) -> Result<(), StoreError> {
        let end = self.end_of(with);
        if end <= peer.expires.checked_add(WORTH_WRITING).unwrap_or(Timestamp::MAX) {
            return Ok(());
        }
        self.file.change(|entries| {
            let found = entries.peers.iter_mut().find(|p| p.fingerprint == peer.fingerprint);
            if let Some(entry) = found.filter(|p| p.revoked.is_none()) {
                entry.expires = end;
            }
            Ok(())
        })
    }

    /// Takes back, by name or fingerprint (also the beginning of one, of 8 digits or more).
    ///
    /// # Errors
    /// The file.
    pub fn revoke(&self, name_or_fingerprint: &str) -> Result<Revoked, StoreError> {
        let now = self.clock.wall();
        let digits = name_or_fingerprint.to_ascii_lowercase();
        let is_meant = |peer: &Peer| {
            peer.name == name_or_fingerprint
                || digits.len() >= 8 && peer.fingerprint.to_string().starts_with(&digits)
        };
        self.file.change(|entries| {
            let (mut revoked, mut known) = (Vec::new(), false);
            for peer in entries.peers.iter_mut().filter(|peer| is_meant(peer)) {
                known = true;
                if peer.revoked.is_none() {
                    peer.revoked = Some(now);
                    revoked.push(peer.clone());
                }
            }
            Ok(match (revoked.is_empty(), known) {
                (false, _) => Revoked::Now(revoked),
                (true, true) => Revoked::Before,
                (true, false) => Revoked::Unknown,
            })
        })
    }

    fn end_of(&self, certificate: &Certificate) -> Timestamp {
        let longest = self.clock.wall().checked_add(LONGEST).unwrap_or(Timestamp::MAX);
        certificate.ends.min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn certificate(name: &str, days: i64) -> Certificate {
        let ends = Timestamp::from_second(days * 86_400).unwrap();
        Certificate { fingerprint: Fingerprint::of_key(name.as_bytes()), begins: Timestamp::UNIX_EPOCH, ends }
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn who_was_let_in_stays_until_the_end_and_is_prolonged_by_coming() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let peers = Peers::open(folder.path(), clock.clone()).unwrap();
        let laptop = certificate("laptop", 30);
        assert!(matches!(peers.check(&laptop.fingerprint), Err(PeerError::Unknown(_))));
        peers.enrol(&laptop, "laptop", "c1").unwrap();
        assert_eq!(peers.check(&laptop.fingerprint).unwrap().controller_id, "c1");

        clock.advance(20 * DAY);
        let peer = peers.check(&laptop.fingerprint).unwrap();
        peers.prolong(&peer, &certificate("laptop", 50)).unwrap();
        clock.advance(20 * DAY);
        peers.check(&laptop.fingerprint).unwrap();
        clock.advance(10 * DAY);
        let error = peers.check(&laptop.fingerprint).unwrap_err();
        assert!(matches!(error, PeerError::Expired { .. }), "{error}");
        assert!(error.to_string().contains("1970-02-20"), "{error}");
        // Nobody is let in for ever.
        let eternal = peers.enrol(&certificate("other", 100_000), "other", "c2").unwrap();
        assert_eq!(eternal.expires, clock.wall() + LONGEST);
    }

    #[test]
    fn what_is_taken_back_by_one_process_is_seen_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let serving = Peers::open(folder.path(), clock.clone()).unwrap();
        let laptop = certificate("laptop", 30);
        serving.enrol(&laptop, "laptop", "c1").unwrap();
        serving.check(&laptop.fingerprint).unwrap();

        let command = Peers::open(folder.path(), clock.clone()).unwrap();
        assert_eq!(command.revoke("desk").unwrap(), Revoked::Unknown);
        assert!(matches!(command.revoke("laptop").unwrap(), Revoked::Now(out) if out.len() == 1));
        assert_eq!(command.revoke(&laptop.fingerprint.short()).unwrap(), Revoked::Before);
        let error = serving.check(&laptop.fingerprint).unwrap_err();
        assert!(matches!(error, PeerError::Revoked { .. }), "{error}");
        // Coming again does not help, a new secret does.
        let peer = Peer { revoked: None, ..serving.list().unwrap()[0].clone() };
        serving.prolong(&peer, &certificate("laptop", 300)).unwrap();
        assert!(serving.check(&laptop.fingerprint).is_err());
        serving.enrol(&laptop, "laptop", "c1").unwrap();
        serving.check(&laptop.fingerprint).unwrap();
    }

    #[test]
    fn a_damaged_file_is_named_and_never_read_as_empty() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        std::fs::write(folder.path().join("peers.json"), "{\"peers\": [").unwrap();
        let error = Peers::open(folder.path(), clock).unwrap_err().to_string();
        assert!(error.contains("peers.json") && error.contains("damaged"), "{error}");
    }
}
