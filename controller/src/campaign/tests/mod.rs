//! Whole campaigns over a real journal, with a scripted researcher and a lab without machines.

use std::{path::Path, sync::Arc, time::Duration};

use kit::{clock::SystemClock, task::CancellationToken};

use crate::{
    journal::{CampaignId, CampaignState, Journal},
    report::document::Report,
};

use super::{
    fixtures::ablation,
    lab::DataSet,
    machine::StoppedBy,
    progress::Watchers,
    researcher::Researcher,
    run::{CampaignEnd, run_campaign},
    settings::CampaignSettings,
    *,
};

mod durable;
mod killed;
mod lab;
mod researcher;
mod steering;

use lab::FakeLab;
use researcher::{GOOD, Scripted, program};

struct Scene {
    folder: tempfile::TempDir,
    journal: Journal,
    lab: Arc<FakeLab>,
    researcher: Arc<Scripted>,
    settings: CampaignSettings,
    cancel: CancellationToken,
}

impl Scene {
    fn new(researcher: Scripted) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path(), SystemClock::shared()).unwrap();
        Self {
            folder,
            journal,
            lab: Arc::default(),
            researcher: Arc::new(researcher),
            settings: CampaignSettings::new("Does batch norm help?", "scripted"),
            cancel: CancellationToken::new(),
        }
    }

    fn deps(&self) -> Deps {
        let data = DataSet {
            name: "digits".into(),
            description: "1,797 digits".into(),
            smallest_effect: Some(0.005),
            bytes: bytes::Bytes::from_static(b"0,1\n"),
        };
        Deps {
            journal: self.journal.clone(),
            fleet: self.lab.clone(),
            researcher: self.researcher.clone() as Arc<dyn Researcher>,
            clock: SystemClock::shared(),
            progress: Watchers::nobody(),
            data_sets: vec![data],
        }
    }

    async fn run(&self) -> (CampaignEnd, Report) {
        let end = run_campaign(self.deps(), CampaignId::new(), self.settings.clone(), self.cancel.clone());
        let end =
            tokio::time::timeout(Duration::from_secs(60), end).await.expect("it ends").expect("it reports");
        let report = self.report(&end);
        (end, report)
    }

    fn report(&self, end: &CampaignEnd) -> Report {
        let path = self.journal.campaign_folder(end.id).join("report.json");
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }
}

#[tokio::test]
async fn two_iterations_the_second_following_from_the_first() {
    let scene = Scene::new(Scripted::two());
    let (end, report) = scene.run().await;
    assert_eq!((end.state, end.stopped_by), (CampaignState::Finished, StoppedBy::Answered), "{}", end.answer);
    assert!(end.any_succeeded && end.answer.starts_with("Supported."), "{}", end.answer);
    assert_eq!(report.experiments.len(), 2);
    assert_eq!(report.experiments[1].motivated_by, ["f1"]);
    assert_eq!(report.experiments[0].contrasts[0].verdict, None, "exploratory: no verdict");
    assert_eq!(report.experiments[1].contrasts[0].verdict.as_deref(), Some("supported"));
    let spent: f64 = report.ledger.iter().map(|line| line.error).sum();
    assert!(spent <= 0.05 + 1e-12 && spent > 0.0, "{spent}");
    // New seeds for the confirmatory one, and every run listed.
    let seeds =
        |n: usize| report.experiments[n].variants[0].values.iter().map(|v| v.seed).collect::<Vec<_>>();
    assert!(seeds(0).iter().all(|seed| !seeds(1).contains(seed)));
    assert_eq!(report.runs.len(), scene.lab.started.load(std::sync::atomic::Ordering::SeqCst));
    assert!(scene.root().join("campaigns").join(end.id.to_string()).join("report.json").exists());
    for number in report.answer.numbers.iter().filter(|n| n.name == "effect") {
        assert!(!number.runs.is_empty(), "{number:?}");
    }
}

#[tokio::test]
async fn every_number_of_the_answer_is_listed() {
    let scene = Scene::new(Scripted::two());
    let (_, report) = scene.run().await;
    let shown: Vec<String> = report.answer.numbers.iter().flat_map(|n| numbers::all(&n.shown)).collect();
    for number in numbers::all(&report.answer.text) {
        assert!(shown.contains(&number), "{number} is not listed: {} {shown:?}", report.answer.text);
    }
}

