//! A worker that dials: the roles of HTTP/2 are reversed, the secret is shown once, and it comes again after every cut.

use std::{sync::Arc, time::Duration};

use kit::{
    clock::SystemClock,
    identity::{
        Certificate, INVITATION_LIFETIME, Invitations, InviteString, Redeemed, Secret,
        preface::{self, Answer, Hello},
        tls::{self, Protocol, ServerStream},
    },
};
use proto::v1::{GetWorkerRequest, ListRunsRequest};
use tokio::net::{TcpListener, TcpStream};

use crate::fixture::{Client, Controller, Machine, PATIENCE, over};

/// A controller that listens.
struct Listening {
    controller: Controller,
    listener: TcpListener,
    folder: tempfile::TempDir,
}

impl Listening {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { controller: Controller::new(), listener, folder: tempfile::tempdir().unwrap() }
    }

    fn invitations(&self) -> Invitations {
        Invitations::new(self.folder.path(), SystemClock::shared())
    }

    fn invite(&self, secret: Secret) -> InviteString {
        // The first address answers nobody: the next one is taken.
        let addresses = vec!["127.0.0.1:1".parse().unwrap(), self.listener.local_addr().unwrap().into()];
        let fingerprint = self.controller.identity.fingerprint();
        InviteString { addresses, fingerprint, secret, name: "gpu-box".to_owned() }
    }

    /// The next worker that comes, and what it says first.
    async fn accept(&self) -> (ServerStream<TcpStream>, Certificate, Hello) {
        let coming = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let config = tls::server_config(&self.controller.identity, Protocol::Dial).unwrap();
            let (mut stream, certificate) = tls::accept(Arc::clone(&config), stream).await.unwrap();
            let hello = preface::read::<Hello>(&mut stream).await.unwrap();
            (stream, certificate, hello)
        };
        tokio::time::timeout(PATIENCE, coming).await.expect("no worker comes")
    }

    async fn answer_ok(&self, mut stream: ServerStream<TcpStream>) -> Client {
        let controller_id = self.controller.id.clone();
        preface::write(&mut stream, &Answer::Ok { controller_id }).await.unwrap();
        Client::new(over(stream).await.unwrap())
    }
}

#[tokio::test]
async fn a_worker_behind_nat_is_used_as_any_other_and_comes_again() {
    let house = Listening::new().await;
    let secret = house.invitations().issue(Some("gpu-box".to_owned()), INVITATION_LIFETIME).unwrap();
    let invite = house.invite(secret).to_string();
    let mut machine = Machine::new();
    machine.start(&["--dial", &invite]).await;

    // The first answer is lost: it shows the secret again, and that is the same worker.
    let (stream, certificate, hello) = house.accept().await;
    let shown = hello.secret.clone().unwrap();
    let redeemed = house.invitations().redeem(&shown, &certificate.fingerprint).unwrap();
    assert!(matches!(redeemed, Redeemed::First(_)));
    drop(stream);
    // It is sent away once, and comes again.
    let (mut stream, again, hello) = house.accept().await;
    assert_eq!(again.fingerprint, certificate.fingerprint);
    let redeemed = house.invitations().redeem(&hello.secret.unwrap(), &again.fingerprint).unwrap();
    assert!(matches!(redeemed, Redeemed::Again(_)));
    preface::write(&mut stream, &Answer::No { reason: "not now".to_owned() }).await.unwrap();
    drop(stream);

    let (stream, _, hello) = house.accept().await;
    assert_eq!(hello.name, "gpu-box");
    let mut client = house.answer_ok(stream).await;
    let worker = client.get_worker(GetWorkerRequest {}).await.unwrap().into_inner();
    assert_eq!(worker.worker_id, hello.worker_id);
    // It has the rights of a controller, not of the owner.
    let list = |id: &str| ListRunsRequest { controller_id: id.to_owned(), ..ListRunsRequest::default() };
    client.list_runs(list(&house.controller.id)).await.unwrap();
    let refused = client.list_runs(list("another")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);

    // Cut: it comes by its key alone.
    drop(client);
    let (stream, known, hello) = house.accept().await;
    assert_eq!((known.fingerprint, hello.secret), (certificate.fingerprint, None));
    let mut client = house.answer_ok(stream).await;
    client.get_worker(GetWorkerRequest {}).await.unwrap();

    // A new process, without the flag and with it.
    for more in [&[][..], &["--dial", &invite]] {
        machine.kill();
        machine.start(more).await;
        let (stream, known, hello) = house.accept().await;
        assert_eq!((known.fingerprint, hello.secret), (certificate.fingerprint, None));
        client = house.answer_ok(stream).await;
        client.get_worker(GetWorkerRequest {}).await.unwrap();
    }
    assert!(machine.log().contains("not now"), "{}", machine.log());

    // Its owner takes it back: the connection ends, and it comes no more.
    let name = house.listener.local_addr().unwrap().to_string();
    let revoked = machine.run(&["controllers", "revoke", &name]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    let ended = async {
        while client.get_worker(GetWorkerRequest {}).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the connection goes on");
    let comes = tokio::time::timeout(Duration::from_secs(5), house.listener.accept()).await;
    assert!(comes.is_err(), "it dials although it was taken back");
}

#[tokio::test]
async fn another_controller_at_the_address_is_not_served() {
    let (house, impostor) = (Listening::new().await, Controller::new());
    let mut machine = Machine::new();
    let invite = house.invite(Secret::new()).to_string();
    machine.start(&["--dial", &invite]).await;
    let (stream, _) = tokio::time::timeout(PATIENCE, house.listener.accept()).await.unwrap().unwrap();
    let config = tls::server_config(&impostor.identity, Protocol::Dial).unwrap();
    tls::accept(config, stream).await.expect_err("the worker takes another key");
    crate::fixture::until("the log tells", || machine.log().contains("wrong fingerprint")).await;
    let (stream, _) = tokio::time::timeout(PATIENCE, house.listener.accept()).await.unwrap().unwrap();
    let mut plain = stream;
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    drop(plain);
    // And the right one still is.
    let (stream, _, _) = house.accept().await;
    house.answer_ok(stream).await.get_worker(GetWorkerRequest {}).await.unwrap();
}
