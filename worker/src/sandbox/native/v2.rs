//! Cgroups of version 2, in a subtree that is the worker's own: a system service with `Delegate=`, or the whole tree.
//! Inner nodes hold no process there, so the worker itself moves to a leaf before the controllers are passed on.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    groups::{make, set},
    rights::Rights,
};
use crate::sandbox::{
    SandboxClass,
    loops::{MountLine, find_tool},
};

/// Without each of these a run is not what it is said to be. The last one systemd does not leave to a user's services
/// unless it is told to, and a quota holds without it.
const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "cpuset"];
const CPUSET: &str = "cpuset";
/// The worker's own leaf; a service names it with `DelegateSubgroup=`, so that it can start anew beside its sandboxes.
const LEAF: &str = "worker";
/// systemd's mark on a subtree that it leaves to others.
const DELEGATED: &str = "trusted.delegate";
const DELEGATED_TO_USERS: &str = "user.delegate";
const PERIOD_MICROS: u64 = 100_000;
const PLAIN_REMEDY: &str = "start the worker with a cgroup of its own: systemd-run --user --scope -p Delegate=yes autoresearch-worker serve";
const REMEDY: &str = "start the worker as a service of its own: systemd-run -p Delegate=yes -p KillMode=process autoresearch-worker serve";

/// The node below which this worker makes its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subtree {
    base: PathBuf,
    /// Those that are passed on.
    controllers: Vec<&'static str>,
    remedy: &'static str,
}

