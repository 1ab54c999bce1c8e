//! Layers and requests on disk. A layer comes under its name when it is whole and synced, and changes no more. The least
//! recently used go where the bound is passed, but none that a run holds.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use kit::{digest::Digest, folder::FolderError};
use serde::{Deserialize, Serialize};

use super::lock::{Lock, Package};

/// Of a request's file; another version's counts as not there.
const SCHEMA: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestFile {
    schema: u32,
    image_id: String,
    requirements: Vec<String>,
    lock: Lock,
}

#[derive(Debug)]
pub(super) struct Cache {
    requests: PathBuf,
    layers: PathBuf,
    work: PathBuf,
    bound: u64,
    held: Arc<Mutex<HashMap<Digest, usize>>>,
}

/// A layer that is not removed while this lives.
#[derive(Debug)]
pub struct HeldLayer {
    image: PathBuf,
    digest: Digest,
    held: Arc<Mutex<HashMap<Digest, usize>>>,
}

impl HeldLayer {
    /// The file with the file system.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.image
    }
}

impl Drop for HeldLayer {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.digest) {
            *count = count.saturating_sub(1);
        }
        held.retain(|_, count| *count > 0);
    }
}

impl Cache {
    pub(super) fn open(folder: &Path, bound: u64) -> Result<Arc<Self>, FolderError> {
        let of = |name: &str| folder.join(name);
        let cache = Self {
            requests: of("requests"),
            layers: of("layers"),
            work: of("work"),
            bound,
            held: Arc::default(),
        };
        match fs::remove_dir_all(&cache.work) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FolderError::io("remove", &cache.work, error));
            }
            _ => {}
        }
        for folder in [&cache.requests, &cache.layers, &cache.work] {
            kit::folder::create_private(folder)?;
        }
        cache.forget_the_gone()?;
        Ok(Arc::new(cache))
    }

    /// A fresh folder for one request, removed when dropped.
    pub(super) fn workplace(&self) -> std::io::Result<tempfile::TempDir> {
        tempfile::tempdir_in(&self.work)
    }

    fn layer_path(&self, digest: &Digest) -> PathBuf {
        self.layers.join(format!("{}.ext4", digest.hex()))
    }

    fn request_path(&self, request: &Digest) -> PathBuf {
        self.requests.join(format!("{}.json", request.hex()))
    }

    fn read(path: &Path) -> Option<RequestFile> {
        let file: RequestFile = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (file.schema == SCHEMA).then_some(file)
    }

    /// What a request came to, where all of it is still there.
    pub(super) fn find(&self, request: &Digest) -> Option<(Vec<Package>, Option<HeldLayer>)> {
        let file = Self::read(&self.request_path(request))?;
        if file.lock.0.is_empty() {
            return Some((Vec::new(), None));
        }
        let layer = self.hold(&file.lock.digest(&file.image_id))?;
        Some((file.lock.packages(), Some(layer)))
    }

    /// Holds a layer that is there.
    pub(super) fn hold(&self, digest: &Digest) -> Option<HeldLayer> {
        // Counted before it is looked for, so that it cannot be removed in between.
        *self.held.lock().unwrap_or_else(PoisonError::into_inner).entry(*digest).or_default() += 1;
        let layer =
            HeldLayer { image: self.layer_path(digest), digest: *digest, held: Arc::clone(&self.held) };
        let used = fs::File::open(&layer.image).and_then(|file| file.set_modified(SystemTime::now()));
        match used {
            Ok(()) => Some(layer),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, image = %layer.image.display(), "a layer of packages cannot be used");
                None
            }
        }
    }

    /// Takes in a whole layer, which lies on the same disk.
    pub(super) fn keep(&self, digest: &Digest, image: &Path) -> Result<(), FolderError> {
        let path = self.layer_path(digest);
        let synced = fs::File::open(image).and_then(|file| file.sync_all());
        synced.map_err(|e| FolderError::io("sync", image, e))?;
        fs::rename(image, &path).map_err(|e| FolderError::io("rename", &path, e))?;
        kit::folder::sync_parent(&path).map_err(|e| FolderError::io("sync", &path, e))
    }

    /// Remembers what a request came to.
    pub(super) fn remember(
        &self,
        request: &Digest,
        image_id: &str,
        requirements: &[String],
        lock: &Lock,
    ) -> Result<(), FolderError> {
        let file = RequestFile {
            schema: SCHEMA,
            image_id: image_id.to_owned(),
            requirements: requirements.to_vec(),
            lock: lock.clone(),
        };
        let path = self.request_path(request);
        let bytes =
            serde_json::to_vec_pretty(&file).map_err(|e| FolderError::io("write", &path, e.into()))?;
        kit::folder::replace(&path, &bytes)
    }

    /// Removes the least recently used layers until the rest is within the bound. What is held stays.
    pub(super) fn evict(&self) -> Result<(), FolderError> {
        let mut found = Vec::new();
        for entry in entries(&self.layers)? {
            let meta = entry.metadata().map_err(|e| FolderError::io("look at", &entry.path(), e))?;
            let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push((used, super::layer::allocated(&meta), entry.path()));
        }
        let mut total: u64 = found.iter().map(|(_, bytes, _)| bytes).sum();
        found.sort();
        for (_, bytes, path) in found {
            if total <= self.bound {
                break;
            }
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.keys().any(|digest| digest.hex() == name) {
                continue;
            }
            // Under the lock, so that nobody begins to hold it now.
            fs::remove_file(&path).map_err(|e| FolderError::io("remove", &path, e))?;
            drop(held);
            tracing::info!(layer = %path.display(), bytes, "removed packages that were not used for the longest");
            total = total.saturating_sub(bytes);
        }
        self.forget_the_gone()
    }

    /// A request whose layer is gone is resolved anew.
    fn forget_the_gone(&self) -> Result<(), FolderError> {
        for entry in entries(&self.requests)? {
            let path = entry.path();
            let there = Self::read(&path).is_some_and(|file| {
                file.lock.0.is_empty() || self.layer_path(&file.lock.digest(&file.image_id)).exists()
            });
            if !there {
                fs::remove_file(&path).map_err(|e| FolderError::io("remove", &path, e))?;
            }
        }
        Ok(())
    }
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, FolderError> {
    let failed = |e| FolderError::io("read", folder, e);
    fs::read_dir(folder).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}
