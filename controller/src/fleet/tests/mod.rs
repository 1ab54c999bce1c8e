//! The fleet against workers that speak the protocol and fail when they are told to. What is pure is tested beside its code.

mod chaos;
mod fake_worker;
mod links;
mod placement;
mod runs;
mod simulation;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use kit::{
    awake::Awake,
    clock::{ManualClock, SystemClock},
    retry::Policy,
    task::CancellationToken,
};
use prost::Message as _;
use proto::v1;

use self::fake_worker::{FakeWorker, Shape};
use super::{Dialer, Fleet, FleetError, Link, LinkState, Pace, RunEnd, RunSink, SinkError, dial::over};

/// What a test waits for at most: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Times that a test can wait for. Patience is counted on a clock that a test moves by hand.
fn quick() -> Pace {
    Pace {
        redial: Policy {
            attempts: u32::MAX,
            base: Duration::from_millis(10),
            longest: Duration::from_millis(40),
        },
        silence: Duration::from_secs(2),
        refresh: Duration::from_millis(50),
        patience: Duration::from_secs(8),
        cancel_patience: Duration::from_secs(4),
        slot_taken: Duration::from_millis(20),
        ..Pace::default()
    }
}

/// Time that moves by hand: less than ten seconds at once is no sleep.
fn by_hand() -> (Arc<ManualClock>, Arc<Awake>) {
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    let awake = Awake::start_at_pace(clock.clone(), Duration::from_millis(1));
    (clock, awake)
}

fn fleet_with(workers: &[&FakeWorker], pace: Pace, awake: &Arc<Awake>) -> Fleet {
    Fleet::new(workers.iter().map(|worker| Link::with(worker.dialer(), pace, awake.clone())).collect())
}

fn fleet(workers: &[&FakeWorker]) -> Fleet {
    fleet_with(workers, quick(), &Awake::start(SystemClock::shared()))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}

/// A run of an experiment.
fn run(number: u32, variant: &str) -> v1::StartRunRequest {
    run_of(number, variant, |_| ())
}

fn run_of(number: u32, variant: &str, change: impl FnOnce(&mut v1::RunSpec)) -> v1::StartRunRequest {
    let label = |key: &str, value: &str| v1::Label { key: key.to_owned(), value: value.to_owned() };
    let mut spec = v1::RunSpec {
        image: "lite".to_owned(),
        limits: Some(v1::Limits { time_ms: 3_000, grace_ms: 1_000, ..v1::Limits::default() }),
        labels: vec![label("campaign", "c"), label("experiment", "e1"), label("variant", variant)],
        ..v1::RunSpec::default()
    };
    change(&mut spec);
    v1::StartRunRequest {
        run_id: format!("01900000-0000-7000-8000-{number:012}"),
        controller_id: "us".to_owned(),
        spec: spec.encode_to_vec().into(),
    }
}

/// What reached the caller's disk.
#[derive(Debug, Default)]
struct Kept {
    placed: Option<(String, String)>,
    events: Vec<v1::Event>,
    complete: bool,
    released: bool,
}

/// A sink in memory; artifacts go to a folder.
#[derive(Clone)]
struct MemorySink {
    kept: Arc<Mutex<Kept>>,
    folder: Arc<tempfile::TempDir>,
}

impl MemorySink {
    fn new() -> Self {
        Self { kept: Arc::default(), folder: Arc::new(tempfile::tempdir().unwrap()) }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    /// Every event once, in order, with the end as the last.
    #[track_caller]
    fn is_whole(&self) {
        let kept = self.kept();
        let sequences: Vec<u64> = kept.events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
        assert!(matches!(kept.events.last().unwrap().kind, Some(v1::event::Kind::Finished(_))));
        assert!(kept.complete && kept.released && kept.placed.is_some());
    }
}

#[async_trait]
impl RunSink for MemorySink {
    fn last_sequence(&self) -> u64 {
        self.kept().events.last().map_or(0, |event| event.sequence)
    }

    async fn placed(&mut self, worker_id: &str, boot_id: &str) -> Result<(), SinkError> {
        self.kept().placed = Some((worker_id.to_owned(), boot_id.to_owned()));
        Ok(())
    }

    async fn apply(&mut self, events: Vec<v1::Event>) -> Result<(), SinkError> {
        self.kept().events.extend(events);
        Ok(())
    }

    fn artifact_path(&self, name: &str) -> Result<PathBuf, SinkError> {
        Ok(self.folder.path().join("artifacts").join(name))
    }

    async fn complete(&mut self) -> Result<(), SinkError> {
        self.kept().complete = true;
        Ok(())
    }

    async fn released(&mut self) -> Result<(), SinkError> {
        assert!(self.kept().complete, "released before everything was safe");
        self.kept().released = true;
        Ok(())
    }
}

/// A run on its way, with its sink and the token that cancels it.
struct Under {
    sink: MemorySink,
    cancel: CancellationToken,
    /// Whoever follows it is gone at once, as after a kill.
    killed: CancellationToken,
    end: kit::task::Handle<Option<Result<RunEnd, FleetError>>>,
}

impl Under {
    fn way(fleet: &Fleet, start: v1::StartRunRequest) -> Self {
        let (sink, cancel, fleet) = (MemorySink::new(), CancellationToken::new(), fleet.clone());
        let killed = CancellationToken::new();
        let (mut its, token, kill) = (sink.clone(), cancel.clone(), killed.clone());
        let end = kit::task::spawn("run", async move {
            kill.run_until_cancelled(fleet.run(start, &mut its, &token)).await
        });
        Self { sink, cancel, killed, end }
    }

    async fn begun(&self) {
        until("the run begins", || !self.sink.kept().events.is_empty()).await;
    }

    async fn kill(self) -> MemorySink {
        self.killed.cancel();
        self.end.await.unwrap();
        self.sink
    }

    async fn ends(self) -> (RunEnd, MemorySink) {
        let (end, sink) = self.result().await;
        (end.unwrap(), sink)
    }

    async fn result(self) -> (Result<RunEnd, FleetError>, MemorySink) {
        let end = tokio::time::timeout(PATIENCE, self.end).await.expect("the run ends");
        (end.unwrap().expect("no panic").expect("not killed"), self.sink)
    }
}

#[track_caller]
fn outcome(end: &RunEnd) -> v1::OutcomeKind {
    match end {
        RunEnd::Finished(finished) => finished.outcome.as_ref().unwrap().kind(),
        other => panic!("not finished: {other:?}"),
    }
}
