//! One run, from a free slot to its release. A broken connection is no news about the run: it is dialled anew and
//! watched from where the sink stopped. Only the worker's `finished`, or a worker that no longer knows the run, ends it.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use kit::{digest::Hasher, retry::Policy, task::CancellationToken};
use proto::v1;
use tokio::{io::AsyncWriteExt as _, sync::SemaphorePermit};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{FleetError, Link, RunEnd, RunSink, is_transient, link::SILENCE};

/// A worker that stays away is tried for about half an hour (WORKER §2).
const RECONNECT: Policy =
    Policy { attempts: 70, base: Duration::from_millis(200), longest: Duration::from_secs(30) };
/// Events of one batch: one transaction of the sink's for many frames.
const BATCH_EVENTS: usize = 512;
const BATCH_BYTES: usize = 4 << 20;
/// A slot that the worker says is taken is asked for again after so long where it names no time itself.
const SLOT_TAKEN: Duration = Duration::from_millis(250);

pub(super) async fn to_its_end(
    links: &[Arc<Link>],
    start: &v1::StartRunRequest,
    sink: &mut dyn RunSink,
    cancel: &CancellationToken,
) -> Result<RunEnd, FleetError> {
    let (link, _slot) = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(FleetError::Cancelled),
        slot = free_slot(links) => slot?,
    };
    if let Some(rejected) = place(link, start, cancel).await? {
        return Ok(rejected);
    }
    let view = link.view();
    sink.placed(&view.worker_id, &view.boot_id).await?;
    from_watching_on(link, start, sink, cancel).await
}

/// The second half: the run is on the worker's disk.
pub(super) async fn from_watching_on(
    link: &Link,
    start: &v1::StartRunRequest,
    sink: &mut dyn RunSink,
    cancel: &CancellationToken,
) -> Result<RunEnd, FleetError> {
    let finished = match follow(link, start, sink, cancel).await? {
        RunEnd::Finished(finished) => finished,
        other => return Ok(other),
    };
    for artifact in &finished.artifacts {
        // The path first: a sink is not shared between threads, and the future must be able to move.
        let path = sink.artifact_path(&artifact.name)?;
        fetch(link, start, artifact, &path).await?;
    }
    sink.complete().await?;
    release(link, start, finished.last_sequence).await?;
    sink.released().await?;
    Ok(RunEnd::Finished(finished))
}

/// The worker with the most free places; waits for one where none is free.
async fn free_slot(links: &[Arc<Link>]) -> Result<(&Arc<Link>, SemaphorePermit<'_>), FleetError> {
    let mut by_room: Vec<&Arc<Link>> = links.iter().collect();
    by_room.sort_by_key(|link| std::cmp::Reverse(link.free.available_permits()));
    for link in &by_room {
        if let Ok(permit) = link.free.try_acquire() {
            return Ok((link, permit));
        }
    }
    let waiting = by_room
        .into_iter()
        .map(|link| Box::pin(async move { link.free.acquire().await.map(|permit| (link, permit)) }));
    let waiting: Vec<_> = waiting.collect();
    if waiting.is_empty() {
        return Err(FleetError::NoWorker);
    }
    // The semaphores are never closed.
    futures_util::future::select_all(waiting).await.0.map_err(|_| FleetError::NoWorker)
}

/// Sends the same bytes until the worker has the run, or says that it never will.
async fn place(
    link: &Link,
    start: &v1::StartRunRequest,
    cancel: &CancellationToken,
) -> Result<Option<RunEnd>, FleetError> {
    let mut attempt = 0;
    loop {
        if cancel.is_cancelled() && attempt == 0 {
            return Err(FleetError::Cancelled);
        }
        let status = match link.client().await {
            Ok(mut client) => match client.start_run(start.clone()).await {
                Ok(_) => return Ok(None),
                Err(status) => status,
            },
            Err(error) if error.is_retryable() => tonic::Status::unavailable(error.to_string()),
            Err(error) => return Err(error),
        };
        let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let delay = match status.code() {
            Code::ResourceExhausted => Some(asked.unwrap_or(SLOT_TAKEN)),
            code if is_transient(code) => {
                link.broken().await;
                attempt += 1;
                RECONNECT.next_delay(attempt, asked)
            }
            _ => return Ok(Some(rejected(&status))),
        };
        let Some(delay) = delay else {
            return Err(FleetError::call("StartRun", &status));
        };
        tokio::select! {
            () = cancel.cancelled() => return Err(FleetError::Cancelled),
            () = tokio::time::sleep(delay) => {}
        }
    }
}

