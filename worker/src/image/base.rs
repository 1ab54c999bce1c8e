//! The base that every image is built on: Debian 12, from a registry where one answers, else made here. Both roads
//! give Debian's own Python, so that a program sees the same one on both.

use std::{collections::HashMap, path::Path, time::Duration};

use bollard::{
    Docker,
    errors::Error as EngineError,
    query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder},
};
use futures_util::StreamExt as _;
use kit::{digest::Digest, task::CancellationToken};

use super::{
    debootstrap::{self, DebootstrapError},
    error::ImageError,
    process::RunError,
    progress::Progress,
};

/// Debian's slim image, pinned by digest: what a tag names tomorrow is no part of a recipe.
const REGISTRY_BASE: &str = "debian:bookworm-slim";
const REGISTRY_DIGEST: &str = "sha256:d5d3f9c23164ea16f31852f95bd5959aad1c5e854332fe00f7b3a20fcc9f635c";
/// A registry that says nothing for so long is none: behind a firewall that drops packets, the engine itself would
/// wait for minutes.
const REGISTRY_SILENCE: Duration = Duration::from_secs(30);
/// Of every image of ours: the digest of what it was made from.
pub(super) const RECIPE_LABEL: &str = "autoresearch.recipe";
const REPOSITORY: &str = "autoresearch/base";

/// Of the base that is made here.
pub(super) fn recipe() -> Digest {
    Digest::of(format!("debootstrap 1 {} {}", debootstrap::SUITE, debootstrap::PACKAGES).as_bytes())
}

/// Of the base that is made here, in the engine.
pub(super) fn tag() -> String {
    format!("{REPOSITORY}:{}", recipe().short())
}

/// What a Dockerfile's `FROM` may name. The caller holds the lock on `cache`.
///
/// # Errors
/// [`ImageError::NoBase`] where both roads are shut, with the reason of each.
pub(super) async fn find_or_make(
    docker: &Docker,
    cache: &Path,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<String, ImageError> {
    let pinned = format!("{REGISTRY_BASE}@{REGISTRY_DIGEST}");
    if is_there(docker, &pinned).await? {
        return Ok(pinned);
    }
    let made = tag();
    if is_made(docker, &made).await? {
        return Ok(made);
    }
    progress.step("base", 0, 0, &format!("asking for {REGISTRY_BASE}"));
    let registry = match pull(docker, &pinned, progress, stop).await {
        Ok(()) => return Ok(pinned),
        Err(reason) => reason,
    };
    tracing::info!(%registry, "no registry gave the base image: making Debian here");
    progress.step("base", 0, 0, "no registry answers: making Debian here");
    let no_base = |error: &dyn std::error::Error| ImageError::NoBase {
        reference: REGISTRY_BASE.to_owned(),
        registry: registry.clone(),
        debootstrap: with_causes(error),
    };
    let root = match debootstrap::make(cache, progress, stop).await {
        Ok(root) => root,
        Err(DebootstrapError::Run(RunError::Stopped)) => {
            return Err(ImageError::Stopped { name: "base".to_owned() });
        }
        Err(error) => return Err(no_base(&error)),
    };
    progress.step("base", 1, 1, "handing Debian to the engine");
    let (stream, mut tar) = root.stream().map_err(|error| no_base(&error))?;
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(REPOSITORY)
        .tag(&recipe().short())
        .message("Debian, made by debootstrap")
        .changes(vec![format!("LABEL {RECIPE_LABEL}={}", recipe())])
        .build();
    let mut answers = docker.create_image(Some(options), Some(bollard::body_try_stream(stream)), None);
    while let Some(answer) = answers.next().await {
        answer.map_err(|e| ImageError::engine("import", &made, e))?;
    }
    // The engine takes a tar that was cut short between two files for a whole one: tar's own word decides.
    let ended = tar.wait().await.map_err(|e| ImageError::io("read the tar of", cache, e))?;
    if !ended.success() {
        discard(docker, &made).await;
        return Err(ImageError::io(
            "read the tar of",
            cache,
            std::io::Error::other(format!("tar ended with {ended}")),
        ));
    }
    Ok(made)
}

async fn discard(docker: &Docker, reference: &str) {
    if let Err(error) =
        docker.remove_image(reference, None::<bollard::query_parameters::RemoveImageOptions>, None).await
    {
        tracing::warn!(reference, %error, "a broken base image stays");
    }
}

async fn is_there(docker: &Docker, reference: &str) -> Result<bool, ImageError> {
    match docker.inspect_image(reference).await {
        Ok(_) => Ok(true),
        Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
        Err(error) => Err(ImageError::engine("inspect", reference, error)),
    }
}

async fn is_made(docker: &Docker, reference: &str) -> Result<bool, ImageError> {
    let filters = HashMap::from([
        ("reference", vec![reference.to_owned()]),
        ("label", vec![format!("{RECIPE_LABEL}={}", recipe())]),
    ]);
    let options = ListImagesOptionsBuilder::new().filters(&filters).build();
    let found =
        docker.list_images(Some(options)).await.map_err(|e| ImageError::engine("list", reference, e))?;
    Ok(!found.is_empty())
}

/// Asks a registry. The reason why not is a text: whatever it is, another road is tried or a person reads it.
pub(super) async fn pull(
    docker: &Docker,
    reference: &str,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<(), String> {
    let options = CreateImageOptionsBuilder::new().from_image(reference).build();
    let mut answers = docker.create_image(Some(options), None, None);
    loop {
        let next = tokio::time::timeout(REGISTRY_SILENCE, answers.next());
        let answer = stop.run_until_cancelled(next).await.ok_or("stopped")?;
        match answer.map_err(|_| format!("nothing for {} s", REGISTRY_SILENCE.as_secs()))? {
            None => return Ok(()),
            Some(Err(error)) => return Err(kit::text::one_line(&error.to_string(), 300)),
            Some(Ok(info)) => progress.step("base", 0, 0, info.status.as_deref().unwrap_or("pulling")),
        }
    }
}

/// An error and what is behind it, in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
