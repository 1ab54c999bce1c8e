//! Taking up what an earlier process left. Finished runs stay readable. Unfinished ones of this boot go on where they were: their
//! sandboxes are kept, everything else of this worker is swept, and each gets a driver again (`take_up`). What is gone for good
//! (another boot, a log of events that is damaged) ends as `lost`.
//!
//! Order: read every run's folder, sweep what no run names, and only then end or go on, so that no program of an earlier
//! process lives when its run is said to have ended, and no second sandbox is made beside a first one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use kit::{clock::wall_ns, folder::FolderError, task::CancellationToken};
use prost::Message as _;
use proto::v1::{Finished, LostCause, RunSpec, UsageTotals, event::Kind};
use tokio::sync::watch;

use super::{
    RunId,
    admission::{Enlisted, Entry},
    draft::{Draft, Stage},
    handle::{Published, RunHandle},
    harvest::is_busy,
    outcome::{self, Facts},
    past::Past,
    record::{self, Record},
    recorder::Recorder,
    registry::{Registry, RegistryOptions},
    seams::{BackendParts, Released, SlotLease},
    spec::{self, CheckedSpec, LimitRules, RunLimits},
    spool::{
        SpoolError, SpoolReader, SpoolWriter,
        read::{Recovered, recover, recover_last},
    },
    state::{Action, RunEvent, State, next},
    take_up::TakenUp,
    tombstones::Tombstones,
};
use crate::sandbox::SandboxId;

/// Opens the runs folder: reads it, sweeps sandboxes, and gives the registry over all of it, in which unfinished runs go on.
///
/// # Errors
/// Names the path. A single run that cannot be read is logged and stays where it is.
pub async fn open(options: RegistryOptions, running_s: u64) -> Result<Arc<Registry>, FolderError> {
    kit::folder::create_private(&options.runs_dir)?;
    let now = wall_ns(options.clock.wall());
    let (tombstones, runs_dir) = (options.tombstones.clone(), options.runs_dir.clone());
    let (tombstones, found) = blocking(move || {
        let tombstones = Tombstones::open(&tombstones, now)?;
        let found = read_all(&runs_dir, &tombstones)?;
        Ok((tombstones, found))
    })
    .await?;
    let goes_on = |found: &FoundRun| {
        let here = found.record.boot_id == options.boot_id;
        let known = options.backends.iter().any(|parts| parts.backend.name() == found.record.backend);
        found.is_unfinished() && here && known
    };
    let keep: BTreeSet<SandboxId> =
        found.iter().filter(|found| goes_on(found)).map(|found| found.record.sandbox_id).collect();
    let left = sweep(&options.backends, &keep).await;
    let (going_on, ended): (Vec<FoundRun>, Vec<FoundRun>) = found.into_iter().partition(goes_on);
    let (options, runs) = blocking(move || {
        let mut runs = BTreeMap::new();
        for found in ended {
            let run_id = found.record.run_id;
            set_aside(&found.record, &left, &options);
            match close(found, &options, running_s) {
                Ok(run) => {
                    runs.insert(run_id, Arc::new(run));
                }
                Err(error) => tracing::error!(run = %run_id, %error, "this run cannot be read"),
            }
        }
        Ok((options, runs))
    })
    .await?;
    let registry = Registry::new(options, tombstones, runs, running_s);
    for found in going_on {
        let (run_id, slot) = (found.record.run_id, found.record.slot);
        if let Err(error) = registry.go_on(found).await {
            // Its sandbox was kept, and nobody follows it: the next start tries again.
            tracing::error!(run = %run_id, %error, "this run cannot be gone on with");
            let why = format!("run {run_id} has it and cannot be gone on with: {error}");
            registry.options().slots.set_aside(slot, &why);
        }
    }
    Ok(registry)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FolderError> + Send + 'static,
) -> Result<T, FolderError> {
    let stopped = || FolderError::io("read", Path::new("runs"), std::io::Error::other("it was stopped"));
    kit::task::blocking("recover runs", work).await.ok_or_else(stopped)?
}

/// Removes what no run names; gives sandboxes of which something may still run all the same.
async fn sweep(backends: &[BackendParts], keep: &BTreeSet<SandboxId>) -> BTreeSet<SandboxId> {
    let mut left = BTreeSet::new();
    for BackendParts { backend, .. } in backends {
        match backend.sweep(keep).await {
            Ok(removed) => {
                for what in removed {
                    tracing::info!(what, "removed what an earlier process left");
                }
            }
            Err(error) => tracing::error!(%error, "what an earlier process left could not be removed"),
        }
        left.extend(backend.left().await);
    }
    left.difference(keep).copied().collect()
}

