//! Pause, resume, hints and budgets from another process.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{super::steering::Command, *};
use crate::journal::Limits;

/// Long enough for a run that would be placed in spite of a pause.
const PAUSE: Duration = Duration::from_secs(2);

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !is().await {
        assert!(since.elapsed() < Duration::from_secs(60), "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn give(journal: &Journal, id: CampaignId, command: Command) {
    let number = command.leave(journal, id).await.unwrap();
    until("the owner's hand", async || !journal.is_waiting(id, number).await.unwrap()).await;
}

#[tokio::test]
async fn a_pause_places_no_run_and_its_time_does_not_count() {
    let scene = Scene::new(Scripted::one(&["takes_a_while"]));
    let (id, since) = (CampaignId::new(), Instant::now());
    let running = run_campaign(scene.deps(), id, scene.settings.clone(), scene.cancel.clone());
    let steering = async {
        let started = || scene.lab.started.load(Ordering::SeqCst);
        until("a full run", async || scene.lab.order.lock().unwrap().iter().any(|(_, _, smoke)| !smoke))
            .await;
        give(&scene.journal, id, Command::Pause).await;
        // It is marked just after the command is taken.
        until("the mark", async || scene.journal.campaign(id).await.unwrap().state == CampaignState::Paused)
            .await;
        // Those that were under way when it was taken, and no other.
        let so_far = started();
        tokio::time::sleep(PAUSE).await;
        assert_eq!(started(), so_far, "a run was placed in a pause");
        give(&scene.journal, id, Command::Resume).await;
        until("another run", async || started() > so_far).await;
    };
    let (end, ()) = tokio::join!(running, steering);
    let end = end.unwrap();
    assert_eq!(end.state, CampaignState::Finished, "{}", end.answer);
    let counted = scene.journal.spent(id).await.unwrap().active;
    assert!(counted + PAUSE <= since.elapsed(), "{counted:?} of {:?}", since.elapsed());
}

#[tokio::test]
async fn a_paused_campaign_can_be_cancelled() {
    let scene = Scene::new(Scripted::one(&["takes_a_while"]));
    let id = CampaignId::new();
    let running = run_campaign(scene.deps(), id, scene.settings.clone(), scene.cancel.clone());
    let steering = async {
        until("a run", async || scene.lab.started.load(Ordering::SeqCst) > 0).await;
        give(&scene.journal, id, Command::Pause).await;
        give(&scene.journal, id, Command::Cancel).await;
    };
    let (end, ()) = tokio::join!(running, steering);
    let end = end.unwrap();
    assert_eq!((end.state, end.stopped_by), (CampaignState::Cancelled, StoppedBy::Cancelled));
}

#[tokio::test]
async fn a_hint_and_another_number_of_experiments_reach_the_next_plan() {
    let scene = Scene::new(Scripted::two());
    let id = CampaignId::new();
    let mut settings = scene.settings.clone();
    settings.max_iterations = 3;
    scene.researcher.programs.lock().unwrap().push_back(program("takes_a_while"));
    let running = run_campaign(scene.deps(), id, settings, scene.cancel.clone());
    let steering = async {
        until("a run", async || scene.lab.started.load(Ordering::SeqCst) > 0).await;
        give(&scene.journal, id, Command::Hint("try\nGELU".into())).await;
        let limits = scene.journal.limits(id).await.unwrap();
        scene.journal.set_limits(id, Limits { max_iterations: Some(2), ..limits }).await.unwrap();
        give(&scene.journal, id, Command::Budget).await;
    };
    let (end, ()) = tokio::join!(running, steering);
    let end = end.unwrap();
    assert_eq!(end.state, CampaignState::Finished, "{}", end.answer);
    let told = scene.researcher.told_plans.lock().unwrap().clone();
    assert!(told[0].hints.is_empty());
    assert_eq!(told[1].hints, ["try GELU"]);
    assert_eq!((told[0].max_iterations, told[1].max_iterations), (3, 2));
    let report = scene.report(&end);
    let text = serde_json::to_string(&report).unwrap();
    assert!(text.contains("try GELU"), "the report says what the user told it");
}
