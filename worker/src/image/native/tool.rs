//! A trusted tool, such as pip, inside a root: with the host's network and its settings, as a user that owns nothing,
//! in a tree that it cannot change, so that what it fetches can do nothing but lie in the folders it was given.
//!
//! This is no sandbox: it has no limits. It is for programs of the image only, never for a run's.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::chown,
    path::{Component, Path, PathBuf},
};

use kit::task::CancellationToken;
use tokio::sync::mpsc;

use crate::image::{
    namespace::{self, Access, User},
    process::{self, RunError},
    settings::HostSettings,
};

/// Uid and gid of a tool: below those of the slots (50000 and up), and nobody's.
pub const TOOL_UID: u32 = 49_999;
/// Where the host's settings for pip are seen inside.
const SETTINGS: &str = "/mnt/settings";

/// What is to be run.
#[derive(Debug, Clone, Default)]
pub struct Tool {
    /// The program, as a path inside the root or a name, and its arguments.
    pub command: Vec<String>,
    /// Folders of the host that the tool writes, and where it sees them: `/tmp`, or below `/mnt`. They are given to
    /// [`TOOL_UID`] (not what is in them); what a tool made belongs to it. Without one for `/tmp`, it has 256 MiB of
    /// memory there.
    pub folders: Vec<(PathBuf, String)>,
    /// Besides the search path, HOME, TMPDIR, and the host's certificate, proxy and pip settings, over which it wins.
    pub environment: BTreeMap<String, String>,
}

/// How a tool ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolEnd {
    /// Its exit code; `None`: a signal.
    pub code: Option<i32>,
    /// The last 30 lines that it printed, each of at most 200 characters, safe for a terminal.
    pub output: String,
}

/// Why a tool could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Only root can enter a tree.
    #[error("running a tool in a root file system needs root")]
    NotRoot,
    /// The program's own mistake.
    #[error("a tool cannot see a folder at {0}: it must be /tmp or a plain path below /mnt")]
    Place(String),
    /// A folder that was given.
    #[error("cannot give the tool the folder {}", path.display())]
    Folder {
        /// Which one.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It did not start.
    #[error("{0}")]
    Start(String),
    /// The token was cancelled; the tool and all it started are gone.
    #[error("the tool was stopped")]
    Stopped,
}

/// Runs a tool inside a root to its end. Its lines go into `lines` as they come (a full or closed channel loses some
/// and stops nothing). Where this worker is killed the tool is killed too; nothing it mounts is seen outside.
///
/// # Errors
/// Where it could not be run. How it ended is no error of this.
pub async fn run_inside(
    root: &Path,
    tool: &Tool,
    lines: mpsc::Sender<String>,
    stop: &CancellationToken,
) -> Result<ToolEnd, ToolError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(ToolError::NotRoot);
    }
    let mut folders = Vec::with_capacity(tool.folders.len() + 1);
    for (host, seen) in &tool.folders {
        if !is_place(seen) {
            return Err(ToolError::Place(kit::text::one_line(seen, 80)));
        }
        give(host).map_err(|source| ToolError::Folder { path: host.clone(), source })?;
        folders.push((host.clone(), seen.clone()));
    }
    let host_settings = HostSettings::read();
    let in_files = |source| ToolError::Folder { path: std::env::temp_dir(), source };
    let written = tempfile::tempdir().map_err(in_files)?;
    let variables = host_settings.write_below(written.path(), SETTINGS).map_err(in_files)?;
    give_all(written.path()).map_err(in_files)?;
    folders.push((written.path().to_owned(), SETTINGS.to_owned()));

    let mut command = namespace::inside(root, Access::ReadOnly, User::Plain(TOOL_UID), &folders)
        .map_err(|e| ToolError::Start(e.to_string()))?;
    command.args(&tool.command).env("TMPDIR", "/tmp").env("HOME", "/tmp").env("LANG", "C.UTF-8");
    command.envs(host_settings.proxies()).envs(variables).envs(&tool.environment);
    let line = |line: &str| {
        if lines.try_send(line.to_owned()).is_err() {
            tracing::trace!("a line of a tool was not taken");
        }
    };
    let program = tool.command.first().map_or("", String::as_str);
    match process::run(command, program, line, stop).await {
        Ok(ended) => Ok(ToolEnd { code: ended.status.code(), output: ended.output }),
        Err(RunError::Stopped) => Err(ToolError::Stopped),
        Err(error) => Err(ToolError::Start(crate::image::base::with_causes(&error))),
    }
}

fn is_place(seen: &str) -> bool {
    let mut parts = Path::new(seen).components();
    let below =
        parts.next() == Some(Component::RootDir) && parts.next() == Some(Component::Normal("mnt".as_ref()));
    seen == "/tmp" || (below && parts.clone().count() > 0 && parts.all(|p| matches!(p, Component::Normal(_))))
}

fn give(folder: &Path) -> io::Result<()> {
    if !folder.is_absolute() || !fs::symlink_metadata(folder)?.is_dir() {
        return Err(io::Error::other("it must be a folder, with its whole path"));
    }
    chown(folder, Some(TOOL_UID), Some(TOOL_UID))
}

fn give_all(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give_all(&entry?.path())?;
        }
    }
    chown(path, Some(TOOL_UID), Some(TOOL_UID))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_seen_in_two_places_only() {
        for good in ["/tmp", "/mnt/out", "/mnt/a/b"] {
            assert!(is_place(good), "{good}");
        }
        for wrong in ["/mnt", "/mnt/", "/tmp/x", "/", "/mnt/../etc", "mnt/x", "/etc", "", "/usr/mnt/x"] {
            assert!(!is_place(wrong), "{wrong}");
        }
    }
}
