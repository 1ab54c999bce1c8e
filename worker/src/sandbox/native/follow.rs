//! PID 1's reports, read from a file outside the sandbox. A change of the file is only the wake-up: it is read whole
//! each time, and once a second without one. PID 1's end is told by its own handle, and the supervisor's last line says
//! with what.

use std::{
    io::{self, Read as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use kit::task::CancellationToken;
use rustix::fs::inotify;
use tokio::{net::unix::pipe::Receiver, sync::watch};

use crate::sandbox::{Gone, Reports, report};

const TICK: Duration = Duration::from_secs(1);
/// Where the kernel gives no more watches.
const TICK_WITHOUT_WATCH: Duration = Duration::from_millis(50);
/// From PID 1's end to the supervisor's word of it.
const LAST_LINE_LIMIT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);
/// PID 1 writes some hundred bytes; what is beyond this is not its doing.
const REPORT_BYTES: u64 = 256 << 10;

/// Reads until PID 1 is gone or the token is cancelled.
pub(super) async fn follow(
    file: PathBuf,
    process: OwnedFd,
    reports: watch::Sender<Reports>,
    stop: CancellationToken,
) {
    let id = file.display().to_string();
    tokio::select! {
        () = stop.cancelled() => {}
        followed = run(&file, process, &reports) => {
            if let Err(error) = followed {
                tracing::error!(%error, file = id, "the reports of PID 1 can no longer be followed");
            }
        }
    }
}

async fn run(file: &Path, process: OwnedFd, reports: &watch::Sender<Reports>) -> io::Result<()> {
    // Readable when the process has ended. No pipe, but what is asked of it is the same: tokio's own type for any
    // descriptor cannot be made without `unsafe`.
    let process = Receiver::from_owned_fd_unchecked(process)?;
    let changes = match watch_file(file) {
        Ok(changes) => Some(changes),
        Err(error) => {
            tracing::warn!(%error, "the reports are looked at instead of watched");
            None
        }
    };
    let tick = if changes.is_some() { TICK } else { TICK_WITHOUT_WATCH };
    loop {
        read(file, reports);
        tokio::select! {
            ended = process.readable() => {
                ended?;
                break;
            }
            () = changed(changes.as_ref()) => {}
            () = tokio::time::sleep(tick) => {}
        }
    }
    end(file, reports).await;
    Ok(())
}

/// Reads what there is so far.
pub(super) fn look(file: &Path, reports: &watch::Sender<Reports>) {
    read(file, reports);
}

/// Of a PID 1 that has ended.
pub(super) async fn end(file: &Path, reports: &watch::Sender<Reports>) {
    let mut log = read(file, reports);
    let waiting = async {
        while log.left.is_none() {
            tokio::time::sleep(PAUSE).await;
            log = read(file, reports);
        }
    };
    // A supervisor that was killed too says nothing.
    let told = tokio::time::timeout(LAST_LINE_LIMIT, waiting).await.is_ok();
    let detail = match (told, log.failure.is_empty()) {
        (false, true) => "PID 1 has ended, and its supervisor before it".to_owned(),
        _ => log.failure,
    };
    let end = Reports { gone: Some(Gone { exit_code: log.left, detail }), ..Reports::default() };
    reports.send_if_modified(|known| report::grow(known, &end));
}

fn watch_file(file: &Path) -> io::Result<Receiver> {
    let watcher = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watcher, file, inotify::WatchFlags::MODIFY)?;
    Receiver::from_owned_fd_unchecked(watcher)
}

async fn changed(watcher: Option<&Receiver>) {
    let Some(watcher) = watcher else { return std::future::pending().await };
    if watcher.readable().await.is_err() {
        return std::future::pending().await; // the tick goes on
    }
    // What changed is not of interest, only that something did.
    let mut events = [0u8; 1024];
    while watcher.try_read(&mut events).is_ok_and(|bytes| bytes > 0) {}
}

/// Reads the file whole. It is small, and a page of memory.
fn read(file: &Path, reports: &watch::Sender<Reports>) -> report::Log {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(REPORT_BYTES).read_to_end(&mut bytes));
    if let Err(error) = read {
        tracing::debug!(%error, file = %file.display(), "the reports are gone");
    }
    let log = report::read(&bytes);
    reports.send_if_modified(|known| report::grow(known, &log.reports));
    log
}