#[tokio::test]
async fn each_broken_program_is_sent_back_with_its_outcome_and_mended() {
    for (mark, outcome) in [
        ("shape_error", "failed"),
        ("missing_import", "failed"),
        ("nan_in_smoke", "diverged"),
        ("endless_loop", "timed_out"),
        ("out_of_memory", "out_of_memory"),
    ] {
        let scene = Scene::new(Scripted::one(&[mark]));
        let (end, report) = scene.run().await;
        assert_eq!(end.stopped_by, StoppedBy::Answered, "{mark}");
        let repairs = scene.researcher.told_repairs.lock().unwrap();
        assert_eq!(repairs.len(), 1, "{mark}");
        assert_eq!(repairs[0].failures[0].outcome, outcome, "{mark}");
        assert!(repairs[0].program.contains(mark) && !repairs[0].failures[0].advice.is_empty());
        assert_eq!(report.revisions.len(), 2, "{mark}");
        assert!(report.revisions[1].reason.contains(outcome), "{}", report.revisions[1].reason);
        assert!(report.experiments[0].variants.iter().all(|v| v.analysed >= 5), "the mended one was used");
    }
}

#[tokio::test]
async fn a_program_that_is_never_mended_stops_after_the_bound() {
    let scene = Scene::new(Scripted::one(&["shape_error"; 9]));
    let (end, report) = scene.run().await;
    let repairs = scene.researcher.told_repairs.lock().unwrap();
    assert_eq!(repairs.len(), 3);
    assert!(!repairs[0].same_again && repairs[1].same_again, "the same error twice is said");
    assert_eq!(end.state, CampaignState::Failed);
    assert!(!end.any_succeeded);
    assert!(report.dead_ends[0].contains("not mended in 3 repairs"), "{:?}", report.dead_ends);
    assert!(report.answer.text.contains("not mended in 3 repairs"), "{}", report.answer.text);
}

#[tokio::test]
async fn a_program_that_seeds_itself_never_runs() {
    let researcher = Scripted::one(&[]);
    researcher.programs.lock().unwrap().push_back(format!("{GOOD}torch.manual_seed(0)\n"));
    let scene = Scene::new(researcher);
    let (_, report) = scene.run().await;
    let repairs = scene.researcher.told_repairs.lock().unwrap();
    assert_eq!(repairs[0].failures[0].outcome, "static_check");
    let first = &report.revisions[0].digest;
    assert!(report.runs.iter().all(|run| run.revision != *first));
}

#[tokio::test]
async fn trap_4_a_control_that_diverges_later_is_a_result_and_not_repaired() {
    let scene = Scene::new(Scripted::one(&["control_diverges"]));
    let (_, report) = scene.run().await;
    assert!(scene.researcher.told_repairs.lock().unwrap().is_empty());
    let control = &report.experiments[0].variants[0];
    assert!(control.failed > 0 && control.failed_up_to > 0.0);
    assert!(control.values.iter().any(|v| v.failed && v.value == Some(0.1)), "at the registered value");
}

#[tokio::test]
async fn a_data_set_of_the_worker_is_told_to_the_planner_named_in_every_run_and_in_the_report() {
    let mut plan = ablation();
    plan.data_set = "shelf".into();
    let mut scene = Scene::new(Scripted {
        plans: std::sync::Mutex::new([plan].into()),
        stop_after: Some(1),
        ..Scripted::default()
    });
    let digest = kit::digest::Digest::of(b"shelf").to_string();
    let shelf = proto::v1::DataSet {
        name: "shelf".into(),
        digest: digest.clone(),
        size_bytes: 2 << 20,
        files: 3,
        description: "Three tables.".into(),
    };
    scene.lab = Arc::new(FakeLab { data_sets: vec![shelf], ..FakeLab::default() });
    scene.settings.data_set = Some("shelf".into());
    let (end, report) = scene.run().await;
    assert_eq!(end.stopped_by, StoppedBy::Answered, "{}", end.answer);
    let told = &scene.researcher.told_plans.lock().unwrap()[0].workers.data_sets;
    let told = told.iter().find(|set| set.name == "shelf").unwrap();
    assert_eq!((told.size.as_str(), told.description.as_str()), ("3 files, 2MiB", "Three tables."));
    let runs = scene.lab.data.lock().unwrap();
    assert!(!runs.is_empty());
    // The program alone travels.
    assert!(runs.iter().all(|(names, files)| *names == ["shelf"] && *files == 1), "{runs:?}");
    let fact = report.environment.iter().find(|fact| fact.name == "data set shelf").unwrap();
    assert!(fact.value.contains(&digest) && fact.value.contains("3 files"), "{}", fact.value);
}

