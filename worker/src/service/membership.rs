//! Who calls, as the calls need it: joining and leaving over TLS, and whose runs a call is about. Whether a key may call
//! at all is checked before, for every service (`serve::listen`).

use std::sync::Arc;

use kit::{clock::wall_ns, identity::Peer};
use proto::v1::{JoinRequest, RunState};
use tonic::Request;

use super::{controller_id, run_id, status::CallError};
use crate::{run::registry::Registry, serve::listen::Caller};

/// Who calls, and for a key that was let in, as what.
pub struct Calling {
    caller: Caller,
    peer: Option<Peer>,
}

/// The caller and the message.
pub fn split<T>(request: Request<T>) -> (Calling, T) {
    let (_, extensions, message) = request.into_parts();
    (Calling { caller: Caller::of(&extensions), peer: extensions.get::<Peer>().cloned() }, message)
}

impl Calling {
    /// The controller whose runs a call is about: the one it names, which over TLS must be the one that its key joined
    /// with.
    ///
    /// # Errors
    /// A name that is none, or another's.
    pub fn owner<'a>(&self, named: &'a str) -> Result<&'a str, CallError> {
        let named = controller_id(named)?;
        match (&self.caller, &self.peer) {
            (Caller::Owner, _) => Ok(named),
            (Caller::Remote(_), Some(peer)) if peer.controller_id == named => Ok(named),
            (Caller::Remote(_), peer) => {
                let name = peer.as_ref().map(|peer| peer.name.clone());
                Err(CallError::OtherController(name.unwrap_or_default()))
            }
        }
    }

    /// No new runs. An owner may end all that run, a controller on another machine its own.
    ///
    /// # Errors
    /// A cancel that does not reach the disk.
    pub async fn drain(&self, registry: &Registry, cancel_running: bool) -> Result<usize, CallError> {
        let Some(peer) = self.peer.as_ref().filter(|_| cancel_running) else {
            return Ok(registry.drain(cancel_running));
        };
        let running = registry.drain(false);
        for run in registry.list(&peer.controller_id, &[], &[]) {
            if run.state() != RunState::Finished {
                registry.cancel(run_id(&run.run_id)?, &peer.controller_id).await?;
            }
        }
        Ok(running)
    }

    /// Until when it is in, in ns since 1970.
    ///
    /// # Errors
    /// See `Access::join`.
    pub async fn join(&self, request: JoinRequest) -> Result<i64, CallError> {
        let Caller::Remote(remote) = &self.caller else { return Err(CallError::NotTls) };
        let remote = Arc::clone(remote);
        let joined = kit::task::blocking("join", move || remote.access.join(&remote, &request)).await;
        Ok(wall_ns(joined.ok_or(CallError::Stopping)??.expires))
    }

    /// Its key is out.
    ///
    /// # Errors
    /// See `Access::leave`.
    pub async fn leave(&self) -> Result<(), CallError> {
        let Caller::Remote(remote) = &self.caller else { return Err(CallError::NotTls) };
        let remote = Arc::clone(remote);
        let left = kit::task::blocking("leave", move || remote.access.leave(&remote)).await;
        left.ok_or(CallError::Stopping)?
    }
}
