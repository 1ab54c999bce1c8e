//! Hands the host's settings to a build and to nobody else: a server on loopback for as long as one build takes, that
//! answers one unguessable path. A classic builder has no `RUN --mount`, a file in the context would stay in a layer,
//! and a build argument in the history; what is fetched inside one RUN and removed there stays nowhere.
//!
//! It speaks just enough HTTP/1.0 for the one client it has (`install.py`): a router and its crates for one path
//! would be more to read than this.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use kit::task::CancellationToken;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{error::ImageError, settings::HostSettings};

/// A request of ours has 150 bytes.
const REQUEST_BYTES_MAX: usize = 8 << 10;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A server for one build; gone when dropped.
#[derive(Debug)]
pub struct Handover {
    address: String,
    stop: CancellationToken,
}

impl Handover {
    /// The variable in which `install.py` finds the address. To Docker it is a predefined build argument that nothing
    /// in a build uses: kept out of the history and of the layer cache's key, so that a fresh address each time does
    /// not mean fresh layers.
    pub(super) const VARIABLE: &str = "FTP_PROXY";

    /// Starts serving the settings.
    ///
    /// # Errors
    /// Where loopback has no free port.
    pub async fn start(settings: &HostSettings) -> Result<Self, ImageError> {
        let failed = |e| ImageError::io("listen on", "127.0.0.1", e);
        let body = serde_json::to_vec(settings).map_err(|e| failed(e.into()))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        // Two v7 ids have 148 random bits between them.
        let path = format!("/{}{}", kit::id::new_uuid().simple(), kit::id::new_uuid().simple());
        let address = format!("http://127.0.0.1:{port}{path}");
        let stop = CancellationToken::new();
        let served = stop.clone();
        kit::task::spawn("image settings", async move {
            let answer = Arc::new((format!("GET {path} HTTP/"), body));
            served.run_until_cancelled(serve(listener, answer)).await;
        });
        Ok(Self { address, stop })
    }

    /// Where the settings are.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(listener: TcpListener, answer: Arc<(String, Vec<u8>)>) {
    loop {
        match listener.accept().await {
            // One at a time: there is one client, and a stranger is cut off after the time-out.
            Ok((stream, _)) => match tokio::time::timeout(REQUEST_TIMEOUT, respond(stream, &answer)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a request for build settings broke off"),
                Err(_) => tracing::debug!("a request for build settings took too long"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a request for build settings");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn respond(mut stream: TcpStream, answer: &(String, Vec<u8>)) -> std::io::Result<()> {
    let (wanted, body) = answer;
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).await?;
        request.extend_from_slice(&piece[..count]);
        if count == 0 || request.len() > REQUEST_BYTES_MAX {
            return Ok(());
        }
    }
    let (status, body) = if request.starts_with(wanted.as_bytes()) {
        ("200 OK", body.as_slice())
    } else {
        ("404 Not Found", [].as_slice())
    };
    let head = format!("HTTP/1.0 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(address: &str, path: &str) -> Option<String> {
        let host = address.strip_prefix("http://")?.split('/').next()?;
        let mut stream = TcpStream::connect(host).await.ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    #[tokio::test]
    async fn only_the_path_is_answered_and_only_while_it_lives() {
        let handover = Handover::start(&HostSettings::default()).await.unwrap();
        let address = handover.address().to_owned();
        let path = format!("/{}", address.rsplit('/').next().unwrap());
        let good = get(&address, &path).await.unwrap();
        assert!(
            good.starts_with("HTTP/1.0 200") && good.ends_with(r#"{"variables":{},"files":{}}"#),
            "{good}"
        );
        for other in ["/", "/x", &path[..path.len() - 1]] {
            let wrong = get(&address, other).await.unwrap();
            assert!(wrong.starts_with("HTTP/1.0 404") && !wrong.contains("variables"), "{other}: {wrong}");
        }
        drop(handover);
        for _ in 0..100 {
            if get(&address, &path).await.is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the server outlived its handle");
    }
}
