//! Limits are hard: each is met by a program that pushes against it, and is looked at from outside or in what is kept of the
//! run. Over the worker's real binary and its protocol, because the limits of logs and metrics are not flags of `exec`.

use std::time::{Duration, Instant};

use e2e::{
    Home, wait_for,
    witness::{Seen, Witness},
    worker::{self, WorkerProcess},
};
use proto::v1::{Event, Finished, Gap, Limits, OutcomeKind, RunSpec, Stream, event::Kind};

const OWNER: &str = "0190a5c8-0000-7000-8000-00000000000a";
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Of the file system.
const BLOCK: u64 = 4 << 10;
/// The kernel charges some of its own pages without asking; they are few.
const FORCED: u64 = 64 << 10;
/// Taken of a stream at the end, past its limit.
const LAST: u64 = 64 << 10;
/// From limit and grace to the last process gone, on a machine that is busy with other tests.
const SLACK: Duration = Duration::from_secs(3);

struct Ran {
    events: Vec<Event>,
    finished: Finished,
    seen: Seen,
}

impl Ran {
    /// One program on a worker of its own.
    async fn of(program: &str, limits: Limits, change: impl FnOnce(&mut RunSpec)) -> Self {
        let home = Home::new();
        let mut worker = WorkerProcess::start(&home, &[("AUTORESEARCH_WORKER_SLOTS", "1")]);
        let mut client = worker.ready(&worker::backend()).await;
        let mut spec = worker::spec(&mut client, program, limits).await.expect("a spec");
        change(&mut spec);
        let witness = Witness::of(&home.data_dir());
        let (events, finished) = worker::run(&mut client, OWNER, &spec).await;
        let seen = witness.seen();
        drop(client);
        worker.stop();
        wait_for("nothing of the program is left", Duration::from_secs(20), || {
            let left = seen.left();
            if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
        });
        Self { events, finished, seen }
    }

    #[track_caller]
    fn expect(&self, kind: OutcomeKind) {
        let outcome = self.finished.outcome.clone().unwrap_or_default();
        assert_eq!(outcome.kind(), kind, "{outcome:?}");
    }

    fn usage(&self) -> proto::v1::UsageTotals {
        self.finished.usage.clone().expect("its use")
    }

    /// What was sent of a stream, in order, however many frames.
    fn sent(&self, stream: Stream) -> Vec<u8> {
        let frames = self.events.iter().filter_map(|event| match &event.kind {
            Some(Kind::Frame(frame)) if frame.stream() == stream => Some(&frame.data),
            _ => None,
        });
        frames.flat_map(|data| data.iter().copied()).collect()
    }

    fn points(&self) -> usize {
        let points = self.events.iter().map(|event| match &event.kind {
            Some(Kind::Frame(frame)) => frame.points.len(),
            _ => 0,
        });
        points.sum()
    }

    fn gaps(&self, stream: Stream) -> Vec<&Gap> {
        let gaps = self.events.iter().filter_map(|event| match &event.kind {
            Some(Kind::Gap(gap)) if gap.stream() == stream => Some(gap),
            _ => None,
        });
        gaps.collect()
    }

    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.sent(Stream::Stdout)).into_owned()
    }
}

