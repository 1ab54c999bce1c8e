//! Runs that an earlier owner of the campaign planned and did not see the end of in its record. The worker went on with
//! them: what is over is read, what runs is followed, what no worker knows is placed with the very bytes and the very id
//! that were journalled, so that nothing is run twice.

use futures_util::{StreamExt as _, stream};
use kit::task::CancellationToken;
use proto::v1;

use crate::{
    fleet::{FleetError, RunEnd},
    journal::{CampaignId, RunId, RunPurpose, RunRow, RunState},
};

use super::{
    super::record::{Purpose, RunRecord},
    Executor, ExecutorError, sink,
};

/// So many are ended at a time: each may hold a connection's stream.
const AT_ONCE: usize = 16;

/// What is known of a run before its end.
pub(super) fn record(row: &RunRow, revision: u32) -> RunRecord {
    RunRecord {
        id: row.id.to_string(),
        variant: row.variant.clone(),
        seed: row.seed,
        purpose: match row.purpose {
            RunPurpose::Smoke => Purpose::Smoke,
            RunPurpose::Full | RunPurpose::Exec => Purpose::Full,
        },
        revision,
        outcome: v1::Outcome::default(),
        usage: None,
        limits: v1::Limits::default(),
        series: std::collections::BTreeMap::new(),
        last_output: String::new(),
        place: String::new(),
        packages: Vec::new(),
    }
}

/// Whether a worker may still have something of it that we want or that it keeps for us.
fn is_held(row: &RunRow) -> bool {
    row.state != RunState::Finished || (row.worker_id.is_some() && !row.released && !row.is_given_up())
}

impl Executor {
    /// One run to its end, and, where the workers themselves failed, how.
    pub(super) async fn take_up(
        &self,
        row: &RunRow,
        revision: u32,
        stop: &CancellationToken,
    ) -> Result<(RunRecord, Option<String>), ExecutorError> {
        let mut failed = None;
        if is_held(row) {
            let end = self.follow(row, stop).await?;
            let forgotten = matches!(end, Ok(RunEnd::Lost { .. }));
            failed = self.settle(row.id, end).await?;
            if forgotten && row.state == RunState::Finished {
                // Released, and the kill came before that was written down.
                self.journal.mark_released(row.id).await?;
            }
        }
        let mut run = record(row, revision);
        self.read(row.campaign, &mut run).await?;
        Ok((run, failed))
    }

    async fn follow(
        &self,
        row: &RunRow,
        stop: &CancellationToken,
    ) -> Result<Result<RunEnd, FleetError>, ExecutorError> {
        let mut sink =
            sink::JournalSink::open(&self.journal, row.campaign, row.id, &row.variant, &self.watchers)
                .await?;
        let start = v1::StartRunRequest {
            run_id: row.id.to_string(),
            controller_id: self.journal.controller_id().to_string(),
            spec: self.journal.spec(row.id).await?.into(),
        };
        // It is asked for before it is placed: the kill may have come between the worker's answer and our noting it.
        match self.lab.end(start.clone(), row.worker_id.as_deref(), &mut sink, stop).await {
            // (A worker that is away may have it: then it is lost, and another one stands in for it.)
            Ok(RunEnd::Lost { cause: v1::LostCause::Unspecified, .. })
                if row.worker_id.is_none() && row.state != RunState::Finished =>
            {
                Ok(self.lab.run(start, &mut sink, stop).await)
            }
            end => Ok(end),
        }
    }

    /// Ends runs that nobody goes on with; each with its experiment.
    ///
    /// # Errors
    /// Where something could not be stored.
    pub async fn end_left(
        &self,
        campaign: CampaignId,
        left: Vec<RunRow>,
        revision: u32,
    ) -> Result<Vec<(Option<u32>, RunRecord)>, ExecutorError> {
        let stop = CancellationToken::new();
        stop.cancel();
        let stop = &stop;
        let ending = left.into_iter().map(|row| async move {
            debug_assert_eq!(row.campaign, campaign);
            let (run, _) = self.take_up(&row, revision, stop).await?;
            Ok((row.experiment, run))
        });
        let ended: Vec<Result<_, ExecutorError>> = stream::iter(ending).buffered(AT_ONCE).collect().await;
        ended.into_iter().collect()
    }

    /// What came of asking a worker, in the journal; where the workers themselves failed, how.
    pub(super) async fn settle(
        &self,
        id: RunId,
        end: Result<RunEnd, FleetError>,
    ) -> Result<Option<String>, ExecutorError> {
        use crate::journal::EndedHere;
        match end {
            Ok(RunEnd::Finished(_)) => {}
            Ok(RunEnd::Rejected { field, reason }) => self.journal.reject_run(id, &field, &reason).await?,
            Ok(RunEnd::Lost { cause, detail }) => {
                self.journal.end_run(id, EndedHere::Lost { cause, message: detail }).await?;
            }
            Err(FleetError::Cancelled) => {
                let message = "stopped before it was placed".to_owned();
                self.journal.end_run(id, EndedHere::Cancelled { message }).await?;
            }
            Err(FleetError::Sink(error)) => return Err(ExecutorError::Sink(error.to_string())),
            Err(FleetError::File { path, source }) => {
                return Err(ExecutorError::Sink(format!("cannot write {path}: {source}")));
            }
            Err(error) => {
                let message = error.to_string();
                let how = EndedHere::Lost { cause: v1::LostCause::Unreachable, message: message.clone() };
                // Where the worker had told the run's end before it went away, that end stands.
                self.journal.end_run(id, how).await?;
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}
