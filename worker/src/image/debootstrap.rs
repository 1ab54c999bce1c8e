//! Debian made here, where no registry answers: debootstrap into a folder, streamed into the engine as an image.
//!
//! debootstrap is a shell script of 50 KiB. Where it is not installed it is fetched with the host's own apt and
//! unpacked beside the build, so that a machine with Docker and nothing else of ours will do. It mounts /proc in what
//! it builds and may be killed in the middle: it runs in mount and process namespaces of its own, which take every
//! mount and every child with them, so that removing the folder can never reach into a live mount.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use futures_util::TryStreamExt as _;
use kit::task::CancellationToken;
use tokio::process::{Child, Command};
use tokio_util::io::ReaderStream;

use super::{
    namespace::{self, NoUnshare, installed},
    process::{self, RunError},
    progress::Progress,
};

/// Debian 12.
pub(super) const SUITE: &str = "bookworm";
/// Besides minbase: Debian's Python, what brings pip to a build, and what checks certificates.
pub(super) const PACKAGES: &str = "python3,python3-venv,ca-certificates";
/// What an image has no use for, below the new root.
pub(super) const LEFT_OUT: [&str; 7] = [
    "./dev/*",
    "./proc/*",
    "./sys/*",
    "./var/cache/apt/*",
    "./var/lib/apt/lists/*",
    "./var/log/*",
    "./usr/share/doc/*",
];
/// Packages that minbase and ours make; only for how far the step is.
const STEPS_ABOUT: u64 = 330;
const TAR_PIECE: usize = 256 << 10;

/// Why there is no Debian. A text each, because the one reader is a person who is told what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum DebootstrapError {
    #[error(
        "making Debian here needs root: run `sudo autoresearch-worker image build torch` once, then every user of this engine has the images"
    )]
    NotRoot,
    #[error(
        "debootstrap is not here and apt could not fetch it ({0}): install debootstrap and debian-archive-keyring"
    )]
    Missing(String),
    #[error("`{program}` ended with {status}:\n{output}")]
    Failed { program: String, status: std::process::ExitStatus, output: String },
    #[error(transparent)]
    Tool(#[from] NoUnshare),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("cannot make a folder below {}", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
}

/// Begins the name of every folder of ours below the cache, so that one left by a kill is known again.
const FOLDER_PREFIX: &str = "debian-";

/// A finished root and the folder that holds it; the folder goes when this is dropped.
#[derive(Debug)]
pub(super) struct Root {
    folder: tempfile::TempDir,
}

/// Makes Debian below `cache`, on which the caller holds the lock, to be streamed.
pub(super) async fn make(
    cache: &Path,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Root, DebootstrapError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(DebootstrapError::NotRoot);
    }
    sweep(cache);
    let failed = |source| DebootstrapError::Folder { path: cache.to_owned(), source };
    let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir_in(cache).map_err(failed)?;
    make_in(folder.path(), progress, stop).await?;
    Ok(Root { folder })
}

/// Makes Debian as `root` below a folder of the caller's, which also gets what is needed for it.
pub(super) async fn make_in(
    folder: &Path,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<PathBuf, DebootstrapError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(DebootstrapError::NotRoot);
    }
    let tool = Tool::find(folder).await?;
    let root = folder.join("root");
    let mirror = mirror().await;
    let mut command = tool.command(&root)?;
    command.args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE]).arg(&root).args(mirror);
    let mut done = 0;
    let line = |line: &str| {
        done += 1;
        progress.step("base", done.min(STEPS_ABOUT), STEPS_ABOUT, line);
    };
    let ended = process::run(command, "debootstrap", line, stop).await?;
    if ended.status.success() {
        return Ok(root);
    }
    Err(DebootstrapError::Failed {
        program: "debootstrap".to_owned(),
        status: ended.status,
        output: ended.output,
    })
}

/// Removes what a killed build left: the lock says that nobody else is building.
fn sweep(cache: &Path) {
    let Ok(entries) = std::fs::read_dir(cache) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(FOLDER_PREFIX)
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "a folder of an earlier build stays");
        }
    }
}

