//! The store: names, images, additions under way. Any number of processes use one folder at the same time (a serving
//! worker, `dataset add` beside it); what changes names or images holds `lock` for that moment, and the truth is on the
//! disk, not in a process.
//!
//! An image is lent under a shared lock on the file itself. Removing a name removes its image only where nobody holds
//! that lock; else the image goes with the next change of the store after the run has ended. A mounted image may be
//! unlinked at any time: its loop device keeps the file.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use kit::{
    digest::Digest,
    folder::{FolderError, Lock},
    id::new_uuid,
};
use nix::fcntl::{Flock, FlockArg};

use super::{DataSetError, Manifest, Progress, image, manifest::VERSION};
use crate::sandbox::Layer;

/// Names at most: all of them go into one message of the protocol.
const NAMES_MAX: usize = 256;
/// Another process's change takes milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(30);
const MANIFEST: &str = "json";

/// Whether another content may take a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// It is refused.
    No,
    /// The name stands for the new one from now on.
    Yes,
}

/// What an addition came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The name is new.
    New,
    /// The same content had the name already.
    Same,
    /// Another content had it.
    Replaced,
}

/// What became of a name's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Gone,
    /// A run uses it, or another name: it stays for them.
    Kept,
}

/// A data set as a run gets it.
#[derive(Debug)]
pub struct Lent {
    /// Its name.
    pub name: String,
    /// To be mounted.
    pub layer: Layer,
    /// What `ar.dataset` gives.
    pub path: String,
    /// While this lives, the image is not removed.
    pub held: LentImage,
}

/// The lock on a lent image; lets go when dropped, or with the process.
#[derive(Debug)]
pub struct LentImage {
    _file: Flock<File>,
}

/// The folder of one addition; removed when dropped.
#[derive(Debug)]
pub(super) struct Staging {
    pub folder: PathBuf,
    lock: Option<Lock>,
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, folder = %self.folder.display(), "an addition's files stay until the next one");
        }
        // Only then, so that nobody else removes it at the same time.
        self.lock = None;
    }
}

