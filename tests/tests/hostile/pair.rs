//! Two programs at once on one worker: one leaves its secret wherever it may, the other looks everywhere for it.

use std::time::Duration;

use e2e::{
    Home, leftovers, wait_for,
    witness::Witness,
    worker::{self, WorkerProcess},
};
use proto::v1::{CancelRunRequest, Event, OutcomeKind, Stream, event::Kind};

use crate::run::Backend;

const OWNER: &str = "0190a5c8-0000-7000-8000-00000000000c";
const NEIGHBOUR: &str = "0190a5c8-0000-7000-8000-00000000000d";

/// Leaves files, shared memory, a queue, sockets and a System V segment, says so, and waits.
const HOLDER: &str = r#"
import ctypes, os, socket, time
libc = ctypes.CDLL(None, use_errno=True)
for folder in (".", "/tmp", "/dev/shm", "/dev/mqueue"):
    try:
        with open(folder + "/neighbour", "w") as file: file.write("the neighbour's secret")
        os.chmod(folder + "/neighbour", 0o777)
    except OSError:
        pass
held = []
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind("\0neighbour-%d" % kind)
    if kind == socket.SOCK_STREAM: made.listen()
    held.append(made)
server = socket.socket()
server.bind(("127.0.0.1", 4242))
server.listen()
segment = libc.shmget(0x41524152, 4096, 0o1777)
print("there", os.getpid(), flush=True)
time.sleep(50)
"#;

const SEEKER: &str = r#"
import ctypes, os, signal, socket
libc = ctypes.CDLL(None, use_errno=True)
def refused(what, call):
    try:
        print("REACHED", what, repr(call())[:100])
    except OSError:
        pass
for folder in (".", "..", "/tmp", "/dev/shm", "/dev/mqueue", "/work", "/var/tmp"):
    refused("a file in " + folder, lambda: open(folder + "/neighbour").read())
for root, folders, files in os.walk("/"):
    if root.startswith(("/proc", "/sys")):
        folders.clear()
    elif "neighbour" in files:
        print("REACHED", root)
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    refused("an abstract socket", lambda: socket.socket(socket.AF_UNIX, kind).connect("\0neighbour-%d" % kind))
refused("its loopback", lambda: socket.create_connection(("127.0.0.1", 4242), 1))
if libc.shmget(0x41524152, 4096, 0) >= 0: print("REACHED its segment")
if "neighbour" in open("/proc/net/unix").read(): print("REACHED the names of its sockets")
for pid in range(2, 2000):
    if pid != os.getpid(): refused("process %d" % pid, lambda: os.kill(pid, 0))
print("looked", os.getuid())
"#;

fn stdout(events: &[Event]) -> String {
    let frames = events.iter().filter_map(|event| match &event.kind {
        Some(Kind::Frame(frame)) if frame.stream() == Stream::Stdout => Some(&frame.data),
        _ => None,
    });
    String::from_utf8_lossy(&frames.flat_map(|data| data.iter().copied()).collect::<Vec<u8>>()).into_owned()
}

pub async fn strangers(backend: Backend) {
    let home = match backend {
        Backend::Docker | Backend::Plain => Home::new(),
        Backend::Native => Home::without_engine(),
    };
    let mut process = WorkerProcess::start(&home, &[("AUTORESEARCH_WORKER_SLOTS", "2")]);
    let mut client = process.ready(backend.name()).await;
    let witness = Witness::of(&home.data_dir());
    let limits = worker::small_limits();
    let mut spec = worker::spec(&mut client, HOLDER, limits).await.expect("a spec");
    spec.backend = backend.name().to_owned();
    let holder = worker::request(NEIGHBOUR, &spec);
    worker::start(&mut client, &holder).await.expect("the neighbour");
    let mut watching = client.clone();
    let run_id = holder.run_id.clone();
    let watched = kit::task::spawn("the neighbour", async move {
        let mut events = Vec::new();
        worker::watch(&mut watching, NEIGHBOUR, &run_id, &mut events).await.map(|()| events)
    });
    let data_dir = home.data_dir();
    wait_for("the neighbour's word", Duration::from_secs(30), || {
        let there = leftovers::sandboxes(&data_dir).into_iter().any(|sandbox| {
            let log = std::fs::read_to_string(sandbox.join("volume/logs/stdout"));
            log.is_ok_and(|text| text.contains("there"))
        });
        if there { Ok(()) } else { Err("the neighbour has said nothing".to_owned()) }
    });

    let mut spec = worker::spec(&mut client, SEEKER, limits).await.expect("a spec");
    spec.backend = backend.name().to_owned();
    let (events, finished) = worker::run(&mut client, OWNER, &spec).await;
    let outcome = finished.outcome.unwrap_or_default();
    let told = stdout(&events);
    assert_eq!(outcome.kind(), OutcomeKind::Succeeded, "{outcome:?}");
    assert!(told.contains("looked") && !told.contains("REACHED"), "{told}");

    // One controller cannot end, see or forget another's run.
    let theirs =
        |owner: &str| CancelRunRequest { run_id: holder.run_id.clone(), controller_id: owner.into() };
    let answer = client.cancel_run(theirs(OWNER)).await;
    assert!(!answer.as_ref().is_ok_and(|a| a.get_ref().run.is_some()), "{answer:?}");
    let mut seen = Vec::new();
    assert!(worker::watch(&mut client, OWNER, &holder.run_id, &mut seen).await.is_err() && seen.is_empty());
    client.cancel_run(theirs(NEIGHBOUR)).await.expect("its own run");
    let events = watched.await.expect("the watching").expect("no panic").expect("the neighbour's events");
    let finished = worker::finished(&events).expect("its end");
    let outcome = finished.outcome.clone().unwrap_or_default();
    assert_eq!(outcome.kind(), OutcomeKind::Cancelled, "{outcome:?}");
    worker::release(&mut client, NEIGHBOUR, &holder.run_id, finished).await.expect("its release");
    drop(client);
    process.stop();
    let seen = witness.seen();
    assert_eq!(seen.alive.len(), 2, "each has a uid of its own: {:?}", seen.alive.keys());
    wait_for("nothing of the two is left", Duration::from_secs(20), || {
        let left = seen.left();
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    });
}
