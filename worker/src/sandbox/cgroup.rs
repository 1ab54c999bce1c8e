//! A sandbox's cgroup as the kernel has it, versions 1 and 2 behind one face: what is in force, what was used,
//! which limits were met. The paths come from /proc and are never built from an engine's names.
//!
//! The files are read through cgroups-rs. Its `auto()` hierarchy is not used: it knows the mount points of this
//! process alone and no part of a tree, while a sandbox's folders are found by its process. It answers zeros for
//! what it cannot read, so a reading counts only where the memory limit reads as set, by our own read, after all the
//! rest. What it does not tell is read here: swap beyond memory, `memory.events`, the set of CPUs as text.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use cgroups_rs::fs::{
    MaxValue, cgroup::get_cgroups_relative_paths_by_pid, cpu::CpuController, cpuacct::CpuAcctController,
    memory::MemController, pid::PidController,
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
        let number = u32::try_from(pid).map_err(io::Error::other)?;
        let places = get_cgroups_relative_paths_by_pid(number).map_err(failed)?;
        let mounts = loops::mounts_of("self")?;
        Self::find(&places, |controller| {
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

    /// `places` is `/proc/PID/cgroup` by controller, that of version 2 under the empty name.
    fn find(
        places: &HashMap<String, String>,
        mount: impl Fn(Option<&str>) -> Option<(PathBuf, PathBuf)>,
    ) -> io::Result<Self> {
        let place = |controller: Option<&str>| -> io::Result<PathBuf> {
            let missing =
                |what: &str| io::Error::other(format!("{what} of {}", controller.unwrap_or("cgroup v2")));
            let path = places
                .get(controller.unwrap_or_default())
                .ok_or_else(|| missing("the process has no cgroup"))?;
            let (target, root) = mount(controller).ok_or_else(|| missing("no mount"))?;
            // A worker that runs in a container itself sees only a part of the tree.
            let inside = Path::new(path).strip_prefix(&root).map_err(|_| missing("another root"))?;
            if inside.components().any(|c| c == std::path::Component::ParentDir) {
                return Err(missing("a cgroup outside this namespace"));
            }
            Ok(target.join(inside))
        };
        if places.contains_key("memory") {
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
                    pids: pids_max(pids, false)?,
                    cpu_millis: cpu_millis(cpu, false)?,
                    cpuset: read(cpuset, "cpuset.cpus")?,
                })
            }
            Self::V2(folder) => Ok(Limits {
                memory_bytes: read(folder, "memory.max")?.parse().ok(),
                swap_bytes: read(folder, "memory.swap.max").ok().and_then(|text| text.parse().ok()),
                pids: pids_max(folder, true)?,
                cpu_millis: cpu_millis(folder, true)?,
                cpuset: read(folder, "cpuset.cpus.effective").unwrap_or_default(),
            }),
        }
    }

    /// What was used so far.
    ///
    /// # Errors
    /// Where the cgroup is gone, or its memory limit does not read as set.
    pub(crate) fn counters(&self) -> io::Result<Counters> {
        let (memory, pids, v2) = match self {
            Self::V1 { memory, pids, .. } => (memory, pids, false),
            Self::V2(folder) => (folder, folder, true),
        };
        let stat = controller(memory, |point, root| MemController::new(point, root, v2)).memory_stat();
        let processes = controller(pids, |point, root| PidController::new(point, root, v2));
        let current = processes.get_pid_current().map_err(failed)?;
        // Kernels before 5.19 do not keep the peak in version 2.
        let peak = stat.max_usage_in_bytes.max(stat.usage_in_bytes);
        let mut counters = Counters {
            cpu: Duration::ZERO,
            memory_bytes: stat.usage_in_bytes,
            memory_peak_bytes: peak,
            pids: u32::try_from(current).unwrap_or(u32::MAX),
            oom_kills: stat.oom_control.oom_kill,
            memory_limit_met: false,
            pids_refused: processes.get_pid_events().map_err(failed)?,
        };
        match self {
            Self::V1 { cpuacct, .. } => {
                let used = controller(cpuacct, CpuAcctController::new).cpuacct();
                counters.cpu = Duration::from_nanos(used.usage);
                let limit = self.set_limit()?;
                counters.memory_limit_met = peak.saturating_add(PEAK_TOLERANCE.min(limit / 8)) >= limit;
            }
            Self::V2(folder) => {
                let used = controller(folder, |point, root| CpuController::new(point, root, true)).cpu();
                let micros = field(&used.stat, "usage_usec").unwrap_or_default();
                counters.cpu = Duration::from_micros(micros);
                let events = read(folder, "memory.events")?;
                counters.oom_kills = field(&events, "oom_kill").unwrap_or_default();
                counters.memory_limit_met = field(&events, "oom").unwrap_or_default() > 0;
                self.set_limit()?;
            }
        }
        Ok(counters)
    }

    /// The memory limit, read last: where it is set, nothing that was read before it is the zero of a cgroup that was
    /// gone.
    fn set_limit(&self) -> io::Result<u64> {
        let limit = match self {
            Self::V1 { memory, .. } => v1_limit(&read(memory, "memory.limit_in_bytes")?),
            Self::V2(folder) => read(folder, "memory.max")?.parse().ok(),
        };
        limit.filter(|bytes| *bytes > 0).ok_or_else(unlimited)
    }
}

