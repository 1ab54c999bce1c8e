//! Experiments and the revisions of their code. A plan is registered with its digest before any run of it, and is never
//! changed; a revision is never changed; a result is written once.

use kit::digest::Digest;
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::Serialize;
use serde_json::Value;

use super::{
    CampaignId, Journal, JournalError,
    campaigns::number,
    rows::parsed,
    seal::{BODY_MAX, NAME_MAX, SOURCE_MAX, bounded, check, cut, from_text, seal, to_text},
};

/// One experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExperimentRow {
    /// 1 is "e1".
    pub number: u32,
    /// "exploratory" or "confirmatory".
    pub role: String,
    /// Of the plan, as it was registered.
    pub digest: Digest,
    /// As it was registered.
    pub plan: Value,
    /// Once it is closed.
    pub result: Option<Value>,
    /// ns since 1970.
    pub registered_ns: i64,
    /// ns since 1970.
    pub closed_ns: Option<i64>,
}

impl ExperimentRow {
    fn of(row: &Row<'_>) -> Result<Self, JournalError> {
        let plan: String = row.get("plan")?;
        check("plan of an experiment", plan.as_bytes(), row.get("plan_seal")?)?;
        let result: Option<String> = row.get("result")?;
        if let Some(result) = &result {
            check("result of an experiment", result.as_bytes(), row.get("result_seal")?)?;
        }
        Ok(Self {
            number: row.get("number")?,
            role: row.get("role")?,
            digest: parsed(row, "digest")?,
            plan: from_text("a plan", &plan)?,
            result: result.map(|r| from_text("a result", &r)).transpose()?,
            registered_ns: row.get("registered_ns")?,
            closed_ns: row.get("closed_ns")?,
        })
    }
}

/// One version of an experiment's code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RevisionRow {
    /// Whose.
    pub experiment: u32,
    /// From 1 within the experiment.
    pub number: u32,
    /// Its name.
    pub digest: Digest,
    /// Python.
    pub source: String,
    /// Why it was made: "first", or what failed.
    pub reason: String,
    /// ns since 1970.
    pub at_ns: i64,
}

fn registered(
    connection: &Connection,
    campaign: i64,
    experiment: u32,
) -> Result<Option<(Digest, i64)>, JournalError> {
    Ok(connection
        .prepare_cached("SELECT digest, registered_ns FROM experiments WHERE campaign = ?1 AND number = ?2")?
        .query_row((campaign, experiment), |row| Ok((parsed(row, "digest")?, row.get("registered_ns")?)))
        .optional()?)
}

/// That the experiment is registered and open.
pub(super) fn must_be_open(
    connection: &Connection,
    campaign: i64,
    experiment: u32,
) -> Result<(), JournalError> {
    let closed: Option<Option<i64>> = connection
        .prepare_cached("SELECT closed_ns FROM experiments WHERE campaign = ?1 AND number = ?2")?
        .query_row((campaign, experiment), |row| row.get(0))
        .optional()?;
    match closed {
        None => Err(JournalError::not_found("experiment", format!("e{experiment}"))),
        Some(Some(_)) => Err(JournalError::state("experiment", format!("e{experiment}"), "it is closed")),
        Some(None) => Ok(()),
    }
}

