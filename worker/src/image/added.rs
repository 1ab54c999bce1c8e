//! An image of the user's, made fit for runs: the image as it was when it was added, found by its content id and by no
//! name, and on it the last step of our own recipes. What is made is found by the digest of both.

use bollard::{Docker, errors::Error as EngineError};
use kit::{
    digest::{Digest, Hasher},
    task::CancellationToken,
};

use super::{
    Entry, Image, Shared, allow::Added, base, build, error::ImageError, find, prepare::lock,
    progress::Progress, recipe::RUNNER_FILES, refuse::refuse,
};

/// The classic builder must do. The program is named with its place and without a shell: an image may have none, and
/// `python3` may be another one than the sandbox starts.
const DOCKERFILE: &str = r#"ARG BASE
FROM ${BASE}
USER 0:0
WORKDIR /
COPY runner/ /opt/autoresearch/
RUN ["/usr/bin/python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "/opt/autoresearch"]
"#;
/// The repository of all of them; the tag is of the digest.
const REPOSITORY: &str = "autoresearch/added";
/// In the place of a recipe's name: the same image may have been added under two names.
pub(super) const LABEL: &str = "added";

impl Added {
    fn files() -> impl Iterator<Item = (&'static str, &'static str)> {
        [("Dockerfile", DOCKERFILE)].into_iter().chain(RUNNER_FILES)
    }

    /// Of what was added and of all that is put on it.
    pub(super) fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(format!("added {}\n", self.content_id).as_bytes());
        for (name, text) in Self::files() {
            hasher.update(format!("{name} {}\n", text.len()).as_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finish()
    }

    pub(super) fn tag(&self) -> String {
        format!("{REPOSITORY}:{}", self.digest().short())
    }
}

/// The image in the engine that a reference means now: what is there, else what a registry gives.
///
/// # Errors
/// Where neither has it, or it would weaken a sandbox.
pub(super) async fn resolve(
    docker: &Docker,
    reference: &str,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Digest, ImageError> {
    let missing = |registry: String| ImageError::NotThere { reference: reference.to_owned(), registry };
    if let Some(id) = content(docker, reference).await? {
        return Ok(id);
    }
    if reference.parse::<Digest>().is_ok() {
        return Err(missing("a content id is not asked for in registries".to_owned()));
    }
    let full = with_tag(reference);
    progress.step("base", 0, 0, &format!("asking for {full}"));
    base::pull(docker, &full, progress, stop).await.map_err(missing)?;
    content(docker, &full).await?.ok_or_else(|| missing("it was pulled and is not there".to_owned()))
}

/// Without a tag the engine would pull every one there is.
fn with_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or_default();
    if last.contains(':') || last.contains('@') {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    }
}

/// The content id of what is in the engine, checked.
async fn content(docker: &Docker, reference: &str) -> Result<Option<Digest>, ImageError> {
    let inspected = match docker.inspect_image(reference).await {
        Ok(inspected) => inspected,
        Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
        Err(error) => return Err(ImageError::engine("inspect", reference, error)),
    };
    if let Some(reason) = refuse(&inspected.config.unwrap_or_default()) {
        return Err(ImageError::Unfit { reference: reference.to_owned(), reason });
    }
    match inspected.id.unwrap_or_default().parse() {
        Ok(id) => Ok(Some(id)),
        Err(_) => {
            Err(ImageError::Unfit { reference: reference.to_owned(), reason: "has no content id".to_owned() })
        }
    }
}

/// The image for runs, built where it is not there yet.
pub(super) async fn prepare(
    shared: &Shared,
    added: &Added,
    progress: &Progress,
) -> Result<Image, ImageError> {
    kit::folder::create_private(&shared.cache)?;
    let _held =
        lock(&shared.cache, &added.name, &format!("added-{}", added.name), progress, &shared.stop).await?;
    let entry = Entry::Added(added.clone());
    if let Some(image) = find(&shared.docker, &entry).await? {
        return Ok(image);
    }
    let id = added.content_id.to_string();
    if content(&shared.docker, &id).await?.is_none() {
        return Err(ImageError::Gone { name: added.name.clone(), reference: added.reference.clone(), id });
    }
    let order = build::Order {
        name: &added.name,
        label: LABEL,
        digest: added.digest(),
        tag: added.tag(),
        base: &id,
        context: super::recipe::context(Added::files())
            .map_err(|e| ImageError::io("make the context of", &added.name, e))?,
        network: build::Network::None,
    };
    progress.step("build", 0, 0, &format!("putting the runner on {}", added.reference));
    match build::build(&shared.docker, order, progress, &shared.stop).await {
        Err(ImageError::Build { message, output, .. }) => Err(ImageError::Unfit {
            reference: added.reference.clone(),
            reason: format!("has no /usr/bin/python3 that can compile the runner: {message}\n{output}"),
        }),
        Err(error) => Err(error),
        Ok(()) => find(&shared.docker, &entry).await?.ok_or_else(|| ImageError::Build {
            name: added.name.clone(),
            step: "the last step".to_owned(),
            message: "the engine says that it built the image and does not have it".to_owned(),
            output: String::new(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tag_is_asked_for() {
        for (reference, full) in [
            ("python", "python:latest"),
            ("python:3.12", "python:3.12"),
            ("house.example:5000/python", "house.example:5000/python:latest"),
            ("python@sha256:00", "python@sha256:00"),
        ] {
            assert_eq!(with_tag(reference), full);
        }
    }

    #[test]
    fn a_digest_is_of_the_content_and_of_no_name() {
        let one = Added {
            name: "one".to_owned(),
            reference: "x".to_owned(),
            content_id: Digest::of(b"1"),
            description: String::new(),
        };
        let renamed = Added { name: "two".to_owned(), reference: "y".to_owned(), ..one.clone() };
        assert_eq!(one.digest(), renamed.digest());
        assert_ne!(one.digest(), Added { content_id: Digest::of(b"2"), ..one }.digest());
    }
}
