//! Campaigns, steps, experiments, calls, commands, locks: what is written is there after a reopening.

use kit::digest::Digest;

use super::*;

#[tokio::test]
async fn everything_is_there_after_a_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = campaign(&journal, Limits { max_iterations: Some(3), ..Limits::default() }).await;
    assert_eq!(journal.append_step(id, "planned", &json!({"n": 1})).await.unwrap(), 1);
    assert_eq!(journal.append_step(id, "coded", &json!({"n": 2})).await.unwrap(), 2);
    let plan = json!({"title": "first"});
    let digest = request_digest(&plan);
    journal.register_experiment(id, 1, &plan, digest, "exploratory").await.unwrap();
    journal.add_revision(id, 1, 1, Digest::of(b"pass"), "pass", "first").await.unwrap();
    let run = planned(&journal, id).await;
    journal.close_experiment(id, 1, &json!({"mean": 0.5})).await.unwrap();
    journal.add_finding(id, "f1", 1, "It helps.", "supported", &[run]).await.unwrap();
    journal.set_answer(id, "Yes.").await.unwrap();
    journal.set_campaign_state(id, CampaignState::Finished, Some("converged".to_owned())).await.unwrap();
    journal.remember_worker("w1", "b1", "unix").await.unwrap();
    journal.remember_worker("w1", "b2", "unix").await.unwrap();
    let controller = journal.controller_id();
    drop(journal);

    let journal = open(folder.path());
    assert_eq!(journal.controller_id(), controller);
    let row = journal.campaign(id).await.unwrap();
    assert_eq!((row.state, row.iterations, row.runs), (CampaignState::Finished, 1, 1));
    assert_eq!((row.answer.as_deref(), row.stop_reason.as_deref()), (Some("Yes."), Some("converged")));
    assert_eq!((row.seed, row.settings), (Some(u64::MAX), json!({"seeds": 3})));
    assert_eq!(row.limits.max_iterations, Some(3));
    let steps = journal.steps(id).await.unwrap();
    assert_eq!(
        steps.iter().map(|s| (s.sequence, s.kind.as_str())).collect::<Vec<_>>(),
        [(1, "planned"), (2, "coded")]
    );
    let experiments = journal.experiments(id).await.unwrap();
    assert_eq!((experiments[0].plan.clone(), experiments[0].digest), (plan, digest));
    assert_eq!(experiments[0].result, Some(json!({"mean": 0.5})));
    assert_eq!(journal.revisions(id).await.unwrap()[0].source, "pass");
    assert_eq!(journal.findings(id).await.unwrap()[0].runs, [run]);
    assert_eq!(journal.worker("w1").await.unwrap().unwrap().boot_id, "b2");
    journal.check().await.unwrap();
}

#[tokio::test]
async fn a_plan_comes_before_its_runs_and_is_never_changed() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = campaign(&journal, Limits::default()).await;
    let early = NewRun { experiment: Some(1), ..new_run(id) };
    let error = journal.plan_run(early.clone()).await.unwrap_err().to_string();
    assert_eq!(error, "there is no experiment e1");
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    journal.register_experiment(id, 1, &json!(1), one, "exploratory").await.unwrap();
    journal.register_experiment(id, 1, &json!(1), one, "exploratory").await.unwrap();
    let error = journal.register_experiment(id, 1, &json!(2), two, "exploratory").await.unwrap_err();
    assert!(error.to_string().contains("never changed"), "{error}");
    journal.plan_run(early.clone()).await.unwrap();
    journal.close_experiment(id, 1, &json!({})).await.unwrap();
    let late = NewRun { id: RunId::new(), ..early };
    assert!(journal.plan_run(late).await.unwrap_err().to_string().contains("closed"));
    assert!(journal.close_experiment(id, 1, &json!({"other": 1})).await.is_err());
    assert_eq!(journal.runs(id).await.unwrap().len(), 1);
    assert_eq!(journal.spent(id).await.unwrap().device_reserved, Duration::from_secs(20));
}

#[tokio::test]
async fn a_beginning_of_an_id_finds_one_or_names_all() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let (a, b) = (campaign(&journal, Limits::default()).await, campaign(&journal, Limits::default()).await);
    assert_eq!(journal.find_campaign(&a.to_string()).await.unwrap(), a);
    let shared: String = a
        .to_string()
        .chars()
        .zip(b.to_string().chars())
        .take_while(|(x, y)| x == y)
        .map(|(x, _)| x)
        .collect();
    let one_more: String = a.to_string().chars().take(shared.len() + 1).collect();
    assert_eq!(journal.find_campaign(&one_more).await.unwrap(), a);
    match journal.find_campaign(&shared).await.unwrap_err() {
        JournalError::Ambiguous { matches, .. } => assert_eq!(matches, [a.to_string(), b.to_string()]),
        other => panic!("{other}"),
    }
    assert!(matches!(journal.find_campaign("ffff").await, Err(JournalError::NotFound { .. })));
    for wrong in ["", "%", "' OR 1", "G", "../x"] {
        assert!(matches!(journal.find_campaign(wrong).await, Err(JournalError::Prefix(_))), "{wrong}");
    }
    let run = planned(&journal, a).await;
    assert_eq!(journal.find_run(&run.to_string()[..20]).await.unwrap(), run);
}

