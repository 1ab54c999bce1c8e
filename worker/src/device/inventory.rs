//! What the machine has, read once at the start. CPUs are those that this process may use, not those that the machine
//! has: a worker that was pinned must not hand out what is another's.

use std::{fs, io};

use super::{
    cpu_list::CpuList,
    gpu::{Gpu, Gpus},
};

/// What could not be read. GPUs are no error: most machines have none.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// A file of the kernel.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// It is there and does not say what it should.
    #[error("{path} has no usable `{field}`")]
    Field {
        /// The file.
        path: &'static str,
        /// The line that was looked for.
        field: &'static str,
    },
}

/// What this machine has.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// As the kernel has it.
    pub host_name: String,
    /// Like "Debian GNU/Linux 12 (bookworm)".
    pub os: String,
    /// Like "6.1.0-13-amd64".
    pub kernel: String,
    /// Like "AMD EPYC 7763 64-Core Processor"; empty where the kernel does not say.
    pub cpu_model: String,
    /// Those that this process may use.
    pub cpus: CpuList,
    /// All of it, in bytes.
    pub memory_bytes: u64,
    /// Through NVML.
    pub gpus: Vec<Gpu>,
    /// Why there is no GPU, for `doctor`.
    pub no_gpus: Option<String>,
}

const STATUS: &str = "/proc/self/status";
const MEMORY: &str = "/proc/meminfo";

impl Inventory {
    /// Reads it all.
    ///
    /// # Errors
    /// Where /proc does not say what memory and CPUs there are.
    pub fn read(gpus: &Gpus) -> Result<Self, InventoryError> {
        let (found, no_gpus) = gpus.list();
        let names = nix::sys::utsname::uname().ok();
        let name = |pick: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            names.as_ref().map(|n| pick(n).to_string_lossy().into_owned()).unwrap_or_default()
        };
        Ok(Self {
            host_name: name(|n| n.nodename()),
            kernel: name(|n| n.release()),
            os: os_name(&read("/etc/os-release").unwrap_or_default()),
            cpu_model: field(&read("/proc/cpuinfo").unwrap_or_default(), "model name").unwrap_or_default(),
            cpus: allowed_cpus(&read(STATUS)?)?,
            memory_bytes: memory_total(&read(MEMORY)?)?,
            gpus: found,
            no_gpus,
        })
    }
}

fn read(path: &'static str) -> Result<String, InventoryError> {
    fs::read_to_string(path).map_err(|source| InventoryError::Read { path, source })
}

/// The value of a `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn allowed_cpus(status: &str) -> Result<CpuList, InventoryError> {
    let name = "Cpus_allowed_list";
    let found = field(status, name).and_then(|list| list.parse().ok());
    found.ok_or(InventoryError::Field { path: STATUS, field: name })
}

/// `MemTotal:       24689988 kB`, the unit always being 1024 bytes.
fn memory_total(meminfo: &str) -> Result<u64, InventoryError> {
    let name = "MemTotal";
    let kibibytes =
        field(meminfo, name).and_then(|value| value.strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kibibytes.map(|count| count * 1024).ok_or(InventoryError::Field { path: MEMORY, field: name })
}

/// `PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"`.
fn os_name(release: &str) -> String {
    let line = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Linux".to_owned(), |value| value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_read() {
        let found = Inventory::read(&Gpus::open()).unwrap();
        assert!(!found.cpus.numbers().is_empty() && found.memory_bytes > 64 << 20);
        assert!(!found.host_name.is_empty() && !found.kernel.is_empty());
        assert_eq!(found.gpus.is_empty(), found.no_gpus.is_some());
    }

    #[test]
    fn files_that_say_something_else_are_named() {
        assert_eq!(memory_total("MemTotal:       24689988 kB\nMemFree: 1 kB\n").unwrap(), 24_689_988 * 1024);
        for wrong in ["", "MemTotal: many kB", "MemTotal: 5 MB"] {
            assert!(memory_total(wrong).unwrap_err().to_string().contains("MemTotal"), "{wrong}");
        }
        assert_eq!(
            allowed_cpus("Cpus_allowed:\tff\nCpus_allowed_list:\t0-2,6\n").unwrap().to_string(),
            "0-2,6"
        );
        assert!(allowed_cpus("Cpus_allowed_list:\tx\n").is_err());
        assert_eq!(os_name("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        assert_eq!(os_name(""), "Linux");
    }
}
