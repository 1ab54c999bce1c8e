//! Opening a channel to one worker is a [`Dialer`]'s business, so that a local worker can be started and a far one be
//! reached by other means. Here is what all channels have in common, whatever bytes they run over.

use std::{path::PathBuf, sync::Mutex, time::Duration};

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use proto::v1::worker_service_client::WorkerServiceClient;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};
use tonic::transport::{Channel, Endpoint};

use super::FleetError;

/// A client over one channel.
pub type Client = WorkerServiceClient<Channel>;

/// Both sides ping so often, and wait so long for the answer (WORKER §1).
const PING: Duration = Duration::from_secs(10);
/// Small, so that a watcher that does not read cannot hold up a cancel.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A connection is tried for so long before it counts as failed.
const CONNECT: Duration = Duration::from_secs(10);

/// Opens a channel to one worker.
#[async_trait]
pub trait Dialer: Send + Sync {
    /// A new channel. It must not connect anew by itself ([`channel_over`] makes such a one): who is at the other end is
    /// asked after each connection.
    ///
    /// # Errors
    /// [`FleetError::Unreachable`] with what was tried.
    async fn dial(&self) -> Result<Channel, FleetError>;

    /// Its name or address, for messages.
    fn name(&self) -> String;
}

/// A channel over bytes that are there already. It ends with them.
///
/// # Errors
/// Where the other side does not speak HTTP/2.
pub async fn channel_over<IO>(bytes: IO, worker: &str) -> Result<Channel, FleetError>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let once = Mutex::new(Some(TokioIo::new(bytes)));
    let connector = tower::service_fn(move |_| {
        let bytes = once.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        async move { bytes.ok_or_else(|| std::io::Error::other("the connection has ended")) }
    });
    // The authority is never resolved: the connector has the bytes.
    let endpoint = Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| FleetError::Unreachable { worker: worker.to_owned(), detail: root_cause(&error) })
}

/// Connects to a worker's Unix socket.
///
/// # Errors
/// [`FleetError::Unreachable`] where nobody listens.
pub async fn connect_unix(path: PathBuf) -> Result<Channel, FleetError> {
    let worker = path.display().to_string();
    match UnixStream::connect(&path).await {
        Ok(stream) => channel_over(stream, &worker).await,
        Err(error) => Err(FleetError::Unreachable { worker, detail: error.to_string() }),
    }
}

pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).last().map(ToString::to_string).unwrap_or_default()
}

pub(super) fn client_over(channel: Channel) -> Client {
    WorkerServiceClient::new(channel)
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX)
}
