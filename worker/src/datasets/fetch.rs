//! Fetching one file over http or https: bounded in bytes, redirects and silence, with the certificates of the system
//! and the proxy of the environment. A connection that breaks is taken up again where it broke, if the server can do
//! that for the very same file, else from the start. What comes is bytes: nothing is decoded and nothing unpacked.

use std::{
    fs::{File, OpenOptions},
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use futures_util::StreamExt as _;
use kit::{retry::Policy, size::Bytes};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE},
    redirect,
};

use super::{DataSetError, Progress};

/// Of an error with its causes, whose texts reqwest leaves out.
const CAUSES_CHARS: usize = 300;
const REDIRECTS_MAX: usize = 10;

/// How patient a fetch is.
#[derive(Debug, Clone, Copy)]
pub struct FetchRules {
    /// To connect.
    pub connect: Duration,
    /// With no byte coming.
    pub silence: Duration,
    /// Attempts for one address, and the waits between them.
    pub again: Policy,
}

impl Default for FetchRules {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            silence: Duration::from_secs(60),
            again: Policy { attempts: 5, base: Duration::from_secs(2), longest: Duration::from_secs(30) },
        }
    }
}

/// An address that may be fetched.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<Url, DataSetError> {
    let wrong = |problem: String| DataSetError::Url { url: kit::text::one_line(text, 200), problem };
    let url = Url::parse(text).map_err(|e| wrong(format!("is no address: {e}")))?;
    match url.scheme() {
        "http" | "https" if url.host_str().is_some() => Ok(url),
        _ => Err(wrong("only http:// and https:// are fetched".to_owned())),
    }
}

/// An address as it may be shown and kept: without user, password, query and fragment, which can be secrets.
pub(super) fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), kit::text::one_line(url.path(), 300))
}

/// Fetches.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: Client,
    rules: FetchRules,
}

/// Why an attempt ended.
enum Broken {
    /// Another attempt may do better.
    Again(String),
    /// It will not.
    Final(DataSetError),
}

impl Fetcher {
    pub(super) fn new(rules: FetchRules) -> Result<Self, DataSetError> {
        // A second call finds it installed, by us or by whoever linked us: both are well.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let policy = redirect::Policy::custom(|attempt| {
            let was_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
            if attempt.previous().len() > REDIRECTS_MAX {
                attempt.error(format!("more than {REDIRECTS_MAX} redirects"))
            } else if was_https && attempt.url().scheme() != "https" {
                attempt.error("a redirect from https to http is not followed")
            } else {
                attempt.follow()
            }
        });
        // Some servers compress what is asked for plainly; a digest is of the file itself.
        let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
        let client = Client::builder()
            .connect_timeout(rules.connect)
            .read_timeout(rules.silence)
            .redirect(policy)
            .default_headers(headers)
            .user_agent(concat!("autoresearch-worker/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| DataSetError::Url {
                url: "https://".to_owned(),
                problem: kit::text::chain(&e, CAUSES_CHARS),
            })?;
        Ok(Self { client, rules })
    }

    /// Fetches the first of these addresses that answers with the file into `target`, which is not there yet. Gives
    /// its length.
    ///
    /// # Errors
    /// What every address said, or the bound that was met.
    pub(super) async fn fetch(
        &self,
        urls: &[Url],
        target: &Path,
        limit: u64,
        progress: Progress<'_>,
    ) -> Result<u64, DataSetError> {
        let mut said = Vec::new();
        for url in urls {
            match self.one(url, target, limit, progress).await {
                Ok(bytes) => return Ok(bytes),
                Err(DataSetError::Url { url, problem }) => said.push((url, problem)),
                Err(other) => return Err(other),
            }
        }
        let url = said.iter().map(|(url, _)| url.as_str()).collect::<Vec<_>>().join(", ");
        let problem = said.iter().map(|(_, problem)| problem.as_str()).collect::<Vec<_>>().join("; ");
        Err(DataSetError::Url { url, problem })
    }

    async fn one(
        &self,
        url: &Url,
        target: &Path,
        limit: u64,
        progress: Progress<'_>,
    ) -> Result<u64, DataSetError> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(target)
            .map_err(|e| DataSetError::io("create", target, e))?;
        let mut transfer = Transfer { url, limit, target, received: 0, same: None };
        let mut attempt = 1;
        loop {
            match transfer.attempt(&self.client, &mut file, progress).await {
                Ok(()) => return Ok(transfer.received),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Again(problem)) => {
                    let Some(delay) = self.rules.again.next_delay(attempt, None) else {
                        return Err(transfer.error(format!("{problem}, {attempt} times")));
                    };
                    tracing::warn!(url = shown(url), problem, received = transfer.received, "trying again");
                    tokio::time::sleep(delay).await;
                    attempt += 1;
                }
            }
        }
    }
}

