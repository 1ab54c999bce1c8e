//! Removes images of ours that an earlier version made, or that are off the allow-list. Nothing that a run uses: the
//! engine refuses to remove what a container is made of, and is never told to do it all the same.

use std::collections::{HashMap, HashSet};

use bollard::{
    Docker,
    errors::Error as EngineError,
    query_parameters::{ListImagesOptionsBuilder, RemoveImageOptions},
};

use super::{Entry, Images, RECIPES, allow::AllowList, base, error::ImageError};

/// An image that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// Its tag, or its id where it had none; for a root file system, its digest.
    pub name: String,
    /// What it took, what it shared with others included: that stays where others use it.
    pub size_bytes: u64,
}

impl Images {
    /// Removes what no name on this worker's allow-list stands for any more. An image that another worker of this
    /// engine has added counts as such: it is made again when it is next used.
    ///
    /// # Errors
    /// Where the engine does not answer or the allow-list cannot be read.
    pub async fn prune(&self) -> Result<Vec<Pruned>, ImageError> {
        self.prune_those(base::RECIPE_LABEL).await
    }

    /// Of the images with this label, which must be one of ours.
    pub(super) async fn prune_those(&self, label: &str) -> Result<Vec<Pruned>, ImageError> {
        let added = self.shared.allowed.as_ref().map_or(Ok(Vec::new()), AllowList::read)?;
        let entries = RECIPES.iter().map(Entry::Recipe).chain(added.into_iter().map(Entry::Added));
        let mut current: HashSet<String> = entries.map(|entry| entry.tag()).collect();
        current.insert(base::tag());
        let docker = &self.shared.docker;
        let filters = HashMap::from([("label", vec![label.to_owned()])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        let found =
            docker.list_images(Some(options)).await.map_err(|e| ImageError::engine("list", "images", e))?;
        let mut pruned = Vec::new();
        for image in found {
            if !image.labels.contains_key(base::RECIPE_LABEL) {
                continue;
            }
            let size_bytes = u64::try_from(image.size).unwrap_or(0);
            // By its tags, so that a tag of the user's own on the same image keeps it.
            let tags: Vec<String> =
                image.repo_tags.into_iter().filter(|tag| tag != "<none>:<none>").collect();
            let names = if tags.is_empty() { vec![image.id] } else { tags };
            let old = |name: &String| {
                !current.contains(name) && (name.starts_with("autoresearch/") || name.starts_with("sha256:"))
            };
            for name in names.into_iter().filter(old) {
                if remove(docker, &name).await? {
                    pruned.push(Pruned { name, size_bytes });
                }
            }
        }
        Ok(pruned)
    }
}

/// Whether it is gone by our doing.
async fn remove(docker: &Docker, name: &str) -> Result<bool, ImageError> {
    match docker.remove_image(name, None::<RemoveImageOptions>, None).await {
        Ok(_) => Ok(true),
        Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
        Err(EngineError::DockerResponseServerError { status_code: 409, message }) => {
            tracing::info!(image = name, reason = message, "kept: it is in use");
            Ok(false)
        }
        Err(error) => Err(ImageError::engine("remove", name, error)),
    }
}
