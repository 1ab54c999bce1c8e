//! Steering a campaign from another terminal, over the real binaries: pause, resume, hint, budget, cancel.

use std::{
    process::Child,
    time::{Duration, Instant},
};

use e2e::{Home, wait_for};
use serde_json::Value;

const QUESTION: &str = "Does batch normalisation help a small MLP on digits?";
/// Until the first run of a campaign: image, smoke runs.
const UNDER_WAY: Duration = Duration::from_secs(300);
/// A run under way when the pause comes may take so long to end.
const RUN_ENDS: Duration = Duration::from_secs(240);
/// For a run that would be placed in spite of a pause: slots are free and the next one would start within a second.
const QUIET: Duration = Duration::from_secs(5);

fn runs(shown: &Value) -> Vec<Value> {
    shown["run_list"].as_array().cloned().unwrap_or_default()
}

fn under_way(home: &Home, child: &mut Child) -> String {
    wait_for("a run that runs", UNDER_WAY, || {
        if let Ok(Some(status)) = child.try_wait() {
            panic!("the command ended by itself: {status}");
        }
        let shown = home.newest()?;
        let running = runs(&shown).iter().any(|run| run["state"] == "running");
        if running { Ok(shown["id"].as_str().expect("an id").to_owned()) } else { Err(format!("{shown:#}")) }
    })
}

#[test]
fn a_campaign_is_paused_told_given_more_and_cancelled_from_another_terminal() {
    let home = Home::new();
    let mut child = home.spawn(&["run", QUESTION]);
    let id = under_way(&home, &mut child);

    let told = home.run(&["pause", &id[..13], "--output", "json"]).expect(0).json();
    assert_eq!((told["command"].as_str(), told["taken"].as_bool()), (Some("pause"), Some(true)), "{told:#}");
    let still = wait_for("the runs under way to end", RUN_ENDS, || {
        let shown = home.newest()?;
        let over = runs(&shown).iter().all(|run| !run["outcome"].is_null());
        if over && shown["state"] == "paused" { Ok(runs(&shown).len()) } else { Err(format!("{shown:#}")) }
    });
    std::thread::sleep(QUIET);
    assert_eq!(runs(&home.newest().expect("a campaign")).len(), still, "nothing is begun in a pause");

    let _taken = home.run(&["hint", &id, "look at the first epochs"]).expect(0);
    let limits = home.run(&["budget", &id, "--time-budget", "9h", "--output", "json"]).expect(0).json();
    assert_eq!(limits["time_budget_seconds"].as_f64(), Some(9.0 * 3600.0), "{limits:#}");
    let refused = home.run(&["budget", &id, "--time-budget", "1ms"]).expect(2);
    assert!(refused.stderr.contains("--time-budget"), "{refused:?}");
    let refused = home.run(&["hint", &id, ""]).expect(2);
    assert!(refused.stderr.contains("text"), "{refused:?}");

    let _taken = home.run(&["resume", &id]).expect(0);
    wait_for("another run", RUN_ENDS, || {
        let shown = home.newest()?;
        if runs(&shown).len() > still { Ok(()) } else { Err(format!("{shown:#}")) }
    });

    let since = Instant::now();
    let _taken = home.run(&["cancel", &id]).expect(0);
    println!("a cancel was taken after {:?}", since.elapsed());
    let ran = home.finish(child, Duration::from_secs(60));
    println!("the campaign had ended after {:?}", since.elapsed());
    let last = home.newest().expect("a campaign");
    assert_eq!(last["state"], "cancelled", "{last:#}\n{ran:?}");
    let report = home.run(&["report", &id]).expect(0);
    assert!(report.stdout.contains("look at the first epochs"), "{report:?}");

    let late = home.run(&["pause", &id]).expect(2);
    assert!(late.stderr.contains("cancelled"), "{late:?}");
    let unknown = home.run(&["cancel", "01a00000-0000"]).expect(2);
    assert!(unknown.stderr.contains("01a00000-0000"), "{unknown:?}");
}
