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
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::mpsc,
};
use tokio_util::io::ReaderStream;

use super::progress::{Progress, Tail};

/// Debian 12.
pub(super) const SUITE: &str = "bookworm";
/// Besides minbase: Debian's Python, what brings pip to a build, and what checks certificates.
pub(super) const PACKAGES: &str = "python3,python3-venv,ca-certificates";
/// What an image has no use for, below the new root.
const LEFT_OUT: [&str; 7] = [
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
const LINES_QUEUED: usize = 64;
const TAR_PIECE: usize = 256 << 10;

/// Why there is no Debian. A text each, because the one reader is a person who is told what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum DebootstrapError {
    #[error("making Debian here needs root: run `autoresearch-worker image build` once as root")]
    NotRoot,
    #[error("debootstrap is not here and apt could not fetch it ({0}): `apt-get install debootstrap`")]
    Missing(String),
    #[error("`{program}` could not be started")]
    Start { program: String, source: std::io::Error },
    #[error("`{program}` ended with {status}:\n{output}")]
    Failed { program: String, status: std::process::ExitStatus, output: String },
    #[error("it was stopped")]
    Stopped,
}

/// A finished root and the folder that holds it; the folder goes when this is dropped.
#[derive(Debug)]
pub(super) struct Root {
    folder: tempfile::TempDir,
}

/// Begins the name of every folder of ours below the cache, so that one left by a kill is known again.
const FOLDER_PREFIX: &str = "debian-";

/// Makes Debian below `cache`, on which the caller holds the lock.
pub(super) async fn make(
    cache: &Path,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Root, DebootstrapError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(DebootstrapError::NotRoot);
    }
    sweep(cache);
    let start = |source| DebootstrapError::Start { program: "tempfile".to_owned(), source };
    let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir_in(cache).map_err(start)?;
    let tool = Tool::find(folder.path()).await?;
    let root = folder.path().join("root");
    let mirror = mirror().await;
    let mut command = tool.command();
    command.args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE]).arg(&root).args(mirror);
    run(command, "debootstrap", progress, stop).await?;
    Ok(Root { folder })
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
        let failed = |source| DebootstrapError::Start { program: "tar".to_owned(), source };
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

    fn command(&self) -> Command {
        let mut command = match installed("unshare") {
            Some(unshare) => {
                let mut command = Command::new(unshare);
                command.args(["--mount", "--pid", "--fork", "--kill-child", "--"]).arg(&self.script);
                command
            }
            None => Command::new(&self.script),
        };
        if let Some(library) = &self.library {
            command.env("DEBOOTSTRAP_DIR", library);
        }
        if let Some(keyring) = &self.keyring {
            command.arg(format!("--keyring={}", keyring.display()));
        }
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        // A plain shell of root may have no sbin, where half of Debian's tools lie.
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }
}

fn installed(program: &str) -> Option<PathBuf> {
    let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    folders.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
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

/// Runs a program to its end with its lines as progress.
async fn run(
    mut command: Command,
    program: &str,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<(), DebootstrapError> {
    let failed = |source| DebootstrapError::Start { program: program.to_owned(), source };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let (sender, mut lines) = mpsc::channel(LINES_QUEUED);
    if let Some(output) = child.stdout.take() {
        kit::task::spawn("debootstrap output", forward(output, sender.clone()));
    }
    if let Some(output) = child.stderr.take() {
        kit::task::spawn("debootstrap errors", forward(output, sender));
    }
    let mut tail = Tail::new();
    let mut done = 0;
    let reading = async {
        while let Some(line) = lines.recv().await {
            done += 1;
            progress.step("base", done.min(STEPS_ABOUT), STEPS_ABOUT, &line);
            tail.push(&line);
        }
        child.wait().await
    };
    let status = stop.run_until_cancelled(reading).await.ok_or(DebootstrapError::Stopped)?.map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    Err(DebootstrapError::Failed { program: program.to_owned(), status, output: tail.text() })
}

async fn forward(output: impl AsyncRead + Unpin, lines: mpsc::Sender<String>) {
    let mut reader = BufReader::new(output).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        if lines.send(line).await.is_err() {
            return;
        }
    }
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

    #[tokio::test]
    async fn a_program_that_fails_is_told_with_its_last_lines() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo E: no such suite >&2; exit 3"]);
        let progress = Progress::new();
        let error =
            run(command, "debootstrap", &progress, &CancellationToken::new()).await.unwrap_err().to_string();
        assert!(
            error.contains("one") && error.contains("E: no such suite") && error.contains('3'),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_stop_ends_it() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let stop = CancellationToken::new();
        stop.cancel();
        let ended = run(command, "sleep", &Progress::new(), &stop).await;
        assert!(matches!(ended, Err(DebootstrapError::Stopped)));
    }
}