/// One controller of cgroups-rs on a folder. It takes the folder twice: where it is, and where its tree begins.
fn controller<C>(folder: &Path, make: impl FnOnce(PathBuf, PathBuf) -> C) -> C {
    make(folder.to_owned(), folder.to_owned())
}

fn pids_max(folder: &Path, v2: bool) -> io::Result<Option<u64>> {
    let controller = controller(folder, |point, root| PidController::new(point, root, v2));
    match controller.get_pid_max().map_err(failed)? {
        MaxValue::Max => Ok(None),
        MaxValue::Value(most) => Ok(u64::try_from(most).ok()),
    }
}

/// Thousandths of a CPU, rounded; no quota is a negative one.
fn cpu_millis(folder: &Path, v2: bool) -> io::Result<Option<u64>> {
    let controller = controller(folder, |point, root| CpuController::new(point, root, v2));
    let (quota, period) = (controller.cfs_quota().map_err(failed)?, controller.cfs_period().map_err(failed)?);
    let millis = |quota: u64| quota.checked_mul(1000)?.checked_add(period / 2)?.checked_div(period);
    Ok(u64::try_from(quota).ok().and_then(millis))
}

/// The library's error with the kernel's own words.
fn failed(error: cgroups_rs::fs::error::Error) -> io::Error {
    io::Error::other(error.to_string())
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

/// A value of a file with one `name value` a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// "No limit" in version 1 is the largest number of pages.
fn v1_limit(text: &str) -> Option<u64> {
    text.parse().ok().filter(|bytes| *bytes < 1 << 62)
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
        let places = |all: &[(&str, &str)]| {
            all.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())).collect::<HashMap<_, _>>()
        };
        let mut all = vec![("", "/x")];
        all.extend(["memory", "cpu", "cpuacct", "pids", "cpuset"].map(|name| (name, "/docker/abc")));
        let Cgroup::V1 { memory, cpuacct, .. } = Cgroup::find(&places(&all), mount).unwrap() else {
            panic!("not v1")
        };
        assert_eq!(memory, Path::new("/sys/fs/cgroup/memory/docker/abc"));
        assert_eq!(cpuacct, Path::new("/sys/fs/cgroup/cpuacct/docker/abc"));
        let v2 = Cgroup::find(&places(&[("", "/system.slice/docker-abc.scope")]), mount).unwrap();
        assert_eq!(v2, Cgroup::V2(PathBuf::from("/sys/fs/cgroup/system.slice/docker-abc.scope")));
        assert!(Cgroup::find(&places(&[("", "/../../docker/abc")]), mount).is_err());
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
        let gone = Cgroup::V2(folder.path().join("gone"));
        assert!(gone.counters().is_err() && gone.limits().is_err());
    }
}
