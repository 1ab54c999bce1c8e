//! Programs of a build in namespaces of their own, so that whatever they mount and whatever they start ends with them:
//! no kill of theirs or of ours leaves a mount on the host. util-linux's `unshare` makes the namespaces, because a
//! child of a program with threads may not make them itself.
//!
//! ```text
//! unshare ─ PID 1: sh ─┬─ watcher: reads standard input; at its end (the worker is gone) it kills all
//!                      └─ chroot, setpriv, the program
//! ```

use std::path::{Path, PathBuf};

use tokio::process::Command;

/// A plain shell of root may have no sbin, where half of Debian's tools lie.
pub(super) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The tool is not here.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`unshare` is not here: install util-linux")]
pub(super) struct NoUnshare;

/// It kills everything it can see, so it must see its own namespace only: hence the first line. The mounts of runs that
/// are under way were copied with all others, and a copy would keep a volume's loop device busy for as long as a build takes.
const WATCHER: &str = r#"
[ "$$" = 1 ] || exit 125
while read -r _ _ _ _ at _; do
  case "$at" in */sandboxes/*|*/sandboxes-native/*) umount -l "$at" 2>/dev/null ;; esac
done </proc/self/mountinfo
exec 3<&0 </dev/null
{ cat <&3 >/dev/null; kill -KILL -1; } &
exec 3<&-
umask 022
"#;

/// $1 root, $2 "ro" or "rw", $3 how many folders, then their pairs of host path and place, then the program.
const ENTER: &str = r#"
set -e
hostname sandbox 2>/dev/null || echo sandbox >/proc/sys/kernel/hostname
root=$1 access=$2 folders=$3
shift 3
mount --bind "$root" "$root"
mount -o "remount,bind,nosuid,nodev,$access" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o mode=755,nosuid,noexec,size=1m dev "$root/dev"
for node in null zero full random urandom; do
  : >"$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777,nosuid,nodev,size=64m shm "$root/dev/shm"
mount -t tmpfs -o mode=1777,nosuid,nodev,size=256m tmp "$root/tmp"
mount -t tmpfs -o mode=755,nosuid,nodev,size=1m mnt "$root/mnt"
for file in resolv.conf hosts; do
  if [ -e "/etc/$file" ]; then mount --bind "/etc/$file" "$root/etc/$file"; fi
done
while [ "$folders" -gt 0 ]; do
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  mount -o remount,bind,nosuid,nodev "$root$2"
  folders=$((folders - 1))
  shift 2
done
set +e
"#;

const WAIT: &str = r#"
"$@" &
wait "$!"
"#;

/// `unshare … sh -c SCRIPT`, to which arguments are added.
fn contained(script: &str) -> Result<Command, NoUnshare> {
    let mut command = Command::new(installed("unshare").ok_or(NoUnshare)?);
    command.args(["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--"]);
    command.args(["/bin/sh", "-c", &format!("{WATCHER}{script}{WAIT}"), "sh"]);
    command.env("PATH", SEARCH_PATH);
    Ok(command)
}

/// Runs what is added as arguments on the host's files, with its own mounts and processes.
pub(super) fn on_host() -> Result<Command, NoUnshare> {
    contained("")
}

/// $1 a root that is about to be made: the devices that nobody can make in a user namespace.
const DEVICES: &str = r#"
set -e
mkdir -p "$1/dev"
mount -t tmpfs -o mode=755,nosuid,noexec,size=1m dev "$1/dev"
for node in null zero full random urandom tty; do
  : >"$1/dev/$node"
  mount --bind "/dev/$node" "$1/dev/$node"
done
shift
set +e
"#;

/// As [`on_host`], with devices in the root that the program makes, where it cannot make them itself.
pub(super) fn on_host_making(root: &Path) -> Result<Command, NoUnshare> {
    if !is_user_namespace() {
        return on_host();
    }
    let mut command = contained(DEVICES)?;
    // debootstrap's word for a place where no device can be made.
    command.arg(root).env("container", "lxc");
    Ok(command)
}

/// Whether uid 0 here is somebody else outside.
fn is_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = ["0", "0", "4294967295"];
    !map.is_empty() && !map.split_whitespace().eq(whole)
}

/// Runs what is added as arguments as uid 0 of a user namespace, on the host's files, with its own mounts and processes.
/// `wait` is what the shell there does until it was given its ids.
pub(super) fn in_user_namespace(wait: &str) -> Result<Command, NoUnshare> {
    let inner = on_host()?;
    let inner = inner.as_std();
    let mut command = Command::new(inner.get_program());
    command
        .args(["--user", "--", "/bin/sh", "-c", wait, "sh"])
        .arg(inner.get_program())
        .args(inner.get_args());
    command.env("PATH", SEARCH_PATH);
    Ok(command)
}

/// Whether a program may change the tree that it runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    ReadOnly,
    ReadWrite,
}

/// Who a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum User {
    /// Owns the files and has no capability: it can do nothing but write them.
    Owner,
    /// Of this uid and gid.
    Plain(u32),
}

/// Runs what is added as arguments inside the tree: its own processes, mounts, host name and /dev, the host's network.
/// The environment is empty but for the search path. `folders`: of the host, and where they are seen inside.
pub(super) fn inside(
    root: &Path,
    access: Access,
    user: User,
    folders: &[(PathBuf, String)],
) -> Result<Command, NoUnshare> {
    let mut command = contained(ENTER)?;
    command.env_clear().env("PATH", SEARCH_PATH).current_dir("/");
    command.arg(root).arg(match access {
        Access::ReadOnly => "ro",
        Access::ReadWrite => "rw",
    });
    command.arg(folders.len().to_string());
    for (host, seen) in folders {
        command.arg(host).arg(seen);
    }
    command.arg("chroot").arg(root).args([
        "/usr/bin/setpriv",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--no-new-privs",
        "--clear-groups",
    ]);
    if let User::Plain(id) = user {
        command.arg(format!("--reuid={id}")).arg(format!("--regid={id}"));
    }
    command.arg("--");
    Ok(command)
}

/// A program of the host, wherever Debian and others put it.
pub(super) fn installed(program: &str) -> Option<PathBuf> {
    SEARCH_PATH.split(':').map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use kit::task::CancellationToken;

    use super::{super::process, *};

    #[tokio::test]
    async fn a_program_is_alone_with_its_processes_and_its_code_comes_through() {
        if !nix::unistd::geteuid().is_root() {
            println!("left out: needs root");
            return;
        }
        let mut command = on_host().unwrap();
        command.args(["sh", "-c", "mount -t tmpfs none /mnt && echo $$ && exit 7"]);
        let ended = process::run(command, "sh", |_| {}, &CancellationToken::new()).await.unwrap();
        assert_eq!(ended.status.code(), Some(7), "{}", ended.output);
        let pid: u32 = ended.output.trim().parse().unwrap();
        assert!(pid < 10, "{pid}");
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains("none /mnt"), "{mounts}");
    }

    #[tokio::test]
    async fn a_build_holds_no_volume_of_a_run() {
        if !nix::unistd::geteuid().is_root() {
            println!("left out: needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("sandboxes/id/volume");
        std::fs::create_dir_all(&volume).unwrap();
        let at = volume.to_str().unwrap();
        let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "none", at]).status().unwrap();
        assert!(mounted.success());
        let mut command = on_host().unwrap();
        command.args(["grep", "-c", at, "/proc/self/mountinfo"]);
        let inside = process::run(command, "grep", |_| {}, &CancellationToken::new()).await;
        let outside = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let unmounted = std::process::Command::new("umount").arg(at).status().unwrap();
        assert_eq!(inside.unwrap().output.trim(), "0");
        assert!(outside.contains(at) && unmounted.success());
    }

    #[tokio::test]
    async fn a_worker_that_dies_takes_its_builds_with_it() {
        if !nix::unistd::geteuid().is_root() {
            println!("left out: needs root");
            return;
        }
        let mut command = on_host().unwrap();
        command.args(["sh", "-c", "trap '' HUP INT TERM; setsid sleep 3600 & sleep 3600"]);
        // A kill of the worker closes its end of this, and does nothing else.
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        assert!(tokio::time::timeout(std::time::Duration::from_millis(300), child.wait()).await.is_err());
        drop(input);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), child.wait()).await;
        assert_eq!(ended.unwrap().unwrap().code(), Some(128 + 9));
    }
}