#[derive(Debug, thiserror::Error)]
enum TakeUpError {
    #[error(transparent)]
    Record(#[from] record::RecordError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("it was stopped")]
    Stopped,
}

/// A run's folder as it is on disk.
#[derive(Debug)]
struct FoundRun {
    folder: PathBuf,
    record: Record,
    recovered: Recovered,
    /// What is wrong with the events, where they cannot be read.
    damage: Option<String>,
}

impl FoundRun {
    fn is_unfinished(&self) -> bool {
        self.damage.is_none() && self.recovered.finished.is_none()
    }
}

fn read_all(folder: &Path, tombstones: &Tombstones) -> Result<Vec<FoundRun>, FolderError> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| FolderError::io("read", folder, e))? {
        let entry = entry.map_err(|e| FolderError::io("read", folder, e))?;
        let path = entry.path();
        let Ok(run_id) = entry.file_name().to_string_lossy().parse::<RunId>() else {
            tracing::warn!(path = %path.display(), "is no run's folder");
            continue;
        };
        // A kill between the tombstone and the removal.
        let found = if tombstones.get(run_id).is_some() { Ok(None) } else { read(&path, run_id) };
        match found {
            Ok(Some(found)) => all.push(found),
            Ok(None) => std::fs::remove_dir_all(&path).map_err(|e| FolderError::io("remove", &path, e))?,
            Err(error) => tracing::error!(run = %run_id, %error, "this run cannot be read"),
        }
    }
    Ok(all)
}

/// Where a run's sandbox could not be removed, what it holds is not given to another run.
fn set_aside(record: &Record, left: &BTreeSet<SandboxId>, options: &RegistryOptions) {
    if left.contains(&record.sandbox_id) {
        let why = format!("the sandbox {} of an earlier process could not be removed", record.sandbox_id);
        options.slots.set_aside(record.slot, &why);
    }
}

/// One folder; `None` where its `StartRun` was never answered.
fn read(folder: &Path, run_id: RunId) -> Result<Option<FoundRun>, TakeUpError> {
    if !folder.join("record.json").exists() {
        return Ok(None);
    }
    let record = Record::load(folder)?;
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
    Ok(Some(FoundRun { folder: folder.to_owned(), record, recovered, damage }))
}

/// A run that does not go on: it had ended, or it ends here.
fn close(found: FoundRun, options: &RegistryOptions, running_s: u64) -> Result<RunHandle, TakeUpError> {
    let FoundRun { folder, mut record, recovered, damage } = found;
    let run_id = record.run_id;
    let (finished, last_sequence) = match (recovered.finished.clone(), &damage) {
        (Some(finished), _) => (finished, recovered.last_sequence),
        (None, Some(detail)) => {
            tracing::error!(run = %run_id, detail, "the run's events are damaged");
            let outcome =
                outcome::lost(LostCause::Spool, "the run's events on the worker's disk are damaged");
            (last_event(&record, outcome, &recovered), 0)
        }
        (None, None) => end(&folder, &record, &recovered, options)?,
    };
    if !record.finished && damage.is_none() {
        record.finished = true;
        // Retention counts from here: a later moment than the true one keeps it longer.
        record.finished_at_running_s = running_s;
        record.save(&folder)?;
        Draft::remove(&folder);
    }
    let labels = record::load_spec(&folder, record.spec_digest)
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
    Ok(RunHandle {
        id: run_id,
        controller_id: record.controller_id,
        spec_digest: record.spec_digest,
        labels,
        folder,
        accepted_wall_ns: record.accepted_wall_ns,
        slot: record.slot,
        published: published.subscribe(),
        synced: watch::Sender::new(last_sequence).subscribe(),
        cancel: CancellationToken::new(),
        finished_at_running_s: AtomicU64::new(record.finished_at_running_s),
    })
}

