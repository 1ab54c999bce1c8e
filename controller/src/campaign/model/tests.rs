//! A model that says what the test wrote down: shapes, faults, journal and money.

use std::{collections::VecDeque, sync::Mutex};

use kit::clock::SystemClock;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::{
    campaign::{
        fixtures::ablation,
        researcher::{BudgetLeft, Failure, Fault as FieldFault, Wishes, Workers},
    },
    journal::{CampaignKind, Limits, MicroUsd, NewCampaign},
    llm::{CallError, Fault, ModelSpec, Reply, Usage},
};

struct FakeModel {
    spec: ModelSpec,
    replies: Mutex<VecDeque<Result<Value, Fault>>>,
    requests: Mutex<Vec<Request>>,
}

#[async_trait]
impl Model for FakeModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    async fn call(
        &self,
        request: &Request,
        _: &CancellationToken,
        _: Option<&mpsc::Sender<usize>>,
    ) -> Result<Reply, CallError> {
        self.requests.lock().unwrap().push(request.clone());
        let usage = Usage { input_uncached: Some(1000), output_total: Some(100), ..Usage::UNKNOWN };
        match self.replies.lock().unwrap().pop_front().expect("no more calls than replies") {
            Ok(value) => Ok(Reply {
                text: value.to_string(),
                json: Some(value),
                usage,
                model: self.spec.model.clone(),
                request_id: None,
                attempts: 1,
                lost: vec![],
            }),
            Err(fault) => Err(CallError {
                spec: self.spec.clone(),
                fault,
                attempts: 1,
                lost: vec![usage],
                request_id: None,
            }),
        }
    }
}

struct Scene {
    _folder: tempfile::TempDir,
    journal: Journal,
    campaign: CampaignId,
    model: Arc<FakeModel>,
    researcher: ModelResearcher,
}

async fn scene(spec: &str, cost: Option<u64>, replies: Vec<Result<Value, Fault>>) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), SystemClock::shared()).unwrap();
    let campaign = CampaignId::new();
    let new = NewCampaign {
        id: campaign,
        kind: CampaignKind::Research,
        question: "q".into(),
        settings: json!({}),
        researcher: spec.into(),
        seed: None,
        limits: Limits { cost: cost.map(MicroUsd), ..Limits::default() },
    };
    journal.create_campaign(new).await.unwrap();
    let model = Arc::new(FakeModel {
        spec: spec.parse().unwrap(),
        replies: Mutex::new(replies.into()),
        requests: Mutex::default(),
    });
    let researcher = ModelResearcher::new(model.clone(), journal.clone(), campaign, None).unwrap();
    Scene { _folder: folder, journal, campaign, model, researcher }
}

fn plan_context() -> PlanContext {
    PlanContext {
        question: "Does it help?".into(),
        iteration: 1,
        max_iterations: 3,
        confirmatory_left: 3,
        findings: vec![],
        dead_ends: vec!["e0: nothing".into()],
        experiments: vec![],
        workers: Workers::default(),
        budget: BudgetLeft::default(),
        wishes: Wishes::default(),
        hints: vec!["try a larger width".into()],
        faults: vec![FieldFault { field: "looks".into(), problem: "must rise".into() }],
    }
}

fn good_plan() -> Value {
    json!({"reply": "experiment", "plan": ablation(), "reason": "first"})
}

fn cancel() -> CancellationToken {
    CancellationToken::new()
}

#[tokio::test]
async fn a_reply_of_another_shape_goes_back_with_the_field_at_fault() {
    let mut wrong = good_plan();
    wrong["plan"]["looks"] = json!("five");
    let scene = scene("ollama:m", None, vec![Ok(wrong), Ok(good_plan())]).await;
    let planned = scene.researcher.plan(&plan_context(), &cancel()).await.unwrap();
    assert_eq!(planned, Planned::Experiment(Box::new(ablation())));
    let requests = scene.model.requests.lock().unwrap();
    assert_eq!(requests.len(), 2);
    let back = &requests[1].messages.last().unwrap().text;
    assert!(back.contains("plan.looks"), "{back}");
    let asked = &requests[0].messages[0].text;
    for told in ["Does it help?", "looks: must rise", "try a larger width", "e0: nothing"] {
        assert!(asked.contains(told), "{asked}");
    }
}