/// One file on its way in.
struct Transfer<'a> {
    url: &'a Url,
    limit: u64,
    target: &'a Path,
    received: u64,
    /// What says that the file is still the same: a strong ETag, else the time of its last change.
    same: Option<HeaderValue>,
}

impl Transfer<'_> {
    fn error(&self, problem: String) -> DataSetError {
        DataSetError::Url { url: shown(self.url), problem }
    }

    fn again(&self, error: &reqwest::Error) -> Broken {
        // A loop of redirects and an address that cannot be built are the same the next time.
        if error.is_redirect() || error.is_builder() {
            return Broken::Final(self.error(kit::text::chain(error, CAUSES_CHARS)));
        }
        Broken::Again(kit::text::chain(error, CAUSES_CHARS))
    }

    async fn attempt(
        &mut self,
        client: &Client,
        file: &mut File,
        progress: Progress<'_>,
    ) -> Result<(), Broken> {
        let mut request = client.get(self.url.clone());
        if let Some(same) = self.same.as_ref().filter(|_| self.received > 0) {
            request = request.header(RANGE, format!("bytes={}-", self.received)).header(IF_RANGE, same);
        }
        let response = request.send().await.map_err(|e| self.again(&e.without_url()))?;
        let status = response.status();
        let goes_on = status == StatusCode::PARTIAL_CONTENT && begins_at(&response) == Some(self.received);
        if !goes_on {
            self.received = 0;
            if status != StatusCode::OK {
                let problem = format!("the server says {status}");
                let retry = status.is_server_error()
                    || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
                    // Of a range that was not asked for, or of another place.
                    || status == StatusCode::PARTIAL_CONTENT
                    || status == StatusCode::RANGE_NOT_SATISFIABLE;
                self.same = None;
                return Err(if retry { Broken::Again(problem) } else { Broken::Final(self.error(problem)) });
            }
            self.same = validator(&response);
        }
        let total = response.content_length().map(|rest| self.received.saturating_add(rest));
        if total.is_some_and(|total| total > self.limit) {
            return Err(self.too_large());
        }
        let disk = |e| Broken::Final(DataSetError::io("write", self.target, e));
        if let Some(rest) = response.content_length() {
            super::image::check_room(self.target, rest).map_err(Broken::Final)?;
        }
        file.set_len(self.received).map_err(disk)?;
        file.seek(SeekFrom::Start(self.received)).map_err(disk)?;
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|e| self.again(&e.without_url()))?;
            if self.received.saturating_add(piece.len() as u64) > self.limit {
                return Err(self.too_large());
            }
            // Pieces are small and this process does nothing else meanwhile.
            file.write_all(&piece).map_err(|e| Broken::Final(DataSetError::io("write", self.target, e)))?;
            self.received += piece.len() as u64;
            progress("fetching", self.received, total);
        }
        match total {
            Some(total) if total != self.received => {
                Err(Broken::Again(format!("{} of {total} bytes came", self.received)))
            }
            _ => Ok(()),
        }
    }

    fn too_large(&self) -> Broken {
        let what = format!("the file at {}", shown(self.url));
        Broken::Final(DataSetError::TooLarge { what, limit: Bytes(self.limit) })
    }
}

/// "bytes 5-9/10": 5.
fn begins_at(response: &Response) -> Option<u64> {
    let value = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

fn validator(response: &Response) -> Option<HeaderValue> {
    let strong = response.headers().get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    strong.or_else(|| response.headers().get(LAST_MODIFIED)).cloned()
}
