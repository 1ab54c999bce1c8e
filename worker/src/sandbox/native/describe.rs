//! What this host can enforce without an engine, in one line for each rule, and what is weaker. Answers also where
//! nothing works: then it says why, and the one thing to do.

use std::{fs, path::Path};

use super::{
    Shared,
    rights::Rights,
    standing::{self, Host},
};
use crate::sandbox::{BackendInfo, loops, rules};

/// CAP_SYS_ADMIN of linux/capability.h.
const SYS_ADMIN: u64 = 1 << 21;
/// The rules that the self-test's program tries from inside.
pub(super) const PROBED: [&str; 8] =
    ["identity", "files", "network", "devices", "seccomp", "disk", "processes", "memory"];

/// Why no sandbox can be made on this host, from what can be seen without making one.
pub(super) fn host(rights: &Rights) -> Result<(), String> {
    let container = ["/.dockerenv", "/run/.containerenv"].into_iter().find(|file| Path::new(file).exists());
    has_overlay()?;
    if !rights.is_root() {
        return match container {
            None => Ok(()),
            Some(file) => Err(format!(
                "this is a container ({file} is there): its namespaces are not this user's; run the worker on the host"
            )),
        };
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
        return Err(
            "there are no loop devices here (/dev/loop-control): load the kernel module `loop`".to_owned()
        );
    }
    Ok(())
}

fn has_overlay() -> Result<(), String> {
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
    let core_pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let root = shared.rights.as_ref().is_none_or(Rights::is_root);
    let host = Host { proof, version, core_pattern: &core_pattern, root, cpusets: groups.has_cpusets() };
    info.rules = rules::answer(|rule| standing::of(&host, rule));
    if proof.is_none() {
        info.warnings.push("not tried on this host yet: that comes before the first run".to_owned());
    }
    if !root {
        info.warnings.push(
            "not root: a run's files are in its memory, and runs with packages or data sets are refused; run the worker as root for both"
                .to_owned(),
        );
    }
    if version == 1 {
        info.warnings.push(
            "cgroup v1: sandboxes are weaker here, nothing kills a tree at once; boot with systemd.unified_cgroup_hierarchy=1"
                .to_owned(),
        );
    }
    info
}

fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    kit::text::one_line(release.trim(), 80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::rules::RuleId;

    #[test]
    fn what_is_tried_is_a_rule() {
        assert!(PROBED.iter().all(|name| RuleId::ALL.iter().any(|rule| rule.name() == *name)));
    }
}
