//! The program: written, read, mended. A new program is a new revision, and revisions never mix.

use bytes::Bytes;
use kit::{
    digest::Digest,
    requirement::{REQUIREMENTS_MAX, check_requirement},
    task::CancellationToken,
};

use super::{
    super::{
        error::CampaignError,
        executor::spec::Blob,
        machine::{Event, StoppedBy},
        program_check,
        record::Revision,
        repair::{signature, voidable},
        researcher::{CodeContext, Failure, Fault, Program, RepairContext},
    },
    Driver,
};

/// WORKER §5's word.
const CONFLICT: &str = "dependency_conflict";
/// How a fault of a repair's packages begins.
const PACKAGES: &str = "packages";

impl Driver {
    fn code_context(&self) -> Option<CodeContext> {
        let open = self.kept.record.open()?;
        let description = self.kept.workers.data_sets.iter().find(|d| d.name == open.plan.data_set);
        let before = self.kept.record.experiments.iter().rev().skip(1).find_map(|e| e.revision());
        Some(CodeContext {
            question: self.kept.settings.question.clone(),
            plan: open.plan.clone(),
            packages: self.kept.workers.packages.clone(),
            data_set_description: description.map(|d| d.description.clone()).unwrap_or_default(),
            previous_program: before.map(|r| r.source.clone()),
        })
    }

    /// Asks for the first program.
    pub(super) async fn code(&mut self) -> Result<Event, CampaignError> {
        let Some(context) = self.code_context() else { return Ok(nothing_open()) };
        let researcher = std::sync::Arc::clone(&self.deps.researcher);
        let stop = CancellationToken::new();
        match self.ask(&stop, researcher.code(&context, &stop)).await? {
            Ok(program) => {
                self.kept.written = Some(program);
                Ok(Event::ProgramWritten)
            }
            Err(event) => Ok(event),
        }
    }

    /// Asks for a mended program, with what failed.
    pub(super) async fn repair(&mut self) -> Result<Event, CampaignError> {
        let Some(code) = self.code_context() else { return Ok(nothing_open()) };
        let signature = signature(&self.kept.broken);
        let same_again = self.kept.signatures.contains(&signature);
        self.kept.signatures.push(signature);
        let before = self.kept.record.open().and_then(|e| e.revision());
        let (program, packages) = before.map(|r| (r.source.clone(), r.packages.clone())).unwrap_or_default();
        let context = RepairContext {
            code,
            program,
            packages,
            attempt: self.kept.machine.repairs,
            failures: self.kept.broken.clone(),
            same_again,
        };
        let what = self.kept.broken.first().map(|f| format!("{} in {}: {}", f.outcome, f.variant, f.message));
        self.say(format!(
            "Repair {} of {}: {}",
            self.kept.machine.repairs,
            self.kept.settings.repairs,
            kit::text::one_line(&what.unwrap_or_default(), 300)
        ));
        let researcher = std::sync::Arc::clone(&self.deps.researcher);
        let stop = CancellationToken::new();
        match self.ask(&stop, researcher.repair(&context, &stop)).await? {
            Ok(program) => {
                self.kept.written = Some(program);
                Ok(Event::ProgramWritten)
            }
            Err(event) => Ok(event),
        }
    }

