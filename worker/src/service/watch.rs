//! `WatchRun`: every stored event after a sequence, from the segments, then as they come. A reader that does not read
//! costs two messages and one buffer, and slows nobody else.

use std::{sync::Arc, time::Duration};

use kit::task::CancellationToken;
use proto::v1::{Event, Heartbeat, WatchRunResponse, watch_run_response::Message};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tonic::Status;

use super::status::CallError;
use crate::run::{
    handle::RunHandle,
    registry::{FINISH_WAIT, is_last},
    spool::{SpoolError, SpoolReader},
    state::State,
};

/// So that a stream without a message for 15 s is broken.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);
/// Read from disk in one step, in bytes of data.
const BATCH_BYTES: usize = 512 << 10;
/// Read from disk in one step.
const BATCH_EVENTS: usize = 256;

type Sender = mpsc::Sender<Result<WatchRunResponse, Status>>;

fn message(message: Message) -> WatchRunResponse {
    WatchRunResponse { message: Some(message) }
}

/// Opens the segments after a sequence.
///
/// # Errors
/// A sequence past the end, or damage.
pub async fn open(run: &Arc<RunHandle>, after: u64) -> Result<SpoolReader, CallError> {
    let (folder, id, synced) = (run.folder.clone(), run.id, *run.synced.borrow());
    // A run whose segments are damaged as a whole says so, and not that the sequence is past the end.
    if run.published.borrow().spool_damaged && synced == 0 {
        return Err(CallError::Damaged("the run's log of events"));
    }
    let opened =
        kit::task::blocking("open events", move || SpoolReader::open(&folder, id, after, synced)).await;
    Ok(opened.ok_or(CallError::Stopping)??)
}

/// Sends events until the last one, the caller's going, or the worker's end.
pub async fn send(run: Arc<RunHandle>, reader: SpoolReader, out: Sender, shutdown: CancellationToken) {
    let _watcher = crate::telemetry::METRICS.watcher();
    let stop = out.clone();
    tokio::select! {
        () = send_all(run, reader, out) => {}
        () = shutdown.cancelled() => {
            // A full channel means that nobody reads; the stream then just ends, which is a broken stream too.
            stop.try_send(Err(CallError::Stopping.into())).ok();
        }
    }
}

async fn send_all(run: Arc<RunHandle>, reader: SpoolReader, out: Sender) {
    let (mut synced, mut published) = (run.synced.clone(), run.published.clone());
    let mut beat = interval_at(Instant::now() + HEARTBEAT_EVERY, HEARTBEAT_EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut held = Some(reader);
    // A recorder that has ended says nothing more.
    let mut recording = true;
    while let Some(reader) = held.take() {
        let (last, upto) = (reader.last(), *synced.borrow_and_update());
        if last < upto {
            let Some((reader, batch)) = kit::task::blocking("read events", move || batch(reader, upto)).await
            else {
                return;
            };
            for event in batch {
                let (done, response) = match event {
                    Ok(event) => (is_last(&event), Ok(message(Message::Event(event)))),
                    Err(error) => (true, Err(CallError::from(error).into())),
                };
                if done {
                    // Whoever has the last event finds the run finished in every other call; the stream ends as well
                    // where that does not come.
                    tokio::time::timeout(FINISH_WAIT, run.wait_finished()).await.ok();
                }
                if out.send(response).await.is_err() || done {
                    return;
                }
            }
            beat.reset();
            held = Some(reader);
            continue;
        }
        let (finished, damaged) = {
            let now = published.borrow_and_update();
            (now.state == State::Finished, now.spool_damaged)
        };
        if finished && last >= *synced.borrow() {
            if damaged {
                let error = CallError::Damaged("the run's log of events");
                out.send(Err(error.into())).await.ok();
            }
            return;
        }
        held = Some(reader);
        tokio::select! {
            changed = synced.changed(), if recording => recording = changed.is_ok(),
            changed = published.changed() => if changed.is_err() { return },
            _ = beat.tick() => {
                let heartbeat = Heartbeat { last_sequence: upto };
                if out.send(Ok(message(Message::Heartbeat(heartbeat)))).await.is_err() {
                    return;
                }
            }
            () = out.closed() => return,
        }
    }
}

type Batch = Vec<Result<Event, SpoolError>>;

fn batch(mut reader: SpoolReader, upto: u64) -> (SpoolReader, Batch) {
    let (mut events, mut bytes) = (Vec::new(), 0);
    while events.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
        match reader.next(upto) {
            Ok(Some(event)) => {
                bytes += prost::Message::encoded_len(&event);
                events.push(Ok(event));
            }
            Ok(None) => break,
            Err(error) => {
                events.push(Err(error));
                break;
            }
        }
    }
    (reader, events)
}
