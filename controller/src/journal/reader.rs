//! Reading: connections of their own, off the event loop, each read in one snapshot.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rusqlite::{Connection, OpenFlags};

use super::{Journal, error::JournalError, open};

/// Connections that are kept for the next read. More than these are closed after use.
const KEPT: usize = 4;

#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default() }
    }

    fn take(&self) -> Result<Connection, JournalError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => Ok(connect(&self.path)?),
        }
    }

    fn put_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(connection);
        }
    }

    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let connection = self.take()?;
        connection.execute_batch("BEGIN")?;
        let result = work(&connection);
        // Nothing was written, so that it does not matter how it ends; what matters is that it does.
        connection.execute_batch("ROLLBACK")?;
        self.put_back(connection);
        result
    }
}

/// A connection that cannot write.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    open::configure(&connection)?;
    Ok(connection)
}

impl Journal {
    /// Runs `work` on a thread that may block, in one snapshot.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, JournalError> + Send + 'static,
    {
        let journal = self.clone();
        let result = kit::task::blocking("journal read", move || {
            journal.inner.readers.read(work).map_err(|error| error.at(&journal.database_path()))
        })
        .await;
        result.unwrap_or(Err(JournalError::Stopped("reader")))
    }
}
