//! Analyse, close, interpret, decide, report.

use kit::task::CancellationToken;
use serde_json::json;

use crate::journal::{CampaignState, RunId};

use super::{
    super::{
        analyst,
        closed::closed,
        error::CampaignError,
        machine::{Event, StoppedBy},
        numbers,
        record::{FindingRecord, Standing},
        reporter,
        researcher::{DecideContext, Decision, Fault, Finding, InterpretContext},
    },
    Driver, Keeping,
    coding::nothing_open,
};

/// A reading whose numbers match no computed one is sent back so often; then the sentences go.
const READINGS: u32 = 2;

impl Driver {
    /// The contrasts at a look. Nobody but the program sees them while the experiment is open.
    pub(super) async fn analyse(&mut self, look: u32) -> Result<Event, CampaignError> {
        let Some(open) = self.kept.record.open() else { return Ok(nothing_open()) };
        let analysis = analyst::analyse(open, &self.kept.ledger, look)?;
        let body = json!({"experiment": open.id, "analysis": analysis});
        kit::halt::at("controller.analysis");
        self.detail("look", &body).await?;
        let conclusive = analysis.conclusive;
        if let Some(open) = self.kept.record.open_mut() {
            open.looks.push(analysis);
        }
        Ok(Event::Analysed { conclusive })
    }

    /// Findings by rule; or that it led nowhere.
    pub(super) async fn close(&mut self, abandoned: bool) -> Result<Event, CampaignError> {
        let number = self.experiment_number();
        let Some(open) = self.kept.record.open() else { return Ok(Event::Closed) };
        // An exploratory experiment that was cut short still shows what there is; a confirmatory one has no look then.
        if open.looks.is_empty() && !abandoned && open.confirmatory.is_none() && !open.analysed().is_empty() {
            let analysis = analyst::analyse(open, &self.kept.ledger, 0)?;
            if let Some(open) = self.kept.record.open_mut() {
                open.looks.push(analysis);
            }
        }
        let broken = self.kept.broken.first().map(|f| format!("{}: {}", f.outcome, f.message));
        let Some(open) = self.kept.record.open_mut() else { return Ok(Event::Closed) };
        let id = open.id.clone();
        let title = open.plan.title.clone();
        let Some(look) = open.looks.last().cloned() else {
            let why = if abandoned {
                let last = broken.unwrap_or_else(|| "no program ran".to_owned());
                let repairs = self.kept.settings.repairs;
                format!(
                    "its program was not mended in {repairs} repairs; the last failure: {}",
                    kit::text::one_line(&last, 400)
                )
            } else {
                "the campaign ended before its first look".to_owned()
            };
            open.standing = Standing::Abandoned(why.clone());
            let dead_end = format!("{id} ({title}): {why}");
            self.kept.record.dead_ends.push(dead_end.clone());
            self.keep_result(number, &json!({"abandoned": why})).await?;
            self.say(dead_end);
            return Ok(Event::Closed);
        };
        open.standing = Standing::Closed;
        open.notes.extend(look.notes.iter().cloned());
        let mut findings = Vec::new();
        for contrast in &look.contrasts {
            let verdict = contrast.verdict().map_or("exploratory", |v| v.as_str());
            let text = match &contrast.claim {
                Some(claim) => format!("{}: {verdict}. {}", claim.text, contrast.sentence),
                None => contrast.sentence.clone(),
            };
            open.rulings.push(text.clone());
            findings.push((text, verdict, contrast.runs.clone()));
        }
        if let Some(text) = levels(open) {
            let runs = open.analysed().values().map(|run| run.id.clone()).collect();
            open.rulings.push(text.clone());
            findings.push((text, "exploratory", runs));
        }
        let result = json!({"look": look, "rulings": open.rulings, "notes": open.notes, "amendments": open.amendments});
        self.keep_result(number, &result).await?;
        for (text, verdict, runs) in findings {
            let finding = Finding {
                id: format!("f{}", self.kept.record.findings.len() + 1),
                experiment: id.clone(),
                text,
                verdict: verdict.to_owned(),
            };
            let ids: Vec<RunId> = runs.iter().filter_map(|run| run.parse().ok()).collect();
            if self.keeping == Keeping::Everything {
                self.deps
                    .journal
                    .add_finding(self.id, &finding.id, number, &finding.text, &finding.verdict, &ids)
                    .await?;
            }
            self.say(format!("{} {}: {}", finding.id, finding.verdict, finding.text));
            self.kept.record.findings.push(FindingRecord { finding, runs });
        }
        Ok(Event::Closed)
    }

    async fn keep_result(&self, number: u32, result: &serde_json::Value) -> Result<(), CampaignError> {
        if self.keeping == Keeping::Everything {
            self.deps.journal.close_experiment(self.id, number, result).await?;
        }
        Ok(())
    }

