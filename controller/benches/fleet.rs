//! A whole fleet: 200 workers with 2,000 slots, 20,000 runs and a bad night (connections cut, workers away, disks wiped),
//! against the real controller code (DESIGN §9: under one core and 500 MB; every run done once). The workers speak the
//! protocol over Unix sockets in a process of their own, so that what is measured is the controller alone. The sinks only
//! check and count; the journal has `benches/journal.rs` for itself and is in the small version among the tests.
//!
//!     cargo bench -p controller --bench fleet --profile dev
//!
//! Prints a table, and ends with 1 where a budget was not kept.

#[path = "../src/fleet/tests/chaos.rs"]
mod chaos;
#[allow(dead_code, reason = "the tests of the fleet do more to it")]
#[path = "../src/fleet/tests/fake_worker.rs"]
mod fake_worker;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use controller::{
    fleet::{
        Dialer, Fleet, FleetError, Link, LinkState, RunEnd, RunSink, SinkError,
        dial::{Unix, over},
    },
    journal::RunId,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use kit::task::CancellationToken;
use nix::sys::resource::{UsageWho, getrusage};
use prost::Message as _;
use proto::v1;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    sync::oneshot,
};

use self::{
    chaos::{Chaos, night},
    fake_worker::{FakeWorker, Shape},
};

const WORKERS: usize = 200;
const SLOTS: u32 = 10;
const RUNS: u32 = 20_000;
/// More than there are slots, so that some always wait.
const AT_ONCE: usize = 2_300;
/// Placed one after another on an idle fleet, to see what placing takes.
const FIRST: u32 = 200;
const EXPERIMENTS: u32 = 20;
const RUN_TIME: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(16));
const CORES: f64 = 1.0;
const MEMORY_MB: f64 = 500.0;
/// Set for the process that plays the workers.
const FOLDER: &str = "FLEET_BENCH_WORKERS";

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match std::env::var_os(FOLDER) {
        Some(folder) => runtime.block_on(workers(Path::new(&folder))),
        None => runtime.block_on(controller()),
    }
}

