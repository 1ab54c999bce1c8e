//! Two hundred runs, good and bad, through one worker that is killed by SIGKILL five times among them: they go on under the
//! next process, every outcome is right and none is lost, nothing is left, and the worker's memory does not grow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use e2e::{
    Home, wait_for,
    witness::Witness,
    worker::{self, Client, WorkerProcess, client_of},
};
use proto::v1::{
    CancelRunRequest, DivergenceRule, Event, Finished, GetWorkerRequest, Limits, OutcomeKind, RunSpec,
    event::Kind,
};
use tokio::sync::Mutex;
use tonic::{Code, Status};

const OWNER: &str = "0190a5c8-0000-7000-8000-00000000000b";
const RUNS: usize = 200;
/// After so many ends the worker is killed.
const KILLS: [usize; 5] = [25, 42, 59, 76, 93];
/// Runs that are under way at a time: one more than there are slots, so that a slot is never free for long.
const HANDS: usize = 3;
/// The worker's memory is taken after so many ends of one process, and again at the end.
const WARM: usize = 20;
const GROWTH: u64 = 10 << 20;
/// Of one run, killed workers included.
const LONGEST: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;

/// One kind of run.
struct Sort {
    name: &'static str,
    program: &'static str,
    kind: OutcomeKind,
    change: fn(&mut RunSpec, &mut Limits),
    /// Cancelled as soon as it says something.
    cancel: bool,
}

fn as_it_is(_: &mut RunSpec, _: &mut Limits) {}

const fn sort(name: &'static str, kind: OutcomeKind, program: &'static str) -> Sort {
    Sort { name, program, kind, change: as_it_is, cancel: false }
}

/// Good and bad in turn.
const SORTS: [Sort; 14] = [
    sort(
        "good",
        OutcomeKind::Succeeded,
        "import autoresearch as ar\nfor step in range(50): ar.log(step=step, loss=1.0 / (step + 1))\n\
         print('done')\nopen('x', 'w').write('x' * 1000)\nar.save('x')\n",
    ),
    sort("raises", OutcomeKind::Failed, "def f(): raise ValueError('shapes')\nf()\n"),
    sort("exit 137", OutcomeKind::Failed, "import os\nos._exit(137)\n"),
    sort("kills itself", OutcomeKind::Failed, "import os\nos.kill(os.getpid(), 9)\n"),
    Sort {
        change: |_, limits| limits.memory_bytes = 48 * MIB,
        ..sort("memory", OutcomeKind::OutOfMemory, "held = b'x' * (1 << 28)\n")
    },
    Sort {
        change: |_, limits| (limits.time_ms, limits.grace_ms) = (1000, 200),
        ..sort(
            "deaf",
            OutcomeKind::TimedOut,
            "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nwhile True: time.sleep(1)\n",
        )
    },
    sort(
        "disk",
        OutcomeKind::LimitExceeded,
        "with open('x', 'wb') as file:\n    while True: file.write(b'x' * (1 << 20))\n",
    ),
    Sort {
        change: |_, limits| limits.pids = 16,
        ..sort(
            "processes",
            OutcomeKind::LimitExceeded,
            "import os, time\nwhile True:\n    if os.fork() == 0: time.sleep(100)\n",
        )
    },
    sort(
        "stragglers",
        OutcomeKind::Succeeded,
        "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid()\n        \
         while True:\n            os.write(1, b'still here\\n')\n            time.sleep(0.01)\nprint('the end')\nos._exit(0)\n",
    ),
    Sort {
        change: |spec, _| {
            spec.divergence = Some(DivergenceRule { non_finite: true, ..DivergenceRule::default() });
        },
        ..sort(
            "diverges",
            OutcomeKind::Diverged,
            "import autoresearch as ar, time\nar.log(loss=float('nan'))\ntime.sleep(50)\n",
        )
    },
    Sort {
        change: |spec, _| spec.required_metrics = vec!["accuracy".to_owned()],
        ..sort("no metric", OutcomeKind::MissingMetrics, "print('accuracy: 1.0')\n")
    },
    sort(
        "prints",
        OutcomeKind::Succeeded,
        "import os\nfor _ in range(300): os.write(1, b'x' * 9999 + b'\\n')\n",
    ),
    sort(
        "links",
        OutcomeKind::Succeeded,
        "import os\nos.makedirs('artifacts', exist_ok=True)\nos.symlink('/etc/shadow', 'artifacts/x')\nos.mkfifo('artifacts/y')\n",
    ),
    Sort {
        cancel: true,
        ..sort(
            "cancelled",
            OutcomeKind::Cancelled,
            "import time\nprint('there', flush=True)\ntime.sleep(50)\n",
        )
    },
];

/// What the hands share.
struct Shared {
    folder: std::path::PathBuf,
    next: AtomicUsize,
    ended: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

/// Whether the worker may only be away: it is dialled again then.
fn is_away(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}

/// Runs a program to its end through every death of the worker.
async fn follow(shared: &Shared, sort: &Sort) -> Result<Finished, String> {
    let since = Instant::now();
    let mut client = client_of(&shared.folder).await;
    let mut request = None;
    let mut events: Vec<Event> = Vec::new();
    loop {
        match attempt(&mut client, sort, &mut request, &mut events).await {
            Ok(finished) => return Ok(finished),
            Err(status) if is_away(&status) && since.elapsed() < LONGEST => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                client = client_of(&shared.folder).await;
            }
            Err(status) => return Err(format!("{status:?} after {:?}", since.elapsed())),
        }
    }
}