impl Journal {
    /// Registers a plan; when that was, in ns since 1970. The same plan again changes nothing, so that a step can be taken
    /// again after a kill.
    ///
    /// # Errors
    /// [`JournalError::State`] where another plan has this number.
    pub async fn register_experiment(
        &self,
        campaign: CampaignId,
        experiment: u32,
        plan: &Value,
        digest: Digest,
        role: &str,
    ) -> Result<i64, JournalError> {
        bounded("a role", role.as_bytes(), NAME_MAX)?;
        let (plan, role, now) = (to_text("a plan", plan)?, role.to_owned(), self.now());
        self.write(move |c| {
            let campaign = number(c, campaign)?;
            match registered(c, campaign, experiment)? {
                Some((registered, at)) if registered == digest => return Ok(at),
                Some(_) => {
                    let problem = "it is registered with another plan, and a plan is never changed";
                    return Err(JournalError::state("experiment", format!("e{experiment}"), problem));
                }
                None => {}
            }
            c.prepare_cached(
                "INSERT INTO experiments (campaign, number, role, digest, plan, plan_seal, registered_ns)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((
                campaign,
                experiment,
                role,
                digest.to_string(),
                &plan,
                seal(plan.as_bytes()),
                now,
            ))?;
            Ok(now)
        })
        .await
    }

    /// Closes an experiment with its result: from now on it takes no runs, and its numbers may be shown.
    ///
    /// # Errors
    /// [`JournalError::NotFound`]; [`JournalError::State`] where it is closed with another result.
    pub async fn close_experiment(
        &self,
        campaign: CampaignId,
        experiment: u32,
        result: &Value,
    ) -> Result<(), JournalError> {
        let (result, now) = (to_text("a result", result)?, self.now());
        self.write(move |c| {
            let campaign = number(c, campaign)?;
            let before: Option<Option<String>> = c
                .prepare_cached("SELECT result FROM experiments WHERE campaign = ?1 AND number = ?2")?
                .query_row((campaign, experiment), |row| row.get(0))
                .optional()?;
            match before {
                None => return Err(JournalError::not_found("experiment", format!("e{experiment}"))),
                Some(Some(before)) if before == result => return Ok(()),
                Some(Some(_)) => {
                    let problem = "it is closed with another result";
                    return Err(JournalError::state("experiment", format!("e{experiment}"), problem));
                }
                Some(None) => {}
            }
            c.prepare_cached(
                "UPDATE experiments SET result = ?3, result_seal = ?4, closed_ns = ?5
                 WHERE campaign = ?1 AND number = ?2",
            )?
            .execute((campaign, experiment, &result, seal(result.as_bytes()), now))?;
            Ok(())
        })
        .await
    }

    /// All experiments, oldest first.
    ///
    /// # Errors
    /// [`JournalError::NotFound`]; [`JournalError::Damaged`] where a body is not what was written.
    pub async fn experiments(&self, campaign: CampaignId) -> Result<Vec<ExperimentRow>, JournalError> {
        self.read(move |c| {
            let campaign = number(c, campaign)?;
            let mut statement =
                c.prepare_cached("SELECT * FROM experiments WHERE campaign = ?1 ORDER BY number")?;
            let mut rows = statement.query([campaign])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(ExperimentRow::of(row)?);
            }
            Ok(found)
        })
        .await
    }

    /// Adds a version of an experiment's code. The same one again changes nothing.
    ///
    /// # Errors
    /// [`JournalError::NotFound`], [`JournalError::TooLarge`]; [`JournalError::State`] where the number is taken by
    /// another one, or the experiment is closed.
    pub async fn add_revision(
        &self,
        campaign: CampaignId,
        experiment: u32,
        revision: u32,
        digest: Digest,
        source: &str,
        reason: &str,
    ) -> Result<(), JournalError> {
        bounded("a program", source.as_bytes(), SOURCE_MAX)?;
        let (source, reason, now) = (source.to_owned(), cut(reason), self.now());
        self.write(move |c| {
            let campaign = number(c, campaign)?;
            let before: Option<Digest> = c
                .prepare_cached(
                    "SELECT digest FROM revisions WHERE campaign = ?1 AND experiment = ?2 AND number = ?3",
                )?
                .query_row((campaign, experiment, revision), |row| parsed(row, "digest"))
                .optional()?;
            match before {
                Some(before) if before == digest => return Ok(()),
                Some(_) => {
                    let which = format!("{revision} of e{experiment}");
                    return Err(JournalError::state("revision", which, "the number has other code already"));
                }
                None => must_be_open(c, campaign, experiment)?,
            }
            c.prepare_cached(
                "INSERT INTO revisions (campaign, experiment, number, digest, source, seal, reason, at_ns)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(rusqlite::params![
                campaign,
                experiment,
                revision,
                digest.to_string(),
                source,
                seal(source.as_bytes()),
                reason,
                now
            ])?;
            Ok(())
        })
        .await
    }

    /// All versions of all experiments' code, oldest first.
    ///
    /// # Errors
    /// [`JournalError::NotFound`]; [`JournalError::Damaged`] where a source is not what was written.
    pub async fn revisions(&self, campaign: CampaignId) -> Result<Vec<RevisionRow>, JournalError> {
        self.read(move |c| {
            let campaign = number(c, campaign)?;
            let mut statement =
                c.prepare_cached("SELECT * FROM revisions WHERE campaign = ?1 ORDER BY experiment, number")?;
            let mut rows = statement.query([campaign])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let source: String = row.get("source")?;
                bounded("a program", source.as_bytes(), BODY_MAX)?;
                check("source of a revision", source.as_bytes(), row.get("seal")?)?;
                found.push(RevisionRow {
                    experiment: row.get("experiment")?,
                    number: row.get("number")?,
                    digest: parsed(row, "digest")?,
                    source,
                    reason: row.get("reason")?,
                    at_ns: row.get("at_ns")?,
                });
            }
            Ok(found)
        })
        .await
    }
}
