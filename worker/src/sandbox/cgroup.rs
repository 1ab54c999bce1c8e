//! A sandbox's cgroup as the kernel has it, versions 1 and 2 behind one face: what is in force, what was used,
//! which limits were met. The paths come from /proc and are never built from an engine's names, and a reading
//! counts only where the memory limit reads as set, because a cgroup that is gone reads as zeros in libraries.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::loops;

/// Page charges are taken in batches of 64 pages for each CPU (MEMCG_CHARGE_BATCH), and a refused charge is not
/// in the peak: a limit was met where the peak came this near to it. A huge page is the largest single charge.
const PEAK_TOLERANCE: u64 = 4 << 20;

/// The folders of one sandbox's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cgroup {
    /// One folder for each controller.
    V1 { memory: PathBuf, pids: PathBuf, cpu: PathBuf, cpuacct: PathBuf, cpuset: PathBuf },
    /// One folder for all.
    V2(PathBuf),
}

/// What is in force. `None`: no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub memory_bytes: Option<u64>,
    /// Swap beyond memory; `Some(0)` is none, `None` is unlimited, and so is where the kernel does not count it.
    pub swap_bytes: Option<u64>,
    pub pids: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    pub cpuset: String,
}

/// What was used and met since the cgroup was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub cpu: Duration,
    pub memory_bytes: u64,
    pub memory_peak_bytes: u64,
    pub pids: u32,
    pub oom_kills: u64,
    pub memory_limit_met: bool,
    pub pids_refused: u64,
}

impl Cgroup {
    /// Of a process of the host.
    ///
    /// # Errors
    /// Where the process is gone, or its cgroup cannot be seen from here.
    pub(crate) fn of_process(pid: i32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let mounts = loops::mounts_of("self")?;
        Self::find(&text, |controller| {
            let mount = mounts.iter().find(|m| match controller {
                Some(name) => {
                    m.kind == "cgroup"
                        && m.target
                            .file_name()
                            .is_some_and(|f| f.to_string_lossy().split(',').any(|c| c == name))
                }
                None => m.kind == "cgroup2",
            })?;
            Some((mount.target.clone(), mount.root.clone()))
        })
    }

