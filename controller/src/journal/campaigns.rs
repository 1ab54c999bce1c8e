//! Campaigns: making, changing, listing, finding.

use std::{path::PathBuf, time::Duration};

use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    CampaignId, Journal, JournalError, Limits, Spent,
    budget::{limits_of, milliseconds, spent_of},
    rows::{parsed, signed, unsigned, words},
    seal::{BODY_MAX, NAME_MAX, QUESTION_MAX, bounded, cut, from_text, to_text},
};

words! {
    /// What a campaign is for.
    CampaignKind {
        /// A question.
        Research = "research",
        /// One program in one sandbox; `list` hides it without `--all`.
        Exec = "exec",
    }
}

words! {
    /// Where a campaign is.
    CampaignState {
        /// Under way, or left so by a kill: whether it is owned tells.
        Running = "running",
        /// By the user, or waiting for a budget.
        Paused = "paused",
        /// By Ctrl-C: it can be resumed.
        Interrupted = "interrupted",
        /// With its report.
        Finished = "finished",
        /// Without an answer.
        Failed = "failed",
        /// By the user, for good.
        Cancelled = "cancelled",
    }
}

/// What a campaign begins with.
#[derive(Debug, Clone)]
pub struct NewCampaign {
    /// Made by the caller.
    pub id: CampaignId,
    /// What it is for.
    pub kind: CampaignKind,
    /// As the user wrote it; for `exec` the file's name.
    pub question: String,
    /// Everything else it was started with, but never a key.
    pub settings: Value,
    /// "offline", or the model's spec; for `exec` "none".
    pub researcher: String,
    /// Of the campaign's own draws.
    pub seed: Option<u64>,
    /// Its hard stops.
    pub limits: Limits,
}

/// Where the report lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportPaths {
    /// Absolute.
    pub markdown: PathBuf,
    /// Absolute.
    pub html: PathBuf,
    /// Absolute.
    pub json: PathBuf,
}

/// How many runs ended in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeCount {
    /// WORKER §5's word.
    pub outcome: String,
    /// Runs.
    pub runs: u64,
}

/// One campaign.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CampaignRow {
    /// Its id.
    pub id: CampaignId,
    /// What it is for.
    pub kind: CampaignKind,
    /// Where it is.
    pub state: CampaignState,
    /// Why it stopped, if it did.
    pub stop_reason: Option<String>,
    /// As the user wrote it.
    pub question: String,
    /// What it was started with.
    pub settings: Value,
    /// Who thinks.
    pub researcher: String,
    /// Of the campaign's own draws.
    pub seed: Option<u64>,
    /// The answer, once there is one.
    pub answer: Option<String>,
    /// The report, once there is one.
    pub report: Option<ReportPaths>,
    /// ns since 1970.
    pub created_ns: i64,
    /// ns since 1970; of its own row, not of its runs.
    pub updated_ns: i64,
    /// Experiments that are registered.
    pub iterations: u32,
    /// Runs that were planned, smoke runs included.
    pub runs: u64,
    /// Of the runs that ended, how.
    pub outcomes: Vec<OutcomeCount>,
    /// Its hard stops.
    pub limits: Limits,
    /// What it has used.
    pub spent: Spent,
}

impl CampaignRow {
    fn of(row: &Row<'_>) -> Result<Self, JournalError> {
        let path = |column| row.get::<_, Option<String>>(column).map(|p| p.map(PathBuf::from));
        let report = match (path("report_markdown")?, path("report_html")?, path("report_json")?) {
            (Some(markdown), Some(html), Some(json)) => Some(ReportPaths { markdown, html, json }),
            _ => None,
        };
        Ok(Self {
            id: parsed(row, "id")?,
            kind: row.get("kind")?,
            state: row.get("state")?,
            stop_reason: row.get("stop_reason")?,
            question: row.get("question")?,
            settings: from_text(
                "a campaign's settings",
                row.get_ref("settings")?.as_str().map_err(rusqlite::Error::from)?,
            )?,
            researcher: row.get("researcher")?,
            seed: row.get::<_, Option<i64>>("seed")?.map(i64::cast_unsigned),
            answer: row.get("answer")?,
            report,
            created_ns: row.get("created_ns")?,
            updated_ns: row.get("updated_ns")?,
            iterations: row.get("iterations")?,
            runs: 0,
            outcomes: Vec::new(),
            limits: limits_of(row)?,
            spent: spent_of(row)?,
        })
    }

