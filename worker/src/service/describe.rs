//! `GetWorker`: who this worker is and what it can do.

use kit::clock::wall_ns;
use proto::v1::{Backend, DataSet, Enforcement, GetWorkerResponse, Gpu, Image, Machine, Rule, Slot};

use super::Identity;
use crate::{
    datasets::Manifest,
    run::{ledger::disk_free, registry::Registry, seams::SlotView},
    sandbox::{self, BackendInfo},
};

/// A backend as the protocol says it.
#[must_use]
pub fn backend(info: BackendInfo) -> Backend {
    let rule = |rule: sandbox::Rule| Rule {
        name: rule.name.to_owned(),
        enforcement: match rule.enforcement {
            sandbox::Enforcement::Enforced => Enforcement::Enforced,
            sandbox::Enforcement::Weaker => Enforcement::Weaker,
            sandbox::Enforcement::NotEnforced => Enforcement::NotEnforced,
        }
        .into(),
        detail: rule.detail,
        remedy: rule.remedy,
    };
    Backend {
        name: info.name,
        version: info.version,
        available: info.unavailable.is_none(),
        reason: info.unavailable.unwrap_or_default(),
        rules: info.rules.into_iter().map(rule).collect(),
        warnings: info.warnings,
    }
}

/// Why a GPU is set aside: its slot is. Empty where neither is. An instance of a divided GPU has a UUID of its own.
fn set_aside(uuid: &str, slots: &[SlotView]) -> String {
    let mut aside = slots.iter().filter(|slot| !slot.quarantined.is_empty());
    let slot = aside.find(|slot| slot.gpu_uuids.iter().any(|own| own == uuid));
    slot.map(|slot| slot.quarantined.clone()).unwrap_or_default()
}

/// As they are now: `dataset add` beside a worker is seen by the next call.
async fn data_sets(registry: &Registry) -> Vec<DataSet> {
    let store = registry.options().data_sets.clone();
    match kit::task::blocking("list data sets", move || store.list()).await {
        Some(Ok(all)) => all.iter().map(Manifest::wire).collect(),
        Some(Err(error)) => {
            tracing::error!(%error, "the data sets cannot be listed");
            Vec::new()
        }
        None => Vec::new(),
    }
}

/// The answer to `GetWorker`.
pub async fn worker(registry: &Registry, identity: &Identity, machine: &Machine) -> GetWorkerResponse {
    let options = registry.options();
    let (mut backends, mut images) = (Vec::new(), Vec::new());
    for each in &options.backends {
        backends.push(backend(each.backend.describe().await));
        let own = each.images.list().await.into_iter();
        images.extend(own.map(|image| Image { backend: each.backend.name().to_owned(), ..image }));
    }
    let view = options.slots.view();
    let gpus =
        machine.gpus.iter().cloned().map(|gpu| Gpu { quarantined: set_aside(&gpu.uuid, &view), ..gpu });
    let machine = Machine {
        disk_free_bytes: disk_free(&options.runs_dir).unwrap_or_default(),
        gpus: gpus.collect(),
        ..machine.clone()
    };
    let slots = view.into_iter().map(|slot| Slot {
        index: slot.index,
        busy: slot.holder.is_some(),
        // Whose it is nobody is told: the call does not say who asks.
        run_id: String::new(),
        gpu_uuids: slot.gpu_uuids,
        cpu_millis: slot.cpu_millis,
        memory_bytes: slot.memory_bytes,
        quarantined: slot.quarantined,
    });
    GetWorkerResponse {
        worker_id: identity.worker_id.clone(),
        boot_id: identity.boot_id.clone(),
        process_id: identity.process_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol_min: proto::PROTOCOL_VERSION,
        protocol_max: proto::PROTOCOL_VERSION,
        machine: Some(machine),
        slots: slots.collect(),
        images,
        data_sets: data_sets(registry).await,
        default_limits: Some(options.rules.default.wire()),
        largest_limits: Some(options.rules.largest.wire()),
        backends,
        draining: registry.is_draining(),
        wall_time_ns: wall_ns(options.clock.wall()),
    }
}
