//! Snapshots: the whole of what a campaign's loop holds in memory, as bytes, one for each campaign. It is replaced in the
//! transaction of the step that made it so, so that a step in the journal always has the state that goes with it. What
//! the bytes mean is the loop's business (`campaign/kept.rs`); here they are sealed, bounded and numbered.

use rusqlite::{Connection, OptionalExtension as _};
use serde_json::Value;

use super::{
    CampaignId, Journal, JournalError,
    campaigns::number,
    rows::{signed, unsigned},
    seal::{NAME_MAX, bounded, check, seal, to_text},
    steps::append,
};

/// Of a snapshot: plans, findings and analyses of a long campaign are a few hundred KiB; runs and programs are not in it.
const SNAPSHOT_MAX: usize = 32 << 20;

/// What a loop holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Of the form of the bytes: whoever reads another one refuses it.
    pub version: u32,
    /// The loop's.
    pub body: Vec<u8>,
}

/// What was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// As it was given.
    pub snapshot: Snapshot,
    /// The step that it belongs to.
    pub step: u64,
}

/// One seal for the version, the step and the bytes: a snapshot of another step is as wrong as a broken one.
fn sealed(version: u32, step: u64, body: &[u8]) -> i64 {
    let mut all = format!("{version}\n{step}\n").into_bytes();
    all.extend_from_slice(body);
    seal(&all)
}

fn store(connection: &Connection, campaign: i64, step: u64, snapshot: &Snapshot) -> Result<(), JournalError> {
    connection
        .prepare_cached(
            "INSERT INTO snapshots (campaign, version, step, body, seal) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (campaign) DO UPDATE SET version = ?2, step = ?3, body = ?4, seal = ?5",
        )?
        .execute((
            campaign,
            snapshot.version,
            signed(step),
            &snapshot.body,
            sealed(snapshot.version, step, &snapshot.body),
        ))?;
    Ok(())
}

fn last_step(connection: &Connection, campaign: i64) -> Result<u64, JournalError> {
    let found = connection
        .prepare_cached("SELECT step FROM snapshots WHERE campaign = ?1")?
        .query_row([campaign], |row| unsigned(row, "step"))
        .optional()?;
    Ok(found.unwrap_or_default())
}

impl Journal {
    /// Adds a step and replaces the snapshot, in one transaction; the step's sequence.
    ///
    /// # Errors
    /// As [`Journal::append_step`].
    pub async fn append_step_with(
        &self,
        campaign: CampaignId,
        kind: &str,
        body: &Value,
        snapshot: Snapshot,
    ) -> Result<u64, JournalError> {
        bounded("a step's kind", kind.as_bytes(), NAME_MAX)?;
        bounded("a campaign's snapshot", &snapshot.body, SNAPSHOT_MAX)?;
        let (kind, body, now) = (kind.to_owned(), to_text("a step", body)?, self.now());
        self.write(move |c| {
            let campaign = number(c, campaign)?;
            let sequence = append(c, campaign, &kind, &body, now)?;
            store(c, campaign, sequence, &snapshot)?;
            Ok(sequence)
        })
        .await
    }

    /// Replaces the snapshot and stays at its step: what other processes wanted is part of it now.
    ///
    /// # Errors
    /// [`JournalError::NotFound`], [`JournalError::TooLarge`].
    pub async fn keep_snapshot(&self, campaign: CampaignId, snapshot: Snapshot) -> Result<(), JournalError> {
        bounded("a campaign's snapshot", &snapshot.body, SNAPSHOT_MAX)?;
        self.write(move |c| {
            let campaign = number(c, campaign)?;
            let step = last_step(c, campaign)?;
            store(c, campaign, step, &snapshot)
        })
        .await
    }

    /// Adds what a step did besides moving on. The same again since the last snapshot changes nothing, so that a step can
    /// be taken again after a kill.
    ///
    /// # Errors
    /// As [`Journal::append_step`].
    pub async fn append_detail(
        &self,
        campaign: CampaignId,
        kind: &str,
        body: &Value,
    ) -> Result<(), JournalError> {
        bounded("a step's kind", kind.as_bytes(), NAME_MAX)?;
        let (kind, body, now) = (kind.to_owned(), to_text("a step", body)?, self.now());
        self.write(move |c| {
            let campaign = number(c, campaign)?;
            let since = last_step(c, campaign)?;
            let there = c
                .prepare_cached(
                    "SELECT 1 FROM steps WHERE campaign = ?1 AND sequence > ?2 AND kind = ?3 AND body = ?4",
                )?
                .exists((campaign, signed(since), &kind, &body))?;
            if !there {
                append(c, campaign, &kind, &body, now)?;
            }
            Ok(())
        })
        .await
    }

    /// What the loop held at its last step; `None` where it took none.
    ///
    /// # Errors
    /// [`JournalError::NotFound`]; [`JournalError::Damaged`] where it is not what was written.
    pub async fn snapshot(&self, campaign: CampaignId) -> Result<Option<StoredSnapshot>, JournalError> {
        self.read(move |c| {
            let campaign = number(c, campaign)?;
            let mut statement = c.prepare_cached("SELECT * FROM snapshots WHERE campaign = ?1")?;
            let mut rows = statement.query([campaign])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let (version, step): (u32, u64) = (row.get("version")?, unsigned(row, "step")?);
            let body: Vec<u8> = row.get("body")?;
            if sealed(version, step, &body) != row.get::<_, i64>("seal")? {
                check("snapshot of a campaign", &body, row.get("seal")?)?;
            }
            Ok(Some(StoredSnapshot { snapshot: Snapshot { version, body }, step }))
        })
        .await
    }
}
