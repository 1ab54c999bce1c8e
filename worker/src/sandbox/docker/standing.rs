//! How each rule of the sandbox stands with this engine on this host. Where the sandbox itself is read back before its
//! gate opens, an engine that says it can and cannot is found out there; here it is its word.

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};

use crate::sandbox::rules::{RuleId, Standing};

const CONTROLLERS: &str = "boot the kernel with `cgroup_enable=memory swapaccount=1`";

/// What the answers depend on.
#[derive(Debug)]
pub(super) struct Host<'a> {
    pub system: &'a SystemInfo,
    /// The OCI runtime that sandboxes get.
    pub runtime: &'a str,
    /// The words of [`super::warnings`] on versions; empty where nothing is old.
    pub old: &'a [String],
    /// /proc/sys/kernel/core_pattern.
    pub core_pattern: &'a str,
}

impl Host<'_> {
    /// Whether the engine lists this security option, like "seccomp" or "rootless".
    pub(super) fn has(&self, name: &str) -> bool {
        let options = self.system.security_options.iter().flatten();
        options.flat_map(|option| option.split(',')).any(|part| part == format!("name={name}"))
    }

    /// A runtime that is a kernel of its own sees system calls before the host's filter does.
    fn is_runc(&self) -> bool {
        matches!(self.runtime, "runc" | "crun" | "io.containerd.runc.v2")
    }

    fn by_cgroup(&self, counted: Option<bool>, how: &str) -> Standing {
        let version = match self.system.cgroup_version {
            Some(SystemInfoCgroupVersionEnum::_2) => "cgroup v2",
            _ => "cgroup v1",
        };
        match counted {
            Some(true) => Standing::enforced(format!("{how}, by {version}, read back from the kernel")),
            _ => Standing::not_enforced("the kernel or the engine does not count it", CONTROLLERS),
        }
    }
}

/// No wildcard here: a new rule must be answered.
pub(super) fn of(host: &Host<'_>, rule: RuleId) -> Standing {
    let yes = |how: &str| Standing::enforced(how);
    let system = host.system;
    match rule {
        RuleId::Identity => match host.has("userns") {
            true => {
                yes("a uid of the slot's own, and the engine maps the container's ids to others of the host")
            }
            false => yes("a uid of the slot's own; PID 1 is the container's root"),
        },
        RuleId::Capabilities => yes("none for the program; SETUID, SETGID and KILL for PID 1, read back"),
        RuleId::NoNewPrivileges => yes("set by the engine, read back"),
        RuleId::Seccomp => seccomp(host),
        RuleId::Namespaces => match host.has("rootless") {
            true => yes("all of them, within the engine's own user namespace"),
            false => yes("processes, IPC, host name, mounts and cgroups; the user namespace is the engine's"),
        },
        RuleId::Files => yes("read-only root and binds, read back from the mount table"),
        RuleId::Network => yes("a network namespace with no interface but its own loopback, read back"),
        RuleId::Memory => host.by_cgroup(system.memory_limit, "a hard limit"),
        RuleId::Swap => host.by_cgroup(system.swap_limit, "none beyond the memory"),
        RuleId::SharedMemory => yes("a tmpfs with a size, charged to the memory, read back"),
        RuleId::Processes => host.by_cgroup(system.pids_limit, "a hard limit on processes and threads"),
        RuleId::OpenFilesAndCores => match host.core_pattern.starts_with('|') {
            false => yes("limits of the process, inherited by every child"),
            true => Standing::weaker(
                "core dumps go to a program of the host, whatever the limit says",
                "sysctl -w kernel.core_pattern=core",
            ),
        },
        RuleId::Cpu => host.by_cgroup(system.cpu_cfs_quota, "a quota and a set of CPUs"),
        RuleId::Disk => yes("an ext4 volume on a loop device, with a hard size"),
        RuleId::Output => {
            yes("append-only files with their space allocated, read by the worker up to their limit")
        }
        RuleId::Time => yes("the worker's clock, and PID 1's where no worker is left"),
        RuleId::Gate => {
            yes("limits, privileges, mounts, network and devices are read from /proc and the cgroup")
        }
        RuleId::Devices => match host.is_runc() {
            true => yes(
                "the slot's GPUs by UUID, through CDI where it names them; their nodes are counted before the start",
            ),
            false => Standing::weaker(
                format!("the runtime {} decides how a GPU is seen", host.runtime),
                "set `[docker] runtime = \"runc\"`",
            ),
        },
        RuleId::Secrets => yes(
            "a complete environment of the worker's own, a fixed host name, no socket; of the host the mount table shows the names of the engine's own folders, and /proc its processor and load",
        ),
        RuleId::Image => yes("by content id; volumes and the loader's variables are refused"),
        RuleId::Artifacts => {
            yes("after the container is gone, beneath one folder, through a mount that follows no link")
        }
        RuleId::Evidence => yes("PID 1's reports and the cgroup's counters behind the end gate"),
        RuleId::Leaving => yes("removal is asked for until the engine knows nothing; a sweep at each start"),
        RuleId::Quarantine => yes("the slot stays taken until a worker starts anew and finds nothing left"),
        RuleId::SingleUse => yes("one container for one run; never exec, copy or restart"),
        RuleId::Versions => match host.old {
            [] => yes("engine and runtime have the known fixes"),
            old => Standing::weaker(old.join("; "), "update the engine and its runtime"),
        },
    }
}

