//! A run that is on a worker, to its end. A broken connection is no news about the run: it is watched again from where the
//! sink stopped. Only the worker's `finished`, a worker that no longer knows the run, or patience at its end, ends it.

use futures_util::FutureExt as _;
use prost::Message as _;
use proto::v1;
use tonic::{Code, Streaming};

use super::{
    FleetError, RunEnd, RunSink,
    artifacts::{Download, Failed},
    line::{Fault, Line},
    way::{GivenUp, Way},
};

/// Events of one batch: one transaction of the sink's for many frames.
const BATCH_EVENTS: usize = 512;
const BATCH_BYTES: usize = 4 << 20;
/// An artifact that arrives damaged is fetched so often.
const FETCHES: u32 = 3;

/// How a watch over one connection ended without an error of ours.
enum Watched {
    End(RunEnd),
    Broke(Fault),
}

fn unreachable(GivenUp(detail): GivenUp) -> RunEnd {
    RunEnd::Lost { cause: v1::LostCause::Unreachable, detail }
}

/// What a finished run made is fetched, and the run is forgotten there when the sink has everything.
pub(super) async fn harvest(
    way: &mut Way<'_>,
    finished: v1::Finished,
    sink: &mut dyn RunSink,
) -> Result<RunEnd, FleetError> {
    for artifact in &finished.artifacts {
        // The path first: a sink is not shared between threads, and the future must be able to move.
        let path = sink.artifact_path(&artifact.name)?;
        if let Some(lost) = fetch(way, artifact, &path).await? {
            return Ok(lost);
        }
    }
    sink.complete().await?;
    if release(way, finished.last_sequence).await? {
        sink.released().await?;
    }
    Ok(RunEnd::Finished(Box::new(finished)))
}

/// Watches until `finished`.
pub(super) async fn events(way: &mut Way<'_>, sink: &mut dyn RunSink) -> Result<RunEnd, FleetError> {
    let mut cancel_sent = false;
    loop {
        let line = match way.line().await {
            Ok(line) => line,
            Err(given_up) => return Ok(unreachable(given_up)),
        };
        let fault = match watch(way, &line, sink, &mut cancel_sent).await? {
            Watched::End(end) => return Ok(end),
            Watched::Broke(fault) => fault,
        };
        if let Err(given_up) = way.pause(&fault).await {
            return Ok(unreachable(given_up));
        }
    }
}

async fn watch(
    way: &mut Way<'_>,
    line: &Line,
    sink: &mut dyn RunSink,
    cancel_sent: &mut bool,
) -> Result<Watched, FleetError> {
    const CALL: &str = "WatchRun";
    let mut client = line.client.clone();
    let request = v1::WatchRunRequest {
        run_id: way.start.run_id.clone(),
        controller_id: way.start.controller_id.clone(),
        after_sequence: sink.last_sequence(),
    };
    let cancel = way.cancel;
    if cancel.is_cancelled()
        && !*cancel_sent
        && let Err(fault) = send_cancel(way, line).await
    {
        return Ok(Watched::Broke(fault));
    }
    *cancel_sent |= cancel.is_cancelled();
    let mut stream = match line.ask(CALL, client.watch_run(request)).await {
        Ok(stream) => stream,
        Err(fault) => return Ok(unknown_run(way, fault)),
    };
    loop {
        let message = tokio::select! {
            message = line.next(CALL, &mut stream) => message,
            () = cancel.cancelled(), if !*cancel_sent => {
                match send_cancel(way, line).await {
                    Ok(()) => *cancel_sent = true,
                    Err(fault) => return Ok(Watched::Broke(fault)),
                }
                continue;
            }
        };
        let first = match message {
            Ok(Some(first)) => first,
            Ok(None) => {
                let detail = "the stream ended before the run did".to_owned();
                return Ok(Watched::Broke(Fault::Broken { call: CALL, detail }));
            }
            Err(fault) => return Ok(unknown_run(way, fault)),
        };
        way.heard();
        let batch = batch(first, &mut stream);
        if batch.is_empty() {
            continue;
        }
        let (running, finished) = looked_at(&batch);
        if running {
            way.began();
        }
        sink.apply(batch).await?;
        if let Some(finished) = finished {
            kit::halt::at("controller.finishing");
            return Ok(Watched::End(RunEnd::Finished(finished)));
        }
        kit::halt::at("controller.running");
    }
}

/// This message and whatever has arrived already: they go into the same transaction.
fn batch(first: v1::WatchRunResponse, stream: &mut Streaming<v1::WatchRunResponse>) -> Vec<v1::Event> {
    let mut batch: Vec<v1::Event> = event_of(first).into_iter().collect();
    let mut bytes = batch.iter().map(prost::Message::encoded_len).sum::<usize>();
    while batch.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
        // A break is met again by the next read.
        let Some(Ok(Some(message))) = stream.message().now_or_never() else { break };
        let event = event_of(message);
        bytes += event.as_ref().map_or(0, v1::Event::encoded_len);
        batch.extend(event);
    }
    batch
}

