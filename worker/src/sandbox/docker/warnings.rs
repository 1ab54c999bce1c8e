//! What is old, missing or weaker than it could be about this engine and host, each in one sentence that says what to
//! do: said loudly in `GetWorker` and by `doctor`. Nothing here stops a run.

use std::path::Path;

use bollard::models::{SystemInfo, SystemInfoCgroupDriverEnum, SystemVersion};

use super::standing::Host;

/// From here on the engine has the fixes of its copy calls, which this worker does not make; it tells the patch level.
const ENGINE_FLOOR: (u32, u32, u32) = (29, 5, 1);
/// From here on a hook of NVIDIA's toolkit does not obey the loader's variables of an image.
const TOOLKIT_FLOOR: (u32, u32, u32) = (1, 17, 8);
/// The first kernel that can mount without following links, as artifacts are read.
const KERNEL_FLOOR: (u32, u32, u32) = (5, 10, 0);

/// What the host says of itself beside the engine's answers. Missing files say nothing.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// /proc/sys/kernel/core_pattern.
    pub core_pattern: String,
    /// An NVIDIA driver is loaded.
    pub gpus: bool,
    /// /dev/char has a link for each NVIDIA node.
    pub gpu_links: bool,
    /// What `nvidia-ctk --version` prints; empty where it is not installed.
    pub toolkit: String,
}

impl Seen {
    /// Looks; blocking.
    pub(super) fn look() -> Self {
        let gpus = Path::new("/dev/nvidiactl").exists();
        let link = |number: u32| Path::new("/dev/char").join(format!("195:{number}")).exists();
        // 255 is the control node; the first GPU is 0.
        let gpu_links = !gpus || (link(255) && link(0));
        let toolkit = std::process::Command::new("nvidia-ctk").arg("--version").output();
        let toolkit = toolkit.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
        Self {
            core_pattern: std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default(),
            gpus,
            gpu_links,
            // Not installed, or it does not run: an engine can have another way to GPUs.
            toolkit: if gpus { toolkit.unwrap_or_default() } else { String::new() },
        }
    }
}

/// Each version that is older than the fixes of known escapes.
pub(super) fn old_versions(system: &SystemInfo, version: &SystemVersion, seen: &Seen) -> Vec<String> {
    let mut old = Vec::new();
    let engine = version.version.as_deref().unwrap_or_default();
    match parse(engine) {
        Some(found) if found < ENGINE_FLOOR => {
            let (major, minor, patch) = ENGINE_FLOOR;
            old.push(format!("engine {engine} is older than {major}.{minor}.{patch}"));
        }
        Some(_) => {}
        None => old.push(format!("the engine's version `{engine}` is not understood")),
    }
    let components = version.components.iter().flatten();
    for runc in components.filter(|component| component.name == "runc") {
        if !parse(&runc.version).is_some_and(runc_is_fixed) {
            old.push(format!("runc {} is older than 1.2.8, 1.3.3 or 1.4.0", runc.version));
        }
    }
    let toolkit =
        seen.toolkit.lines().find_map(|line| line.rsplit_once("version ")).map(|(_, number)| number);
    if let Some(number) = toolkit.filter(|number| parse(number).is_some_and(|found| found < TOOLKIT_FLOOR)) {
        let (major, minor, patch) = TOOLKIT_FLOOR;
        old.push(format!("NVIDIA's container toolkit {number} is older than {major}.{minor}.{patch}"));
    }
    let kernel = system.kernel_version.as_deref().unwrap_or_default();
    if parse(kernel).is_some_and(|found| found < KERNEL_FLOOR) {
        let (major, minor, _) = KERNEL_FLOOR;
        old.push(format!("kernel {kernel} is older than {major}.{minor}"));
    }
    old
}

/// Everything that is to be said loudly.
pub(super) fn all(host: &Host<'_>, seen: &Seen) -> Vec<String> {
    let system = host.system;
    let mut all = system.warnings.clone().unwrap_or_default();
    all.extend(host.old.iter().map(|what| {
        format!("{what}: known escapes are open unless the distribution mended them; update it")
    }));
    let mut say = |holds: bool, text: &str| {
        if holds {
            all.push(text.to_owned());
        }
    };
    for (counted, name) in
        [(system.swap_limit, "swap"), (system.cpu_cfs_quota, "CPU time"), (system.cpu_set, "sets of CPUs")]
    {
        say(
            counted != Some(true),
            &format!("the kernel does not limit {name} for the engine: enable its controller at boot"),
        );
    }
    say(
        system.live_restore_enabled == Some(false),
        "the engine has no live-restore: when it restarts, running programs are lost; set `\"live-restore\": true` in /etc/docker/daemon.json",
    );
    say(
        has_containerd_store(system),
        "the engine keeps its images in containerd's store, which ignores StorageOpt: the disk limit here is the volume's own and does not depend on it",
    );
    say(
        host.has("rootless"),
        "the engine is rootless: it may lack controllers, and it shares its user's rights; the system's engine is stronger",
    );
    say(
        !host.has("apparmor") && !host.has("selinux"),
        "the engine uses neither AppArmor nor SELinux: the second lock of the kernel is missing; boot with one of them",
    );
    say(
        seen.gpus && !seen.gpu_links && system.cgroup_driver == Some(SystemInfoCgroupDriverEnum::SYSTEMD),
        "the engine's cgroup driver is systemd and /dev/char has no links to the GPUs: after a `systemctl daemon-reload` sandboxes lose them; run `nvidia-ctk system create-dev-char-symlinks --create-all` at each boot",
    );
    say(
        seen.core_pattern.starts_with('|'),
        "core dumps go to a program of the host, whatever a sandbox's limit says; run `sysctl -w kernel.core_pattern=core`",
    );
    all
}

