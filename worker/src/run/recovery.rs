//! Taking up what an earlier process left: finished runs stay readable, unfinished ones end as `lost`, everything of
//! their sandboxes is swept.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use kit::{clock::wall_ns, folder::FolderError, task::CancellationToken};
use prost::Message as _;
use proto::v1::{Finished, LostCause, RunSpec, UsageTotals, event::Kind};
use tokio::sync::watch;

use super::{
    RunId,
    handle::{Published, RunHandle},
    outcome::{self, Facts},
    record::{self, Record},
    registry::{Registry, RegistryOptions},
    seams::BackendParts,
    spool::{
        SpoolError, SpoolWriter,
        read::{Recovered, recover, recover_last},
    },
    state::{Action, RunEvent, State, next},
    tombstones::Tombstones,
};
use crate::sandbox::SandboxId;

/// Opens the runs folder: sweeps sandboxes, ends what was unfinished, and gives the registry over all of it.
///
/// # Errors
/// Names the path. A single run that cannot be read is logged and stays where it is.
pub async fn open(options: RegistryOptions, running_s: u64) -> Result<Arc<Registry>, FolderError> {
    kit::folder::create_private(&options.runs_dir)?;
    // First, so that no program of an earlier process lives when its run is said to have ended.
    let mut left = BTreeSet::new();
    for BackendParts { backend, .. } in &options.backends {
        match backend.sweep(&BTreeSet::new()).await {
            Ok(removed) => {
                for what in removed {
                    tracing::info!(what, "removed what an earlier process left");
                }
            }
            Err(error) => tracing::error!(%error, "what an earlier process left could not be removed"),
        }
        left.extend(backend.left().await);
    }
    let work = move || -> Result<Arc<Registry>, FolderError> {
        let now = wall_ns(options.clock.wall());
        let tombstones = Tombstones::open(&options.tombstones, now)?;
        let mut runs = BTreeMap::new();
        let folder = &options.runs_dir;
        for entry in std::fs::read_dir(folder).map_err(|e| FolderError::io("read", folder, e))? {
            let entry = entry.map_err(|e| FolderError::io("read", folder, e))?;
            let path = entry.path();
            let Ok(run_id) = entry.file_name().to_string_lossy().parse::<RunId>() else {
                tracing::warn!(path = %path.display(), "is no run's folder");
                continue;
            };
            // A kill between the tombstone and the removal.
            if tombstones.get(run_id).is_some() {
                std::fs::remove_dir_all(&path).map_err(|e| FolderError::io("remove", &path, e))?;
                continue;
            }
            set_aside(&path, &left, &options);
            match take_up(&path, run_id, &options) {
                Ok(Some(run)) => {
                    runs.insert(run_id, Arc::new(run));
                }
                Ok(None) => {
                    std::fs::remove_dir_all(&path).map_err(|e| FolderError::io("remove", &path, e))?
                }
                Err(error) => tracing::error!(run = %run_id, %error, "this run cannot be read"),
            }
        }
        Ok(Registry::new(options, tombstones, runs, running_s))
    };
    let stopped = || FolderError::io("read", Path::new("runs"), std::io::Error::other("it was stopped"));
    kit::task::blocking("recover runs", work).await.ok_or_else(stopped)?
}

