//! The workers that a user has registered: under which name, where, whom to trust there, and whether they may be given runs.
//! What a worker says of itself is not kept; it is asked. `workers.rs` holds who was met, this file who was added.

use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::Serialize;

use super::{
    Journal, JournalError,
    rows::words,
    seal::{NAME_MAX, bounded, cut},
};

/// More than any fleet; a script that adds in a loop is no reason to fill a disk.
const REGISTERED_MAX: i64 = 1_000;
/// Of an address: a path of 1,024 bytes with host and user.
const ADDRESS_MAX: usize = 2 << 10;

words! {
    /// Whether a registered worker may be given runs.
    FleetState {
        /// Invited, and not yet arrived.
        Invited = "invited",
        /// It may.
        Active = "active",
        /// The user wants no new runs on it; what runs goes on.
        Drained = "drained",
        /// It failed over and over: the reason says how.
        SetAside = "set_aside",
        /// Its key is never trusted again.
        Revoked = "revoked",
    }
}

/// One registered worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FleetWorkerRow {
    /// The user's name for it.
    pub name: String,
    /// "unix", "ssh", "tls", "dialled".
    pub kind: String,
    /// As `fleet::address` reads it; for one that dials in, where this controller listens for it.
    pub address: String,
    /// As it was last seen; a wiped disk is another worker.
    pub worker_id: Option<String>,
    /// Of its key, where the connection has one.
    pub fingerprint: Option<String>,
    /// Whether it may be given runs.
    pub state: FleetState,
    /// Why, where it may not.
    pub reason: Option<String>,
    /// ns since 1970.
    pub added_ns: i64,
    /// ns since 1970.
    pub seen_ns: Option<i64>,
}

/// What is written when a worker is added or invited.
#[derive(Debug, Clone)]
pub struct NewFleetWorker {
    /// Free so far.
    pub name: String,
    /// "unix", "ssh", "tls", "dialled".
    pub kind: &'static str,
    /// See [`FleetWorkerRow::address`].
    pub address: String,
    /// Where it was met already.
    pub worker_id: Option<String>,
    /// See [`FleetWorkerRow::fingerprint`].
    pub fingerprint: Option<String>,
    /// [`FleetState::Active`] or [`FleetState::Invited`].
    pub state: FleetState,
}

impl FleetWorkerRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: row.get("name")?,
            kind: row.get("kind")?,
            address: row.get("address")?,
            worker_id: row.get("worker_id")?,
            fingerprint: row.get("fingerprint")?,
            state: row.get("state")?,
            reason: row.get("reason")?,
            added_ns: row.get("added_ns")?,
            seen_ns: row.get("seen_ns")?,
        })
    }
}

fn row(connection: &Connection, name: &str) -> Result<FleetWorkerRow, JournalError> {
    let found = connection
        .prepare_cached("SELECT * FROM fleet_workers WHERE name = ?1")?
        .query_row([name], FleetWorkerRow::of)
        .optional()?;
    found.ok_or_else(|| JournalError::not_found("worker", name))
}

/// Who has this id already, under another name.
fn namesake(connection: &Connection, worker_id: &str, name: &str) -> Result<Option<String>, JournalError> {
    let sql = "SELECT name FROM fleet_workers WHERE worker_id = ?1 AND name <> ?2 AND state <> 'revoked'";
    Ok(connection.prepare_cached(sql)?.query_row((worker_id, name), |row| row.get(0)).optional()?)
}

