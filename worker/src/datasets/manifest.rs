//! What a name stands for: the record of one data set, and the digest of a folder.

use kit::digest::{Digest, Hasher};
use serde::{Deserialize, Serialize};

/// Of the manifest's format.
pub(super) const VERSION: u32 = 1;
/// Where data sets are seen inside.
const MOUNTED: &str = "/data";
/// Files that the manifest names, for a planner; the rest is counted.
pub(super) const NAMED_MAX: usize = 16;
/// Of a description, in characters.
pub(super) const DESCRIPTION_MAX: usize = 1000;
/// Of what is told to a planner, in characters: all data sets go into one message of 4 MiB.
const TOLD_MAX: usize = 2000;
/// Before the list of a folder, so that its digest is no file's.
const FOLDER_PREFIX: &[u8] = b"autoresearch-data-set-1\n";

/// One file of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Below the data set, with `/`.
    pub path: String,
    /// Its length.
    pub size_bytes: u64,
    /// Its SHA-256.
    pub digest: Digest,
}

/// What a program is given by `ar.dataset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Shape {
    /// The path of one file with this name.
    File(String),
    /// The path of a folder.
    Folder,
}

/// The record of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub(super) version: u32,
    /// `[a-z0-9][a-z0-9._-]{0,62}`.
    pub name: String,
    /// Of a file its SHA-256; of a folder that of the sorted list of its files.
    pub digest: Digest,
    /// File or folder.
    pub shape: Shape,
    /// Of all files.
    pub size_bytes: u64,
    /// How many.
    pub files: u32,
    /// The first files by name, [`NAMED_MAX`] at most.
    pub first_files: Vec<FileEntry>,
    /// For a planner; one line.
    pub description: String,
    /// As its publisher says; empty where nobody said.
    pub licence: String,
    /// Where it came from, without what may be a secret in an address.
    pub source: String,
    /// Since 1970.
    pub added_wall_ns: i64,
    /// Of the file system that holds it, which is also that file's name.
    pub image_digest: Digest,
    /// Its length.
    pub image_bytes: u64,
}

impl Manifest {
    /// Where its file system is seen inside.
    #[must_use]
    pub fn target(&self) -> String {
        format!("{MOUNTED}/{}", self.name)
    }

    /// What `ar.dataset` gives.
    #[must_use]
    pub fn path_inside(&self) -> String {
        match &self.shape {
            Shape::File(file) => format!("{}/{file}", self.target()),
            Shape::Folder => self.target(),
        }
    }

    /// As the protocol says it. A planner that is to write a program must know the files' names, so they are told with
    /// the description.
    #[must_use]
    pub fn wire(&self) -> proto::v1::DataSet {
        proto::v1::DataSet {
            name: self.name.clone(),
            digest: self.digest.to_string(),
            size_bytes: self.size_bytes,
            files: self.files,
            description: kit::text::one_line(&format!("{} {}", self.description, self.layout()), TOLD_MAX),
        }
    }

    fn layout(&self) -> String {
        let names: Vec<&str> = self.first_files.iter().map(|file| file.path.as_str()).collect();
        let more = u64::from(self.files).saturating_sub(names.len() as u64);
        match &self.shape {
            Shape::File(name) => format!("`ar.dataset` gives the path of one file, {name}."),
            Shape::Folder if more == 0 => {
                format!("`ar.dataset` gives the path of a folder with: {}.", names.join(", "))
            }
            Shape::Folder => {
                let names = names.join(", ");
                format!("`ar.dataset` gives the path of a folder with {names} and {more} files more.")
            }
        }
    }
}

/// The digest of a folder: the SHA-256 of `autoresearch-data-set-1\n` and, for each file in the order of its path's
/// bytes, `SIZE SHA256 PATH\n`. No path holds a newline, so no two folders give one text.
#[must_use]
pub(super) fn folder_digest(files: &[FileEntry]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(FOLDER_PREFIX);
    for file in files {
        hasher.update(format!("{} {} {}\n", file.size_bytes, file.digest.hex(), file.path).as_bytes());
    }
    hasher.finish()
}
