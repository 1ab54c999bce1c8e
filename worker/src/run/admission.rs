//! Admission of a run, one at a time, in this order: who has the id already (same bytes: the same run; others:
//! refused), who had it (a tombstone), then what the run needs (image, blobs, slot, disk), then the intent on disk, then
//! the driver. Where it ends with an error, nothing of a run is left.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use kit::{clock::wall_ns, digest::Digest, folder::FolderError, task::CancellationToken};
use prost::Message as _;
use proto::v1::{RunSpec, RunState, StateChange, event::Kind};
use tokio::sync::{mpsc, watch};
use tracing::Instrument as _;

use super::{
    RunId,
    driver::{Driver, DriverParts},
    handle::{Published, RunHandle},
    ledger::{Reservation, disk_free},
    record::{self, Record},
    recorder::{self, Progress, Recorder},
    registry::{RUNS_MAX, Registry, StartError, lock},
    seams::{BackendParts, SlotLease},
    spec::{self, CheckedSpec, LimitRules, RunLimits, SpecError, Violation},
    spool::SpoolWriter,
    state::State,
    take_up::TakenUp,
};
use crate::{datasets::Lent, packages::HeldLayer, sandbox::SandboxId, telemetry::METRICS};

/// A spec's bytes at most.
const SPEC_BYTES_MAX: usize = 1 << 20;

/// A run that is to have a driver: its intent is on disk.
pub(super) struct Enlisted {
    pub record: Record,
    pub spec: CheckedSpec,
    pub recorder: Recorder,
    pub lease: SlotLease,
    pub reservation: Option<Reservation>,
    pub backend: BackendParts,
    pub data_sets: Vec<Lent>,
    pub files: Vec<(String, PathBuf)>,
    pub held_packages: Option<HeldLayer>,
}

/// Where its driver begins.
pub(super) enum Entry {
    /// At the beginning.
    New,
    /// Where an earlier process was killed.
    TakenUp(Box<TakenUp>),
}

impl Registry {
    /// Starts a run, or answers the one that has this id and these bytes.
    ///
    /// # Errors
    /// [`StartError`]: no run was made, and nothing of one is left.
    pub async fn start(
        self: &Arc<Self>,
        run_id: RunId,
        controller_id: &str,
        spec_bytes: &[u8],
    ) -> Result<Arc<RunHandle>, StartError> {
        let spec_digest = Digest::of(spec_bytes);
        let _one_at_a_time = self.admission.lock().await;
        if let Some(run) = lock(&self.runs).get(&run_id) {
            let same = run.controller_id == controller_id && run.spec_digest == spec_digest;
            return if same { Ok(Arc::clone(run)) } else { Err(StartError::Exists(run_id)) };
        }
        if lock(&self.tombstones).get(run_id).is_some() {
            return Err(StartError::Forgotten(run_id));
        }
        if self.is_draining() {
            return Err(StartError::Draining);
        }
        let spec = decode_spec(spec_bytes, &self.options.rules)?;
        self.check_possible(&spec)?;
        let BackendParts { backend, images, packages } = self.backend(&spec.backend)?;
        let image = images.find(&spec.image).await?;
        if !image.prepared {
            return Err(StartError::ImageNotPrepared(spec.image));
        }
        let data_sets = self.lend(&spec).await?;
        let (files, missing) = self.find_files(&spec);
        if !missing.is_empty() {
            return Err(StartError::MissingBlobs(missing));
        }
        if lock(&self.runs).len() >= RUNS_MAX {
            return Err(StartError::TooMany);
        }
        let lease = self.options.slots.take(run_id, spec.gpus).ok_or(StartError::NoSlot)?;
        let limits = self.options.rules.resolve(&spec.limits, lease.memory_bytes, lease.cpu_millis);
        check_together(&limits)?;
        let installed = self.options.packages.reservation(&image.image_id, &spec.packages);
        let wanted = limits.disk_reservation().saturating_add(installed);
        let free = disk_free(&self.options.runs_dir)?;
        let reservation = self.ledger.reserve(wanted, free).ok_or_else(|| StartError::NoDisk {
            wanted: kit::size::Bytes(wanted),
            free: kit::size::Bytes(free.saturating_sub(self.ledger.reserved())),
        })?;
        let record = Record {
            version: Record::version(),
            run_id,
            controller_id: controller_id.to_owned(),
            spec_digest,
            accepted_wall_ns: wall_ns(self.options.clock.wall()),
            boot_id: self.options.boot_id.clone(),
            accepted_monotonic: self.options.clock.monotonic(),
            sandbox_id: SandboxId::new(),
            backend: backend.name().to_owned(),
            image_id: image.image_id,
            slot: lease.grant.index,
            grant: Some(lease.grant.clone()),
            limits: limits.clone(),
            made_again: 0,
            packages: Vec::new(),
            gate_monotonic: None,
            reason: None,
            lost: None,
            finished: false,
            finished_at_running_s: 0,
        };
        let folder = self.options.runs_dir.join(run_id.to_string());
        let spool = {
            let (record, bytes) = (record.clone(), spec_bytes.to_vec());
            kit::task::blocking("accept run", move || accept(&folder, &record, &bytes))
                .await
                .ok_or(StartError::Stopping)??
        };
        let recorder = Recorder::new(spool, Arc::clone(&self.options.clock), &spec, limits);
        let backend = BackendParts { backend, images, packages };
        let reservation = Some(reservation);
        let enlisted = Enlisted {
            record,
            spec,
            recorder,
            lease,
            reservation,
            backend,
            data_sets,
            files,
            held_packages: None,
        };
        Ok(self.enlist(enlisted, Entry::New))
    }

