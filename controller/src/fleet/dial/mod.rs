//! Ways to a worker, one file each, behind [`Dialer`](super::Dialer). What belongs here: making a byte stream and HTTP/2 over it. What
//! does not: when to dial again (`link`), and whom to trust (the registry of the journal says, `cli` hands it in).
//!
//! A channel that comes from here is one connection. When it breaks it stays broken, so that whoever dials anew also asks
//! anew who is there.

mod bridge;
mod dialled;
mod meet;
mod ssh;
mod tls;
mod unix;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint};

pub use self::{
    dialled::{Arrivals, Dialled, Door},
    meet::{Met, meet, open},
    ssh::Ssh,
    tls::Tls,
    unix::{Unix, connect_unix},
};

/// Both sides ping so often, and wait so long for the answer (WORKER §1).
const PING: Duration = Duration::from_secs(10);
/// Small, so that a watcher that does not read cannot hold up a cancel.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A connection is tried for so long before it counts as failed.
pub const CONNECT: Duration = Duration::from_secs(10);

/// The one setting of every connection, whatever it runs over. The authority is never resolved.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

/// HTTP/2 over a stream that is open.
///
/// # Errors
/// Where the other side does not speak it.
pub async fn over<S>(stream: S) -> Result<Channel, tonic::transport::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let once = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(
            stream.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection broke")),
        )
    });
    endpoint().connect_with_connector(connector).await
}

/// The cause at the bottom: what the system or the other side said.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
