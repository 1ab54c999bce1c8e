//! Data sets: files that stay on the worker and that a run sees read-only at `/data/NAME`.
//!
//! What belongs here: taking a data set in (from a path, an address or the catalogue), keeping it, lending it to runs. What
//! a run does with it belongs in `run`; mounting belongs in `sandbox`.
//!
//! ```text
//! DATA_DIR/datasets/lock            held for the short moment in which names or images change
//! DATA_DIR/datasets/NAME.json       what the name stands for: a Manifest, replaced whole
//! DATA_DIR/datasets/images/HEX      one ext4 file system, named by its own SHA-256, never written again
//! DATA_DIR/datasets/staging/ID/     an addition under way, with a lock of its own
//! ```
//!
//! Why an ext4 file and not a folder: a folder would have to be bound into the sandbox, and a bind's source stands in
//! the program's `mountinfo`. A file system on a loop device says nothing of the host, is read-only below the mount,
//! serves any number of sandboxes, and goes on serving them when its name is removed.
//!
//! Nothing is ever unpacked by a path that an archive names. An archive stays one file, which the program opens itself
//! inside its sandbox (`zipfile`, `tarfile`, `gzip`); only the catalogue can say that one member of a zip becomes one
//! file, under the name that the catalogue gives it.

/// Taking one in, from the request to its place in the store.
pub mod add;
/// Where the well-known ones come from.
pub mod catalogue;
mod error;
mod extract;
mod fetch;
mod image;
mod manifest;
mod store;
#[cfg(test)]
mod tests;
mod walk;

pub use error::DataSetError;
pub use fetch::FetchRules;
pub use manifest::{FileEntry, Manifest, Shape};
pub use store::{Committed, Lent, LentImage, Removed, Replace, Store};

/// Told how far a long step is: its name, bytes done, bytes in all where they are known.
pub type Progress<'a> = &'a (dyn Fn(&str, u64, Option<u64>) + Send + Sync);

/// What a data set may be; more is refused with the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of all its files.
    pub bytes: u64,
    /// How many.
    pub files: u32,
}

impl Bounds {
    /// So many bytes, and as many files as ImageNet has twice over.
    #[must_use]
    pub fn of(bytes: u64) -> Self {
        Self { bytes, files: 3_000_000 }
    }
}
