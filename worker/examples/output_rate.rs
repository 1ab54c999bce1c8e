//! How fast a program's output is recorded: a worker on a folder of its own, two runs in the `lite` image that print
//! 200 MB in lines of 100 bytes, and a watcher that takes every byte. Needs what a run needs: root and an engine.
//!
//! ```text
//! cargo run -p worker --release --example output_rate
//! ```

#![allow(clippy::print_stdout, reason = "the figures are its output")]

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use hyper_util::rt::TokioIo;
use kit::{digest::Digest, id::new_uuid, size::Bytes, task::CancellationToken};
use prost::Message as _;
use proto::v1::{
    BlobHeader, Finished, InputFile, InputRole, Limits, OutcomeKind, PrepareImageRequest, PutBlobRequest,
    ReleaseRunRequest, RunSpec, RunState, StartRunRequest, Stream, WatchRunRequest, event::Kind,
    watch_run_response::Message, worker_service_client::WorkerServiceClient,
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use worker::config::WorkerConfig;

const BYTES: u64 = 200_000_000;
/// The same bytes as a program prints them here, each line at once, and as one that gathers them: the first is held up by
/// its own two million writes, the second shows what the worker takes.
const PROGRAMS: [(&str, &str); 2] = [
    ("a write for each line", "out = open(1, 'wb', buffering=0, closefd=False)\n"),
    ("64 KiB in a write", "out = open(1, 'wb', buffering=1 << 16, closefd=False)\n"),
];
const LINES: &str =
    "line = b'x' * 99 + b'\\n'\nfor _ in range(2_000_000):\n    out.write(line)\nout.flush()\n";
const OWNER: &str = "scratch-measurement";

type Client = WorkerServiceClient<Channel>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("scratch-{}", new_uuid()));
    let config = WorkerConfig { data_dir: Some(folder.clone()), slots: Some(1), ..WorkerConfig::default() };
    let shutdown = CancellationToken::new();
    let serving = kit::task::spawn("serve", worker::serve::serve(config, shutdown.clone()));
    let measured = measure(&folder).await;
    shutdown.cancel();
    let served = serving.await.context("the worker was stopped")?;
    std::fs::remove_dir_all(&folder).context("remove the worker's folder")?;
    measured?;
    served.context("the worker panicked")??;
    Ok(())
}

async fn measure(folder: &Path) -> anyhow::Result<()> {
    let mut client = connect(folder.join("worker.sock")).await?;
    let mut steps = client
        .prepare_image(PrepareImageRequest { name: "lite".to_owned(), backend: String::new() })
        .await?
        .into_inner();
    while steps.message().await?.is_some() {}
    for (how, program) in PROGRAMS {
        println!("\n{} in lines of 100 bytes, {how}", Bytes(BYTES));
        measure_one(&mut client, &format!("{program}{LINES}")).await?;
    }
    Ok(())
}

async fn measure_one(client: &mut Client, program: &str) -> anyhow::Result<()> {
    let spec = spec(client, program).await?;
    let run_id = new_uuid().to_string();
    let begin = Instant::now();
    let request = StartRunRequest {
        run_id: run_id.clone(),
        controller_id: OWNER.to_owned(),
        spec: spec.encode_to_vec().into(),
    };
    client.start_run(request).await?;
    let seen = watch(client, &run_id).await?;
    let whole = begin.elapsed();

    let outcome = seen.finished.outcome.unwrap_or_default();
    ensure!(outcome.kind() == OutcomeKind::Succeeded, "the run ended otherwise: {outcome:?}");
    ensure!(seen.bytes == BYTES, "{} bytes came and {BYTES} were printed", seen.bytes);
    let usage = seen.finished.usage.unwrap_or_default();
    let rate = |time: Duration| BYTES as f64 / 1e6 / time.as_secs_f64();
    println!("frames                             {:>10}", seen.frames);
    println!("from StartRun to the last event    {whole:>10.3?} {:>7.0} MB/s", rate(whole));
    println!(
        "from the gate to the last byte     {:>10.3?} {:>7.0} MB/s",
        seen.last_byte,
        rate(seen.last_byte)
    );
    println!(
        "the program, in its sandbox        {:>8} ms, CPU {} ms",
        usage.wall_ms,
        usage.cpu_ns / 1_000_000
    );
    println!("peak of the sandbox's memory       {}", Bytes(usage.memory_peak_bytes.max(1)));
    let release = ReleaseRunRequest {
        run_id,
        controller_id: OWNER.to_owned(),
        last_sequence: seen.finished.last_sequence,
    };
    client.release_run(release).await?;
    Ok(())
}

async fn connect(socket: PathBuf) -> anyhow::Result<Client> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let path = socket.clone();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        match Endpoint::from_static("http://localhost").connect_with_connector(connector).await {
            Ok(channel) => {
                return Ok(Client::new(channel).max_decoding_message_size(proto::MESSAGE_BYTES_MAX));
            }
            Err(error) if Instant::now() > until => return Err(error).context("the worker does not listen"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn spec(client: &mut Client, program: &str) -> anyhow::Result<RunSpec> {
    let (digest, size_bytes) = (Digest::of(program.as_bytes()).to_string(), program.len() as u64);
    let header = BlobHeader { digest: digest.clone(), size_bytes, offset: 0 };
    let blob = PutBlobRequest { header: Some(header), data: program.as_bytes().to_vec().into() };
    client.put_blob(tokio_stream::iter([blob])).await?;
    let role = InputRole::Program.into();
    Ok(RunSpec {
        image: "lite".to_owned(),
        files: vec![InputFile { path: "main.py".to_owned(), digest, size_bytes, role }],
        limits: Some(Limits { stdout_bytes: 256 << 20, disk_bytes: 1 << 30, ..Limits::default() }),
        ..RunSpec::default()
    })
}

struct Seen {
    finished: Finished,
    bytes: u64,
    frames: u64,
    /// From the event that the gate was opened to the last byte of output, as the watcher had them.
    last_byte: Duration,
}

async fn watch(client: &mut Client, run_id: &str) -> anyhow::Result<Seen> {
    let request =
        WatchRunRequest { run_id: run_id.to_owned(), controller_id: OWNER.to_owned(), after_sequence: 0 };
    let mut stream = client.watch_run(request).await?.into_inner();
    let (mut bytes, mut frames, mut gate, mut last_byte) = (0, 0, Instant::now(), Duration::ZERO);
    while let Some(message) = stream.message().await? {
        let Some(Message::Event(event)) = message.message else { continue };
        match event.kind {
            Some(Kind::StateChange(change)) if change.state() == RunState::Running => gate = Instant::now(),
            Some(Kind::Frame(frame)) if frame.stream() == Stream::Stdout => {
                bytes += frame.data.len() as u64;
                frames += 1;
                last_byte = gate.elapsed();
            }
            Some(Kind::Gap(gap)) => bail!("bytes were dropped: {gap:?}"),
            Some(Kind::Finished(finished)) => return Ok(Seen { finished, bytes, frames, last_byte }),
            _ => {}
        }
    }
    bail!("the stream ended before the run")
}
