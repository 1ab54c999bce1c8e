//! Workers that dial us: a listener in the process that owns a campaign. The worker is the TLS client; after a line each way
//! the roles turn round, and we are the gRPC client on the same bytes. Who is let in is the [`Door`]'s to say.
//!
//! An arrival waits in a mailbox of its worker until that worker is dialled; a newer one takes its place, because a worker
//! dials anew only when it believes the last connection to be gone.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use kit::{
    identity::{
        Certificate, Identity,
        preface::{self, Answer, Hello},
        tls::{self, Protocol, ServerStream},
    },
    task::CancellationToken,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
};
use tokio_util::sync::DropGuard;
use tonic::transport::Channel;

use super::{over, root_cause};
use crate::fleet::{Dialer, FleetError};

/// Connections of whom nothing is known yet; each has at most 20 s (handshake and first line).
const STRANGERS_MAX: usize = 64;
/// A worker that has not arrived after so long is told of; the next attempt waits again.
const ARRIVAL: Duration = Duration::from_secs(50);
/// After an error of accept, as when there are no file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// Who may come in.
#[async_trait]
pub trait Door: Send + Sync {
    /// The name under which the worker with this key is registered, or why it is not let in.
    async fn admit(&self, certificate: &Certificate, hello: &Hello) -> Result<String, String>;
}

type Stream = ServerStream<TcpStream>;

#[derive(Default)]
struct Mailbox {
    arrival: Mutex<Option<Stream>>,
    came: Notify,
}

struct Inside {
    identity: Arc<Identity>,
    door: Arc<dyn Door>,
    controller_id: String,
    boxes: Mutex<HashMap<String, Arc<Mailbox>>>,
    strangers: Arc<Semaphore>,
}

/// The listener. Dropping it closes the port.
pub struct Arrivals {
    inside: Arc<Inside>,
    at: SocketAddr,
    _open: DropGuard,
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrivals").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Arrivals {
    /// Listens.
    ///
    /// # Errors
    /// Where the address is taken or not ours.
    pub async fn listen(
        at: SocketAddr,
        identity: Arc<Identity>,
        door: Arc<dyn Door>,
        controller_id: String,
    ) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind(at).await?;
        let at = listener.local_addr()?;
        let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
        let inside = Arc::new(Inside { identity, door, controller_id, boxes: Mutex::default(), strangers });
        let open = CancellationToken::new();
        kit::task::spawn("arrivals", accept(listener, Arc::clone(&inside), open.clone()));
        Ok(Arc::new(Self { inside, at, _open: open.drop_guard() }))
    }

    /// Where it listens.
    #[must_use]
    pub fn at(&self) -> SocketAddr {
        self.at
    }

    /// The way to one of the workers that arrive.
    #[must_use]
    pub fn dialer(self: &Arc<Self>, name: &str) -> Dialled {
        Dialled { name: name.to_owned(), mailbox: self.inside.mailbox(name), arrivals: Arc::clone(self) }
    }
}

impl Inside {
    fn mailbox(&self, name: &str) -> Arc<Mailbox> {
        let mut boxes = self.boxes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(boxes.entry(name.to_owned()).or_default())
    }

    /// One that knocked, until it waits in its mailbox or is told why not.
    async fn receive(&self, stream: TcpStream, from: SocketAddr) -> Result<(), String> {
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let config = tls::server_config(&self.identity, Protocol::Dial).map_err(|e| e.to_string())?;
        let (mut stream, certificate) = tls::accept(config, stream).await.map_err(|e| e.to_string())?;
        let hello: Hello = preface::read(&mut stream).await.map_err(|e| e.to_string())?;
        let admitted = self.door.admit(&certificate, &hello).await;
        let answer = match &admitted {
            Ok(_) => Answer::Ok { controller_id: self.controller_id.clone() },
            Err(reason) => Answer::No { reason: reason.clone() },
        };
        preface::write(&mut stream, &answer).await.map_err(|e| e.to_string())?;
        let name = admitted?;
        tracing::info!(worker = name, %from, "a worker has dialled in");
        let mailbox = self.mailbox(&name);
        *mailbox.arrival.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        mailbox.came.notify_one();
        Ok(())
    }
}

async fn accept(listener: TcpListener, inside: Arc<Inside>, open: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = open.cancelled() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // One too many is closed at once: a worker comes again, and a flood costs no memory.
        let Ok(place) = Arc::clone(&inside.strangers).try_acquire_owned() else { continue };
        let (inside, open) = (Arc::clone(&inside), open.clone());
        kit::task::spawn("arrival", async move {
            let _place = place;
            tokio::select! {
                received = inside.receive(stream, from) => if let Err(reason) = received {
                    let reason = kit::text::one_line(&reason, 300);
                    tracing::info!(%from, reason, "a connection was refused");
                },
                () = open.cancelled() => {}
            }
        });
    }
}

/// A registered worker that dials us.
#[derive(Clone)]
pub struct Dialled {
    name: String,
    mailbox: Arc<Mailbox>,
    /// The port is open for as long as somebody waits.
    arrivals: Arc<Arrivals>,
}

#[async_trait]
impl Dialer for Dialled {
    async fn dial(&self) -> Result<Channel, FleetError> {
        let unreachable = |detail| FleetError::Unreachable { worker: self.name.clone(), detail };
        let arrival = async {
            loop {
                let came = self.mailbox.came.notified();
                let waiting = self.mailbox.arrival.lock().unwrap_or_else(PoisonError::into_inner).take();
                match waiting {
                    Some(stream) => return stream,
                    None => came.await,
                }
            }
        };
        let stream = tokio::time::timeout(ARRIVAL, arrival).await.map_err(|_| {
            unreachable(format!(
                "it has not dialled in for {} s (this side listens on {}): is `autoresearch-worker serve --dial` running there?",
                ARRIVAL.as_secs(),
                self.arrivals.at
            ))
        })?;
        over(stream).await.map_err(|error| unreachable(root_cause(&error)))
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
