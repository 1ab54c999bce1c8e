//! What this host's engine can enforce and what is to be said of it. Answers also where nothing works: then it says
//! why, and the one thing to do.

use bollard::models::SystemInfo;

use super::{
    ANSWER_LIMIT, Shared, plain, silent_words,
    standing::{self, Host},
    warnings::{self, Seen},
    words,
};
use crate::sandbox::{BackendInfo, rules};

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
        "engine {}, API {}, runtime {} of {}",
        version.version.as_deref().unwrap_or("of unknown version"),
        shared.docker.client_version(),
        shared.runtime,
        runtimes(&system),
    );
    let seen = kit::task::blocking("look at the host", Seen::look).await.unwrap_or_default();
    let old = warnings::old_versions(&system, &version, &seen);
    let host =
        Host { system: &system, runtime: &shared.runtime, old: &old, core_pattern: &seen.core_pattern };
    info.unavailable =
        this_host_lacks().or_else(|| plain::lacks(&shared.sandboxes_dir)).or_else(|| the_engine_lacks(&host));
    info.rules = rules::answer(|rule| standing::of(&host, rule));
    plain::weaken(&mut info.rules);
    info.warnings = warnings::all(&host, &seen);
    info
}

fn this_host_lacks() -> Option<String> {
    if !crate::sandbox::loops::has_tool("mkfs.ext4") {
        return Some("mkfs.ext4 is not installed: run `sudo apt-get install e2fsprogs`".to_owned());
    }
    if !std::path::Path::new("/dev/loop-control").exists() {
        return Some(
            "there are no loop devices here (/dev/loop-control): run `sudo modprobe loop`".to_owned(),
        );
    }
    None
}

/// Untrusted code is not run without limits on memory and processes.
fn the_engine_lacks(host: &Host<'_>) -> Option<String> {
    let system = host.system;
    if system.os_type.as_deref().is_some_and(|kind| kind != "linux") {
        return Some("the engine runs no Linux containers".to_owned());
    }
    if system.runtimes.as_ref().is_some_and(|known| !known.contains_key(host.runtime)) {
        return Some(format!(
            "the engine has no OCI runtime `{}`, it has {}: name one of these in `[docker] runtime`, or add it to /etc/docker/daemon.json",
            host.runtime,
            runtimes(system),
        ));
    }
    for (counted, name) in [(system.memory_limit, "memory"), (system.pids_limit, "processes")] {
        if counted != Some(true) {
            return Some(format!(
                "the engine cannot limit {name} here: boot the kernel with this cgroup controller enabled"
            ));
        }
    }
    if host.has("userns") {
        return Some(
            "the engine maps user ids (userns-remap), and the volumes here belong to ids that are not mapped: remove `userns-remap` from /etc/docker/daemon.json"
                .to_owned(),
        );
    }
    None
}

/// The engine's names of its OCI runtimes, in alphabetical order.
fn runtimes(system: &SystemInfo) -> String {
    let mut names: Vec<&str> = system.runtimes.iter().flatten().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if names.is_empty() { "an unknown list".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use bollard::models::Runtime;

    use super::*;

    fn system() -> SystemInfo {
        let runtimes = ["runc", "crun"].map(|name| (name.to_owned(), Runtime::default()));
        SystemInfo {
            memory_limit: Some(true),
            pids_limit: Some(true),
            runtimes: Some(runtimes.into()),
            os_type: Some("linux".into()),
            ..SystemInfo::default()
        }
    }

    fn lacks(system: &SystemInfo, runtime: &str) -> Option<String> {
        the_engine_lacks(&Host { system, runtime, old: &[], core_pattern: "" })
    }

    #[test]
    fn a_runtime_that_the_engine_does_not_have_is_refused_with_those_it_has() {
        assert_eq!(lacks(&system(), "runc"), None);
        let said = lacks(&system(), "runsc").unwrap();
        assert!(said.contains("`runsc`") && said.contains("crun, runc"), "{said}");
    }

    #[test]
    fn no_untrusted_code_without_limits_on_memory_and_processes() {
        let without = SystemInfo { memory_limit: Some(false), ..system() };
        assert!(lacks(&without, "runc").unwrap().contains("memory"));
        assert!(lacks(&SystemInfo { pids_limit: None, ..system() }, "runc").unwrap().contains("processes"));
        let security_options = Some(vec!["name=userns".to_owned()]);
        assert!(
            lacks(&SystemInfo { security_options, ..system() }, "runc").unwrap().contains("userns-remap")
        );
    }
}
