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
//! Old images of ours (same label, other digest) are left for `image prune`: a run may still use one.

mod added;
mod allow;
mod base;
mod build;
mod debootstrap;
mod entry;
mod error;
mod handover;
mod jobs;
mod namespace;
pub mod native;
mod prepare;
mod process;
mod progress;
mod prune;
mod recipe;
mod refuse;
pub(crate) mod rootless;
mod settings;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bollard::Docker;
use kit::{digest::Digest, task::CancellationToken};
use tokio::sync::{mpsc, watch};

use allow::{Added, AllowList};
use entry::{Entry, find};
use jobs::Jobs;
use progress::Stage;

pub(crate) use refuse::refuse;

pub use error::ImageError;
pub use native::NativeImages;
pub use progress::ImageStep;
pub use prune::Pruned;
pub use recipe::{Package, RECIPES, Recipe};
pub(crate) use settings::HostSettings;

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
        let entry = self.entry(name)?;
        Ok(entry.info().with(find(&self.shared.docker, &entry).await))
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
    allowed: Option<AllowList>,
    stop: CancellationToken,
    jobs: Jobs,
}

impl Images {
    /// The recipes' images, over an engine. `cache` is the user's (`kit::folder::cache()`), shared by all workers of a
    /// user; `stop` ends every build that runs.
    #[must_use]
    pub fn new(docker: Docker, cache: PathBuf, stop: CancellationToken) -> Self {
        Self::with_list(docker, cache, None, stop)
    }

    /// With those that the user of the worker of this data folder has added.
    #[must_use]
    pub fn of_worker(docker: Docker, cache: PathBuf, data_dir: &Path, stop: CancellationToken) -> Self {
        Self::with_list(docker, cache, Some(AllowList::new(data_dir)), stop)
    }

    fn with_list(
        docker: Docker,
        cache: PathBuf,
        allowed: Option<AllowList>,
        stop: CancellationToken,
    ) -> Self {
        let cache = cache.join("images");
        Self { shared: Arc::new(Shared { docker, cache, allowed, stop, jobs: Jobs::default() }) }
    }

    /// Every image on the allow-list, built or not. One that cannot be used says why. Where the file of added ones
    /// cannot be read, those of the recipes are there and the log says so.
    pub async fn list(&self) -> Vec<ImageInfo> {
        let added = match self.shared.allowed.as_ref().map(AllowList::read) {
            None => Vec::new(),
            Some(Ok(added)) => added,
            Some(Err(error)) => {
                tracing::error!(%error, "the added images cannot be used");
                Vec::new()
            }
        };
        let mut found = Vec::with_capacity(RECIPES.len() + added.len());
        let entries = added.into_iter().map(Entry::Added);
        for entry in entries.chain(RECIPES.iter().map(Entry::Recipe)) {
            found.push(entry.info().with(find(&self.shared.docker, &entry).await));
        }
        found
    }

    /// The image of this name, if it is built.
    ///
    /// # Errors
    /// Where the name is not on the allow-list, the engine does not answer, or the image under our tag has what would
    /// weaken a sandbox.
    pub async fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        find(&self.shared.docker, &self.entry(name)?).await
    }

    /// Finds or builds an image, with the last step in `progress` as it changes (a full or closed channel loses
    /// steps and stops nothing). Dropping this future leaves the build running.
    ///
    /// # Errors
    /// Those of [`Images::find`], and whatever the build ends in; every caller that shares it gets the same.
    pub async fn prepare(&self, name: &str, progress: mpsc::Sender<ImageStep>) -> Result<Image, ImageError> {
        let entry = self.entry(name)?;
        if let Some(image) = find(&self.shared.docker, &entry).await? {
            return Ok(image);
        }
        jobs::follow(name, self.join(entry), progress).await
    }

    fn join(&self, entry: Entry) -> watch::Receiver<Stage> {
        let shared = Arc::clone(&self.shared);
        let name = entry.name().to_owned();
        self.shared.jobs.join(&name, |job| async move {
            match entry {
                Entry::Recipe(recipe) => prepare::prepare(&shared, recipe, &job).await,
                Entry::Added(added) => added::prepare(&shared, &added, &job).await,
            }
        })
    }

    /// Puts an image of the user's on the allow-list: what `reference` means now, and never what it means later.
    /// Steps go as in [`Images::prepare`].
    ///
    /// # Errors
    /// Where it is nowhere, would weaken a sandbox, has no Python, or the name is taken. The list is then as it was.
    pub async fn add(
        &self,
        name: &str,
        reference: &str,
        description: &str,
        progress: mpsc::Sender<ImageStep>,
    ) -> Result<Image, ImageError> {
        let Some(allowed) = self.shared.allowed.clone() else {
            return Err(ImageError::NotAllowed("this worker has no data folder for added images".to_owned()));
        };
        let unknown = Digest::of(b"");
        let mut added = Added {
            name: name.to_owned(),
            reference: reference.to_owned(),
            content_id: unknown,
            description: description.to_owned(),
        };
        allow::check_entry(&added).map_err(ImageError::NotAllowed)?;
        let (shared, job_name) = (Arc::clone(&self.shared), format!("add {name}"));
        let stages = self.shared.jobs.join(&job_name, |job| async move {
            added.content_id = added::resolve(&shared.docker, &added.reference, &job, &shared.stop).await?;
            if let Some(there) = allowed.find(&added.name)?.filter(|t| t.content_id != added.content_id) {
                return Err(ImageError::Taken { name: there.name, reference: there.reference });
            }
            let image = added::prepare(&shared, &added, &job).await?;
            allowed.add(added)?;
            Ok(image)
        });
        jobs::follow(name, stages, progress).await
    }

    /// Takes an image of the user's off the allow-list; the engine keeps it until [`Images::prune`].
    ///
    /// # Errors
    /// Where no such image was added.
    pub fn remove(&self, name: &str) -> Result<(), ImageError> {
        if Recipe::named(name).is_some() {
            return Err(ImageError::NotAllowed(format!("`{name}` is one of this program's own images")));
        }
        let removed = self.shared.allowed.as_ref().map_or(Ok(false), |allowed| allowed.remove(name))?;
        if removed { Ok(()) } else { Err(self.unknown(name)) }
    }

    fn entry(&self, name: &str) -> Result<Entry, ImageError> {
        if let Some(recipe) = Recipe::named(name) {
            return Ok(Entry::Recipe(recipe));
        }
        let added = self.shared.allowed.as_ref().map_or(Ok(None), |allowed| allowed.find(name))?;
        added.map(Entry::Added).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> ImageError {
        let added = self.shared.allowed.as_ref().and_then(|allowed| allowed.read().ok()).unwrap_or_default();
        let own = RECIPES.iter().map(|recipe| recipe.name);
        let known: Vec<&str> = own.chain(added.iter().map(|added| added.name.as_str())).collect();
        ImageError::Unknown { name: kit::text::one_line(name, 80), known: known.join(", ") }
    }
}

/// The recipe of this name, for those that have no others.
pub(crate) fn recipe(name: &str) -> Result<&'static Recipe, ImageError> {
    Recipe::named(name).ok_or_else(|| ImageError::Unknown {
        name: kit::text::one_line(name, 80),
        known: RECIPES.map(|recipe| recipe.name).join(", "),
    })
}

#[cfg(test)]
mod added_tests;
#[cfg(test)]
mod tests;
