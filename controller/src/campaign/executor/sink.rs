//! Where the events of one run go: the journal first, then the eyes of whoever watches.

use std::path::PathBuf;

use async_trait::async_trait;
use proto::v1;

use crate::{
    fleet::{RunSink, SinkError},
    journal::{CampaignId, Journal, RunId, RunLog},
};

use super::super::progress::{Progress, Watchers};

/// One run's way into the journal.
pub struct JournalSink {
    journal: Journal,
    campaign: CampaignId,
    run: RunId,
    variant: String,
    /// Where it is already.
    worker: Option<String>,
    log: RunLog,
    watchers: Watchers,
}

fn failed(error: impl std::fmt::Display) -> SinkError {
    SinkError(error.to_string())
}

impl JournalSink {
    /// Opens the run's log.
    ///
    /// # Errors
    /// Where its files are damaged or it is open already.
    pub async fn open(
        journal: &Journal,
        campaign: CampaignId,
        run: RunId,
        variant: &str,
        watchers: &Watchers,
    ) -> Result<Self, crate::journal::JournalError> {
        // The log first: from here on nobody else changes the run.
        let log = journal.open_run(run).await?;
        Ok(Self {
            worker: journal.run(run).await?.worker_id,
            log,
            journal: journal.clone(),
            campaign,
            run,
            variant: variant.to_owned(),
            watchers: watchers.clone(),
        })
    }
}

#[async_trait]
impl RunSink for JournalSink {
    fn last_sequence(&self) -> u64 {
        // Of a run that is over the worker tells the end once more, because with it comes what it still keeps: artifacts.
        let last = self.log.last_sequence();
        if self.log.finished() { last.saturating_sub(1) } else { last }
    }

    async fn placed(&mut self, worker_id: &str, boot_id: &str) -> Result<(), SinkError> {
        if self.worker.as_deref() == Some(worker_id) {
            return Ok(());
        }
        self.journal.run_sent(self.run, worker_id, boot_id).await.map_err(failed)?;
        self.worker = Some(worker_id.to_owned());
        Ok(())
    }

    async fn apply(&mut self, events: Vec<v1::Event>) -> Result<(), SinkError> {
        // One event a metric and batch is enough for the eye.
        let mut last: Vec<v1::MetricPoint> = Vec::new();
        for event in &events {
            if let Some(v1::event::Kind::Frame(frame)) = &event.kind {
                for point in &frame.points {
                    match last.iter_mut().find(|known| known.name == point.name) {
                        Some(known) => known.clone_from(point),
                        None => last.push(point.clone()),
                    }
                }
            }
        }
        self.log.apply(events).await.map_err(failed)?;
        for point in last {
            self.watchers.tell(Progress::Metric {
                run: self.run.to_string(),
                variant: self.variant.clone(),
                name: point.name,
                step: point.step,
                value: point.value,
            });
        }
        Ok(())
    }

    fn artifact_path(&self, name: &str) -> Result<PathBuf, SinkError> {
        self.journal.artifact_path(self.campaign, self.run, name).map_err(failed)
    }

    async fn complete(&mut self) -> Result<(), SinkError> {
        self.journal.store_artifacts_done(self.run).await.map_err(failed)
    }

    async fn released(&mut self) -> Result<(), SinkError> {
        self.journal.mark_released(self.run).await.map_err(failed)
    }
}
