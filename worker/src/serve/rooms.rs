//! The real backends, images, slots and GPUs behind the seams of `run`. This is the one file that knows them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use kit::{clock::SystemClock, task::CancellationToken};
use proto::v1::{GpuUsage, Machine};

use super::{
    images::{NoImages, RealImages},
    late::LateDocker,
};
use crate::{
    config::{BackendName, WorkerConfig},
    device,
    image::{Images, NativeImages},
    packages::NativeTool,
    run::{
        RunId,
        seams::{BackendParts, GpuMeter, ImageSource, NoGpus, SlotGuard, SlotLease, SlotSource, SlotView},
    },
    sandbox::{
        SlotGrant,
        docker::{DockerBackend, DockerOptions},
        native::{NativeBackend, NativeOptions},
    },
};

/// What a worker is made of.
#[derive(Debug)]
pub struct Rooms {
    /// The first one is the default.
    pub backends: Vec<BackendParts>,
    /// Of this machine.
    pub slots: Arc<dyn SlotSource>,
    /// Why there are no slots, where there are none.
    pub no_slots: Option<String>,
    /// Readings.
    pub gpus: Arc<dyn GpuMeter>,
    /// With its GPUs.
    pub machine: Machine,
}

/// The folder of the native backend's sandboxes, in the state folder: each backend sweeps its own.
const NATIVE_SANDBOXES: &str = "sandboxes-native";

/// Connects what can be connected; what cannot says why.
pub async fn connect(
    config: &WorkerConfig,
    data_dir: &Path,
    worker_id: &str,
    stop: CancellationToken,
) -> Rooms {
    let found = kit::task::blocking("read devices", || {
        let gpus = device::Gpus::open();
        let inventory = device::Inventory::read(&gpus);
        (gpus, inventory)
    })
    .await;
    let mut machine = super::host::machine();
    let mut no_slots = None;
    let mut slots = device::Slots::new(Vec::new());
    let mut gpus: Arc<dyn GpuMeter> = Arc::new(NoGpus);
    match found {
        Some((meter, Ok(inventory))) => {
            machine.gpus = inventory.gpus.iter().map(gpu_wire).collect();
            match device::plan(&inventory, config.slots) {
                Ok(plan) => slots = device::Slots::new(plan),
                Err(error) => no_slots = Some(error.to_string()),
            }
            gpus = Arc::new(RealGpus(meter));
        }
        Some((_, Err(error))) => no_slots = Some(error.to_string()),
        None => no_slots = Some("reading the devices stopped".to_owned()),
    }
    if let Some(reason) = &no_slots {
        tracing::error!(reason, "there is no slot, so no run can be made");
    }
    let slots = Arc::new(RealSlots { slots, holders: Mutex::default() });
    let cache = kit::folder::cache().unwrap_or_else(|_| data_dir.join("cache"));
    let place = Place { config, data_dir, worker_id, cache, stop };
    Rooms { backends: place.backends().await, slots, no_slots, gpus, machine }
}

/// What every backend is made with.
struct Place<'a> {
    config: &'a WorkerConfig,
    data_dir: &'a Path,
    worker_id: &'a str,
    cache: PathBuf,
    stop: CancellationToken,
}

