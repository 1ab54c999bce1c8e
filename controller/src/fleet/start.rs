//! `StartRun` on one worker: the same bytes until it has the run, or says that it does not take it. What it lacks (blobs,
//! the image) it is given on the way: a worker that lost its disk, or was not there before, is no fault of the run's.

use std::time::Duration;

use proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::telemetry::{METRICS, traced};

use super::{
    ImageChoice, RunEnd, blobs,
    blobs::Pantry,
    images,
    line::{Fault, Line},
    needs::Needs,
    way::{GivenUp, Way},
};

/// What a worker lacks is brought so often; then it is the worker's fault.
const DELIVERIES: u32 = 4;

/// What became of it.
#[derive(Debug)]
pub(super) enum Started {
    /// The worker has the run on its disk.
    Here { worker_id: String, boot_id: String },
    /// No run was made there. Another worker may take it.
    NotHere(Why),
    /// It ends here.
    Ended(RunEnd),
}

/// Why a worker did not take a run that it could take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// All slots are taken, or the disk is full for now; ask again after so long.
    Full(Option<Duration>),
    /// It takes nothing new.
    Draining,
    /// It is not connected.
    Away,
    /// By its own fault.
    Failed(String),
}

/// What a status means for the run.
enum Answer {
    Lacks { blobs: Vec<String>, image: bool },
    Not(Why),
    Rejected { field: String, reason: String },
}

fn answer(status: &Status) -> Answer {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let missing = status.get_details_precondition_failure().map(|p| p.violations).unwrap_or_default();
    let of = |kind: &str| -> Vec<String> {
        missing.iter().filter(|v| v.r#type == kind).map(|v| v.subject.clone()).collect()
    };
    let (blobs, image) = (of("BLOB"), !of("IMAGE").is_empty());
    match status.code() {
        Code::ResourceExhausted => Answer::Not(Why::Full(retry)),
        Code::Unavailable if reason == "DRAINING" => Answer::Not(Why::Draining),
        // It is about to go, or its engine starts.
        Code::Unavailable if retry.is_some() => Answer::Not(Why::Full(retry)),
        Code::FailedPrecondition if image || !blobs.is_empty() => Answer::Lacks { blobs, image },
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::AlreadyExists => {
            let fields = status.get_details_bad_request().map(|b| b.field_violations).unwrap_or_default();
            let field = fields.first().map(|f| f.field.clone());
            let field = field.or_else(|| missing.first().map(|m| m.subject.clone()));
            let field = field.unwrap_or_else(|| "request".to_owned());
            Answer::Rejected { field, reason: status.message().to_owned() }
        }
        _ => Answer::Not(Why::Failed(format!("StartRun: {}", status.message()))),
    }
}

/// Until the worker has said yes or no.
pub(super) async fn start(way: &mut Way<'_>, needs: &Needs, pantry: &Pantry) -> Started {
    // Whether a question went out that was never answered: the run may be there.
    let mut unanswered = false;
    let mut deliveries = 0;
    loop {
        let line = match next_line(way, unanswered).await {
            Ok(Some(line)) => line,
            Ok(None) => return Started::NotHere(Why::Away),
            Err(GivenUp(detail)) => {
                return Started::Ended(RunEnd::Lost { cause: v1::LostCause::Unreachable, detail });
            }
        };
        // If the answer is lost, this is the worker that may have it.
        way.worker_id = Some(line.view.worker_id.clone());
        let mut client = line.client.clone();
        let status = match line.ask("StartRun", client.start_run(traced(way.start.clone()))).await {
            Ok(_) => {
                kit::halt::at("controller.starting");
                METRICS.runs_placed.inc();
                tracing::info!(worker_id = line.view.worker_id, "the worker took the run");
                way.heard();
                let view = &line.view;
                return Started::Here { worker_id: view.worker_id.clone(), boot_id: view.boot_id.clone() };
            }
            Err(fault @ Fault::Broken { .. }) => {
                unanswered = true;
                if let Err(GivenUp(detail)) = way.pause(&fault).await {
                    return Started::Ended(RunEnd::Lost { cause: v1::LostCause::Unreachable, detail });
                }
                continue;
            }
            Err(Fault::Refused { status, .. }) => status,
        };
        // It answers for this id: whatever was asked before, the run is not there.
        unanswered = false;
        way.heard();
        match answer(&status) {
            Answer::Rejected { field, reason } => return Started::Ended(RunEnd::Rejected { field, reason }),
            Answer::Not(why) => return Started::NotHere(why),
            Answer::Lacks { .. } if deliveries >= DELIVERIES => {
                let reason = format!("it was given what it lacks {DELIVERIES} times: {}", status.message());
                return Started::NotHere(Why::Failed(reason));
            }
            Answer::Lacks { blobs, image } => {
                deliveries += 1;
                match deliver(way, &line, needs, pantry, &blobs, image).await {
                    Ok(None) => {}
                    Ok(Some(why)) => return Started::NotHere(why),
                    Err(field) => {
                        let reason = status.message().to_owned();
                        return Started::Ended(RunEnd::Rejected { field, reason });
                    }
                }
            }
        }
    }
}

/// The open connection; the next one where the run may be there.
async fn next_line(way: &mut Way<'_>, unanswered: bool) -> Result<Option<Line>, GivenUp> {
    if unanswered { way.line().await.map(Some) } else { Ok(way.link.open_line()) }
}

/// Brings what is lacking. `Err` names what nobody has.
async fn deliver(
    way: &Way<'_>,
    line: &Line,
    needs: &Needs,
    pantry: &Pantry,
    missing: &[String],
    image: bool,
) -> Result<Option<Why>, String> {
    for digest in missing {
        let parsed = digest.parse().map_err(|_| digest.clone())?;
        let bytes = pantry.get(&parsed).ok_or_else(|| digest.clone())?;
        tracing::info!(worker = line.name(), blob = digest, "sent again to a worker that does not have it");
        if let Err(error) = blobs::put(line, &parsed, &bytes).await {
            return Ok(Some(failed(&error)));
        }
    }
    if image {
        let choice = ImageChoice { name: &needs.image, backend: &needs.backend };
        tracing::info!(worker = line.name(), image = choice.name, "an image is prepared for a run");
        let prepared = tokio::select! {
            prepared = images::prepare(line, choice, None) => prepared,
            // The work goes on there; the run is not started.
            () = way.cancel.cancelled() => return Ok(Some(Why::Full(None))),
        };
        if let Err(error) = prepared {
            return Ok(Some(failed(&error)));
        }
    }
    Ok(None)
}

fn failed(error: &super::FleetError) -> Why {
    match error {
        super::FleetError::Unreachable { .. } => Why::Away,
        other => Why::Failed(other.to_string()),
    }
}
