//! Facts about this machine, read from the kernel.

use std::path::Path;

use proto::v1::Machine;

/// The kernel's boot_id; empty where it cannot be read, which makes every start look like the same boot.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// What the protocol says of the machine, without its GPUs and its free disk.
#[must_use]
pub fn machine() -> Machine {
    let name = nix::sys::utsname::uname().ok();
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Machine {
        host_name: text(name.as_ref().map(|n| n.nodename())),
        os: os_name(Path::new("/etc/os-release")),
        kernel: text(name.as_ref().map(|n| n.release())),
        cpu_model: cpu_model(&cpuinfo),
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory_bytes: memory_bytes(&meminfo),
        disk_free_bytes: 0,
        gpus: Vec::new(),
    }
}

/// Of `/etc/os-release`: `PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"`.
fn os_name(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// Of `/proc/cpuinfo`: `model name : AMD EPYC 7B13`.
fn cpu_model(text: &str) -> String {
    let value = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    };
    text.lines().find_map(value).unwrap_or_default()
}

/// Of `/proc/meminfo`: `MemTotal:       16384256 kB`.
fn memory_bytes(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes: Option<u64> = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok());
    kibibytes.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_texts() {
        assert_eq!(memory_bytes("MemTotal:       16384256 kB\nMemFree: 1 kB\n"), 16_384_256 * 1024);
        assert_eq!(memory_bytes("nonsense"), 0);
        let cpu = "processor\t: 0\nmodel name\t: AMD EPYC 7B13\n";
        assert_eq!(cpu_model(cpu), "AMD EPYC 7B13");
        assert_eq!(boot_id().len(), 36);
        assert!(machine().memory_bytes > 0 && machine().cpus > 0);
    }
}
