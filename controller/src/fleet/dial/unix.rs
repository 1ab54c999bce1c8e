//! A socket of this machine: a worker that runs beside the controller, or one whose socket something else forwards.

use std::path::PathBuf;

use async_trait::async_trait;
use tokio::net::UnixStream;
use tonic::transport::Channel;

use super::{CONNECT, over, root_cause};
use crate::fleet::{Dialer, FleetError};

/// Connects to a worker's Unix socket.
///
/// # Errors
/// [`FleetError::Unreachable`] where nobody listens.
pub async fn connect_unix(path: PathBuf) -> Result<Channel, FleetError> {
    let shown = path.display().to_string();
    let unreachable = |detail: String| FleetError::Unreachable { worker: shown.clone(), detail };
    let stream = match tokio::time::timeout(CONNECT, UnixStream::connect(&path)).await {
        Ok(stream) => stream.map_err(|e| unreachable(e.to_string()))?,
        Err(_) => return Err(unreachable(format!("no answer in {} s", CONNECT.as_secs()))),
    };
    over(stream).await.map_err(|e| unreachable(root_cause(&e)))
}

/// A registered worker with a socket here.
#[derive(Debug, Clone)]
pub struct Unix {
    name: String,
    path: PathBuf,
}

impl Unix {
    /// Of the worker that is called so.
    #[must_use]
    pub fn new(name: &str, path: PathBuf) -> Self {
        Self { name: name.to_owned(), path }
    }
}

#[async_trait]
impl Dialer for Unix {
    async fn dial(&self) -> Result<Channel, FleetError> {
        connect_unix(self.path.clone()).await.map_err(|error| match error {
            FleetError::Unreachable { worker: socket, detail } => {
                FleetError::Unreachable { worker: self.name.clone(), detail: format!("{socket}: {detail}") }
            }
            other => other,
        })
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
