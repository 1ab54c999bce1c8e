//! What can go wrong with an image. One enum, because every verb of this room ends at the same two places: the
//! status of `PrepareImage` and the reason of a run that is `lost`. It is `Clone`, because one build has many callers.

use std::{io, path::PathBuf, sync::Arc};

use kit::size::Bytes;

/// Why there is no image.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    /// The name is not on the allow-list.
    #[error("there is no image `{name}`; this worker has: {known}")]
    Unknown {
        /// As asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The engine refused or did not answer.
    #[error("the container engine could not {verb} {object}")]
    Engine {
        /// "build", "inspect", …
        verb: &'static str,
        /// The image or folder at hand.
        object: String,
        /// The engine's own word.
        source: Arc<bollard::errors::Error>,
    },
    /// The image in the engine has something that would weaken a sandbox.
    #[error("the image {tag} {reason}: remove it with `docker rmi {tag}` and build it again")]
    Refused {
        /// Its tag.
        tag: String,
        /// What it has.
        reason: String,
    },
    /// An image of the user's that cannot be a sandbox's.
    #[error("the image {reference} {reason}")]
    Unfit {
        /// As it was named.
        reference: String,
        /// What it has or has not, and what to do.
        reason: String,
    },
    /// An image of the user's that is nowhere.
    #[error(
        "the image {reference} is neither in the engine nor in a registry ({registry}): build or pull it first"
    )]
    NotThere {
        /// As it was named.
        reference: String,
        /// Why no registry gave it.
        registry: String,
    },
    /// An image that was added, and that the engine has no more.
    #[error(
        "the image `{name}` was added as {reference} ({id}), and the engine does not have that any more: \
         `autoresearch-worker image remove {name}`, then `image add {name} {reference}`"
    )]
    Gone {
        /// Its name.
        name: String,
        /// What it was added as.
        reference: String,
        /// Of its content.
        id: String,
    },
    /// The name is another image's.
    #[error("`{name}` is already the name of {reference}: `autoresearch-worker image remove {name}` first")]
    Taken {
        /// The name.
        name: String,
        /// What it was added as.
        reference: String,
    },
    /// What was asked for cannot be on the allow-list.
    #[error("{0}")]
    NotAllowed(String),
    /// The file of added images.
    #[error("{}: {reason}", path.display())]
    AllowList {
        /// The file.
        path: PathBuf,
        /// The field and what is wrong with it.
        reason: String,
    },
    /// The disk cannot take it.
    #[error(
        "the image `{name}` needs {need} in {}, and {free} are free: make room, or move that folder",
        path.display()
    )]
    DiskSpace {
        /// The image.
        name: String,
        /// The folder that would fill up.
        path: PathBuf,
        /// While building.
        need: Bytes,
        /// Now.
        free: Bytes,
    },
    /// A step of the build ended in an error.
    #[error("building the image `{name}` failed at `{step}`: {message}\n{output}")]
    Build {
        /// The image.
        name: String,
        /// The step as the engine printed it.
        step: String,
        /// The engine's own word.
        message: String,
        /// The last lines that it printed.
        output: String,
    },
    /// No registry answered, and Debian could not be made here either.
    #[error("no base image: no registry gave {reference} ({registry}), and {debootstrap}")]
    NoBase {
        /// What was asked of the registry.
        reference: String,
        /// Why that did not do.
        registry: String,
        /// Why the other road did not do, and what to do.
        debootstrap: String,
    },
    /// No root file system can be made on this machine.
    #[error("no root file system for the image `{name}`: {reason}")]
    NoRoot {
        /// The image.
        name: String,
        /// What is missing, and what to do.
        reason: String,
    },
    /// A file or folder of the build.
    #[error("cannot {verb} {}", path.display())]
    Io {
        /// "create the folder", …
        verb: &'static str,
        /// The path at fault.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// The worker is going down, or its build task died.
    #[error("the build of the image `{name}` was stopped")]
    Stopped {
        /// The image.
        name: String,
    },
}

impl ImageError {
    /// An I/O error about `path`.
    pub fn io(verb: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { verb, path: path.into(), source: Arc::new(source) }
    }

    /// For who puts the image's name before it: a root's own reason, else the whole text.
    pub(super) fn without_name(&self) -> String {
        match self {
            Self::NoRoot { reason, .. } => reason.clone(),
            other => super::base::with_causes(other),
        }
    }

    pub(super) fn engine(verb: &'static str, object: &str, source: bollard::errors::Error) -> Self {
        Self::Engine { verb, object: object.to_owned(), source: Arc::new(source) }
    }

    /// Whether the same call may do better later with nobody doing anything: the engine was away, or we stopped.
    /// A failed step is not: pip has tried five times by then.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Engine { source, .. } => match source.as_ref() {
                bollard::errors::Error::DockerResponseServerError { status_code, .. } => *status_code >= 500,
                bollard::errors::Error::DockerStreamError { .. } => false,
                _ => true,
            },
            Self::Stopped { .. } => true,
            Self::Unknown { .. }
            | Self::Refused { .. }
            | Self::Unfit { .. }
            | Self::NotThere { .. }
            | Self::Gone { .. }
            | Self::Taken { .. }
            | Self::NotAllowed(_)
            | Self::AllowList { .. }
            | Self::DiskSpace { .. }
            | Self::Build { .. }
            | Self::NoBase { .. }
            | Self::NoRoot { .. }
            | Self::Io { .. } => false,
        }
    }
}

impl From<kit::folder::FolderError> for ImageError {
    fn from(error: kit::folder::FolderError) -> Self {
        match error {
            kit::folder::FolderError::Io { verb, path, source } => Self::io(verb, path, source),
            kit::folder::FolderError::Locked { path, pid } => {
                Self::io("lock", path, io::Error::other(format!("process {pid} has it")))
            }
            kit::folder::FolderError::NoHome(_) => {
                Self::io("find", "the cache folder", io::Error::other(error))
            }
        }
    }
}