fn seccomp(host: &Host<'_>) -> Standing {
    if !host.has("seccomp") {
        let remedy = "use an engine and a kernel with seccomp";
        return Standing::not_enforced("the engine filters no system calls", remedy);
    }
    match host.is_runc() {
        true => Standing::enforced("our own table, refused by default; the filter is read back"),
        false => Standing::weaker(
            format!("the runtime {} answers calls itself and may leave our table aside", host.runtime),
            "",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{Enforcement, Rule, rules};

    fn rules_of(system: &SystemInfo, runtime: &str, core_pattern: &str) -> Vec<Rule> {
        let host = Host { system, runtime, old: &["engine 1.0.0 is old".to_owned()], core_pattern };
        rules::answer(|rule| of(&host, rule))
    }

    #[test]
    fn a_limit_that_the_kernel_does_not_count_is_not_enforced() {
        let security_options = Some(vec!["name=seccomp,profile=default".to_owned()]);
        let system = SystemInfo {
            memory_limit: Some(true),
            pids_limit: Some(false),
            security_options,
            ..SystemInfo::default()
        };
        let rules = rules_of(&system, "runc", "core");
        let of = |name: &str| rules.iter().find(|r| r.name == name).unwrap();
        assert_eq!(of("memory").enforcement, Enforcement::Enforced);
        assert_eq!(of("processes").enforcement, Enforcement::NotEnforced);
        assert!(!of("swap").remedy.is_empty());
        assert_eq!(of("seccomp").enforcement, Enforcement::Enforced);
        assert_eq!(of("versions").enforcement, Enforcement::Weaker);
        assert_eq!(rules.len(), RuleId::ALL.len());
    }

    #[test]
    fn what_another_runtime_or_the_host_takes_over_is_weaker() {
        let security_options = Some(vec!["name=seccomp".to_owned()]);
        let rules = rules_of(&SystemInfo { security_options, ..SystemInfo::default() }, "runsc", "|/handler");
        let of = |name: &str| rules.iter().find(|r| r.name == name).unwrap();
        for name in ["seccomp", "devices", "open-files-and-cores"] {
            assert_eq!(of(name).enforcement, Enforcement::Weaker, "{name}");
        }
        let rules = rules_of(&SystemInfo::default(), "runc", "core");
        let seccomp = rules.iter().find(|r| r.name == "seccomp").unwrap();
        assert_eq!(seccomp.enforcement, Enforcement::NotEnforced);
    }
}
