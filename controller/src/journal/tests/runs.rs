//! Runs and their logs: every byte once, in order, whatever comes twice, late or never.

use std::{fs, io::Write as _};

use super::*;

#[tokio::test]
async fn a_run_from_its_plan_to_its_release() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = campaign(&journal, Limits::default()).await;
    let run = planned(&journal, id).await;
    assert_eq!(journal.spec(run).await.unwrap(), b"spec");
    assert!(journal.mark_released(run).await.is_err());
    journal.run_sent(run, "w", "b").await.unwrap();
    let mut log = journal.open_run(run).await.unwrap();
    assert!(journal.open_run(run).await.is_err(), "it is open already");
    let change = v1::StateChange { state: v1::RunState::Running.into(), detail: String::new() };
    let gap = v1::Gap { stream: v1::Stream::Stderr.into(), dropped_bytes: 9, ..Default::default() };
    log.apply(vec![
        event(1, Kind::StateChange(change)),
        output(2, v1::Stream::Stdout, b"one\n"),
        output(3, v1::Stream::Stderr, b"two\n"),
        event(4, Kind::Gap(gap)),
    ])
    .await
    .unwrap();
    let row = journal.run(run).await.unwrap();
    assert_eq!((row.state, row.last_sequence, row.stdout_bytes), (RunState::Running, 4, 4));
    assert_eq!((row.seed, row.started_ns), (u64::MAX, Some(5)));
    let applied = log.apply(vec![end(5, v1::OutcomeKind::Succeeded, 1_500)]).await.unwrap();
    assert!(applied.finished && log.finished());
    let row = journal.run(run).await.unwrap();
    assert_eq!((row.state, row.outcome.as_deref()), (RunState::Finished, Some("succeeded")));
    assert_eq!((row.charged, row.usage_known), (Some(Duration::from_secs(3)), true));
    assert_eq!(journal.finished(run).await.unwrap().unwrap().outcome.unwrap().traceback, "Traceback");
    assert_eq!(journal.gaps(run).await.unwrap()[0].dropped_bytes, 9);
    let error = log.apply(vec![output(6, v1::Stream::Stdout, b"late")]).await.unwrap_err().to_string();
    assert!(error.contains("it is over"), "{error}");
    assert_eq!(journal.unreleased_runs().await.unwrap().len(), 1);
    journal.store_artifacts_done(run).await.unwrap();
    journal.mark_released(run).await.unwrap();
    assert!(
        journal.unreleased_runs().await.unwrap().is_empty()
            && journal.unfinished_runs().await.unwrap().is_empty()
    );
    assert_eq!(
        journal.campaign(id).await.unwrap().outcomes,
        [OutcomeCount { outcome: "succeeded".to_owned(), runs: 1 }]
    );
}

#[tokio::test]
async fn what_a_kill_left_past_the_journalled_length_is_cut_and_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = campaign(&journal, Limits::default()).await;
    let run = planned(&journal, id).await;
    let mut log = journal.open_run(run).await.unwrap();
    log.apply(vec![output(1, v1::Stream::Stdout, b"one\n")]).await.unwrap();
    drop(log);
    drop(journal);
    // The kill came after the append and before the transaction.
    let path = folder.path().join(format!("campaigns/{id}/runs/{run}/stdout"));
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"two\nthr").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\nthr");

    let journal = open(folder.path());
    let mut log = journal.open_run(run).await.unwrap();
    assert_eq!((log.last_sequence(), fs::read(&path).unwrap()), (1, b"one\n".to_vec()));
    log.apply(vec![output(2, v1::Stream::Stdout, b"two\n")]).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
    assert_eq!(path, journal.log_path(id, run, LogStream::Stdout));
}

#[tokio::test]
async fn a_batch_that_is_not_journalled_leaves_no_byte_behind() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = campaign(&journal, Limits::default()).await;
    let run = planned(&journal, id).await;
    let mut log = journal.open_run(run).await.unwrap();
    log.apply(vec![output(1, v1::Stream::Stdout, b"one\n")]).await.unwrap();
    // The transaction is refused, because the run ended under the watcher.
    let how = EndedHere::Lost { cause: v1::LostCause::Unreachable, message: "gone".to_owned() };
    assert!(journal.end_run(run, how.clone()).await.unwrap());
    assert!(!journal.end_run(run, how).await.unwrap(), "it is final");
    assert!(log.apply(vec![output(2, v1::Stream::Stdout, b"late\n")]).await.is_err());
    assert!(matches!(
        log.apply(vec![output(2, v1::Stream::Stdout, b"late\n")]).await,
        Err(JournalError::Stopped(_))
    ));
    let path = journal.log_path(id, run, LogStream::Stdout);
    assert_eq!(fs::read(&path).unwrap(), b"one\nlate\n", "the append came first");
    drop(log);
    let log = journal.open_run(run).await.unwrap();
    assert!(log.finished());
    assert_eq!(fs::read(&path).unwrap(), b"one\n");
    let row = journal.run(run).await.unwrap();
    assert_eq!((row.outcome.as_deref(), row.usage_known), (Some("lost"), false));
    assert_eq!(journal.spent(id).await.unwrap().device_unknown, Duration::from_secs(20));
}

