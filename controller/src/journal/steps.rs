//! Steps: what the loop did, in order, append-only. Whoever resumes a campaign reads them from the first.

use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;
use serde_json::Value;

use super::{
    CampaignId, Journal, JournalError,
    campaigns::number,
    rows::{signed, unsigned},
    seal::{NAME_MAX, bounded, check, from_text, seal, to_text},
};

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepRow {
    /// From 1, without holes, within the campaign.
    pub sequence: u64,
    /// The loop's word.
    pub kind: String,
    /// What the loop wrote.
    pub body: Value,
    /// ns since 1970.
    pub at_ns: i64,
}

/// Adds a step; its sequence.
pub(super) fn append(
    connection: &Connection,
    campaign: i64,
    kind: &str,
    body: &str,
    now: i64,
) -> Result<u64, JournalError> {
    let last: Option<u64> = connection
        .prepare_cached("SELECT max(sequence) AS last FROM steps WHERE campaign = ?1")?
        .query_row([campaign], |row| super::rows::unsigned_option(row, "last"))
        .optional()?
        .flatten();
    let sequence = last.unwrap_or_default() + 1;
    connection
        .prepare_cached(
            "INSERT INTO steps (campaign, sequence, kind, body, seal, at_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute((campaign, signed(sequence), kind, body, seal(body.as_bytes()), now))?;
    Ok(sequence)
}

impl Journal {
    /// Adds a step; its sequence. On disk when this returns.
    ///
    /// # Errors
    /// [`JournalError::NotFound`], [`JournalError::TooLarge`].
    pub async fn append_step(
        &self,
        campaign: CampaignId,
        kind: &str,
        body: &Value,
    ) -> Result<u64, JournalError> {
        bounded("a step's kind", kind.as_bytes(), NAME_MAX)?;
        let (kind, body, now) = (kind.to_owned(), to_text("a step", body)?, self.now());
        self.write(move |c| {
            let campaign = number(c, campaign)?;
            append(c, campaign, &kind, &body, now)
        })
        .await
    }

    /// All steps, oldest first.
    ///
    /// # Errors
    /// As [`Journal::steps_after`].
    pub async fn steps(&self, campaign: CampaignId) -> Result<Vec<StepRow>, JournalError> {
        self.steps_after(campaign, 0).await
    }

    /// The steps after this one, oldest first.
    ///
    /// # Errors
    /// [`JournalError::NotFound`]; [`JournalError::Damaged`] where a body, or a step, is not what was written.
    pub async fn steps_after(&self, campaign: CampaignId, after: u64) -> Result<Vec<StepRow>, JournalError> {
        let path = self.database_path();
        self.read(move |c| {
            let campaign = number(c, campaign)?;
            let mut statement = c.prepare_cached(
                "SELECT * FROM steps WHERE campaign = ?1 AND sequence > ?2 ORDER BY sequence",
            )?;
            let mut rows = statement.query((campaign, signed(after)))?;
            let mut steps = Vec::new();
            while let Some(row) = rows.next()? {
                let sequence = unsigned(row, "sequence")?;
                let wanted = after + steps.len() as u64 + 1;
                if sequence != wanted {
                    let detail = format!("step {wanted} of a campaign is missing");
                    return Err(JournalError::Damaged { path, detail });
                }
                let body: String = row.get("body")?;
                check("body of a step", body.as_bytes(), row.get("seal")?)?;
                steps.push(StepRow {
                    sequence,
                    kind: row.get("kind")?,
                    body: from_text("a step", &body)?,
                    at_ns: row.get("at_ns")?,
                });
            }
            Ok(steps)
        })
        .await
    }
}