    /// Gives a run to a driver of its own, and shows it to everyone.
    pub(super) fn enlist(self: &Arc<Self>, run: Enlisted, entry: Entry) -> Arc<RunHandle> {
        let Enlisted { record, spec, recorder, lease, reservation, backend, data_sets, files, held_packages } =
            run;
        let run_id = record.run_id;
        let folder = self.options.runs_dir.join(run_id.to_string());
        let state = match &entry {
            Entry::New => State::Accepted,
            Entry::TakenUp(from) => from.past.state.unwrap_or(State::Accepted),
        };
        let published = watch::Sender::new(Published {
            // The last event may be there and its state not published yet: a finished run is never enlisted.
            state,
            gate: record.gate_monotonic,
            elapsed: None,
            finished: None,
            spool_damaged: false,
        });
        let handle = Arc::new(RunHandle {
            id: run_id,
            controller_id: record.controller_id.clone(),
            spec_digest: record.spec_digest,
            labels: spec.labels.clone(),
            folder: folder.clone(),
            accepted_wall_ns: record.accepted_wall_ns,
            slot: record.slot,
            published: published.subscribe(),
            synced: recorder.synced(),
            cancel: CancellationToken::new(),
            finished_at_running_s: AtomicU64::new(0),
        });
        if record::is_cancelled(&folder) {
            handle.cancel.cancel();
        }
        let (orders, inbox) = mpsc::channel(recorder::INBOX);
        let progress = watch::Sender::new(Progress::default());
        let parts = DriverParts {
            folder,
            run_json: run_json(&spec, &record.limits, &data_sets),
            layers: data_sets.iter().map(|lent| lent.layer.clone()).collect(),
            held_data_sets: data_sets.into_iter().map(|lent| lent.held).collect(),
            held_packages,
            files,
            lease,
            reservation,
            backend: backend.backend,
            slots: Arc::clone(&self.options.slots),
            gpus: Arc::clone(&self.options.gpus),
            clock: Arc::clone(&self.options.clock),
            recorder: orders,
            progress: progress.subscribe(),
            published,
            packages: self.options.packages.clone(),
            package_tool: backend.packages,
            cancel: handle.cancel.clone(),
            running_s: Arc::clone(&self.running_s),
            record,
            spec,
        };
        kit::task::spawn("recorder", recorder::run(recorder, inbox, progress));
        lock(&self.runs).insert(run_id, Arc::clone(&handle));
        self.unfinished.send_modify(|count| *count += 1);
        match entry {
            Entry::New => METRICS.runs_accepted.inc(),
            Entry::TakenUp(_) => METRICS.runs_adopted.inc(),
        };
        // Of the call's trace: made here, where the call is the current span, and not in the task.
        let span = tracing::info_span!("run", %run_id, sandbox_id = %parts.record.sandbox_id);
        let (registry, run) = (Arc::clone(self), Arc::clone(&handle));
        let driven = async move {
            let driver = Driver::new(parts);
            match entry {
                Entry::New => driver.run().await,
                Entry::TakenUp(from) => driver.take_up(*from).await,
            }
            run.finished_at_running_s.store(registry.running_s.load(Ordering::Relaxed), Ordering::Relaxed);
            registry.unfinished.send_modify(|count| *count = count.saturating_sub(1));
        };
        kit::task::spawn_tracked(&self.drivers, "run", driven.instrument(span));
        handle
    }

    /// By name; the empty name is the worker's choice.
    ///
    /// # Errors
    /// Where there is none.
    pub fn backend(&self, name: &str) -> Result<BackendParts, SpecError> {
        let mut backends = self.options.backends.iter();
        let found =
            if name.is_empty() { backends.next() } else { backends.find(|b| b.backend.name() == name) };
        found.cloned().ok_or_else(|| {
            let problem = match name {
                "" => "this worker has no backend: see `autoresearch-worker doctor`".to_owned(),
                name => format!("`{name}` does not work on this worker"),
            };
            SpecError(vec![Violation { field: "spec.backend".to_owned(), problem }])
        })
    }

    /// What no slot of this worker will ever be able to do is a wrong request.
    fn check_possible(&self, spec: &CheckedSpec) -> Result<(), SpecError> {
        let mut wrong = Vec::new();
        if !self.options.slots.could_ever(spec.gpus) {
            let most = self.options.slots.view().iter().map(|slot| slot.gpu_uuids.len()).max().unwrap_or(0);
            let problem = format!("is {}; a slot of this worker has at most {most} GPUs", spec.gpus);
            wrong.push(Violation { field: "spec.gpus".to_owned(), problem });
        }
        if wrong.is_empty() { Ok(()) } else { Err(SpecError(wrong)) }
    }