impl Subtree {
    /// Finds the delegated subtree and passes the controllers on in it.
    ///
    /// # Errors
    /// Why there is none, and the command that mends it.
    pub(super) fn find(mounts: &[MountLine], rights: &Rights) -> Result<Self, String> {
        let remedy = if rights.is_root() { REMEDY } else { PLAIN_REMEDY };
        let mount = mounts.iter().find(|m| m.kind == "cgroup2");
        let mount = mount
            .ok_or_else(|| "cgroups are not mounted: mount -t cgroup2 none /sys/fs/cgroup".to_owned())?;
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("/proc/self/cgroup: {e}"))?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        let inside = Path::new(own).strip_prefix(&mount.root);
        let inside = inside.ok().filter(|path| !path.components().any(|c| c == Component::ParentDir));
        let inside =
            inside.ok_or_else(|| format!("this worker's cgroup {own} cannot be seen from here: {remedy}"))?;
        let delegated = |folder: &Path| {
            is_delegated(folder) || (!rights.is_root() && (is_border(folder) || is_given_by_manager(folder)))
        };
        let mut subtree = Self::at(&mount.target, inside, delegated, remedy)?;
        if !rights.is_root() {
            subtree.without_cpusets();
        }
        subtree.pass_on()?;
        Ok(subtree)
    }

    fn at(
        mount: &Path,
        own: &Path,
        delegated: impl Fn(&Path) -> bool,
        remedy: &'static str,
    ) -> Result<Self, String> {
        let with = |base: &Path| Self { base: base.to_owned(), controllers: CONTROLLERS.to_vec(), remedy };
        let own = mount.join(own);
        // The root of all has no type.
        if own == mount && !own.join("cgroup.type").exists() {
            return Ok(with(&own));
        }
        let above = own.parent().filter(|_| own.file_name().is_some_and(|name| name == LEAF));
        let base = above.into_iter().chain([own.as_path()]).find(|folder| delegated(folder));
        match base {
            Some(base) => Ok(with(base)),
            None => Err(format!("the cgroup {} is not this worker's to divide: {remedy}", own.display())),
        }
    }

    /// Goes on without them where they were not left to this user.
    fn without_cpusets(&mut self) {
        let there = fs::read_to_string(self.base.join("cgroup.controllers")).unwrap_or_default();
        if !there.split_whitespace().any(|name| name == CPUSET) {
            self.controllers.retain(|name| *name != CPUSET);
        }
    }

    pub(super) fn has_cpusets(&self) -> bool {
        self.controllers.contains(&CPUSET)
    }

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// Everything that is in the base moves to the leaf, then the controllers go down.
    fn pass_on(&self) -> Result<(), String> {
        let remedy = self.remedy;
        let refused = |e: io::Error| format!("{e}: {remedy}");
        let there = fs::read_to_string(self.base.join("cgroup.controllers")).map_err(refused)?;
        if let Some(missing) = self.controllers.iter().find(|c| !there.split_whitespace().any(|t| t == **c)) {
            return Err(format!(
                "the cgroup controller `{missing}` was not delegated to this worker: {remedy}"
            ));
        }
        if self.base.join("cgroup.type").exists() {
            let leaf = self.base.join(LEAF);
            make(&leaf).map_err(refused)?;
            let processes = fs::read_to_string(self.base.join("cgroup.procs")).map_err(refused)?;
            for pid in processes.lines() {
                // One that has ended meanwhile need not move.
                match set(&leaf, "cgroup.procs", pid) {
                    Err(e) if Path::new("/proc").join(pid).exists() => return Err(refused(e)),
                    _ => {}
                }
            }
        }
        self.enable(&self.base).map_err(refused)
    }

    /// Makes a sandbox's node with its two leaves and the limits; gives the node.
    pub(super) fn create(&self, parent: &str, id: &str, class: &SandboxClass) -> io::Result<PathBuf> {
        let parent = self.base.join(parent);
        let group = parent.join(id);
        make(&parent)?;
        self.enable(&parent)?;
        make(&group)?;
        self.enable(&group)?;
        let run = group.join("run");
        make(&group.join("supervisor"))?;
        make(&run)?;
        let limits = &class.limits;
        set(&run, "memory.max", &limits.memory_bytes.to_string())?;
        // Not there where the kernel has no swap; what is in force is read back before the gate opens.
        if run.join("memory.swap.max").exists() {
            set(&run, "memory.swap.max", "0")?;
        }
        set(&run, "pids.max", &limits.pids.to_string())?;
        let quota = u64::from(limits.cpu_millis) * PERIOD_MICROS / 1000;
        set(&run, "cpu.max", &format!("{quota} {PERIOD_MICROS}"))?;
        if let Some(cpus) = class.slot.cpuset.as_ref().filter(|_| self.has_cpusets()) {
            set(&run, "cpuset.cpus", cpus)?;
        }
        Ok(group)
    }

    fn enable(&self, folder: &Path) -> io::Result<()> {
        let all: Vec<String> = self.controllers.iter().map(|name| format!("+{name}")).collect();
        set(folder, "cgroup.subtree_control", &all.join(" "))
    }
}

/// By the word of the user's own systemd, which before version 254 puts no mark on what it leaves to others.
fn is_given_by_manager(folder: &Path) -> bool {
    let unit = folder.file_name().and_then(|name| name.to_str());
    let unit = unit.filter(|name| name.ends_with(".scope") || name.ends_with(".service"));
    let Some((unit, tool)) = unit.zip(find_tool("systemctl")) else { return false };
    let output = Command::new(tool)
        .args(["--user", "show", "--property=Delegate", "--value", "--", unit])
        .stdin(Stdio::null())
        .output();
    output.is_ok_and(|output| output.status.success() && output.stdout.trim_ascii() == b"yes")
}

/// Where what is this user's begins: nobody but who left it to the user divides what is above.
fn is_border(folder: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let owner = |path: &Path| fs::metadata(path).ok().map(|found| found.uid());
    let whole =
        ["cgroup.procs", "cgroup.subtree_control"].iter().all(|file| owner(&folder.join(file)) == Some(own));
    whole && owner(folder) == Some(own) && folder.parent().and_then(owner).is_some_and(|above| above != own)
}

