//! Whose connection it is: told by the door, seen by every call on it.

use std::{net::IpAddr, sync::Arc};

use kit::identity::Certificate;

use super::Access;

/// Who calls.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Whoever can open the socket, or is on this machine where loopback is listened on.
    Owner,
    /// A key on another machine, by what it showed in the handshake.
    Remote(Arc<Remote>),
}

/// A key on another machine.
#[derive(Debug)]
pub struct Remote {
    /// What it showed.
    pub certificate: Certificate,
    /// From where.
    pub source: IpAddr,
    /// What is asked about it.
    pub access: Arc<Access>,
}

impl Caller {
    /// Of a call. Without one, as in a test over the service alone, it is the owner; none comes so over a connection,
    /// because the guard refuses it.
    pub fn of(extensions: &tonic::Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or(Self::Owner)
    }
}
