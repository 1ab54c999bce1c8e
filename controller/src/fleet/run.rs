//! One run, from a free slot to its release.

use std::sync::Arc;

use kit::task::CancellationToken;
use proto::v1;

use super::{
    Fleet, FleetError, Link, RunEnd, RunSink, follow,
    needs::Needs,
    start::{Started, start},
    way::Way,
};

pub(super) async fn to_its_end(
    fleet: &Fleet,
    request: &v1::StartRunRequest,
    sink: &mut dyn RunSink,
    cancel: &CancellationToken,
) -> Result<RunEnd, FleetError> {
    let needs = match Needs::of(request) {
        Ok((needs, _)) => needs,
        Err(error) => {
            return Ok(RunEnd::Rejected { field: "spec".to_owned(), reason: format!("no RunSpec: {error}") });
        }
    };
    if fleet.links.is_empty() {
        return Err(FleetError::NoWorker);
    }
    loop {
        let link = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(FleetError::Cancelled),
            link = free(&fleet.links) => link,
        };
        let longest = needs.longest(link.known().as_ref().map(|view| &view.info));
        let mut way = Way::new(&link, request, cancel, longest);
        match start(&mut way, &needs, &fleet.pantry).await {
            Started::Here { worker_id, boot_id } => {
                sink.placed(&worker_id, &boot_id).await?;
                return follow::to_its_end(&mut way, sink).await;
            }
            Started::Ended(end) => return Ok(end),
            Started::NotHere(why) => {
                tracing::debug!(
                    run = request.run_id,
                    worker = link.name(),
                    ?why,
                    "a worker did not take a run"
                );
                tokio::time::sleep(link.core.pace.slot_taken).await;
            }
        }
    }
}

async fn free(links: &[Arc<Link>]) -> Arc<Link> {
    loop {
        if let Some(link) = links.iter().find(|link| link.open_line().is_some()) {
            return link.clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
