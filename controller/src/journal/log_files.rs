//! The log files of one run: appended at the journalled length, synced, and cut to it when they are opened.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use kit::folder::{FolderError, create_private, sync_parent};

use super::{JournalError, LogStream};

/// A run's log files.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    /// In the order of [`LogStream::ALL`]; made when the first byte comes.
    open: [Option<File>; 3],
    pub(super) lengths: [u64; 3],
}

impl Files {
    /// Cuts what is longer than journalled; what is shorter has lost bytes that were synced, which is damage.
    pub(super) fn open(folder: PathBuf, lengths: [u64; 3]) -> Result<Self, JournalError> {
        create_private(&folder)?;
        sync_parent(&folder).map_err(|e| FolderError::io("sync the folder of", &folder, e))?;
        let mut files = Self { folder, open: [None, None, None], lengths };
        for (index, stream) in LogStream::ALL.into_iter().enumerate() {
            let path = files.folder.join(stream.as_str());
            let found = match path.metadata() {
                Ok(found) => found.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
                Err(error) => return Err(FolderError::io("look at", &path, error).into()),
            };
            if found < lengths[index] {
                let detail = format!("it has {found} bytes, and {} were journalled", lengths[index]);
                return Err(JournalError::Damaged { path, detail });
            }
            if found > lengths[index] {
                let io = |e| FolderError::io("cut", &path, e);
                let file = open_log(&path)?;
                file.set_len(lengths[index]).map_err(io)?;
                file.sync_data().map_err(io)?;
                files.open[index] = Some(file);
            }
        }
        Ok(files)
    }

    /// Appends and syncs.
    pub(super) fn append(&mut self, bytes: &[Vec<u8>; 3]) -> Result<(), JournalError> {
        let mut made = false;
        for (index, stream) in LogStream::ALL.into_iter().enumerate() {
            if bytes[index].is_empty() {
                continue;
            }
            let path = self.folder.join(stream.as_str());
            if self.open[index].is_none() {
                self.open[index] = Some(open_log(&path)?);
                made = true;
            }
            let Some(file) = &self.open[index] else { continue };
            // At the journalled length, and not at the file's end: what a failed batch left is written over.
            file.write_all_at(&bytes[index], self.lengths[index])
                .map_err(|e| FolderError::io("write", &path, e))?;
            file.sync_data().map_err(|e| FolderError::io("sync", &path, e))?;
            self.lengths[index] += bytes[index].len() as u64;
        }
        if made {
            let first = self.folder.join(LogStream::Stdout.as_str());
            sync_parent(&first).map_err(|e| FolderError::io("sync the folder of", &first, e))?;
        }
        Ok(())
    }
}

fn open_log(path: &Path) -> Result<File, FolderError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| FolderError::io("open", path, e))
}
