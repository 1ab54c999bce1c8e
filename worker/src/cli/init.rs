//! `autoresearch-worker init`: what the owner of a machine types there, once for each controller.

use std::{net::SocketAddr, process::ExitCode};

use kit::{
    clock::SystemClock,
    identity::{Address, JoinString},
};

use super::{CommandResult, Common, Flags, data_dir, print};
use crate::{
    config::WorkerConfig,
    serve::listen::{Access, settings::Settings},
};

/// Where nothing else is said.
const LISTEN: &str = "0.0.0.0:7433";
/// Never reached: it only asks the kernel which address it would use.
const SOMEWHERE: &str = "192.0.2.1:9";

/// Let another machine in: make keys, listen with TLS, print one string to join with
///
/// On the other machine, `autoresearch worker add NAME STRING` takes the string. It holds this worker's address, the
/// fingerprint of its key, and a secret that works once and for an hour. Run it again for another controller, or after
/// an hour: the keys and who was let in stay. A worker that serves sees it without a restart; `autoresearch-worker
/// serve` listens there from then on.
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// Listen here [default: what was said before, else 0.0.0.0:7433]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// How the other machine reaches this one, like gpu-box.example:7433 [default: what was said before, else this
    /// machine's address]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
}

/// What cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    #[error("--listen {0}: name a port, so that the string can hold it")]
    NoPort(SocketAddr),
    #[error("--advertise: {0}")]
    Advertise(#[from] kit::identity::AddressError),
    #[error("this machine has no address that another could dial: name one with --advertise HOST:PORT")]
    NoAddress,
}

impl Init {
    pub(super) fn run(&self, common: &Common) -> CommandResult {
        let config = common.configure(Flags::default())?;
        let folder = data_dir(&config)?;
        kit::folder::create_private(&folder)?;
        let settings = Settings::of(&folder);
        let before = settings.read()?;
        let listen = self.listen.or_else(|| configured(&config)).or(before.listen);
        let listen = listen.map_or_else(|| LISTEN.parse(), Ok)?;
        if listen.port() == 0 {
            return Err(InitError::NoPort(listen).into());
        }
        // What was advertised before holds only for the address that it was said for.
        let kept = before.advertise.filter(|_| before.listen == Some(listen));
        let address = match self.advertise.clone().or(kept) {
            Some(text) => text.parse().map_err(InitError::Advertise)?,
            None => guess(listen).ok_or(InitError::NoAddress)?,
        };
        let clock = SystemClock::shared();
        let access = Access::open(&folder, config.remote.certificate_lifetime.0, clock)?;
        let identity = access.identity()?;
        settings.set_listen(listen, &address)?;
        let lifetime = config.remote.invitation_lifetime;
        let secret = access.invitations().issue(None, lifetime.0)?;
        let join = JoinString { address, fingerprint: identity.fingerprint(), secret };
        tracing::info!(
            fingerprint = %identity.fingerprint(),
            %listen,
            "another machine can join at {} for {lifetime}, once: autoresearch worker add NAME STRING",
            join.address
        );
        print(&format!("{join}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Where `serve` listens with TLS by its configuration.
fn configured(config: &WorkerConfig) -> Option<SocketAddr> {
    config.listen.filter(|address| !address.ip().is_loopback())
}

/// The address that this machine would use towards others.
fn guess(listen: SocketAddr) -> Option<Address> {
    if !listen.ip().is_unspecified() {
        return Some(listen.into());
    }
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(SOMEWHERE).ok()?;
    let own = socket.local_addr().ok().map(|address| address.ip());
    own.filter(|ip| !ip.is_unspecified()).map(|ip| SocketAddr::new(ip, listen.port()).into())
}
