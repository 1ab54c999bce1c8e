//! The images that runs may name: the allow-list, finding and building. An image is made from a recipe that is part
//! of this program, found by the recipe's digest, and used by the engine's content id, so that nothing a tag is later
//! put on can come into a sandbox. What runs in an image, and how, is the sandbox's business and not here.
//!
//! ```text
//! prepare(name) ─ find ── there ──────────────────────────────────────────► Image
//!                   └─ job of this process (a second caller joins it)
//!                        └─ lock NAME.lock (another process of this user may be building)
//!                             └─ find again ─ disk? ─ base (registry | debootstrap) ─ build ─ find ─► Image
//! ```
//!
//! A job belongs to nobody: a caller that goes away stops nothing, the worker's token does. Old images of ours (same
//! label, other digest) are left for `image` commands: a run may still use one.

mod base;
mod build;
mod debootstrap;
mod error;
mod handover;
mod jobs;
mod namespace;
pub mod native;
mod prepare;
mod process;
mod progress;
mod recipe;
mod settings;

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bollard::{Docker, errors::Error as EngineError, models::ImageInspect};
use kit::{digest::Digest, task::CancellationToken};
use tokio::sync::{mpsc, watch};

use jobs::Jobs;
use progress::Stage;

pub use error::ImageError;
pub use native::NativeImages;
pub use progress::ImageStep;
pub use recipe::{Package, RECIPES, Recipe};

/// An image that is ready to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// On the allow-list.
    pub name: String,
    /// The engine's content id, `sha256:…`: what a sandbox is made from.
    pub id: String,
    /// What it was found by.
    pub recipe_digest: Digest,
    /// In the engine, layers that it shares included.
    pub size_bytes: u64,
}

/// An image that this worker has or could have.
#[derive(Debug, Clone)]
pub struct ImageInfo {
    /// On the allow-list.
    pub name: String,
    /// Of the recipe.
    pub recipe_digest: Digest,
    /// The built one, if it is there and may be used.
    pub image: Option<Image>,
    /// Why there is none, where that is not because it was never built.
    pub problem: Option<ImageError>,
    /// What is installed in it, from its lock file.
    pub packages: Vec<Package>,
    /// One line.
    pub description: String,
}

impl ImageInfo {
    /// What is known without an engine.
    pub(crate) fn of(recipe: &Recipe) -> Self {
        Self::of_recipe(recipe, recipe.digest())
    }

    fn of_recipe(recipe: &Recipe, recipe_digest: Digest) -> Self {
        Self {
            name: recipe.name.to_owned(),
            recipe_digest,
            image: None,
            problem: None,
            packages: recipe.packages(),
            description: recipe.description.to_owned(),
        }
    }

    fn with(self, found: Result<Option<Image>, ImageError>) -> Self {
        match found {
            Ok(image) => Self { image, ..self },
            Err(error) => Self { problem: Some(error), ..self },
        }
    }
}

/// The images of one backend, whatever makes them.
#[async_trait]
pub trait ImageStore: Send + Sync + std::fmt::Debug {
    /// Every image on the allow-list, built or not.
    async fn list(&self) -> Vec<ImageInfo>;

    /// What there is of this name.
    ///
    /// # Errors
    /// Where the name is not on the allow-list. That the image cannot be used is in the answer.
    async fn find(&self, name: &str) -> Result<ImageInfo, ImageError>;

    /// Finds or builds it, as [`Images::prepare`] does.
    ///
    /// # Errors
    /// Whatever the build ends in.
    async fn prepare(&self, name: &str, progress: mpsc::Sender<ImageStep>) -> Result<Image, ImageError>;
}

#[async_trait]
impl ImageStore for Images {
    async fn list(&self) -> Vec<ImageInfo> {
        Self::list(self).await
    }
    async fn find(&self, name: &str) -> Result<ImageInfo, ImageError> {
        let recipe = recipe(name)?;
        Ok(ImageInfo::of(recipe).with(Self::find(self, name).await))
    }
    async fn prepare(&self, name: &str, progress: mpsc::Sender<ImageStep>) -> Result<Image, ImageError> {
        Self::prepare(self, name, progress).await
    }
}

