//! A run that prints 200 MB, each line with its number and a checksum, while the way to its worker is torn every 100 ms, or
//! its worker is killed five times: the controller's file has every byte once and in order, and neither program's memory
//! grows with what passes through it.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use e2e::faults::{
    process,
    record::Record,
    site::{Command, Site, Wishes},
};

const LINES: u64 = 2_000_000;
/// With its end.
const LINE_BYTES: u64 = 100;
const BYTES: u64 = LINES * LINE_BYTES;
/// Over what a program had when the first bytes came.
const GROWTH: u64 = 32 << 20;
const TORN_EVERY: Duration = Duration::from_millis(100);
/// Fewer cuts than this would be no proof: at full speed the whole takes some seconds.
const CUTS: u64 = 20;
const KILLS: u64 = 5;
const LONGEST: Duration = Duration::from_secs(300);

/// Some seconds long, so that there is somebody to kill; each line is its number, a checksum of it, and filling.
const PRINTER: &str = r#"
import sys, time, zlib
out = sys.stdout.buffer
for first in range(0, 2_000_000, 20_000):
    lines = []
    for number in range(first, first + 20_000):
        head = b"%010d" % number
        lines.append(head + b" %08x " % zlib.crc32(head) + b"." * 79 + b"\n")
    out.write(b"".join(lines))
    out.flush()
    time.sleep(0.02)
"#;

const LIMITS: &[(&str, &str)] = &[
    ("AUTORESEARCH_WORKER_LIMITS__DEFAULT__STDOUT", "256MiB"),
    ("AUTORESEARCH_WORKER_LIMITS__DEFAULT__DISK", "1GiB"),
    ("AUTORESEARCH_WORKER_LIMITS__DEFAULT__ARTIFACTS", "8MiB"),
];

/// A process's resident memory: at first, and the most that it was since.
struct Watched {
    over: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    first: u64,
    thread: Option<JoinHandle<()>>,
}

impl Watched {
    fn begin(pid: i32) -> Self {
        process::forget_peak(pid);
        let first = process::memory(pid, "VmRSS").expect("it runs");
        let (over, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(first)));
        let (stop, highest) = (Arc::clone(&over), Arc::clone(&most));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Some(peak) = process::memory(pid, "VmHWM") {
                    highest.fetch_max(peak, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { over, most, first, thread: Some(thread) }
    }

    /// What it grew by.
    fn end(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the watcher");
        }
        self.most.load(Ordering::Relaxed) - self.first
    }
}

#[allow(clippy::print_stderr, reason = "figures of this test for a person, shown with --nocapture")]
fn tell(text: &str) {
    eprintln!("{text}");
}

/// The controller's file of the only run's standard output.
fn file(site: &Site) -> Result<PathBuf, String> {
    let record = Record::read(&site.home.data_dir())?;
    let run = record.runs.first().ok_or("no run yet")?;
    Ok(site.campaign_folder(&record.id).join("runs").join(&run.id).join("stdout"))
}

fn arrived(site: &Site) -> u64 {
    file(site).ok().and_then(|path| path.metadata().ok()).map_or(0, |metadata| metadata.len())
}

fn until(site: &Site, command: &mut Command, bytes: u64) {
    let since = Instant::now();
    loop {
        let now = arrived(site);
        if now >= bytes {
            return;
        }
        if let Err(why) = command.is_running() {
            panic!("{why} after {now} bytes; the worker: {}", site.worker_log());
        }
        if since.elapsed() > LONGEST {
            let told = command.said();
            panic!("{now} bytes of {bytes} in {LONGEST:?}: {told}; the worker: {}", site.worker_log());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn start(site: &Site) -> Command {
    let program = site.home.file("printer.py", PRINTER);
    let program = program.to_str().expect("UTF-8");
    site.start(&["exec", program, "--image", "lite", "--backend", "native", "--output", "json"])
}

/// Every line once and in order.
#[track_caller]
fn whole(site: &Site) {
    let path = file(site).expect("a run");
    assert_eq!(path.metadata().expect("its output").len(), BYTES);
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).expect("its output"));
    let mut line = Vec::new();
    for number in 0..LINES {
        line.clear();
        reader.read_until(b'\n', &mut line).expect("a line");
        let head = format!("{number:010}");
        let wanted = format!("{head} {:08x} ", crc32(head.as_bytes()));
        let right = line.len() as u64 == LINE_BYTES && line.starts_with(wanted.as_bytes());
        assert!(right, "line {number} is {:?}", String::from_utf8_lossy(&line));
    }
}

/// As zlib has it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(!0, step)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[test]
fn two_hundred_megabytes_over_a_way_that_is_cut_every_100_ms() {
    let mut site = Site::new(&Wishes { backend: "native", worker_environment: LIMITS, ..Wishes::default() });
    let mut command = start(&site);
    until(&site, &mut command, 1);
    let (controller, worker) = (Watched::begin(command.pid()), Watched::begin(site.worker.pid()));
    let cutting = site.proxy.cut_every(TORN_EVERY);
    until(&site, &mut command, BYTES);
    drop(cutting);
    let (cuts, dialled) = (site.proxy.cut_so_far(), site.proxy.accepted());
    let ran = command.finish(LONGEST).expect(0);
    let (controller, worker) = (controller.end(), worker.end());
    tell(&format!(
        "{cuts} connections were cut of {dialled}; the controller grew by {:.1} MiB, the worker by {:.1} MiB",
        mib(controller),
        mib(worker)
    ));
    assert!(cuts >= CUTS, "only {cuts} connections were cut");
    assert_eq!(ran.json()["outcome"], "succeeded", "{ran:?}");
    whole(&site);
    assert!(controller < GROWTH && worker < GROWTH, "{controller} and {worker} bytes");
    site.assert_nothing_left();
}

#[test]
fn two_hundred_megabytes_past_five_kills_of_the_worker() {
    let mut site = Site::new(&Wishes { backend: "native", worker_environment: LIMITS, ..Wishes::default() });
    let mut command = start(&site);
    until(&site, &mut command, 1);
    let controller = Watched::begin(command.pid());
    let mut grown = Vec::new();
    for kill in 1..=KILLS {
        let worker = Watched::begin(site.worker.pid());
        until(&site, &mut command, BYTES * kill / (KILLS + 1));
        grown.push(worker.end());
        let before = site.worker.pid();
        site.worker.kill();
        assert_eq!(process::state(before), None, "it is gone");
        site.worker.restart(&site.home);
        site.until_the_worker_listens();
    }
    let worker = Watched::begin(site.worker.pid());
    let ran = command.finish(LONGEST).expect(0);
    grown.push(worker.end());
    let controller = controller.end();
    let most = grown.iter().copied().max().unwrap_or(0);
    tell(&format!(
        "{KILLS} kills; the controller grew by {:.1} MiB, a worker by at most {:.1} MiB",
        mib(controller),
        mib(most)
    ));
    assert_eq!(ran.json()["outcome"], "succeeded", "{ran:?}");
    whole(&site);
    assert!(controller < GROWTH && most < GROWTH, "{controller} and {most} bytes");
    site.assert_nothing_left();
}

#[test]
fn the_checksum_is_zlib_s() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}
