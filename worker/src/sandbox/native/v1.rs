//! Cgroups of version 1, where the worker is root: a tree for each controller. Weaker than version 2: it cannot be
//! delegated, nothing kills a tree at once, and no controller sees what another one does.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::groups::{make, set};
use crate::sandbox::{SandboxClass, loops::MountLine};

/// All are needed: the first is how version 1 is known.
const CONTROLLERS: [&str; 6] = ["memory", "pids", "cpu", "cpuacct", "cpuset", "devices"];
/// null, zero, full, random, urandom: nothing is made, so `m` is given to none.
const DEVICES: [&str; 5] = ["c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9"];
const PERIOD_MICROS: u64 = 100_000;

/// The mount of each controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchies(BTreeMap<&'static str, PathBuf>);

impl Hierarchies {
    /// `None` where version 1 is not in use.
    ///
    /// # Errors
    /// Which controller is missing.
    pub(super) fn find(mounts: &[MountLine]) -> Result<Option<Self>, String> {
        let of = |controller: &'static str| {
            let mount = mounts.iter().find(|m| {
                let names = m.target.file_name().map(|name| name.to_string_lossy().into_owned());
                m.kind == "cgroup" && names.is_some_and(|names| names.split(',').any(|n| n == controller))
            });
            mount.map(|m| (controller, m))
        };
        if of("memory").is_none() {
            return Ok(None);
        }
        let mut found = BTreeMap::new();
        for controller in CONTROLLERS {
            let (name, mount) = of(controller).ok_or_else(|| {
                format!("the cgroup controller `{controller}` is not mounted: mount it below /sys/fs/cgroup")
            })?;
            if mount.root != Path::new("/") {
                return Err(
                    "this is a container: it sees a part of the cgroups only; run the worker on the host"
                        .to_owned(),
                );
            }
            found.insert(name, mount.target.clone());
        }
        Ok(Some(Self(found)))
    }

    /// Each once, also where a mount has several controllers.
    pub(super) fn roots(&self) -> Vec<&Path> {
        let mut roots: Vec<&Path> = self.0.values().map(PathBuf::as_path).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }

    /// The mount of one of them.
    pub(super) fn of(&self, controller: &'static str) -> &Path {
        self.0.get(controller).map_or(Path::new("/nowhere"), PathBuf::as_path)
    }

    /// Makes the folders and sets the limits, on nothing yet.
    pub(super) fn create(
        &self,
        parent: &str,
        id: &str,
        class: &SandboxClass,
        devices: &[String],
    ) -> io::Result<()> {
        for root in self.roots() {
            make_path(root, parent, id)?;
        }
        let run = |controller| self.of(controller).join(parent).join(id).join("run");
        let limits = &class.limits;
        let memory = run("memory");
        let bytes = limits.memory_bytes.to_string();
        set(&memory, "memory.limit_in_bytes", &bytes)?;
        // Not there where the kernel does not count swap; what is in force is read back before the gate opens.
        if memory.join("memory.memsw.limit_in_bytes").exists() {
            set(&memory, "memory.memsw.limit_in_bytes", &bytes)?;
        }
        set(&run("pids"), "pids.max", &limits.pids.to_string())?;
        let quota = u64::from(limits.cpu_millis) * PERIOD_MICROS / 1000;
        set(&run("cpu"), "cpu.cfs_period_us", &PERIOD_MICROS.to_string())?;
        set(&run("cpu"), "cpu.cfs_quota_us", &quota.to_string())?;
        if let Some(cpus) = &class.slot.cpuset {
            set(&run("cpuset"), "cpuset.cpus", cpus)?;
        }
        set(&run("devices"), "devices.deny", "a")?;
        for device in DEVICES.into_iter().chain(devices.iter().map(String::as_str)) {
            set(&run("devices"), "devices.allow", &format!("{device} rw"))?;
        }
        Ok(())
    }
}

fn make_path(root: &Path, parent: &str, id: &str) -> io::Result<()> {
    let mut folder = root.to_owned();
    for name in [parent, id, "run"] {
        let above = folder.clone();
        folder.push(name);
        make(&folder)?;
        // A set of CPUs begins empty, and takes no process then.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if above.join(file).exists() {
                let all = fs::read_to_string(above.join(file))?;
                set(&folder, file, all.trim())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{SandboxId, SandboxLimits, SlotGrant};

    fn mount(target: &str, root: &str) -> MountLine {
        MountLine {
            root: root.into(),
            target: target.into(),
            options: "rw".into(),
            kind: "cgroup".into(),
            source: "cgroup".into(),
            shared: false,
            of_system: "rw".into(),
        }
    }

    #[test]
    fn the_hierarchies_are_found_also_where_two_share_a_mount() {
        let mut mounts: Vec<MountLine> =
            ["memory", "pids", "cpu,cpuacct", "cpuset"].map(|n| mount(&format!("/c/{n}"), "/")).into();
        assert!(Hierarchies::find(&mounts).unwrap_err().contains("devices"));
        mounts.push(mount("/c/devices", "/"));
        let found = Hierarchies::find(&mounts).unwrap().unwrap();
        assert_eq!(found.of("cpuacct"), Path::new("/c/cpu,cpuacct"));
        assert_eq!(found.roots().len(), 5);
        mounts[0].root = "/docker/x".into();
        assert!(Hierarchies::find(&mounts).unwrap_err().contains("container"));
        assert_eq!(Hierarchies::find(&mounts[1..]), Ok(None));
    }

    #[test]
    fn the_limits_are_written_before_anything_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = BTreeMap::new();
        for name in CONTROLLERS {
            let root = folder.path().join(name);
            fs::create_dir(&root).unwrap();
            all.insert(name, root);
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            fs::write(folder.path().join("cpuset").join(file), "0-3\n").unwrap();
        }
        let limits = SandboxLimits {
            memory_bytes: 64 << 20,
            cpu_millis: 1500,
            pids: 32,
            disk_bytes: 1,
            shm_bytes: 1,
            log_bytes: [1; 3],
        };
        let slot = SlotGrant { index: 0, uid: 50_000, cpuset: Some("1".into()), gpu_uuids: Vec::new() };
        let class =
            SandboxClass { id: SandboxId::new(), image_id: String::new(), slot, limits, layers: Vec::new() };
        Hierarchies(all).create("autoresearch-w", "i", &class, &["c 195:0".into()]).unwrap();
        let read = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
        assert_eq!(read("memory/autoresearch-w/i/run/memory.limit_in_bytes"), "67108864");
        assert_eq!(read("pids/autoresearch-w/i/run/pids.max"), "32");
        assert_eq!(read("cpu/autoresearch-w/i/run/cpu.cfs_quota_us"), "150000");
        assert_eq!(read("cpuset/autoresearch-w/i/run/cpuset.cpus"), "1");
        assert_eq!(read("cpuset/autoresearch-w/i/cpuset.mems"), "0-3");
        assert_eq!(read("devices/autoresearch-w/i/run/devices.allow"), "c 195:0 rw");
    }
}
