//! What runs need from other rooms, as narrow traits, so that a run can be tested with none of them there.

use std::sync::Arc;

use async_trait::async_trait;
use proto::v1::{GpuUsage, Image, ImageStep};
use tokio::sync::mpsc;

use super::RunId;
use crate::{
    packages::PackageTool,
    sandbox::{Backend, SlotGrant},
};

/// Why an image cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    /// Not on the allow-list.
    #[error("no image is called `{name}`; there are: {known}")]
    Unknown {
        /// As asked for.
        name: String,
        /// With commas.
        known: String,
    },
    /// No engine answers.
    #[error("image {name}: {detail}")]
    Engine {
        /// Which one.
        name: String,
        /// What was tried and what came back.
        detail: String,
    },
    /// The build failed.
    #[error("image {name} could not be built: {detail}")]
    Build {
        /// Which one.
        name: String,
        /// Its last lines.
        detail: String,
    },
}

/// The images of the allow-list.
#[async_trait]
pub trait ImageSource: Send + Sync + std::fmt::Debug {
    /// All of them, prepared or not.
    async fn list(&self) -> Vec<Image>;

    /// One of them as it is now.
    ///
    /// # Errors
    /// [`ImageError::Unknown`], [`ImageError::Engine`].
    async fn find(&self, name: &str) -> Result<Image, ImageError>;

    /// Builds or finds it. A second caller joins the first. Steps go into `steps` as long as somebody takes them.
    ///
    /// # Errors
    /// All of [`ImageError`].
    async fn prepare(&self, name: &str, steps: mpsc::Sender<ImageStep>) -> Result<Image, ImageError>;
}

/// One way to make sandboxes, with the images that it makes them from.
#[derive(Debug, Clone)]
pub struct BackendParts {
    /// Makes the sandboxes.
    pub backend: Arc<dyn Backend>,
    /// Its own: an image of one backend is nothing to another.
    pub images: Arc<dyn ImageSource>,
    /// Resolves packages in its images.
    pub packages: Arc<dyn PackageTool>,
}

/// A slot as it is planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotView {
    /// From 0.
    pub index: u32,
    /// GPUs that its runs see.
    pub gpu_uuids: Vec<String>,
    /// Its share.
    pub cpu_millis: u32,
    /// Its share.
    pub memory_bytes: u64,
    /// Who has it.
    pub holder: Option<RunId>,
    /// Why it is set aside; empty where it is not.
    pub quarantined: String,
}

/// A slot that is taken until this is dropped.
#[derive(Debug)]
pub struct SlotLease {
    /// What a sandbox is told.
    pub grant: SlotGrant,
    /// Its share.
    pub cpu_millis: u32,
    /// Its share.
    pub memory_bytes: u64,
    /// Gives it back when dropped.
    pub guard: Box<dyn SlotGuard>,
}

/// Gives a slot back when dropped.
pub trait SlotGuard: Send + Sync + std::fmt::Debug {}

/// In the place of a guard that was dropped.
#[derive(Debug)]
pub(super) struct Released;

impl SlotGuard for Released {}

/// The slots of this worker.
pub trait SlotSource: Send + Sync + std::fmt::Debug {
    /// All of them.
    fn view(&self) -> Vec<SlotView>;
    /// A free one with so many GPUs, or none.
    fn take(&self, run_id: RunId, gpus: u32) -> Option<SlotLease>;
    /// The one with this index, where it is free: for a run that has been in it since before this process started.
    fn take_index(&self, run_id: RunId, index: u32) -> Option<SlotLease>;
    /// Whether any slot, free or not, has so many GPUs.
    fn could_ever(&self, gpus: u32) -> bool {
        self.view().iter().any(|slot| slot.gpu_uuids.len() as u64 >= u64::from(gpus))
    }
    /// A sandbox on it could not be removed: nothing runs there until the worker starts anew.
    fn set_aside(&self, index: u32, why: &str);
}

/// Reads what GPUs do.
pub trait GpuMeter: Send + Sync + std::fmt::Debug {
    /// Of these GPUs, now; those that cannot be read are left out.
    fn read(&self, uuids: &[String]) -> Vec<GpuUsage>;
}

/// Where no GPU is.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoGpus;

impl GpuMeter for NoGpus {
    fn read(&self, _: &[String]) -> Vec<GpuUsage> {
        Vec::new()
    }
}
