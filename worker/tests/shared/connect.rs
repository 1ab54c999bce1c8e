//! A client of a worker's socket, as soon as somebody listens there: for every test that starts the real binary.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use proto::v1::worker_service_client::WorkerServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

pub type Client = WorkerServiceClient<Channel>;

pub async fn connect(socket: &Path, patience: Duration) -> Client {
    let until = Instant::now() + patience;
    loop {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        match Endpoint::from_static("http://localhost").connect_with_connector(connector).await {
            Ok(channel) => {
                return Client::new(channel).max_decoding_message_size(proto::MESSAGE_BYTES_MAX);
            }
            Err(error) => assert!(Instant::now() < until, "the worker does not listen: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
