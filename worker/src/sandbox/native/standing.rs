//! How each rule of the sandbox stands on this host without an engine: as the self-test saw it, and before that as it
//! is built.

use super::prove::Proof;
use crate::sandbox::rules::{RuleId, Standing};

const ELSEWHERE: &str = "use the docker backend on this host, or another host";

/// What the answers depend on.
#[derive(Debug)]
pub(super) struct Host<'a> {
    /// `None` before the first run.
    pub proof: Option<&'a Proof>,
    /// Of the cgroups: 1 or 2.
    pub version: u8,
    /// /proc/sys/kernel/core_pattern.
    pub core_pattern: &'a str,
    /// Whether this worker is root.
    pub root: bool,
    /// Whether runs can be bound to CPUs.
    pub cpusets: bool,
}

const AS_ROOT: &str =
    "run the worker as root: sudo systemd-run -p Delegate=yes -p KillMode=process autoresearch-worker serve";
const CPUSETS: &str = "sudo mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo tee /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload";

/// As it was seen, where a test tried it and it did not hold; else as it is built.
pub(super) fn of(host: &Host<'_>, rule: RuleId) -> Standing {
    match host.proof.and_then(|proof| proof.open.get(rule.name())) {
        Some(what) => Standing::not_enforced(what.clone(), ELSEWHERE),
        None => as_built(host, rule),
    }
}

/// No wildcard here: a new rule must be answered.
fn as_built(host: &Host<'_>, rule: RuleId) -> Standing {
    let yes = |how: &str| Standing::enforced(how);
    let counted = |how: &str| Standing::enforced(format!("{how}, by cgroup v{}, read back", host.version));
    match rule {
        RuleId::Identity if !host.root => yes(
            "a uid of the slot's own of this user's range; PID 1 is the root of a user namespace, and this user outside",
        ),
        RuleId::Identity => yes("a uid of the slot's own; PID 1 is the sandbox's root"),
        RuleId::Capabilities => yes("none for the program; SETUID, SETGID and KILL for PID 1, read back"),
        RuleId::NoNewPrivileges => yes("set before PID 1 is started, read back"),
        RuleId::Seccomp => yes("our own table, refused by default; the filter is read back"),
        RuleId::Namespaces if !host.root => {
            yes("users, processes, IPC, host name, mounts, network and cgroups")
        }
        RuleId::Namespaces => {
            yes("processes, IPC, host name, mounts, network and cgroups; the user namespace is the host's")
        }
        RuleId::Files => yes("read-only root and binds, read back from the mount table"),
        RuleId::Network => yes("a network namespace with no interface but its own loopback, read back"),
        RuleId::Memory => counted("a hard limit"),
        RuleId::Swap => counted("none beyond the memory"),
        RuleId::SharedMemory => yes("a tmpfs with a size, charged to the memory, read back"),
        RuleId::Processes => counted("a hard limit on processes and threads"),
        RuleId::OpenFilesAndCores => match host.core_pattern.starts_with('|') {
            false => yes("limits of the process, inherited by every child"),
            true => Standing::weaker(
                "core dumps go to a program of the host, whatever the limit says",
                "sysctl -w kernel.core_pattern=core",
            ),
        },
        RuleId::Cpu if !host.cpusets => Standing::weaker(
            "a quota by cgroup v2, read back; the set of CPUs was not left to this user, so slots share them",
            CPUSETS,
        ),
        RuleId::Cpu => counted("a quota and a set of CPUs"),
        RuleId::Disk if !host.root => Standing::weaker(
            "a tmpfs with a hard size, read back: what lies on it counts as memory, and a run may end for that first",
            AS_ROOT,
        ),
        RuleId::Disk => yes("an ext4 volume on a loop device, with a hard size"),
        RuleId::Output if !host.root => Standing::weaker(
            "pipes into files outside the sandbox, with their space allocated; a supervisor that is killed ends them",
            AS_ROOT,
        ),
        RuleId::Output => {
            yes("append-only files with their space allocated, read by the worker up to their limit")
        }
        RuleId::Time => yes("the worker's clock, and PID 1's where no worker is left"),
        RuleId::Gate => {
            yes("limits, privileges, mounts, network and devices are read from /proc and the cgroup")
        }
        RuleId::Devices => match host.version {
            1 => yes("the slot's GPUs by UUID, and the cgroup's own list of what may be opened"),
            _ => Standing::weaker(
                "the slot's GPUs by UUID: nothing else is bound and no node can be made, but no cgroup checks it",
                "",
            ),
        },
        RuleId::Secrets => yes("a complete environment of the worker's own, a fixed host name, no socket"),
        RuleId::Image => yes("a folder by the digest of its recipe, mounted read-only"),
        RuleId::Artifacts => {
            yes("after the processes are gone, beneath one folder, through a mount that follows no link")
        }
        RuleId::Evidence => yes("PID 1's reports and the cgroup's counters behind the end gate"),
        RuleId::Leaving => match host.version {
            1 => Standing::weaker(
                "cgroup v1 kills one by one, until none is left; a sweep at each start",
                "boot with systemd.unified_cgroup_hierarchy=1",
            ),
            _ => yes("the cgroup is killed at once; a sweep at each start"),
        },
        RuleId::Quarantine => yes("the slot stays taken until the worker starts anew"),
        RuleId::SingleUse => yes("one sandbox for one run; nothing enters it later"),
        RuleId::Versions => yes("the kernel alone is shared; there is no engine and no runtime to be old"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{Enforcement, rules};

    fn stands(proof: Option<&Proof>, version: u8, name: &str) -> Enforcement {
        stands_for(&Host { proof, version, core_pattern: "core", root: true, cpusets: true }, name)
    }

    fn stands_for(host: &Host<'_>, name: &str) -> Enforcement {
        let rules = rules::answer(|rule| of(host, rule));
        rules.iter().find(|rule| rule.name == name).unwrap().enforcement
    }

    #[test]
    fn what_a_plain_user_has_is_called_weaker_where_it_is() {
        let host = Host { proof: None, version: 2, core_pattern: "core", root: false, cpusets: false };
        for (name, stands) in [
            ("disk", Enforcement::Weaker),
            ("output", Enforcement::Weaker),
            ("cpu", Enforcement::Weaker),
            ("memory", Enforcement::Enforced),
            ("processes", Enforcement::Enforced),
            ("time", Enforcement::Enforced),
            ("identity", Enforcement::Enforced),
        ] {
            assert_eq!(stands_for(&host, name), stands, "{name}");
        }
    }

    #[test]
    fn version_1_is_called_weaker_and_what_is_open_says_so() {
        assert_eq!(stands(None, 2, "leaving"), Enforcement::Enforced);
        assert_eq!(stands(None, 1, "leaving"), Enforcement::Weaker);
        assert_eq!(stands(None, 2, "devices"), Enforcement::Weaker);
        let mut proof = Proof::default();
        proof.open.insert("network", "an address outside answers".to_owned());
        assert_eq!(stands(Some(&proof), 2, "network"), Enforcement::NotEnforced);
        assert_eq!(stands(Some(&proof), 2, "memory"), Enforcement::Enforced);
    }
}
