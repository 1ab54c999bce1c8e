//! `autoresearch doctor`

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use kit::{clock::SystemClock, size::Bytes};
use proto::v1;

use super::{
    Global,
    config::Config,
    error::{CliError, chain},
    local_worker::LocalWorker,
    out::Printer,
};
use crate::{
    fleet::{Link, rules},
    journal::Journal,
    llm::Keys,
};

/// Tell what works here, and what to do about what does not.
///
/// Exits 0 where a campaign could run.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) async fn run(_: Args, global: &Global, printer: Printer) -> Result<ExitCode, CliError> {
    let config = Config::load(global)?;
    let data_dir = config.data_dir()?;
    let clock = SystemClock::shared();
    let journal = match Journal::open_read_only(&data_dir, clock.clone()) {
        Ok(journal) => journal.check().await.map_or_else(|e| chain(&e), |()| "in order".to_owned()),
        Err(error) if error.is_not_there() => "none yet".to_owned(),
        Err(error) => chain(&error),
    };
    let local = LocalWorker::new(&data_dir, clock);
    let worker = match Link::open(Box::new(local.handle())).await {
        Ok(link) => Ok(link.view().info),
        Err(error) => Err(chain(&error)),
    };
    local.wait_gone(Duration::from_secs(5)).await;
    let usable = worker.as_ref().is_ok_and(|info| info.backends.iter().any(|backend| backend.available));
    let keys = Keys::from_env().seen();
    let json = serde_json::json!({
        "usable": usable,
        "version": env!("CARGO_PKG_VERSION"),
        "data_dir": data_dir,
        "journal": journal,
        "keys_seen": keys,
        "worker": worker.as_ref().map_or_else(|e| serde_json::json!({ "error": e }), worker_json),
    });
    let mut text = String::new();
    let mut fact = |name: &str, value: &str| writeln!(text, "{name:12} {value}").unwrap_or_default();
    fact("data folder", &data_dir.display().to_string());
    fact("journal", &journal);
    let keys = if keys.is_empty() { "none seen in the environment".to_owned() } else { keys.join(", ") };
    fact("model keys", &keys);
    match &worker {
        Ok(info) => worker_text(&mut text, info).unwrap_or_default(),
        Err(error) => writeln!(text, "worker       cannot be started: {error}").unwrap_or_default(),
    }
    write!(
        text,
        "{}",
        if usable { "A campaign can run here." } else { "No campaign can run here: see above." }
    )
    .unwrap_or_default();
    printer.result(&json, &text)?;
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn worker_json(info: &v1::GetWorkerResponse) -> serde_json::Value {
    let rule = |r: &v1::Rule| {
        serde_json::json!({
            "name": r.name, "enforcement": rules::enforcement_word(r), "detail": r.detail, "remedy": r.remedy,
        })
    };
    let backend = |b: &v1::Backend| {
        serde_json::json!({
            "name": b.name, "version": b.version, "available": b.available, "reason": b.reason,
            "warnings": b.warnings, "rules": b.rules.iter().map(rule).collect::<Vec<_>>(),
        })
    };
    let image = |i: &v1::Image| {
        serde_json::json!({
            "name": i.name, "prepared": i.prepared, "recipe_digest": i.recipe_digest, "image_id": i.image_id,
            "size_bytes": i.size_bytes,
        })
    };
    let machine = info.machine.clone().unwrap_or_default();
    serde_json::json!({
        "id": info.worker_id,
        "version": info.version,
        "cpus": machine.cpus,
        "memory_bytes": machine.memory_bytes,
        "disk_free_bytes": machine.disk_free_bytes,
        "gpus": machine.gpus.iter().map(|g| &g.name).collect::<Vec<_>>(),
        "slots": info.slots.len(),
        "backends": info.backends.iter().map(backend).collect::<Vec<_>>(),
        "images": info.images.iter().map(image).collect::<Vec<_>>(),
    })
}

fn worker_text(out: &mut String, info: &v1::GetWorkerResponse) -> std::fmt::Result {
    let machine = info.machine.clone().unwrap_or_default();
    writeln!(
        out,
        "worker       local, version {}: {} CPUs, {} memory, {} disk free, {} slots",
        info.version,
        machine.cpus,
        Bytes(machine.memory_bytes.max(1)),
        Bytes(machine.disk_free_bytes.max(1)),
        info.slots.len()
    )?;
    let gpus: Vec<&str> = machine.gpus.iter().map(|gpu| gpu.name.as_str()).collect();
    writeln!(out, "GPUs         {}", if gpus.is_empty() { "none".to_owned() } else { gpus.join(", ") })?;
    for image in &info.images {
        let state = if image.prepared {
            format!("prepared, {}", Bytes(image.size_bytes.max(1)))
        } else {
            "built on first use".to_owned()
        };
        writeln!(out, "image        {}: {state}", image.name)?;
    }
    for backend in &info.backends {
        rules::in_full(out, backend)?;
    }
    Ok(())
}
