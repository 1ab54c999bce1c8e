//! Both ends of TLS in one process, over a pipe in memory.

use jiff::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;
use crate::{clock::ManualClock, identity::IdentityOptions};

const DAY: Duration = Duration::from_secs(86_400);

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// An identity whose folder lives as long as the process of the test: its keys are in memory.
fn identity(clock: &Arc<ManualClock>) -> Arc<Identity> {
    let folder = tempfile::tempdir().unwrap();
    let options =
        IdentityOptions { folder: folder.path().to_owned(), lifetime: 30 * DAY, clock: clock.clone() };
    Identity::open(options).unwrap()
}

type Ended = (Result<Vec<u8>, TlsError>, Result<Fingerprint, TlsError>);

/// The client says `hello`, the server sends it back.
async fn talk(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Ended {
    let (near, far) = duplex(4096);
    let client = async {
        let mut stream = connect(client, near).await?;
        let exchange = async {
            stream.write_all(b"hello").await?;
            let mut back = vec![0; 5];
            stream.read_exact(&mut back).await?;
            Ok::<_, io::Error>(back)
        };
        exchange.await.map_err(TlsError::from)
    };
    let server = async {
        let (mut stream, certificate) = accept(server, far).await?;
        let exchange = async {
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await?;
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        exchange.await.map_err(TlsError::from)?;
        Ok(certificate.fingerprint)
    };
    tokio::join!(client, server)
}

#[tokio::test]
async fn each_side_learns_the_others_key() {
    let clock = ManualClock::new(start());
    let (controller, worker) = (identity(&clock), identity(&clock));
    let client = client_config(&controller, worker.fingerprint(), Protocol::Grpc).unwrap();
    let (said, seen) = talk(client, server_config(&worker, Protocol::Grpc).unwrap()).await;
    assert_eq!(said.unwrap(), b"hello");
    assert_eq!(seen.unwrap(), controller.fingerprint());
}

#[tokio::test]
async fn another_key_is_refused_and_both_are_named() {
    let clock = ManualClock::new(start());
    let (controller, worker, other) = (identity(&clock), identity(&clock), identity(&clock));
    let client = client_config(&controller, other.fingerprint(), Protocol::Grpc).unwrap();
    let (said, seen) = talk(client, server_config(&worker, Protocol::Grpc).unwrap()).await;
    let expected = TrustError::WrongKey { expected: other.fingerprint(), found: worker.fingerprint() };
    assert!(matches!(said, Err(TlsError::Trust(trust)) if trust == expected));
    assert!(matches!(seen, Err(TlsError::Refused(_) | TlsError::Broken(_))));
}

#[tokio::test]
async fn time_is_ours_to_judge_on_either_side() {
    let (early, late) = (ManualClock::new(start()), ManualClock::new(start()));
    late.advance(40 * DAY);
    let (old, new) = (identity(&early), identity(&late));
    let config = |from: &Arc<Identity>, to: &Arc<Identity>| {
        (
            client_config(from, to.fingerprint(), Protocol::Grpc).unwrap(),
            server_config(to, Protocol::Grpc).unwrap(),
        )
    };
    // The one that dials has the later clock.
    let (client, server) = config(&new, &old);
    let (said, _) = talk(client, server).await;
    let error = said.unwrap_err();
    assert!(matches!(error, TlsError::Trust(TrustError::Expired { .. })), "{error}");
    // The one that listens has it.
    let (client, server) = config(&old, &new);
    let (said, seen) = talk(client, server).await;
    assert!(matches!(said, Err(TlsError::Trust(TrustError::NotYet { .. }))));
    assert!(seen.is_err());
    // Half a day is no matter.
    let near = ManualClock::new(start());
    near.advance(DAY / 2);
    let (client, server) = config(&identity(&near), &old);
    talk(client, server).await.0.unwrap();
}

#[tokio::test]
async fn a_client_that_the_server_refuses_reads_why() {
    let (early, late) = (ManualClock::new(start()), ManualClock::new(start()));
    let (client, server) = (identity(&early), identity(&early));
    // The server's clock goes on, and it shows a certificate that the client can take.
    late.advance(12 * 3600 * Duration::from_secs(1));
    let client_config = client_config(&client, server.fingerprint(), Protocol::Grpc).unwrap();
    let trusting = Trust {
        identity: identity(&late),
        pinned: Some(server.fingerprint()),
        provider: Arc::new(rustls::crypto::ring::default_provider()),
    };
    let mut refusing = ServerConfig::clone(&server_config(&server, Protocol::Grpc).unwrap());
    refusing = {
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_client_cert_verifier(Arc::new(trusting))
                .with_cert_resolver(Arc::new(Shown(server)));
        config.alpn_protocols = refusing.alpn_protocols;
        config
    };
    let (said, seen) = talk(client_config, Arc::new(refusing)).await;
    assert!(matches!(said, Err(TlsError::Refused(_))), "{said:?}");
    assert!(matches!(seen, Err(TlsError::Trust(TrustError::WrongKey { .. }))), "{seen:?}");
}

#[tokio::test]
async fn what_is_no_tls_or_another_protocol_is_told() {
    let clock = ManualClock::new(start());
    let (controller, worker) = (identity(&clock), identity(&clock));
    let server = server_config(&worker, Protocol::Grpc).unwrap();
    let (mut near, far) = duplex(4096);
    let (_, refused) =
        tokio::join!(near.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), accept(server.clone(), far));
    assert!(matches!(refused, Err(TlsError::NotTls)));

    let dial = client_config(&controller, worker.fingerprint(), Protocol::Dial).unwrap();
    let (said, seen) = talk(dial, server).await;
    assert!(matches!(said, Err(TlsError::OtherProtocol)), "{said:?}");
    assert!(matches!(seen, Err(TlsError::OtherProtocol)), "{seen:?}");
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_ended() {
    let clock = ManualClock::new(start());
    let (_near, far) = duplex(4096);
    let refused = accept(server_config(&identity(&clock), Protocol::Grpc).unwrap(), far).await;
    assert!(matches!(refused, Err(TlsError::Slow)));
}