#[derive(Debug, thiserror::Error)]
enum TakeUpError {
    #[error(transparent)]
    Record(#[from] record::RecordError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// Where a run's sandbox could not be removed, what it holds is not given to another run.
fn set_aside(folder: &Path, left: &BTreeSet<SandboxId>, options: &RegistryOptions) {
    let record = if left.is_empty() { None } else { Record::load(folder).ok() };
    if let Some(record) = record.filter(|record| left.contains(&record.sandbox_id)) {
        let why = format!("the sandbox {} of an earlier process could not be removed", record.sandbox_id);
        options.slots.set_aside(record.slot, &why);
    }
}

/// One folder; `None` where its `StartRun` was never answered.
fn take_up(
    folder: &Path,
    run_id: RunId,
    options: &RegistryOptions,
) -> Result<Option<RunHandle>, TakeUpError> {
    if !folder.join("record.json").exists() {
        return Ok(None);
    }
    let mut record = Record::load(folder)?;
    let recovered = if record.finished { recover_last(folder, run_id) } else { recover(folder, run_id) };
    let (recovered, damage) = match recovered {
        Ok(recovered) => (recovered, None),
        Err(error @ SpoolError::Damaged { .. }) => (Recovered::default(), Some(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    // A run whose first event was never synced was never answered.
    if damage.is_none() && recovered.last_sequence == 0 && record.gate_monotonic.is_none() {
        return Ok(None);
    }
    if recovered.cut_bytes > 0 {
        tracing::warn!(run = %run_id, bytes = recovered.cut_bytes, "cut a torn end off the events");
    }
    let (finished, last_sequence) = match (recovered.finished.clone(), &damage) {
        (Some(finished), _) => (finished, recovered.last_sequence),
        (None, Some(detail)) => {
            tracing::error!(run = %run_id, detail, "the run's events are damaged");
            let outcome =
                outcome::lost(LostCause::Spool, "the run's events on the worker's disk are damaged");
            (last_event(&record, outcome, &recovered), 0)
        }
        (None, None) => end(folder, &record, &recovered, options)?,
    };
    if !record.finished && damage.is_none() {
        record.finished = true;
        record.save(folder)?;
    }
    let labels = record::load_spec(folder, record.spec_digest)
        .ok()
        .and_then(|bytes| RunSpec::decode(bytes.as_slice()).ok())
        .map(|spec| spec.labels)
        .unwrap_or_default();
    let wall = finished.usage.as_ref().map(|usage| usage.wall_ms).unwrap_or_default();
    let published = watch::Sender::new(Published {
        state: State::Finished,
        gate: record.gate_monotonic,
        elapsed: Some(Duration::from_millis(wall)),
        finished: Some(finished),
        spool_damaged: damage.is_some(),
    });
    Ok(Some(RunHandle {
        id: run_id,
        controller_id: record.controller_id,
        spec_digest: record.spec_digest,
        labels,
        folder: folder.to_owned(),
        accepted_wall_ns: record.accepted_wall_ns,
        slot: record.slot,
        published: published.subscribe(),
        synced: watch::Sender::new(last_sequence).subscribe(),
        cancel: CancellationToken::new(),
        finished_at_running_s: AtomicU64::new(record.finished_at_running_s),
    }))
}

/// Ends an unfinished run through the machine: abandoned, nothing left of it, the last event.
fn end(
    folder: &Path,
    record: &Record,
    recovered: &Recovered,
    options: &RegistryOptions,
) -> Result<(Finished, u64), TakeUpError> {
    let (cause, detail) = if record.boot_id == options.boot_id {
        (LostCause::WorkerCrash, "the worker ended while the run was under way")
    } else {
        (LostCause::Reboot, "the machine was started anew while the run was under way")
    };
    let mut state = if record.gate_monotonic.is_some() { State::Running } else { State::Accepted };
    let mut writer = SpoolWriter::resume(folder, record.run_id, recovered)?;
    let mut finished = Finished::default();
    // The sweep has removed the sandbox, so each removal is done before it is ordered.
    for event in [RunEvent::Abandoned, RunEvent::Removed] {
        let Ok((to, actions)) = next(state, event) else { continue };
        state = to;
        if !actions.contains(&Action::Finish) {
            continue;
        }
        let facts = Facts {
            reason: record.reason.clone(),
            abandoned: Some((cause, detail.to_owned())),
            gate_opened: record.gate_monotonic.is_some(),
            ..Facts::default()
        };
        let outcome = outcome::classify(&facts, &record.limits);
        finished = last_event(record, outcome, recovered);
        finished.last_sequence = writer.last_sequence() + 1;
        let wall = wall_ns(options.clock.wall());
        writer.append(wall, recovered.elapsed_ns, Kind::Finished(finished.clone()))?;
        writer.sync()?;
    }
    tracing::warn!(run = %record.run_id, detail, "ended a run of an earlier process");
    Ok((finished, writer.last_sequence()))
}

fn last_event(record: &Record, outcome: proto::v1::Outcome, recovered: &Recovered) -> Finished {
    let gate = record.gate_monotonic;
    let prepare = gate.map(|gate| gate.saturating_sub(record.accepted_monotonic)).unwrap_or_default();
    Finished {
        outcome: Some(outcome),
        usage: Some(UsageTotals {
            wall_ms: recovered.elapsed_ns / 1_000_000,
            stdout_bytes: recovered.stream_ends[0],
            stderr_bytes: recovered.stream_ends[1],
            complete: false,
            prepare_ms: u64::try_from(prepare.as_millis()).unwrap_or(u64::MAX),
            ..UsageTotals::default()
        }),
        last_sequence: recovered.last_sequence,
        limits: Some(record.limits.wire()),
        image_id: record.image_id.clone(),
        backend: record.backend.clone(),
        slot: record.slot,
        packages: record.wire_packages(),
        ..Finished::default()
    }
}
