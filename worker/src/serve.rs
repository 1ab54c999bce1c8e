//! The process: its folder and lock, its start and its end. How connections come in is in `listen`.
//!
//! ```text
//! DATA_DIR/{worker-id, lock, worker.sock, running-time, keys/, runs/, sandboxes/, blobs/, datasets/, tombstones}
//! ```
//!
//! Order of a start: folder, lock, the sweep and the recovery of runs, and only then the socket: whoever gets through
//! it finds a worker that knows its runs. Order of an end: no new connections, streams closed, and out within 5
//! seconds; runs are left running as after SIGKILL.

/// Counting connections.
mod connection;
/// Host facts.
pub mod host;
/// Stopping by itself.
mod idle;
/// The images of a backend, as runs ask for them.
pub mod images;
/// An engine that was not there at the start.
mod late;
/// How connections come in, and whose they are.
pub mod listen;
/// The real backends, images and slots.
pub mod rooms;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kit::{
    clock::{Clock, SystemClock},
    folder::{FolderError, Lock},
    identity::{IdentityError, StoreError},
    task::CancellationToken,
};
use proto::v1::worker_service_server::WorkerServiceServer;
use tokio::sync::{mpsc, watch};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{service::Routes, transport::Server};

use self::{
    listen::{Access, Connection, Doors, GuardLayer, Places},
    rooms::Rooms,
};
use crate::{
    blobs::Blobs,
    config::WorkerConfig,
    datasets::{DataSetError, Store},
    packages::Packages,
    run::{
        recovery,
        registry::{Registry, RegistryOptions},
    },
    service::{Identity, Service},
};

/// The kernel's limit on a Unix socket's path, without its last zero.
const SOCKET_PATH_MAX: usize = 107;
/// HTTP/2 pings, and how long their answer may take.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Connections get so long to end.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(600);

