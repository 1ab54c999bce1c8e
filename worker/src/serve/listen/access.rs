//! Who was let in from other machines, and letting in: this worker's key, the list of controllers, the secrets that
//! were given out, and the bound on wrong ones. Keys are made when they are first needed: a worker that nobody reaches
//! from outside has none.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kit::{
    clock::Clock,
    identity::{
        Identity, IdentityError, IdentityOptions, Invitations, Peer, PeerError, Peers, RedeemError, Redeemed,
        Secret, StoreError,
    },
    name::check_name,
};
use proto::v1::JoinRequest;

use super::{bounds::Attempts, caller::Remote};
use crate::service::{controller_id, status::CallError};

/// The folder of a state folder.
#[must_use]
pub fn keys_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("keys")
}

/// See the head of this file.
#[derive(Debug)]
pub struct Access {
    keys: PathBuf,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
    identity: Mutex<Option<Arc<Identity>>>,
    peers: Peers,
    invitations: Invitations,
    attempts: Attempts,
}

impl Access {
    /// Of a state folder; certificates live for `lifetime`.
    ///
    /// # Errors
    /// A list that is damaged: it is never read as an empty one.
    pub fn open(data_dir: &Path, lifetime: Duration, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        let keys = keys_folder(data_dir);
        Ok(Arc::new(Self {
            peers: Peers::open(&keys, Arc::clone(&clock))?,
            invitations: Invitations::new(&keys, Arc::clone(&clock)),
            identity: Mutex::default(),
            attempts: Attempts::default(),
            keys,
            lifetime,
            clock,
        }))
    }

    /// This worker's key, made with the first call. Blocks for a moment.
    ///
    /// # Errors
    /// See there.
    pub fn identity(&self) -> Result<Arc<Identity>, IdentityError> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(identity) = &*identity {
            return Ok(Arc::clone(identity));
        }
        let made = Identity::open(IdentityOptions {
            folder: self.keys.clone(),
            lifetime: self.lifetime,
            clock: Arc::clone(&self.clock),
        })?;
        Ok(Arc::clone(identity.insert(made)))
    }

    /// The list of controllers.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The secrets that were given out.
    #[must_use]
    pub fn invitations(&self) -> &Invitations {
        &self.invitations
    }

    /// Lets a key in that shows a good secret. Blocks for a moment.
    ///
    /// # Errors
    /// What is wrong with the request, the secret, or the list.
    pub fn join(&self, remote: &Remote, request: &JoinRequest) -> Result<Peer, CallError> {
        let owner = controller_id(&request.controller_id)?;
        check_name(&request.name).map_err(|error| CallError::field("name", error))?;
        let now = self.clock.monotonic();
        if self.attempts.too_many(remote.source, now) {
            return Err(CallError::TooManyAttempts);
        }
        let Some(secret) = Secret::from_bytes(&request.secret) else {
            return Err(CallError::field("secret", "must be the 20 bytes of a join string"));
        };
        let key = &remote.certificate.fingerprint;
        let redeemed = match self.invitations.redeem(&secret, key) {
            Ok(redeemed) => redeemed,
            Err(RedeemError::Store(error)) => return Err(internal(&error)),
            Err(error) => {
                self.attempts.failed(remote.source, now);
                tracing::warn!(from = %remote.source, key = %key.short(), reason = %error, "a controller could not join");
                return Err(CallError::Secret(error));
            }
        };
        if let Redeemed::Again(_) = redeemed
            && let Err(error @ PeerError::Revoked { .. }) = self.peers.check(key)
        {
            return Err(CallError::NotLetIn(error));
        }
        let peer =
            self.peers.enrol(&remote.certificate, &request.name, owner).map_err(|error| internal(&error))?;
        tracing::info!(name = %peer.name, from = %remote.source, key = %key.short(), until = %peer.expires, "a controller joined");
        Ok(peer)
    }

    /// Takes back the caller's own key. Blocks for a moment.
    ///
    /// # Errors
    /// The list.
    pub fn leave(&self, remote: &Remote) -> Result<(), CallError> {
        let key = remote.certificate.fingerprint;
        self.peers.revoke(&key.to_string()).map_err(|error| internal(&error))?;
        tracing::info!(from = %remote.source, key = %key.short(), "a controller left");
        Ok(())
    }
}

fn internal(error: &StoreError) -> CallError {
    CallError::Internal(kit::text::chain(error, 500))
}