/// The data sets of a worker's state folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Below a worker's state folder. Touches nothing.
    #[must_use]
    pub fn at(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("datasets") }
    }

    /// Makes the folders and removes what an earlier process left.
    ///
    /// # Errors
    /// Names the path.
    pub fn open(data_dir: &Path) -> Result<Self, DataSetError> {
        let store = Self::at(data_dir);
        for folder in [data_dir, &store.folder, &store.staging(), &store.images()] {
            kit::folder::create_private(folder)?;
        }
        let _lock = store.lock()?;
        store.sweep()?;
        Ok(store)
    }

    fn images(&self) -> PathBuf {
        self.folder.join("images")
    }

    fn staging(&self) -> PathBuf {
        self.folder.join("staging")
    }

    fn image(&self, digest: &Digest) -> PathBuf {
        self.images().join(digest.hex())
    }

    fn manifest(&self, name: &str) -> PathBuf {
        // Not `with_extension`: a name may have dots.
        self.folder.join(format!("{name}.{MANIFEST}"))
    }

    fn lock(&self) -> Result<Lock, DataSetError> {
        let until = Instant::now() + LOCK_WAIT;
        loop {
            match Lock::take(&self.folder.join("lock")) {
                Err(FolderError::Locked { .. }) if Instant::now() < until => {
                    thread::sleep(Duration::from_millis(20));
                }
                other => return Ok(other?),
            }
        }
    }

    /// All of them, by name. One whose record cannot be read is left out and said in the log.
    ///
    /// # Errors
    /// Names the folder.
    pub fn list(&self) -> Result<Vec<Manifest>, DataSetError> {
        Ok(self.read_all()?.0)
    }

    /// And whether every record could be read.
    fn read_all(&self) -> Result<(Vec<Manifest>, bool), DataSetError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), true)),
            entries => entries.map_err(|e| DataSetError::io("read", &self.folder, e))?,
        };
        let (mut all, mut whole) = (Vec::new(), true);
        for entry in entries {
            let entry = entry.map_err(|e| DataSetError::io("read", &self.folder, e))?;
            let file = entry.file_name();
            let Some(name) = file.to_str().and_then(|f| f.strip_suffix(&format!(".{MANIFEST}"))) else {
                continue;
            };
            match self.read(name) {
                Ok(Some(manifest)) => all.push(manifest),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "this data set cannot be used");
                    whole = false;
                }
            }
        }
        all.sort_unstable_by(|a: &Manifest, b: &Manifest| a.name.cmp(&b.name));
        Ok((all, whole))
    }

    fn read(&self, name: &str) -> Result<Option<Manifest>, DataSetError> {
        let path = self.manifest(name);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|e| DataSetError::io("read", &path, e))?,
        };
        let damaged = |problem: String| DataSetError::Damaged { name: name.to_owned(), problem };
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|e| damaged(format!("{} is no record of one: {e}", path.display())))?;
        if manifest.version != VERSION || manifest.name != name {
            return Err(damaged(format!("{} is the record of something else", path.display())));
        }
        Ok(Some(manifest))
    }

    /// One of them.
    ///
    /// # Errors
    /// [`DataSetError::Unknown`] with the names that there are.
    pub fn find(&self, name: &str) -> Result<Manifest, DataSetError> {
        check_name(name)?;
        match self.read(name)? {
            Some(manifest) => Ok(manifest),
            None => {
                let names: Vec<String> = self.list()?.into_iter().map(|m| m.name).collect();
                let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Err(DataSetError::Unknown { name: name.to_owned(), known })
            }
        }
    }

    /// A data set for a run. Blocks for as long as another process removes a file.
    ///
    /// # Errors
    /// [`DataSetError::Unknown`], [`DataSetError::Damaged`].
    pub fn lend(&self, name: &str) -> Result<Lent, DataSetError> {
        // A name that is replaced between the look and the lock is looked at again.
        for _ in 0..3 {
            let manifest = self.find(name)?;
            let path = self.image(&manifest.image_digest);
            let file = match File::open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(|e| DataSetError::io("open", &path, e))?,
            };
            let held = Flock::lock(file, FlockArg::LockShared)
                .map_err(|(_, errno)| DataSetError::io("lock", &path, errno.into()))?;
            let found = held.metadata().map_err(|e| DataSetError::io("look at", &path, e))?;
            if found.nlink() == 0 {
                continue;
            }
            if found.len() != manifest.image_bytes {
                let problem =
                    format!("{} has {} bytes of {}", path.display(), found.len(), manifest.image_bytes);
                return Err(DataSetError::Damaged { name: name.to_owned(), problem });
            }
            let layer = Layer { target: manifest.target(), image: path };
            let (path, held) = (manifest.path_inside(), LentImage { _file: held });
            return Ok(Lent { name: manifest.name, layer, path, held });
        }
        let problem = "its file system is gone".to_owned();
        Err(DataSetError::Damaged { name: name.to_owned(), problem })
    }

    /// Reads every byte of a data set's image and compares.
    ///
    /// # Errors
    /// [`DataSetError::Damaged`].
    pub fn verify(&self, name: &str, progress: Progress<'_>) -> Result<Manifest, DataSetError> {
        let lent = self.lend(name)?;
        let manifest = self.find(name)?;
        let found = image::hash(&lent.layer.image, "verifying", progress)?;
        if found != manifest.image_digest {
            let problem = format!("its file system has the digest {found}, not {}", manifest.image_digest);
            return Err(DataSetError::Damaged { name: name.to_owned(), problem });
        }
        Ok(manifest)
    }

    /// A folder for an addition, this process's until it is dropped.
    pub(super) fn begin(&self) -> Result<Staging, DataSetError> {
        let _lock = self.lock()?;
        let folder = self.staging().join(new_uuid().to_string());
        kit::folder::create_private(&folder)?;
        let lock = Some(Lock::take(&folder.join("lock"))?);
        Ok(Staging { folder, lock })
    }

    /// Puts an image and its name in their places. Until the name is there nothing of it counts.
    pub(super) fn commit(
        &self,
        manifest: &Manifest,
        image: &Path,
        replace: Replace,
    ) -> Result<Committed, DataSetError> {
        let _lock = self.lock()?;
        let (all, _) = self.read_all()?;
        let there = all.iter().find(|other| other.name == manifest.name);
        let committed = match there {
            Some(other) if other.digest == manifest.digest => Committed::Same,
            Some(other) if replace == Replace::No => {
                return Err(DataSetError::Taken {
                    name: manifest.name.clone(),
                    there: other.digest,
                    new: manifest.digest,
                });
            }
            Some(_) => Committed::Replaced,
            None if all.len() >= NAMES_MAX => return Err(DataSetError::Many(NAMES_MAX)),
            None => Committed::New,
        };
        let place = self.image(&manifest.image_digest);
        fs::rename(image, &place).map_err(|e| DataSetError::io("rename into", &place, e))?;
        kit::folder::sync_parent(&place).map_err(|e| DataSetError::io("sync the folder of", &place, e))?;
        // Also where the content is the same: the new image was read a moment ago, and the old one may be damaged.
        let bytes = serde_json::to_vec_pretty(manifest)
            .map_err(|e| DataSetError::Damaged { name: manifest.name.clone(), problem: e.to_string() })?;
        kit::folder::replace(&self.manifest(&manifest.name), &bytes)?;
        self.sweep()?;
        Ok(committed)
    }

    /// Forgets a name.
    ///
    /// # Errors
    /// [`DataSetError::Unknown`].
    pub fn remove(&self, name: &str) -> Result<Removed, DataSetError> {
        check_name(name)?;
        let path = self.manifest(name);
        if !path.exists() {
            self.find(name)?;
        }
        let _lock = self.lock()?;
        let image = self.read(name).ok().flatten().map(|manifest| self.image(&manifest.image_digest));
        fs::remove_file(&path).map_err(|e| DataSetError::io("remove", &path, e))?;
        kit::folder::sync_parent(&path).map_err(|e| DataSetError::io("sync the folder of", &path, e))?;
        self.sweep()?;
        Ok(if image.is_some_and(|image| image.exists()) { Removed::Kept } else { Removed::Gone })
    }

    /// Removes what no name stands for and nobody holds: additions that were killed, images. The caller has the lock.
    fn sweep(&self) -> Result<(), DataSetError> {
        let entries = |folder: &Path| -> Result<Vec<PathBuf>, DataSetError> {
            let failed = |e| DataSetError::io("read", folder, e);
            let all: io::Result<Vec<PathBuf>> =
                fs::read_dir(folder).map_err(failed)?.map(|entry| Ok(entry?.path())).collect();
            all.map_err(failed)
        };
        for folder in entries(&self.staging())? {
            match Lock::take(&folder.join("lock")) {
                Ok(_lock) => {
                    fs::remove_dir_all(&folder).map_err(|e| DataSetError::io("remove", &folder, e))?
                }
                Err(FolderError::Locked { .. }) => {}
                // Its owner has removed it at this moment.
                Err(_) if !folder.exists() => {}
                Err(error) => return Err(error.into()),
            }
        }
        // A record that was being written when its process was killed; nobody writes one now.
        let torn = |path: &PathBuf| path.extension().is_some_and(|e| e.to_string_lossy().starts_with("new-"));
        for path in entries(&self.folder)?.into_iter().filter(torn) {
            fs::remove_file(&path).map_err(|e| DataSetError::io("remove", &path, e))?;
        }
        let (all, whole) = self.read_all()?;
        if !whole {
            // Whose image a record that cannot be read names is not known: none is removed.
            return Ok(());
        }
        let named: BTreeSet<PathBuf> = all.iter().map(|m| self.image(&m.image_digest)).collect();
        for image in entries(&self.images())?.into_iter().filter(|image| !named.contains(image)) {
            let file = File::open(&image).map_err(|e| DataSetError::io("open", &image, e))?;
            if Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok() {
                fs::remove_file(&image).map_err(|e| DataSetError::io("remove", &image, e))?;
            }
        }
        Ok(())
    }

    /// Removes images that were in use when their names were removed. Called now and then.
    ///
    /// # Errors
    /// Names the path.
    pub fn tidy(&self) -> Result<(), DataSetError> {
        let _lock = self.lock()?;
        self.sweep()
    }
}

/// Whether it is a name at all: only such a one becomes a path.
pub(super) fn check_name(name: &str) -> Result<(), DataSetError> {
    let wrong = |source| DataSetError::Name { name: kit::text::one_line(name, 80), source };
    kit::name::check_name(name).map_err(wrong)
}