fn has_containerd_store(system: &SystemInfo) -> bool {
    let status = system.driver_status.iter().flatten();
    let mut pairs = status.filter_map(|pair| Some((pair.first()?, pair.get(1)?)));
    pairs.any(|(name, value)| name == "driver-type" && value.contains("containerd"))
}

fn runc_is_fixed(version: (u32, u32, u32)) -> bool {
    match version {
        (1, 2, patch) => patch >= 8,
        (1, 3, patch) => patch >= 3,
        other => other >= (1, 4, 0),
    }
}

/// The three numbers at the front of "20.10.24+dfsg1".
fn parse(text: &str) -> Option<(u32, u32, u32)> {
    let digits = text.trim().split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut numbers = digits.split('.').map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next().and_then(Result::ok).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use bollard::models::SystemVersionComponents;

    use super::*;

    fn host<'a>(system: &'a SystemInfo, old: &'a [String]) -> Host<'a> {
        Host { system, runtime: "runc", old, core_pattern: "core" }
    }

    fn version(engine: &str, runc: &str) -> SystemVersion {
        let runc = SystemVersionComponents { name: "runc".into(), version: runc.into(), details: None };
        SystemVersion {
            version: Some(engine.into()),
            components: Some(vec![runc]),
            ..SystemVersion::default()
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse("20.10.24+dfsg1"), Some((20, 10, 24)));
        assert_eq!(parse("1.1.5+ds1"), Some((1, 1, 5)));
        assert_eq!(parse("6.18.44-x"), Some((6, 18, 44)));
        assert_eq!(parse("master"), None);
        assert!(runc_is_fixed((1, 3, 4)) && !runc_is_fixed((1, 3, 2)) && !runc_is_fixed((1, 1, 99)));
    }

    #[test]
    fn each_old_part_is_named() {
        let system = SystemInfo { kernel_version: Some("5.4.0-100".into()), ..SystemInfo::default() };
        let toolkit = "NVIDIA Container Toolkit CLI version 1.17.4\ncommit: x\n".to_owned();
        let seen = Seen { toolkit, ..Seen::default() };
        let old = old_versions(&system, &version("29.3.0", "1.2.7"), &seen);
        for (line, part) in old.iter().zip(["engine 29.3.0", "runc 1.2.7", "toolkit 1.17.4", "kernel 5.4.0"])
        {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(old.len(), 4, "{old:?}");
        let new = SystemInfo { kernel_version: Some("6.12.1".into()), ..SystemInfo::default() };
        let seen = Seen { toolkit: "NVIDIA Container Toolkit CLI version 1.18.0".into(), ..seen };
        assert_eq!(old_versions(&new, &version("29.7.0", "1.3.3"), &seen), Vec::<String>::new());
    }

    #[test]
    fn what_is_weaker_is_said_with_what_to_do() {
        let system = SystemInfo {
            live_restore_enabled: Some(false),
            driver_status: Some(vec![vec!["driver-type".into(), "io.containerd.snapshotter.v1".into()]]),
            security_options: Some(vec!["name=seccomp,profile=builtin".into(), "name=rootless".into()]),
            cgroup_driver: Some(SystemInfoCgroupDriverEnum::SYSTEMD),
            warnings: Some(vec!["WARNING: No swap limit support".into()]),
            cpu_cfs_quota: Some(true),
            cpu_set: Some(true),
            ..SystemInfo::default()
        };
        let seen = Seen { gpus: true, core_pattern: "|/usr/lib/x".into(), ..Seen::default() };
        let said = all(&host(&system, &[]), &seen).join("\n");
        for part in [
            "No swap limit support",
            "does not limit swap",
            "live-restore",
            "StorageOpt",
            "rootless",
            "AppArmor",
            "create-dev-char-symlinks",
            "core_pattern",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let good = SystemInfo {
            live_restore_enabled: Some(true),
            swap_limit: Some(true),
            security_options: Some(vec!["name=apparmor".into(), "name=seccomp,profile=default".into()]),
            cgroup_driver: Some(SystemInfoCgroupDriverEnum::CGROUPFS),
            cpu_cfs_quota: Some(true),
            cpu_set: Some(true),
            ..SystemInfo::default()
        };
        let seen = Seen { gpus: true, core_pattern: "core".into(), ..Seen::default() };
        assert_eq!(all(&host(&good, &[]), &seen), Vec::<String>::new());
    }
}