/// Figures are told, so that a slow worker is seen before it is too slow.
#[allow(clippy::print_stderr, reason = "a figure of this test for a person, shown with --nocapture")]
fn tell(what: &str, figure: impl std::fmt::Debug) {
    eprintln!("{what}: {figure:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_process_is_gone_soon_after_limit_and_grace() {
    let program = r#"
import os, signal, time
def deaf():
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
deaf()
for _ in range(8):
    try: child = os.fork()
    except OSError: break
    if child == 0:
        os.setsid()
        while True:
            try:
                if os.fork() == 0: os.setsid()
            except OSError: time.sleep(0.01)
while True: pass
"#;
    let (limit, grace) = (Duration::from_millis(2000), Duration::from_millis(500));
    let limits = Limits { time_ms: 2000, grace_ms: 500, pids: 32, ..worker::small_limits() };
    let ran = Ran::of(program, limits, |_| {}).await;
    ran.expect(OutcomeKind::TimedOut);
    assert!(ran.seen.most >= 8, "only {} processes were seen at a time", ran.seen.most);
    let first: Option<Instant> = ran.seen.alive.values().map(|(first, _)| *first).min();
    let lived = ran.seen.last_alive().expect("processes").duration_since(first.expect("processes"));
    let over = lived.saturating_sub(limit + grace);
    tell("seen from outside past limit and grace", over);
    assert!(over <= SLACK, "the last process was seen {over:?} past limit and grace");
    let wall = Duration::from_millis(ran.usage().wall_ms);
    tell("by the worker's own clock past limit and grace", wall.saturating_sub(limit + grace));
    assert!(wall >= limit && wall <= limit + grace + SLACK, "{wall:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_time_is_never_above_its_share() {
    let program = r#"
import os, time
until = time.monotonic() + 3
for _ in range(3): os.fork()
while time.monotonic() < until: pass
"#;
    let ran = Ran::of(program, Limits { cpu_millis: 500, ..worker::small_limits() }, |_| {}).await;
    let usage = ran.usage();
    let (wall, cpu) = (usage.wall_ms, usage.cpu_ns / 1_000_000);
    tell("ms of CPU, and of wall clock, with half a CPU", (cpu, wall));
    // A period of the scheduler may be begun on each of the CPUs.
    assert!(ran.seen.most >= 8 && cpu <= wall / 2 + 400, "{cpu} ms of CPU in {wall} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_never_above_its_limit() {
    // Heap, shared memory, page cache and many processes, all at once.
    let program = r#"
import os, time
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        held = b"x" * (40 << 20)
        time.sleep(5)
        os._exit(0)
    children.append(child)
with open("big", "wb") as file:
    for _ in range(24): file.write(os.urandom(1 << 20))
open("big", "rb").read()
with open("/dev/shm/x", "wb") as file: file.write(bytes(8 << 20))
ends = [os.waitpid(child, 0)[1] for child in children]
raise SystemExit(any(ends))
"#;
    let limit = 80 * MIB;
    let limits = Limits { memory_bytes: limit, ..worker::small_limits() };
    let ran = Ran::of(program, limits, |_| {}).await;
    ran.expect(OutcomeKind::OutOfMemory);
    assert!(ran.finished.outcome.as_ref().is_some_and(|outcome| outcome.child), "{:?}", ran.finished.outcome);
    let usage = ran.usage();
    tell("peaks of memory under a limit of 80 MiB", (usage.memory_peak_bytes, ran.seen.memory_peak));
    for peak in [usage.memory_peak_bytes, ran.seen.memory_peak] {
        assert!(peak > limit / 2 && peak <= limit + FORCED, "a peak of {peak} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_is_never_above_its_limit() {
    let program = r#"
import os
written, number = 0, 0
os.mkdir("many")
try:
    while True:
        number += 1
        file = os.open(f"many/{number % 50}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        written += os.write(file, b"x" * 40_960)
        os.close(file)
except OSError as error:
    print("errno", error.errno)
for folder in (".", "/tmp"):
    try:
        file = os.open(folder + "/last", os.O_CREAT | os.O_WRONLY)
        while True: written += os.write(file, b"x" * 512)
    except OSError:
        pass
print("written", written, flush=True)
raise SystemExit(1)
"#;
    let limit = 32 * MIB;
    let ran = Ran::of(program, Limits { disk_bytes: limit, ..worker::small_limits() }, |_| {}).await;
    ran.expect(OutcomeKind::LimitExceeded);
    let stdout = ran.stdout();
    let written = stdout.lines().find_map(|line| line.strip_prefix("written ")).expect("how much it wrote");
    let written: u64 = written.parse().expect("a number");
    tell("written under a limit of 32 MiB, and told as used", (written, ran.usage().disk_peak_bytes));
    assert!(stdout.contains("errno 28"), "{stdout}");
    assert!(written <= limit + BLOCK, "{written} bytes were written");
    assert!(written >= limit - limit / 8, "of {limit} bytes it got only {written}");
    assert!(ran.usage().disk_peak_bytes <= limit + BLOCK, "{:?}", ran.usage());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_of_a_log_is_kept_than_its_limit_and_a_gap_says_what_was_dropped() {
    let program = r#"
import os, sys
for number in range(40_000):
    os.write(1, b"%099d\n" % number)
    if number % 4 == 0: os.write(2, b"%099d\n" % number)
print("the last line")
raise KeyError("the last error")
"#;
    let limit = 256 * KIB;
    let limits = Limits { stdout_bytes: limit, stderr_bytes: limit, ..worker::small_limits() };
    let ran = Ran::of(program, limits, |_| {}).await;
    ran.expect(OutcomeKind::Failed);
    for (stream, least, last) in [
        (Stream::Stdout, 4_000_000, "the last line\n"),
        (Stream::Stderr, 1_000_000, "KeyError: 'the last error'\n"),
    ] {
        let sent = ran.sent(stream);
        let gaps = ran.gaps(stream);
        let [gap] = gaps.as_slice() else { panic!("one gap is wanted for {stream:?}: {gaps:?}") };
        let kept = sent.len() as u64;
        assert!(kept <= limit + LAST, "{kept} bytes of {stream:?} were sent");
        assert!(kept + gap.dropped_bytes >= least, "{kept} bytes and {gap:?} are not all of {stream:?}");
        assert!(gap.from_offset <= limit && gap.reason.contains("256KiB"), "{gap:?}");
        assert!(String::from_utf8_lossy(&sent).ends_with(last), "the last of {stream:?} is there");
        assert!(sent.starts_with(format!("{:099}\n", 0).as_bytes()), "the first of {stream:?} is there");
    }
    let usage = ran.usage();
    assert_eq!(usage.stdout_bytes, 4_000_014, "{usage:?}");
    let exception = ran.finished.outcome.clone().unwrap_or_default().exception_class;
    assert_eq!(exception, "KeyError");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_metrics_are_kept_than_their_limits_and_a_gap_says_what_was_dropped() {
    let program = r#"
import os
for part in range(100):
    os.write(3, b"".join(b'{"t":%d,"step":%d,"v":{"loss":"0.5"}}\n' % (n, n) for n in range(part * 100, part * 100 + 100)))
"#;
    // By bytes.
    let limits = Limits { metrics_bytes: 100 * KIB, ..worker::small_limits() };
    let ran = Ran::of(program, limits, |_| {}).await;
    let kept = ran.sent(Stream::Metrics).len() as u64;
    assert!(kept <= 100 * KIB + LAST, "{kept} bytes of metrics were sent");
    assert!(
        ran.gaps(Stream::Metrics).iter().any(|gap| gap.dropped_bytes > 0),
        "{:?}",
        ran.gaps(Stream::Metrics)
    );
    // By count, and one that was asked for is not whole.
    let limits = Limits { metric_points: 1000, ..worker::small_limits() };
    let ran = Ran::of(program, limits, |spec| spec.required_metrics = vec!["loss".to_owned()]).await;
    assert_eq!((ran.points(), ran.usage().metric_points), (1000, 1000));
    let gaps = ran.gaps(Stream::Metrics);
    assert!(gaps.iter().any(|gap| gap.dropped_points == 9000), "{gaps:?}");
    ran.expect(OutcomeKind::MissingMetrics);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_before_its_metrics_is_told_so() {
    let program = "import os, sys\nprint('accuracy: 0.99')\nsys.stdout.flush()\nos._exit(0)\n";
    let ran = Ran::of(program, worker::small_limits(), |spec| {
        spec.required_metrics = vec!["accuracy".to_owned()];
    })
    .await;
    ran.expect(OutcomeKind::MissingMetrics);
    assert_eq!(ran.finished.outcome.clone().unwrap_or_default().metrics, ["accuracy"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_silences_neither_traceback_nor_metrics() {
    let program = r#"
import os
import autoresearch as ar
try:
    with open("big", "wb", buffering=0) as file:
        while True: file.write(b"x" * 65536)
except OSError:
    pass
try:
    rest = os.open("/tmp/x", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    while True: os.write(rest, b"x")
except OSError:
    pass
for step in range(2000): ar.log(step=step, loss=1.0 / (step + 1))
print("x" * 100_000)
raise ValueError("said on a full disk")
"#;
    let ran = Ran::of(program, worker::small_limits(), |_| {}).await;
    ran.expect(OutcomeKind::LimitExceeded);
    assert_eq!(ran.points(), 2000);
    assert_eq!(ran.sent(Stream::Stdout).len(), 100_001);
    let outcome = ran.finished.outcome.clone().unwrap_or_default();
    assert_eq!((outcome.limit.as_str(), outcome.exception_class.as_str()), ("disk", "ValueError"));
    assert!(outcome.traceback.contains("line 16"), "{}", outcome.traceback);
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_are_never_above_their_limits() {
    let program = r#"
import os
os.makedirs("artifacts", exist_ok=True)
for number in range(40): open(f"artifacts/{number:02}", "wb").write(os.urandom(100_000))
"#;
    let limits = Limits { artifact_bytes: MIB, artifact_files: 100, ..worker::small_limits() };
    let ran = Ran::of(program, limits, |_| {}).await;
    ran.expect(OutcomeKind::LimitExceeded);
    let bytes: u64 = ran.finished.artifacts.iter().map(|artifact| artifact.size_bytes).sum();
    assert_eq!((bytes, ran.finished.artifacts.len()), (1_000_000, 10));
    assert_eq!(ran.finished.left_out.len(), 30, "what was left out is named");
}
