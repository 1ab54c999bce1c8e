//! Smoke runs, the runs up to a look, and a limit that was too low.

use std::collections::BTreeMap;

use kit::task::CancellationToken;
use proto::v1::OutcomeKind;

use super::{
    super::{
        error::CampaignError,
        executor::{
            Batch, Job, Ran,
            spec::{Common, fixed_seed, shuffled, smoke_seed, spec},
        },
        machine::{Event, StoppedBy},
        record::{Purpose, RunRecord},
        repair::{Wanted, ends_the_batch, wanted},
    },
    Driver,
    coding::nothing_open,
};

/// A limit that was too low is raised by so much, for every variant.
const RAISE: u32 = 3;

impl Driver {
    fn jobs(
        &self,
        what: &[(Vec<super::super::plan::Variant>, u64)],
        purpose: Purpose,
    ) -> Option<(Batch, Vec<Job>)> {
        let open = self.kept.record.open()?;
        let program = self.kept.program.as_ref()?;
        let revision = open.revision()?;
        let data = self.kept.data.iter().find(|(name, _)| *name == open.plan.data_set).map(|(_, blob)| blob);
        let common = Common {
            plan: &open.plan,
            image: &self.kept.settings.image,
            backend: self.kept.settings.backend.as_deref().unwrap_or(""),
            program,
            packages: &revision.packages,
            data,
            gpus: u32::from(!self.kept.workers.gpus.is_empty()),
            time_seconds: self.kept.time_seconds,
            campaign: &self.kept.record.id,
            experiment: &open.id,
            fixed_seed: fixed_seed(&self.kept.record.id),
        };
        let jobs = what
            .iter()
            .flat_map(|(variants, seed)| variants.iter().map(move |variant| (variant, *seed)))
            .map(|(variant, seed)| Job {
                variant: variant.clone(),
                seed,
                spec: spec(&common, variant, seed, purpose),
            })
            .collect();
        let batch = Batch {
            left: Vec::new(),
            campaign: self.id,
            experiment: self.experiment_number(),
            digest: program.digest,
            revision: revision.number,
            purpose,
            image: self.kept.settings.image.clone(),
        };
        Some((batch, jobs))
    }

    /// Runs jobs under the guard and keeps what came of them. `Some` is what ends the campaign.
    async fn run_jobs(
        &mut self,
        mut batch: Batch,
        jobs: Vec<Job>,
    ) -> Result<Option<StoppedBy>, CampaignError> {
        let Some(plan) = self.kept.record.open().map(|open| open.plan.clone()) else { return Ok(None) };
        // What an earlier owner began of this very batch is taken up, not begun again.
        batch.left = std::mem::take(&mut self.left);
        let stop = CancellationToken::new();
        let executor = self.executor();
        let token = stop.clone();
        let work = executor.run(&batch, jobs, &token, |run| ends_the_batch(&plan, run));
        let (ran, stopped) = self.guarded(&stop, work).await?;
        let Ran { runs, out_of_devices, workers_failed } = ran?;
        for outcomes in by_seed(&runs).into_values() {
            self.kept.failures.take(outcomes);
        }
        if let Some(open) = self.kept.record.open_mut() {
            open.runs.extend(runs);
        }
        if let Some(detail) = workers_failed {
            self.kept.record.stop_reason = detail;
            return Ok(Some(stopped.unwrap_or(StoppedBy::Workers)));
        }
        Ok(stopped.or_else(|| out_of_devices.then_some(StoppedBy::DeviceHours)))
    }

    /// Every variant once, tiny.
    pub(super) async fn smoke(&mut self) -> Result<Event, CampaignError> {
        let Some(open) = self.kept.record.open() else { return Ok(nothing_open()) };
        let seed = smoke_seed(&self.kept.record.id, &open.id);
        let what = vec![(open.variants(), seed)];
        let Some((batch, jobs)) = self.jobs(&what, Purpose::Smoke) else { return Ok(nothing_open()) };
        if let Some(by) = self.run_jobs(batch, jobs).await? {
            return Ok(Event::Stop { by });
        }
        let Some(open) = self.kept.record.open() else { return Ok(nothing_open()) };
        Ok(match wanted(open, Purpose::Smoke) {
            Wanted::Nothing => {
                // A run that was lost as often as it is started again says nothing about the program.
                let last = |variant: &str| open.runs.iter().rev().find(|r| r.variant == variant);
                let lost =
                    |kind| matches!(kind, OutcomeKind::Lost | OutcomeKind::Cancelled | OutcomeKind::Rejected);
                let variants = open.variants();
                let gone = variants.iter().filter_map(|v| last(&v.id)).find(|run| lost(run.kind()));
                match gone.map(|run| run.outcome.message.clone()) {
                    Some(message) => {
                        self.kept.record.stop_reason = message;
                        Event::Stop { by: StoppedBy::Workers }
                    }
                    None => Event::SmokePassed,
                }
            }
            Wanted::Repair { failures, variants } => self.broke(failures, variants),
            // A smoke run that is cut short is a fault of the program: `wanted` never says this of one.
            Wanted::HigherLimit { .. } => Event::SmokePassed,
        })
    }

