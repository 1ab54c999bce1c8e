//! The real backends, images, slots and GPUs behind the seams of `run`. This is the one file that knows them.

use std::{path::Path, sync::Arc};

use proto::v1::Machine;

use crate::{
    config::WorkerConfig,
    run::seams::{GpuMeter, ImageSource, SlotSource},
    sandbox::Backend,
};

/// What a worker is made of.
#[derive(Debug)]
pub struct Rooms {
    /// The first one is the default.
    pub backends: Vec<Arc<dyn Backend>>,
    /// Why there is no engine, where there is none.
    pub no_engine: Option<String>,
    /// By name.
    pub images: Arc<dyn ImageSource>,
    /// Of this machine.
    pub slots: Arc<dyn SlotSource>,
    /// Readings.
    pub gpus: Arc<dyn GpuMeter>,
    /// With its GPUs.
    pub machine: Machine,
}

/// Connects what can be connected; what cannot says why.
pub async fn connect(_config: &WorkerConfig, _data_dir: &Path, _worker_id: &str) -> Rooms {
    todo!()
}