#[tokio::test]
async fn what_the_provider_found_misshapen_goes_back_too_and_the_tries_are_bounded() {
    let fault =
        || Err(Fault::WrongShape { path: "plan.kind".into(), why: "no such word".into(), text: "{}".into() });
    let scene = scene("ollama:m", None, vec![fault(), fault(), fault()]).await;
    let error = scene.researcher.plan(&plan_context(), &cancel()).await.unwrap_err();
    assert!(matches!(error, ResearchError::Unusable { attempts: 3, .. }), "{error}");
    assert!(error.to_string().contains("plan.kind"), "{error}");
    assert_eq!(scene.journal.calls(scene.campaign).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_reply_in_the_journal_is_never_paid_for_again() {
    let scene = scene("ollama:m", None, vec![Ok(good_plan())]).await;
    let first = scene.researcher.plan(&plan_context(), &cancel()).await.unwrap();
    let again = scene.researcher.plan(&plan_context(), &cancel()).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(scene.model.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_call_that_the_cost_budget_does_not_cover_is_not_made() {
    let scene = scene("openai:gpt-5", Some(1), vec![]).await;
    if scene.researcher.price.is_none() {
        // The table no longer knows the model: then the budget is refused up front, which the next test pins.
        return;
    }
    let error = scene.researcher.plan(&plan_context(), &cancel()).await.unwrap_err();
    assert!(matches!(error, ResearchError::Budget { purpose: "plan" }), "{error}");
    assert!(scene.model.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_unknown_price_refuses_a_cost_budget_up_front() {
    let scene = scene("compatible:m", None, vec![]).await;
    let refused = ModelResearcher::new(scene.model.clone(), scene.journal.clone(), scene.campaign, Some(5.0));
    assert_eq!(refused.err(), Some(ModelError::UnknownPrice("compatible:m".into())));
}

#[tokio::test]
async fn a_failed_provider_is_told_and_journalled() {
    let scene = scene("ollama:m", None, vec![Err(Fault::Connect("h".into()))]).await;
    let error = scene.researcher.plan(&plan_context(), &cancel()).await.unwrap_err();
    assert!(matches!(error, ResearchError::Provider { .. }), "{error}");
    let calls = scene.journal.calls(scene.campaign).await.unwrap();
    assert!(calls[0].error.is_some());
}

#[tokio::test]
async fn every_prompt_renders_and_every_reply_is_read() {
    let replies = vec![
        Ok(json!({"program": "x"})),
        Ok(json!({"program": "y"})),
        Ok(json!({"text": "t", "threats": ["one"]})),
        Ok(json!({"decision": "stop", "reason": "r"})),
        Ok(json!({"reply": "finished", "plan": null, "reason": "done"})),
    ];
    let scene = scene("ollama:m", None, replies).await;
    let researcher = &scene.researcher;
    let code = CodeContext {
        question: "q".into(),
        plan: ablation(),
        packages: vec!["torch 2".into()],
        data_set_description: "d".into(),
        previous_program: Some("before".into()),
    };
    assert_eq!(researcher.code(&code, &cancel()).await.unwrap().source, "x");
    let failure = Failure {
        variant: "v1".into(),
        smoke: true,
        outcome: "failed".into(),
        message: "m".into(),
        traceback: "ValueError: boom".into(),
        last_output: String::new(),
        usage: "1 s".into(),
        advice: "mend it".into(),
    };
    let repair = RepairContext {
        code,
        program: "broken".into(),
        packages: vec!["einops==99".into()],
        attempt: 1,
        failures: vec![failure],
        same_again: true,
    };
    assert_eq!(researcher.repair(&repair, &cancel()).await.unwrap().source, "y");
    let experiment = crate::campaign::researcher::ClosedExperiment {
        id: "e1".into(),
        plan: ablation(),
        variants: vec![],
        contrasts: vec![],
    };
    let reading = InterpretContext {
        question: "q".into(),
        experiment,
        rulings: vec!["ruled".into()],
        findings: vec![],
        faults: vec![],
    };
    assert_eq!(researcher.interpret(&reading, &cancel()).await.unwrap().threats, ["one"]);
    let decide = DecideContext { state: plan_context() };
    assert_eq!(researcher.decide(&decide, &cancel()).await.unwrap(), Decision::Stop { reason: "r".into() });
    assert_eq!(
        researcher.plan(&plan_context(), &cancel()).await.unwrap(),
        Planned::Finished { reason: "done".into() }
    );
    let requests = scene.model.requests.lock().unwrap();
    let repair = &requests[1].messages[0].text;
    for told in ["ValueError: boom", "mend it", "another approach", "broken", "torch 2"] {
        assert!(repair.contains(told), "{repair}");
    }
}

#[test]
fn every_shape_can_be_sent() {
    assert!(Schema::of::<PlanReply>("plan").sent().is_ok());
    assert!(Schema::of::<ProgramReply>("code").sent().is_ok());
    assert!(Schema::of::<Interpretation>("interpret").sent().is_ok());
    assert!(Schema::of::<DecideReply>("decide").sent().is_ok());
}

#[tokio::test]
async fn an_experiment_without_its_plan_is_sent_back() {
    let empty = json!({"reply": "experiment", "plan": null, "reason": "r"});
    let scene = scene("ollama:m", None, vec![Ok(empty), Ok(good_plan())]).await;
    let planned = scene.researcher.plan(&plan_context(), &cancel()).await.unwrap();
    assert!(matches!(planned, Planned::Experiment(_)));
    assert!(scene.model.requests.lock().unwrap()[1].messages.last().unwrap().text.contains("at `plan`"));
}