    /// What is missing up to a look: seed by seed, variants shuffled within a seed.
    pub(super) async fn run_look(&mut self, look: u32) -> Result<Event, CampaignError> {
        let Some(open) = self.kept.record.open() else { return Ok(nothing_open()) };
        let planned = open.plan.looks.get(look as usize).copied().unwrap_or(0) as usize;
        let there = open.analysed();
        let settled = |variant: &str, seed: u64| {
            there
                .get(&(variant.to_owned(), seed))
                .is_some_and(|run| !matches!(run.kind(), OutcomeKind::Cancelled | OutcomeKind::Unspecified))
        };
        let variants = open.variants();
        let what: Vec<_> = open
            .seeds
            .iter()
            .take(planned)
            .map(|seed| {
                let missing =
                    shuffled(&variants, *seed).into_iter().filter(|v| !settled(&v.id, *seed)).collect();
                (missing, *seed)
            })
            .collect();
        let Some((batch, jobs)) = self.jobs(&what, Purpose::Full) else { return Ok(nothing_open()) };
        if let Some(by) = self.run_jobs(batch, jobs).await? {
            return Ok(Event::Stop { by });
        }
        let Some(open) = self.kept.record.open() else { return Ok(nothing_open()) };
        Ok(match wanted(open, Purpose::Full) {
            Wanted::Nothing => Event::LookRun,
            Wanted::Repair { failures, variants } => self.broke(failures, variants),
            Wanted::HigherLimit { .. } => {
                let longest =
                    if self.kept.longest_seconds == 0 { u32::MAX } else { self.kept.longest_seconds };
                if self.kept.time_seconds < longest { Event::LimitTooLow } else { Event::LookRun }
            }
        })
    }

    /// A higher limit for every variant; all of them run again, as a revision of its own.
    pub(super) async fn raise(&mut self) -> Result<Event, CampaignError> {
        let longest = if self.kept.longest_seconds == 0 { u32::MAX } else { self.kept.longest_seconds };
        let raised = self.kept.time_seconds.saturating_mul(RAISE).min(longest);
        let before = std::mem::replace(&mut self.kept.time_seconds, raised);
        let number = self.experiment_number();
        let Some(open) = self.kept.record.open_mut() else { return Ok(nothing_open()) };
        let Some(mut revision) = open.revision().cloned() else { return Ok(nothing_open()) };
        revision.number += 1;
        revision.reason =
            format!("the same program: the time limit was raised from {before} s to {raised} s for all");
        let text = format!("{}: {}", open.id, revision.reason);
        open.amendments.push(text.clone());
        open.revisions.push(revision.clone());
        let digest = kit::digest::Digest::of(revision.source.as_bytes());
        let journal = &self.deps.journal;
        journal
            .add_revision(self.id, number, revision.number, digest, &revision.source, &revision.reason)
            .await?;
        let body = serde_json::json!({"from_seconds": before, "to_seconds": raised});
        self.detail("limit_raised", &body).await?;
        self.say(text);
        Ok(Event::LimitRaised)
    }
}

/// Outcomes of the last start of each variant, by seed: one batch that fails together counts once.
fn by_seed(runs: &[RunRecord]) -> BTreeMap<u64, Vec<OutcomeKind>> {
    let mut last: BTreeMap<(u64, &str), OutcomeKind> = BTreeMap::new();
    for run in runs {
        last.insert((run.seed, run.variant.as_str()), run.kind());
    }
    let mut seeds: BTreeMap<u64, Vec<OutcomeKind>> = BTreeMap::new();
    for ((seed, _), kind) in last {
        seeds.entry(seed).or_default().push(kind);
    }
    seeds
}