    fn find(text: &str, mount: impl Fn(Option<&str>) -> Option<(PathBuf, PathBuf)>) -> io::Result<Self> {
        let lines: Vec<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.split_once(':').and_then(|(_, rest)| rest.split_once(':')))
            .collect();
        let place = |controller: Option<&str>| -> io::Result<PathBuf> {
            let missing =
                |what: &str| io::Error::other(format!("{what} of {}", controller.unwrap_or("cgroup v2")));
            let line = lines.iter().find(|(controllers, _)| match controller {
                Some(name) => controllers.split(',').any(|c| c == name),
                None => controllers.is_empty(),
            });
            let (_, path) = line.ok_or_else(|| missing("the process has no cgroup"))?;
            let (target, root) = mount(controller).ok_or_else(|| missing("no mount"))?;
            // A worker that runs in a container itself sees only a part of the tree.
            let inside = Path::new(path).strip_prefix(&root).map_err(|_| missing("another root"))?;
            if inside.components().any(|c| c == std::path::Component::ParentDir) {
                return Err(missing("a cgroup outside this namespace"));
            }
            Ok(target.join(inside))
        };
        if lines.iter().any(|(controllers, _)| controllers.split(',').any(|c| c == "memory")) {
            return Ok(Self::V1 {
                memory: place(Some("memory"))?,
                pids: place(Some("pids"))?,
                cpu: place(Some("cpu"))?,
                cpuacct: place(Some("cpuacct"))?,
                cpuset: place(Some("cpuset"))?,
            });
        }
        Ok(Self::V2(place(None)?))
    }

    /// What is in force now.
    ///
    /// # Errors
    /// Where the cgroup is gone.
    pub(crate) fn limits(&self) -> io::Result<Limits> {
        match self {
            Self::V1 { memory, pids, cpu, cpuset, .. } => {
                let memory_bytes = v1_limit(&read(memory, "memory.limit_in_bytes")?);
                // The file is not there where the kernel does not count swap.
                let both = read(memory, "memory.memsw.limit_in_bytes").ok().and_then(|text| v1_limit(&text));
                Ok(Limits {
                    memory_bytes,
                    swap_bytes: both.zip(memory_bytes).map(|(both, memory)| both.saturating_sub(memory)),
                    pids: read(pids, "pids.max")?.parse().ok(),
                    cpu_millis: ratio(&read(cpu, "cpu.cfs_quota_us")?, &read(cpu, "cpu.cfs_period_us")?),
                    cpuset: read(cpuset, "cpuset.cpus")?,
                })
            }
            Self::V2(folder) => {
                let cpu = read(folder, "cpu.max")?;
                Ok(Limits {
                    memory_bytes: read(folder, "memory.max")?.parse().ok(),
                    swap_bytes: read(folder, "memory.swap.max").ok().and_then(|text| text.parse().ok()),
                    pids: read(folder, "pids.max")?.parse().ok(),
                    cpu_millis: cpu.split_once(' ').and_then(|(quota, period)| ratio(quota, period)),
                    cpuset: read(folder, "cpuset.cpus.effective").unwrap_or_default(),
                })
            }
        }
    }

    /// What was used so far.
    ///
    /// # Errors
    /// Where the cgroup is gone, or its memory limit does not read as set.
    pub(crate) fn counters(&self) -> io::Result<Counters> {
        match self {
            Self::V1 { memory, pids, cpuacct, .. } => {
                let limit = v1_limit(&read(memory, "memory.limit_in_bytes")?)
                    .filter(|l| *l > 0)
                    .ok_or_else(unlimited)?;
                let peak = number(memory, "memory.max_usage_in_bytes")?;
                Ok(Counters {
                    cpu: Duration::from_nanos(number(cpuacct, "cpuacct.usage")?),
                    memory_bytes: number(memory, "memory.usage_in_bytes")?,
                    memory_peak_bytes: peak,
                    pids: u32::try_from(number(pids, "pids.current")?).unwrap_or(u32::MAX),
                    oom_kills: field(&read(memory, "memory.oom_control")?, "oom_kill").unwrap_or_default(),
                    memory_limit_met: peak.saturating_add(PEAK_TOLERANCE.min(limit / 8)) >= limit,
                    pids_refused: field(&read(pids, "pids.events")?, "max").unwrap_or_default(),
                })
            }
            Self::V2(folder) => {
                read(folder, "memory.max")?.parse::<u64>().ok().filter(|l| *l > 0).ok_or_else(unlimited)?;
                let events = read(folder, "memory.events")?;
                let now = number(folder, "memory.current")?;
                Ok(Counters {
                    cpu: Duration::from_micros(
                        field(&read(folder, "cpu.stat")?, "usage_usec").unwrap_or_default(),
                    ),
                    memory_bytes: now,
                    // Kernels before 5.19 do not keep the peak.
                    memory_peak_bytes: number(folder, "memory.peak").unwrap_or(now),
                    pids: u32::try_from(number(folder, "pids.current")?).unwrap_or(u32::MAX),
                    oom_kills: field(&events, "oom_kill").unwrap_or_default(),
                    memory_limit_met: field(&events, "oom").unwrap_or_default() > 0,
                    pids_refused: field(&read(folder, "pids.events")?, "max").unwrap_or_default(),
                })
            }
        }
    }
}

fn unlimited() -> io::Error {
    io::Error::other("the memory limit does not read as set: the cgroup is gone")
}

fn read(folder: &Path, file: &str) -> io::Result<String> {
    let path = folder.join(file);
    let text = fs::read_to_string(&path)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    Ok(text.trim().to_owned())
}

fn number(folder: &Path, file: &str) -> io::Result<u64> {
    let text = read(folder, file)?;
    text.parse().map_err(|_| io::Error::other(format!("{file} is `{text}`, not a number")))
}

/// A value of a file with one `name value` a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// "No limit" in version 1 is the largest number of pages.
fn v1_limit(text: &str) -> Option<u64> {
    text.parse().ok().filter(|bytes| *bytes < 1 << 62)
}

