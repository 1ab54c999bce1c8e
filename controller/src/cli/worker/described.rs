//! What a worker says of itself, as text for people and as JSON: the same in `doctor`, `worker show` and `worker list`.

use std::fmt::Write as _;

use kit::size::Bytes;
use proto::v1;

use crate::fleet::rules;

/// Everything, for `doctor` and `show`.
pub fn json(info: &v1::GetWorkerResponse) -> serde_json::Value {
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

/// The slots, and how many of them are taken.
pub fn slots(info: &v1::GetWorkerResponse) -> (usize, usize) {
    let good = || info.slots.iter().filter(|slot| slot.quarantined.is_empty());
    (good().filter(|slot| !slot.busy).count(), good().filter(|slot| slot.busy).count())
}

/// "2 × NVIDIA A100, 16 CPUs, 64 GiB".
pub fn devices(info: &v1::GetWorkerResponse) -> String {
    let machine = info.machine.clone().unwrap_or_default();
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for gpu in &machine.gpus {
        match kinds.iter_mut().find(|(name, _)| *name == gpu.name) {
            Some((_, count)) => *count += 1,
            None => kinds.push((&gpu.name, 1)),
        }
    }
    let mut parts: Vec<String> = kinds
        .into_iter()
        .map(|(name, count)| if count > 1 { format!("{count} × {name}") } else { name.to_owned() })
        .collect();
    parts.push(format!("{} CPUs", machine.cpus));
    parts.push(Bytes(machine.memory_bytes.max(1)).to_string());
    kit::text::one_line(&parts.join(", "), 200)
}

/// Everything, for people. `how` says which worker: "local", "gpu (ssh://gpu)".
pub fn text(out: &mut String, how: &str, info: &v1::GetWorkerResponse) -> std::fmt::Result {
    let machine = info.machine.clone().unwrap_or_default();
    writeln!(
        out,
        "worker       {how}, version {}: {} CPUs, {} memory, {} disk free, {} slots",
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