fn event_of(message: v1::WatchRunResponse) -> Option<v1::Event> {
    match message.message {
        Some(v1::watch_run_response::Message::Event(event)) => Some(event),
        Some(v1::watch_run_response::Message::Heartbeat(_)) | None => None,
    }
}

/// Whether the program began, and the end, if they are among these.
fn looked_at(batch: &[v1::Event]) -> (bool, Option<Box<v1::Finished>>) {
    let running = batch.iter().any(|event| {
        matches!(&event.kind, Some(v1::event::Kind::StateChange(c)) if c.state() == v1::RunState::Running)
    });
    let finished = batch.iter().find_map(|event| match &event.kind {
        Some(v1::event::Kind::Finished(finished)) => Some(Box::new(finished.clone())),
        _ => None,
    });
    (running, finished)
}

async fn send_cancel(way: &Way<'_>, line: &Line) -> Result<(), Fault> {
    let request = v1::CancelRunRequest {
        run_id: way.start.run_id.clone(),
        controller_id: way.start.controller_id.clone(),
    };
    let mut client = line.client.clone();
    line.ask("CancelRun", client.cancel_run(request)).await.map(drop)
}

/// The worker answers, and has no such run, or not so much of it: lost. Else it is asked again.
fn unknown_run(way: &Way<'_>, fault: Fault) -> Watched {
    let cause = match fault.code() {
        Code::NotFound | Code::FailedPrecondition => v1::LostCause::Unspecified,
        Code::OutOfRange | Code::DataLoss => v1::LostCause::Spool,
        _ => return Watched::Broke(fault),
    };
    let GivenUp(detail) = way.give_up(fault.at(&way.link.name()).to_string());
    Watched::End(RunEnd::Lost { cause, detail })
}

/// `Some` where it cannot be had.
async fn fetch(
    way: &mut Way<'_>,
    artifact: &v1::Artifact,
    path: &std::path::Path,
) -> Result<Option<RunEnd>, FleetError> {
    let spool = |way: &Way<'_>, detail: String| {
        let GivenUp(detail) = way.give_up(format!("artifact {}: {detail}", artifact.name));
        Ok(Some(RunEnd::Lost { cause: v1::LostCause::Spool, detail }))
    };
    let mut download = Download::begin(artifact, path).await?;
    let mut fetches = 1;
    loop {
        let line = match way.line().await {
            Ok(line) => line,
            Err(given_up) => {
                download.give_up().await?;
                return Ok(Some(unreachable(given_up)));
            }
        };
        let fault = match download.go_on(&line, way.start).await {
            Ok(()) => return Ok(None),
            Err(Failed::Own(error)) => return Err(error),
            Err(Failed::Damaged(found)) if fetches < FETCHES => {
                tracing::warn!(artifact = artifact.name, found, "an artifact arrived damaged");
                fetches += 1;
                download = Download::begin(artifact, path).await?;
                continue;
            }
            Err(Failed::Damaged(found)) => {
                download.give_up().await?;
                return spool(way, format!("{found} came instead of {}", artifact.digest));
            }
            Err(Failed::Fault(fault))
                if matches!(fault.code(), Code::NotFound | Code::FailedPrecondition | Code::DataLoss) =>
            {
                download.give_up().await?;
                return spool(way, fault.at(&line.name()).to_string());
            }
            Err(Failed::Fault(fault)) => fault,
        };
        if download.got_more() {
            way.heard();
        }
        if let Err(given_up) = way.pause(&fault).await {
            download.give_up().await?;
            return Ok(Some(unreachable(given_up)));
        }
    }
}

/// Whether the worker has forgotten the run. Where it cannot be reached for long, that is done when it is back: the results
/// are safe.
async fn release(way: &mut Way<'_>, last_sequence: u64) -> Result<bool, FleetError> {
    let request = v1::ReleaseRunRequest {
        run_id: way.start.run_id.clone(),
        controller_id: way.start.controller_id.clone(),
        last_sequence,
    };
    kit::halt::at("controller.release");
    loop {
        let Ok(line) = way.line().await else { return Ok(false) };
        let mut client = line.client.clone();
        let fault = match line.ask("ReleaseRun", client.release_run(request.clone())).await {
            Ok(_) => return Ok(true),
            Err(fault) => fault,
        };
        match fault.code() {
            Code::NotFound => return Ok(true),
            Code::FailedPrecondition | Code::InvalidArgument => return Err(fault.at(&line.name())),
            _ => {}
        }
        if way.pause(&fault).await.is_err() {
            return Ok(false);
        }
    }
}
