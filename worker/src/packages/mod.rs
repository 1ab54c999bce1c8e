//! Packages that a run asks for besides those of its image: wheels from the index, resolved and fetched before the run
//! and outside its sandbox, mounted in it read-only at [`TARGET`]. The run itself has no network, and no code of a package runs
//! before it. What is asked of pip, and how its words are read, is `tool.py`'s; how a tool is run in an image is a
//! backend's ([`PackageTool`]).
//!
//! ```text
//! provide(image, requirements) ── request known, layer there ─────────────────────────────▶ Provided
//!      └─ one at a time for the same request
//!           └─ tool: resolve ─▶ lock ── layer of this lock there ─────────────────────────▶ Provided
//!                                 └─ tool: fetch ─▶ site/ ─▶ mke2fs -d ─▶ layers/HEX.ext4 ─▶ Provided
//!
//! packages/{requests/HEX.json, layers/HEX.ext4, work/…}
//! ```
//!
//! A request is the image's id and the requirements; its answer stays the same for as long as its layer is kept, so that all
//! runs of an experiment have the same versions, however open they were asked for. The image's own packages are
//! constraints: none is replaced, because `torch` and what was built for it belong together.

mod cache;
#[cfg(test)]
pub(crate) mod fake;
mod layer;
mod lock;
mod native;
mod resolver;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use kit::{digest::Digest, duration::Span, folder::FolderError, size::Bytes, task::CancellationToken};
use tokio::time::Instant;

use cache::Cache;

pub use cache::HeldLayer;
pub use lock::Package;
pub use native::NativeTool;

/// Where a run sees its packages.
pub const TARGET: &str = "/packages";
/// Where the tool sees the folder that it shares with the worker.
pub const SHARED_FOLDER: &str = "/mnt/packages";

/// Bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackageRules {
    /// Bytes that one request may download and unpack.
    pub size: u64,
    /// What one request may take.
    pub time: Duration,
    /// Bytes of all layers that are kept.
    pub cache: u64,
}

/// What a backend runs to resolve or fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolJob {
    /// The backend's id of the run's image.
    pub image_id: String,
    /// The program in the image and its arguments.
    pub command: Vec<String>,
    /// A folder of the host, seen at [`SHARED_FOLDER`], which the tool may write.
    pub folder: PathBuf,
}

/// How a tool ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolEnd {
    /// Its exit code; `None`: a signal.
    pub code: Option<i64>,
    /// The last that it printed.
    pub output: String,
}

/// Why a tool has no end of its own.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ToolError {
    /// No engine, or it refused.
    #[error("{0}")]
    Engine(String),
    /// The token was cancelled, and nothing of the tool is left.
    #[error("the tool was stopped")]
    Stopped,
}

/// Runs a program of ours inside an image, before a run: an unprivileged uid that owns nothing, a root that it cannot change,
/// the host's network and its settings for pip (certificates, proxy, index), which are kept nowhere.
#[async_trait]
pub trait PackageTool: Send + Sync + std::fmt::Debug {
    /// Runs it to its end, or until `stop`. Afterwards nothing of it is left but what lies in the folder.
    ///
    /// # Errors
    /// Where it did not run. How it ended is no error.
    async fn run(&self, job: &ToolJob, stop: &CancellationToken) -> Result<ToolEnd, ToolError>;
}

/// Why there are no packages.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PackageError {
    /// In the resolver's words: a conflict, a name or version that is not there, a form that is not a wheel.
    #[error("{0}")]
    Refused(String),
    /// More than the worker's bound.
    #[error(
        "the packages and what they depend on take more than {} to download and unpack, which is this worker's bound \
         (packages.size): ask for less, or for smaller ones", Bytes(*.0)
    )]
    TooLarge(u64),
    /// Longer than the worker's bound.
    #[error(
        "the packages were not resolved and fetched within {}, which is this worker's bound (packages.time): ask for \
         fewer, and with exact versions", Span(*.0)
    )]
    TooSlow(Duration),
    /// The index does not answer; nothing is known about the packages.
    #[error("the package index cannot be reached: {0}")]
    Unreachable(String),
    /// No room.
    #[error("no room on the worker's disk for the packages: {0}")]
    DiskFull(String),
    /// The backend could not run the tool.
    #[error("the packages could not be resolved: {0}")]
    Engine(String),
    /// The worker's own part failed.
    #[error("the packages could not be kept: {0}")]
    Host(String),
    /// The token was cancelled.
    #[error("stopped while the packages were resolved")]
    Stopped,
}