impl Root {
    /// The root as a tar stream, and the process that makes it. Links, owners and devices are tar's own business.
    pub(super) fn stream(
        &self,
    ) -> Result<
        (impl futures_util::Stream<Item = std::io::Result<prost::bytes::Bytes>> + use<>, Child),
        DebootstrapError,
    > {
        let failed = |source| DebootstrapError::Run(RunError::Start { program: "tar".to_owned(), source });
        let mut command = Command::new("tar");
        command.args(["--create", "--numeric-owner", "--one-file-system", "--directory"]);
        command.arg(self.folder.path().join("root"));
        command.args(LEFT_OUT.iter().map(|pattern| format!("--exclude={pattern}"))).arg(".");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let Some(output) = child.stdout.take() else {
            return Err(failed(std::io::Error::other("it has no output")));
        };
        Ok((ReaderStream::with_capacity(output, TAR_PIECE).into_stream(), child))
    }
}

/// The script, and where its library lies if it was unpacked by us.
struct Tool {
    script: PathBuf,
    library: Option<PathBuf>,
    keyring: Option<PathBuf>,
}

const KEYRING: &str = "usr/share/keyrings/debian-archive-keyring.gpg";

impl Tool {
    async fn find(folder: &Path) -> Result<Self, DebootstrapError> {
        let unpacked = folder.join("tool");
        let installed = installed("debootstrap");
        let keyring = Path::new("/").join(KEYRING);
        let mut wanted = Vec::new();
        if installed.is_none() {
            wanted.push("debootstrap");
        }
        if !keyring.exists() {
            wanted.push("debian-archive-keyring");
        }
        for package in wanted {
            fetch(package, folder, &unpacked).await?;
        }
        let own_keyring = unpacked.join(KEYRING);
        Ok(Self {
            library: installed.is_none().then(|| unpacked.join("usr/share/debootstrap")),
            script: installed.unwrap_or_else(|| unpacked.join("usr/sbin/debootstrap")),
            keyring: own_keyring.exists().then_some(own_keyring),
        })
    }

    fn command(&self, root: &Path) -> Result<Command, DebootstrapError> {
        let mut command = namespace::on_host_making(root)?;
        command.arg(&self.script);
        if let Some(library) = &self.library {
            command.env("DEBOOTSTRAP_DIR", library);
        }
        if let Some(keyring) = &self.keyring {
            command.arg(format!("--keyring={}", keyring.display()));
        }
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        Ok(command)
    }
}

/// Fetches a Debian package with the host's apt, which checks its signature, and unpacks it without installing it.
async fn fetch(package: &str, folder: &Path, into: &Path) -> Result<(), DebootstrapError> {
    let missing = |why: String| DebootstrapError::Missing(why);
    let download = Command::new("apt-get")
        .args(["download", "--quiet", "-o", "APT::Sandbox::User=root", package])
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| missing(format!("apt-get: {e}")))?;
    if !download.status.success() {
        let said = String::from_utf8_lossy(&download.stderr);
        return Err(missing(said.lines().last().unwrap_or("no reason given").to_owned()));
    }
    let entries = std::fs::read_dir(folder).map_err(|e| missing(e.to_string()))?;
    let file = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{package}_")))
        })
        .ok_or_else(|| missing(format!("apt-get download left no {package}_*.deb")))?;
    let unpack =
        Command::new("dpkg-deb").arg("--extract").args([&file, into]).kill_on_drop(true).output().await;
    match unpack {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(missing(String::from_utf8_lossy(&done.stderr).trim().to_owned())),
        Err(error) => Err(missing(format!("dpkg-deb: {error}"))),
    }
}

/// The mirror that the host's own apt uses for this suite; without one, debootstrap's own.
async fn mirror() -> Option<String> {
    let listed = Command::new("apt-get")
        .args(["indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    parse_mirror(&String::from_utf8_lossy(&listed.stdout))
}

/// Lines of origin, code name and address; `mirror+file:` and the like mean nothing to debootstrap.
fn parse_mirror(text: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("Debian ")?.strip_prefix(SUITE)?.strip_prefix(' '))
        .find(|address| address.starts_with("http://") || address.starts_with("https://"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_mirror_is_one_for_this_suite() {
        let text = "Debian bookworm-updates http://mirror.example/debian/\nOther bookworm http://x.example/\n\
                    Debian bookworm mirror+file:/etc/apt/mirrors\nDebian bookworm http://mirror.example/debian/\n";
        assert_eq!(parse_mirror(text).as_deref(), Some("http://mirror.example/debian/"));
        assert_eq!(parse_mirror("Ubuntu noble http://x.example/\n"), None);
    }
}
