//! One connection, whatever it runs over: counted, within its bounds, and cut when its time is over or its key was
//! taken back. Each has a small task that looks after it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use kit::task::CancellationToken;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::{DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::{
    Caller, FIRST_BYTES_LIMIT, LOOK_EVERY, STRANGER_LIMIT,
    bounds::{Bounds, KnownPermit, StrangerPermit},
};
use crate::serve::connection::{Connections, Counted};

/// Anything that bytes go through.
pub trait Wire: AsyncRead + AsyncWrite + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + 'static> Wire for T {}

/// What the doors share.
#[derive(Debug, Clone)]
pub struct Gate {
    /// To the server of those that are known.
    pub known: mpsc::Sender<Connection>,
    /// To the other one.
    pub strangers: mpsc::Sender<Connection>,
    /// Those that are known, so that a worker without any can go.
    pub count: watch::Sender<Connections>,
    /// Of all doors.
    pub bounds: Arc<Bounds>,
    /// Closes them.
    pub shutdown: CancellationToken,
}

/// Its place among the others, given back with it.
#[derive(Debug)]
enum Place {
    Known { _permit: KnownPermit, _counted: Counted },
    Stranger { _permit: StrangerPermit },
}

/// One connection.
pub struct Connection {
    wire: Pin<Box<dyn Wire>>,
    caller: Caller,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    has_spoken: Arc<AtomicBool>,
    _place: Place,
    _gone: DropGuard,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl Gate {
    /// Lets in one that is known. Answers a token that ends with the connection, or `None` where there are too many.
    pub async fn admit(&self, wire: impl Wire, caller: Caller) -> Option<CancellationToken> {
        let permit = self.bounds.known(&caller)?;
        let place = Place::Known { _permit: permit, _counted: Counted::new(&self.count) };
        let (connection, gone) = Connection::new(wire, caller, place);
        self.known.send(connection).await.ok()?;
        Some(gone)
    }

    /// Lets in one that may only join.
    pub async fn admit_stranger(&self, wire: impl Wire, caller: Caller, permit: StrangerPermit) {
        let (connection, _) = Connection::new(wire, caller, Place::Stranger { _permit: permit });
        // Where nobody takes it, the worker is going down.
        self.strangers.send(connection).await.ok();
    }
}

impl Connection {
    fn new(wire: impl Wire, caller: Caller, place: Place) -> (Self, CancellationToken) {
        let (cut, gone) = (CancellationToken::new(), CancellationToken::new());
        let has_spoken = Arc::new(AtomicBool::new(false));
        let limit = matches!(place, Place::Stranger { .. }).then_some(STRANGER_LIMIT);
        let care = Care {
            caller: caller.clone(),
            limit,
            has_spoken: Arc::clone(&has_spoken),
            cut: cut.clone(),
            gone: gone.clone(),
        };
        kit::task::spawn("connection", care.run());
        let connection = Self {
            wire: Box::pin(wire),
            caller,
            cut: Box::pin(cut.cancelled_owned()),
            has_spoken,
            _place: place,
            _gone: gone.clone().drop_guard(),
        };
        (connection, gone)
    }

    /// Also wakes the reader when the connection is cut later.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut off")),
            Poll::Pending => Ok(()),
        }
    }
}

/// What looks after a connection.
struct Care {
    caller: Caller,
    limit: Option<Duration>,
    has_spoken: Arc<AtomicBool>,
    cut: CancellationToken,
    gone: CancellationToken,
}

impl Care {
    async fn run(self) {
        let begun = Instant::now();
        loop {
            tokio::select! {
                () = self.gone.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let silent = !self.has_spoken.load(Ordering::Relaxed) && begun.elapsed() >= FIRST_BYTES_LIMIT;
            if silent || self.limit.is_some_and(|limit| begun.elapsed() >= limit) || self.is_out() {
                self.cut.cancel();
                return;
            }
            if self.limit.is_none() && !silent && matches!(self.caller, Caller::Owner) && self.spoke() {
                // Nothing more can happen to it here.
                return;
            }
        }
    }

    fn spoke(&self) -> bool {
        self.has_spoken.load(Ordering::Relaxed)
    }

    /// Whether a key that was let in is not any more.
    fn is_out(&self) -> bool {
        let (Caller::Remote(remote), None) = (&self.caller, self.limit) else { return false };
        match remote.access.peers().check(&remote.certificate.fingerprint) {
            Ok(_) => false,
            Err(kit::identity::PeerError::Store(error)) => {
                // Each call says so as well; a file that is being mended cuts nobody off.
                tracing::warn!(%error, "the list of controllers cannot be read");
                false
            }
            Err(error) => {
                tracing::info!(from = %remote.source, reason = %error, "a connection was cut");
                true
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;
    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let polled = self.wire.as_mut().poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.has_spoken.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wire.as_mut().poll_write(context, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire.as_mut().poll_write_vectored(context, bytes)
    }
    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.as_mut().poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.as_mut().poll_shutdown(context)
    }
}