    /// Counts its runs, by the index alone.
    fn count(mut self, connection: &Connection, number: i64) -> Result<Self, JournalError> {
        let mut statement = connection.prepare_cached(
            "SELECT outcome, count(*) AS runs FROM runs WHERE campaign = ?1 GROUP BY outcome ORDER BY outcome",
        )?;
        let mut rows = statement.query([number])?;
        while let Some(row) = rows.next()? {
            let runs = unsigned(row, "runs")?;
            self.runs += runs;
            if let Some(outcome) = row.get("outcome")? {
                self.outcomes.push(OutcomeCount { outcome, runs });
            }
        }
        Ok(self)
    }
}

const COLUMNS: &str =
    "SELECT *, (SELECT count(*) FROM experiments WHERE campaign = campaigns.number) AS iterations
     FROM campaigns";

/// A campaign's number, which the other tables refer to.
pub(super) fn number(connection: &Connection, campaign: CampaignId) -> Result<i64, JournalError> {
    connection
        .prepare_cached("SELECT number FROM campaigns WHERE id = ?1")?
        .query_row([campaign.to_string()], |row| row.get(0))
        .optional()?
        .ok_or_else(|| JournalError::not_found("campaign", campaign))
}

/// The only id in `table` that begins with `prefix`.
pub(super) fn find(
    connection: &Connection,
    what: &'static str,
    query: &str,
    prefix: &str,
) -> Result<String, JournalError> {
    let ok = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-');
    if prefix.is_empty() || prefix.len() > 36 || !prefix.bytes().all(ok) {
        let shown = prefix.chars().take(64).flat_map(char::escape_default).collect();
        return Err(JournalError::Prefix(shown));
    }
    // `g` sorts after every character of an id, so that the index gives the range.
    let mut matches = connection
        .prepare_cached(query)?
        .query_map([prefix, &format!("{prefix}g")], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    match matches.len() {
        0 => Err(JournalError::not_found(what, prefix)),
        1 => Ok(matches.remove(0)),
        _ => Err(JournalError::Ambiguous { what, prefix: prefix.to_owned(), matches }),
    }
}

impl Journal {
    /// Writes a new campaign down, as running.
    ///
    /// # Errors
    /// [`JournalError::TooLarge`] names the field.
    pub async fn create_campaign(&self, new: NewCampaign) -> Result<(), JournalError> {
        bounded("the question", new.question.as_bytes(), QUESTION_MAX)?;
        bounded("the researcher's name", new.researcher.as_bytes(), NAME_MAX)?;
        let settings = to_text("the settings", &new.settings)?;
        let now = self.now();
        self.write(move |c| {
            let limits = new.limits;
            c.prepare_cached(
                "INSERT INTO campaigns (id, kind, state, question, settings, researcher, seed, created_ns, updated_ns,
                     limit_iterations, limit_wall_ms, limit_device_ms, limit_cost_usd, limit_failures)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?
            .execute(rusqlite::params![
                new.id.to_string(),
                new.kind,
                CampaignState::Running,
                new.question,
                settings,
                new.researcher,
                new.seed.map(u64::cast_signed),
                now,
                limits.max_iterations,
                limits.wall.map(|w: Duration| signed(milliseconds(w))),
                limits.device.map(|d| signed(milliseconds(d))),
                limits.cost.map(|m| signed(m.0)),
                limits.max_failures,
            ])?;
            Ok(())
        })
        .await
    }

    /// Says where the campaign is now. `stop_reason` replaces the one before, also by `None`.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn set_campaign_state(
        &self,
        campaign: CampaignId,
        state: CampaignState,
        stop_reason: Option<String>,
    ) -> Result<(), JournalError> {
        let (now, reason) = (self.now(), stop_reason.as_deref().map(cut));
        self.change(
            campaign,
            "UPDATE campaigns SET state = ?2, stop_reason = ?3, updated_ns = ?4 WHERE id = ?1",
            move |id, statement| statement.execute((id, state, reason, now)),
        )
        .await
    }

    /// The answer in words.
    ///
    /// # Errors
    /// [`JournalError::NotFound`], [`JournalError::TooLarge`].
    pub async fn set_answer(&self, campaign: CampaignId, text: &str) -> Result<(), JournalError> {
        bounded("the answer", text.as_bytes(), BODY_MAX)?;
        let (now, text) = (self.now(), text.to_owned());
        self.change(
            campaign,
            "UPDATE campaigns SET answer = ?2, updated_ns = ?3 WHERE id = ?1",
            move |id, statement| statement.execute((id, text, now)),
        )
        .await
    }

    /// Where the report lies.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn set_report_paths(
        &self,
        campaign: CampaignId,
        paths: ReportPaths,
    ) -> Result<(), JournalError> {
        let now = self.now();
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        self.change(
            campaign,
            "UPDATE campaigns SET report_markdown = ?2, report_html = ?3, report_json = ?4, updated_ns = ?5
             WHERE id = ?1",
            move |id, statement| {
                statement.execute((id, text(paths.markdown), text(paths.html), text(paths.json), now))
            },
        )
        .await
    }

    async fn change(
        &self,
        campaign: CampaignId,
        sql: &'static str,
        execute: impl FnOnce(String, &mut rusqlite::CachedStatement<'_>) -> rusqlite::Result<usize>
        + Send
        + 'static,
    ) -> Result<(), JournalError> {
        self.write(move |c| {
            if execute(campaign.to_string(), &mut c.prepare_cached(sql)?)? == 0 {
                return Err(JournalError::not_found("campaign", campaign));
            }
            Ok(())
        })
        .await
    }

    /// Campaigns, newest first; those of kind `exec` only where `all`.
    ///
    /// # Errors
    /// Whatever reading gives.
    pub async fn list_campaigns(&self, all: bool) -> Result<Vec<CampaignRow>, JournalError> {
        self.read(move |c| {
            let mut statement =
                c.prepare_cached(&format!("{COLUMNS} WHERE ?1 OR kind <> 'exec' ORDER BY number DESC"))?;
            let mut rows = statement.query([all])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(CampaignRow::of(row)?.count(c, row.get("number")?)?);
            }
            Ok(found)
        })
        .await
    }

    /// One campaign.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn campaign(&self, campaign: CampaignId) -> Result<CampaignRow, JournalError> {
        self.read(move |c| {
            let mut statement = c.prepare_cached(&format!("{COLUMNS} WHERE id = ?1"))?;
            let mut rows = statement.query([campaign.to_string()])?;
            match rows.next()? {
                Some(row) => CampaignRow::of(row)?.count(c, row.get("number")?),
                None => Err(JournalError::not_found("campaign", campaign)),
            }
        })
        .await
    }

    /// The only campaign whose id begins so.
    ///
    /// # Errors
    /// [`JournalError::NotFound`], [`JournalError::Ambiguous`] with the ids, [`JournalError::Prefix`].
    pub async fn find_campaign(&self, prefix: &str) -> Result<CampaignId, JournalError> {
        let prefix = prefix.to_owned();
        self.read(move |c| {
            let query = "SELECT id FROM campaigns WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 10";
            let id = find(c, "campaign", query, &prefix)?;
            id.parse().map_err(|_| JournalError::not_found("campaign", id))
        })
        .await
    }
}
