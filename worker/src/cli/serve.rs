//! `autoresearch-worker serve`.

use std::{net::SocketAddr, process::ExitCode};

use kit::task::CancellationToken;

use crate::config::BackendName;

use super::{CommandResult, Common, Flags, stop_on_signals};

/// Serve runs until stopped
///
/// Listens on the Unix socket `worker.sock` in the data folder, which only this user can open. SIGTERM and SIGINT
/// close the connections and end the worker within 5 seconds; programs that run are left running, and their runs end
/// as lost when a worker starts again.
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// Listen on a loopback address as well, like 127.0.0.1:7400; every user of this machine can then use the worker
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Stop as soon as there is neither a connection nor a run that has not ended
    #[arg(long)]
    idle_exit: bool,
    /// Make the sandboxes of runs that name no backend by this one [default: docker where an engine answers, else native]
    #[arg(long, value_name = "NAME")]
    backend: Option<BackendName>,
}

impl Serve {
    pub(super) async fn run(&self, common: &Common, shutdown: CancellationToken) -> CommandResult {
        let flags = Flags {
            listen: self.listen,
            idle_exit: self.idle_exit.then_some(true),
            backend: self.backend,
            ..Flags::default()
        };
        let config = common.configure(flags)?;
        stop_on_signals(shutdown.clone())?;
        crate::serve::serve(config, shutdown).await?;
        Ok(ExitCode::SUCCESS)
    }
}
