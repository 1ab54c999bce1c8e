//! A campaign whose controller is killed: at every step, at every await of the lab and of the researcher, at random polls,
//! and over and over. The campaign that went on ends like the one that was never killed: the same plans, runs, findings,
//! report; no run executed twice, no question asked differently the second time.

use std::{
    collections::BTreeSet,
    future::Future as _,
    path::PathBuf,
    sync::atomic::Ordering,
    task::{Context, Poll},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;

use super::{
    durable::{DurableLab, Points},
    *,
};
use crate::campaign::{
    error::CampaignError,
    fixtures::exploratory,
    progress::Progress,
    researcher::*,
    run::{cancel_campaign, resume_campaign},
};

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Answers by the question alone, so that the same question has the same answer after a kill.
#[derive(Default)]
struct Pure {
    points: Arc<Points>,
    /// Every question, as it was asked.
    asked: std::sync::Mutex<Vec<String>>,
}

impl Pure {
    async fn hear(&self, what: &str, context: &impl serde::Serialize) {
        self.points.pass().await;
        self.asked.lock().unwrap().push(format!("{what} {}", serde_json::to_string(context).unwrap()));
        self.points.pass().await;
    }

    fn distinct(&self) -> BTreeSet<String> {
        self.asked.lock().unwrap().iter().cloned().collect()
    }
}

#[async_trait::async_trait]
impl Researcher for Pure {
    fn name(&self) -> String {
        "pure".into()
    }

    fn first_line(&self) -> String {
        "pure".into()
    }

    fn accepts(&self, _: &str) -> Result<(), ResearchError> {
        Ok(())
    }

    async fn plan(&self, context: &PlanContext, _: &CancellationToken) -> Result<Planned, ResearchError> {
        self.hear("plan", context).await;
        let mut plan = if context.iteration == 1 { exploratory() } else { ablation() };
        if context.iteration > 1 {
            plan.motivated_by = vec!["f1".into()];
        }
        if context.iteration == 1 && context.faults.is_empty() {
            plan.data_set = "imagenet".into();
        }
        Ok(Planned::Experiment(Box::new(plan)))
    }

    async fn code(&self, context: &CodeContext, _: &CancellationToken) -> Result<Program, ResearchError> {
        self.hear("code", context).await;
        let mark = if context.previous_program.is_none() { "shape_error" } else { "needs_longer" };
        Ok(Program { source: program(mark), packages: None })
    }

    async fn repair(&self, context: &RepairContext, _: &CancellationToken) -> Result<Program, ResearchError> {
        self.hear("repair", context).await;
        Ok(Program { source: GOOD.into(), packages: None })
    }

    async fn interpret(
        &self,
        context: &InterpretContext,
        _: &CancellationToken,
    ) -> Result<Interpretation, ResearchError> {
        self.hear("interpret", context).await;
        Ok(Interpretation {
            text: "It took 23.7 steps. It helps.".into(),
            threats: vec!["one data set".into()],
        })
    }

    async fn decide(
        &self,
        context: &DecideContext,
        _: &CancellationToken,
    ) -> Result<Decision, ResearchError> {
        self.hear("decide", context).await;
        let reason = "as scripted".to_owned();
        Ok(if context.state.iteration >= 2 {
            Decision::Stop { reason }
        } else {
            Decision::Continue { reason }
        })
    }
}

struct World {
    folder: tempfile::TempDir,
    points: Arc<Points>,
    lab: Arc<DurableLab>,
    researcher: Arc<Pure>,
    cancel: CancellationToken,
}

type End = Result<CampaignEnd, CampaignError>;

impl World {
    fn new() -> Self {
        let points = Arc::<Points>::default();
        // In memory: it is killed some hundred times, and no power is cut.
        let memory = PathBuf::from("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        Self {
            folder,
            lab: Arc::new(DurableLab { points: points.clone(), ..DurableLab::default() }),
            researcher: Arc::new(Pure { points: points.clone(), ..Pure::default() }),
            points,
            cancel: CancellationToken::new(),
        }
    }

    fn journal(&self) -> Journal {
        Journal::open(self.folder.path(), SystemClock::shared()).unwrap()
    }

    fn deps(&self, progress: Watchers) -> Deps {
        Deps {
            journal: self.journal(),
            fleet: self.lab.clone(),
            researcher: self.researcher.clone(),
            clock: SystemClock::shared(),
            progress,
            data_sets: vec![DataSet {
                name: "digits".into(),
                description: "1,797 digits".into(),
                smallest_effect: Some(0.005),
                bytes: bytes::Bytes::from_static(b"0,1\n"),
            }],
        }
    }

    fn settings() -> CampaignSettings {
        CampaignSettings { max_failures: 20, ..CampaignSettings::new("Does batch norm help?", "pure") }
    }

    /// `run` where nothing is there, else `resume`.
    fn owner(&self, progress: Watchers) -> impl Future<Output = End> + use<> {
        let id: CampaignId = ID.parse().unwrap();
        let deps = self.deps(progress);
        let cancel = self.cancel.clone();
        async move {
            match deps.journal.campaign(id).await {
                Ok(_) => resume_campaign(deps, id, cancel).await,
                Err(_) => run_campaign(deps, id, Self::settings(), cancel).await,
            }
        }
    }

    async fn to_the_end(&self) -> CampaignEnd {
        tokio::time::timeout(Duration::from_secs(120), self.owner(Watchers::nobody()))
            .await
            .expect("it ends")
            .expect("it reports")
    }

    /// The report with what differs from one campaign to the next made equal: ids of runs, times, what the clock cost.
    async fn told(&self) -> Value {
        let journal = self.journal();
        let id: CampaignId = ID.parse().unwrap();
        let path = journal.campaign_folder(id).join("report.json");
        let mut text = std::fs::read_to_string(path).unwrap();
        for (n, run) in journal.runs(id).await.unwrap().iter().enumerate() {
            let name = format!("run-{}-{}-{}-{:?}", run.variant, run.seed, run.purpose, run.revision);
            let unique = journal.runs(id).await.unwrap()[..n]
                .iter()
                .filter(|r| {
                    (&r.variant, r.seed, r.purpose, r.revision)
                        == (&run.variant, run.seed, run.purpose, run.revision)
                })
                .count();
            text = text.replace(&run.id.to_string(), &format!("{name}-{unique}"));
        }
        let mut report: Value = serde_json::from_str(&text).unwrap();
        for field in ["started_at", "ended_at", "costs"] {
            report[field] = Value::Null;
        }
        for experiment in report["experiments"].as_array_mut().unwrap() {
            experiment["registered_at"] = Value::Null;
        }
        let runs = report["runs"].as_array_mut().unwrap();
        runs.sort_by_key(ToString::to_string);
        report
    }

    /// The budget's seconds are the only thing in a question that two campaigns need not have in common.
    fn questions(&self) -> BTreeSet<String> {
        let same = |text: String| {
            let (what, json) = text.split_once(' ').unwrap();
            let mut json: Value = serde_json::from_str(json).unwrap();
            for budget in ["/budget", "/state/budget"] {
                if let Some(budget) = json.pointer_mut(budget) {
                    budget["seconds"] = Value::Null;
                }
            }
            format!("{what} {json}")
        };
        self.researcher.distinct().into_iter().map(same).collect()
    }

    async fn assert_like(&self, unkilled: &Unkilled, when: &str) {
        pretty(&self.told().await, &unkilled.told, when);
        assert_eq!(self.questions(), unkilled.questions, "{when}: the questions");
        // With the seconds that were left: asked again, it is the very same question.
        assert_eq!(self.researcher.distinct().len(), unkilled.questions.len(), "{when}: asked differently");
        let executed = self.lab.executed.lock().unwrap().clone();
        let twice: Vec<_> = executed.iter().filter(|(_, times)| **times != 1).collect();
        assert!(twice.is_empty(), "{when}: executed more than once: {twice:?}");
        let keys: BTreeSet<&String> = executed.keys().collect();
        assert_eq!(keys, unkilled.executed.iter().collect(), "{when}: what was executed");
        assert!(self.lab.all_released(), "{when}: the worker keeps something");
        let journal = self.journal();
        assert!(journal.unfinished_runs().await.unwrap().is_empty(), "{when}");
        assert!(journal.unreleased_runs().await.unwrap().is_empty(), "{when}");
        let spent = journal.spent(ID.parse().unwrap()).await.unwrap();
        assert_eq!((spent.device_reserved, spent.device_unknown), (Duration::ZERO, Duration::ZERO), "{when}");
        let steps = journal.steps(ID.parse().unwrap()).await.unwrap();
        let kinds: Vec<String> =
            steps.into_iter().map(|step| format!("{} {}", step.kind, step.body["state"])).collect();
        assert_eq!(kinds, unkilled.steps, "{when}: the steps");
    }
}

#[track_caller]
fn pretty(one: &Value, other: &Value, when: &str) {
    if one != other {
        let text = |v: &Value| serde_json::to_string_pretty(v).unwrap();
        let (one, other) = (text(other), text(one));
        let diff = similar::TextDiff::from_lines(&one, &other);
        panic!("{when}: the report differs\n{}", diff.unified_diff().context_radius(3));
    }
}

struct Unkilled {
    told: Value,
    questions: BTreeSet<String>,
    executed: BTreeSet<String>,
    steps: Vec<String>,
    /// Awaits of lab and researcher.
    points: usize,
}

async fn unkilled() -> Unkilled {
    let world = World::new();
    let end = world.to_the_end().await;
    assert_eq!((end.state, end.stopped_by), (CampaignState::Finished, StoppedBy::Answered), "{}", end.answer);
    let told = world.told().await;
    assert_eq!(told["experiments"].as_array().unwrap().len(), 2);
    let revisions = told["revisions"].as_array().unwrap();
    assert_eq!(revisions.len(), 4, "one is mended, one has its limit raised: {revisions:?}");
    let steps = world.journal().steps(ID.parse().unwrap()).await.unwrap();
    let unkilled = Unkilled {
        told,
        questions: world.questions(),
        executed: world.lab.executed.lock().unwrap().keys().cloned().collect(),
        steps: steps.into_iter().map(|step| format!("{} {}", step.kind, step.body["state"])).collect(),
        points: world.points.passed(),
    };
    world.assert_like(&unkilled, "unkilled").await;
    unkilled
}

/// Polls a campaign until `enough`, and drops it; its end, where it came first.
async fn killed_when(world: &World, mut enough: impl FnMut(&Progress, usize) -> bool) -> Option<End> {
    let (watchers, mut events) = Watchers::channel();
    let mut owner = Box::pin(world.owner(watchers));
    let mut polls = 0;
    std::future::poll_fn(move |context: &mut Context<'_>| {
        polls += 1;
        if let Poll::Ready(end) = owner.as_mut().poll(context) {
            return Poll::Ready(Some(end));
        }
        let mut stop = enough(&Progress::Said(String::new()), polls);
        while let Ok(event) = events.try_recv() {
            stop |= enough(&event, polls);
        }
        if stop { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

#[tokio::test]
async fn killed_at_any_step_it_ends_as_if_it_had_not_been() {
    let unkilled = unkilled().await;
    let steps = unkilled.steps.iter().filter(|step| step.starts_with("step ")).count();
    assert!(steps > 25, "{steps}");
    for kill in 1..=steps {
        let world = World::new();
        let mut seen = 0;
        killed_when(&world, |event, _| {
            seen += usize::from(matches!(event, Progress::Step { .. }));
            seen >= kill
        })
        .await;
        let end = world.to_the_end().await;
        assert_eq!(end.state, CampaignState::Finished, "step {kill}: {}", end.answer);
        world.assert_like(&unkilled, &format!("killed at step {kill}")).await;
    }
}

#[tokio::test]
async fn killed_at_any_await_of_lab_and_researcher_it_ends_as_if_it_had_not_been() {
    let unkilled = unkilled().await;
    assert!(unkilled.points > 150, "{}", unkilled.points);
    for kill in 1..=unkilled.points {
        let world = World::new();
        world.points.kill_at.store(kill, Ordering::SeqCst);
        tokio::select! {
            end = world.owner(Watchers::nobody()) => panic!("await {kill} did not come: {end:?}"),
            () = world.points.killed.notified() => {}
        }
        let end = world.to_the_end().await;
        assert_eq!(end.state, CampaignState::Finished, "await {kill}: {}", end.answer);
        world.assert_like(&unkilled, &format!("killed at await {kill}")).await;
    }
}

#[tokio::test]
async fn killed_over_and_over_it_still_ends_the_same() {
    let unkilled = unkilled().await;
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let world = World::new();
        let mut kills = 0;
        let end = loop {
            // Enough that it gets somewhere, for every owner reads everything back first.
            let polls = random.random_range(1..400);
            match killed_when(&world, |_, now| now >= polls).await {
                Some(end) => break end.expect("it reports"),
                None => kills += 1,
            }
            assert!(kills < 2_000, "it gets nowhere");
        };
        assert_eq!(end.state, CampaignState::Finished, "seed {seed}: {}", end.answer);
        world.assert_like(&unkilled, &format!("seed {seed}, killed {kills} times")).await;
    }
}

#[tokio::test]
async fn interrupted_it_reports_so_far_and_goes_on_from_before() {
    let unkilled = unkilled().await;
    let mut world = World::new();
    world.lab.endless.store(1, Ordering::SeqCst);
    let cancel = world.cancel.clone();
    let (watchers, mut events) = Watchers::channel();
    let interrupting = async move {
        while let Some(event) = events.recv().await {
            if matches!(event, Progress::Runs { running: 2, .. }) {
                cancel.cancel();
            }
        }
    };
    let (end, ()) = tokio::join!(world.owner(watchers), interrupting);
    let end = end.unwrap();
    assert_eq!((end.state, end.stopped_by), (CampaignState::Interrupted, StoppedBy::Interrupted));
    assert_eq!(world.told().await["state"], "interrupted");
    assert!(end.report_path.unwrap().exists());

    world.lab.endless.store(0, Ordering::SeqCst);
    world.cancel = CancellationToken::new();
    world.lab.executed.lock().unwrap().clear();
    let end = world.to_the_end().await;
    assert_eq!((end.state, end.stopped_by), (CampaignState::Finished, StoppedBy::Answered), "{}", end.answer);
    let told = world.told().await;
    assert_eq!(
        told["findings"].as_array().unwrap().len(),
        unkilled.told["findings"].as_array().unwrap().len()
    );
    assert_eq!(told["answer"]["text"], unkilled.told["answer"]["text"]);
    let cancelled = |run: &&Value| run["outcome"] == "cancelled";
    assert_eq!(told["runs"].as_array().unwrap().iter().filter(cancelled).count(), 2, "they are told too");
    let executed = world.lab.executed.lock().unwrap().clone();
    assert_eq!(executed.keys().collect::<BTreeSet<_>>(), unkilled.executed.iter().collect());

    // Over: its end is given once more, and nothing is done.
    let again = world.to_the_end().await;
    assert_eq!(again, end);
}

#[tokio::test]
async fn an_ownerless_campaign_is_cancelled_with_the_report_so_far() {
    let world = World::new();
    killed_when(&world, |event, _| matches!(event, Progress::Runs { running: 2, .. })).await;
    let id: CampaignId = ID.parse().unwrap();
    let end = cancel_campaign(world.deps(Watchers::nobody()), id).await.unwrap();
    assert_eq!((end.state, end.stopped_by), (CampaignState::Cancelled, StoppedBy::Cancelled));
    assert_eq!(world.told().await["state"], "cancelled");
    assert!(world.lab.all_released());
    let journal = world.journal();
    assert!(journal.unfinished_runs().await.unwrap().is_empty());
    assert_eq!(journal.campaign(id).await.unwrap().state, CampaignState::Cancelled);
    drop(journal);
    let error = cancel_campaign(world.deps(Watchers::nobody()), id).await.unwrap_err();
    assert!(error.to_string().contains("cancelled"), "{error}");
}

#[tokio::test]
async fn a_second_owner_is_refused_with_the_first_ones_process_and_other_campaigns_are_not() {
    let world = World::new();
    let id: CampaignId = ID.parse().unwrap();
    let journal = world.journal();
    killed_when(&world, |event, _| {
        matches!(event, Progress::Step { step: "coding", .. } | Progress::Runs { .. })
    })
    .await;
    let owned = journal.lock(id).unwrap();
    let error = resume_campaign(world.deps(Watchers::nobody()), id, world.cancel.clone()).await.unwrap_err();
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    let other = CampaignId::new();
    let end =
        run_campaign(world.deps(Watchers::nobody()), other, World::settings(), world.cancel.clone()).await;
    assert_eq!(end.unwrap().state, CampaignState::Finished);
    drop(owned);
    assert_eq!(world.to_the_end().await.state, CampaignState::Finished);
}

#[tokio::test]
async fn hints_and_budgets_of_a_dead_owner_count_for_the_next_plan_of_the_new_one() {
    let world = World::new();
    let id: CampaignId = ID.parse().unwrap();
    killed_when(&world, |event, _| matches!(event, Progress::Runs { .. })).await;
    let journal = world.journal();
    // Taken by the dead owner, which did not live to keep it; and left after its death.
    super::super::steering::Command::Hint("try GELU".into()).leave(&journal, id).await.unwrap();
    journal.take_commands(id).await.unwrap();
    super::super::steering::Command::Hint("and SiLU".into()).leave(&journal, id).await.unwrap();
    let limits = journal.limits(id).await.unwrap();
    journal.set_limits(id, crate::journal::Limits { max_iterations: Some(2), ..limits }).await.unwrap();
    journal.set_campaign_state(id, CampaignState::Paused, None).await.unwrap();
    drop(journal);
    let end = world.to_the_end().await;
    assert_eq!(end.state, CampaignState::Finished, "{}", end.answer);
    let plans: Vec<String> =
        world.researcher.distinct().into_iter().filter(|asked| asked.starts_with("plan ")).collect();
    let last = plans.iter().find(|asked| asked.contains("\"iteration\":2")).unwrap();
    assert!(last.contains("\"hints\":[\"try GELU\",\"and SiLU\"]"), "{last}");
    assert!(last.contains("\"max_iterations\":2"), "{last}");
}

#[tokio::test]
async fn time_that_nobody_owned_does_not_count() {
    let world = World::new();
    let id: CampaignId = ID.parse().unwrap();
    killed_when(&world, |event, _| matches!(event, Progress::Runs { .. })).await;
    let before = world.journal().spent(id).await.unwrap().active;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let since = std::time::Instant::now();
    world.to_the_end().await;
    let after = world.journal().spent(id).await.unwrap().active;
    // Every step is rounded up to the millisecond.
    assert!(after - before <= since.elapsed() + Duration::from_secs(1), "{before:?}, {after:?}");
}

#[tokio::test]
async fn a_snapshot_of_a_later_version_is_refused_and_stays() {
    let world = World::new();
    let id: CampaignId = ID.parse().unwrap();
    killed_when(&world, |event, _| matches!(event, Progress::Runs { .. })).await;
    let journal = world.journal();
    let mut stored = journal.snapshot(id).await.unwrap().unwrap().snapshot;
    stored.version += 1;
    journal.keep_snapshot(id, stored.clone()).await.unwrap();
    let error = resume_campaign(world.deps(Watchers::nobody()), id, world.cancel.clone()).await.unwrap_err();
    assert!(error.to_string().contains("form 2") && error.to_string().contains("reads 1"), "{error}");
    assert_eq!(journal.snapshot(id).await.unwrap().unwrap().snapshot, stored);
    assert_eq!(journal.campaign(id).await.unwrap().state, CampaignState::Running);
}
