//! Connections that this worker makes, for machines that cannot be reached: it dials the controller, is the TLS client,
//! says one line, and then serves the same calls on that connection as on any other. It dials again for ever, with
//! growing pauses, until the controller is revoked here.

use std::{path::Path, sync::Arc, time::Duration};

use kit::{
    identity::{
        Address, Certificate, Peer, PeerError, StoreError, TrustError,
        preface::{self, Answer, Hello, PrefaceError},
        tls::{self, ClientStream, Protocol, TlsError},
    },
    retry::Policy,
    task::CancellationToken,
};
use tokio::{net::TcpStream, time::Instant};

use super::{
    Access, Caller,
    bounds::TooMany,
    caller::Remote,
    settings::{Dial, Settings},
    stream::Gate,
};
use crate::serve::ServeError;

/// For ever; the longest pause is what a laptop that was opened waits for its workers.
const RETRY: Policy =
    Policy { attempts: u32::MAX, base: Duration::from_millis(500), longest: Duration::from_secs(30) };
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A connection that has lasted so long was a good one: the pauses begin anew.
const GOOD: Duration = Duration::from_secs(10);

/// Begins to dial every controller that is set.
pub fn open(data_dir: &Path, worker_id: &str, access: &Arc<Access>, gate: &Gate) -> Result<(), ServeError> {
    for dial in Settings::of(data_dir).read()?.dials {
        let line = Line {
            dial,
            settings: Settings::of(data_dir),
            worker_id: worker_id.to_owned(),
            access: Arc::clone(access),
            gate: gate.clone(),
        };
        // Made now, so that a key that cannot be read is told at the start.
        access.identity()?;
        kit::task::spawn("dial", line.keep());
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("cannot reach {0}")]
    Unreachable(Address, #[source] std::io::Error),
    #[error("{address} did not answer within {} s", CONNECT_LIMIT.as_secs())]
    Silent { address: Address },
    #[error("{0}")]
    Tls(Address, #[source] TlsError),
    #[error("{0}")]
    Preface(Address, #[source] PrefaceError),
    #[error("{0} refuses this worker: {1}")]
    Refused(Address, String),
    #[error("the invitation has no address")]
    NoAddress,
    #[error("the controller has the id {now}, and {before} when it was let in: invite this worker anew")]
    OtherController { before: String, now: String },
    #[error("this worker has taken the controller's access back")]
    Access(#[source] PeerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Identity(#[from] kit::identity::IdentityError),
    #[error(transparent)]
    Settings(#[from] rustls::Error),
    #[error(transparent)]
    Full(#[from] TooMany),
}

/// The line to one controller.
struct Line {
    dial: Dial,
    settings: Settings,
    worker_id: String,
    access: Arc<Access>,
    gate: Gate,
}

impl Line {
    async fn keep(mut self) {
        let (mut tries, mut told) = (0_u32, String::new());
        loop {
            let shutdown = self.gate.shutdown.clone();
            let dialled = tokio::select! {
                dialled = self.dial() => dialled,
                () = shutdown.cancelled() => return,
            };
            tries = tries.saturating_add(1);
            match dialled {
                Ok((address, gone)) => {
                    tracing::info!(%address, name = %self.dial.name, "connected to the controller");
                    told.clear();
                    let begun = Instant::now();
                    tokio::select! {
                        () = gone.cancelled() => {}
                        () = self.gate.shutdown.cancelled() => return,
                    }
                    tracing::info!(%address, "the connection to the controller has ended");
                    if begun.elapsed() >= GOOD {
                        tries = 1;
                    }
                }
                Err(DialError::Access(error @ PeerError::Revoked { .. })) => {
                    tracing::warn!(reason = %error, "the controller is not dialled any more");
                    return;
                }
                Err(error) => {
                    let text = kit::text::chain(&error, 400);
                    if text != told {
                        tracing::warn!(reason = %text, "the controller cannot be reached; it is tried again");
                        told = text;
                    }
                }
            }
            let pause = RETRY.next_delay(tries, None).unwrap_or(RETRY.longest);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.gate.shutdown.cancelled() => return,
            }
        }
    }

    /// One time, at each address.
    async fn dial(&mut self) -> Result<(Address, CancellationToken), DialError> {
        let mut last = DialError::NoAddress;
        for address in self.dial.addresses() {
            // Before each, so that what was taken back is not shown any more.
            self.check_access()?;
            match self.dial_one(&address).await {
                Ok(gone) => return Ok((address, gone)),
                Err(error @ DialError::Access(_)) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// With a new invitation in hand nothing of before counts.
    fn check_access(&self) -> Result<Option<Peer>, DialError> {
        if self.dial.secret.is_some() {
            return Ok(None);
        }
        self.access.peers().check(&self.dial.fingerprint).map(Some).map_err(DialError::Access)
    }

    async fn dial_one(&mut self, address: &Address) -> Result<CancellationToken, DialError> {
        let (mut stream, certificate, source) = self.connect(address).await?;
        let hello = Hello {
            worker_id: self.worker_id.clone(),
            name: self.dial.name.clone(),
            secret: self.dial.secret(),
        };
        let talk = async {
            preface::write(&mut stream, &hello).await?;
            preface::read::<Answer>(&mut stream).await
        };
        let controller_id = match talk.await.map_err(|error| DialError::Preface(address.clone(), error))? {
            Answer::Ok { controller_id } => controller_id,
            Answer::No { reason } => return Err(DialError::Refused(address.clone(), reason)),
        };
        match self.check_access()? {
            Some(peer) if peer.controller_id != controller_id => {
                let before = peer.controller_id;
                return Err(DialError::OtherController { before, now: controller_id });
            }
            Some(peer) => self.access.peers().prolong(&peer, &certificate)?,
            None => {
                self.access.peers().enrol(&certificate, &address.to_string(), &controller_id)?;
                if let Some(secret) = self.dial.secret() {
                    self.settings.was_let_in(&self.dial.fingerprint, &secret)?;
                }
                self.dial.secret = None;
            }
        }
        let remote = Remote { certificate, source, access: Arc::clone(&self.access) };
        let admitted = self.gate.admit(stream, Caller::Remote(Arc::new(remote))).await;
        Ok(admitted.ok_or(TooMany)?)
    }

    async fn connect(
        &self,
        address: &Address,
    ) -> Result<(ClientStream<TcpStream>, Certificate, std::net::IpAddr), DialError> {
        let unreachable = |error| DialError::Unreachable(address.clone(), error);
        let failed = |error| DialError::Tls(address.clone(), error);
        let config = tls::client_config(&self.access.identity()?, self.dial.fingerprint, Protocol::Dial)?;
        let connecting = TcpStream::connect((address.host(), address.port()));
        let connected = tokio::time::timeout(CONNECT_LIMIT, connecting).await;
        let stream =
            connected.map_err(|_| DialError::Silent { address: address.clone() })?.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let source = stream.peer_addr().map_err(unreachable)?.ip();
        let stream = tls::connect(config, stream).await.map_err(failed)?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
        let certificate = shown
            .ok_or(TrustError::Unreadable("there is none"))
            .and_then(Certificate::read)
            .map_err(|error| failed(error.into()))?;
        Ok((stream, certificate, source))
    }
}
