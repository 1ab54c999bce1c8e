//! One run, from a free slot to its release.

use std::{sync::Arc, time::Duration};

use kit::task::CancellationToken;
use proto::v1;
use tonic::Code;

use super::{
    Fleet, FleetError, Link, RunEnd, RunSink,
    board::{Seat, Ticket, Told},
    follow,
    line::{Fault, Line},
    needs::Needs,
    start::{Started, Why, start},
    way::{GivenUp, Way},
};

/// A worker that went away just now is left alone until that is known everywhere.
const GONE: Duration = Duration::from_millis(100);
/// Workers that are away are looked for so often.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// What a run asks of the fleet.
pub(super) struct Errand<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) request: &'a v1::StartRunRequest,
    pub(super) cancel: &'a CancellationToken,
    pub(super) needs: Needs,
    pub(super) variant: String,
}

impl<'a> Errand<'a> {
    /// # Errors
    /// The run's end, where the bytes are no spec.
    pub(super) fn new(
        fleet: &'a Fleet,
        request: &'a v1::StartRunRequest,
        cancel: &'a CancellationToken,
    ) -> Result<Self, RunEnd> {
        let (needs, variant) = Needs::of(request).map_err(|error| RunEnd::Rejected {
            field: "spec".to_owned(),
            reason: format!("it is no RunSpec: {error}"),
        })?;
        Ok(Self { fleet, request, cancel, needs, variant })
    }

    fn way(&self, link: &'a Link) -> Way<'a> {
        let longest = self.needs.longest(link.known().as_ref().map(|view| &view.info));
        Way::new(link, self.request, self.cancel, longest)
    }

    /// A place, a start, and the way to the end.
    pub(super) async fn to_its_end(&self, sink: &mut dyn RunSink) -> Result<RunEnd, FleetError> {
        let mut ticket = None;
        loop {
            let seat = match self.seat(&mut ticket).await? {
                Told::Seat(seat) => seat,
                Told::Refused { field, reason } => {
                    return Ok(RunEnd::Rejected { field: field.to_owned(), reason });
                }
                Told::Hopeless(plan) => {
                    let detail = format!("no worker that could take the run was there for long:\n{plan}");
                    return Err(FleetError::Unreachable { worker: "for this run".to_owned(), detail });
                }
            };
            let Some(link) = self.fleet.links().get(seat.worker) else { return Err(FleetError::NoWorker) };
            let mut way = self.way(link);
            match start(&mut way, &self.needs, self.fleet.pantry()).await {
                Started::Here { worker_id, boot_id } => {
                    sink.placed(&worker_id, &boot_id).await?;
                    return self.follow(&mut way, Some(seat), sink).await;
                }
                Started::Ended(end) => return Ok(end),
                Started::NotHere(why) => self.not_here(link, &seat, why),
            }
        }
    }

    async fn seat(&self, ticket: &mut Option<Ticket>) -> Result<Told, FleetError> {
        if self.cancel.is_cancelled() {
            return Err(FleetError::Cancelled);
        }
        let (taken, told) = self.fleet.board().queue(&self.needs, &self.variant, *ticket);
        *ticket = Some(taken);
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(FleetError::Cancelled),
            // The board is the fleet's, and does not go before it.
            told = told => told.map_err(|_| FleetError::NoWorker),
        }
    }

    fn not_here(&self, link: &Arc<Link>, seat: &Seat, why: Why) {
        tracing::debug!(run = self.request.run_id, worker = link.name(), ?why, "a worker did not take a run");
        let (board, worker) = (self.fleet.board(), seat.worker);
        match why {
            Why::Full(asked) => {
                let pause = asked.unwrap_or_default().max(link.core.pace.slot_taken);
                board.refused(worker, pause.mul_f64(1.0 + rand::random::<f64>() / 2.0));
            }
            Why::Draining => board.drains(worker),
            Why::Away => board.refused(worker, GONE),
            Why::Failed(reason) => {
                board.failed(worker, seat.since, &reason);
                board.refused(worker, link.core.pace.slot_taken);
            }
        }
    }

