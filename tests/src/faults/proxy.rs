//! The way between controller and worker, in a test's hands: a byte proxy between two Unix sockets that cuts, swallows
//! and slows down what passes, and counts what it did, which is the proof that a fault happened. It knows nothing of
//! what it carries.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    runtime::Runtime,
    sync::watch,
};

const CHUNK: usize = 64 << 10;

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// They pass.
    Pass,
    /// They stay where they are, and every connection stays open.
    BlackHole,
    /// At most so many a second, for each direction of a connection.
    Slow { bytes_per_second: u64 },
}

#[derive(Debug)]
struct Shared {
    mode: watch::Sender<Mode>,
    /// Rises with every cut: a connection that sees it rise ends.
    cuts: watch::Sender<u64>,
    open: AtomicU64,
    accepted: AtomicU64,
    cut: AtomicU64,
    passed: AtomicU64,
    held: AtomicU64,
}

/// A proxy; dropping it closes every connection and removes its socket.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    socket: PathBuf,
    // Its thread carries; dropping it ends that.
    runtime: Option<Runtime>,
}

impl Proxy {
    /// Listens on one socket and carries to the other, which may come and go.
    ///
    /// # Panics
    /// Where it cannot listen.
    #[must_use]
    pub fn start(listen: &Path, target: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime for the proxy");
        let shared = Arc::new(Shared {
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            open: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            held: AtomicU64::new(0),
        });
        let _entered = runtime.enter();
        let listener = UnixListener::bind(listen).expect("the proxy's socket");
        let (all, target) = (Arc::clone(&shared), target.to_owned());
        runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                all.accepted.fetch_add(1, Ordering::SeqCst);
                kit::task::spawn("a connection", carry(Arc::clone(&all), near, target.clone()));
            }
        });
        drop(_entered);
        Self { shared, socket: listen.to_owned(), runtime: Some(runtime) }
    }

    /// Closes every connection, and says how many there were.
    pub fn cut(&self) -> u64 {
        cut(&self.shared)
    }

    /// Closes every connection over and over until the guard is dropped.
    #[must_use]
    pub fn cut_every(&self, pause: Duration) -> Cutting {
        let shared = Arc::clone(&self.shared);
        let task = self.runtime.as_ref().map(|runtime| {
            runtime.spawn(async move {
                loop {
                    tokio::time::sleep(pause).await;
                    cut(&shared);
                }
            })
        });
        Cutting { task }
    }

    /// From now on nothing passes and nothing is closed.
    pub fn black_hole(&self) {
        self.shared.mode.send_replace(Mode::BlackHole);
    }

    /// From now on everything passes again, also what was held back.
    pub fn heal(&self) {
        self.shared.mode.send_replace(Mode::Pass);
    }

    /// From now on at most so many bytes a second, for each direction of a connection.
    pub fn slow_down(&self, bytes_per_second: u64) {
        self.shared.mode.send_replace(Mode::Slow { bytes_per_second });
    }

    /// Connections now.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Connections ever.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections that were closed by this proxy while both sides wanted them.
    #[must_use]
    pub fn cut_so_far(&self) -> u64 {
        self.shared.cut.load(Ordering::SeqCst)
    }

    /// Bytes that a black hole kept from the other side.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.shared.held.load(Ordering::SeqCst)
    }

    /// Bytes that came to the other side.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        fs::remove_file(&self.socket).ok();
    }
}

/// While it is there, connections are cut again and again.
#[derive(Debug)]
pub struct Cutting {
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Cutting {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

fn cut(shared: &Shared) -> u64 {
    let open = shared.open.load(Ordering::SeqCst);
    shared.cuts.send_modify(|cuts| *cuts += 1);
    open
}

/// One connection, until a side is done with it or it is cut.
async fn carry(shared: Arc<Shared>, near: UnixStream, target: PathBuf) {
    let mut cuts = shared.cuts.subscribe();
    // Nobody there: whoever dialled finds its connection closed, as behind a forwarder whose machine is down.
    let Ok(far) = UnixStream::connect(&target).await else { return };
    shared.open.fetch_add(1, Ordering::SeqCst);
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let both = async {
        // A side that closes ends the connection: HTTP/2 has no use for half of one.
        tokio::select! {
            () = pump(&shared, near_read, far_write) => {}
            () = pump(&shared, far_read, near_write) => {}
        }
    };
    tokio::select! {
        () = both => {}
        _ = cuts.changed() => {
            shared.cut.fetch_add(1, Ordering::SeqCst);
        }
    }
    shared.open.fetch_sub(1, Ordering::SeqCst);
}

async fn pump(
    shared: &Shared,
    mut from: tokio::net::unix::OwnedReadHalf,
    mut to: tokio::net::unix::OwnedWriteHalf,
) {
    let mut mode = shared.mode.subscribe();
    let mut buffer = vec![0; CHUNK];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        if *mode.borrow_and_update() == Mode::BlackHole {
            shared.held.fetch_add(length as u64, Ordering::SeqCst);
            if mode.wait_for(|mode| *mode != Mode::BlackHole).await.is_err() {
                return;
            }
        }
        let slow = *mode.borrow();
        if let Mode::Slow { bytes_per_second } = slow {
            let millis = length as u64 * 1000 / bytes_per_second.max(1);
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        shared.passed.fetch_add(length as u64, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::{UnixListener, UnixStream},
    };

    use super::*;

    /// A server that gives back what it gets, and the proxy before it.
    fn echo(folder: &Path) -> Proxy {
        let target = folder.join("far");
        let listener = UnixListener::bind(&target).expect("a server");
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                std::thread::spawn(move || {
                    let mut reader = stream.try_clone().expect("a clone");
                    std::io::copy(&mut reader, &mut stream).ok();
                });
            }
        });
        Proxy::start(&folder.join("near"), &target)
    }

    #[test]
    fn passes_cuts_and_swallows_and_counts_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let proxy = echo(folder.path());
        let dial = || UnixStream::connect(folder.path().join("near")).expect("the proxy");
        let mut one = dial();
        let mut got = [0; 4];
        one.write_all(b"ping").expect("a write");
        one.read_exact(&mut got).expect("an echo");
        assert_eq!((&got, proxy.cut()), (b"ping", 1));
        assert_eq!(one.read(&mut got).unwrap_or(0), 0, "it was cut");
        crate::wait_for("the count", Duration::from_secs(5), || match (proxy.cut_so_far(), proxy.open()) {
            (1, 0) => Ok(()),
            other => Err(format!("{other:?}")),
        });

        let mut two = dial();
        two.write_all(b"ping").expect("a write");
        two.read_exact(&mut got).expect("an echo");
        proxy.black_hole();
        two.write_all(b"late").expect("a write");
        two.set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out");
        assert!(two.read(&mut got).is_err(), "nothing comes back, and it stays open");
        assert_eq!(proxy.held(), 4);
        proxy.heal();
        two.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
        two.read_exact(&mut got).expect("it comes late");
        assert_eq!((&got, proxy.accepted()), (b"late", 2));
    }
}
