//! What of a data folder's worker is on this machine, seen from outside: by the engine, the kernel's mounts and loop devices,
//! and the process table. Nothing here asks our own programs.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Fails the test loudly where Docker is missing.
///
/// # Panics
/// Where the engine does not answer.
pub fn require_docker() {
    let answered = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    let fine = answered.as_ref().is_ok_and(|output| output.status.success());
    assert!(fine, "these tests need Docker, and it does not answer: {answered:?}");
}

/// The worker's id in a data folder; absent before its first start.
#[must_use]
pub fn worker_id(data_dir: &Path) -> Option<String> {
    let text = fs::read_to_string(data_dir.join("worker/worker-id")).ok()?;
    Some(text.trim().to_owned())
}

/// One line for each thing that is left.
#[must_use]
pub fn of(data_dir: &Path) -> Vec<String> {
    on_engine(data_dir, None)
}

/// The same where the worker uses another engine than the machine's own, by its socket like `unix:///…`.
#[must_use]
pub fn on_engine(data_dir: &Path, engine: Option<&str>) -> Vec<String> {
    let mut left: Vec<String> =
        containers(data_dir, engine).into_iter().map(|id| format!("container {id}")).collect();
    let shown = data_dir.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    left.extend(mounts.lines().filter(|line| line.contains(&shown)).map(|line| format!("mount {line}")));
    left.extend(loops(data_dir).into_iter().map(|name| format!("loop device {name}")));
    left.extend(processes(data_dir).into_iter().map(|(pid, command)| format!("process {pid} {command}")));
    left.extend(cgroups(data_dir).into_iter().map(|path| format!("cgroup {}", path.display())));
    left.extend(sandboxes(data_dir).into_iter().map(|path| format!("folder {}", path.display())));
    let socket = data_dir.join("worker/worker.sock");
    if socket.exists() {
        left.push(format!("socket {}", socket.display()));
    }
    left
}

fn containers(data_dir: &Path, engine: Option<&str>) -> Vec<String> {
    let Some(worker) = worker_id(data_dir) else { return Vec::new() };
    let filter = format!("label=autoresearch={worker}");
    let mut command = Command::new("docker");
    command.args(engine.into_iter().flat_map(|socket| ["--host", socket]));
    let listed = command.args(["ps", "-aq", "--filter", &filter]).output();
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Folders of sandboxes, of whichever backend: each has a folder of its own for them, named after the first.
#[must_use]
pub fn sandboxes(data_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data_dir.join("worker")).into_iter().flatten().flatten();
    let of_backends = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("sandboxes"));
    let within = of_backends.flat_map(|entry| fs::read_dir(entry.path()).into_iter().flatten().flatten());
    within.map(|entry| entry.path()).collect()
}

/// Cgroups that are named by the data folder's worker, a few folders below the root of each hierarchy.
fn cgroups(data_dir: &Path) -> Vec<PathBuf> {
    let Some(worker) = worker_id(data_dir) else { return Vec::new() };
    let mut found = Vec::new();
    let mut folders = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(&worker) {
                found.push(entry.path());
            } else if depth < 4 {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

/// Loop devices whose file lies in the data folder, also one that was deleted since: a mount that anybody still has keeps it. A
/// helper container knows the file by another path, so what is mounted in the data folder counts as well.
#[must_use]
pub fn loops(data_dir: &Path) -> Vec<String> {
    let shown = data_dir.display().to_string();
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let ours = devices.filter(|device| {
        let backing = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        backing.contains(&shown)
    });
    let mut found: BTreeSet<String> =
        ours.map(|device| device.file_name().to_string_lossy().into_owned()).collect();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| line.strip_prefix("/dev/")?.split_once(' '));
    let mounted = mounted.filter(|(name, rest)| name.starts_with("loop") && rest.contains(&shown));
    found.extend(mounted.map(|(name, _)| name.to_owned()));
    found.into_iter().collect()
}

/// Processes that name the data folder on their command line: the local worker and its kin.
#[must_use]
pub fn processes(data_dir: &Path) -> Vec<(i32, String)> {
    let shown = data_dir.display().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        (command.contains(&shown) && pid != std::process::id() as i32).then_some((pid, command))
    });
    found.collect()
}

/// What lives in a cgroup or below it, killed; then the folders.
fn remove_cgroup(group: &Path) {
    let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in procs.lines().filter_map(|line| line.parse().ok()) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
    }
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    fs::remove_dir(group).ok();
}

/// Best effort after a failed test, so that it does not fail the next one.
pub fn remove(data_dir: &Path) {
    // Twice: the kernel needs a moment from a kill to an empty cgroup.
    for _ in 0..2 {
        for group in cgroups(data_dir) {
            remove_cgroup(&group);
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    for (pid, _) in processes(data_dir) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
    }
    for id in containers(data_dir, None) {
        Command::new("docker").args(["rm", "-f", &id]).output().ok();
    }
    remove_mounts(data_dir);
}

/// What a power cut takes: mounts and loop devices, but no file.
pub fn remove_mounts(data_dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let shown = data_dir.display().to_string();
    for point in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|p| p.contains(&shown)) {
        Command::new("umount").args(["-l", point]).output().ok();
    }
    for name in loops(data_dir) {
        Command::new("losetup").args(["-d", &format!("/dev/{name}")]).output().ok();
    }
}