    /// The second half: the run is on the worker's disk.
    async fn follow(
        &self,
        way: &mut Way<'_>,
        seat: Option<Seat>,
        sink: &mut dyn RunSink,
    ) -> Result<RunEnd, FleetError> {
        let place = seat.as_ref().map(|seat| (seat.worker, seat.since));
        let end = match follow::events(way, sink).await? {
            RunEnd::Finished(finished) => {
                // The slot is free there as well: the rest needs none.
                drop(seat);
                follow::harvest(way, *finished, sink).await?
            }
            other => other,
        };
        if let Some((worker, begun)) = place {
            self.judge(worker, begun, &end);
        }
        Ok(end)
    }

    /// What the end says of the worker.
    fn judge(&self, worker: usize, begun: Duration, end: &RunEnd) {
        let board = self.fleet.board();
        match end {
            RunEnd::Finished(finished) => {
                let outcome = finished.outcome.clone().unwrap_or_default();
                if outcome.kind() == v1::OutcomeKind::Lost {
                    let cause = outcome.lost_cause().as_str_name().trim_start_matches("LOST_CAUSE_");
                    let reason = format!("lost a run ({}): {}", cause.to_lowercase(), outcome.message);
                    board.failed(worker, begun, &reason);
                } else {
                    board.succeeded(worker);
                }
            }
            // Being out of reach is no fault: the link says so by itself.
            RunEnd::Lost { cause: v1::LostCause::Unreachable, .. } | RunEnd::Rejected { .. } => {}
            RunEnd::Lost { detail, .. } => board.failed(worker, begun, &format!("lost a run: {detail}")),
        }
    }

    /// A run that an earlier process gave to this worker, or to one that is not known.
    pub(super) async fn resume(
        &self,
        worker_id: Option<&str>,
        sink: &mut dyn RunSink,
    ) -> Result<RunEnd, FleetError> {
        let (cause, detail) = match self.whereabouts(worker_id).await {
            Whereabouts::On(link, worker_id) => {
                let mut way = self.way(link);
                // The kill may have come before that was written down.
                let boot_id = link.known().map(|view| view.boot_id.clone()).unwrap_or_default();
                sink.placed(&worker_id, &boot_id).await?;
                way.worker_id = Some(worker_id);
                // Its slot is known to its worker; here it takes none.
                return self.follow(&mut way, None, sink).await;
            }
            Whereabouts::Nowhere => (v1::LostCause::Unspecified, "no worker knows the run".to_owned()),
            Whereabouts::Away(detail) => (v1::LostCause::Unreachable, detail),
        };
        Ok(RunEnd::Lost { cause, detail })
    }

    /// Asks all that may have it; waits for those that are away as long as the run deserves.
    async fn whereabouts(&self, worker_id: Option<&str>) -> Whereabouts<'a> {
        let links = self.fleet.links();
        let mut not_there = vec![false; links.len()];
        let mut ways: Vec<Way<'a>> = links.iter().map(|link| self.way(link)).collect();
        loop {
            for (link, not_there) in links.iter().zip(&mut not_there) {
                // One that was revoked or removed meanwhile is not waited for.
                *not_there |= link.cut().is_some();
                let Some(line) = link.open_line() else { continue };
                let found = line.view.worker_id.clone();
                *not_there = worker_id.is_some_and(|wanted| *wanted != found)
                    || match has(&line, self.request).await {
                        Ok(true) => return Whereabouts::On(link, found),
                        Ok(false) => true,
                        Err(fault) => {
                            tracing::warn!(
                                worker = link.name(),
                                ?fault,
                                "a worker did not say whether it has a run"
                            );
                            false
                        }
                    };
            }
            let mut away = ways.iter_mut().zip(&not_there).filter(|(_, not_there)| !**not_there);
            let Some((first, _)) = away.next() else { return Whereabouts::Nowhere };
            if let Err(GivenUp(detail)) = first.look() {
                for (way, _) in away {
                    way.give_up(detail.clone());
                }
                return Whereabouts::Away(detail);
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

/// Where a run of an earlier process is.
enum Whereabouts<'a> {
    On(&'a Link, String),
    Nowhere,
    Away(String),
}

/// Whether the worker knows it.
async fn has(line: &Line, request: &v1::StartRunRequest) -> Result<bool, Fault> {
    let get =
        v1::GetRunRequest { run_id: request.run_id.clone(), controller_id: request.controller_id.clone() };
    let mut client = line.client.clone();
    match line.ask("GetRun", client.get_run(get)).await {
        Ok(_) => Ok(true),
        Err(fault) if matches!(fault.code(), Code::NotFound | Code::FailedPrecondition) => Ok(false),
        Err(fault) => Err(fault),
    }
}