async fn attempt(
    client: &mut Client,
    sort: &Sort,
    request: &mut Option<proto::v1::StartRunRequest>,
    events: &mut Vec<Event>,
) -> Result<Finished, Status> {
    let request = match request {
        Some(request) => request,
        None => {
            let mut limits = worker::small_limits();
            let mut spec = worker::spec(client, sort.program, limits).await?;
            (sort.change)(&mut spec, &mut limits);
            spec.limits = Some(limits);
            request.insert(worker::request(OWNER, &spec))
        }
    };
    // The same id and bytes are the same run, also where the answer was lost with the worker.
    worker::start(client, request).await?;
    if sort.cancel {
        let call = CancelRunRequest { run_id: request.run_id.clone(), controller_id: OWNER.into() };
        tokio::time::sleep(Duration::from_millis(400)).await;
        client.cancel_run(call).await?;
    }
    worker::watch(client, OWNER, &request.run_id, events).await?;
    let Some(finished) = worker::finished(events).cloned() else {
        return Err(Status::unavailable("the stream ended before the run"));
    };
    let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    if sequences != (1..=finished.last_sequence).collect::<Vec<_>>() {
        return Err(Status::data_loss(format!("the events are not whole: {sequences:?}")));
    }
    worker::release(client, OWNER, &request.run_id, &finished).await?;
    Ok(finished)
}

/// Takes runs until there are none.
async fn hand(shared: Arc<Shared>) {
    loop {
        let number = shared.next.fetch_add(1, Ordering::SeqCst);
        if number >= RUNS {
            return;
        }
        let sort = &SORTS[number % SORTS.len()];
        if let Err(problem) = one(&shared, sort).await {
            shared.wrong.lock().await.push(format!("run {number} ({}): {problem}", sort.name));
        }
        shared.ended.fetch_add(1, Ordering::SeqCst);
    }
}

async fn one(shared: &Shared, sort: &Sort) -> Result<(), String> {
    let finished = follow(shared, sort).await?;
    let outcome = finished.outcome.clone().unwrap_or_default();
    // Also where its worker was killed: what is lost then is a defect.
    if outcome.kind() == sort.kind {
        return Ok(());
    }
    Err(format!("{:?} is wanted, not {outcome:?} with {:?}", sort.kind, finished.usage))
}

/// The least of a few looks: what is in flight at one moment is no growth.
async fn resident(worker: &WorkerProcess) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..20 {
        least = least.min(worker.resident_bytes());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    least
}

#[allow(clippy::print_stderr, reason = "figures of this test for a person, shown with --nocapture")]
fn tell(text: &str) {
    eprintln!("{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_runs_and_five_kills_leave_nothing_and_lose_nothing() {
    let home = Home::new();
    let mut worker = WorkerProcess::start(&home, &[("AUTORESEARCH_WORKER_SLOTS", "2")]);
    drop(worker.ready(&e2e::worker::backend()).await);
    let witness = Witness::of(&home.data_dir());
    let shared = Arc::new(Shared {
        folder: worker.folder.clone(),
        next: AtomicUsize::new(0),
        ended: AtomicUsize::new(0),
        wrong: Mutex::default(),
    });
    let hands: Vec<_> = (0..HANDS).map(|_| kit::task::spawn("hand", hand(Arc::clone(&shared)))).collect();
    let since = Instant::now();
    let reach = async |ends: usize| {
        while shared.ended.load(Ordering::SeqCst) < ends {
            assert!(since.elapsed() < Duration::from_secs(600), "too slow: {:?}", shared.wrong.lock().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // The first process is measured after the first twenty runs. A process that is killed takes its memory with it, so
    // the last one, which carries more than half of all runs, is measured after its own first twenty and at the end.
    reach(WARM).await;
    let first = resident(&worker).await;
    for ends in KILLS {
        reach(ends).await;
        worker.kill();
        worker.restart(&home);
    }
    reach(KILLS[KILLS.len() - 1] + WARM).await;
    let warm = resident(&worker).await;
    reach(RUNS).await;
    for hand in hands {
        hand.await.expect("a hand").expect("no panic");
    }
    let last = resident(&worker).await;
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    tell(&format!(
        "{RUNS} runs in {:?}; resident MiB: {:.1} after the first {WARM}, {:.1} after {WARM} of the last process, \
         {:.1} at the end",
        since.elapsed(),
        mib(first),
        mib(warm),
        mib(last)
    ));
    let wrong = shared.wrong.lock().await.clone();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(last <= first + GROWTH && last <= warm + GROWTH, "{first} and {warm}, then {last} bytes");

    // Nothing is owed any more: no run, and no slot that is taken or set aside.
    let mut client = worker.client().await;
    let told = client.get_worker(GetWorkerRequest {}).await.expect("the worker").into_inner();
    let taken: Vec<_> = told.slots.iter().filter(|slot| slot.busy || !slot.quarantined.is_empty()).collect();
    assert!(taken.is_empty(), "{taken:?}");
    let runs: Vec<_> =
        std::fs::read_dir(worker.folder.join("runs")).into_iter().flatten().flatten().collect();
    assert!(runs.is_empty(), "{runs:?}");
    drop(client);
    worker.stop();
    let seen = witness.seen();
    assert!(seen.processes.len() >= RUNS, "only {} processes were seen", seen.processes.len());
    wait_for("nothing of the programs is left", Duration::from_secs(20), || {
        let left = seen.left();
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    });
    home.assert_nothing_left(Duration::from_secs(20));
}

#[test]
fn a_frame_or_a_state_is_no_end() {
    let event = |kind| Event { sequence: 1, kind: Some(kind), ..Event::default() };
    assert!(worker::finished(&[event(Kind::Frame(proto::v1::Frame::default()))]).is_none());
    assert!(worker::finished(&[event(Kind::Finished(Finished::default()))]).is_some());
    assert!(worker::finished(&[]).is_none());
}
