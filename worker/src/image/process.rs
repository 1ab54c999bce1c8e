//! One program of a build, run to its end with its lines as progress. It ends when we do: its standard input is a pipe
//! that nobody writes to, and whoever wants to outlive nobody ([`super::native`]) watches for the end of it.

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use kit::task::CancellationToken;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    sync::mpsc,
};

use super::progress::{Lines, Tail};

const PIECE: usize = 16 << 10;
const LINES_QUEUED: usize = 64;
/// A stopped program's whole tree is gone by then, or it is left to the sweep of the next build.
const END_GRACE: Duration = Duration::from_secs(10);

/// Why a program has no end of its own.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("`{program}` could not be started")]
    Start { program: String, source: std::io::Error },
    #[error("it was stopped")]
    Stopped,
}

/// How a program ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// The last lines that it printed.
    pub(super) output: String,
}

/// Runs it. `line` sees each line of both its streams, safe for a terminal once it is through `Progress`.
pub(super) async fn run(
    mut command: Command,
    program: &str,
    mut line: impl FnMut(&str),
    stop: &CancellationToken,
) -> Result<Ended, RunError> {
    let failed = |source| RunError::Start { program: program.to_owned(), source };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    // Held until the end: waiting for a child closes what it still has of this.
    let input = child.stdin.take();
    let (sender, mut lines) = mpsc::channel(LINES_QUEUED);
    if let Some(output) = child.stdout.take() {
        kit::task::spawn("build output", forward(output, sender.clone()));
    }
    if let Some(output) = child.stderr.take() {
        kit::task::spawn("build errors", forward(output, sender));
    }
    let mut tail = Tail::new();
    let reading = async {
        while let Some(each) = lines.recv().await {
            line(&each);
            tail.push(&each);
        }
        child.wait().await
    };
    match stop.run_until_cancelled(reading).await {
        Some(status) => Ok(Ended { status: status.map_err(failed)?, output: tail.text() }),
        None => {
            drop(input);
            if let Err(error) = child.start_kill() {
                tracing::debug!(%error, program, "it had ended already");
            }
            // The streams end when the last process of the tree is gone: only then may its files be removed.
            let gone = async { while lines.recv().await.is_some() {} };
            if tokio::time::timeout(END_GRACE, gone).await.is_err() {
                tracing::warn!(program, "a stopped program of a build has not ended yet");
            }
            Err(RunError::Stopped)
        }
    }
}

async fn forward(mut output: impl AsyncRead + Unpin, sender: mpsc::Sender<String>) {
    let (mut lines, mut piece) = (Lines::default(), vec![0; PIECE]);
    loop {
        let found = match output.read(&mut piece).await {
            Ok(0) => break,
            Ok(count) => lines.take(&String::from_utf8_lossy(&piece[..count])),
            Err(error) => {
                tracing::debug!(%error, "the output of a build broke off");
                break;
            }
        };
        for line in found {
            if sender.send(line).await.is_err() {
                return;
            }
        }
    }
    if let Some(rest) = lines.rest() {
        sender.send(rest).await.ok(); // nobody waits for it any more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_program_ends_with_its_last_lines_also_one_without_an_end() {
        let mut seen = Vec::new();
        let command = shell("echo one; echo E: no such suite >&2; printf last; exit 3");
        let line = |line: &str| seen.push(line.to_owned());
        let ended = run(command, "sh", line, &CancellationToken::new()).await.unwrap();
        assert_eq!(ended.status.code(), Some(3));
        for word in ["one", "E: no such suite", "last"] {
            assert!(ended.output.contains(word) && seen.iter().any(|line| line == word), "{word}: {seen:?}");
        }
    }

    #[tokio::test]
    async fn a_stop_ends_it() {
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(matches!(run(shell("sleep 60"), "sh", |_| {}, &stop).await, Err(RunError::Stopped)));
        let missing = run(Command::new("/nowhere/tool"), "tool", |_| {}, &CancellationToken::new()).await;
        assert!(missing.unwrap_err().to_string().contains("tool"));
    }
}
