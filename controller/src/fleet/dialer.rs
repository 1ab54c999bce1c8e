//! Opening a channel to one worker is a [`Dialer`]'s business, so that a local worker can be started and a far one be
//! reached by other means; the ways themselves are in `dial`.

use async_trait::async_trait;
use proto::v1::worker_service_client::WorkerServiceClient;
use tonic::transport::Channel;

use super::FleetError;

/// A client over one channel.
pub type Client = WorkerServiceClient<Channel>;

/// Opens a channel to one worker.
#[async_trait]
pub trait Dialer: Send + Sync {
    /// A new channel. It is one connection and does not connect anew by itself ([`over`](super::dial::over) makes such a
    /// one): who is at the other end is asked after each.
    ///
    /// # Errors
    /// [`FleetError::Unreachable`] with what was tried.
    async fn dial(&self) -> Result<Channel, FleetError>;

    /// Its name or address, for messages.
    fn name(&self) -> String;
}

pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).last().map(ToString::to_string).unwrap_or_default()
}

pub(super) fn client_over(channel: Channel) -> Client {
    WorkerServiceClient::new(channel)
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX)
}
