//! Why a data set could not be taken in, found or lent, each with what to do.

use std::path::{Path, PathBuf};

use kit::{digest::Digest, folder::FolderError, name::NameError, size::Bytes};

/// Why.
#[derive(Debug, thiserror::Error)]
pub enum DataSetError {
    /// Of a data set.
    #[error("`{name}` is no name for a data set: {source}")]
    Name {
        /// As given.
        name: String,
        /// What a name is.
        source: NameError,
    },
    /// Neither here nor, where nothing else was given, in the catalogue.
    #[error("there is no data set `{name}`; there are: {known}")]
    Unknown {
        /// As given.
        name: String,
        /// With commas.
        known: String,
    },
    /// Another content has the name.
    #[error(
        "`{name}` is another data set already ({there}; this one is {new}): give another name, or --replace"
    )]
    Taken {
        /// Which one.
        name: String,
        /// That has the name.
        there: Digest,
        /// That was to have it.
        new: Digest,
    },
    /// As many names as there may be.
    #[error("there are {0} data sets already, the most that a worker keeps: remove some")]
    Many(usize),
    /// Something in a folder that is not taken.
    #[error("{}: {problem}", .path.display())]
    Entry {
        /// Below the folder, with what no terminal should print escaped.
        path: PathBuf,
        /// What it is, and what is wanted.
        problem: String,
    },
    /// More than may be.
    #[error("{what} is more than {limit}, the most that a data set may have here (`datasets.largest`)")]
    TooLarge {
        /// "the file at …"
        what: String,
        /// Bytes.
        limit: Bytes,
    },
    /// The disk would be full.
    #[error("{wanted} are needed while it is made, and {free} are free")]
    NoRoom {
        /// For the files and for the image that is made of them.
        wanted: Bytes,
        /// Now.
        free: Bytes,
    },
    /// Other bytes than those that were named.
    #[error("{what} has the {kind} {found}, and {wanted} was named: nothing was kept")]
    Digest {
        /// "the file at …"
        what: String,
        /// "SHA-256", "MD5", "size".
        kind: &'static str,
        /// Named.
        wanted: String,
        /// Computed.
        found: String,
    },
    /// An address that cannot be used.
    #[error("{url}: {problem}")]
    Url {
        /// Without what may be a secret in it.
        url: String,
        /// What is wrong, or what the server said.
        problem: String,
    },
    /// A member of an archive.
    #[error("{member} of {}: {problem}", .archive.display())]
    Member {
        /// The archive's file.
        archive: PathBuf,
        /// Its name in it.
        member: String,
        /// What is wrong.
        problem: String,
    },
    /// The catalogue's text.
    #[error("the catalogue cannot be read: {0}")]
    Catalogue(String),
    /// A tool of e2fsprogs.
    #[error("{0}")]
    Tool(String),
    /// What lies in the store is not what was put there.
    #[error("data set `{name}` is damaged: {problem}; add it again")]
    Damaged {
        /// Which one.
        name: String,
        /// What was found.
        problem: String,
    },
    /// Another process changes the store for longer than it should take.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The work was stopped.
    #[error("the worker failed at it; see its log")]
    Stopped,
}

impl DataSetError {
    /// Whether the request itself is wrong, on any machine.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Name { .. } | Self::Catalogue(_))
    }

    pub(super) fn io(verb: &'static str, path: &Path, source: std::io::Error) -> Self {
        FolderError::io(verb, path, source).into()
    }

    pub(super) fn entry(path: &str, problem: impl Into<String>) -> Self {
        let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        let path: String = path.chars().map(escaped).collect();
        Self::Entry { path: PathBuf::from(kit::text::one_line(&path, 300)), problem: problem.into() }
    }
}
