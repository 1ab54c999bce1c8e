//! What this host can enforce without an engine, in one line for each rule, and what is weaker. Answers also where
//! nothing works: then it says why, and the one thing to do.

use std::{fs, path::Path};

use super::{Shared, prove};
use crate::sandbox::{BackendInfo, Enforcement, Rule, loops};

const NEEDS_ROOT: &str = "the worker must run as root here: without an engine it makes volumes, namespaces and cgroups itself (start it with sudo, or as a system service)";
/// CAP_SYS_ADMIN of linux/capability.h.
const SYS_ADMIN: u64 = 1 << 21;
/// The rules that the self-test's program tries from inside.
pub(super) const PROBED: [&str; 8] =
    ["identity", "files", "network", "devices", "seccomp", "disk", "processes", "memory"];

/// Why no sandbox can be made on this host, from what can be seen without making one.
pub(super) fn host() -> Result<(), String> {
    let container = ["/.dockerenv", "/run/.containerenv"].into_iter().find(|file| Path::new(file).exists());
    if !nix::unistd::geteuid().is_root() {
        return Err(NEEDS_ROOT.to_owned());
    }
    let status = fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default();
    if effective & SYS_ADMIN == 0 {
        let place = container.map_or("this root has no CAP_SYS_ADMIN".to_owned(), |file| {
            format!("this is an unprivileged container ({file} is there)")
        });
        return Err(format!(
            "{place}: it may not mount or make namespaces; run the worker on the host, or use the docker backend"
        ));
    }
    for (tool, package) in [("mkfs.ext4", "e2fsprogs"), ("mount", "mount"), ("losetup", "mount")] {
        if !loops::has_tool(tool) {
            return Err(format!("{tool} is not installed: install the package {package}"));
        }
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err("there are no loop devices here (/dev/loop-control): load the kernel module `loop`".to_owned());
    }
    let kinds = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !kinds.split_whitespace().any(|kind| kind == "overlay") {
        return Err("this kernel has no overlay file system: load the kernel module `overlay`".to_owned());
    }
    Ok(())
}

pub(super) fn describe(shared: &Shared) -> BackendInfo {
    let proof = shared.proof.get();
    let mut info = BackendInfo { name: "native".to_owned(), ..BackendInfo::default() };
    let groups = match &shared.groups {
        Ok(groups) => groups,
        Err(reason) => {
            info.unavailable = Some(reason.clone());
            return info;
        }
    };
    let version = groups.version();
    info.version = format!("kernel {}, cgroup v{version}", kernel());
    info.unavailable = proof.and_then(|proof| proof.failure.clone());
    info.rules = rules(proof, version);
    if proof.is_none() {
        info.warnings.push("not tried on this host yet: that comes before the first run".to_owned());
    }
    if version == 1 {
        info.warnings.push(
            "cgroup v1: sandboxes are weaker here, nothing kills a tree at once; boot with systemd.unified_cgroup_hierarchy=1"
                .to_owned(),
        );
    }
    info
}

fn rules(proof: Option<&prove::Proof>, version: u8) -> Vec<Rule> {
    let memory = format!("hard limit by cgroup v{version}, read back from the kernel");
    let devices = match version {
        1 => "only the slot's GPUs, by UUID, and a list of the cgroup's",
        _ => "only the slot's GPUs, by UUID: nothing else is bound, and no node can be made",
    };
    let rule = |name, how: &str| prove::rule(proof, name, how);
    let mut rules = vec![
        rule("memory", &memory),
        rule("swap", "none beyond memory"),
        rule("processes", "limit on processes and threads"),
        rule("cpu", "share and set of CPUs"),
        rule("disk", "ext4 volume of its own on a loop device, with a hard size"),
        rule("time", "the worker's clock, and PID 1's as a backstop"),
        rule("identity", "the program has a uid of its slot and no capability; PID 1 has another"),
        rule("files", "read-only root; only work/ and tmp/ can be written"),
        rule("network", "none"),
        rule("devices", devices),
        rule("seccomp", "a table of our own; what it does not name is refused"),
    ];
    // What a kill needs is done one by one in version 1.
    if version == 1 {
        for rule in rules.iter_mut().filter(|r| r.name == "time" && r.enforcement == Enforcement::Enforced) {
            rule.enforcement = Enforcement::Weaker;
            rule.detail.push_str("; cgroup v1 kills one by one");
        }
    }
    rules
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    kit::text::one_line(release.trim(), 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_is_called_weaker_and_what_is_open_says_so() {
        let of = |rules: &[Rule], name: &str| rules.iter().find(|r| r.name == name).unwrap().clone();
        assert_eq!(of(&rules(None, 2), "time").enforcement, Enforcement::Enforced);
        assert_eq!(of(&rules(None, 1), "time").enforcement, Enforcement::Weaker);
        let mut proof = prove::Proof::default();
        proof.open.insert("network", "an address outside answers".to_owned());
        let network = of(&rules(Some(&proof), 2), "network");
        assert_eq!(network.enforcement, Enforcement::NotEnforced);
        assert!(!network.remedy.is_empty());
    }

    #[test]
    fn every_rule_that_is_tried_is_described() {
        let rules = rules(None, 2);
        assert!(PROBED.iter().all(|name| rules.iter().any(|rule| rule.name == *name)));
    }
}
