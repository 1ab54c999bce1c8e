//! How connections come in, and whose they are: the Unix socket, plain loopback, TLS, and those that this worker dials
//! itself. Each door has bounds, and each connection that is let through says who calls ([`Caller`]) and can be cut.
//!
//! Two servers stand behind the doors: one for owners and for keys that were let in, and one with small windows for
//! strangers, who may only join. What a caller may do once it is in belongs to `service`.

/// Who was let in, and letting in.
pub mod access;
/// How many, from where, and how often that is told.
mod bounds;
/// Whose connection it is.
mod caller;
/// Connections that this worker makes.
mod dial;
/// Every call is checked against who calls.
mod guard;
/// The Unix socket and plain loopback.
mod plain;
/// What `init` and `serve --dial` have set, kept beside the state.
pub mod settings;
/// One connection, whatever it runs over.
mod stream;
/// The port that other machines reach.
mod tls;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use kit::{clock::Clock, task::CancellationToken};
use tokio::sync::{mpsc, watch};

pub use self::{access::Access, caller::Caller, guard::GuardLayer, stream::Connection};
use self::{bounds::Bounds, stream::Gate};
use super::{ServeError, connection::Connections};

/// Without a byte in this time a connection is closed.
const FIRST_BYTES_LIMIT: Duration = Duration::from_secs(10);
/// Strangers have so long to join.
const STRANGER_LIMIT: Duration = Duration::from_secs(30);
/// How soon a key that was taken back is cut off, and new settings are seen.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Connections that wait for a server to take them.
const WAITING: usize = 16;

/// Where to listen.
#[derive(Debug)]
pub struct Places {
    /// The state folder.
    pub data_dir: PathBuf,
    /// The Unix socket.
    pub socket: PathBuf,
    /// Plain, loopback only.
    pub plain: Option<SocketAddr>,
    /// TLS; unset: where `init` said.
    pub tls: Option<SocketAddr>,
}

/// The connections that came in.
#[derive(Debug)]
pub struct Doors {
    /// Of owners and of keys that were let in.
    pub known: mpsc::Receiver<Connection>,
    /// Of keys that may only join.
    pub strangers: mpsc::Receiver<Connection>,
}

/// Opens every door. They close with `shutdown`.
///
/// # Errors
/// A place that cannot be listened on.
pub async fn open(
    places: Places,
    access: &Arc<Access>,
    worker_id: &str,
    count: watch::Sender<Connections>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) -> Result<Doors, ServeError> {
    let (known, known_receiver) = mpsc::channel(WAITING);
    let (strangers, strangers_receiver) = mpsc::channel(WAITING);
    let gate = Gate { known, strangers, count, bounds: Arc::new(Bounds::new(clock)), shutdown };
    let unix = plain::bind(&places.socket)?;
    kit::task::spawn("unix socket", plain::accept_unix(unix, gate.clone()));
    if let Some(address) = places.plain {
        let tcp = plain::listen(address).await?;
        kit::task::spawn("loopback", plain::accept_tcp(tcp, gate.clone()));
    }
    tls::open(places.data_dir.clone(), places.tls, Arc::clone(access), gate.clone()).await?;
    dial::open(&places.data_dir, worker_id, access, &gate)?;
    Ok(Doors { known: known_receiver, strangers: strangers_receiver })
}