    /// Asks what the numbers mean. A number that matches no computed one goes back once; then its sentence goes.
    pub(super) async fn interpret(&mut self) -> Result<Event, CampaignError> {
        let Some(experiment) = self.kept.record.experiments.last().cloned() else {
            return Ok(Event::Interpreted);
        };
        let Some(result) = closed(&experiment) else { return Ok(Event::Interpreted) };
        let known = numbers::computed(&experiment, &result, &self.kept.record.findings);
        let mut context = InterpretContext {
            question: self.kept.settings.question.clone(),
            experiment: result,
            rulings: experiment.rulings.clone(),
            findings: self.kept.record.findings.iter().map(|f| f.finding.clone()).collect(),
            faults: Vec::new(),
        };
        for reading in 1..=READINGS {
            let researcher = std::sync::Arc::clone(&self.deps.researcher);
            let stop = CancellationToken::new();
            let said = match self.ask(&stop, researcher.interpret(&context, &stop)).await? {
                Ok(said) => said,
                Err(event) => return Ok(event),
            };
            let wrong = numbers::unknown(&said, &known);
            if wrong.is_empty() || reading == READINGS {
                let (text, mut removed) = numbers::keep(&said.text, &known);
                let mut threats = Vec::new();
                for threat in &said.threats {
                    let (kept, gone) = numbers::keep(threat, &known);
                    threats.extend((!kept.trim().is_empty()).then_some(kept));
                    removed.extend(gone);
                }
                let body = json!({"experiment": experiment.id, "text": text, "threats": threats, "removed": removed});
                self.detail("interpreted", &body).await?;
                if let Some(last) = self.kept.record.experiments.last_mut() {
                    last.interpretation = text;
                    last.threats = threats;
                    last.removed = removed;
                }
                return Ok(Event::Interpreted);
            }
            let problem = |number: &String| Fault {
                field: "text".to_owned(),
                problem: format!(
                    "{number} matches no computed number: use only numbers that were given, or leave it out"
                ),
            };
            context.faults = wrong.iter().map(problem).collect();
        }
        Ok(Event::Interpreted)
    }

    /// Asks whether to go on. Seeds are not its to ask for: what it gets is another experiment, or the end.
    pub(super) async fn decide(&mut self) -> Result<Event, CampaignError> {
        let context = DecideContext { state: self.context() };
        let researcher = std::sync::Arc::clone(&self.deps.researcher);
        let stop = CancellationToken::new();
        let decision = match self.ask(&stop, researcher.decide(&context, &stop)).await? {
            Ok(decision) => decision,
            Err(event) => return Ok(event),
        };
        let body = json!({"decision": decision});
        self.detail("decided", &body).await?;
        Ok(match decision {
            Decision::Continue { .. } => Event::GoOn,
            Decision::Stop { reason } => {
                self.kept.record.stop_reason = reason;
                Event::Enough
            }
        })
    }

    /// Writes the report, whatever ended the campaign, and marks it.
    pub(super) async fn report(&mut self, stopped: StoppedBy) -> Result<Event, CampaignError> {
        let state = self.state(stopped);
        let report = reporter::build(self, stopped, state).await?;
        self.answer = format!("{}. {}", report.answer.verdict, report.answer.text);
        let folder = self.deps.journal.campaign_folder(self.id);
        let paths = reporter::write(&report, &folder)?;
        self.report_path = Some(paths.html.clone());
        self.deps.journal.set_answer(self.id, &self.answer).await?;
        self.deps.journal.set_report_paths(self.id, paths).await?;
        let mut reason = stopped.words().to_owned();
        if !self.kept.record.stop_reason.is_empty() {
            reason.push_str(": ");
            reason.push_str(&kit::text::one_line(&self.kept.record.stop_reason, 500));
        }
        self.deps.journal.set_campaign_state(self.id, state, Some(reason)).await?;
        Ok(Event::Reported)
    }

    /// How the campaign is marked.
    pub(in crate::campaign) fn state(&self, stopped: StoppedBy) -> CampaignState {
        match stopped {
            StoppedBy::Interrupted => CampaignState::Interrupted,
            StoppedBy::Cancelled => CampaignState::Cancelled,
            _ if self.kept.record.any_succeeded() => CampaignState::Finished,
            _ => CampaignState::Failed,
        }
    }
}

/// What an experiment without contrasts shows: the level with the best mean, which is no claim that it is the best.
fn levels(open: &super::super::record::ExperimentRecord) -> Option<String> {
    if !open.plan.contrasts.is_empty() {
        return None;
    }
    let result = closed(open)?;
    let higher = open.plan.metric.better == super::super::plan::Better::Higher;
    let with_mean = result.variants.iter().filter_map(|v| Some((v, v.mean?)));
    let (best, mean) = with_mean.reduce(|a, b| if higher == (a.1 > b.1) { a } else { b })?;
    let levels = open.plan.variants().into_iter().find(|v| v.id == best.variant)?.levels;
    let levels: Vec<String> = levels.iter().map(|p| format!("{} = {}", p.name, p.value)).collect();
    Some(format!(
        "Best mean {} of {} settings: {} at {} ({} seeds); described, not tested",
        open.plan.metric.name,
        result.variants.len(),
        analyst::sentences::quantity(mean, &open.plan.metric),
        levels.join(", "),
        best.seeds
    ))
}
