//! What a sandbox looks like from inside, whichever backend makes it: places, names, numbers and the whole environment.

use super::{SandboxClass, init};

/// Where PID 1's program lies inside.
pub(crate) const INIT_PATH: &str = "/sandbox-init";
/// The names that a program may use.
pub(crate) const HOSTS_PATH: &str = "/etc/hosts";
/// The volume's folders inside, and whether they are read-only.
pub(crate) const BINDS: [(&str, &str, bool); 4] =
    [("work", "/work", false), ("tmp", "/tmp", false), ("logs", "/logs", false), ("in", "/in", true)];
/// The same for every sandbox: it says nothing of the host.
pub(crate) const HOST_NAME: &str = "sandbox";
/// Above every daemon's, below the program's own (1000), so that the kernel kills runs before the host's services and
/// never PID 1.
pub(crate) const OOM_SCORE: i64 = 500;
/// Below the hard limit of most hosts: an engine without the capability to go over it could not start the container.
pub(crate) const OPEN_FILES: i64 = 16_384;
/// The whole environment: nothing of the host's, and every name that an image might set to open a door.
pub(crate) fn environment(class: &SandboxClass) -> Vec<String> {
    // Libraries count the machine's CPUs, not the sandbox's share.
    let threads = (class.limits.cpu_millis / 1000).max(1).to_string();
    let gpus = match class.slot.gpu_uuids.as_slice() {
        [] => "void".to_owned(),
        uuids => uuids.join(","),
    };
    let fixed = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", init::WORK),
        ("USER", "sandbox"),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONUNBUFFERED", "1"),
        // The order of sets and dicts must be the same in every run of a seed.
        ("PYTHONHASHSEED", "0"),
        ("OMP_NUM_THREADS", &threads),
        ("MKL_NUM_THREADS", &threads),
        ("OPENBLAS_NUM_THREADS", &threads),
        ("NUMEXPR_NUM_THREADS", &threads),
        ("XDG_CACHE_HOME", "/tmp/cache"),
        ("TORCH_HOME", "/tmp/cache/torch"),
        ("TORCHINDUCTOR_CACHE_DIR", "/tmp/cache/inductor"),
        ("TRITON_CACHE_DIR", "/tmp/cache/triton"),
        ("CUDA_CACHE_PATH", "/tmp/cache/cuda"),
        ("MPLCONFIGDIR", "/tmp/cache/matplotlib"),
        ("MPLBACKEND", "agg"),
        ("NVIDIA_VISIBLE_DEVICES", &gpus),
        ("NVIDIA_DRIVER_CAPABILITIES", "compute,utility"),
    ];
    fixed.iter().map(|(name, value)| format!("{name}={value}")).collect()
}
