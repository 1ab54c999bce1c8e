//! Ctrl-C (and SIGTERM, and a terminal that is closed) once: the token is cancelled, runs are ended, the report so far is written. Twice: out at once.

use kit::task::CancellationToken;
use tokio::signal::unix::{SignalKind, signal};

use super::{error::CliError, out::Printer};

/// Cancels the token at the first signal and leaves at the second.
///
/// # Errors
/// Where the signals cannot be listened to.
pub fn listen(token: CancellationToken, printer: Printer) -> Result<(), CliError> {
    let wrong = |e: std::io::Error| CliError::Failed(format!("cannot listen for signals: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(wrong)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(wrong)?;
    // The terminal was closed. Whoever wants a campaign to go on without it says --detach; this one can be resumed.
    let mut hangup = signal(SignalKind::hangup()).map_err(wrong)?;
    kit::task::spawn("signals", async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if token.is_cancelled() {
                leave();
            }
            printer.say("interrupted: ending runs and writing the report so far; again to leave at once");
            token.cancel();
        }
    });
    Ok(())
}

#[allow(clippy::exit, reason = "the second Ctrl-C is an order to leave; the next command cleans up")]
fn leave() -> ! {
    std::process::exit(130)
}
