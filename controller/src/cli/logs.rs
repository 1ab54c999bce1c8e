//! `autoresearch logs RUN`

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use super::{
    Global,
    error::CliError,
    out::{Format, Printer},
    session,
};
use crate::journal::{Journal, LogStream, RunId};

/// Print what a run wrote.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run's id, or the beginning of one.
    run: String,
    /// Go on printing until the run ends.
    #[arg(short, long)]
    follow: bool,
    /// Which stream: stdout, stderr or metrics [default: stdout and then stderr].
    #[arg(long, value_name = "NAME", value_parser = ["stdout", "stderr", "metrics"])]
    stream: Option<String>,
}

/// A run that is followed is looked at so often.
const LOOK: Duration = Duration::from_millis(200);
const CHUNK: usize = 64 << 10;

pub(super) async fn run(args: Args, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let journal = session::read_or_fail(global).await?;
    let id = journal.find_run(&args.run).await.map_err(session::not_found)?;
    let streams: Vec<LogStream> = match args.stream.as_deref() {
        Some(name) => LogStream::ALL.into_iter().filter(|stream| stream.as_str() == name).collect(),
        None => vec![LogStream::Stdout, LogStream::Stderr],
    };
    let mut printed = vec![0u64; streams.len()];
    loop {
        let row = journal.run(id).await.map_err(session::journal_failed)?;
        for (stream, from) in streams.iter().zip(&mut printed) {
            let path = journal.log_path(row.campaign, id, *stream);
            // What lies past the journalled length may be cut off again.
            let text = between(&path, *from, row.stream_bytes(*stream))?;
            print(&printer, *stream, &text)?;
            *from = row.stream_bytes(*stream);
        }
        if !args.follow || is_over(&journal, id).await? {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn is_over(journal: &Journal, id: RunId) -> Result<bool, CliError> {
    Ok(journal.run(id).await.map_err(session::journal_failed)?.outcome.is_some())
}

fn print(printer: &Printer, stream: LogStream, bytes: &[u8]) -> Result<(), CliError> {
    if bytes.is_empty() {
        return Ok(());
    }
    // Hostile text: it must not drive a terminal.
    let text = String::from_utf8_lossy(bytes);
    match printer.format {
        Format::Text => printer.bytes(kit::text::printable(&text).as_bytes()),
        Format::Json => {
            for line in text.lines() {
                let object = serde_json::json!({ "stream": stream.as_str(), "line": line });
                printer.line(&object.to_string())?;
            }
            Ok(())
        }
    }
}

/// The bytes of a file between two offsets; a file that is not there is empty.
fn between(path: &Path, from: u64, to: u64) -> Result<Vec<u8>, CliError> {
    let failed = |e: std::io::Error| CliError::Failed(format!("cannot read {}: {e}", path.display()));
    let mut bytes = Vec::with_capacity(CHUNK);
    match File::open(path) {
        Ok(mut file) => {
            file.seek(SeekFrom::Start(from)).map_err(failed)?;
            file.take(to.saturating_sub(from)).read_to_end(&mut bytes).map_err(failed)?;
            Ok(bytes)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(bytes),
        Err(error) => Err(failed(error)),
    }
}
