//! Looks at a data folder's sandboxes from outside while they run: which processes live in their mount namespaces, and in
//! which cgroups. It asks the kernel alone, so that what it says does not depend on our own programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::leftovers;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(20);
/// The first uid of a slot's program.
const FIRST_UID: u32 = 50_000;

/// A process as the kernel tells processes apart: a number is given again, with another start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// On this host.
    pub pid: i32,
    /// Ticks since boot.
    pub started: u64,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything: what follows its last parenthesis is numbers. The start time is field 22.
        let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, started })
    }

    /// Whether it is still there, a zombie included.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::read(self.pid).as_ref() == Some(self)
    }
}

/// What was seen of a data folder's sandboxes.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Of the programs' uids.
    pub processes: BTreeSet<Process>,
    /// Of the processes, as folders of the cgroup file systems.
    pub cgroups: BTreeSet<PathBuf>,
    /// When a program's first process was seen, and when the last one was, for each uid.
    pub alive: BTreeMap<u32, (Instant, Instant)>,
    /// The most processes of programs at a time.
    pub most: usize,
    /// The highest peak of memory that any of the cgroups told, in bytes.
    pub memory_peak: u64,
}

impl Seen {
    /// One line for each process and cgroup that is still there.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let processes = self.processes.iter().filter(|process| process.is_alive());
        let cgroups = self.cgroups.iter().filter(|folder| folder.exists());
        let processes = processes.map(|process| format!("process {} of a program", process.pid));
        processes.chain(cgroups.map(|folder| format!("cgroup {}", folder.display()))).collect()
    }

    /// When a program's last process was seen.
    #[must_use]
    pub fn last_alive(&self) -> Option<Instant> {
        self.alive.values().map(|(_, last)| *last).max()
    }
}

/// Looks until it is asked what it saw.
#[derive(Debug)]
pub struct Witness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Witness {
    /// Begins to look.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        let (stop, folder) = (Arc::new(AtomicBool::new(false)), data_dir.to_owned());
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !asked.load(Ordering::Relaxed) {
                look(&folder, &mut seen);
                std::thread::sleep(EVERY);
            }
            seen
        });
        Self { stop, thread }
    }

    /// Ends the looking.
    ///
    /// # Panics
    /// Where the looking itself failed.
    #[must_use]
    pub fn seen(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the witness")
    }
}

fn look(data_dir: &Path, seen: &mut Seen) {
    let devices: Vec<String> =
        leftovers::loops(data_dir).into_iter().map(|name| format!(" /dev/{name} ")).collect();
    if devices.is_empty() {
        return;
    }
    let host = data_dir.display().to_string();
    let own = fs::read_link("/proc/self/ns/mnt").unwrap_or_default();
    let mut now = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let folder = entry.path();
        if fs::read_link(folder.join("ns/mnt")).map_or(true, |namespace| namespace == own) {
            continue;
        }
        let mounts = fs::read_to_string(folder.join("mountinfo")).unwrap_or_default();
        // Somebody's new namespace has copies of all of the host's mounts; a sandbox has none of them.
        if mounts.contains(&host) || !devices.iter().any(|device| mounts.contains(device)) {
            continue;
        }
        let cgroups = fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
        for group in cgroups.lines().flat_map(cgroup_folders) {
            for name in ["memory.max_usage_in_bytes", "memory.peak"] {
                let peak =
                    fs::read_to_string(group.join(name)).ok().and_then(|text| text.trim().parse().ok());
                seen.memory_peak = seen.memory_peak.max(peak.unwrap_or(0));
            }
            seen.cgroups.insert(group);
        }
        let Some(uid) = uid_of(&folder).filter(|uid| *uid >= FIRST_UID) else { continue };
        let Some(process) = Process::read(pid) else { continue };
        seen.processes.insert(process);
        let at = Instant::now();
        seen.alive.entry(uid).and_modify(|(_, last)| *last = at).or_insert((at, at));
        now += 1;
    }
    seen.most = seen.most.max(now);
}

fn uid_of(folder: &Path) -> Option<u32> {
    let status = fs::read_to_string(folder.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

/// `4:memory:/docker/ID` lies below the hierarchy of `memory`, `0::/x` below the unified one. The root is nobody's own.
fn cgroup_folders(line: &str) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let path = path.trim_start_matches('/');
    // Only a group that is a sandbox's own: the engine's is named by the container, ours by worker and sandbox.
    if !path.split('/').any(|name| name.len() >= 32) {
        return Vec::new();
    }
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies =
        if controllers.is_empty() { vec!["", "unified"] } else { controllers.split(',').collect() };
    hierarchies.into_iter().map(|hierarchy| root.join(hierarchy).join(path)).collect()
}
