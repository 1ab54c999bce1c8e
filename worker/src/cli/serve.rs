//! `autoresearch-worker serve`.

use std::{io, net::SocketAddr, process::ExitCode};

use kit::{identity::InviteString, task::CancellationToken};

use crate::{config::BackendName, serve::listen::settings::Settings};

use super::{CommandResult, Common, Flags, data_dir, stop_on_signals};

/// Serve runs until stopped
///
/// Listens on the Unix socket `worker.sock` in the data folder, which only this user can open; with TLS where `init`
/// said; and dials the controllers that invited it. SIGTERM and SIGINT close the connections and end the worker within 5
/// seconds; programs that run are left running, and a worker that starts again goes on with them.
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// Listen here as well: on loopback, like 127.0.0.1:7400, without TLS, so that every user of this machine can use
    /// the worker; on any other address with TLS, after `init`
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Dial the controller that printed this string with `autoresearch worker invite NAME`, and go on doing so, also
    /// after a restart without this flag. It holds a secret, and other users of this machine see command lines: `-` reads
    /// it from standard input
    #[arg(long, value_name = "INVITE", env = DIAL, hide_env_values = true)]
    dial: Option<String>,
    /// Stop as soon as there is neither a connection nor a run that has not ended
    #[arg(long)]
    idle_exit: bool,
    /// Make the sandboxes of runs that name no backend by this one [default: docker where an engine answers, else native]
    #[arg(long, value_name = "NAME")]
    backend: Option<BackendName>,
    /// In a session of its own, so that the end of the one that started it does not reach it
    #[arg(long, hide = true)]
    own_session: bool,
}

/// The invitation, where neither a command line nor standard input is to hold it.
const DIAL: &str = "AUTORESEARCH_WORKER_DIAL";
/// An invitation is far shorter.
const INVITE_BYTES: u64 = 16 << 10;

/// The first line that is not empty: whatever else comes is not waited for.
fn one_line(from: impl io::BufRead) -> io::Result<String> {
    let lines = io::BufReader::new(from.take(INVITE_BYTES));
    for line in io::BufRead::lines(lines) {
        let line = line?;
        if !line.trim().is_empty() {
            return Ok(line.trim().to_owned());
        }
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "--dial -: no invitation on standard input; `autoresearch worker invite NAME` prints one",
    ))
}

impl Serve {
    pub(super) async fn run(&self, common: &Common, shutdown: CancellationToken) -> CommandResult {
        if self.own_session {
            nix::unistd::setsid()?;
        }
        let flags = Flags {
            listen: self.listen,
            idle_exit: self.idle_exit.then_some(true),
            backend: self.backend,
            ..Flags::default()
        };
        let config = common.configure(flags)?;
        crate::serve::check_listen(&config)?;
        match self.dial.as_deref() {
            Some("-") => remember(&Settings::of(&data_dir(&config)?), &one_line(io::stdin().lock())?)?,
            Some(text) => remember(&Settings::of(&data_dir(&config)?), text)?,
            None => {}
        }
        stop_on_signals(shutdown.clone())?;
        crate::serve::serve(config, shutdown).await?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A service that starts with the same string each time shows its secret once.
fn remember(settings: &Settings, text: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let invite: InviteString = text.trim().parse()?;
    if settings.has(&invite)? {
        return Ok(());
    }
    Ok(settings.add_dial(&invite)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_is_one_line_of_the_input() {
        assert_eq!(one_line(&b"\n  invite-me \nmore"[..]).unwrap(), "invite-me");
        let nothing = one_line(&b"\n\n"[..]).unwrap_err().to_string();
        assert!(nothing.contains("--dial -") && nothing.contains("worker invite"), "{nothing}");
        let endless = vec![b' '; 1 << 20];
        assert!(one_line(endless.as_slice()).is_err(), "it is read no further than an invitation is long");
    }
}
