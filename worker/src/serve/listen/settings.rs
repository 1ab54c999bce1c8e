//! `keys/remote.json`: where `init` said to listen, and which controllers `serve --dial` is to dial, so that a plain
//! `serve` goes on with both. A secret that this worker has still to show is here in the clear (the file is this user's
//! alone) and goes once it was taken.

use std::{net::SocketAddr, path::Path};

use kit::identity::{Address, Fingerprint, InviteString, Secret, SharedFile, StoreError};
use serde::{Deserialize, Serialize};

use super::access::keys_folder;

/// Controllers that one worker dials.
const DIALS_MAX: usize = 16;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// With TLS, whatever the address.
    pub listen: Option<SocketAddr>,
    /// As controllers dial it.
    pub advertise: Option<String>,
    /// Whom to dial.
    #[serde(default)]
    pub dials: Vec<Dial>,
}

/// A controller to dial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dial {
    /// SHA-256 of the secret of the invitation, to know it again.
    pub invitation: String,
    /// Tried in this order.
    pub addresses: Vec<String>,
    /// Of the controller.
    pub fingerprint: Fingerprint,
    /// How it calls this worker.
    pub name: String,
    /// Until it was taken.
    pub secret: Option<String>,
}

impl Dial {
    /// Those that can be read; they were when they were written.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.addresses.iter().filter_map(|text| text.parse().ok()).collect()
    }

    /// As it is shown.
    #[must_use]
    pub fn secret(&self) -> Option<Secret> {
        self.secret.as_deref().and_then(Secret::from_hex)
    }
}

/// The file.
#[derive(Debug)]
pub struct Settings(SharedFile<Remote>);

impl Settings {
    /// Of a state folder.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self(SharedFile::new(&keys_folder(data_dir), "remote.json"))
    }

    /// What is set now.
    ///
    /// # Errors
    /// The file.
    pub fn read(&self) -> Result<Remote, StoreError> {
        self.0.read()
    }

    /// Where to listen, and as what.
    ///
    /// # Errors
    /// The file.
    pub fn set_listen(&self, listen: SocketAddr, advertise: &Address) -> Result<(), StoreError> {
        self.0.change(|remote| {
            (remote.listen, remote.advertise) = (Some(listen), Some(advertise.to_string()));
            Ok(())
        })
    }

    /// Whom to dial from now on. One of the same key is replaced.
    ///
    /// # Errors
    /// The file; too many.
    pub fn add_dial(&self, invite: &InviteString) -> Result<(), StoreError> {
        let dial = Dial {
            invitation: digest(&invite.secret),
            addresses: invite.addresses.iter().map(ToString::to_string).collect(),
            fingerprint: invite.fingerprint,
            name: invite.name.clone(),
            secret: Some(invite.secret.hex()),
        };
        self.0.change(|remote| {
            remote.dials.retain(|other| other.fingerprint != dial.fingerprint);
            if remote.dials.len() >= DIALS_MAX {
                let remedy = "`autoresearch-worker controllers revoke` those that are gone";
                return Err(StoreError::Full { path: self.0.path().to_owned(), most: DIALS_MAX, remedy });
            }
            remote.dials.push(dial);
            Ok(())
        })
    }

    /// Whether this very invitation is there already.
    ///
    /// # Errors
    /// The file.
    pub fn has(&self, invite: &InviteString) -> Result<bool, StoreError> {
        let invitation = digest(&invite.secret);
        Ok(self.read()?.dials.iter().any(|dial| dial.invitation == invitation))
    }

    /// Its secret was taken.
    ///
    /// # Errors
    /// The file.
    pub fn was_let_in(&self, by: &Fingerprint, secret: &Secret) -> Result<(), StoreError> {
        let taken = secret.hex();
        self.0.change(|remote| {
            for dial in remote.dials.iter_mut().filter(|dial| dial.fingerprint == *by) {
                dial.secret = dial.secret.take().filter(|other| *other != taken);
            }
            Ok(())
        })
    }

    /// Not to be dialled any more.
    ///
    /// # Errors
    /// The file.
    pub fn forget_dial(&self, fingerprint: &Fingerprint) -> Result<(), StoreError> {
        if self.read()?.dials.iter().all(|dial| dial.fingerprint != *fingerprint) {
            return Ok(());
        }
        self.0.change(|remote| {
            remote.dials.retain(|dial| dial.fingerprint != *fingerprint);
            Ok(())
        })
    }
}

fn digest(secret: &Secret) -> String {
    kit::digest::Digest::of(secret.bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_is_kept_and_its_secret_goes_once_it_was_taken() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::of(folder.path());
        assert_eq!(settings.read().unwrap(), Remote::default());
        let invite = |key: &[u8]| InviteString {
            addresses: vec!["10.0.0.1:7".parse().unwrap()],
            fingerprint: Fingerprint::of_key(key),
            secret: Secret::new(),
            name: "gpu".to_owned(),
        };
        let (one, other) = (invite(b"1"), invite(b"2"));
        settings.add_dial(&one).unwrap();
        settings.add_dial(&other).unwrap();
        settings.was_let_in(&one.fingerprint, &other.secret).unwrap();
        assert_eq!(settings.read().unwrap().dials[0].secret(), Some(one.secret.clone()));
        settings.was_let_in(&one.fingerprint, &one.secret).unwrap();
        let dials = settings.read().unwrap().dials;
        assert_eq!((dials.len(), dials[0].secret()), (2, None));
        assert_eq!(dials[0].addresses(), one.addresses);
        assert!(settings.has(&one).unwrap() && !settings.has(&invite(b"1")).unwrap());
        settings.forget_dial(&one.fingerprint).unwrap();
        assert_eq!(settings.read().unwrap().dials.len(), 1);
        for n in 0..20_u8 {
            let full = settings.add_dial(&invite(&[n, n])).is_err();
            assert_eq!(full, n >= 15, "{n}");
        }
    }
}