fn name(number: usize) -> String {
    format!("w{number:03}")
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// The other process: workers until its input ends, then what they saw.
async fn workers(folder: &Path) -> anyhow::Result<()> {
    let workers: Vec<FakeWorker> = (0..WORKERS)
        .map(|number| {
            let retry = Duration::from_secs(2);
            FakeWorker::new(Shape { run_time: RUN_TIME, retry, ..Shape::cpu(&name(number), SLOTS) })
        })
        .collect();
    for worker in &workers {
        let (its, socket) = (worker.clone(), folder.join(&worker.shape.name));
        kit::task::spawn("listen", async move { its.listen(&socket).await });
    }
    say("ready")?;
    let stop = CancellationToken::new();
    let (all, token) = (workers.clone(), stop.clone());
    let chaos = Chaos { pause: Duration::from_millis(100), away: Duration::from_secs(2), wipe_every: 50 };
    let happened = kit::task::spawn("night", async move { night(&all, chaos, token).await });
    let ended = kit::task::blocking("wait for the end", || std::io::stdin().read_to_end(&mut Vec::new()));
    ended.await.context("nobody waits")??;
    stop.cancel();
    let happened = happened.await?.context("the night failed")?;
    let mut begun: BTreeMap<String, u32> = BTreeMap::new();
    for worker in &workers {
        ensure!(worker.seen().most_at_once <= SLOTS as usize, "{} had too many runs", worker.shape.name);
        for (run, times) in worker.seen().begun {
            *begun.entry(run).or_default() += times;
        }
    }
    let twice = begun.values().filter(|times| **times > 1).count();
    let held: usize = workers.iter().map(FakeWorker::held).sum();
    let chaos::Done { cuts, absences, wipes } = happened;
    say(&format!("{} {twice} {held} {cuts} {absences} {wipes}", begun.len()))?;
    Ok(())
}

/// Checks that every event comes once and in order, and that nothing is released before its time.
#[derive(Default)]
struct Counting {
    last: u64,
    finished: bool,
    complete: bool,
    released: bool,
    placed: Option<oneshot::Sender<()>>,
}

#[async_trait]
impl RunSink for Counting {
    fn last_sequence(&self) -> u64 {
        self.last
    }

    async fn placed(&mut self, _: &str, _: &str) -> Result<(), SinkError> {
        if let Some(placed) = self.placed.take() {
            placed.send(()).ok();
        }
        Ok(())
    }

    async fn apply(&mut self, events: Vec<v1::Event>) -> Result<(), SinkError> {
        for event in events {
            if event.sequence != self.last + 1 || self.finished {
                return Err(SinkError(format!("event {} after {}", event.sequence, self.last)));
            }
            self.last = event.sequence;
            self.finished = matches!(event.kind, Some(v1::event::Kind::Finished(_)));
        }
        Ok(())
    }

    fn artifact_path(&self, name: &str) -> Result<PathBuf, SinkError> {
        Err(SinkError(format!("nothing makes an artifact {name} here")))
    }

    async fn complete(&mut self) -> Result<(), SinkError> {
        self.complete = self.finished;
        Ok(())
    }

    async fn released(&mut self) -> Result<(), SinkError> {
        self.released = self.complete;
        Ok(())
    }
}

fn start(number: u32) -> v1::StartRunRequest {
    let label = |key: &str, value: String| v1::Label { key: key.to_owned(), value };
    let spec = v1::RunSpec {
        image: "lite".to_owned(),
        params_json: "{}".to_owned(),
        seed: u64::from(number),
        limits: Some(v1::Limits { time_ms: 60_000, grace_ms: 1_000, ..v1::Limits::default() }),
        labels: vec![
            label("campaign", "c".to_owned()),
            label("experiment", format!("e{}", number % EXPERIMENTS)),
            label("variant", format!("v{}", number % 4)),
        ],
        ..v1::RunSpec::default()
    };
    v1::StartRunRequest {
        run_id: RunId::new().to_string(),
        controller_id: "bench".to_owned(),
        spec: spec.encode_to_vec().into(),
    }
}

/// One job until a run of it has an end of its own; how many of its runs were lost before.
async fn job(fleet: &Fleet, number: u32, mut placed: Option<oneshot::Sender<()>>) -> anyhow::Result<u32> {
    for lost in 0..100 {
        let mut sink = Counting { placed: placed.take(), ..Counting::default() };
        match fleet.run(start(number), &mut sink, &CancellationToken::new()).await? {
            RunEnd::Finished(_) => {
                ensure!(sink.complete && sink.released, "run {number} is not whole");
                return Ok(lost);
            }
            RunEnd::Lost { .. } => {}
            RunEnd::Rejected { field, reason } => bail!("{field}: {reason}"),
        }
    }
    bail!("run {number} was lost a hundred times")
}

async fn controller() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut child = Command::new(std::env::current_exe()?)
        .env(FOLDER, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut told = BufReader::new(child.stdout.take().context("no output")?).lines();
    told.next_line().await?.context("the workers did not start")?;
    let link = |number| Link::unopened(Box::new(Unix::new(&name(number), folder.path().join(name(number)))));
    let begun = Instant::now();
    let fleet = Fleet::new((0..WORKERS).map(link).collect());
    while fleet.states().iter().filter(|state| state.state == LinkState::Open).count() < WORKERS * 9 / 10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let connected = begun.elapsed();
    let plan = planning(&fleet)?;

    let (cpu, begun) = (cpu()?, Instant::now());
    let mut latencies = Vec::new();
    let mut first = Vec::new();
    for number in 0..FIRST {
        let (tell, placed) = oneshot::channel();
        let (fleet, asked) = (fleet.clone(), Instant::now());
        first.push(kit::task::spawn("job", async move { job(&fleet, number, Some(tell)).await }));
        placed.await.ok();
        latencies.push(asked.elapsed());
    }
    let rest = stream::iter(FIRST..RUNS).map(|number| job(&fleet, number, None));
    let mut lost: u32 =
        rest.buffer_unordered(AT_ONCE).try_fold(0, |sum, lost| async move { Ok(sum + lost) }).await?;
    for job in first {
        lost += job.await?.context("a job panicked")??;
    }
    let (wall, used) = (begun.elapsed(), self::cpu()? - cpu);
    let memory = peak_memory_mb()?;

    drop(child.stdin.take());
    let seen = told.next_line().await?.context("the workers say nothing")?;
    let seen: Vec<u64> = seen.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let &[its_runs, twice, held, cuts, absences, wipes] = seen.as_slice() else { bail!("{seen:?}") };
    latencies.sort();
    let cores = used.as_secs_f64() / wall.as_secs_f64();
    say(&format!("{WORKERS} workers, {} slots, {RUNS} runs", WORKERS * SLOTS as usize))?;
    say(&format!("all connected                     {connected:.1?}"))?;
    say(&format!(
        "wall                              {wall:.1?} ({:.0} runs/s)",
        f64::from(RUNS) / wall.as_secs_f64()
    ))?;
    say(&format!("processor time                    {used:.1?}, {cores:.2} cores"))?;
    say(&format!("memory at most                    {memory:.0} MB"))?;
    say(&format!("planning one run over all workers {plan:.1?}"))?;
    say(&format!(
        "placing one run, to its worker's disk and back   {:.2?} median, {:.2?} at 99 %",
        latencies[latencies.len() / 2],
        latencies[latencies.len() * 99 / 100]
    ))?;
    say(&format!(
        "{cuts} connections cut, {absences} absences, {wipes} disks wiped, {lost} runs lost with them"
    ))?;
    say(&format!("{its_runs} runs begun, {twice} of them twice; {held} not released"))?;
    ensure!(twice == 0, "a run was begun twice");
    ensure!(cores < CORES, "over the budget of {CORES} cores");
    ensure!(memory < MEMORY_MB, "over the budget of {MEMORY_MB} MB");
    Ok(())
}

/// The median of some plans, printed to nowhere.
fn planning(fleet: &Fleet) -> anyhow::Result<Duration> {
    let request = start(0);
    let mut spans = Vec::new();
    for _ in 0..201 {
        let begun = Instant::now();
        fleet.plan(&request)?;
        spans.push(begun.elapsed());
    }
    spans.sort();
    Ok(spans[spans.len() / 2])
}

/// Of this process, the system's part included.
fn cpu() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let span = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), u32::try_from(time.tv_usec() * 1000).unwrap_or(0))
    };
    Ok(span(usage.user_time()) + span(usage.system_time()))
}

fn peak_memory_mb() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib * 1024.0 / 1e6)
}