#[tokio::test]
async fn newest_first_and_exec_only_where_asked() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let first = campaign(&journal, Limits::default()).await;
    let exec = CampaignId::new();
    let new = NewCampaign {
        id: exec,
        kind: CampaignKind::Exec,
        question: "a.py".to_owned(),
        settings: json!({}),
        researcher: "none".to_owned(),
        seed: None,
        limits: Limits::default(),
    };
    journal.create_campaign(new).await.unwrap();
    let last = campaign(&journal, Limits::default()).await;
    let ids = |rows: Vec<CampaignRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(journal.list_campaigns(false).await.unwrap()), [last, first]);
    let reader = Journal::open_read_only(folder.path(), SystemClock::shared()).unwrap();
    assert_eq!(ids(reader.list_campaigns(true).await.unwrap()), [last, exec, first]);
    assert!(matches!(reader.set_answer(first, "x").await, Err(JournalError::ReadOnly)));
}

#[tokio::test]
async fn a_reply_is_found_again_and_a_call_in_flight_is_charged_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = campaign(&journal, Limits { cost: Some(MicroUsd(100)), ..Limits::default() }).await;
    let request = json!({"ask": "plan"});
    let new = |reserve| NewCall {
        purpose: "plan".to_owned(),
        model: "m".to_owned(),
        request: request.clone(),
        reserve: MicroUsd(reserve),
    };
    assert_eq!(journal.find_reply(id, request_digest(&request)).await.unwrap(), None);
    let call = journal.begin_call(id, new(60)).await.unwrap();
    match journal.begin_call(id, new(41)).await.unwrap_err() {
        BudgetError::Cost { left, wanted } => assert_eq!((left, wanted), (MicroUsd(40), MicroUsd(41))),
        other => panic!("{other}"),
    }
    let usage = TokenUsage { input: 1, output: 2, cache_read: 3, cache_write: 4 };
    let reply = CallReply { reply: json!("yes"), usage, cost: Some(MicroUsd(10)), attempts: 2 };
    journal.finish_call(call, reply.clone()).await.unwrap();
    assert!(journal.finish_call(call, reply).await.is_err());
    let in_flight = journal.begin_call(id, new(50)).await.unwrap();
    drop(journal);

    let journal = open(folder.path());
    let found = journal.find_reply(id, request_digest(&request)).await.unwrap().unwrap();
    assert_eq!((found.call, found.reply), (call, json!("yes")));
    assert_eq!(journal.settle_open_calls(id).await.unwrap(), 1);
    assert_eq!(journal.settle_open_calls(id).await.unwrap(), 0);
    let spent = journal.spent(id).await.unwrap();
    assert_eq!((spent.cost_settled, spent.cost_reserved), (MicroUsd(60), MicroUsd(0)));
    assert_eq!(spent.cost_unknown, MicroUsd(50));
    let calls = journal.calls(id).await.unwrap();
    assert_eq!((calls[0].usage, calls[0].attempts, calls[0].cost_known), (Some(usage), 2, true));
    assert_eq!((calls[1].id, calls[1].state, calls[1].cost_known), (in_flight, CallState::Failed, false));
}

#[tokio::test]
async fn commands_from_another_process_are_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let (owner, other) = (open(folder.path()), open(folder.path()));
    let id = campaign(&owner, Limits::default()).await;
    other.put_command(id, "hint", &json!({"text": "try dropout"})).await.unwrap();
    other.put_command(id, "pause", &json!({})).await.unwrap();
    let taken = owner.take_commands(id).await.unwrap();
    assert_eq!(taken.iter().map(|c| c.kind.as_str()).collect::<Vec<_>>(), ["hint", "pause"]);
    assert!(owner.take_commands(id).await.unwrap().is_empty());
    assert!(matches!(
        other.put_command(CampaignId::new(), "pause", &json!({})).await,
        Err(JournalError::NotFound { .. })
    ));
}

#[tokio::test]
async fn a_second_owner_is_refused_with_the_first_ones_process_id() {
    let folder = tempfile::tempdir().unwrap();
    let (owner, other) = (open(folder.path()), open(folder.path()));
    let id = campaign(&owner, Limits::default()).await;
    assert_eq!(other.is_owned(id).unwrap(), None);
    let held = owner.lock(id).unwrap();
    assert_eq!(other.is_owned(id).unwrap(), Some(std::process::id()));
    let refused = other.lock(id).unwrap_err();
    assert!(
        matches!(&refused, LockError::Owned { pid, .. } if *pid == std::process::id().to_string()),
        "{refused}"
    );
    other.lock(CampaignId::new()).unwrap();
    drop(held);
    assert_eq!(other.is_owned(id).unwrap(), None);
    other.lock(id).unwrap();
}

#[tokio::test]
async fn many_writers_share_transactions_and_one_failure_is_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = campaign(&journal, Limits::default()).await;
    let nobody = CampaignId::new();
    let nothing = json!({});
    let steps = (0..200).map(|n| {
        let (journal, nothing) = (&journal, &nothing);
        async move { journal.append_step(if n % 10 == 0 { nobody } else { id }, "x", nothing).await }
    });
    let results = futures_util::future::join_all(steps).await;
    assert_eq!(results.iter().filter(|r| r.is_err()).count(), 20);
    assert_eq!(journal.steps(id).await.unwrap().len(), 180);
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = campaign(&journal, Limits::default()).await;
    let huge = json!("x".repeat(9 << 20));
    let error = journal.append_step(id, "x", &huge).await.unwrap_err();
    assert!(matches!(error, JournalError::TooLarge { what: "a step", .. }), "{error}");
    assert!(journal.put_command(id, "hint", &json!("x".repeat(20_000))).await.is_err());
    let long = "é".repeat(5_000);
    journal.set_campaign_state(id, CampaignState::Failed, Some(long)).await.unwrap();
    assert_eq!(journal.campaign(id).await.unwrap().stop_reason.unwrap().len(), 4_096);
}