/// Thousandths of a CPU, rounded.
fn ratio(quota: &str, period: &str) -> Option<u64> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    quota.checked_mul(1000)?.checked_add(period / 2)?.checked_div(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            fs::write(folder.join(name), format!("{text}\n")).unwrap();
        }
    }

    #[test]
    fn version_1_is_found_by_controller_and_version_2_otherwise() {
        let mount = |controller: Option<&str>| {
            Some((Path::new("/sys/fs/cgroup").join(controller.unwrap_or("")), PathBuf::from("/")))
        };
        let text = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n2:pids:/docker/abc\n1:cpuset:/docker/abc\n0::/x\n";
        let Cgroup::V1 { memory, cpuacct, .. } = Cgroup::find(text, mount).unwrap() else { panic!("not v1") };
        assert_eq!(memory, Path::new("/sys/fs/cgroup/memory/docker/abc"));
        assert_eq!(cpuacct, Path::new("/sys/fs/cgroup/cpuacct/docker/abc"));
        let v2 = Cgroup::find("0::/system.slice/docker-abc.scope\n", mount).unwrap();
        assert_eq!(v2, Cgroup::V2(PathBuf::from("/sys/fs/cgroup/system.slice/docker-abc.scope")));
        assert!(Cgroup::find("0::/../../docker/abc\n", mount).is_err());
    }

    #[test]
    fn version_2_is_read() {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            &[
                ("memory.max", "268435456"),
                ("memory.swap.max", "0"),
                ("memory.current", "1000"),
                ("memory.peak", "2000"),
                ("memory.events", "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0"),
                ("pids.max", "64"),
                ("pids.current", "3"),
                ("pids.events", "max 5"),
                ("cpu.max", "150000 100000"),
                ("cpu.stat", "usage_usec 1500000\nuser_usec 1"),
                ("cpuset.cpus.effective", "0-1"),
            ],
        );
        let cgroup = Cgroup::V2(folder.path().to_owned());
        let limits = cgroup.limits().unwrap();
        assert_eq!(
            (limits.memory_bytes, limits.swap_bytes, limits.pids),
            (Some(268_435_456), Some(0), Some(64))
        );
        assert_eq!(limits.cpu_millis, Some(1500));
        let read = cgroup.counters().unwrap();
        assert_eq!((read.oom_kills, read.memory_limit_met, read.pids_refused), (1, true, 5));
        assert_eq!((read.cpu, read.memory_peak_bytes), (Duration::from_millis(1500), 2000));
    }

    #[test]
    fn version_1_meets_its_limit_by_the_peak_and_a_cgroup_that_is_gone_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let here = || folder.path().to_owned();
        let cgroup =
            Cgroup::V1 { memory: here(), pids: here(), cpu: here(), cpuacct: here(), cpuset: here() };
        write(
            folder.path(),
            &[
                ("memory.limit_in_bytes", "67108864"),
                ("memory.memsw.limit_in_bytes", "67108864"),
                ("memory.usage_in_bytes", "5"),
                ("memory.max_usage_in_bytes", "67100000"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3"),
                ("pids.max", "max"),
                ("pids.current", "2"),
                ("pids.events", "max 0"),
                ("cpuacct.usage", "1000000000"),
                ("cpu.cfs_quota_us", "-1"),
                ("cpu.cfs_period_us", "100000"),
                ("cpuset.cpus", "0"),
            ],
        );
        let read = cgroup.counters().unwrap();
        assert_eq!((read.oom_kills, read.memory_limit_met, read.cpu), (3, true, Duration::from_secs(1)));
        let limits = cgroup.limits().unwrap();
        assert_eq!((limits.swap_bytes, limits.pids, limits.cpu_millis), (Some(0), None, None));
        write(folder.path(), &[("memory.max_usage_in_bytes", "30000000")]);
        assert!(!cgroup.counters().unwrap().memory_limit_met);
        write(folder.path(), &[("memory.limit_in_bytes", "0")]);
        assert!(cgroup.counters().is_err());
    }
}
