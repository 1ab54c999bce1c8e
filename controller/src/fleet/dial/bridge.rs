//! A child process whose standard input and output are the connection: `ssh`. The child lives as long as the stream and not
//! a moment longer than it takes to end it; what it said on its standard error is kept for the error.

use std::{
    io,
    pin::Pin,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use kit::task::CancellationToken;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::oneshot,
};

/// What the other side writes first.
const GREETING: &[u8] = b"autoresearch-worker/1";
/// A shell may print so much before it.
const BEFORE_GREETING_MAX: usize = 64 << 10;
/// The last of the child's standard error that is kept.
const STDERR_MAX: usize = 4 << 10;
/// A child whose input is closed gets so long to go by itself.
const GOODBYE: Duration = Duration::from_secs(1);
/// After its end its standard error is read for so long: a process that it left may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// What is left of a child: how it ended, and its last words.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: Option<ExitStatus>,
    pub(super) stderr: String,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum BridgeError {
    /// The program was not started.
    Start(io::Error),
    /// It ended, or closed its output, before the greeting.
    Ended(Ended),
    /// More than 64 KiB and no greeting.
    Noise(String),
}

/// The connection.
pub(super) struct Bridge {
    stdout: ChildStdout,
    stdin: ChildStdin,
    /// What came with the greeting and belongs to the connection.
    early: Vec<u8>,
    /// Tells the keeper that the connection is gone.
    _gone: GoneOnDrop,
}

struct GoneOnDrop(CancellationToken);

impl Drop for GoneOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Bridge {
    /// Starts the child and waits for the greeting; the caller bounds the wait: dropping this ends the child.
    pub(super) async fn open(mut command: Command) -> Result<Self, BridgeError> {
        use std::process::Stdio;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that Ctrl-C reaches this program and not the connection; killed also where this program's
        // event loop ends first.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(BridgeError::Start)?;
        let missing = || BridgeError::Start(io::Error::other("it has no pipes"));
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let mut stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let gone = CancellationToken::new();
        let (ended, words) = oneshot::channel();
        kit::task::spawn("ssh", keep(child, stderr, gone.clone(), ended));
        let gone_on_drop = GoneOnDrop(gone.clone());
        match greeting(&mut stdout).await {
            Ok(early) => Ok(Self { stdout, stdin, early, _gone: gone_on_drop }),
            Err(Silence::Closed) => {
                drop(stdin);
                gone.cancel();
                let nothing = Ended { status: None, stderr: String::new() };
                Err(BridgeError::Ended(words.await.unwrap_or(nothing)))
            }
            Err(Silence::Noise(text)) => Err(BridgeError::Noise(text)),
        }
    }
}

/// Follows the child to its end, ends it when the connection is gone, and reaps it.
async fn keep(mut child: Child, stderr: ChildStderr, gone: CancellationToken, ended: oneshot::Sender<Ended>) {
    let words = Arc::new(Mutex::new(Vec::new()));
    let reading = kit::task::spawn("ssh's words", listen(stderr, Arc::clone(&words)));
    let by_itself = tokio::select! {
        status = child.wait() => Some(status),
        () = gone.cancelled() => tokio::time::timeout(GOODBYE, child.wait()).await.ok(),
    };
    let status = match by_itself {
        Some(status) => status,
        None => match child.kill().await {
            // Killed and reaped: how it ended is our own doing.
            Ok(()) => child.wait().await,
            Err(error) => Err(error),
        },
    };
    let reader = reading.abort_handle();
    tokio::time::timeout(LAST_WORDS, reading).await.ok();
    reader.abort();
    let bytes = std::mem::take(&mut *words.lock().unwrap_or_else(PoisonError::into_inner));
    let ended_with = Ended { status: status.ok(), stderr: String::from_utf8_lossy(&bytes).into_owned() };
    // Nobody waits for it where the connection was made: then the log is told.
    if let Err(ended_with) = ended.send(ended_with)
        && !ended_with.stderr.is_empty()
    {
        tracing::warn!(status = ?ended_with.status, words = %last_line(&ended_with.stderr), "ssh ended");
    }
}

