//! `autoresearch-worker serve`.

use std::{net::SocketAddr, process::ExitCode};

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
    /// after a restart without this flag
    #[arg(long, value_name = "INVITE")]
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
        if let Some(text) = &self.dial {
            remember(&Settings::of(&data_dir(&config)?), text)?;
        }
        stop_on_signals(shutdown.clone())?;
        crate::serve::serve(config, shutdown).await?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A service that starts with the same string each time shows its secret once.
fn remember(settings: &Settings, text: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let invite: InviteString = text.parse()?;
    if settings.has(&invite)? {
        return Ok(());
    }
    Ok(settings.add_dial(&invite)?)
}