#[tokio::test]
async fn what_comes_twice_counts_once_and_a_hole_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = campaign(&journal, Limits::default()).await;
    let run = planned(&journal, id).await;
    let mut log = journal.open_run(run).await.unwrap();
    let first = vec![output(1, v1::Stream::Stdout, b"a"), metric(2, "loss", &[1.0])];
    assert_eq!(log.apply(first.clone()).await.unwrap().new_events, 2);
    assert_eq!(log.apply(first.clone()).await.unwrap().new_events, 0);
    let again = [first, vec![output(3, v1::Stream::Stdout, b"b")]].concat();
    assert_eq!(log.apply(again).await.unwrap().new_events, 1);
    match log.apply(vec![output(5, v1::Stream::Stdout, b"d")]).await.unwrap_err() {
        JournalError::Hole { wanted, found, .. } => assert_eq!((wanted, found), (4, 5)),
        other => panic!("{other}"),
    }
    assert!(matches!(
        log.apply(vec![output(4, v1::Stream::Stdout, b"c"), output(6, v1::Stream::Stdout, b"e")]).await,
        Err(JournalError::Hole { .. })
    ));
    let nameless = output(4, v1::Stream::Unspecified, b"c");
    assert!(matches!(log.apply(vec![nameless]).await, Err(JournalError::Event { .. })));
    // A refusal leaves the log usable and the files as they were.
    log.apply(vec![output(4, v1::Stream::Stdout, b"c")]).await.unwrap();
    assert_eq!(fs::read(journal.log_path(id, run, LogStream::Stdout)).unwrap(), b"abc");
    assert_eq!(journal.points(run, "loss").await.unwrap().len(), 1);
}

#[tokio::test]
async fn every_value_comes_back_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = campaign(&journal, Limits::default()).await;
    let run = planned(&journal, id).await;
    let mut log = journal.open_run(run).await.unwrap();
    let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 5e-324, 0.1, f64::MAX];
    log.apply(vec![metric(1, "loss", &values), metric(2, "accuracy", &[0.5])]).await.unwrap();
    log.apply(vec![metric(3, "loss", &[f64::NAN])]).await.unwrap();
    let points = journal.points(run, "loss").await.unwrap();
    let bits: Vec<u64> = points.iter().map(|p| p.value.to_bits()).collect();
    let expected: Vec<u64> = values.iter().chain(&[f64::NAN]).map(|v| v.to_bits()).collect();
    assert_eq!(bits, expected);
    assert_eq!((points[0].step, points[1].step, points[2].step), (Some(0), None, Some(-2)));
    assert_eq!((points[7].sequence, points[2].elapsed_ns), (3, 2));
    assert!(journal.points(run, "unknown").await.unwrap().is_empty());
    let metrics = journal.metrics(run).await.unwrap();
    assert_eq!(
        metrics.iter().map(|m| (m.name.as_str(), m.points)).collect::<Vec<_>>(),
        [("accuracy", 1), ("loss", 8)]
    );
    assert!(metrics[1].last.is_nan());
    assert_eq!(journal.run(run).await.unwrap().points, 9);
}

#[tokio::test]
async fn series_of_an_experiment_come_in_one_query_without_smoke_runs() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = campaign(&journal, Limits::default()).await;
    journal.register_experiment(id, 1, &json!(1), request_digest(&json!(1)), "exploratory").await.unwrap();
    let mut expected = Vec::new();
    for (seed, purpose) in [(1, RunPurpose::Full), (2, RunPurpose::Smoke), (3, RunPurpose::Full)] {
        let new = NewRun { experiment: Some(1), seed, purpose, ..new_run(id) };
        journal.plan_run(new.clone()).await.unwrap();
        journal.open_run(new.id).await.unwrap().apply(vec![metric(1, "loss", &[seed as f64])]).await.unwrap();
        if purpose == RunPurpose::Full {
            expected.push((new.id, seed, seed as f64));
        }
    }
    let series = journal.series(id, 1, "loss").await.unwrap();
    let found: Vec<_> = series.iter().map(|s| (s.run, s.seed, s.points[0].value)).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn usage_samples_are_bounded_and_the_last_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let id = campaign(&journal, Limits::default()).await;
    let run = planned(&journal, id).await;
    let mut log = journal.open_run(run).await.unwrap();
    let mut sequence = 0;
    for batch in [1u64, 1, 3, 700, 1, 1_500, 2] {
        let events = (0..batch).map(|_| {
            sequence += 1;
            event(sequence, Kind::Usage(v1::Usage { cpu_ns: sequence, ..Default::default() }))
        });
        log.apply(events.collect()).await.unwrap();
        let kept = journal.usage_samples(run).await.unwrap();
        assert!(kept.len() as u64 <= sequence.min(513), "{}", kept.len());
        assert_eq!(kept.last().unwrap().usage.cpu_ns, sequence);
        assert_eq!(kept[0].usage.cpu_ns, 1);
        assert!(kept.len() as u64 >= sequence.min(256));
    }
}

#[tokio::test]
async fn an_artifacts_name_stays_below_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let (id, run) = (CampaignId::new(), RunId::new());
    let inside = journal.artifact_path(id, run, "plots/a b.png").unwrap();
    assert!(inside.starts_with(journal.run_folder(id, run)));
    // As deep and as long as a worker lets them through.
    for longest in [format!("{}x", "d/".repeat(16)), "n".repeat(255)] {
        assert!(journal.artifact_path(id, run, &longest).is_ok(), "{longest}");
    }
    for wrong in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a\nb", "a\0", &"x".repeat(600)] {
        assert!(journal.artifact_path(id, run, wrong).is_err(), "{wrong:?}");
    }
}
