//! What this host's engine can enforce, in one line for each rule, and what is old or missing. Answers also where
//! nothing works: then it says why, and the one thing to do.

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum, SystemVersion};

use super::{ANSWER_LIMIT, Shared, plain, silent_words, words};
use crate::sandbox::{BackendInfo, Enforcement, Rule};

/// From here on the engine has the fixes that SANDBOXES.md 3.5 names.
const ENGINE_FLOOR: (u32, u32, u32) = (29, 5, 1);
/// Before this an engine's own seccomp table lets io_uring through.
const ENGINE_OLD_TABLE: (u32, u32, u32) = (25, 0, 0);

pub(super) async fn describe(shared: &Shared) -> BackendInfo {
    let mut info = BackendInfo { name: "docker".to_owned(), ..BackendInfo::default() };
    let asked = async { tokio::try_join!(shared.docker.info(), shared.docker.version()) };
    let answer = tokio::time::timeout(ANSWER_LIMIT, asked).await;
    let (system, version) = match answer {
        Ok(Ok(both)) => both,
        Ok(Err(error)) => {
            info.unavailable = Some(silent_words(&shared.socket, &words(&error)));
            return info;
        }
        Err(_) => {
            let what = format!("nothing came within {ANSWER_LIMIT:?}");
            info.unavailable = Some(silent_words(&shared.socket, &what));
            return info;
        }
    };
    info.version = format!(
        "engine {}, API {}",
        version.version.as_deref().unwrap_or("of unknown version"),
        shared.docker.client_version()
    );
    info.unavailable = unavailable(shared, &system);
    info.rules = rules(&system);
    plain::weaken(&mut info.rules);
    info.warnings = warnings(&system, &version);
    info
}

fn unavailable(shared: &Shared, system: &SystemInfo) -> Option<String> {
    if !crate::sandbox::loops::has_tool("mkfs.ext4") {
        return Some("mkfs.ext4 is not installed: run `sudo apt-get install e2fsprogs`".to_owned());
    }
    if !std::path::Path::new("/dev/loop-control").exists() {
        return Some(
            "there are no loop devices here (/dev/loop-control): run `sudo modprobe loop`".to_owned(),
        );
    }
    if let Some(reason) = plain::lacks(&shared.sandboxes_dir) {
        return Some(reason);
    }
    if system.os_type.as_deref().is_some_and(|kind| kind != "linux") {
        return Some("the engine runs no Linux containers".to_owned());
    }
    let runtimes = system.runtimes.as_ref();
    if runtimes.is_some_and(|known| !known.contains_key(&shared.runtime)) {
        return Some(format!(
            "the engine has no runtime `{}`: configure it in the engine, or name another",
            shared.runtime
        ));
    }
    None
}

fn rules(system: &SystemInfo) -> Vec<Rule> {
    let security = system.security_options.clone().unwrap_or_default();
    let has = |name: &str| {
        security.iter().any(|option| option.split(',').any(|part| part == format!("name={name}")))
    };
    let unconfined =
        security.iter().any(|option| option.contains("name=seccomp") && option.contains("unconfined"));
    let by_cgroup = |name, set: Option<bool>, detail: &str| {
        let remedy = "enable this controller in the kernel (boot with `cgroup_enable=memory swapaccount=1`)";
        rule(name, set.unwrap_or(false), detail, "the kernel or the engine does not count it", remedy)
    };
    let version = match system.cgroup_version {
        Some(SystemInfoCgroupVersionEnum::_2) => "cgroup v2",
        _ => "cgroup v1",
    };
    let mut rules = vec![
        by_cgroup(
            "memory",
            system.memory_limit,
            &format!("hard limit by {version}, read back from the kernel"),
        ),
        by_cgroup("swap", system.swap_limit, "none beyond memory"),
        by_cgroup("processes", system.pids_limit, "limit on processes and threads"),
        by_cgroup("cpu", system.cpu_cfs_quota, "share and set of CPUs"),
        rule("disk", true, "ext4 volume of its own on a loop device, with a hard size", "", ""),
        rule("time", true, "the worker's clock, and PID 1's as a backstop", "", ""),
        rule(
            "identity",
            true,
            "the program has a uid of its slot and no capability; PID 1 has another",
            "",
            "",
        ),
        rule("files", true, "read-only root; only work/ and tmp/ can be written", "", ""),
        rule("network", true, "none", "", ""),
        rule("devices", true, "only the slot's GPUs, by UUID", "", ""),
    ];
    let filtered = has("seccomp") && !unconfined;
    let mut seccomp = rule("seccomp", filtered, "the engine's own table", "the engine filters no calls", "");
    if filtered {
        seccomp.enforcement = Enforcement::Weaker; // not a table of ours
    } else {
        seccomp.remedy = "use an engine and a kernel with seccomp".to_owned();
    }
    rules.push(seccomp);
    if has("rootless") {
        let remedy = "use the system's engine, not a rootless one".to_owned();
        let detail = "a rootless engine cannot set every limit".to_owned();
        rules.push(Rule { name: "engine", enforcement: Enforcement::Weaker, detail, remedy });
    }
    rules
}

