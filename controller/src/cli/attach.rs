//! `autoresearch attach ID`: watches a campaign that another process runs, from the journal, until its end, and then prints
//! like `run`. Ctrl-C leaves it running.

use std::{collections::BTreeSet, process::ExitCode, time::Duration};

use super::{
    Global,
    error::{CliError, chain},
    out::Printer,
    progress, resume, run, session,
};
use crate::{
    campaign::{self, Progress, Watchers, machine::State, outcome_word_of},
    journal::{CampaignId, CampaignState, Journal, RunRow, RunState, StepRow},
};

/// Watch a campaign that another process runs, and print its end like `run`. Ctrl-C leaves it running.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A campaign's id, or the beginning of one.
    id: String,
}

/// The journal is looked at so often.
const LOOK: Duration = Duration::from_millis(500);
/// An owner that was let go of its lock and has not marked the campaign yet is waited for so often.
const GONE: u32 = 6;

pub(super) async fn run(args: Args, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let journal = session::read_or_fail(global).await?;
    let id = journal.find_campaign(&args.id).await.map_err(session::not_found)?;
    watch(&journal, id, printer).await
}

/// Until the end, or Ctrl-C.
pub(super) async fn watch(journal: &Journal, id: CampaignId, printer: Printer) -> Result<ExitCode, CliError> {
    let (watchers, events) = Watchers::channel();
    let drawing = kit::task::spawn("progress", progress::draw(events, printer));
    let mut seen = Seen::default();
    let followed = tokio::select! {
        followed = follow(journal, id, &mut seen, &watchers) => Some(followed),
        _ = tokio::signal::ctrl_c() => None,
    };
    drop(watchers);
    drawing.await.ok();
    match followed {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(error),
        None => {
            printer.say(&format!(
                "detached: campaign {id} goes on (autoresearch attach {id}, autoresearch cancel {id})"
            ));
            return Err(CliError::Interrupted);
        }
    }
    match campaign::end_of(journal, id).await.map_err(|e| CliError::Failed(chain(&e)))? {
        Some(end) => run::finish(&end, printer),
        None => ended_open(journal, id, printer).await,
    }
}

/// It is marked as interrupted: by Ctrl-C or by what failed, and it can be gone on with.
async fn ended_open(journal: &Journal, id: CampaignId, printer: Printer) -> Result<ExitCode, CliError> {
    let row = journal.campaign(id).await.map_err(session::journal_failed)?;
    let reason = row.stop_reason.clone().unwrap_or_else(|| "its process is gone".to_owned());
    if row.state == CampaignState::Interrupted {
        let report = row.report.as_ref().map(|report| report.html.display().to_string()).unwrap_or_default();
        let answer = row.answer.clone().unwrap_or_default();
        let json = serde_json::json!({
            "id": id.to_string(), "state": row.state, "answer": answer, "stopped_by": reason, "report": report,
        });
        printer.say(&format!("interrupted ({reason}): go on with `autoresearch resume {id}`"));
        printer.result(&json, &format!("{answer}\n{report}"))?;
        return Ok(CliError::Interrupted.exit_code());
    }
    Err(CliError::Failed(format!("campaign {id}: {reason}; go on with `autoresearch resume {id}`")))
}

/// What was told already.
#[derive(Default)]
struct Seen {
    steps: u64,
    ended: BTreeSet<String>,
    begun: bool,
}

async fn follow(
    journal: &Journal,
    id: CampaignId,
    seen: &mut Seen,
    watchers: &Watchers,
) -> Result<(), CliError> {
    let mut ownerless = 0;
    loop {
        let row = journal.campaign(id).await.map_err(session::journal_failed)?;
        if !seen.begun {
            watchers.tell(Progress::Started { id: id.to_string() });
            seen.begun = true;
        }
        let steps = journal.steps_after(id, seen.steps).await.map_err(session::journal_failed)?;
        for step in steps {
            seen.steps = step.sequence;
            seen.step(&step, row.limits.max_iterations.unwrap_or_default(), watchers);
        }
        let runs = journal.runs(id).await.map_err(session::journal_failed)?;
        seen.runs(&runs, watchers);
        if !matches!(row.state, CampaignState::Running | CampaignState::Paused) {
            return Ok(());
        }
        // Between two looks an owner may have gone, or one that takes it up may be on its way.
        ownerless = if resume::owner(journal, id)?.is_none() { ownerless + 1 } else { 0 };
        if ownerless >= GONE {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Seen {
    fn step(&mut self, step: &StepRow, iterations: u32, watchers: &Watchers) {
        let iteration =
            step.body["iteration"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
        match serde_json::from_value::<State>(step.body["state"].clone()) {
            Ok(state) if step.kind == "step" => watchers.tell(Progress::Step {
                iteration,
                iterations,
                step: state.words(),
                detail: String::new(),
            }),
            _ => {
                if let Some(experiment) =
                    step.body["experiment"].as_str().filter(|_| step.kind == "registered")
                {
                    watchers.tell(Progress::Said(format!("Experiment {experiment} is registered")));
                }
            }
        }
    }

    fn runs(&mut self, runs: &[RunRow], watchers: &Watchers) {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let over = |run: &&RunRow| run.state == RunState::Finished;
        for run in runs.iter().filter(over) {
            if self.ended.insert(run.id.to_string()) {
                watchers.tell(Progress::RunEnded {
                    run: run.id.to_string(),
                    variant: run.variant.clone(),
                    seed: run.seed,
                    outcome: outcome_word_of(run.outcome.as_deref().unwrap_or_default()),
                    message: run.message.clone().unwrap_or_default(),
                });
            }
        }
        watchers.tell(Progress::Runs {
            done: count(self.ended.len()),
            total: count(runs.len()),
            running: count(runs.len().saturating_sub(self.ended.len())),
        });
    }
}
