//! TLS 1.3 by pinned keys. Both sides show a certificate. The one that dials knows the other's key beforehand; the one
//! that listens takes any key that proves itself and whose certificate is good by our clock, and then says by
//! [`super::Peers`] or a secret who it is. No names, no authorities, no tickets: each connection is checked anew.

use std::{io, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig,
    SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use tokio::io::{AsyncRead, AsyncWrite};
pub use tokio_rustls::{client::TlsStream as ClientStream, server::TlsStream as ServerStream};

use super::{Certificate, Fingerprint, Identity, TrustError};

/// From the first byte to the last of a handshake.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// No name is looked at, and none is sent.
const NO_NAME: &str = "autoresearch.invalid";

/// What is spoken inside; each refuses the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC by the side that dials.
    Grpc,
    /// One line each way, then gRPC by the side that was dialled.
    Dial,
}

impl Protocol {
    fn alpn(self) -> Vec<Vec<u8>> {
        let name: &[u8] = match self {
            Self::Grpc => b"h2",
            Self::Dial => b"autoresearch-dial/1",
        };
        vec![name.to_vec()]
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// We do not trust the other side.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// It does not speak TLS.
    #[error("the other side does not speak TLS here: is the port the right one?")]
    NotTls,
    /// Another protocol of ours, or another program.
    #[error(
        "the other side speaks another protocol: `worker add` dials workers, `serve --dial` dials controllers"
    )]
    OtherProtocol,
    /// It has ended the handshake.
    #[error("the other side refused us ({0}): its log says why")]
    Refused(String),
    /// It takes too long.
    #[error("the other side did not finish the TLS handshake within {} s", HANDSHAKE_LIMIT.as_secs())]
    Slow,
    /// Anything else of TLS.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The connection.
    #[error("the connection broke during the TLS handshake: {0}")]
    Broken(io::Error),
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        explain(&error).unwrap_or(Self::Broken(error))
    }
}

/// What TLS means by an I/O error: the refusal of a client's certificate, say, comes with the first read.
#[must_use]
pub fn explain(error: &io::Error) -> Option<TlsError> {
    use rustls::{AlertDescription, Error};
    let tls = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match tls {
        Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => {
            match cause.downcast_ref::<TrustError>() {
                Some(trust) => TlsError::Trust(trust.clone()),
                None => TlsError::Tls(tls.to_string()),
            }
        }
        Error::InvalidMessage(_) => TlsError::NotTls,
        Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            TlsError::OtherProtocol
        }
        Error::AlertReceived(alert) => TlsError::Refused(format!("{alert:?}")),
        other => TlsError::Tls(other.to_string()),
    })
}

/// For the side that dials: it trusts one key.
///
/// # Errors
/// The library's, for settings that it cannot take.
pub fn client_config(
    identity: &Arc<Identity>,
    pinned: Fingerprint,
    protocol: Protocol,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust =
        Trust { identity: Arc::clone(identity), pinned: Some(pinned), provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust))
        .with_client_cert_resolver(Arc::new(Shown(Arc::clone(identity))));
    config.alpn_protocols = protocol.alpn();
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// For the side that listens: it wants a key and says later whether it knows it.
///
/// # Errors
/// The library's, for settings that it cannot take.
pub fn server_config(
    identity: &Arc<Identity>,
    protocol: Protocol,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = Trust { identity: Arc::clone(identity), pinned: None, provider: Arc::clone(&provider) };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(trust))
        .with_cert_resolver(Arc::new(Shown(Arc::clone(identity))));
    config.alpn_protocols = protocol.alpn();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The handshake of the side that dials. That the other side takes our key shows only with the first read.
///
/// # Errors
/// [`TlsError`].
pub async fn connect<S>(config: Arc<ClientConfig>, stream: S) -> Result<ClientStream<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(NO_NAME).map_err(|error| TlsError::Tls(error.to_string()))?;
    let handshake = tokio_rustls::TlsConnector::from(config).connect(name, stream);
    let stream = tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await.map_err(|_| TlsError::Slow)??;
    if stream.get_ref().1.alpn_protocol().is_none() {
        return Err(TlsError::OtherProtocol);
    }
    Ok(stream)
}

/// The handshake of the side that listens, and whose key came.
///
/// # Errors
/// [`TlsError`].
pub async fn accept<S>(
    config: Arc<ServerConfig>,
    stream: S,
) -> Result<(ServerStream<S>, Certificate), TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = tokio_rustls::TlsAcceptor::from(config).accept(stream);
    let stream = tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await.map_err(|_| TlsError::Slow)??;
    let (_, connection) = stream.get_ref();
    if connection.alpn_protocol().is_none() {
        return Err(TlsError::OtherProtocol);
    }
    let shown = connection.peer_certificates().and_then(|all| all.first());
    let certificate = Certificate::read(shown.ok_or(TrustError::Unreadable("there is none"))?)?;
    Ok((stream, certificate))
}

/// What we show: whatever the identity has now.
#[derive(Debug)]
struct Shown(Arc<Identity>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified_key())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified_key())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// What we take.
#[derive(Debug)]
struct Trust {
    identity: Arc<Identity>,
    pinned: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        let checked = || {
            if !others.is_empty() {
                return Err(TrustError::Unreadable("it comes with others"));
            }
            let found = Certificate::read(end_entity)?;
            if let Some(expected) = self.pinned.filter(|pinned| *pinned != found.fingerprint) {
                return Err(TrustError::WrongKey { expected, found: found.fingerprint });
            }
            found.check_time(self.identity.clock().wall())
        };
        checked().map_err(|trust: TrustError| CertificateError::Other(OtherError(Arc::new(trust))).into())
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }
}

fn only_tls13() -> rustls::Error {
    rustls::Error::General("TLS 1.3 only".to_owned())
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Trust {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
