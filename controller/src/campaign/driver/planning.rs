//! Image and data sets, the plan, its registration.

use kit::{digest::Digest, task::CancellationToken};
use serde_json::json;

use crate::fleet::{ImageChoice, rules};

use super::{
    super::{
        check::{Against, check},
        error::CampaignError,
        executor::spec::{Blob, seeds},
        images, known,
        lab::describe,
        machine::{Event, StoppedBy},
        plan::Role,
        record::{ExperimentRecord, Standing},
        researcher::Planned,
    },
    Driver,
};

impl Driver {
    /// The image on every worker, and the data sets that travel with runs.
    pub(super) async fn prepare(&mut self) -> Result<Event, CampaignError> {
        let stop = CancellationToken::new();
        let fleet = std::sync::Arc::clone(&self.deps.fleet);
        let (image, watchers, token) =
            (self.kept.settings.image.clone(), self.deps.progress.clone(), stop.clone());
        let backend = self.kept.settings.backend.clone().unwrap_or_default();
        let choice = ImageChoice { name: &image, backend: &backend };
        let work = images::prepare(&*fleet, choice, &watchers, &token);
        let (prepared, stopped) = self.guarded(&stop, work).await?;
        if let Some(by) = stopped {
            return Ok(Event::Stop { by });
        }
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.kept.record.stop_reason = format!("image {image}: {error}");
                self.say(self.kept.record.stop_reason.clone());
                return Ok(Event::Stop { by: StoppedBy::Workers });
            }
        };
        let views = self.deps.fleet.workers();
        let slots = self.deps.fleet.slots();
        self.kept.workers = describe(&views, slots, &prepared.packages, &self.deps.data_sets);
        let longest = views.iter().filter_map(|v| v.info.largest_limits.as_ref()).map(|l| l.time_ms / 1000);
        self.kept.longest_seconds =
            longest.filter(|s| *s > 0).min().map_or(0, |s| u32::try_from(s).unwrap_or(u32::MAX));
        let facts = &mut self.kept.record.environment;
        facts.push(("image".into(), format!("{image}, {}", prepared.image_id)));
        facts.push(("packages".into(), prepared.packages.join(", ")));
        for view in &views {
            let machine = view.info.machine.clone().unwrap_or_default();
            let gpus: Vec<String> = machine.gpus.iter().map(|gpu| gpu.name.clone()).collect();
            let gpus = if gpus.is_empty() { "no GPU".to_owned() } else { gpus.join(", ") };
            let what = format!(
                "{} CPUs ({}), {gpus}, {} slots",
                machine.cpus,
                machine.cpu_model,
                view.info.slots.len()
            );
            let short: String = view.worker_id.chars().take(8).collect();
            facts.push((format!("worker {short}"), what));
            if let Some(used) = rules::backend_in_use(&view.info, &backend) {
                facts.push((format!("sandbox of {short}"), rules::in_short(used)));
            }
        }
        let body = json!({"image": image, "image_id": prepared.image_id, "packages": prepared.packages});
        self.detail("prepared", &body).await?;
        Ok(Event::Prepared)
    }

    /// Asks for a plan and checks it; faults are kept for the next try.
    pub(super) async fn plan(&mut self) -> Result<Event, CampaignError> {
        kit::halt::at("controller.planning");
        let context = self.context();
        let researcher = std::sync::Arc::clone(&self.deps.researcher);
        let stop = CancellationToken::new();
        let planned = match self.ask(&stop, researcher.plan(&context, &stop)).await? {
            Ok(planned) => planned,
            Err(event) => return Ok(event),
        };
        let plan = match planned {
            Planned::Finished { reason } => {
                self.kept.record.stop_reason = reason;
                return Ok(Event::NothingMore);
            }
            Planned::Experiment(plan) => *plan,
        };
        let findings: Vec<String> = context.findings.iter().map(|f| f.id.clone()).collect();
        let known = known::known(&self.kept.record, &plan);
        let sound = check(
            plan.clone(),
            &Against {
                workers: &self.kept.workers,
                wishes: &context.wishes,
                budget: &context.budget,
                iteration: context.iteration,
                confirmatory_left: context.confirmatory_left,
                findings: &findings,
                known,
                longest_seconds: self.kept.longest_seconds,
                largest_memory: self.kept.workers.memory_bytes,
            },
        );
        match sound {
            Ok(mut sound) => {
                let alpha = self.kept.ledger.experiment_error(self.kept.record.confirmatory()).unwrap_or(0.0);
                sound.notes.extend(known::design_note(&sound.plan, known, alpha));
                let looks = u32::try_from(sound.plan.looks.len()).unwrap_or(1);
                self.kept.faults.clear();
                self.kept.draft = Some(sound);
                Ok(Event::PlanSound { looks })
            }
            Err(faults) => {
                let body = json!({"plan": plan, "faults": faults});
                self.detail("plan_refused", &body).await?;
                let told: Vec<String> =
                    faults.iter().take(3).map(|f| format!("{}: {}", f.field, f.problem)).collect();
                self.say(format!("The plan was sent back: {}", told.join("; ")));
                self.kept.record.stop_reason = told.join("; ");
                self.kept.faults = faults;
                Ok(Event::PlanUnsound)
            }
        }
    }

    /// Plan, digest, seeds and ledger go into the journal before any run.
    pub(super) async fn register(&mut self) -> Result<Event, CampaignError> {
        kit::halt::at("controller.register");
        let Some(sound) = self.kept.draft.take() else {
            self.kept.record.stop_reason = "no plan was there to register".into();
            return Ok(Event::Stop { by: StoppedBy::NoSoundPlan });
        };
        let number = u32::try_from(self.kept.record.experiments.len()).unwrap_or(u32::MAX).saturating_add(1);
        let id = format!("e{number}");
        let plan = sound.plan;
        let value = serde_json::to_value(&plan)
            .map_err(|source| crate::journal::JournalError::Json { what: "a plan", source })?;
        let digest = Digest::of(value.to_string().as_bytes());
        let role = match plan.role {
            Role::Exploratory => "exploratory",
            Role::Confirmatory => "confirmatory",
        };
        let at_ns = self.deps.journal.register_experiment(self.id, number, &value, digest, role).await?;
        let most = plan.looks.last().copied().unwrap_or(0);
        let seeds = seeds(&self.kept.record.id, &id, most);
        let confirmatory = (plan.role == Role::Confirmatory).then(|| self.kept.record.confirmatory());
        let error = confirmatory.and_then(|n| self.kept.ledger.experiment_error(n).ok());
        let body = json!({"experiment": id, "digest": digest.to_string(), "seeds": seeds, "error": error});
        self.detail("registered", &body).await?;
        if !self.kept.data.iter().any(|(name, _)| *name == plan.data_set)
            && let Some(ours) = self.deps.data_sets.iter().find(|d| d.name == plan.data_set)
        {
            let bytes = ours.bytes.clone();
            let size = bytes.len() as u64;
            match self.send(&format!("data set {}", plan.data_set), bytes).await? {
                Ok(digest) => self.kept.data.push((plan.data_set.clone(), Blob { digest, bytes: size })),
                Err(event) => return Ok(event),
            }
        }
        self.note_data_set(&plan.data_set);
        self.kept.time_seconds = plan.limits.time_seconds;
        self.kept.signatures.clear();
        self.kept.broken.clear();
        self.kept.program = None;
        self.say(format!("Experiment {id} ({role}): {}", plan.title));
        self.kept.record.experiments.push(ExperimentRecord {
            id,
            digest: digest.to_string(),
            registered_at: jiff::Timestamp::from_nanosecond(i128::from(at_ns))
                .map(|at| at.to_string())
                .unwrap_or_default(),
            confirmatory,
            seeds,
            revisions: Vec::new(),
            runs: Vec::new(),
            looks: Vec::new(),
            void: std::collections::BTreeMap::new(),
            notes: sound.notes,
            amendments: Vec::new(),
            interpretation: String::new(),
            removed: Vec::new(),
            threats: Vec::new(),
            rulings: Vec::new(),
            standing: Standing::Open,
            plan,
        });
        Ok(Event::Registered)
    }

    /// The data set of an experiment among the facts of the report, by its digest, once.
    fn note_data_set(&mut self, name: &str) {
        let label = format!("data set {name}");
        let info = self.kept.workers.data_sets.iter().find(|info| info.name == name);
        let Some(info) =
            info.filter(|_| !self.kept.record.environment.iter().any(|(name, _)| *name == label))
        else {
            return;
        };
        let fact = format!("{}, {}", info.size, info.digest);
        self.kept.record.environment.push((label, fact));
    }
}
