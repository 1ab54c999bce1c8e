//! `autoresearch worker invite NAME`: a worker behind NAT, or one that a cluster starts, dials us.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    process::ExitCode,
    time::Duration,
};

use kit::{
    duration::Span,
    identity::{Address as HostPort, INVITATION_LIFETIME, Invitations, InviteString},
};

use super::{Desk, check, check_name, described, registry_failed};
use crate::{
    cli::{
        error::{CliError, chain},
        out::{Format, Printer},
        registry,
    },
    fleet::{
        address::{Address, AddressKind},
        dial,
    },
    journal::{FleetState, NewFleetWorker},
};

/// Where we listen if nobody says otherwise.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7434);
/// As many as the string holds.
const ADVERTISED_MAX: usize = 8;

/// Await a worker that dials this machine: for NAT and for clusters.
///
/// Prints a string for `autoresearch-worker serve --dial STRING` on the other machine. It works once and for an hour. Commands
/// that use workers listen for it while they run; with --wait this one does, until the worker was here.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to call it.
    name: String,
    /// Where this machine listens, like 0.0.0.0:7434 [default: the key `listen`, else 0.0.0.0:7434].
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// As which address the other machine reaches this one; may be given again [default: this machine's].
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Vec<HostPort>,
    /// Wait so long for the worker to arrive, and check it.
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "1h")]
    wait: Option<Span>,
}

pub(super) async fn run(args: Args, desk: &Desk, printer: Printer) -> Result<ExitCode, CliError> {
    let name = args.name.clone();
    check_name(&name)?;
    let listen = args.listen.or(desk.config.listen).unwrap_or(LISTEN);
    if listen.port() == 0 {
        return Err(CliError::field("--listen", "port 0 is another one each time: name one"));
    }
    let addresses = if args.advertise.is_empty() { ours(listen) } else { args.advertise.clone() };
    if addresses.len() > ADVERTISED_MAX {
        return Err(CliError::field("--advertise", format!("at most {ADVERTISED_MAX} addresses")));
    }
    if addresses.is_empty() {
        return Err(CliError::field(
            "--advertise",
            "this machine has no address that others reach: name one, HOST:PORT",
        ));
    }
    let identity = registry::identity(&desk.data_dir, &desk.clock)?;
    let keys = registry::keys_folder(&desk.data_dir);
    let failed = |e: kit::identity::StoreError| CliError::Failed(chain(&e));
    let invitations = Invitations::new(&keys, desk.clock.clone());
    let new = NewFleetWorker {
        name: name.clone(),
        kind: AddressKind::Dialled.word(),
        address: Address::Dialled(listen).to_string(),
        worker_id: None,
        fingerprint: None,
        state: FleetState::Invited,
    };
    desk.journal.add_fleet_worker(new).await.map_err(registry_failed)?;
    let issued = invitations.issue(Some(name.clone()), INVITATION_LIFETIME);
    let secret = match issued {
        Ok(secret) => secret,
        Err(error) => {
            desk.journal.remove_fleet_worker(&name).await.map_err(registry_failed)?;
            return Err(failed(error));
        }
    };
    let fingerprint = identity.fingerprint();
    let invite = InviteString { addresses: addresses.clone(), fingerprint, secret, name: name.clone() };
    let json = serde_json::json!({
        "name": name,
        "kind": AddressKind::Dialled,
        "state": FleetState::Invited,
        "invite": invite.to_string(),
        "listen": listen.to_string(),
        "advertise": addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "fingerprint": fingerprint.to_string(),
    });
    printer.result(&json, &invite.to_string())?;
    if printer.format == Format::Text {
        let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        printer.say(&format!(
            "on the other machine: autoresearch-worker serve --dial STRING (works once, within an hour; it will dial {})",
            shown.join(", ")
        ));
    }
    match args.wait {
        Some(Span(longest)) => wait(&name, longest, desk, printer).await,
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Listens until it was here.
async fn wait(name: &str, longest: Duration, desk: &Desk, printer: Printer) -> Result<ExitCode, CliError> {
    let row = desk.journal.fleet_worker(name).await.map_err(registry_failed)?;
    let mut registry = desk.registry();
    registry.listen(std::slice::from_ref(&row), desk.config.listen).await?;
    let dialer = registry.dialer(&row)?;
    let until = desk.clock.monotonic() + longest;
    let met = loop {
        let left = until.saturating_sub(desk.clock.monotonic());
        match dial::meet(dialer.as_ref(), left, desk.clock.as_ref()).await {
            Ok(met) => break met,
            Err(error) if !error.is_retryable() || desk.clock.monotonic() >= until => {
                return Err(CliError::Failed(chain(&error)));
            }
            Err(error) => tracing::info!(error = %chain(&error), "not yet"),
        }
    };
    desk.journal.fleet_worker_seen(name, &met.info.worker_id).await.map_err(registry_failed)?;
    let checked = check::check(&met, AddressKind::Dialled)
        .map_err(|problem| CliError::Failed(format!("worker {name} has arrived, but: {problem}")))?;
    for warning in &checked.warnings {
        printer.say(&format!("warning: {warning}"));
    }
    printer.say(&format!("{name} has arrived: {}", described::devices(&met.info)));
    Ok(ExitCode::SUCCESS)
}

/// Where others may reach us: the address that was named, or the one that goes out of this machine and its name.
fn ours(listen: SocketAddr) -> Vec<HostPort> {
    if !listen.ip().is_unspecified() {
        return vec![listen.into()];
    }
    let mut found: Vec<HostPort> = Vec::new();
    // Nothing is sent: connecting a datagram socket asks the routing table alone.
    let outward = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind(SocketAddr::new(listen.ip(), 0))?;
        match listen.ip() {
            IpAddr::V4(_) => socket.connect("192.0.2.1:9")?,
            IpAddr::V6(_) => socket.connect("[2001:db8::1]:9")?,
        }
        Ok(socket.local_addr()?.ip())
    };
    if let Ok(ip) = outward()
        && !ip.is_loopback()
        && !ip.is_unspecified()
    {
        found.push(SocketAddr::new(ip, listen.port()).into());
    }
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    if let Some(host) = host.filter(|host| host != "localhost") {
        found.extend(format!("{host}:{}", listen.port()).parse().ok());
    }
    found
}
