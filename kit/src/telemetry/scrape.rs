//! `GET /metrics`, for Prometheus and whatever reads its format. Loopback is what people should write; another address
//! is taken with a warning, because the page has no secrets but no lock either.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::task::CancellationToken;

/// Scrapers at once; one more waits.
const CONNECTIONS: usize = 8;
/// From a connection to the last byte of its answer.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Of a request's head; hyper wants no less.
const HEAD_BYTES: usize = 8 << 10;
const PAUSE: Duration = Duration::from_millis(100);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[error("metrics_listen: cannot listen on {address}: {source} (choose another port, or leave the key out)")]
pub struct ScrapeError {
    address: SocketAddr,
    source: io::Error,
}

/// Serves the registry until the token is cancelled; answers where it listens.
///
/// # Errors
/// [`ScrapeError`]: the address is taken or not this machine's.
pub async fn serve(
    address: SocketAddr,
    registry: Arc<Registry>,
    stop: CancellationToken,
) -> Result<SocketAddr, ScrapeError> {
    let failed = |source| ScrapeError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    if !bound.ip().is_loopback() {
        tracing::warn!(address = %bound, "metrics can be read by every machine that reaches this address");
    }
    tracing::info!(address = %bound, "metrics");
    crate::task::spawn("metrics", async move {
        stop.run_until_cancelled(accept(listener, registry)).await;
    });
    Ok(bound)
}

async fn accept(listener: TcpListener, registry: Arc<Registry>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let registry = Arc::clone(&registry);
                crate::task::spawn("scrape", async move {
                    if tokio::time::timeout(TIME_LIMIT, answer(stream, registry)).await.is_err() {
                        tracing::debug!("a scraper took too long");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a scraper");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, registry: Arc<Registry>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &registry);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(HEAD_BYTES);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a scraper went away");
    }
}

fn respond(method: &Method, path: &str, registry: &Registry) -> Response<Full<Bytes>> {
    let with = |status, name, value: &'static str, body: String| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(name, hyper::header::HeaderValue::from_static(value));
        response
    };
    let text = "text/plain; charset=utf-8";
    if path != "/metrics" {
        return with(StatusCode::NOT_FOUND, CONTENT_TYPE, text, "the page is /metrics\n".to_owned());
    }
    if method != Method::GET {
        return with(StatusCode::METHOD_NOT_ALLOWED, ALLOW, "GET", String::new());
    }
    let mut page = String::new();
    match encode(&mut page, registry) {
        Ok(()) => with(StatusCode::OK, CONTENT_TYPE, OPEN_METRICS, page),
        Err(error) => with(StatusCode::INTERNAL_SERVER_ERROR, CONTENT_TYPE, text, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn the_page_is_there_and_nothing_else() {
        let mut registry = Registry::with_prefix("test");
        let counter = Counter::<u64>::default();
        registry.register("turns", "Turns", counter.clone());
        counter.inc();
        let stop = CancellationToken::new();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = serve(any, Arc::new(registry), stop.clone()).await.unwrap();
        let page = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("test_turns_total 1\n"), "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
        let other = ask(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(other.starts_with("HTTP/1.1 404"), "{other}");
        let put = ask(address, "PUT /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
        assert!(put.starts_with("HTTP/1.1 405"), "{put}");
        let taken = serve(address, Arc::new(Registry::default()), stop.clone()).await.unwrap_err();
        assert!(
            taken.to_string().contains("metrics_listen") && taken.to_string().contains(&address.to_string())
        );
        stop.cancel();
    }
}
