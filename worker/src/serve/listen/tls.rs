//! The port that other machines reach: TLS with a key on both sides, and nothing before it. `init` may open it while
//! the worker serves.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use kit::{
    identity::{
        PeerError,
        tls::{self, Protocol},
    },
    task::CancellationToken,
};
use tokio::net::{TcpListener, TcpStream};

use super::{
    Access, Caller, LOOK_EVERY,
    bounds::{StrangerPermit, TooMany},
    caller::Remote,
    plain::PAUSE,
    settings::Settings,
    stream::Gate,
};
use crate::serve::ServeError;

/// Listens where the configuration says, else where `init` said, or says later.
pub async fn open(
    data_dir: PathBuf,
    configured: Option<SocketAddr>,
    access: Arc<Access>,
    gate: Gate,
) -> Result<(), ServeError> {
    let settings = Settings::of(&data_dir);
    let mut port = Port { access, gate, open: None };
    if let Some(address) = configured {
        return port.listen(address).await;
    }
    if let Some(address) = settings.read()?.listen {
        port.listen(address).await?;
    }
    kit::task::spawn("port", port.follow(settings));
    Ok(())
}

struct Port {
    access: Arc<Access>,
    gate: Gate,
    open: Option<(SocketAddr, CancellationToken)>,
}

impl Port {
    async fn listen(&mut self, address: SocketAddr) -> Result<(), ServeError> {
        let failed = |source| ServeError::Listen { address: address.to_string(), source };
        let config = tls::server_config(&self.access.identity()?, Protocol::Grpc)
            .map_err(|error| ServeError::Server(Box::new(error)))?;
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        tracing::info!(address = %bound, "listening with TLS: a controller joins with a string of `autoresearch-worker init`");
        let stop = self.gate.shutdown.child_token();
        self.open = Some((address, stop.clone()));
        let door = Door { access: Arc::clone(&self.access), gate: self.gate.clone(), config };
        kit::task::spawn("TLS port", door.accept(listener, stop));
        Ok(())
    }

    /// `init` may have been run again, with another address.
    async fn follow(mut self, settings: Settings) {
        let mut told = String::new();
        loop {
            tokio::select! {
                () = self.gate.shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let wanted = match settings.read() {
                Ok(remote) => remote.listen,
                // It is told where it matters: at the start, and by `init`.
                Err(_) => continue,
            };
            if wanted == self.open.as_ref().map(|(address, _)| *address) {
                continue;
            }
            if let Some((_, stop)) = self.open.take() {
                stop.cancel();
            }
            let Some(address) = wanted else { continue };
            if let Err(error) = self.listen(address).await {
                let text = kit::text::chain(&error, 300);
                if text != told {
                    tracing::error!(error = %text, "cannot listen where `init` said; it is tried again");
                    told = text;
                }
            }
        }
    }
}

#[derive(Clone)]
struct Door {
    access: Arc<Access>,
    gate: Gate,
    config: Arc<rustls::ServerConfig>,
}

impl Door {
    async fn accept(self, listener: TcpListener, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let (stream, from) = match accepted.and_then(|(s, from)| s.set_nodelay(true).map(|()| (s, from)))
            {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.gate.bounds.tell("the TLS port", &error);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            match self.gate.bounds.stranger(from.ip()) {
                Some(permit) => {
                    kit::task::spawn("TLS handshake", self.clone().greet(stream, from, permit));
                }
                None => self.gate.bounds.tell(from, &TooMany),
            }
        }
    }

    async fn greet(self, stream: TcpStream, from: SocketAddr, permit: StrangerPermit) {
        let greeted = tokio::select! {
            greeted = tls::accept(Arc::clone(&self.config), stream) => greeted,
            () = self.gate.shutdown.cancelled() => return,
        };
        let (stream, certificate) = match greeted {
            Ok(greeted) => greeted,
            Err(error) => return self.gate.bounds.tell(from, &error),
        };
        let remote = Remote { certificate, source: from.ip(), access: Arc::clone(&self.access) };
        let caller = Caller::Remote(Arc::new(remote));
        match self.access.peers().check(&certificate.fingerprint) {
            Ok(peer) => {
                let access = Arc::clone(&self.access);
                let prolong = move || access.peers().prolong(&peer, &certificate);
                if let Some(Err(error)) = kit::task::blocking("prolong", prolong).await {
                    tracing::warn!(%error, "the access of a controller could not be prolonged");
                }
                if self.gate.admit(stream, caller).await.is_none() && !self.gate.shutdown.is_cancelled() {
                    self.gate.bounds.tell(from, &TooMany);
                }
            }
            Err(PeerError::Store(error)) => self.gate.bounds.tell(from, &error),
            // It may join; and it is told with its first other call why it is not let in.
            Err(_) => self.gate.admit_stranger(stream, caller, permit).await,
        }
    }
}