    /// Journals the program as a revision, reads it, and puts it on the workers.
    pub(super) async fn check(&mut self) -> Result<Event, CampaignError> {
        let Some(Program { source, packages: wanted }) = self.kept.written.take() else {
            return Ok(nothing_open());
        };
        let number = self.experiment_number();
        let reason = match self.kept.broken.first() {
            Some(f) => {
                kit::text::one_line(&format!("mends {} in {}: {}", f.outcome, f.variant, f.message), 300)
            }
            None => "first".to_owned(),
        };
        let Some(open) = self.kept.record.open_mut() else { return Ok(nothing_open()) };
        let packages = open.revision().map_or(&open.plan.packages, |r| &r.packages).clone();
        // Only where they could not be had: otherwise a repair of the code would change what it is compared with.
        // (What a repair itself got wrong about them may be mended too.)
        let of_packages = |f: &Failure| f.outcome == CONFLICT || f.message.starts_with(PACKAGES);
        let conflict = self.kept.broken.first().is_some_and(of_packages);
        let changed = wanted.filter(|wanted| conflict && *wanted != packages);
        let digest = Digest::of(source.as_bytes());
        let revision = u32::try_from(open.revisions.len()).unwrap_or(u32::MAX).saturating_add(1);
        let too_long = source.len() > program_check::PROGRAM_BYTES_MAX;
        // What is too long is not kept: it says nothing that its size does not.
        let kept = if too_long { kit::text::tail(&source, 4096).to_owned() } else { source.clone() };
        let kept_digest = Digest::of(kept.as_bytes());
        open.revisions.push(Revision {
            number: revision,
            digest: kept_digest.to_string(),
            reason: reason.clone(),
            source: kept.clone(),
            packages: changed.clone().unwrap_or_else(|| packages.clone()),
        });
        let mut faults = program_check::check(&source, &open.plan);
        if let Some(changed) = &changed {
            faults.extend(check_packages(changed));
            let list = |packages: &[String]| match packages {
                [] => "none".to_owned(),
                some => kit::text::one_line(&some.join(", "), 300),
            };
            let text = format!(
                "{}: revision {revision}: packages {} instead of {}, which could not be had",
                open.id,
                list(changed),
                list(&packages)
            );
            open.amendments.push(text);
            let body = serde_json::json!({"from": packages, "to": changed});
            self.detail("packages_changed", &body).await?;
        }
        self.deps.journal.add_revision(self.id, number, revision, kept_digest, &kept, &reason).await?;
        if !faults.is_empty() {
            self.kept.broken = faults
                .into_iter()
                .map(|fault| Failure {
                    variant: "all".into(),
                    smoke: true,
                    outcome: "static_check".into(),
                    message: fault.problem,
                    traceback: String::new(),
                    last_output: String::new(),
                    usage: "nothing ran".into(),
                    advice: "Mend what the message names; the rest may stay.".into(),
                })
                .collect();
            self.kept.broken_variants.clear();
            self.kept.failures.take([proto::v1::OutcomeKind::Failed]);
            return Ok(Event::ProgramFaulty { voidable: false });
        }
        let bytes = source.len() as u64;
        Ok(match self.send("the program", Bytes::from(source)).await? {
            Ok(_) => {
                self.kept.program = Some(Blob { digest, bytes });
                Event::ProgramSound
            }
            Err(event) => event,
        })
    }

    /// Takes the variants at fault out of the experiment.
    pub(super) async fn void(&mut self) -> Result<Event, CampaignError> {
        let reason =
            self.kept.broken.first().map(|f| format!("{}: {}", f.outcome, f.message)).unwrap_or_default();
        let reason = kit::text::one_line(&format!("never mended ({reason})"), 300);
        let variants = std::mem::take(&mut self.kept.broken_variants);
        let body = serde_json::json!({"variants": variants, "reason": reason});
        self.detail("voided", &body).await?;
        if let Some(open) = self.kept.record.open_mut() {
            for variant in &variants {
                open.void.insert(variant.clone(), reason.clone());
                open.notes.push(format!("{variant} left the experiment: {reason}."));
            }
        }
        self.say(format!("Left out of the experiment: {}", variants.join(", ")));
        Ok(Event::Voided)
    }

    /// Keeps what a repair has to do.
    pub(super) fn broke(&mut self, failures: Vec<Failure>, variants: Vec<String>) -> Event {
        let voidable = self.kept.record.open().is_some_and(|open| voidable(&open.plan, &variants));
        self.kept.broken = failures;
        self.kept.broken_variants = variants;
        Event::ProgramFaulty { voidable }
    }

    pub(super) fn experiment_number(&self) -> u32 {
        u32::try_from(self.kept.record.experiments.len()).unwrap_or(u32::MAX)
    }
}

/// Those of a repair come from a model, as the plan's do.
fn check_packages(packages: &[String]) -> Vec<Fault> {
    let mut faults = Vec::new();
    if packages.len() > REQUIREMENTS_MAX {
        let problem = format!("{PACKAGES}: at most {REQUIREMENTS_MAX}");
        faults.push(Fault { field: PACKAGES.to_owned(), problem });
    }
    for (index, text) in packages.iter().enumerate().take(REQUIREMENTS_MAX) {
        if let Err(error) = check_requirement(text) {
            let field = format!("{PACKAGES}[{index}]");
            faults.push(Fault { problem: format!("{field}: {error}"), field });
        }
    }
    faults
}

/// No experiment where there must be one: told as the workers' fault would hide it.
pub(super) fn nothing_open() -> Event {
    Event::Stop { by: StoppedBy::NoSoundPlan }
}
