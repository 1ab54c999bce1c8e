//! What comes over a network that is not ours: refused or survived, told in a few lines, and the worker goes on.

use std::time::Duration;

use kit::identity::Fingerprint;
use prost::bytes::Bytes;
use proto::v1::GetWorkerRequest;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::fixture::{Controller, Machine, PATIENCE, peak_memory};

const MIB: u64 = 1 << 20;

/// Says something and reads until the worker hangs up.
async fn say(machine: &Machine, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(machine.address).await.unwrap();
    stream.write_all(bytes).await.ok();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    // Hanging up with a reset is as good.
    tokio::time::timeout(PATIENCE, reading).await.expect("the worker does not hang up").ok();
    answer
}

#[tokio::test]
async fn other_protocols_garbage_and_silence_are_hung_up_on() {
    let mut machine = Machine::new();
    let join = machine.init();
    machine.start(&[]).await;
    let laptop = Controller::new();
    laptop.join(&machine, &join).await.unwrap();
    let mut known = laptop.client(&machine, &join).await;

    // All silent ones wait at the same time: one that says nothing, one that stops in its first record, one that stops
    // after the handshake.
    let silent = say(&machine, b"");
    let halfway = say(&machine, &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
    let shaken = async {
        let mut stream = Controller::new().reach(machine.address, join.fingerprint).await.unwrap();
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("not hung up on").ok();
    };
    // One byte of HTTP/2 each second, by a stranger: its time ends all the same.
    let slow = async {
        let mut stream = Controller::new().reach(machine.address, join.fingerprint).await.unwrap();
        for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".iter().cycle() {
            if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let slow = tokio::time::timeout(PATIENCE, slow);
    let (_, _, (), slow) = tokio::join!(silent, halfway, shaken, slow);
    slow.expect("a slow stranger is never hung up on");

    let http = say(&machine, b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n").await;
    assert!(!http.starts_with(b"HTTP"), "{http:?}");
    say(&machine, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    say(&machine, b"SSH-2.0-OpenSSH_9.2\r\n").await;
    for n in 0..60_u8 {
        let garbage: Vec<u8> =
            (0..2000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ n).collect();
        say(&machine, &garbage).await;
    }
    // Inside of TLS too.
    let mut stream = Controller::new().reach(machine.address, join.fingerprint).await.unwrap();
    stream.write_all(&[0xff; 4096]).await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("not hung up on").ok();

    known.get_worker(GetWorkerRequest {}).await.unwrap();
    let log = machine.log();
    let told = log.lines().filter(|line| line.contains("a connection was refused")).count();
    assert!((4..=60).contains(&told), "{told} lines:\n{log}");
    assert!(log.contains("does not speak TLS"), "{log}");
}

#[tokio::test]
async fn one_place_cannot_take_every_connection() {
    let mut machine = Machine::new();
    let join = machine.init();
    machine.start(&[]).await;
    let laptop = Controller::new();
    laptop.join(&machine, &join).await.unwrap();
    let mut known = laptop.client(&machine, &join).await;
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(TcpStream::connect(machine.address).await.unwrap());
    }
    // Most are closed at once, long before a time-out of theirs.
    let mut closed = 0;
    for stream in &mut open {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut byte)).await;
        closed += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    assert!(closed >= 180, "{closed} of 200");
    known.get_worker(GetWorkerRequest {}).await.unwrap();
    drop(open);
    let again = async {
        let config = kit::identity::tls::client_config(
            &laptop.identity,
            join.fingerprint,
            kit::identity::tls::Protocol::Grpc,
        );
        let config = config.unwrap();
        loop {
            let stream = TcpStream::connect(machine.address).await.unwrap();
            if kit::identity::tls::connect(config.clone(), stream).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("there is no place although all have gone");
    let log = machine.log();
    let told = log.lines().filter(|line| line.contains("too many connections")).count();
    assert!((1..=40).contains(&told), "{told} lines");
}

/// Begins a call with a message that says it has 1 GiB, and sends of it what is taken.
async fn send_1_gib(controller: &Controller, machine: &Machine, pinned: Fingerprint, path: &str) -> u64 {
    let stream = controller.reach(machine.address, pinned).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    kit::task::spawn("h2", async move {
        connection.await.ok();
    });
    let mut client = client.ready().await.unwrap();
    let request = http::Request::post(format!("http://worker{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (_, mut body) = client.send_request(request, false).unwrap();
    let mut head = vec![0];
    head.extend((1_u32 << 30).to_be_bytes());
    body.send_data(head.into(), false).unwrap();
    let (chunk, mut sent) = (Bytes::from(vec![0; 64 << 10]), 0);
    let sending = async {
        while sent < 1 << 30 {
            body.reserve_capacity(chunk.len());
            match std::future::poll_fn(|context| body.poll_capacity(context)).await {
                Some(Ok(room)) if room > 0 => {
                    let part = chunk.slice(..room.min(chunk.len()));
                    sent += part.len() as u64;
                    if body.send_data(part, false).is_err() {
                        return;
                    }
                }
                Some(Ok(_)) => {}
                _ => return,
            }
        }
    };
    tokio::time::timeout(PATIENCE, sending).await.expect("neither taken nor refused");
    sent
}

#[tokio::test]
async fn a_message_of_1_gib_is_refused_before_it_is_there() {
    let mut machine = Machine::new();
    let join = machine.init();
    machine.start(&[]).await;
    let (laptop, stranger) = (Controller::new(), Controller::new());
    laptop.join(&machine, &join).await.unwrap();
    let mut known = laptop.client(&machine, &join).await;
    known.get_worker(GetWorkerRequest {}).await.unwrap();
    let before = peak_memory(machine.pid());
    const SERVICE: &str = "/autoresearch.worker.v1.WorkerService";
    for controller in [&laptop, &stranger] {
        for call in ["PutBlob", "StartRun", "Join", "NoSuchCall"] {
            let sent = send_1_gib(controller, &machine, join.fingerprint, &format!("{SERVICE}/{call}")).await;
            assert!(sent < 64 * MIB, "{call}: {sent} bytes were taken");
        }
    }
    known.get_worker(GetWorkerRequest {}).await.unwrap();
    let grown = peak_memory(machine.pid()).saturating_sub(before);
    assert!(grown < 32 * MIB, "{grown} bytes more");
}
