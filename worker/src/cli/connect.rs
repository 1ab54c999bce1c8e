//! `autoresearch-worker connect`: what `ssh HOST` runs. First one line, so that the controller finds the beginning behind
//! whatever a shell printed; then bytes, both ways, between standard input and output and the worker's socket. Where no
//! worker runs it starts one, in a session of its own, which goes when nobody needs it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use kit::telemetry::LogFormat;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::{Child, Command},
    time::Instant,
};

use super::{CommandResult, Common, Flags, data_dir};

/// What comes first; the controller skips all before it.
const FIRST_LINE: &[u8] = b"autoresearch-worker/1\n";
/// Both the socket and starting one are tried for so long (WORKER §6).
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// A worker that ends at once is started again so often.
const STARTS: u32 = 3;
/// The log is begun anew when it has grown past this.
const LOG_BYTES: u64 = 16 << 20;
const BUFFER: usize = 64 << 10;

/// Bridge standard input and output to the worker, and start one where none runs
///
/// This is what `autoresearch worker add NAME ssh://USER@HOST` runs on the other machine. The worker that it starts
/// stops by itself when it has neither a connection nor a run; its log is `worker.log` in the data folder.
#[derive(Debug, clap::Args)]
pub(super) struct Connect {}

/// Why there is no bridge.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(
        "no permission to open {}: the worker there belongs to another user; log in as that user, or give a --data-dir of your own",
        .0.display()
    )]
    Permission(PathBuf),
    #[error("cannot open {}", .0.display())]
    Socket(PathBuf, #[source] io::Error),
    #[error("cannot write {}", .0.display())]
    Log(PathBuf, #[source] io::Error),
    #[error("cannot start a worker")]
    Start(#[source] io::Error),
    #[error("the worker that was started ended at once ({words}); its log is {}", log.display())]
    Ended { words: String, log: PathBuf },
    #[error("no worker listens on {} after {} s; the log of the one that was started is {}", socket.display(), PATIENCE.as_secs(), log.display())]
    Late { socket: PathBuf, log: PathBuf },
}

impl Connect {
    pub(super) async fn run(&self, common: &Common, log_filter: &str) -> CommandResult {
        let config = common.configure(Flags::default())?;
        let folder = data_dir(&config)?;
        let folder = std::path::absolute(&folder)?;
        let starter = Starter { folder: folder.clone(), common, log_filter };
        let socket = starter.reach(&crate::serve::socket_path(&folder)?).await?;
        let (input, output) =
            (io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?);
        let file = |fd| tokio::fs::File::from_std(File::from(fd));
        bridge(socket, file(input), file(output)).await?;
        Ok(ExitCode::SUCCESS)
    }
}

struct Starter<'a> {
    folder: PathBuf,
    common: &'a Common,
    log_filter: &'a str,
}

impl Starter<'_> {
    /// Opens the socket, or starts a worker and then opens it.
    async fn reach(&self, socket: &Path) -> Result<UnixStream, ConnectError> {
        let until = Instant::now() + PATIENCE;
        let (mut child, mut starts, mut log_from): (Option<Child>, _, _) = (None, 0, 0);
        loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(ConnectError::Permission(socket.to_owned()));
                }
                Err(error) if is_nobody(&error) => {}
                Err(error) => return Err(ConnectError::Socket(socket.to_owned(), error)),
            }
            // One that found the folder in use leaves it to the other, which will listen soon.
            let ended = match &mut child {
                Some(child) => child.try_wait().map_err(ConnectError::Start)?.is_some(),
                None => true,
            };
            let late = Instant::now() >= until;
            if ended && (starts >= STARTS || late && starts > 0) {
                return Err(ConnectError::Ended {
                    words: last_words(&self.log(), log_from),
                    log: self.log(),
                });
            }
            if late {
                return Err(ConnectError::Late { socket: socket.to_owned(), log: self.log() });
            }
            if ended {
                let (started, from) = self.start()?;
                (child, log_from, starts) = (Some(started), from, starts + 1);
            }
            tokio::time::sleep(PAUSE * (1 + 4 * starts)).await;
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("worker.log")
    }

    fn start(&self) -> Result<(Child, u64), ConnectError> {
        let path = self.log();
        let failed = |error| ConnectError::Log(path.clone(), error);
        kit::folder::create_private(&self.folder).map_err(|error| failed(io::Error::other(error)))?;
        let open = || -> io::Result<(File, u64)> {
            let mut log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
            if log.metadata()?.len() > LOG_BYTES {
                log.set_len(0)?;
            }
            let from = log.seek(SeekFrom::End(0))?;
            Ok((log, from))
        };
        let (log, from) = open().map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(ConnectError::Start)?);
        command.args(["serve", "--idle-exit", "--own-session", "--log", self.log_filter, "--data-dir"]);
        command.arg(&self.folder);
        if let Some(config) = &self.common.config {
            command.arg("--config").arg(config);
        }
        if let Some(host) = &self.common.docker_host {
            command.arg("--docker-host").arg(host);
        }
        if let Some(format) = self.common.log_format {
            command.arg("--log-format").arg(match format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            });
        }
        // Nothing of this session stays open in it: ssh waits for that.
        let log_too = log.try_clone().map_err(failed)?;
        let child = command.stdin(Stdio::null()).stdout(log_too).stderr(log).spawn();
        Ok((child.map_err(ConnectError::Start)?, from))
    }
}