impl Place<'_> {
    /// Both, the default first: the configured one, else docker where an engine answers, else native. One that cannot be
    /// used is there too, and says why to whoever asks the worker.
    async fn backends(&self) -> Vec<BackendParts> {
        let (docker, native) = (self.docker().await, self.native());
        let native_first = match self.config.backend {
            Some(backend) => backend == BackendName::Native,
            None => match (
                docker.backend.describe().await.unavailable,
                native.backend.describe().await.unavailable,
            ) {
                (Some(reason), None) => {
                    tracing::warn!(reason, "the docker backend cannot be used; the native one is");
                    true
                }
                (Some(docker), Some(native)) => {
                    tracing::error!(docker, native, "no backend can be used, so no run can be made");
                    false
                }
                (None, _) => false,
            },
        };
        if native_first { vec![native, docker] } else { vec![docker, native] }
    }

    async fn docker(&self) -> BackendParts {
        let options = DockerOptions {
            worker_id: self.worker_id.to_owned(),
            sandboxes_dir: self.data_dir.join("sandboxes"),
            docker_host: self.config.docker.host.clone(),
            runtime: self.config.docker.runtime.clone(),
            clock: SystemClock::shared(),
        };
        let (cache, data_dir, stop) = (self.cache.clone(), self.data_dir.to_owned(), self.stop.clone());
        let build = move |backend: DockerBackend| {
            let store = Images::of_worker(backend.docker(), cache.clone(), &data_dir, stop.clone());
            let backend = Arc::new(backend);
            let images = Arc::new(RealImages(store));
            BackendParts { packages: Arc::clone(&backend) as _, backend, images }
        };
        match DockerBackend::connect(options.clone()).await {
            Ok(backend) => build(backend),
            Err(error) => {
                let late = Arc::new(LateDocker::new(options, error, Box::new(build)));
                BackendParts {
                    backend: Arc::clone(&late) as _,
                    images: Arc::clone(&late) as _,
                    packages: late,
                }
            }
        }
    }

    fn native(&self) -> BackendParts {
        let images = NativeImages::new(self.cache.clone(), self.stop.clone());
        let options = NativeOptions {
            worker_id: self.worker_id.to_owned(),
            sandboxes_dir: self.data_dir.join(NATIVE_SANDBOXES),
            rootfs_dir: images.rootfs_dir().to_owned(),
            clock: SystemClock::shared(),
        };
        let packages = Arc::new(NativeTool::new(images.clone()));
        let backend = Arc::new(NativeBackend::new(options));
        BackendParts { backend, images: Arc::new(RealImages(images)), packages }
    }
}

impl Rooms {
    /// Of the backend that is used where none is named.
    #[must_use]
    pub fn default_images(&self) -> Arc<dyn ImageSource> {
        let none = || Arc::new(NoImages("this worker has no backend".to_owned())) as Arc<dyn ImageSource>;
        self.backends.first().map_or_else(none, |parts| Arc::clone(&parts.images))
    }
}

fn gpu_wire(gpu: &device::Gpu) -> proto::v1::Gpu {
    proto::v1::Gpu {
        uuid: gpu.uuid.clone(),
        name: gpu.name.clone(),
        memory_bytes: gpu.memory_bytes,
        driver_version: gpu.driver_version.clone(),
        quarantined: String::new(),
    }
}

#[derive(Debug)]
struct RealSlots {
    slots: device::Slots,
    holders: Mutex<BTreeMap<u32, RunId>>,
}

#[derive(Debug)]
struct RealGuard {
    _guard: device::SlotGuard,
}

impl SlotGuard for RealGuard {}

impl SlotSource for RealSlots {
    fn view(&self) -> Vec<SlotView> {
        let holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let states = self.slots.states().into_iter();
        states
            .map(|state| SlotView {
                holder: if state.busy { holders.get(&state.info.index).copied() } else { None },
                index: state.info.index,
                gpu_uuids: state.info.gpu_uuids,
                cpu_millis: state.info.cpu_millis,
                memory_bytes: state.info.memory_bytes,
                quarantined: state.quarantined.unwrap_or_default(),
            })
            .collect()
    }

    fn take(&self, run_id: RunId, gpus: u32) -> Option<SlotLease> {
        Some(self.lease(run_id, self.slots.take(device::SlotRequest { gpus })?))
    }

    fn take_index(&self, run_id: RunId, index: u32) -> Option<SlotLease> {
        Some(self.lease(run_id, self.slots.take_index(index)?))
    }

    fn set_aside(&self, index: u32, why: &str) {
        self.slots.quarantine(index, why);
    }
}

impl RealSlots {
    fn lease(&self, run_id: RunId, guard: device::SlotGuard) -> SlotLease {
        let info = guard.info().clone();
        self.holders.lock().unwrap_or_else(PoisonError::into_inner).insert(info.index, run_id);
        let cpus = info.cpus.to_string();
        SlotLease {
            grant: SlotGrant {
                index: info.index,
                uid: info.uid,
                cpuset: (!cpus.is_empty()).then_some(cpus),
                gpu_uuids: info.gpu_uuids,
            },
            cpu_millis: info.cpu_millis,
            memory_bytes: info.memory_bytes,
            guard: Box::new(RealGuard { _guard: guard }),
        }
    }
}

#[derive(Debug)]
struct RealGpus(device::Gpus);

impl GpuMeter for RealGpus {
    fn read(&self, uuids: &[String]) -> Vec<GpuUsage> {
        let usage = |sample: device::GpuSample| GpuUsage {
            uuid: sample.uuid,
            utilisation_percent: sample.utilisation_percent.unwrap_or(0),
            memory_bytes: sample.memory_bytes,
        };
        self.0.sample(uuids).into_iter().map(usage).collect()
    }
}
