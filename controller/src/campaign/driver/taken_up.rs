//! Going on after a kill: what was kept comes from the snapshot, the ends of runs and the programs from the journal, image
//! and blobs are put on the workers once more, and what other processes wanted in between is heard.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kit::{digest::Digest, task::CancellationToken};

use crate::{
    fleet::ImageChoice,
    journal::{CampaignRow, CommandRow},
};

use super::{
    super::{
        error::CampaignError,
        images,
        kept::Kept,
        machine::{Action, State},
        steering::Command,
    },
    Deps, Driver,
};

impl Driver {
    /// The campaign as its last owner left it.
    ///
    /// # Errors
    /// Where what was kept is of another version or damaged, or nothing was kept of steps that were taken.
    pub(in crate::campaign) async fn take_up(
        deps: Deps,
        row: &CampaignRow,
        cancel: CancellationToken,
    ) -> Result<Self, CampaignError> {
        let journal = deps.journal.clone();
        let kept = match journal.snapshot(row.id).await? {
            Some(stored) => Kept::of(&stored.snapshot)?,
            None if journal.steps(row.id).await?.is_empty() => {
                let settings = serde_json::from_value(row.settings.clone())
                    .map_err(|source| crate::journal::JournalError::Json { what: "the settings", source })?;
                let started = jiff::Timestamp::from_nanosecond(i128::from(row.created_ns));
                let started = started.map(|at| at.to_string()).unwrap_or_default();
                Kept::new(row.id.to_string(), settings, started)
            }
            None => return Err(CampaignError::NothingKept { id: row.id }),
        };
        let mut driver = Self::new(deps, row.id, kept, cancel);
        driver.active = row.spent.active;
        driver.bound_by(&row.limits);
        driver.read_back().await?;
        driver.late = driver.unheard(row).await?;
        Ok(driver)
    }

    /// Programs and the ends of runs; and the runs that no step knows of yet.
    async fn read_back(&mut self) -> Result<(), CampaignError> {
        let journal = self.deps.journal.clone();
        let mut sources: BTreeMap<(u32, u32), String> = BTreeMap::new();
        for revision in journal.revisions(self.id).await? {
            sources.insert((revision.experiment, revision.number), revision.source);
        }
        let executor = self.executor();
        let mut known = BTreeSet::new();
        for (number, experiment) in (1u32..).zip(&mut self.kept.record.experiments) {
            for revision in &mut experiment.revisions {
                if let Some(source) = sources.remove(&(number, revision.number)) {
                    revision.source = source;
                }
            }
            for run in &mut experiment.runs {
                known.insert(run.id.clone());
                executor.read(self.id, run).await?;
            }
        }
        self.left = journal.runs(self.id).await?;
        self.keep_kind();
        self.left.retain(|run| !known.contains(&run.id.to_string()));
        Ok(())
    }

    /// An experiment that is open goes on with the kind of device that its runs had: variants on different ones cannot be
    /// compared. `left` is all of the campaign's runs here.
    fn keep_kind(&self) {
        let Some(open) = self.kept.record.open() else { return };
        let number = self.experiment_number();
        let gpus = u32::from(!self.kept.workers.gpus.is_empty());
        for run in self.left.iter().filter(|run| run.experiment == Some(number)) {
            if let Some(worker) = &run.worker_id {
                self.deps.fleet.keep_kind(&self.kept.record.id, &open.id, worker, gpus);
            }
        }
    }

    /// What other processes wanted, and the last owner took and did not live to obey. A pause is not among it: whoever
    /// takes a campaign up wants it to go on. That limits were changed is heard like a command, because the action that is
    /// done again was begun with the old ones.
    async fn unheard(&self, row: &CampaignRow) -> Result<Vec<CommandRow>, CampaignError> {
        let mut late = self.deps.journal.taken_commands(self.id, self.kept.obeyed).await?;
        late.retain(|row| !matches!(Command::of(row), Some(Command::Pause | Command::Resume)));
        if row.limits.max_iterations.is_some_and(|n| n != self.kept.settings.max_iterations) {
            let body = serde_json::json!({});
            let number = self.kept.obeyed;
            late.push(CommandRow { number, kind: Command::Budget.kind().to_owned(), body, at_ns: 0 });
        }
        Ok(late)
    }

    /// The image and the blobs on every worker, where they still are for all but a worker that is new or lost its disk.
    pub(super) async fn restore_workers(&mut self) -> Result<(), CampaignError> {
        let over = matches!(
            self.kept.machine.state,
            State::New
                | State::Preparing
                | State::Closing { .. }
                | State::Reporting { .. }
                | State::Ended { .. }
        );
        if over || matches!(self.kept.pending, Some(Action::Prepare)) {
            return Ok(());
        }
        let name = self.kept.settings.image.clone();
        let backend = self.kept.settings.backend.clone().unwrap_or_default();
        let choice = ImageChoice { name: &name, backend: &backend };
        let (fleet, watchers) = (std::sync::Arc::clone(&self.deps.fleet), self.deps.progress.clone());
        let lacks = |what: &str, problem: String| CampaignError::Workers(format!("{what}: {problem}"));
        let prepared = images::prepare(&*fleet, choice, &watchers, &self.cancel).await;
        match prepared {
            Ok(_) => {}
            // Whoever stops at once gets the report so far.
            Err(_) if self.cancel.is_cancelled() => return Ok(()),
            Err(error) => return Err(lacks(&format!("image {name}"), error.to_string())),
        }
        let source = self.kept.record.open().and_then(|open| open.revision()).map(|r| r.source.clone());
        if let (Some(blob), Some(source)) = (&self.kept.program, source)
            && blob.digest == Digest::of(source.as_bytes())
        {
            let sending = fleet.put_blob(Bytes::from(source));
            let Some(sent) = self.cancel.run_until_cancelled(sending).await else { return Ok(()) };
            sent.map_err(|error| lacks("the program", error.to_string()))?;
        }
        for (name, blob) in &self.kept.data {
            let what = format!("data set {name}");
            let ours = self.deps.data_sets.iter().find(|set| set.name == *name);
            let Some(ours) = ours.filter(|set| Digest::of(&set.bytes) == blob.digest) else {
                let problem = "this version ships another one than the campaign began with".to_owned();
                return Err(lacks(&what, problem));
            };
            let sending = fleet.put_blob(ours.bytes.clone());
            let Some(sent) = self.cancel.run_until_cancelled(sending).await else { return Ok(()) };
            sent.map_err(|error| lacks(&what, error.to_string()))?;
        }
        Ok(())
    }

    /// Ends what an earlier owner began and nobody goes on with: cancelled on the worker, followed to its end, and told in
    /// the report.
    pub(super) async fn end_left(&mut self) -> Result<(), CampaignError> {
        let left = std::mem::take(&mut self.left);
        if left.is_empty() {
            return Ok(());
        }
        let (number, revision) = (
            self.experiment_number(),
            self.kept.record.open().and_then(|open| open.revision()).map_or(0, |r| r.number),
        );
        let ended = self.executor().end_left(self.id, left, revision).await?;
        let ended: Vec<_> =
            ended.into_iter().filter(|(e, _)| *e == Some(number)).map(|(_, run)| run).collect();
        if let Some(open) = self.kept.record.open_mut() {
            open.runs.extend(ended);
        }
        Ok(())
    }
}
