//! The cgroups of this worker's sandboxes: `autoresearch-WORKER_ID/SANDBOX_ID/{run,supervisor}` under each hierarchy of
//! version 1 (`v1`) or in the delegated subtree of version 2 (`v2`). The limits are on `run`, where PID 1 and the
//! program are; the launcher is in `supervisor`, so that it is found too and counts against nobody's limit.
//!
//! A number of a process may be another's a moment later: every signal goes through a handle that was opened first and
//! checked against the cgroup then.
//!
//! Everything here blocks: call it off the event loop.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{rights::Rights, v1::Hierarchies, v2::Subtree};
use crate::sandbox::{SandboxClass, SandboxId, loops};

/// Before the worker's id in the name of the cgroup that holds all of its sandboxes.
const PREFIX: &str = "autoresearch-";
const NO_V1: &str = "cgroup v1 cannot be left to a plain user: boot with systemd.unified_cgroup_hierarchy=1, or run the worker as root";
const RUN: &str = "run";
const SUPERVISOR: &str = "supervisor";
/// Another sandbox's end may remove the folder that holds all between its making and what is made in it.
const TRIES: u32 = 5;

/// Where this worker makes cgroups.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    kind: Kind,
    /// `autoresearch-WORKER_ID`.
    name: String,
}

#[derive(Debug, Clone)]
enum Kind {
    V1(Hierarchies),
    V2(Subtree),
}

/// The `cgroup.procs` files that a sandbox's processes join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// The launcher's.
    pub supervisor: Vec<PathBuf>,
    /// PID 1's.
    pub run: Vec<PathBuf>,
}

impl Groups {
    /// Version 1 where the kernel's memory controller is there, else version 2.
    ///
    /// # Errors
    /// Why none can be made, and what to do.
    pub(super) fn find(worker_id: &str, rights: &Rights) -> Result<Self, String> {
        let mounts = loops::mounts_of("self").map_err(|e| format!("cannot read the mounts: {e}"))?;
        let kind = match Hierarchies::find(&mounts)? {
            Some(_) if !rights.is_root() => return Err(NO_V1.to_owned()),
            Some(hierarchies) => Kind::V1(hierarchies),
            None => Kind::V2(Subtree::find(&mounts, rights)?),
        };
        Ok(Self { kind, name: format!("{PREFIX}{worker_id}") })
    }

    /// Whether a run can be bound to CPUs.
    pub(super) fn has_cpusets(&self) -> bool {
        match &self.kind {
            Kind::V1(_) => true,
            Kind::V2(subtree) => subtree.has_cpusets(),
        }
    }

    pub(super) fn version(&self) -> u8 {
        match self.kind {
            Kind::V1(_) => 1,
            Kind::V2(_) => 2,
        }
    }

    /// The parents of all of this worker's sandboxes.
    fn parents(&self) -> Vec<PathBuf> {
        match &self.kind {
            Kind::V1(hierarchies) => hierarchies.roots().iter().map(|root| root.join(&self.name)).collect(),
            Kind::V2(subtree) => vec![subtree.base().join(&self.name)],
        }
    }

    /// Makes a sandbox's, with its limits in force before anything is in it. `devices` are the numbers of nodes
    /// that it may open besides those of every sandbox, like "c 195:0".
    ///
    /// # Errors
    /// Names the file. What was made stays: call [`Groups::remove`].
    pub(super) fn create(&self, class: &SandboxClass, devices: &[String]) -> io::Result<Places> {
        let mut tries = 0..TRIES;
        loop {
            match self.try_create(class, devices) {
                Err(e) if e.kind() == io::ErrorKind::NotFound && tries.next().is_some() => {}
                created => return created,
            }
        }
    }

    fn try_create(&self, class: &SandboxClass, devices: &[String]) -> io::Result<Places> {
        let id = class.id.to_string();
        match &self.kind {
            Kind::V1(hierarchies) => {
                hierarchies.create(&self.name, &id, class, devices)?;
                let roots = hierarchies.roots();
                let run = roots.iter().map(|root| root.join(&self.name).join(&id).join(RUN));
                let supervisor = hierarchies.of("pids").join(&self.name).join(&id).join(SUPERVISOR);
                make(&supervisor)?;
                Ok(Places { supervisor: vec![procs(&supervisor)], run: run.map(|run| procs(&run)).collect() })
            }
            Kind::V2(subtree) => {
                let group = subtree.create(&self.name, &id, class)?;
                Ok(Places {
                    supervisor: vec![procs(&group.join(SUPERVISOR))],
                    run: vec![procs(&group.join(RUN))],
                })
            }
        }
    }

