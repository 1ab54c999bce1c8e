//! A worker of the real binary that other machines reach, and controllers with keys of their own, all on loopback.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use kit::{
    clock::{Clock, SystemClock},
    id::new_uuid,
    identity::{
        Fingerprint, Identity, IdentityOptions, JoinString, LIFETIME, Secret,
        tls::{self, ClientStream, Protocol, TlsError},
    },
};
use proto::v1::{JoinRequest, JoinResponse};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

pub use crate::connect::Client;
use crate::connect::connect;

pub const PATIENCE: Duration = Duration::from_secs(120);

/// One state folder, and the worker on it where one was started.
pub struct Machine {
    pub folder: PathBuf,
    pub address: SocketAddr,
    child: Option<Child>,
}

impl Machine {
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("remote-{}", new_uuid()));
        fs::create_dir(&folder).unwrap();
        let address = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { folder, address, child: None }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_autoresearch-worker"));
        command.args(arguments).arg("--data-dir").arg(&self.folder);
        command.env("AUTORESEARCH_WORKER_SLOTS", "1").stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The string that the owner would copy.
    pub fn init(&self) -> JoinString {
        let output = self.run(&["init", "--listen", &self.address.to_string()]);
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{err}");
        let join: JoinString = out.parse().unwrap();
        assert_eq!(out, format!("{join}\n"), "one line, and nothing else");
        assert_eq!(join.address.to_string(), self.address.to_string());
        join
    }

    pub async fn start(&mut self, more: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let arguments: Vec<&str> = ["serve"].iter().chain(more).copied().collect();
        self.child = Some(self.command(&arguments).stderr(log).spawn().unwrap());
        self.owner().await;
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Over the socket.
    pub async fn owner(&self) -> Client {
        connect(&self.folder.join("worker.sock"), PATIENCE).await
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("stderr")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// A journal's keys.
pub struct Controller {
    pub identity: Arc<Identity>,
    pub id: String,
}

impl Controller {
    pub fn new() -> Self {
        Self::at(SystemClock::shared())
    }

    /// With a clock of its own.
    pub fn at(clock: Arc<dyn Clock>) -> Self {
        let folder = std::env::temp_dir().join(format!("remote-keys-{}", new_uuid()));
        let options = IdentityOptions { folder: folder.clone(), lifetime: LIFETIME, clock };
        let identity = Identity::open(options).unwrap();
        // It lives in memory from here on.
        fs::remove_dir_all(folder).unwrap();
        Self { identity, id: format!("controller-{}", new_uuid()) }
    }

    /// A TLS connection, as soon as somebody listens.
    pub async fn reach(
        &self,
        address: SocketAddr,
        pinned: Fingerprint,
    ) -> Result<ClientStream<TcpStream>, TlsError> {
        let config = tls::client_config(&self.identity, pinned, Protocol::Grpc).unwrap();
        let until = Instant::now() + PATIENCE;
        let stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < until, "nobody listens: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        tls::connect(config, stream).await
    }

    pub async fn channel(&self, machine: &Machine, pinned: Fingerprint) -> Channel {
        over(self.reach(machine.address, pinned).await.unwrap()).await.unwrap()
    }

    pub async fn client(&self, machine: &Machine, join: &JoinString) -> Client {
        Client::new(self.channel(machine, join.fingerprint).await)
    }

    pub async fn join(&self, machine: &Machine, join: &JoinString) -> Result<JoinResponse, Status> {
        self.join_with(machine, join.fingerprint, &join.secret).await
    }

    pub async fn join_with(
        &self,
        machine: &Machine,
        pinned: Fingerprint,
        secret: &Secret,
    ) -> Result<JoinResponse, Status> {
        let request = JoinRequest {
            controller_id: self.id.clone(),
            name: "laptop".to_owned(),
            secret: secret.bytes().to_vec(),
        };
        let channel = self.channel(machine, pinned).await;
        Client::new(channel).join(request).await.map(tonic::Response::into_inner)
    }
}

/// A client that takes whoever answers, and shows a certificate that was made at another time.
pub async fn careless(address: SocketAddr, clock: Arc<dyn Clock>) -> ClientStream<TcpStream> {
    let folder = tempfile::tempdir().unwrap();
    let options = IdentityOptions { folder: folder.path().to_owned(), lifetime: LIFETIME, clock };
    Identity::open(options).unwrap();
    let pem = fs::read(folder.path().join("identity.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem).unwrap();
    let certificate = CertificateDer::from_pem_slice(&pem).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_auth_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    tls::connect(Arc::new(config), TcpStream::connect(address).await.unwrap()).await.unwrap()
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// gRPC as the client on one stream, whoever dialled it.
pub async fn over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Channel, tonic::transport::Error> {
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().unwrap().take();
        async move { stream.map(TokioIo::new).ok_or_else(|| std::io::Error::other("this stream has ended")) }
    });
    Endpoint::from_static("http://worker").connect_with_connector(connector).await
}

/// The reason that a program would act on.
pub fn reason(status: &Status) -> String {
    use tonic_types::StatusExt as _;
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// Waits for something that will be so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The most memory that a process has had, in bytes.
pub fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

pub fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
