//! PID 1's reports, read from the container's log. Following the log is only the wake-up: the log is read whole at
//! each wake-up, each reconnect and once a second, so that a stream that breaks or lags loses nothing.

use std::time::Duration;

use bollard::{Docker, container::LogOutput, query_parameters::LogsOptions};
use futures_util::{FutureExt as _, StreamExt as _};
use kit::task::CancellationToken;
use tokio::sync::watch;

use super::{status_of, words};
use crate::sandbox::{Gone, Reports, report};

const TICK: Duration = Duration::from_secs(1);
const READ_LIMIT: Duration = Duration::from_secs(10);
const RECONNECT: Duration = Duration::from_millis(50);
/// PID 1 writes some hundred bytes; what is beyond this is not its doing.
const LOG_BYTES: usize = 256 << 10;

/// Reads until the container is gone or the token is cancelled.
pub(super) async fn follow(
    docker: Docker,
    container: String,
    reports: watch::Sender<Reports>,
    stop: CancellationToken,
) {
    let follower = Follower { docker, container, reports };
    tokio::select! {
        () = stop.cancelled() => {}
        () = follower.run() => {}
    }
}

/// Reads all that there is so far, for a container that an earlier process made.
///
/// # Errors
/// In the engine's words; then nothing is known of it.
pub(super) async fn look(
    docker: &Docker,
    container: &str,
    reports: &watch::Sender<Reports>,
) -> Result<(), String> {
    let follower =
        Follower { docker: docker.clone(), container: container.to_owned(), reports: reports.clone() };
    let read = tokio::time::timeout(READ_LIMIT, follower.log()).await;
    let log = read
        .map_err(|_| format!("no log within {READ_LIMIT:?}"))?
        .or_else(|e| if status_of(&e) == Some(404) { Ok(Vec::new()) } else { Err(words(&e)) })?;
    reports.send_if_modified(|known| report::grow(known, &report::read(&log).reports));
    follower.is_gone().await;
    Ok(())
}

struct Follower {
    docker: Docker,
    container: String,
    reports: watch::Sender<Reports>,
}

impl Follower {
    async fn run(&self) {
        loop {
            let mut wake_ups = Box::pin(self.docker.logs(&self.container, Some(options(true))));
            loop {
                match tokio::time::timeout(TICK, wake_ups.next()).await {
                    Ok(Some(Ok(_))) => {
                        while let Some(Some(Ok(_))) = wake_ups.next().now_or_never() {}
                        self.read().await;
                    }
                    Ok(_) => break, // the container ended, or the stream broke
                    Err(_) => {
                        if self.is_gone().await {
                            return;
                        }
                    }
                }
            }
            if self.is_gone().await {
                return;
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    /// Reads the log whole; says what PID 1 gave as its failure.
    async fn read(&self) -> String {
        let log = match tokio::time::timeout(READ_LIMIT, self.log()).await {
            Ok(Ok(log)) => log,
            // It is read again; one that is gone is told by `is_gone`.
            Ok(Err(error)) => {
                tracing::debug!(container = self.container, error = words(&error), "no log");
                return String::new();
            }
            Err(_) => {
                tracing::warn!(
                    container = self.container,
                    "the engine is slow to give a log; reading it again"
                );
                return String::new();
            }
        };
        let found = report::read(&log);
        self.reports.send_if_modified(|known| report::grow(known, &found.reports));
        found.failure
    }

    async fn log(&self) -> Result<Vec<u8>, bollard::errors::Error> {
        let mut log = Vec::new();
        let mut stream = Box::pin(self.docker.logs(&self.container, Some(options(false))));
        while let Some(piece) = stream.next().await {
            if let LogOutput::StdOut { message } | LogOutput::Console { message } = piece? {
                log.extend_from_slice(&message);
            }
            if log.len() > LOG_BYTES {
                break;
            }
        }
        Ok(log)
    }

    /// Asks the engine, and reads the log once more: all of it is there once the container has ended.
    async fn is_gone(&self) -> bool {
        let state = self.docker.inspect_container(&self.container, None).await;
        let failure = self.read().await;
        let gone = match state {
            Ok(answer) => {
                let state = answer.state.unwrap_or_default();
                if state.running.unwrap_or(true) {
                    return false;
                }
                let engine = state.error.filter(|text| !text.is_empty()).unwrap_or_default();
                let detail =
                    [failure, engine].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
                Gone { exit_code: state.exit_code, detail: detail.join("; ") }
            }
            Err(error) if status_of(&error) == Some(404) => {
                Gone { exit_code: None, detail: "the container was removed".to_owned() }
            }
            Err(error) => {
                tracing::warn!(
                    container = self.container,
                    error = words(&error),
                    "the engine does not answer"
                );
                return false;
            }
        };
        let end = Reports { gone: Some(gone), ..Reports::default() };
        self.reports.send_if_modified(|known| report::grow(known, &end));
        true
    }
}

fn options(follow: bool) -> LogsOptions {
    LogsOptions { follow, stdout: true, stderr: false, tail: "all".to_owned(), ..LogsOptions::default() }
}