/// Why the worker does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The folder, its lock, or a file in it.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The data sets.
    #[error(transparent)]
    DataSets(#[from] DataSetError),
    /// The socket's path is too long, and there is no folder for a shorter one.
    #[error(
        "the socket's path {} has more than {SOCKET_PATH_MAX} bytes, and XDG_RUNTIME_DIR is not set: set it, or give a shorter --data-dir",
        .0.display()
    )]
    SocketPath(PathBuf),
    /// A socket could not be made.
    #[error("cannot listen on {address}")]
    Listen {
        /// Path or address.
        address: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The page of metrics.
    #[error(transparent)]
    Metrics(#[from] kit::telemetry::ScrapeError),
    /// Other machines need a key to know this one by.
    #[error(
        "{0} is no loopback address, so TLS is needed, and this worker has no keys: `autoresearch-worker init` makes them and prints a string to join with"
    )]
    NoKeys(SocketAddr),
    /// Our own key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Who was let in, or where to listen and whom to dial.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reflection or transport.
    #[error("the gRPC server ended")]
    Server(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where a worker on this folder listens. The controller asks the same.
///
/// # Errors
/// [`ServeError::SocketPath`].
pub fn socket_path(data_dir: &Path) -> Result<PathBuf, ServeError> {
    let plain = data_dir.join("worker.sock");
    if plain.as_os_str().len() <= SOCKET_PATH_MAX {
        return Ok(plain);
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let name = kit::digest::Digest::of(data_dir.as_os_str().as_encoded_bytes()).short();
    match runtime.map(|folder| folder.join(format!("autoresearch-{name}.sock"))) {
        Some(path) if path.as_os_str().len() <= SOCKET_PATH_MAX => Ok(path),
        _ => Err(ServeError::SocketPath(plain)),
    }
}

/// Refuses to listen for other machines without keys, before anything is made.
///
/// # Errors
/// [`ServeError::NoKeys`].
pub fn check_listen(config: &WorkerConfig) -> Result<(), ServeError> {
    let Some(address) = config.listen.filter(|address| !address.ip().is_loopback()) else { return Ok(()) };
    let keys = listen::access::keys_folder(&config.data_folder()?);
    if kit::identity::Identity::exists(&keys) { Ok(()) } else { Err(ServeError::NoKeys(address)) }
}

/// Serves until `shutdown`, or, with `idle_exit`, until nobody needs it.
///
/// # Errors
/// [`ServeError`], before the socket is there, or where the server itself fails.
pub async fn serve(config: WorkerConfig, shutdown: CancellationToken) -> Result<(), ServeError> {
    check_listen(&config)?;
    let data_dir = config.data_folder()?;
    let _lock = own(&data_dir)?;
    let worker_id = worker_id(&data_dir)?;
    let rooms = rooms::connect(&config, &data_dir, &worker_id, shutdown.clone()).await;
    serve_rooms(config, &data_dir, worker_id, rooms, shutdown).await
}

/// Makes the folder and takes its lock.
fn own(data_dir: &Path) -> Result<Lock, FolderError> {
    kit::folder::create_private(data_dir)?;
    Lock::take(&data_dir.join("lock"))
}

/// The folder's worker id, made with it.
///
/// # Errors
/// Names the file.
pub fn worker_id(data_dir: &Path) -> Result<String, FolderError> {
    let path = data_dir.join("worker-id");
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().parse::<WorkerId>().is_ok() => Ok(text.trim().to_owned()),
        Ok(_) => {
            let source = std::io::Error::other("it holds no id: remove it, and the worker is another one");
            Err(FolderError::io("use", &path, source))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = WorkerId::new().to_string();
            kit::folder::replace(&path, format!("{id}\n").as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(FolderError::io("read", &path, error)),
    }
}

kit::id_type!(
    /// Of a state folder.
    WorkerId,
    "worker"
);

kit::id_type!(
    /// Of one start of the process.
    ProcessId,
    "process"
);

async fn serve_rooms(
    config: WorkerConfig,
    data_dir: &Path,
    worker_id: String,
    rooms: Rooms,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let clock = SystemClock::shared();
    let boot_id = host::boot_id();
    let registry = open_registry(&config, data_dir, &rooms, &boot_id, Arc::clone(&clock)).await?;
    crate::telemetry::serve(&config, &registry, &shutdown).await?;
    let access = Access::open(data_dir, config.remote.certificate_lifetime.0, Arc::clone(&clock))?;
    let socket = socket_path(data_dir)?;

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<WorkerServiceServer<Service>>().await;
    let process_id = ProcessId::new().to_string();
    let identity = Identity { worker_id, boot_id, process_id };
    let worker_id = identity.worker_id.clone();
    let service = Service::new(Arc::clone(&registry), identity, rooms.machine, health, shutdown.clone());
    let routes = routes(service, health_service)?;

    let connections = watch::Sender::new(connection::Connections::default());
    let (plain, tls) = match config.listen {
        Some(address) if address.ip().is_loopback() => (Some(address), None),
        other => (None, other),
    };
    let places = Places { data_dir: data_dir.to_owned(), socket: socket.clone(), plain, tls };
    let (count, stop) = (connections.clone(), shutdown.clone());
    let doors = listen::open(places, &access, &worker_id, count, Arc::clone(&clock), stop).await?;
    let Doors { known, strangers } = doors;
    let known = run_server(&KNOWN, routes.clone(), known, shutdown.clone());
    let strangers = run_server(&STRANGERS, routes, strangers, shutdown.clone());
    tracing::info!(socket = %socket.display(), "listening");
    if config.idle_exit {
        let (unfinished, shutdown) = (registry.unfinished(), shutdown.clone());
        let watching =
            idle::watch(connections.subscribe(), unfinished, shutdown, idle::FIRST_CONNECTION_WAIT);
        kit::task::spawn("idle exit", watching);
    }
    let (data, house, stop) = (data_dir.to_owned(), Arc::clone(&registry), shutdown.clone());
    kit::task::spawn("housekeeping", housekeeping(data, house, Arc::clone(&clock), stop));

    let result = tokio::select! {
        result = known => result,
        result = strangers => result,
        () = async {
            shutdown.cancelled().await;
            tokio::time::sleep(CLOSE_LIMIT).await;
        } => {
            tracing::info!("some connections did not end in time");
            Ok(())
        }
    };
    // Whichever came first, the other one is to stop as well.
    shutdown.cancel();
    // No connection that comes now would be served.
    if let Err(error) = std::fs::remove_file(&socket) {
        tracing::warn!(%error, socket = %socket.display(), "cannot remove the socket");
    }
    save_running_time(data_dir, &registry);
    let left = *registry.unfinished().borrow();
    tracing::info!(left, "stopped; runs that have not ended are left as they are");
    result.map_err(|error| ServeError::Server(Box::new(error)))
}

/// What one server allows.
struct Bounds {
    /// A reader that never reads holds up no other stream.
    stream_window: u32,
    connection_window: u32,
    streams: u32,
    header_bytes: u32,
}

const KNOWN: Bounds = Bounds {
    stream_window: 128 << 10,
    connection_window: 16 << 20,
    // Of one controller: a watcher for each of its runs here, and its calls.
    streams: 1024,
    header_bytes: 16 << 10,
};

/// They may only join, which is one small message.
const STRANGERS: Bounds =
    Bounds { stream_window: 16 << 10, connection_window: 64 << 10, streams: 4, header_bytes: 8 << 10 };

fn routes<H>(service: Service, health: H) -> Result<Routes, ServeError>
where
    H: tower::Service<
            tonic::codegen::http::Request<tonic::body::Body>,
            Response = tonic::codegen::http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
            Future: Send + 'static,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static,
{
    let failed = |error| ServeError::Server(Box::new(error));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let service = WorkerServiceServer::new(service)
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
    Ok(Routes::new(service)
        .add_service(health)
        .add_service(reflection().build_v1().map_err(failed)?)
        .add_service(reflection().build_v1alpha().map_err(failed)?))
}

async fn run_server(
    bounds: &Bounds,
    routes: Routes,
    connections: mpsc::Receiver<Connection>,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let incoming = ReceiverStream::new(connections).map(Ok::<_, std::io::Error>);
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(bounds.stream_window)
        .initial_connection_window_size(bounds.connection_window)
        .max_concurrent_streams(bounds.streams)
        .http2_max_header_list_size(bounds.header_bytes)
        .layer(GuardLayer)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await
}

async fn open_registry(
    config: &WorkerConfig,
    data_dir: &Path,
    rooms: &Rooms,
    boot_id: &str,
    clock: Arc<dyn Clock>,
) -> Result<Arc<Registry>, ServeError> {
    let blobs = Blobs::open(&data_dir.join("blobs"), config.blobs.total.0, Arc::clone(&clock))?;
    let shares = rooms.slots.view();
    let memory = shares.iter().map(|slot| slot.memory_bytes).max().unwrap_or(0);
    let cpus = shares.iter().map(|slot| slot.cpu_millis).max().unwrap_or(0);
    let options = RegistryOptions {
        runs_dir: data_dir.join("runs"),
        tombstones: data_dir.join("tombstones"),
        boot_id: boot_id.to_owned(),
        backends: rooms.backends.clone(),
        slots: Arc::clone(&rooms.slots),
        gpus: Arc::clone(&rooms.gpus),
        blobs,
        data_sets: open_data_sets(data_dir).await?,
        packages: Packages::open(&data_dir.join("packages"), config.package_rules())?,
        rules: config.limit_rules(memory, cpus),
        retention: config.retention.0,
        clock,
    };
    let running_s = std::fs::read_to_string(data_dir.join("running-time"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    Ok(recovery::open(options, running_s).await?)
}

/// What an addition that was killed has left is removed.
async fn open_data_sets(data_dir: &Path) -> Result<Store, ServeError> {
    let data_dir = data_dir.to_owned();
    let opened = kit::task::blocking("open data sets", move || Store::open(&data_dir)).await;
    Ok(opened.unwrap_or(Err(DataSetError::Stopped))?)
}

async fn housekeeping(
    data_dir: PathBuf,
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let mut last = clock.monotonic();
    loop {
        tokio::select! {
            () = tokio::time::sleep(HOUSEKEEPING_EVERY) => {}
            () = stop.cancelled() => return,
        }
        let now = clock.monotonic();
        registry.ran_for(now.saturating_sub(last));
        last = now;
        let (data_dir, registry) = (data_dir.clone(), Arc::clone(&registry));
        let work = move || {
            save_running_time(&data_dir, &registry);
            registry.retire();
            if let Err(error) = registry.options().blobs.sweep_partial() {
                tracing::warn!(%error, "partial uploads could not be swept");
            }
            if let Err(error) = registry.options().data_sets.tidy() {
                tracing::warn!(%error, "data sets that were removed could not be swept");
            }
        };
        kit::task::blocking("housekeeping", work).await;
    }
}

fn save_running_time(data_dir: &Path, registry: &Registry) {
    let seconds = registry.running_s().load(Ordering::Relaxed);
    if let Err(error) = kit::folder::replace(&data_dir.join("running-time"), seconds.to_string().as_bytes()) {
        tracing::warn!(%error, "the running time could not be saved");
    }
}
