//! The job that ends with an image: under a lock that all workers of this user share, so that two that start together
//! build once, and no two make Debian in one folder.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kit::{
    folder::{self, FolderError, Lock},
    size::Bytes,
    task::CancellationToken,
};
use nix::sys::statvfs::statvfs;

use super::{Entry, Image, Shared, base, build, error::ImageError, find, progress::Progress, recipe::Recipe};

/// How often a lock that another process holds is tried.
const LOCK_POLL: Duration = Duration::from_millis(500);
/// A Debian root, beside the engine's own copy of it.
pub(super) const BASE_DISK_NEEDED: Bytes = Bytes(1 << 30);

pub(super) async fn prepare(
    shared: &Shared,
    recipe: &'static Recipe,
    progress: &Progress,
) -> Result<Image, ImageError> {
    folder::create_private(&shared.cache)?;
    let _held = lock(&shared.cache, recipe.name, recipe.name, progress, &shared.stop).await?;
    // Another process may have built it while we waited.
    if let Some(image) = find(&shared.docker, &Entry::Recipe(recipe)).await? {
        return Ok(image);
    }
    if let Some(path) = engine_folder(shared).await? {
        check_space(recipe.name, &path, recipe.disk_needed)?;
    }
    let base = {
        // The base is shared by all images.
        let _held = lock(&shared.cache, recipe.name, "base", progress, &shared.stop).await?;
        check_space(recipe.name, &shared.cache, BASE_DISK_NEEDED)?;
        base::find_or_make(&shared.docker, &shared.cache, progress, &shared.stop).await?
    };
    progress.step("build", 0, 0, &format!("building on {base}"));
    let order = build::Order::of_recipe(recipe, &base)?;
    build::build(&shared.docker, order, progress, &shared.stop).await?;
    find(&shared.docker, &Entry::Recipe(recipe)).await?.ok_or_else(|| ImageError::Build {
        name: recipe.name.to_owned(),
        step: "the last step".to_owned(),
        message: "the engine says that it built the image and does not have it".to_owned(),
        output: String::new(),
    })
}

/// The lock `NAME.lock` in a folder that all workers of this user share.
pub(super) async fn lock(
    folder: &Path,
    image: &str,
    name: &str,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Lock, ImageError> {
    let path = folder.join(format!("{name}.lock"));
    loop {
        match Lock::take(&path) {
            Ok(held) => return Ok(held),
            Err(FolderError::Locked { pid, .. }) => {
                progress.step("wait", 0, 0, &format!("process {pid} is building the image"));
            }
            Err(other) => return Err(other.into()),
        }
        if stop.run_until_cancelled(tokio::time::sleep(LOCK_POLL)).await.is_none() {
            return Err(ImageError::Stopped { name: image.to_owned() });
        }
    }
}

/// Where the engine keeps images, if that is a folder of this machine.
async fn engine_folder(shared: &Shared) -> Result<Option<PathBuf>, ImageError> {
    let info = shared.docker.info().await.map_err(|e| ImageError::engine("describe", "itself", e))?;
    Ok(info.docker_root_dir.map(PathBuf::from).filter(|path| path.is_dir()))
}

pub(super) fn check_space(name: &str, path: &Path, need: Bytes) -> Result<(), ImageError> {
    let found = statvfs(path).map_err(|e| ImageError::io("measure", path, e.into()))?;
    let free = Bytes(found.blocks_available().saturating_mul(found.fragment_size()));
    if free < need {
        return Err(ImageError::DiskSpace { name: name.to_owned(), path: path.to_owned(), need, free });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_with_what_is_needed() {
        assert!(check_space("torch", Path::new("/"), Bytes(1)).is_ok());
        let error = check_space("torch", Path::new("/"), Bytes(1 << 60)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("`torch` needs 1024PiB in /") || text.contains("in /,"), "{text}");
        assert!(!error.is_retryable());
    }
}