fn is_delegated(folder: &Path) -> bool {
    let marked = |name: &str| {
        let mut value = [0u8; 8];
        rustix::fs::getxattr(folder, name, &mut value).is_ok_and(|length| value.get(..length) == Some(b"1"))
    };
    marked(DELEGATED) || marked(DELEGATED_TO_USERS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{SandboxId, SandboxLimits, SlotGrant};

    /// A node as the kernel makes it, except that a plain folder takes any value.
    fn node(path: &Path, processes: &str) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("cgroup.type"), "domain\n").unwrap();
        fs::write(path.join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        fs::write(path.join("cgroup.procs"), processes).unwrap();
    }

    fn whole(base: PathBuf) -> Subtree {
        Subtree { base, controllers: CONTROLLERS.to_vec(), remedy: REMEDY }
    }

    #[test]
    fn the_base_is_what_was_delegated_and_the_worker_goes_to_a_leaf() {
        let tree = tempfile::tempdir().unwrap();
        let service = Path::new("system.slice/worker.service");
        node(&tree.path().join(service), &format!("{}\n", std::process::id()));
        let only = |folder: &Path| folder.ends_with("worker.service");
        let subtree = Subtree::at(tree.path(), service, only, REMEDY).unwrap();
        assert_eq!(subtree.base(), tree.path().join(service));
        subtree.pass_on().unwrap();
        let read = |path: &str| fs::read_to_string(subtree.base().join(path)).unwrap();
        assert_eq!(read("worker/cgroup.procs"), std::process::id().to_string());
        assert_eq!(read("cgroup.subtree_control"), "+memory +pids +cpu +cpuset");
        // Started again by a service that names the leaf.
        let again = Subtree::at(tree.path(), &service.join("worker"), only, REMEDY).unwrap();
        assert_eq!(again, subtree);
    }

    #[test]
    fn what_is_not_ours_is_refused_with_the_command_that_mends_it() {
        let tree = tempfile::tempdir().unwrap();
        node(&tree.path().join("user.slice/session-1.scope"), "");
        let refused =
            Subtree::at(tree.path(), Path::new("user.slice/session-1.scope"), |_| false, REMEDY).unwrap_err();
        assert!(refused.contains("systemd-run") && refused.contains("session-1.scope"), "{refused}");
        let bare = tree.path().join("bare.service");
        node(&bare, "");
        fs::write(bare.join("cgroup.controllers"), "cpu memory\n").unwrap();
        let refused = whole(bare).pass_on().unwrap_err();
        assert!(refused.contains("pids") && refused.contains("systemd-run"), "{refused}");
        // The root of the whole tree is nobody else's.
        assert_eq!(Subtree::at(tree.path(), Path::new(""), |_| false, REMEDY).unwrap().base(), tree.path());
    }

    #[test]
    fn the_limits_are_on_the_leaf_of_the_run_alone() {
        let tree = tempfile::tempdir().unwrap();
        node(tree.path(), "");
        let limits = SandboxLimits {
            memory_bytes: 64 << 20,
            cpu_millis: 1500,
            pids: 32,
            disk_bytes: 1,
            shm_bytes: 1,
            log_bytes: [1; 3],
        };
        let slot = SlotGrant { index: 0, uid: 50_000, cpuset: Some("0-1".into()), gpu_uuids: Vec::new() };
        let class =
            SandboxClass { id: SandboxId::new(), image_id: String::new(), slot, limits, layers: Vec::new() };
        let subtree = whole(tree.path().to_owned());
        // The kernel makes the file with the folder.
        let run = tree.path().join("autoresearch-w/i/run");
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("memory.swap.max"), "max").unwrap();
        let group = subtree.create("autoresearch-w", "i", &class).unwrap();
        let read = |path: &str| fs::read_to_string(group.join(path)).unwrap();
        assert_eq!((read("run/memory.max"), read("run/memory.swap.max")), ("67108864".into(), "0".into()));
        assert_eq!((read("run/pids.max"), read("run/cpu.max")), ("32".into(), "150000 100000".into()));
        assert_eq!(read("run/cpuset.cpus"), "0-1");
        assert!(
            !group.join("supervisor/memory.max").exists() && !group.join("run/memory.oom.group").exists()
        );
    }
}
