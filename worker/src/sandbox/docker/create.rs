//! The body of a sandbox's container. Every wall that the engine builds is asked for here by name, also where it is
//! the engine's default today, and a wall that the engine answers it cannot build is an error.

use std::{collections::HashMap, path::Path};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::{
    OWNER_LABEL, SANDBOX_LABEL, Shared,
    gpus::{self, Road},
};
use crate::sandbox::{
    SandboxClass, init,
    layout::{BINDS, HOST_NAME, INIT_PATH, OOM_SCORE, OPEN_FILES, environment},
    volume::Volume,
};

const LOG_LIMIT: &str = "64k";
/// What PID 1 needs: to become the program's uid and to kill it.
const CAPABILITIES: [&str; 3] = ["SETUID", "SETGID", "KILL"];

pub(super) fn body(
    shared: &Shared,
    class: &SandboxClass,
    volume: &Volume,
    road: Road,
) -> ContainerCreateBody {
    let labels = [(OWNER_LABEL, shared.worker_id.clone()), (SANDBOX_LABEL, class.id.to_string())];
    ContainerCreateBody {
        image: Some(class.image_id.clone()),
        hostname: Some(HOST_NAME.to_owned()),
        domainname: Some(String::new()),
        user: Some("0:0".to_owned()),
        working_dir: Some("/".to_owned()),
        entrypoint: Some(vec![INIT_PATH.to_owned()]),
        cmd: Some(vec![init::COLD_GATE.as_secs().to_string()]),
        env: Some(environment(class)),
        labels: Some(labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        stop_signal: Some("SIGTERM".to_owned()),
        tty: Some(false),
        open_stdin: Some(false),
        attach_stdin: Some(false),
        attach_stdout: Some(false),
        attach_stderr: Some(false),
        network_disabled: Some(true),
        host_config: Some(host_config(shared, class, volume, road)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(shared: &Shared, class: &SandboxClass, volume: &Volume, road: Road) -> HostConfig {
    let limits = &class.limits;
    let signed = |value: u64| Some(i64::try_from(value).unwrap_or(i64::MAX));
    HostConfig {
        // Always named: an engine's default may be NVIDIA's, which gives GPUs to whoever sets a variable.
        runtime: Some(shared.runtime.clone()),
        // Resources. Swap equal to memory is no swap; 0 would be twice the memory.
        memory: signed(limits.memory_bytes),
        memory_swap: signed(limits.memory_bytes),
        oom_kill_disable: Some(false),
        oom_score_adj: Some(OOM_SCORE),
        nano_cpus: Some(i64::from(limits.cpu_millis) * 1_000_000),
        cpuset_cpus: class.slot.cpuset.clone(),
        pids_limit: Some(i64::from(limits.pids)),
        shm_size: signed(limits.shm_bytes),
        ulimits: Some(vec![ulimit("nofile", OPEN_FILES), ulimit("core", 0)]),
        // Privileges.
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
        security_opt: Some(security_options(&shared.seccomp)),
        // Namespaces.
        network_mode: Some("none".to_owned()),
        ipc_mode: Some("private".to_owned()),
        pid_mode: Some(String::new()),
        uts_mode: Some(String::new()),
        userns_mode: Some(String::new()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        // Files.
        readonly_rootfs: Some(true),
        mounts: Some(mounts(class, volume)),
        device_requests: Some(gpus::devices(road, &class.slot.gpu_uuids)),
        // Life. The container stays after its end, as the evidence.
        init: Some(false),
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_LIMIT.to_owned()),
                ("max-file".to_owned(), "1".to_owned()),
            ])),
        }),
        ..HostConfig::default()
    }
}

/// Our own seccomp table, as its content (the engine takes no path): an engine's own differs by its version.
fn security_options(seccomp: &str) -> Vec<String> {
    vec!["no-new-privileges:true".to_owned(), format!("seccomp={seccomp}")]
}

fn ulimit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(value), hard: Some(value) }
}

fn mounts(class: &SandboxClass, volume: &Volume) -> Vec<Mount> {
    let root = volume.path();
    let folders = BINDS.iter().map(|(name, target, read_only)| bind(&root.join(name), target, *read_only));
    let layers = class.layers.iter().enumerate();
    let layers = layers.map(|(number, layer)| bind(&volume.layer(number), &layer.target, true));
    folders.chain([bind(&volume.init_program(), INIT_PATH, true)]).chain(layers).collect()
}

fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{SandboxId, SandboxLimits, SlotGrant};

    fn class(gpus: &[&str], cpu_millis: u32) -> SandboxClass {
        let limits = SandboxLimits {
            memory_bytes: 64 << 20,
            cpu_millis,
            pids: 64,
            disk_bytes: 1 << 20,
            shm_bytes: 1 << 20,
            log_bytes: [1 << 20; 3],
        };
        let gpu_uuids = gpus.iter().map(|g| (*g).to_owned()).collect();
        let slot = SlotGrant { index: 0, uid: 50_000, cpuset: None, gpu_uuids };
        SandboxClass { id: SandboxId::new(), image_id: "sha256:0".into(), slot, limits, layers: Vec::new() }
    }

    #[test]
    fn a_sandbox_without_a_gpu_sees_none_whatever_the_image_says() {
        assert!(environment(&class(&[], 500)).contains(&"NVIDIA_VISIBLE_DEVICES=void".to_owned()));
        let with = class(&["GPU-1"], 4500);
        assert!(environment(&with).contains(&"NVIDIA_VISIBLE_DEVICES=GPU-1".to_owned()));
        assert!(environment(&with).contains(&"OMP_NUM_THREADS=4".to_owned()));
    }

    #[test]
    fn seccomp_is_our_own_table() {
        let profile = crate::sandbox::seccomp::profile().unwrap();
        let options = security_options(&profile);
        assert_eq!(options[0], "no-new-privileges:true");
        let content: serde_json::Value =
            serde_json::from_str(options[1].strip_prefix("seccomp=").unwrap()).unwrap();
        assert_eq!(content["defaultAction"], "SCMP_ACT_ERRNO");
    }

    #[test]
    fn every_wall_is_asked_for_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket").to_string_lossy().into_owned();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let docker = bollard::Docker::connect_with_unix(&socket, 1, bollard::API_DEFAULT_VERSION).unwrap();
        let shared = Shared {
            docker,
            socket: String::new(),
            worker_id: "w".into(),
            sandboxes_dir: "/s".into(),
            runtime: "runc".into(),
            program: Vec::new(),
            seccomp: "{}".into(),
            clock: kit::clock::SystemClock::shared(),
        };
        let class = class(&["GPU-1"], 1500);
        let volume = Volume::at(&shared.sandboxes_dir, class.id);
        let asked = |road| body(&shared, &class, &volume, road).host_config.unwrap();
        let host = asked(Road::Cdi);
        assert_eq!(host.runtime.as_deref(), Some("runc"));
        assert_eq!(host.device_requests.as_ref().unwrap()[0].driver.as_deref(), Some("cdi"));
        assert_eq!(asked(Road::Nvidia).device_requests.unwrap()[0].driver.as_deref(), Some("nvidia"));
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges:true", "seccomp={}"]);
        assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
        assert_eq!((host.pids_limit, host.nano_cpus), (Some(64), Some(1_500_000_000)));
        assert_eq!(
            (host.privileged, host.readonly_rootfs, host.init),
            (Some(false), Some(true), Some(false))
        );
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(host.network_mode.as_deref(), Some("none"));
        assert_eq!(
            (host.devices, host.device_cgroup_rules, host.binds, host.volumes_from),
            Default::default()
        );
    }
}