fn rule(name: &'static str, holds: bool, how: &str, why_not: &str, remedy: &str) -> Rule {
    let (enforcement, detail, remedy) = match holds {
        true => (Enforcement::Enforced, how, ""),
        false => (Enforcement::NotEnforced, why_not, remedy),
    };
    Rule { name, enforcement, detail: detail.to_owned(), remedy: remedy.to_owned() }
}

fn warnings(system: &SystemInfo, version: &SystemVersion) -> Vec<String> {
    let mut warnings = system.warnings.clone().unwrap_or_default();
    let name = version.version.as_deref().unwrap_or_default();
    match parse(name) {
        Some(engine) if engine < ENGINE_FLOOR => {
            let (major, minor, patch) = ENGINE_FLOOR;
            warnings.push(format!(
                "engine {name} is older than {major}.{minor}.{patch}: known holes are open unless the distribution mended them"
            ));
            if engine < ENGINE_OLD_TABLE {
                warnings.push(format!("engine {name}: its seccomp table allows io_uring and AF_ALG sockets"));
            }
        }
        Some(_) => {}
        None => warnings.push(format!("the engine's version `{name}` is not understood")),
    }
    let components = version.components.iter().flatten();
    for runc in components.filter(|component| component.name == "runc") {
        let fixed = parse(&runc.version).is_some_and(runc_is_fixed);
        if !fixed {
            warnings.push(format!(
                "runc {} is older than 1.2.8, 1.3.3 or 1.4.0: known escapes are open",
                runc.version
            ));
        }
    }
    if system.live_restore_enabled == Some(false) {
        warnings
            .push("the engine has no live-restore: when it restarts, running programs are lost".to_owned());
    }
    warnings
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
    let digits = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut numbers = digits.split('.').map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next().and_then(Result::ok).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse("20.10.24+dfsg1"), Some((20, 10, 24)));
        assert_eq!(parse("1.1.5+ds1"), Some((1, 1, 5)));
        assert_eq!(parse("master"), None);
        assert!(runc_is_fixed((1, 3, 4)) && !runc_is_fixed((1, 3, 2)) && !runc_is_fixed((1, 1, 99)));
    }

    #[test]
    fn a_limit_that_the_kernel_does_not_count_is_not_enforced() {
        let system =
            SystemInfo { memory_limit: Some(true), pids_limit: Some(false), ..SystemInfo::default() };
        let rules = rules(&system);
        let of = |name: &str| rules.iter().find(|r| r.name == name).unwrap();
        assert_eq!(of("memory").enforcement, Enforcement::Enforced);
        assert_eq!(of("processes").enforcement, Enforcement::NotEnforced);
        assert!(!of("swap").remedy.is_empty());
        assert_eq!(of("seccomp").enforcement, Enforcement::NotEnforced);
    }
}