    /// The run's data sets, each once, in the order of the spec.
    pub(super) async fn lend(&self, spec: &CheckedSpec) -> Result<Vec<Lent>, StartError> {
        if spec.data_sets.is_empty() {
            return Ok(Vec::new());
        }
        let (store, names) = (self.options.data_sets.clone(), spec.data_sets.clone());
        let work = move || {
            let (mut lent, mut wrong) = (Vec::new(), Vec::new());
            for (index, name) in names.iter().enumerate() {
                let twice = names[..index].contains(name).then(|| "comes twice".to_owned());
                let problem = match (twice, store.lend(name)) {
                    (None, Ok(data_set)) => {
                        lent.push(data_set);
                        continue;
                    }
                    (Some(twice), _) => twice,
                    (None, Err(error)) => format!("this worker cannot lend it: {error}"),
                };
                wrong.push(Violation { field: format!("spec.data_sets[{index}]"), problem });
            }
            if wrong.is_empty() { Ok(lent) } else { Err(SpecError(wrong)) }
        };
        Ok(kit::task::blocking("lend data sets", work).await.ok_or(StartError::Stopping)??)
    }

    pub(super) fn find_files(&self, spec: &CheckedSpec) -> (Vec<(String, PathBuf)>, Vec<Digest>) {
        let (mut files, mut missing) = (Vec::new(), Vec::new());
        for input in &spec.inputs {
            match self.options.blobs.find(&input.digest) {
                Some(path) => files.push((input.path.clone(), path)),
                None => missing.push(input.digest),
            }
        }
        missing.sort_unstable();
        missing.dedup();
        (files, missing)
    }
}

fn decode_spec(bytes: &[u8], rules: &LimitRules) -> Result<CheckedSpec, SpecError> {
    let wrong = |problem: String| SpecError(vec![Violation { field: "spec".to_owned(), problem }]);
    if bytes.len() > SPEC_BYTES_MAX {
        return Err(wrong(format!("is {} bytes; at most {SPEC_BYTES_MAX}", bytes.len())));
    }
    let spec = RunSpec::decode(bytes).map_err(|error| wrong(format!("is no RunSpec: {error}")))?;
    spec::check(spec, rules)
}

/// What only the resolved limits show.
fn check_together(limits: &RunLimits) -> Result<(), SpecError> {
    if limits.shm_bytes > limits.memory_bytes {
        let problem =
            format!("is {}; it is counted in the memory of {}", limits.shm_bytes, limits.memory_bytes);
        return Err(SpecError(vec![Violation { field: "spec.limits.shm_bytes".to_owned(), problem }]));
    }
    Ok(())
}

/// The intent on disk: spec, record, first event. All of it synced, or nothing of it left.
fn accept(folder: &Path, record: &Record, spec: &[u8]) -> Result<SpoolWriter, StartError> {
    let work = || -> Result<SpoolWriter, StartError> {
        kit::folder::create_private(folder)?;
        record::save_spec(folder, spec)?;
        record.save(folder)?;
        let mut spool = SpoolWriter::create(folder, record.run_id)?;
        let change = StateChange { state: RunState::Accepted.into(), detail: String::new() };
        spool.append(record.accepted_wall_ns, 0, Kind::StateChange(change))?;
        spool.sync()?;
        kit::folder::sync_parent(folder).map_err(|e| FolderError::io("sync", folder, e))?;
        Ok(spool)
    };
    work().inspect_err(|_| {
        // The first error is the one to tell; a folder that stays is removed at the next start.
        std::fs::remove_dir_all(folder).ok();
    })
}

/// What the runner reads in `in/run.json`.
fn run_json(spec: &CheckedSpec, limits: &RunLimits, data_sets: &[Lent]) -> Vec<u8> {
    let program = spec.inputs.iter().find(|input| input.program).map(|input| input.path.as_str());
    let data = spec.inputs.iter().filter(|input| !input.program);
    let lent = data_sets.iter().map(|lent| (lent.name.clone(), lent.path.clone()));
    // A file that came with the run is found by its own name also where a data set has it.
    let datasets: serde_json::Map<String, serde_json::Value> = lent
        .chain(data.map(|input| (input.path.clone(), format!("/in/files/{}", input.path))))
        .map(|(name, path)| (name, path.into()))
        .collect();
    let streams: serde_json::Map<String, serde_json::Value> =
        spec.stream_seeds.iter().map(|(name, seed)| (name.clone(), (*seed).into())).collect();
    serde_json::json!({
        "program": program,
        "params": spec.params,
        "seed": spec.seed,
        "streams": streams,
        "datasets": datasets,
        "time_limit_ms": limits.time_ms,
        "cpus": f64::from(limits.cpu_millis) / 1000.0,
        "smoke": spec.smoke,
    })
    .to_string()
    .into_bytes()
}