    /// Sends a signal to PID 1 of a sandbox.
    pub(super) fn signal_init(&self, id: SandboxId, signal: Signal) {
        self.send(id, &[RUN], signal, is_init);
    }

    /// PID 1 of a sandbox, as the host counts.
    pub(super) fn init_of(&self, id: SandboxId) -> Option<i32> {
        self.processes_in(id, &[RUN]).into_iter().find(|pid| is_init(*pid))
    }

    /// SIGKILL to everything that runs in a sandbox, PID 1 too. Its supervisor takes PID 1's end and goes by itself.
    pub(super) fn kill(&self, id: SandboxId) {
        if let Kind::V2(subtree) = &self.kind {
            let run = subtree.base().join(&self.name).join(id.to_string()).join(RUN);
            // A frozen tree dies by it all the same, but only where the kernel has it (5.14).
            for (file, value) in [("cgroup.freeze", "0"), ("cgroup.kill", "1")] {
                if let Err(error) = fs::write(run.join(file), value) {
                    tracing::debug!(%error, sandbox = %id, file, "the cgroup does not take it");
                }
            }
        }
        self.send(id, &[RUN], Signal::KILL, |_| true);
    }

    /// SIGKILL to a supervisor that does not go: it hangs, or it has not come to make PID 1.
    pub(super) fn kill_supervisor(&self, id: SandboxId) {
        self.send(id, &[SUPERVISOR], Signal::KILL, |_| true);
    }

    fn send(&self, id: SandboxId, leaves: &[&str], signal: Signal, wanted: impl Fn(i32) -> bool) {
        for number in self.processes_in(id, leaves) {
            let Some(handle) = Pid::from_raw(number).and_then(|p| pidfd_open(p, PidfdFlags::empty()).ok())
            else {
                continue; // gone
            };
            if !self.holds(id, number) || !wanted(number) {
                continue;
            }
            if let Err(error) = pidfd_send_signal(&handle, signal) {
                tracing::debug!(%error, sandbox = %id, number, "a process is gone before its signal");
            }
        }
    }

    /// Whether a process is one of a sandbox's.
    pub(super) fn holds(&self, id: SandboxId, pid: i32) -> bool {
        let marker = format!("/{}/{id}/", self.name);
        fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(&marker))
    }

    /// What is in a sandbox's cgroups, as the host counts.
    pub(super) fn processes(&self, id: SandboxId) -> BTreeSet<i32> {
        self.processes_in(id, &[RUN, SUPERVISOR])
    }

    fn processes_in(&self, id: SandboxId, leaves: &[&str]) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        for group in self.parents().into_iter().map(|parent| parent.join(id.to_string())) {
            for leaf in leaves {
                // One that is not there has none.
                let text = fs::read_to_string(procs(&group.join(leaf))).unwrap_or_default();
                found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
            }
        }
        found
    }

    /// Removes what is empty of a sandbox's; idempotent.
    ///
    /// # Errors
    /// What is still there.
    pub(super) fn remove(&self, id: SandboxId) -> io::Result<()> {
        for parent in self.parents() {
            let group = parent.join(id.to_string());
            for folder in [group.join(RUN), group.join(SUPERVISOR), group] {
                remove_folder(&folder)?;
            }
            // Others may be in it.
            if let Err(error) = remove_folder(&parent) {
                tracing::trace!(%error, "other sandboxes are there");
            }
        }
        Ok(())
    }

    /// The sandboxes that have a cgroup.
    pub(super) fn list(&self) -> BTreeSet<SandboxId> {
        let entries = self.parents().into_iter().filter_map(|parent| fs::read_dir(parent).ok());
        entries.flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}

fn is_init(pid: i32) -> bool {
    // The last number is the one in the innermost pid namespace.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.is_some_and(|line| line.split_whitespace().skip(1).last() == Some("1"))
}

fn procs(folder: &Path) -> PathBuf {
    folder.join("cgroup.procs")
}

/// Also where it is there already.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(|e| named(e, folder)),
    }
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|e| named(e, folder)),
    }
}

/// Writes a value into one of the kernel's files; the error names it.
pub(super) fn set(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = folder.join(file);
    fs::write(&path, value).map_err(|e| {
        let value = kit::text::one_line(value, 60);
        io::Error::new(e.kind(), format!("cannot write `{value}` to {}: {e}", path.display()))
    })
}

fn named(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
