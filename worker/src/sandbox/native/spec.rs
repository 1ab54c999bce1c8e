//! What the launcher is told, as it reads it: one `key<TAB>value…` a line. Every wall that it builds is asked for here.
//! The other half is `worker/sandbox-init/launch.rs`; change both together.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::{gpu::GpuParts, groups::Places};
use crate::sandbox::{
    SandboxClass, StreamPaths, init,
    layout::{BINDS, HOST_NAME, INIT_PATH, OOM_SCORE, OPEN_FILES, environment},
    volume::Volume,
};

/// A page each would be one inode for 4 KiB; a file of /dev/shm is rarely so small, and an inode is kernel memory.
const SHM_BYTES_PER_INODE: u64 = 4 << 10;
const SHM_INODES_LEAST: u64 = 1024;

/// What one sandbox is made of, on the host.
pub(super) struct Parts<'a> {
    pub class: &'a SandboxClass,
    pub volume: &'a Volume,
    pub image: &'a Path,
    /// An empty folder, for the time that the new root is built.
    pub place: &'a Path,
    pub reports: &'a Path,
    pub places: &'a Places,
    pub gpus: &'a GpuParts,
    pub filter: &'a [u8],
    /// For tests; 0 is none.
    pub fault: usize,
}

/// As the launcher reads it. `None` where a path or a name cannot be written so.
pub(super) fn render(parts: &Parts<'_>) -> Option<String> {
    let mut text = Text(String::new());
    let class = parts.class;
    text.path("place", parts.place)?;
    text.path("image", parts.image)?;
    text.path("reports", parts.reports)?;
    for path in &parts.places.supervisor {
        text.path("supervisor", path)?;
    }
    for path in &parts.places.run {
        text.path("cgroup", path)?;
    }
    let root = parts.volume.mounted_at();
    for (name, target, read_only) in BINDS {
        text.bind("folder", read_only, target, &root.join(name))?;
    }
    text.bind("file", true, INIT_PATH, &root.join("init").join("sandbox-init"))?;
    if let Some(holder) = parts.volume.holder() {
        text.line("holder", &holder.to_string())?;
        let StreamPaths { stdout, stderr, metrics } = parts.volume.streams();
        for ((name, file), limit) in
            [("stdout", stdout), ("stderr", stderr), ("metrics", metrics)].iter().zip(class.limits.log_bytes)
        {
            let (pipe, file) = (root.join("logs").join(name), plain(file)?);
            text.line("stream", &format!("{limit}\t{}\t{file}", plain(&pipe)?))?;
        }
    }
    for (number, layer) in class.layers.iter().enumerate() {
        text.bind("folder", true, &layer.target, &parts.volume.layer(number))?;
    }
    for (target, source) in &parts.gpus.files {
        text.bind("file", true, target, source)?;
    }
    for name in &parts.gpus.nodes {
        text.line("device", name)?;
    }
    text.line("sys", if parts.gpus.nodes.is_empty() { "cpu" } else { "whole" })?;
    text.line("host", HOST_NAME)?;
    let shm = class.limits.shm_bytes;
    let inodes = (shm / SHM_BYTES_PER_INODE).max(SHM_INODES_LEAST);
    text.line("shm", &format!("{shm}\t{inodes}"))?;
    text.line("oom_score", &OOM_SCORE.to_string())?;
    text.line("open_files", &OPEN_FILES.to_string())?;
    let filter = parts.filter.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").ok();
        hex
    });
    text.line("filter", &filter)?;
    text.line("program", INIT_PATH)?;
    text.line("argument", &init::COLD_GATE.as_secs().to_string())?;
    for variable in environment(class) {
        text.line("environment", &variable)?;
    }
    text.line("fault", &parts.fault.to_string())?;
    Some(text.0)
}

struct Text(String);

impl Text {
    fn line(&mut self, key: &str, value: &str) -> Option<()> {
        if value.contains(['\n', '\r', '\0']) {
            return None;
        }
        writeln!(self.0, "{key}\t{value}").ok()
    }

    fn path(&mut self, key: &str, path: &Path) -> Option<()> {
        self.line(key, plain(path)?)
    }

    fn bind(&mut self, kind: &str, read_only: bool, target: &str, source: &Path) -> Option<()> {
        let mode = if read_only { "ro" } else { "rw" };
        let target = plain(Path::new(target))?;
        self.line("bind", &format!("{kind}\t{mode}\t{target}\t{}", plain(source)?))
    }
}

fn plain(path: &Path) -> Option<&str> {
    path.to_str().filter(|text| !text.contains('\t'))
}

/// Where PID 1's reports lie, in a sandbox's folder.
pub(super) fn reports(folder: &Path) -> PathBuf {
    folder.join("reports")
}

/// Where the new root is built, in a sandbox's folder.
pub(super) fn place(folder: &Path) -> PathBuf {
    folder.join("root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_add_a_line_or_a_word() {
        let mut text = Text(String::new());
        assert_eq!(text.path("image", Path::new("/a\nfault\t1")), None);
        assert_eq!(text.bind("folder", true, "/data/x", Path::new("/a\t/b")), None);
        assert_eq!(text.line("environment", "A=b\nprogram\t/bin/sh"), None);
        assert_eq!(text.0, "");
        text.bind("folder", false, "/work", Path::new("/v/work")).unwrap();
        assert_eq!(text.0, "bind\tfolder\trw\t/work\t/v/work\n");
    }
}