/// The images of this worker. A clone is the same.
#[derive(Debug, Clone)]
pub struct Images {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    docker: Docker,
    /// Locks, and the folder in which Debian is made.
    cache: PathBuf,
    stop: CancellationToken,
    jobs: Jobs,
}

impl Images {
    /// Over an engine. `cache` is the user's (`kit::folder::cache()`), shared by all workers of a user; `stop` ends
    /// every build that runs.
    #[must_use]
    pub fn new(docker: Docker, cache: PathBuf, stop: CancellationToken) -> Self {
        let cache = cache.join("images");
        Self { shared: Arc::new(Shared { docker, cache, stop, jobs: Jobs::default() }) }
    }

    /// Every image on the allow-list, built or not. One that cannot be used says why.
    pub async fn list(&self) -> Vec<ImageInfo> {
        let mut found = Vec::with_capacity(RECIPES.len());
        for recipe in &RECIPES {
            let info = ImageInfo::of(recipe);
            found.push(info.with(self.find(recipe.name).await));
        }
        found
    }

    /// The image of this name, if it is built.
    ///
    /// # Errors
    /// Where the name is not on the allow-list, the engine does not answer, or the image under our tag has what would
    /// weaken a sandbox.
    pub async fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        find(&self.shared.docker, recipe(name)?).await
    }

    /// Finds or builds an image, with the last step in `progress` as it changes (a full or closed channel loses
    /// steps and stops nothing). Dropping this future leaves the build running.
    ///
    /// # Errors
    /// Those of [`Images::find`], and whatever the build ends in; every caller that shares it gets the same.
    pub async fn prepare(&self, name: &str, progress: mpsc::Sender<ImageStep>) -> Result<Image, ImageError> {
        let recipe = recipe(name)?;
        if let Some(image) = find(&self.shared.docker, recipe).await? {
            return Ok(image);
        }
        jobs::follow(name, self.join(recipe), progress).await
    }

    fn join(&self, recipe: &'static Recipe) -> watch::Receiver<Stage> {
        let shared = Arc::clone(&self.shared);
        self.shared.jobs.join(recipe.name, |job| async move { prepare::prepare(&shared, recipe, &job).await })
    }
}

pub(crate) fn recipe(name: &str) -> Result<&'static Recipe, ImageError> {
    Recipe::named(name).ok_or_else(|| ImageError::Unknown {
        name: kit::text::one_line(name, 80),
        known: RECIPES.map(|recipe| recipe.name).join(", "),
    })
}

async fn find(docker: &Docker, recipe: &Recipe) -> Result<Option<Image>, ImageError> {
    let tag = recipe.tag();
    let inspected = match docker.inspect_image(&tag).await {
        Ok(inspected) => inspected,
        Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
        Err(error) => return Err(ImageError::engine("inspect", &tag, error)),
    };
    check(recipe, inspected).map_err(|reason| ImageError::Refused { tag, reason })
}

/// Whether what lies under our tag is ours and leaves a sandbox as strong as it was. A volume of an image is
/// writable host disk without limit under a read-only root (SANDBOXES.md R10); the variables would be taken up by
/// the loader of every program, or by the NVIDIA runtime as an order for every GPU (R14).
fn check(recipe: &Recipe, inspected: ImageInspect) -> Result<Option<Image>, String> {
    let config = inspected.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    if labels.get(base::RECIPE_LABEL).map(String::as_str) != Some(&recipe.digest().to_string())
        || labels.get(build::NAME_LABEL).map(String::as_str) != Some(recipe.name)
    {
        return Ok(None);
    }
    if let Some(volume) = config.volumes.unwrap_or_default().first() {
        return Err(format!("declares the volume {}", kit::text::one_line(volume, 80)));
    }
    for variable in config.env.unwrap_or_default() {
        let name = variable.split('=').next().unwrap_or_default();
        if name.starts_with("LD_") || name.starts_with("NVIDIA_") {
            return Err(format!("sets the variable {}", kit::text::one_line(name, 80)));
        }
    }
    let id = inspected.id.unwrap_or_default();
    if id.parse::<Digest>().is_err() {
        return Err("has no content id".to_owned());
    }
    let size_bytes = inspected.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
    Ok(Some(Image { name: recipe.name.to_owned(), id, recipe_digest: recipe.digest(), size_bytes }))
}

#[cfg(test)]
mod tests;