impl Registry {
    /// Takes slot, disk and holds again, and gives the run to a driver. What it lacks for going on is said to the driver, which
    /// ends the run and clears its sandbox away.
    async fn go_on(self: &Arc<Self>, found: FoundRun) -> Result<(), TakeUpError> {
        let FoundRun { folder, record, recovered, .. } = found;
        let (spec, mut lost) = match load_spec(&folder, &record) {
            Ok(spec) => (spec, None),
            Err(detail) => (CheckedSpec::default(), Some((LostCause::Spool, detail))),
        };
        let opened = record.gate_monotonic.is_some();
        let lease = match self.take_again(&record) {
            Ok(lease) => lease,
            Err((lease, detail)) => {
                lost.get_or_insert((LostCause::Device, detail));
                lease
            }
        };
        let data_sets = match self.lend(&spec).await {
            Ok(lent) => lent,
            // It has been mounted since before the gate: what was removed meanwhile is still there for this run.
            Err(error) if opened => {
                tracing::warn!(run = %record.run_id, %error, "a data set of the run is not held");
                Vec::new()
            }
            Err(error) => {
                lost.get_or_insert((LostCause::Sandbox, format!("its data sets are not to be had: {error}")));
                Vec::new()
            }
        };
        let (files, missing) = if opened { Default::default() } else { self.find_files(&spec) };
        if !missing.is_empty() {
            let detail = format!("{} of its input files are no longer on the worker", missing.len());
            lost.get_or_insert((LostCause::Sandbox, detail));
        }
        let packages = &self.options().packages;
        let held_packages = opened.then(|| packages.hold(&record.image_id, &spec.packages)).flatten();
        let installed = if opened { 0 } else { packages.reservation(&record.image_id, &spec.packages) };
        let reservation = self.ledger.hold(record.limits.disk_reservation().saturating_add(installed));
        let backends = self.options().backends.iter();
        let backend = backends.clone().find(|parts| parts.backend.name() == record.backend).cloned();
        let backend = backend.ok_or(TakeUpError::Stopped)?;
        let (clock, of, limits) = (Arc::clone(&self.options().clock), spec.clone(), record.limits.clone());
        let (run_id, gate) = (record.run_id, record.gate_monotonic);
        let work = move || -> Result<_, TakeUpError> {
            let spool = SpoolWriter::resume(&folder, run_id, &recovered)?;
            let mut recorder = Recorder::new(spool, clock, &of, limits);
            if let Some(gate) = gate {
                recorder.set_gate(gate);
            }
            let past = replay(&folder, run_id, &recovered, &mut recorder)?;
            Ok((recorder, past, Draft::load(&folder)))
        };
        let replayed = kit::task::blocking("replay events", work).await;
        let (recorder, past, draft) = replayed.ok_or(TakeUpError::Stopped)??;
        let reservation = Some(reservation);
        let enlisted =
            Enlisted { record, spec, recorder, lease, reservation, backend, data_sets, files, held_packages };
        self.enlist(enlisted, Entry::TakenUp(Box::new(TakenUp { past, draft, lost })));
        Ok(())
    }

    /// The run's own slot, which must be what it was; with the error comes what the sandbox was told of it.
    fn take_again(&self, record: &Record) -> Result<SlotLease, (SlotLease, String)> {
        let taken = self.options().slots.take_index(record.run_id, record.slot);
        let wanted = record.grant.clone();
        match (taken, wanted) {
            (Some(lease), None) => Ok(lease),
            (Some(lease), Some(grant)) if lease.grant == grant => Ok(lease),
            (taken, wanted) => {
                let detail = format!(
                    "slot {} is not what it was when the run began: the worker was started with other slots or devices",
                    record.slot
                );
                let (cpu_millis, memory_bytes) = (record.limits.cpu_millis, record.limits.memory_bytes);
                // What is there of the slot is nobody else's until the sandbox is gone.
                let lease = taken.unwrap_or_else(|| SlotLease {
                    grant: crate::sandbox::SlotGrant {
                        index: record.slot,
                        uid: 0,
                        cpuset: None,
                        gpu_uuids: Vec::new(),
                    },
                    cpu_millis,
                    memory_bytes,
                    guard: Box::new(Released),
                });
                let grant = wanted.unwrap_or_else(|| lease.grant.clone());
                Err((SlotLease { grant, ..lease }, detail))
            }
        }
    }
}

/// As it was accepted. The worker's largest limits may have changed since; those of the run are in its record.
fn load_spec(folder: &Path, record: &Record) -> Result<CheckedSpec, String> {
    let bytes = record::load_spec(folder, record.spec_digest).map_err(|e| e.to_string())?;
    let decoded = RunSpec::decode(bytes.as_slice()).map_err(|e| e.to_string())?;
    let rules = LimitRules { default: RunLimits::default(), largest: RunLimits::unbounded() };
    spec::check(decoded, &rules).map_err(|e| e.to_string())
}

/// Has the recorder take in every event again, so that it goes on as if it had never stopped.
fn replay(
    folder: &Path,
    run_id: RunId,
    recovered: &Recovered,
    recorder: &mut Recorder,
) -> Result<Past, SpoolError> {
    let mut past = Past::default();
    let mut reader = SpoolReader::open(folder, run_id, 0, recovered.last_sequence)?;
    while let Some(event) = reader.next(recovered.last_sequence)? {
        past.take(&event, is_busy);
        recorder.replay(event);
    }
    Ok(past)
}

/// Ends an unfinished run through the machine: abandoned, nothing left of it, the last event.
fn end(
    folder: &Path,
    record: &Record,
    recovered: &Recovered,
    options: &RegistryOptions,
) -> Result<(Finished, u64), TakeUpError> {
    let (cause, detail) = if record.boot_id == options.boot_id {
        (LostCause::Engine, "the worker has no such backend any more")
    } else {
        (LostCause::Reboot, "the machine was started anew while the run was under way")
    };
    // All of it was there before, and only its last event was not.
    let whole = Draft::load(folder).filter(|draft| draft.stage == Stage::Collected);
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
        let known = whole.as_ref().map(|draft| draft.finished.clone());
        finished = known.unwrap_or_else(|| last_event(record, outcome, recovered));
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