async fn listen(mut stderr: ChildStderr, words: Arc<Mutex<Vec<u8>>>) {
    let mut chunk = [0; 1024];
    while let Ok(n @ 1..) = stderr.read(&mut chunk).await {
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        words.extend_from_slice(&chunk[..n]);
        let over = words.len().saturating_sub(STDERR_MAX);
        words.drain(..over);
    }
}

enum Silence {
    Closed,
    Noise(String),
}

/// Reads up to and with the greeting's line; what comes after it in the same read belongs to the connection.
async fn greeting(from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Silence> {
    let mut seen: Vec<u8> = Vec::new();
    let mut chunk = vec![0; 4 << 10];
    let mut line_starts_at = 0;
    loop {
        let n = match from.read(&mut chunk).await {
            Ok(0) | Err(_) => return Err(Silence::Closed),
            Ok(n) => n,
        };
        seen.extend_from_slice(&chunk[..n]);
        while let Some(length) = seen[line_starts_at..].iter().position(|byte| *byte == b'\n') {
            let line = &seen[line_starts_at..line_starts_at + length];
            line_starts_at += length + 1;
            // A shell's last prompt may stand before it on the same line.
            if line.strip_suffix(b"\r").unwrap_or(line).ends_with(GREETING) {
                return Ok(seen.split_off(line_starts_at));
            }
            if line_starts_at > BEFORE_GREETING_MAX {
                break;
            }
        }
        if seen.len() > BEFORE_GREETING_MAX + GREETING.len() + 2 {
            return Err(Silence::Noise(last_line(&String::from_utf8_lossy(&seen))));
        }
    }
}

/// The last line that says something, made safe for a terminal.
pub(super) fn last_line(text: &str) -> String {
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    kit::text::one_line(last, 300)
}

impl AsyncRead for Bridge {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let n = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..n]);
            self.early.drain(..n);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for Bridge {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(ready!(Pin::new(&mut self.stdin).poll_write(cx, bytes)))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    async fn greeted(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut from = bytes;
        greeting(&mut from).await.ok()
    }

    #[tokio::test]
    async fn what_a_shell_prints_is_skipped_and_what_follows_is_kept() {
        assert_eq!(greeted(b"autoresearch-worker/1\nPRI").await.unwrap(), b"PRI");
        assert_eq!(greeted(b"hello\nautoresearch-worker/1\r\nPRI\nx").await.unwrap(), b"PRI\nx");
        assert_eq!(greeted(b"$ autoresearch-worker/1\n").await.unwrap(), b"");
        assert!(greeted(b"autoresearch-worker/12\n").await.is_none());
        let mut long = vec![b'x'; 60 << 10];
        long.extend_from_slice(b"\nautoresearch-worker/1\nPRI");
        assert_eq!(greeted(&long).await.unwrap(), b"PRI");
    }

    #[tokio::test]
    async fn a_shell_that_never_stops_is_given_up_and_ended() {
        match Bridge::open(shell("yes nonsense")).await {
            Err(BridgeError::Noise(line)) => assert!("nonsense".starts_with(&line), "{line}"),
            other => panic!("{:?}", other.err()),
        }
    }

    #[tokio::test]
    async fn its_own_words_are_the_error() {
        match Bridge::open(shell("echo 'no route to host' >&2; exit 255")).await {
            Err(BridgeError::Ended(ended)) => {
                assert_eq!(ended.stderr.trim(), "no route to host");
                assert_eq!(ended.status.unwrap().code(), Some(255));
            }
            other => panic!("{:?}", other.err()),
        }
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_child_goes_with_the_stream() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        // It ignores the end of its input, as a hung ssh would.
        let script = format!(
            "echo $$ > {}; echo autoresearch-worker/1; head -c 4; trap '' TERM; sleep 1000",
            file.display()
        );
        let mut bridge = Bridge::open(shell(&script)).await.unwrap();
        bridge.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        bridge.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"ping");
        let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        drop(bridge);
        let since = Instant::now();
        while nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok() {
            assert!(since.elapsed() < Duration::from_secs(20), "the child is still there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
