//! What a name on the allow-list stands for, and whether the engine has it: found by our tag, taken only with our labels
//! of the right digest, and refused where it would weaken a sandbox.

use bollard::{Docker, errors::Error as EngineError, models::ImageInspect};
use kit::digest::Digest;

use super::{Image, ImageInfo, Recipe, added, allow::Added, base, build, error::ImageError, refuse::refuse};

/// What a name on the allow-list stands for.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    Recipe(&'static Recipe),
    Added(Added),
}

impl Entry {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Recipe(recipe) => recipe.name,
            Self::Added(added) => &added.name,
        }
    }

    pub(super) fn label(&self) -> &str {
        match self {
            Self::Recipe(recipe) => recipe.name,
            Self::Added(_) => added::LABEL,
        }
    }

    pub(super) fn digest(&self) -> Digest {
        match self {
            Self::Recipe(recipe) => recipe.digest(),
            Self::Added(added) => added.digest(),
        }
    }

    pub(super) fn tag(&self) -> String {
        match self {
            Self::Recipe(recipe) => recipe.tag(),
            Self::Added(added) => added.tag(),
        }
    }

    pub(super) fn info(&self) -> ImageInfo {
        match self {
            Self::Recipe(recipe) => ImageInfo::of(recipe),
            Self::Added(added) => ImageInfo {
                name: added.name.clone(),
                recipe_digest: added.digest(),
                image: None,
                problem: None,
                packages: Vec::new(),
                description: added.description.clone(),
            },
        }
    }
}

pub(super) async fn find(docker: &Docker, entry: &Entry) -> Result<Option<Image>, ImageError> {
    let tag = entry.tag();
    let inspected = match docker.inspect_image(&tag).await {
        Ok(inspected) => inspected,
        Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
        Err(error) => return Err(ImageError::engine("inspect", &tag, error)),
    };
    check(entry, inspected).map_err(|reason| ImageError::Refused { tag, reason })
}

/// Whether what lies under our tag is ours and leaves a sandbox as strong as it was.
pub(super) fn check(entry: &Entry, inspected: ImageInspect) -> Result<Option<Image>, String> {
    let config = inspected.config.unwrap_or_default();
    let label = |name: &str| config.labels.as_ref().and_then(|labels| labels.get(name).cloned());
    if label(base::RECIPE_LABEL) != Some(entry.digest().to_string())
        || label(build::NAME_LABEL).as_deref() != Some(entry.label())
    {
        return Ok(None);
    }
    if let Some(reason) = refuse(&config) {
        return Err(reason);
    }
    let id = inspected.id.unwrap_or_default();
    if id.parse::<Digest>().is_err() {
        return Err("has no content id".to_owned());
    }
    let size_bytes = inspected.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
    Ok(Some(Image { name: entry.name().to_owned(), id, recipe_digest: entry.digest(), size_bytes }))
}
