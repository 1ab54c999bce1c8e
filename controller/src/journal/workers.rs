//! Workers that were met: which they are, which boot they were last seen in, where.

use rusqlite::{OptionalExtension as _, Row};
use serde::Serialize;

use super::{
    Journal, JournalError,
    seal::{NAME_MAX, bounded},
};

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerRow {
    /// Made with its state folder: a wiped disk is another worker.
    pub worker_id: String,
    /// Of its kernel, when it was last seen.
    pub boot_id: String,
    /// How it was reached.
    pub address: String,
    /// ns since 1970.
    pub first_seen_ns: i64,
    /// ns since 1970.
    pub last_seen_ns: i64,
}

impl WorkerRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            worker_id: row.get("id")?,
            boot_id: row.get("boot")?,
            address: row.get("address")?,
            first_seen_ns: row.get("first_seen_ns")?,
            last_seen_ns: row.get("last_seen_ns")?,
        })
    }
}

impl Journal {
    /// Writes down that a worker was met.
    ///
    /// # Errors
    /// [`JournalError::TooLarge`].
    pub async fn remember_worker(
        &self,
        worker_id: &str,
        boot_id: &str,
        address: &str,
    ) -> Result<(), JournalError> {
        for (what, text) in [("a worker's id", worker_id), ("a boot id", boot_id), ("an address", address)] {
            bounded(what, text.as_bytes(), NAME_MAX)?;
        }
        let row = (worker_id.to_owned(), boot_id.to_owned(), address.to_owned(), self.now());
        self.write(move |c| {
            c.prepare_cached(
                "INSERT INTO workers (id, boot, address, first_seen_ns, last_seen_ns) VALUES (?1, ?2, ?3, ?4, ?4)
                 ON CONFLICT (id) DO UPDATE SET boot = ?2, address = ?3, last_seen_ns = ?4",
            )?
            .execute(row)?;
            Ok(())
        })
        .await
    }

    /// One worker, if it was ever met.
    ///
    /// # Errors
    /// Whatever reading gives.
    pub async fn worker(&self, worker_id: &str) -> Result<Option<WorkerRow>, JournalError> {
        let id = worker_id.to_owned();
        self.read(move |c| {
            Ok(c.prepare_cached("SELECT * FROM workers WHERE id = ?1")?
                .query_row([id], WorkerRow::of)
                .optional()?)
        })
        .await
    }
}