impl PackageError {
    /// Whether other packages would mend it.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::TooLarge(_) | Self::TooSlow(_))
    }

    fn of_io(error: &std::io::Error, what: &str) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::DiskFull(format!("{what}: {error}"))
            }
            _ => Self::Host(format!("{what}: {error}")),
        }
    }
}

impl From<FolderError> for PackageError {
    fn from(error: FolderError) -> Self {
        let FolderError::Io { source, .. } = &error else { return Self::Host(error.to_string()) };
        Self::of_io(source, &error.to_string())
    }
}

/// What a run gets.
#[derive(Debug)]
pub struct Provided {
    /// All that comes besides the image's own, by name.
    pub packages: Vec<Package>,
    /// `None` where the image has all of it already. Kept for as long as this lives.
    pub layer: Option<HeldLayer>,
    /// Whether nothing had to be asked of an index.
    pub cached: bool,
}

/// The last failure of a request, for those that waited for it, and the right to try.
type Turn = Arc<tokio::sync::Mutex<Option<(Instant, PackageError)>>>;

/// The packages of this worker. A clone is the same.
#[derive(Debug, Clone)]
pub struct Packages {
    cache: Arc<Cache>,
    rules: PackageRules,
    turns: Arc<Mutex<HashMap<Digest, Turn>>>,
}

impl Packages {
    /// Over a folder of this worker alone; what an earlier process left unfinished is removed.
    ///
    /// # Errors
    /// Names the path.
    pub fn open(folder: &Path, rules: PackageRules) -> Result<Self, FolderError> {
        Ok(Self { cache: Cache::open(folder, rules.cache)?, rules, turns: Arc::default() })
    }

    /// What a request may come to take of the disk: nothing where its layer is there.
    #[must_use]
    pub fn reservation(&self, image_id: &str, requirements: &[String]) -> u64 {
        if requirements.is_empty() || self.cache.find(&lock::request(image_id, requirements)).is_some() {
            0
        } else {
            self.rules.size
        }
    }

    /// The layer of a request that was answered before, kept for as long as what is given lives: for a run that mounts it
    /// since before this process started.
    #[must_use]
    pub fn hold(&self, image_id: &str, requirements: &[String]) -> Option<HeldLayer> {
        if requirements.is_empty() {
            return None;
        }
        self.cache.find(&lock::request(image_id, requirements)).and_then(|(_, layer)| layer)
    }

    /// The packages for a run in this image: kept ones, or resolved and fetched. Who asks for the same at the same time
    /// waits for it, and shares what comes of it.
    ///
    /// # Errors
    /// [`PackageError`].
    pub async fn provide(
        &self,
        tool: &dyn PackageTool,
        image_id: &str,
        requirements: &[String],
        stop: &CancellationToken,
    ) -> Result<Provided, PackageError> {
        let request = lock::request(image_id, requirements);
        let asked = Instant::now();
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody waits for these any more.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(request).or_default())
        };
        let mut last = stop.run_until_cancelled(turn.lock()).await.ok_or(PackageError::Stopped)?;
        if let Some((packages, layer)) = self.cache.find(&request) {
            tracing::info!(%request, "packages are there already");
            return Ok(Provided { packages, layer, cached: true });
        }
        if let Some((when, error)) = &*last
            && *when >= asked
        {
            return Err(error.clone());
        }
        let made = resolver::make(&self.cache, self.rules, tool, image_id, requirements, stop).await;
        if let Err(error) = &made
            && !matches!(error, PackageError::Stopped)
        {
            *last = Some((Instant::now(), error.clone()));
        }
        let (packages, layer) = made?;
        tracing::info!(%request, count = packages.len(), "packages were resolved");
        Ok(Provided { packages, layer, cached: false })
    }
}
