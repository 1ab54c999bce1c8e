//! While a run goes on over TLS, strangers knock at the same port: garbage, plain HTTP, one that says nothing. The run does not
//! notice.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    SLEEPER,
    net::{GPU, Pair, finish, finish_child},
};

#[test]
fn strangers_at_the_port_do_not_disturb_a_run() {
    let pair = Pair::new();
    let printed = finish(pair.worker_command(&["init", "--listen", &format!("{GPU}:7433")])).expect(0).stdout;
    let worker = pair.serve(&[]);
    drop(pair.run(&["worker", "add", "gpu", printed.trim()]).expect(0));
    let program = pair.laptop.file("program.py", SLEEPER);
    let mut exec =
        pair.autoresearch(&["exec", program.to_str().expect("UTF-8"), "--image", "lite", "--output", "json"]);
    exec.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let running = exec.spawn().expect("the binary starts");
    let closed = pair.here.within(|| {
        let since = Instant::now();
        let mut closed = 0;
        // A slow one for the whole time: a byte of a handshake now and then.
        let mut slow = TcpStream::connect((GPU, 7433)).expect("it listens");
        let mut round = 0_u8;
        while since.elapsed() < Duration::from_secs(14) {
            round = round.wrapping_add(1);
            slow.write_all(&[0x16]).ok();
            for bytes in [
                &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
                &[round; 4096],
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            ] {
                let Ok(mut stream) = TcpStream::connect((GPU, 7433)) else { continue };
                stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a time-out");
                stream.write_all(bytes).ok();
                let mut answer = Vec::new();
                let ended = stream.read_to_end(&mut answer);
                assert!(
                    !String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"),
                    "nothing is served in the clear"
                );
                closed += usize::from(
                    ended.is_ok() || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset),
                );
            }
        }
        // It was hung up on: writing to it fails by now.
        let gone = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            slow.write_all(&[0x16]).is_err()
        });
        assert!(gone, "a connection that never finishes its handshake is closed");
        closed
    });
    assert!(closed >= 3, "each stranger is hung up on: {closed}");
    let ran = finish_child(running).expect(0).json();
    assert_eq!(ran["outcome"], "succeeded", "{ran:#}");
    assert!(ran["stdout"].as_str().is_some_and(|text| text.contains("done")), "{ran:#}");
    assert!(worker.log().contains("refused"), "it is told: {}", worker.log());
    worker.stop();
}
