//! The images of the `native` backend: root file systems that the worker makes itself, once, from the same recipes and
//! lock files, with no engine. What an engine would do, and how, is not here ([`super::build`]); how a sandbox is made
//! in such a root is the backend's.
//!
//! ```text
//! <cache>/rootfs/NAME.lock            whoever builds NAME, of all workers of this user
//!                building-NAME-PID/   being made: debootstrap, the recipe's steps, no setuid bit, one owner
//!                HEX/                 the root; renamed here when whole and synced, changed no more
//!                HEX.json             what a walk through it found, so that nobody has to walk again
//! ```
//!
//! HEX is of the recipe and of how a root is made of it: a worker that makes roots otherwise makes others.

mod build;
mod prune;
mod tool;
mod tree;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use kit::{digest::Digest, task::CancellationToken};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{
    Image, ImageInfo, ImageStore, RECIPES, Recipe, base,
    error::ImageError,
    jobs::{self, Jobs},
    progress::ImageStep,
    recipe,
};

pub use tool::{TOOL_UID, Tool, ToolEnd, ToolError, run_inside};

/// Goes up when roots are made otherwise from the same recipe.
const METHOD: u32 = 1;

/// The root file systems of this user. A clone is the same.
#[derive(Debug, Clone)]
pub struct NativeImages {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    stop: CancellationToken,
    jobs: Jobs,
}

/// The file beside a root. Unknown fields are another version's: such a root counts as not built.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    schema: u32,
    name: String,
    size_bytes: u64,
}

const SCHEMA: u32 = 1;

impl NativeImages {
    /// `cache` is the user's (`kit::folder::cache()`), shared by all workers of a user; `stop` ends every build.
    #[must_use]
    pub fn new(cache: PathBuf, stop: CancellationToken) -> Self {
        let folder = cache.join("rootfs");
        Self { shared: Arc::new(Shared { folder, stop, jobs: Jobs::default() }) }
    }

    /// Where the roots lie, each under the 64 digits of its [`Image::id`].
    #[must_use]
    pub fn rootfs_dir(&self) -> &Path {
        &self.shared.folder
    }

    /// The root of an image, whether or not it is built.
    ///
    /// # Errors
    /// Where the id is no digest.
    pub fn root_of(&self, image_id: &str) -> Result<PathBuf, kit::digest::ParseDigestError> {
        Ok(self.shared.folder.join(image_id.parse::<Digest>()?.hex()))
    }

    /// Every image on the allow-list, built or not.
    #[must_use]
    pub fn list(&self) -> Vec<ImageInfo> {
        RECIPES.iter().map(|recipe| self.info(recipe)).collect()
    }

    fn info(&self, recipe: &Recipe) -> ImageInfo {
        ImageInfo::of_recipe(recipe, root_digest(recipe)).with(Ok(find(&self.shared.folder, recipe)))
    }

    /// The image of this name, if it is built.
    ///
    /// # Errors
    /// Where the name is not on the allow-list.
    pub fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        Ok(find(&self.shared.folder, recipe(name)?))
    }

    /// Finds or builds an image, with the last step in `progress` as it changes (a full or closed channel loses
    /// steps and stops nothing). Dropping this future leaves the build running.
    ///
    /// # Errors
    /// Whatever the build ends in; every caller that shares it gets the same.
    pub async fn prepare(&self, name: &str, progress: mpsc::Sender<ImageStep>) -> Result<Image, ImageError> {
        let recipe = recipe(name)?;
        if let Some(image) = find(&self.shared.folder, recipe) {
            return Ok(image);
        }
        let shared = Arc::clone(&self.shared);
        let build = |job| async move { build::prepare(&shared, recipe, &job).await };
        jobs::follow(name, self.shared.jobs.join(name, build), progress).await
    }
}

#[async_trait]
impl ImageStore for NativeImages {
    async fn list(&self) -> Vec<ImageInfo> {
        Self::list(self)
    }
    async fn find(&self, name: &str) -> Result<ImageInfo, ImageError> {
        Ok(self.info(recipe(name)?))
    }
    async fn prepare(&self, name: &str, progress: mpsc::Sender<ImageStep>) -> Result<Image, ImageError> {
        Self::prepare(self, name, progress).await
    }
}

fn root_digest(recipe: &Recipe) -> Digest {
    Digest::of(format!("native {METHOD} {} {}", base::recipe(), recipe.digest()).as_bytes())
}

fn record_path(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join(format!("{}.json", digest.hex()))
}

fn find(folder: &Path, recipe: &Recipe) -> Option<Image> {
    let digest = root_digest(recipe);
    // The root comes under its name last, when its record is there.
    if !folder.join(digest.hex()).is_dir() {
        return None;
    }
    let path = record_path(folder, &digest);
    let record = fs::read(&path).and_then(|bytes| {
        let record: Record = serde_json::from_slice(&bytes)?;
        if record.schema == SCHEMA { Ok(record) } else { Err(io::Error::other("another schema")) }
    });
    match record {
        Ok(record) => Some(Image {
            name: recipe.name.to_owned(),
            id: digest.to_string(),
            recipe_digest: digest,
            size_bytes: record.size_bytes,
        }),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "this root file system is made again");
            None
        }
    }
}

#[cfg(test)]
mod tests;
