//! What the loop needs of the machines: a trait as narrow as that, so that a test drives a campaign without a worker,
//! and the data sets that travel with a run.

use async_trait::async_trait;
use bytes::Bytes;
use kit::{digest::Digest, task::CancellationToken};
use proto::v1;
use tokio::sync::mpsc;

use crate::fleet::{
    Fleet, FleetError, ImageChoice, ImageProgress, PreparedImage, RunEnd, RunSink, WorkerView,
};

use super::researcher::{DataSetInfo, Workers};

/// The machines, as the loop sees them. [`Fleet`] is one.
#[async_trait]
pub trait Lab: Send + Sync {
    /// What each worker says of itself.
    fn workers(&self) -> Vec<WorkerView>;

    /// Places that run at once.
    fn slots(&self) -> usize;

    /// As [`Fleet::prepare_image`].
    ///
    /// # Errors
    /// The first worker's that cannot.
    async fn prepare_image(
        &self,
        image: ImageChoice<'_>,
        progress: mpsc::Sender<ImageProgress>,
        cancel: &CancellationToken,
    ) -> Result<PreparedImage, FleetError>;

    /// As [`Fleet::put_blob`].
    ///
    /// # Errors
    /// The first worker's that cannot take it.
    async fn put_blob(&self, bytes: Bytes) -> Result<Digest, FleetError>;

    /// As [`Fleet::keep_kind`].
    fn keep_kind(&self, campaign: &str, experiment: &str, worker_id: &str, gpus: u32);

    /// As [`Fleet::run`].
    ///
    /// # Errors
    /// Where the run's end is not known.
    async fn run(
        &self,
        start: v1::StartRunRequest,
        sink: &mut dyn RunSink,
        cancel: &CancellationToken,
    ) -> Result<RunEnd, FleetError>;

    /// As [`Fleet::resume`]: a run that an earlier process started, on this worker or on one that is not known, followed to its
    /// end; lost where no worker knows it. The sink is told where it was found.
    ///
    /// # Errors
    /// Where the run's end is not known.
    async fn end(
        &self,
        start: v1::StartRunRequest,
        worker_id: Option<&str>,
        sink: &mut dyn RunSink,
        cancel: &CancellationToken,
    ) -> Result<RunEnd, FleetError>;
}

#[async_trait]
impl Lab for Fleet {
    fn workers(&self) -> Vec<WorkerView> {
        Self::workers(self)
    }

    fn slots(&self) -> usize {
        Self::slots(self)
    }

    async fn prepare_image(
        &self,
        image: ImageChoice<'_>,
        progress: mpsc::Sender<ImageProgress>,
        cancel: &CancellationToken,
    ) -> Result<PreparedImage, FleetError> {
        Self::prepare_image(self, image, progress, cancel).await
    }

    async fn put_blob(&self, bytes: Bytes) -> Result<Digest, FleetError> {
        Self::put_blob(self, bytes).await
    }

    fn keep_kind(&self, campaign: &str, experiment: &str, worker_id: &str, gpus: u32) {
        Self::keep_kind(self, campaign, experiment, worker_id, gpus);
    }

    async fn run(
        &self,
        start: v1::StartRunRequest,
        sink: &mut dyn RunSink,
        cancel: &CancellationToken,
    ) -> Result<RunEnd, FleetError> {
        Self::run(self, start, sink, cancel).await
    }

    async fn end(
        &self,
        start: v1::StartRunRequest,
        worker_id: Option<&str>,
        sink: &mut dyn RunSink,
        cancel: &CancellationToken,
    ) -> Result<RunEnd, FleetError> {
        Self::resume(self, &start, worker_id, sink, cancel).await
    }
}

/// A data set that travels to the worker with a run, as one file.
#[derive(Debug, Clone)]
pub struct DataSet {
    /// What a plan calls it, and what `ar.dataset` finds it by.
    pub name: String,
    /// Columns, sizes, what it is.
    pub description: String,
    /// The table's smallest effect of interest, in the unit of the metric that the description names.
    pub smallest_effect: Option<f64>,
    /// Its bytes.
    pub bytes: Bytes,
}

fn size(files: u32, bytes: u64) -> String {
    let plural = if files == 1 { "" } else { "s" };
    format!("{files} file{plural}, {}", kit::size::Bytes(bytes))
}

/// The names of every data set that a run may have: those that travel with it, then the workers' own.
#[must_use]
pub fn data_set_names(views: &[WorkerView], ours: &[DataSet]) -> Vec<String> {
    describe(views, 0, &[], ours).data_sets.into_iter().map(|set| set.name).collect()
}

/// What one slot gives, and what there is to choose from.
#[must_use]
pub fn describe(views: &[WorkerView], slots: usize, packages: &[String], ours: &[DataSet]) -> Workers {
    let all_slots = || views.iter().flat_map(|view| &view.info.slots);
    let mut data_sets: Vec<DataSetInfo> = ours
        .iter()
        .map(|d| DataSetInfo {
            name: d.name.clone(),
            description: d.description.clone(),
            size: size(1, d.bytes.len() as u64),
            digest: Digest::of(&d.bytes).to_string(),
            smallest_effect: d.smallest_effect,
        })
        .collect();
    for view in views {
        for theirs in &view.info.data_sets {
            if !data_sets.iter().any(|d| d.name == theirs.name) {
                data_sets.push(DataSetInfo {
                    name: theirs.name.clone(),
                    description: theirs.description.clone(),
                    size: size(theirs.files, theirs.size_bytes),
                    digest: theirs.digest.clone(),
                    smallest_effect: None,
                });
            }
        }
    }
    let gpus = views.iter().filter_map(|view| view.info.machine.as_ref()).flat_map(|machine| &machine.gpus);
    Workers {
        slots: u32::try_from(slots).unwrap_or(u32::MAX),
        cpu_millis: all_slots().map(|s| s.cpu_millis).min().unwrap_or(0),
        memory_bytes: all_slots().map(|s| s.memory_bytes).min().unwrap_or(0),
        gpus: gpus.map(|gpu| gpu.name.clone()).collect(),
        packages: packages.to_vec(),
        data_sets,
    }
}