#[tokio::test]
async fn an_unsound_plan_goes_back_with_the_field_and_is_bounded() {
    let mut bad = ablation();
    bad.data_set = "imagenet".into();
    let scene = Scene::new(Scripted {
        plans: std::sync::Mutex::new([bad.clone(), ablation()].into()),
        stop_after: Some(1),
        ..Scripted::default()
    });
    let (end, _) = scene.run().await;
    assert_eq!(end.stopped_by, StoppedBy::Answered);
    assert_eq!(scene.researcher.told_plans.lock().unwrap()[1].faults[0].field, "data_set");

    let scene =
        Scene::new(Scripted { plans: std::sync::Mutex::new(vec![bad; 9].into()), ..Scripted::default() });
    let (end, report) = scene.run().await;
    assert_eq!(end.stopped_by, StoppedBy::NoSoundPlan);
    assert!(report.answer.text.contains("data_set"), "{}", report.answer.text);
    assert_eq!(scene.researcher.told_plans.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn the_researcher_sees_no_metric_of_an_open_experiment() {
    let scene = Scene::new(Scripted::one(&["shape_error"]));
    scene.run().await;
    let plans = scene.researcher.told_plans.lock().unwrap();
    assert!(plans[0].experiments.is_empty());
    let repairs = serde_json::to_string(&*scene.researcher.told_repairs.lock().unwrap()).unwrap();
    assert!(!repairs.contains("0.95"), "{repairs}");
}

#[tokio::test]
async fn an_invented_number_is_sent_back_once_and_then_left_out() {
    let scene = Scene::new(Scripted::one(&[]));
    let text = "It converged 23.7 % faster. It helps.".to_owned();
    *scene.researcher.texts.lock().unwrap() = [text.clone(), text].into();
    let (_, report) = scene.run().await;
    let told = scene.researcher.told_readings.lock().unwrap();
    assert_eq!(told.len(), 2);
    assert!(told[1].faults[0].problem.contains("23.7"));
    assert!(!report.experiments[0].interpretation.contains("23.7"));
    assert_eq!(report.answer.removed, ["It converged 23.7 % faster."]);
}

#[tokio::test]
async fn iterations_stop_and_say_so() {
    let mut scene = Scene::new(Scripted { stop_after: None, ..Scripted::two() });
    scene.settings.max_iterations = 1;
    let (end, report) = scene.run().await;
    assert_eq!(end.stopped_by, StoppedBy::Iterations);
    assert!(report.answer.text.contains("Ended by: iterations"), "{}", report.answer.text);
    assert!(report.costs.budgets[0].stopped);
}

#[tokio::test]
async fn the_wall_clock_stops_a_run_and_the_report_is_written() {
    let mut scene = Scene::new(Scripted::one(&["runs_until_cancelled"]));
    let mut plan = ablation();
    // What a run needs is a third of its limit: 10 runs of a third of a second on two slots fit into 3 s.
    plan.limits.time_seconds = 1;
    *scene.researcher.plans.lock().unwrap() = [plan].into();
    scene.settings.time_budget = Duration::from_secs(3);
    let (end, report) = scene.run().await;
    assert_eq!(end.stopped_by, StoppedBy::WallClock);
    assert_eq!(report.answer.stopped_by, "wall-clock");
}

#[tokio::test]
async fn device_hours_are_reserved_before_they_are_used_and_stop() {
    let mut scene = Scene::new(Scripted::one(&["is_slow"]));
    let mut plan = ablation();
    plan.limits.time_seconds = 60;
    *scene.researcher.plans.lock().unwrap() = [plan].into();
    scene.settings.gpu_budget = Some(Duration::from_secs(300));
    let (end, report) = scene.run().await;
    assert_eq!(end.stopped_by, StoppedBy::DeviceHours, "{}", end.answer);
    assert!(report.costs.device_seconds <= 300.0, "{}", report.costs.device_seconds);
    assert!(report.costs.budgets.iter().any(|b| b.name == "GPU-hours" && b.stopped));
}

#[tokio::test]
async fn failures_in_a_row_stop() {
    let mut scene = Scene::new(Scripted::one(&["shape_error"; 9]));
    scene.settings.max_failures = 2;
    let (end, report) = scene.run().await;
    assert_eq!(end.stopped_by, StoppedBy::FailuresInARow);
    assert_eq!(report.answer.stopped_by, "failures in a row");
}

#[tokio::test]
async fn ctrl_c_cancels_the_runs_and_writes_the_report_so_far() {
    let scene = Scene::new(Scripted::one(&["runs_until_cancelled"]));
    let cancel = scene.cancel.clone();
    let lab = Arc::clone(&scene.lab);
    kit::task::spawn("ctrl-c", async move {
        // Both smoke runs, and the first two full ones, which wait for the token.
        while lab.started.load(std::sync::atomic::Ordering::SeqCst) < 4 {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    });
    let (end, report) = scene.run().await;
    assert_eq!((end.state, end.stopped_by), (CampaignState::Interrupted, StoppedBy::Interrupted));
    assert_eq!(scene.lab.cancelled.load(std::sync::atomic::Ordering::SeqCst), 2);
    assert!(report.runs.iter().filter(|r| r.purpose == "full").all(|r| r.outcome == "cancelled"));
    assert_eq!(scene.journal.campaign(end.id).await.unwrap().state, CampaignState::Interrupted);
    assert!(scene.journal.unfinished_runs().await.unwrap().is_empty());
}

#[tokio::test]
async fn another_process_cancels_while_the_researcher_thinks() {
    let scene = Scene::new(Scripted { hang: true, ..Scripted::default() });
    let id = CampaignId::new();
    let journal = scene.journal.clone();
    kit::task::spawn("cancel", async move {
        while journal.put_command(id, "cancel", &serde_json::json!({})).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let end = run_campaign(scene.deps(), id, scene.settings.clone(), scene.cancel.clone()).await.unwrap();
    assert_eq!((end.state, end.stopped_by), (CampaignState::Cancelled, StoppedBy::Cancelled));
}

#[tokio::test]
async fn a_lost_run_is_started_again_for_the_same_seed() {
    let scene = Scene::new(Scripted::one(&["loses_its_first"]));
    let (end, report) = scene.run().await;
    assert_eq!(end.stopped_by, StoppedBy::Answered);
    let lost: Vec<_> = report.runs.iter().filter(|r| r.outcome == "lost").collect();
    assert_eq!(lost.len(), 1);
    assert!(
        report
            .runs
            .iter()
            .any(|r| r.variant == lost[0].variant && r.seed == lost[0].seed && r.outcome == "succeeded")
    );
    assert!(scene.researcher.told_repairs.lock().unwrap().is_empty(), "it costs no repair");
}

#[tokio::test]
async fn a_rejected_run_and_a_broken_image_end_with_a_report() {
    let scene = Scene::new(Scripted::one(&["rejects"]));
    let (end, report) = scene.run().await;
    assert_eq!(end.stopped_by, StoppedBy::Workers);
    assert!(report.answer.text.contains("no such image"), "{}", report.answer.text);

    let mut scene = Scene::new(Scripted::one(&[]));
    scene.settings.image = "broken".into();
    let (end, _) = scene.run().await;
    assert_eq!((end.stopped_by, end.state), (StoppedBy::Workers, CampaignState::Failed));
}

#[tokio::test]
async fn what_cannot_be_answered_leaves_nothing() {
    let mut scene = Scene::new(Scripted::one(&[]));
    scene.settings.question = "What is the meaning of life?".into();
    let error =
        run_campaign(scene.deps(), CampaignId::new(), scene.settings.clone(), scene.cancel.clone()).await;
    assert!(error.unwrap_err().is_usage());
    assert!(scene.journal.list_campaigns(true).await.unwrap().is_empty());
    let campaigns = std::fs::read_dir(scene.root().join("campaigns"));
    assert_eq!(campaigns.map_or(0, Iterator::count), 0);
}

#[tokio::test]
async fn runs_go_seed_by_seed_with_variants_together() {
    let scene = Scene::new(Scripted::one(&[program("").as_str()]));
    scene.run().await;
    let order = scene.lab.order.lock().unwrap();
    let full: Vec<u64> = order.iter().filter(|(_, _, smoke)| !smoke).map(|(_, seed, _)| *seed).collect();
    for pair in full.chunks(2) {
        assert_eq!(pair[0], pair[1], "{full:?}");
    }
}

#[tokio::test]
async fn the_rules_run_through_the_whole_loop_and_their_plans_are_sound() {
    for question in [
        "Does batch normalisation help a small MLP on digits?",
        "Does residual connection placement affect training stability in small transformers?",
        "Which learning rate is best for a small MLP on digits?",
        "Is Adam better than SGD for a small transformer?",
        "Does dropout help a small MLP on digits?",
        "Does weight decay help a small MLP on digits?",
        "Does depth matter for a small MLP?",
    ] {
        let mut scene = Scene::new(Scripted::default());
        scene.settings.question = question.into();
        let mut deps = scene.deps();
        deps.researcher = Arc::new(offline::Offline);
        deps.data_sets = offline::data::data_sets()
            .iter()
            .map(|set| DataSet {
                name: set.name.to_owned(),
                description: set.description.to_owned(),
                smallest_effect: None,
                bytes: bytes::Bytes::from_static(set.files[0].1),
            })
            .collect();
        let end = run_campaign(deps, CampaignId::new(), scene.settings.clone(), scene.cancel.clone())
            .await
            .unwrap();
        let report = scene.report(&end);
        assert_ne!(end.stopped_by, StoppedBy::NoSoundPlan, "{question}: {}", end.answer);
        assert!(report.experiments.len() >= 2, "{question}: {}", end.answer);
        assert!(report.answer.removed.is_empty(), "{question}: {:?}", report.answer.removed);
    }
}
