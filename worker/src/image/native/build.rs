//! Makes one root: Debian, then the recipe's steps inside it, then what must hold of every root.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use kit::{digest::Digest, folder, size::Bytes, task::CancellationToken};

use super::{Record, SCHEMA, Shared, find, record_path, root_digest, tree};
use crate::image::{
    Image, base, debootstrap,
    debootstrap::DebootstrapError,
    error::ImageError,
    handover::Handover,
    namespace::{self, Access, User},
    prepare::{BASE_DISK_NEEDED, check_space, lock},
    process::{self, RunError},
    progress::{ImageStep, Progress},
    recipe::{Recipe, STEPS, Step},
    rootless::{self, Order, OrderError},
    settings::HostSettings,
};

pub(super) async fn prepare(
    shared: &Shared,
    recipe: &'static Recipe,
    progress: &Progress,
) -> Result<Image, ImageError> {
    if !nix::unistd::geteuid().is_root() {
        return without_root(shared, recipe, progress).await;
    }
    folder::create_private(&shared.folder)?;
    let _held = lock(&shared.folder, recipe.name, recipe.name, progress, &shared.stop).await?;
    // Another process may have built it while we waited.
    if let Some(image) = find(&shared.folder, recipe) {
        return Ok(image);
    }
    let prefix = format!("building-{}-", recipe.name);
    let (swept, digest) = (shared.folder.clone(), root_digest(recipe));
    let building = swept.join(format!("{prefix}{}", std::process::id()));
    let made = building.clone();
    on_disk("clear", &shared.folder, recipe, move || {
        tree::sweep(&swept, &prefix)?;
        // Without a record it was not finished, or is another version's.
        tree::remove(&swept.join(digest.hex()))?;
        fs::DirBuilder::new().mode(0o700).create(&made)
    })
    .await?;
    check_space(recipe.name, &shared.folder, Bytes(recipe.disk_needed.0 + BASE_DISK_NEEDED.0))?;
    let result = make(&building, recipe, progress, &shared.stop).await;
    let result = match result {
        Ok(root) => publish(shared, recipe, digest, root, progress).await,
        Err(error) => Err(error),
    };
    let left = building.clone();
    let removed = on_disk("remove", &building, recipe, move || tree::remove(&left)).await;
    if let Err(error) = removed {
        tracing::warn!(%error, "a folder of a build stays until the next one");
    }
    result
}

/// The same as root of a namespace of the user's own.
async fn without_root(
    shared: &Shared,
    recipe: &'static Recipe,
    progress: &Progress,
) -> Result<Image, ImageError> {
    let cache = shared.folder.parent().unwrap_or(&shared.folder).to_owned();
    // Its own mode, whatever our umask says; and the namespace's root is us.
    folder::create_private(&shared.folder)?;
    let order = Order::Build { cache, name: recipe.name.to_owned() };
    let step = |step: ImageStep| progress.step(step.name, step.done, step.total, &step.line);
    match rootless::order(&order, step, &shared.stop).await {
        Ok(_) => find(&shared.folder, recipe).ok_or_else(|| {
            ImageError::io("find", &shared.folder, io::Error::other("it was made and is not there"))
        }),
        Err(OrderError::Stopped) => Err(ImageError::Stopped { name: recipe.name.to_owned() }),
        Err(OrderError::Failed(reason)) => Err(ImageError::NoRoot { name: recipe.name.to_owned(), reason }),
    }
}

/// Disk work off the event loop.
async fn on_disk<T: Send + 'static>(
    verb: &'static str,
    path: &Path,
    recipe: &Recipe,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ImageError> {
    let done = kit::task::blocking("root file system", work).await;
    let stopped = || ImageError::Stopped { name: recipe.name.to_owned() };
    done.ok_or_else(stopped)?.map_err(|e| ImageError::io(verb, path, e))
}

/// The root, whole but neither checked nor in its place.
async fn make(
    building: &Path,
    recipe: &'static Recipe,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<PathBuf, ImageError> {
    let stopped = || ImageError::Stopped { name: recipe.name.to_owned() };
    progress.step("base", 0, 0, "making Debian");
    let root = match debootstrap::make_in(building, progress, stop).await {
        Ok(root) => root,
        Err(DebootstrapError::Run(RunError::Stopped)) => return Err(stopped()),
        Err(error) => {
            let reason = base::with_causes(&error);
            return Err(ImageError::NoRoot { name: recipe.name.to_owned(), reason });
        }
    };
    let scratch = building.join("tmp");
    let (ready, made) = (root.clone(), scratch.clone());
    on_disk("prepare", &root, recipe, move || {
        tree::neutral(&ready)?;
        fs::DirBuilder::new().mode(0o700).create(&made)
    })
    .await?;
    let settings = HostSettings::read();
    let handover = Handover::start(&settings).await?;
    let total = STEPS.len() as u64;
    for (done, step) in (0..).zip(STEPS) {
        progress.step("build", done, total, &step.to_string());
        match step {
            Step::Copy { from, to } => copy(recipe, from, &root, to)?,
            Step::Run(words) => {
                let failed = |message: String, output: String| ImageError::Build {
                    name: recipe.name.to_owned(),
                    step: step.to_string(),
                    message,
                    output,
                };
                // On disk: pip unpacks gigabytes beside what it installs.
                let folders = [(scratch.clone(), "/tmp".to_owned())];
                let mut command = namespace::inside(&root, Access::ReadWrite, User::Owner, &folders)
                    .map_err(|e| failed(e.to_string(), String::new()))?;
                command.args(words).env("HOME", "/root").envs(settings.proxies());
                command.env(Handover::VARIABLE, handover.address());
                let line = |line: &str| progress.step("build", done, total, line);
                match process::run(command, words[0], line, stop).await {
                    Ok(ended) if ended.status.success() => {}
                    Ok(ended) => return Err(failed(ended.status.to_string(), ended.output)),
                    Err(RunError::Stopped) => return Err(stopped()),
                    Err(error) => return Err(failed(base::with_causes(&error), String::new())),
                }
            }
        }
    }
    Ok(root)
}

fn copy(recipe: &Recipe, from: &str, root: &Path, to: &str) -> Result<(), ImageError> {
    for (name, text) in recipe.files_below(from) {
        let path = root.join(to.trim_start_matches('/')).join(name);
        let write = || {
            if let Some(parent) = path.parent() {
                tree::make_folders(root, parent)?;
            }
            tree::write(&path, text)
        };
        write().map_err(|e| ImageError::io("write", &path, e))?;
    }
    Ok(())
}

/// Checked, synced, and under its name.
async fn publish(
    shared: &Shared,
    recipe: &'static Recipe,
    digest: Digest,
    root: PathBuf,
    progress: &Progress,
) -> Result<Image, ImageError> {
    let total = STEPS.len() as u64;
    progress.step("build", total, total, "looking through the files");
    let target = shared.folder.join(digest.hex());
    let record = record_path(&shared.folder, &digest);
    let place = target.clone();
    on_disk("finish", &target, recipe, move || {
        tree::neutral(&root)?;
        let size_bytes = tree::settle(&root)?;
        tree::sync(&root)?;
        let text = Record { schema: SCHEMA, name: recipe.name.to_owned(), size_bytes };
        folder::replace(&record, &serde_json::to_vec(&text)?).map_err(io::Error::other)?;
        fs::rename(&root, &place)?;
        folder::sync_parent(&place)
    })
    .await?;
    find(&shared.folder, recipe).ok_or_else(|| {
        ImageError::io(
            "find",
            target,
            io::Error::other("it was made and is not there: is another worker older?"),
        )
    })
}
