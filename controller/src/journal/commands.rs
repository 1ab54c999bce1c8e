//! Commands: what another process wants of a campaign's owner (pause, resume, cancel, a hint, a budget), as rows that
//! the owner polls.

use rusqlite::Connection;
use serde::Serialize;
use serde_json::Value;

use super::{
    CampaignId, Journal, JournalError,
    campaigns::number,
    rows::unsigned,
    seal::{NAME_MAX, QUESTION_MAX, bounded, from_text, to_text},
};

/// How many may wait for an owner: a stopped owner is no reason to fill a disk.
const WAITING_MAX: i64 = 1_000;

/// One command.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CommandRow {
    /// Rising.
    pub number: u64,
    /// "pause", "hint", …
    pub kind: String,
    /// What goes with it.
    pub body: Value,
    /// ns since 1970.
    pub at_ns: i64,
}

fn waiting(connection: &Connection, campaign: i64) -> Result<Vec<CommandRow>, JournalError> {
    let query = "SELECT * FROM commands WHERE campaign = ?1 AND taken_ns IS NULL ORDER BY number";
    select(connection, query, [campaign])
}

fn select(
    connection: &Connection,
    query: &str,
    parameters: impl rusqlite::Params,
) -> Result<Vec<CommandRow>, JournalError> {
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(CommandRow {
            number: unsigned(row, "number")?,
            kind: row.get("kind")?,
            body: from_text("a command", &row.get::<_, String>("body")?)?,
            at_ns: row.get("at_ns")?,
        });
    }
    Ok(found)
}

impl Journal {
    /// Leaves a command for the campaign's owner; its number.
    ///
    /// # Errors
    /// [`JournalError::NotFound`], [`JournalError::TooLarge`]; [`JournalError::State`] where 1,000 wait already.
    pub async fn put_command(
        &self,
        campaign: CampaignId,
        kind: &str,
        body: &Value,
    ) -> Result<u64, JournalError> {
        bounded("a command's kind", kind.as_bytes(), NAME_MAX)?;
        let (kind, body, now) = (kind.to_owned(), to_text("a command", body)?, self.now());
        bounded("a command", body.as_bytes(), QUESTION_MAX)?;
        self.write(move |c| {
            let row = number(c, campaign)?;
            let waiting: i64 = c
                .prepare_cached("SELECT count(*) FROM commands WHERE campaign = ?1 AND taken_ns IS NULL")?
                .query_row([row], |row| row.get(0))?;
            if waiting >= WAITING_MAX {
                return Err(JournalError::state(
                    "campaign",
                    campaign,
                    "its owner takes no commands: 1,000 wait",
                ));
            }
            c.prepare_cached("INSERT INTO commands (campaign, kind, body, at_ns) VALUES (?1, ?2, ?3, ?4)")?
                .execute((row, kind, body, now))?;
            Ok(c.last_insert_rowid().unsigned_abs())
        })
        .await
    }

    /// Whether a command's owner has not taken it yet.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn is_waiting(&self, campaign: CampaignId, command: u64) -> Result<bool, JournalError> {
        self.read(move |c| {
            let found = waiting(c, number(c, campaign)?)?;
            Ok(found.iter().any(|row| row.number == command))
        })
        .await
    }

    /// What owners have taken since the command with this number, oldest first: what a kill may have kept from counting.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn taken_commands(
        &self,
        campaign: CampaignId,
        after: u64,
    ) -> Result<Vec<CommandRow>, JournalError> {
        self.read(move |c| {
            let campaign = number(c, campaign)?;
            select(
                c,
                "SELECT * FROM commands WHERE campaign = ?1 AND number > ?2 AND taken_ns IS NOT NULL ORDER BY number",
                (campaign, super::rows::signed(after)),
            )
        })
        .await
    }

    /// Takes what was left, oldest first; each command is taken once. Writes nothing where nothing waits, so that an
    /// owner may ask often.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn take_commands(&self, campaign: CampaignId) -> Result<Vec<CommandRow>, JournalError> {
        let any = self.read(move |c| Ok(!waiting(c, number(c, campaign)?)?.is_empty())).await?;
        if !any {
            return Ok(Vec::new());
        }
        let now = self.now();
        self.write(move |c| {
            let campaign = number(c, campaign)?;
            let found = waiting(c, campaign)?;
            c.prepare_cached("UPDATE commands SET taken_ns = ?2 WHERE campaign = ?1 AND taken_ns IS NULL")?
                .execute((campaign, now))?;
            Ok(found)
        })
        .await
    }
}