/// Whether nobody listens: no socket, or one that a killed worker left.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn last_words(log: &Path, from: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(64 << 10).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    kit::text::one_line(last, 400)
}

/// Until the worker has said all. The end of the input is passed on and ends nothing; that nobody reads the output any
/// more does.
async fn bridge(
    socket: UnixStream,
    input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let (from_worker, mut to_worker) = socket.into_split();
    let up = async {
        let copied = tokio::io::copy_buf(&mut BufReader::with_capacity(BUFFER, input), &mut to_worker).await;
        // What the worker does not take any more is told by its own end.
        if copied.is_ok() {
            to_worker.shutdown().await.ok();
        }
        std::future::pending::<()>().await;
    };
    let down = async {
        output.write_all(FIRST_LINE).await?;
        output.flush().await?;
        copy_down(from_worker, &mut output).await
    };
    tokio::select! {
        () = up => Ok(()),
        copied = down => copied,
    }
}

/// Each piece is passed on at once: gRPC's messages are small, and somebody waits for each.
async fn copy_down(mut from: impl AsyncRead + Unpin, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    use tokio::io::AsyncReadExt as _;
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            n => {
                let passed = match to.write_all(&buffer[..n]).await {
                    Ok(()) => to.flush().await,
                    error => error,
                };
                match passed {
                    Ok(()) => {}
                    // Whoever asked has gone, and needs no last word of the worker.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn the_end_of_the_input_is_passed_on_and_the_answer_still_comes() {
        let (ours, mut worker) = UnixStream::pair().unwrap();
        let (mut output, seen) = tokio::io::duplex(1 << 20);
        let worker = async {
            let mut asked = Vec::new();
            worker.read_to_end(&mut asked).await.unwrap();
            worker.write_all(&asked).await.unwrap();
            worker.write_all(b" and more").await.unwrap();
            drop(worker);
        };
        let (bridged, ()) = tokio::join!(bridge(ours, &b"question"[..], seen), worker);
        bridged.unwrap();
        let mut all = Vec::new();
        output.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"autoresearch-worker/1\nquestion and more");
    }

    #[tokio::test]
    async fn a_worker_that_ends_ends_the_bridge_although_the_input_is_open() {
        let (ours, worker) = UnixStream::pair().unwrap();
        let (_input, open) = tokio::io::duplex(16);
        drop(worker);
        bridge(ours, open, tokio::io::sink()).await.unwrap();
    }

    #[tokio::test]
    async fn an_output_that_nobody_reads_ends_it_too() {
        let (ours, _worker) = UnixStream::pair().unwrap();
        let (_input, open) = tokio::io::duplex(16);
        let (_, closed) = tokio::io::duplex(16);
        assert!(bridge(ours, open, closed).await.is_err());
    }
}