fn rejected(status: &tonic::Status) -> RunEnd {
    let fields = status.get_details_bad_request().map(|b| b.field_violations).unwrap_or_default();
    let missing = status.get_details_precondition_failure().map(|p| p.violations).unwrap_or_default();
    let field = fields
        .first()
        .map(|f| f.field.clone())
        .or_else(|| missing.first().map(|m| m.subject.clone()))
        .unwrap_or_else(|| "request".to_owned());
    RunEnd::Rejected { field, reason: status.message().to_owned() }
}

/// Watches until `finished`.
async fn follow(
    link: &Link,
    start: &v1::StartRunRequest,
    sink: &mut dyn RunSink,
    cancel: &CancellationToken,
) -> Result<RunEnd, FleetError> {
    let (mut attempt, mut cancel_sent) = (0, false);
    loop {
        let before = sink.last_sequence();
        let broken = match watch_once(link, start, sink, cancel, &mut cancel_sent).await {
            Ok(end) => return Ok(end),
            Err(error) if error.is_retryable() => error,
            Err(error) => return Err(error),
        };
        tracing::warn!(run = %start.run_id, error = %broken, "the watch broke");
        link.broken().await;
        // Anything that came proves that the way is open.
        attempt = if sink.last_sequence() > before { 1 } else { attempt + 1 };
        match RECONNECT.next_delay(attempt, None) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => {
                let detail = format!("the worker was out of reach: {broken}");
                return Ok(RunEnd::Lost { cause: v1::LostCause::Unreachable, detail });
            }
        }
    }
}

async fn watch_once(
    link: &Link,
    start: &v1::StartRunRequest,
    sink: &mut dyn RunSink,
    cancel: &CancellationToken,
    cancel_sent: &mut bool,
) -> Result<RunEnd, FleetError> {
    let mut client = link.client().await?;
    let request = v1::WatchRunRequest {
        run_id: start.run_id.clone(),
        controller_id: start.controller_id.clone(),
        after_sequence: sink.last_sequence(),
    };
    let mut stream = match client.watch_run(request).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => return unknown_run(&status),
    };
    loop {
        if cancel.is_cancelled() && !*cancel_sent {
            let request = v1::CancelRunRequest {
                run_id: start.run_id.clone(),
                controller_id: start.controller_id.clone(),
            };
            client.cancel_run(request).await.map_err(|s| FleetError::call("CancelRun", &s))?;
            *cancel_sent = true;
        }
        let message = tokio::select! {
            () = cancel.cancelled(), if !*cancel_sent => continue,
            message = tokio::time::timeout(SILENCE, stream.message()) => message,
        };
        let silent =
            |_| FleetError::Unreachable { worker: link.name(), detail: "the stream fell silent".to_owned() };
        let first = match message.map_err(silent)? {
            Ok(first) => first,
            Err(status) => return unknown_run(&status),
        };
        let Some(first) = first else {
            let detail = "the stream ended before the run did".to_owned();
            return Err(FleetError::Unreachable { worker: link.name(), detail });
        };
        let mut batch: Vec<v1::Event> = event_of(first).into_iter().collect();
        let mut bytes = batch.iter().map(prost::Message::encoded_len).sum::<usize>();
        // Whatever has arrived already goes into the same transaction.
        while batch.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
            match stream.message().now_or_never() {
                Some(Ok(Some(message))) => {
                    let event = event_of(message);
                    bytes += event.as_ref().map_or(0, prost::Message::encoded_len);
                    batch.extend(event);
                }
                // A break is met again by the next read.
                _ => break,
            }
        }
        let finished = batch.iter().find_map(|event| match &event.kind {
            Some(v1::event::Kind::Finished(finished)) => Some(Box::new(finished.clone())),
            _ => None,
        });
        if !batch.is_empty() {
            sink.apply(batch).await?;
        }
        if let Some(finished) = finished {
            return Ok(RunEnd::Finished(finished));
        }
    }
}