impl Journal {
    /// Registers a worker.
    ///
    /// # Errors
    /// [`JournalError::State`] where the name is taken, or the same worker has another name here.
    pub async fn add_fleet_worker(&self, new: NewFleetWorker) -> Result<(), JournalError> {
        bounded("a worker's name", new.name.as_bytes(), NAME_MAX)?;
        bounded("an address", new.address.as_bytes(), ADDRESS_MAX)?;
        for (what, text) in [("a worker's id", &new.worker_id), ("a fingerprint", &new.fingerprint)] {
            bounded(what, text.as_deref().unwrap_or_default().as_bytes(), NAME_MAX)?;
        }
        let now = self.now();
        self.write(move |c| {
            if row(c, &new.name).is_ok() {
                let problem = "the name is taken: choose another, or remove that worker first";
                return Err(JournalError::state("worker", &new.name, problem));
            }
            let registered: i64 =
                c.prepare_cached("SELECT count(*) FROM fleet_workers")?.query_row([], |row| row.get(0))?;
            if registered >= REGISTERED_MAX {
                let problem = format!("{REGISTERED_MAX} workers are registered: remove some first");
                return Err(JournalError::state("worker", &new.name, problem));
            }
            if let Some(id) = &new.worker_id
                && let Some(other) = namesake(c, id, &new.name)?
            {
                let problem = format!("the same worker is registered as `{other}` already");
                return Err(JournalError::state("worker", &new.name, problem));
            }
            let seen = new.worker_id.is_some().then_some(now);
            c.prepare_cached(
                "INSERT INTO fleet_workers
                 (name, kind, address, worker_id, fingerprint, state, added_ns, seen_ns)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute((
                new.name,
                new.kind,
                new.address,
                new.worker_id,
                new.fingerprint,
                new.state,
                now,
                seen,
            ))?;
            Ok(())
        })
        .await
    }

    /// Every registered worker, newest first.
    ///
    /// # Errors
    /// Whatever reading gives.
    pub async fn fleet_workers(&self) -> Result<Vec<FleetWorkerRow>, JournalError> {
        self.read(|c| {
            let mut statement =
                c.prepare_cached("SELECT * FROM fleet_workers ORDER BY added_ns DESC, name DESC")?;
            let rows = statement.query_map([], FleetWorkerRow::of)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// One registered worker.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn fleet_worker(&self, name: &str) -> Result<FleetWorkerRow, JournalError> {
        let name = name.to_owned();
        self.read(move |c| row(c, &name)).await
    }

    /// It was met: which worker it is now. Answers the id that it had before where that was another one: its disk was wiped,
    /// or another machine has its address.
    ///
    /// # Errors
    /// [`JournalError::NotFound`] where it was removed meanwhile.
    pub async fn fleet_worker_seen(
        &self,
        name: &str,
        worker_id: &str,
    ) -> Result<Option<String>, JournalError> {
        bounded("a worker's id", worker_id.as_bytes(), NAME_MAX)?;
        let (name, worker_id, now) = (name.to_owned(), worker_id.to_owned(), self.now());
        self.write(move |c| {
            let before = row(c, &name)?.worker_id.filter(|id| *id != worker_id);
            c.prepare_cached("UPDATE fleet_workers SET worker_id = ?2, seen_ns = ?3 WHERE name = ?1")?
                .execute((name, worker_id, now))?;
            Ok(before)
        })
        .await
    }

    /// An invited worker has arrived and shown its secret: from now on its key is trusted. The same key may arrive so again,
    /// because the answer can be lost.
    ///
    /// # Errors
    /// [`JournalError::State`] where it is not awaited (any more).
    pub async fn fleet_worker_arrived(&self, name: &str, fingerprint: &str) -> Result<(), JournalError> {
        bounded("a fingerprint", fingerprint.as_bytes(), NAME_MAX)?;
        let (name, fingerprint, now) = (name.to_owned(), fingerprint.to_owned(), self.now());
        self.write(move |c| {
            let found = row(c, &name)?;
            match found.state {
                FleetState::Invited => {}
                FleetState::Active if found.fingerprint.as_ref() == Some(&fingerprint) => {}
                state => {
                    let problem = format!("it is not awaited: it is {state}");
                    return Err(JournalError::state("worker", &name, problem));
                }
            }
            c.prepare_cached(
                "UPDATE fleet_workers SET fingerprint = ?2, state = ?3, seen_ns = ?4 WHERE name = ?1",
            )?
            .execute((name, fingerprint, FleetState::Active, now))?;
            Ok(())
        })
        .await
    }

    /// Changes whether it may be given runs; answers how it was before. What is revoked stays so.
    ///
    /// # Errors
    /// [`JournalError::NotFound`]; [`JournalError::State`] where the change makes no sense.
    pub async fn set_fleet_worker_state(
        &self,
        name: &str,
        state: FleetState,
        reason: Option<&str>,
    ) -> Result<FleetState, JournalError> {
        let (name, reason) = (name.to_owned(), reason.map(cut));
        self.write(move |c| {
            let before = row(c, &name)?.state;
            let wrong = |problem: &str| Err(JournalError::state("worker", &name, problem));
            match (before, state) {
                (_, FleetState::Revoked) => {}
                (FleetState::Revoked, _) => {
                    return wrong("it is revoked: remove it, and add it anew with a new join string");
                }
                (FleetState::Invited, _) => return wrong("it was invited and has not arrived yet"),
                (_, FleetState::Invited) => return wrong("it has arrived already"),
                // What the user wants counts for more than what a campaign has found.
                (FleetState::Drained, FleetState::SetAside) => return Ok(before),
                _ => {}
            }
            c.prepare_cached("UPDATE fleet_workers SET state = ?2, reason = ?3 WHERE name = ?1")?
                .execute((&name, state, reason))?;
            Ok(before)
        })
        .await
    }

    /// One that was set aside may be given runs again; whatever else it is it stays.
    ///
    /// # Errors
    /// Whatever writing gives.
    pub async fn take_back_fleet_worker(&self, name: &str) -> Result<(), JournalError> {
        let name = name.to_owned();
        self.write(move |c| {
            c.prepare_cached(
                "UPDATE fleet_workers SET state = ?2, reason = NULL WHERE name = ?1 AND state = ?3",
            )?
            .execute((name, FleetState::Active, FleetState::SetAside))?;
            Ok(())
        })
        .await
    }

    /// Forgets a worker; answers what was known of it.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn remove_fleet_worker(&self, name: &str) -> Result<FleetWorkerRow, JournalError> {
        let name = name.to_owned();
        self.write(move |c| {
            let found = row(c, &name)?;
            c.prepare_cached("DELETE FROM fleet_workers WHERE name = ?1")?.execute([name])?;
            Ok(found)
        })
        .await
    }
}
