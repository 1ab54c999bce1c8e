//! What the journal's file and the worker's folder hold after a campaign, read past our own programs: which runs there
//! were, what was paid, and what each run wrote.

use std::{fs, path::Path};

use rusqlite::{Connection, OpenFlags};

/// A run's row.
#[derive(Debug, Clone)]
pub struct Run {
    /// UUID.
    pub id: String,
    /// Like "v1".
    pub variant: String,
    /// As issued.
    pub seed: u64,
    /// "smoke" or "full".
    pub purpose: String,
    /// The run that was lost before this one.
    pub predecessor: Option<String>,
    /// "finished", where it is.
    pub state: String,
    /// WORKER §5's word.
    pub outcome: Option<String>,
    /// Whether the worker has been told that it may forget it.
    pub released: bool,
    /// So much of its standard output is safe.
    pub stdout_bytes: u64,
}

/// A model call's row.
#[derive(Debug, Clone)]
pub struct Call {
    /// What it was for.
    pub purpose: String,
    /// "answered", "lost", …
    pub state: String,
    /// Whether what it cost is known.
    pub cost_known: bool,
    /// Whether there is a reply.
    pub replied: bool,
}

/// A campaign as it is on disk.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// Like "finished".
    pub state: String,
    /// In the order of planning.
    pub runs: Vec<Run>,
    /// In the order of asking.
    pub calls: Vec<Call>,
}

fn open(data_dir: &Path) -> rusqlite::Result<Connection> {
    // A reader of a journal in WAL mode writes its shared memory, so it is not opened read-only.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(data_dir.join("journal.db"), flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

impl Record {
    /// The newest campaign of a data folder.
    ///
    /// # Errors
    /// Where there is none yet.
    pub fn read(data_dir: &Path) -> Result<Self, String> {
        if !data_dir.join("journal.db").exists() {
            return Err("no journal yet".to_owned());
        }
        Self::query(data_dir).map_err(|error| error.to_string())
    }

    fn query(data_dir: &Path) -> rusqlite::Result<Self> {
        let db = open(data_dir)?;
        let newest = "SELECT number, id, state FROM campaigns ORDER BY number DESC LIMIT 1";
        let (number, id, state): (i64, String, String) =
            db.query_row(newest, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let mut runs = db.prepare(
            "SELECT id, variant, seed, purpose, predecessor, state, outcome, released, stdout_bytes FROM runs
             WHERE campaign = ?1 ORDER BY number",
        )?;
        let runs = runs.query_map([number], |row| {
            Ok(Run {
                id: row.get(0)?,
                variant: row.get(1)?,
                seed: row.get::<_, i64>(2)?.cast_unsigned(),
                purpose: row.get(3)?,
                predecessor: row.get(4)?,
                state: row.get(5)?,
                outcome: row.get(6)?,
                released: row.get(7)?,
                stdout_bytes: row.get::<_, i64>(8)?.cast_unsigned(),
            })
        })?;
        let runs = runs.collect::<rusqlite::Result<_>>()?;
        let mut calls = db.prepare(
            "SELECT purpose, state, cost_known, reply IS NOT NULL FROM calls WHERE campaign = ?1 ORDER BY number",
        )?;
        let calls = calls.query_map([number], |row| {
            Ok(Call {
                purpose: row.get(0)?,
                state: row.get(1)?,
                cost_known: row.get(2)?,
                replied: row.get(3)?,
            })
        })?;
        let calls = calls.collect::<rusqlite::Result<_>>()?;
        Ok(Self { id, state, runs, calls })
    }
}

/// The outcomes of the runs that a worker has forgotten, by id; each as often as it was put up.
#[must_use]
pub fn tombstones(worker: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(worker.join("tombstones")).unwrap_or_default();
    let stones = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    stones.map(|stone| (word(&stone["id"]), word(&stone["outcome"]))).collect()
}

/// Runs that a worker still keeps.
#[must_use]
pub fn kept(worker: &Path) -> Vec<String> {
    let entries = fs::read_dir(worker.join("runs")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