fn event_of(message: v1::WatchRunResponse) -> Option<v1::Event> {
    match message.message {
        Some(v1::watch_run_response::Message::Event(event)) => Some(event),
        Some(v1::watch_run_response::Message::Heartbeat(_)) | None => None,
    }
}

/// The worker answers, and has no such run, or not so much of it: lost. Else the connection's fault.
fn unknown_run(status: &tonic::Status) -> Result<RunEnd, FleetError> {
    let lost = |cause| Ok(RunEnd::Lost { cause, detail: status.message().to_owned() });
    match status.code() {
        Code::NotFound | Code::FailedPrecondition => lost(v1::LostCause::Unspecified),
        Code::OutOfRange | Code::DataLoss => lost(v1::LostCause::Spool),
        _ => Err(FleetError::call("WatchRun", status)),
    }
}

async fn fetch(
    link: &Link,
    start: &v1::StartRunRequest,
    artifact: &v1::Artifact,
    path: &std::path::Path,
) -> Result<(), FleetError> {
    let mut attempt = 0;
    loop {
        let error = match fetch_once(link, start, artifact, path).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_retryable() => error,
            Err(error) => return Err(error),
        };
        link.broken().await;
        attempt += 1;
        match RECONNECT.next_delay(attempt, None) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return Err(error),
        }
    }
}

async fn fetch_once(
    link: &Link,
    start: &v1::StartRunRequest,
    artifact: &v1::Artifact,
    path: &std::path::Path,
) -> Result<(), FleetError> {
    let file_error = |source| FleetError::File { path: path.display().to_string(), source };
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await.map_err(file_error)?;
    }
    let request = v1::ReadArtifactRequest {
        run_id: start.run_id.clone(),
        controller_id: start.controller_id.clone(),
        name: artifact.name.clone(),
        offset: 0,
    };
    let status = |s: tonic::Status| FleetError::call("ReadArtifact", &s);
    let mut stream = link.client().await?.read_artifact(request).await.map_err(status)?.into_inner();
    let beside = beside(path, &artifact.name);
    let mut file = tokio::fs::File::create(&beside).await.map_err(file_error)?;
    let mut hasher = Hasher::new();
    while let Some(chunk) = stream.message().await.map_err(status)? {
        hasher.update(&chunk.data);
        file.write_all(&chunk.data).await.map_err(file_error)?;
    }
    file.sync_all().await.map_err(file_error)?;
    let found = hasher.finish().to_string();
    if found != artifact.digest {
        tokio::fs::remove_file(&beside).await.map_err(file_error)?;
        return Err(FleetError::Damaged {
            what: format!("artifact {}", artifact.name),
            wanted: artifact.digest.clone(),
            found,
        });
    }
    tokio::fs::rename(&beside, path).await.map_err(file_error)
}

/// Where an artifact is written until it is whole: above the folder of the artifacts, whose every name is the program's to
/// choose, also one of 255 bytes to which nothing can be added. Artifacts of a run are fetched one after another.
fn beside(path: &std::path::Path, name: &str) -> std::path::PathBuf {
    let artifacts = path.ancestors().nth(name.split('/').count()).unwrap_or(path);
    artifacts.with_extension("part")
}

async fn release(link: &Link, start: &v1::StartRunRequest, last_sequence: u64) -> Result<(), FleetError> {
    let request = v1::ReleaseRunRequest {
        run_id: start.run_id.clone(),
        controller_id: start.controller_id.clone(),
        last_sequence,
    };
    let mut attempt = 0;
    loop {
        let status = match link.client().await {
            Ok(mut client) => match client.release_run(request.clone()).await {
                Ok(_) => return Ok(()),
                Err(status) => status,
            },
            Err(error) if error.is_retryable() => tonic::Status::unavailable(error.to_string()),
            Err(error) => return Err(error),
        };
        if !is_transient(status.code()) {
            return Err(FleetError::call("ReleaseRun", &status));
        }
        link.broken().await;
        attempt += 1;
        match RECONNECT.next_delay(attempt, None) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return Err(FleetError::call("ReleaseRun", &status)),
        }
    }
}
