//! What ssh runs on the worker's machine.

use std::{fs, process::Stdio};

use proto::v1::GetWorkerRequest;
use tokio::io::{AsyncReadExt as _, join};

use crate::fixture::{Client, Machine, exists, over, until};

/// The first line, and not a byte more.
async fn first_line(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await.expect("no first line") {
            b'\n' => return String::from_utf8(line).unwrap(),
            byte => line.push(byte),
        }
    }
}

#[tokio::test]
async fn connect_starts_a_worker_that_outlives_it_and_goes_when_nobody_needs_it() {
    let machine = Machine::new();
    let bridge = || {
        let mut command = tokio::process::Command::from(machine.command(&["connect"]));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        command.spawn().unwrap()
    };
    let mut first = bridge();
    let (input, mut output) = (first.stdin.take().unwrap(), first.stdout.take().unwrap());
    assert_eq!(first_line(&mut output).await, "autoresearch-worker/1");
    let mut client = Client::new(over(join(output, input)).await.unwrap());
    let worker = client.get_worker(GetWorkerRequest {}).await.unwrap().into_inner();

    // A second one finds the same worker.
    let mut second = bridge();
    let (input, mut output) = (second.stdin.take().unwrap(), second.stdout.take().unwrap());
    assert_eq!(first_line(&mut output).await, "autoresearch-worker/1");
    let mut other = Client::new(over(join(output, input)).await.unwrap());
    let same = other.get_worker(GetWorkerRequest {}).await.unwrap().into_inner();
    assert_eq!(worker.process_id, same.process_id);

    let pid: i32 = fs::read_to_string(machine.folder.join("lock")).unwrap().parse().unwrap();
    let session = |pid| nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).unwrap();
    assert_eq!(session(pid).as_raw(), pid, "it leads a session of its own");
    // What the bridge has open does not stay open in it, or ssh would wait for it.
    for fd in 0..3 {
        let target = fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        let target = target.to_string_lossy();
        assert!(target == "/dev/null" || target.ends_with("worker.log"), "{fd} is {target}");
    }

    // ssh is killed; the worker is there for the other one, and goes after it.
    first.kill().await.unwrap();
    other.get_worker(GetWorkerRequest {}).await.unwrap();
    drop((client, other));
    let ended = second.wait().await.unwrap();
    assert!(ended.success(), "the end of its input ends a bridge in peace: {ended}");
    until("the worker goes", || !exists(pid)).await;
    assert!(!machine.folder.join("worker.sock").exists());
}

#[tokio::test]
async fn what_is_in_the_way_is_told_on_standard_error() {
    let machine = Machine::new();
    // A folder where the log should be.
    fs::create_dir(machine.folder.join("worker.log")).unwrap();
    let refused = machine.run(&["connect"]);
    let error = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), refused.stdout.as_slice()), (Some(1), &b""[..]), "{error}");
    assert!(error.contains("worker.log"), "{error}");
    fs::remove_dir(machine.folder.join("worker.log")).unwrap();

    // A worker that cannot start says why, through its log.
    fs::write(machine.folder.join("worker-id"), "nonsense").unwrap();
    let refused = machine.run(&["connect"]);
    let error = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), refused.stdout.as_slice()), (Some(1), &b""[..]), "{error}");
    assert!(error.contains("worker-id") && error.contains("worker.log"), "{error}");
}
