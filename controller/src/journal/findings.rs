//! Findings: claims about the question, each tied to the runs it rests on.

use rusqlite::OptionalExtension as _;
use serde::Serialize;

use super::{
    CampaignId, Journal, JournalError, RunId,
    campaigns::number,
    seal::{BODY_MAX, NAME_MAX, bounded, check, from_text, seal},
};

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FindingRow {
    /// "f1", …
    pub id: String,
    /// 1 is "e1".
    pub experiment: u32,
    /// By rule.
    pub text: String,
    /// DESIGN §2's word, or "exploratory".
    pub verdict: String,
    /// What it rests on.
    pub runs: Vec<RunId>,
    /// ns since 1970.
    pub at_ns: i64,
}

/// One seal for all that a finding says.
fn sealed(text: &str, verdict: &str, runs: &str) -> i64 {
    seal(format!("{verdict}\n{runs}\n{text}").as_bytes())
}

impl Journal {
    /// Adds a finding. The same one again changes nothing.
    ///
    /// # Errors
    /// [`JournalError::State`] where the id has another text; [`JournalError::NotFound`] for a run that is not this
    /// campaign's.
    pub async fn add_finding(
        &self,
        campaign: CampaignId,
        id: &str,
        experiment: u32,
        text: &str,
        verdict: &str,
        runs: &[RunId],
    ) -> Result<(), JournalError> {
        bounded("a finding's id", id.as_bytes(), NAME_MAX)?;
        bounded("a finding", text.as_bytes(), BODY_MAX)?;
        bounded("a verdict", verdict.as_bytes(), NAME_MAX)?;
        let (id, text, verdict, runs) = (id.to_owned(), text.to_owned(), verdict.to_owned(), runs.to_vec());
        let now = self.now();
        self.write(move |c| {
            let campaign = number(c, campaign)?;
            for run in &runs {
                c.prepare_cached("SELECT 1 FROM runs WHERE id = ?1 AND campaign = ?2")?
                    .query_row((run.to_string(), campaign), |_| Ok(()))
                    .optional()?
                    .ok_or_else(|| JournalError::not_found("run of this campaign", run))?;
            }
            let before: Option<String> = c
                .prepare_cached("SELECT text FROM findings WHERE campaign = ?1 AND id = ?2")?
                .query_row((campaign, &id), |row| row.get(0))
                .optional()?;
            match before {
                Some(before) if before == text => return Ok(()),
                Some(_) => return Err(JournalError::state("finding", id, "the id has another text already")),
                None => {}
            }
            let runs = serde_json::json!(runs).to_string();
            let seal = sealed(&text, &verdict, &runs);
            c.prepare_cached(
                "INSERT INTO findings (campaign, id, experiment, text, verdict, runs, seal, at_ns)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute((campaign, id, experiment, text, verdict, runs, seal, now))?;
            Ok(())
        })
        .await
    }

    /// All findings, oldest first.
    ///
    /// # Errors
    /// [`JournalError::NotFound`]; [`JournalError::Damaged`] where one is not what was written.
    pub async fn findings(&self, campaign: CampaignId) -> Result<Vec<FindingRow>, JournalError> {
        self.read(move |c| {
            let campaign = number(c, campaign)?;
            let mut statement =
                c.prepare_cached("SELECT * FROM findings WHERE campaign = ?1 ORDER BY rowid")?;
            let mut rows = statement.query([campaign])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let (text, verdict): (String, String) = (row.get("text")?, row.get("verdict")?);
                let runs: String = row.get("runs")?;
                if sealed(&text, &verdict, &runs) != row.get::<_, i64>("seal")? {
                    check("text of a finding", text.as_bytes(), row.get("seal")?)?;
                }
                found.push(FindingRow {
                    id: row.get("id")?,
                    experiment: row.get("experiment")?,
                    runs: from_text("a finding's runs", &runs)?,
                    text,
                    verdict,
                    at_ns: row.get("at_ns")?,
                });
            }
            Ok(found)
        })
        .await
    }
}
