//! The Unix socket, which only this user can open, and plain TCP on loopback, which every user of this machine can.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use tokio::net::{TcpListener, UnixListener};

use super::{
    Caller,
    bounds::TooMany,
    stream::{Gate, Wire},
};
use crate::serve::ServeError;

/// After an error of accept, as when there are no file descriptors left.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// Binds the socket; one that an earlier process left is removed, which the folder's lock allows.
pub fn bind(path: &Path) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Listen { address: path.display().to_string(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Loopback only: without TLS there is nothing else.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Listen { address: address.to_string(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tracing::warn!(address = %bound, "listening on loopback: every user of this machine can use this worker");
    Ok(listener)
}

/// Takes what comes until the gate closes.
pub async fn accept_unix(listener: UnixListener, gate: Gate) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gate.shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => let_in(stream, "the socket", &gate).await,
            Err(error) => refused("the socket", &error, &gate).await,
        }
    }
}

/// As above.
pub async fn accept_tcp(listener: TcpListener, gate: Gate) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gate.shutdown.cancelled() => return,
        };
        // Without no-delay a unary call takes 44 ms instead of 0.2.
        match accepted.and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => let_in(stream, "loopback", &gate).await,
            Err(error) => refused("loopback", &error, &gate).await,
        }
    }
}

async fn let_in(stream: impl Wire, from: &str, gate: &Gate) {
    if gate.admit(stream, Caller::Owner).await.is_none() && !gate.shutdown.is_cancelled() {
        gate.bounds.tell(from, &TooMany);
    }
}

async fn refused(from: &str, error: &std::io::Error, gate: &Gate) {
    gate.bounds.tell(from, error);
    tokio::time::sleep(PAUSE).await;
}
