//! Reading runs: rows, specs, results, samples, gaps, and finding one by the beginning of its id.

use prost::Message as _;
use proto::v1;
use rusqlite::OptionalExtension as _;

use super::{
    CampaignId, Journal, JournalError, RunId,
    campaigns::{self, number as campaign_number},
    rows::unsigned,
    run_rows::{COLUMNS, GapRow, RunRow, UsageSample, load, number},
    seal::check,
};

impl Journal {
    async fn rows(
        &self,
        condition: &'static str,
        campaign: Option<CampaignId>,
    ) -> Result<Vec<RunRow>, JournalError> {
        self.read(move |c| {
            let campaign = campaign.map(|id| campaign_number(c, id)).transpose()?;
            let mut statement = c.prepare_cached(&format!("{COLUMNS} {condition} ORDER BY runs.number"))?;
            let rows = match campaign {
                Some(campaign) => statement.query_map([campaign], RunRow::of)?.collect(),
                None => statement.query_map([], RunRow::of)?.collect::<rusqlite::Result<_>>(),
            };
            Ok(rows?)
        })
        .await
    }

    /// All runs of a campaign, in the order in which they were planned.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn runs(&self, campaign: CampaignId) -> Result<Vec<RunRow>, JournalError> {
        self.rows("WHERE runs.campaign = ?1", Some(campaign)).await
    }

    /// Runs of all campaigns that have no outcome yet: what a kill left behind, and what others have under way.
    ///
    /// # Errors
    /// Whatever reading gives.
    pub async fn unfinished_runs(&self) -> Result<Vec<RunRow>, JournalError> {
        self.rows("WHERE runs.state <> 'finished'", None).await
    }

    /// Runs that are over and that some worker may still hold.
    ///
    /// # Errors
    /// Whatever reading gives.
    pub async fn unreleased_runs(&self) -> Result<Vec<RunRow>, JournalError> {
        self.rows("WHERE runs.state = 'finished' AND runs.released = 0 AND runs.worker IS NOT NULL", None)
            .await
    }

    /// Runs of all campaigns that this side gave up and that may turn up again on some worker, oldest first.
    ///
    /// # Errors
    /// Whatever reading gives.
    pub async fn given_up_runs(&self) -> Result<Vec<RunRow>, JournalError> {
        let mut rows = self
            .rows("WHERE runs.state = 'finished' AND runs.released = 0 AND runs.outcome = 'lost'", None)
            .await?;
        rows.retain(RunRow::is_given_up);
        Ok(rows)
    }

    /// One run.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn run(&self, run: RunId) -> Result<RunRow, JournalError> {
        self.read(move |c| load(c, run)).await
    }

    /// The bytes that were sent, or are to be.
    ///
    /// # Errors
    /// [`JournalError::NotFound`]; [`JournalError::Damaged`] where they are not what was written.
    pub async fn spec(&self, run: RunId) -> Result<Vec<u8>, JournalError> {
        self.read(move |c| {
            let mut statement = c.prepare_cached("SELECT spec, seal FROM run_specs WHERE run = ?1")?;
            let (spec, seal): (Vec<u8>, i64) =
                statement.query_row([number(c, run)?], |row| Ok((row.get(0)?, row.get(1)?)))?;
            check("spec of a run", &spec, seal)?;
            Ok(spec)
        })
        .await
    }

    /// How a run ended, whole: traceback, usage, artifacts, limits. `None` while it is not over.
    ///
    /// # Errors
    /// [`JournalError::NotFound`]; [`JournalError::Damaged`] where it is not what was written.
    pub async fn finished(&self, run: RunId) -> Result<Option<v1::Finished>, JournalError> {
        let path = self.database_path();
        self.read(move |c| {
            let mut statement = c.prepare_cached("SELECT finished, seal FROM run_results WHERE run = ?1")?;
            let found: Option<(Vec<u8>, i64)> =
                statement.query_row([number(c, run)?], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some((bytes, seal)) = found else { return Ok(None) };
            check("result of a run", &bytes, seal)?;
            let finished = v1::Finished::decode(bytes.as_slice());
            finished.map(Some).map_err(|e| JournalError::Damaged { path, detail: e.to_string() })
        })
        .await
    }

    /// The only run whose id begins so.
    ///
    /// # Errors
    /// [`JournalError::NotFound`], [`JournalError::Ambiguous`] with the ids, [`JournalError::Prefix`].
    pub async fn find_run(&self, prefix: &str) -> Result<RunId, JournalError> {
        let prefix = prefix.to_owned();
        self.read(move |c| {
            let query = "SELECT id FROM runs WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 10";
            let id = campaigns::find(c, "run", query, &prefix)?;
            id.parse().map_err(|_| JournalError::not_found("run", id))
        })
        .await
    }

    /// The usage samples that were kept, oldest first: at most 512, evenly spread, and the last one.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn usage_samples(&self, run: RunId) -> Result<Vec<UsageSample>, JournalError> {
        let path = self.database_path();
        self.read(move |c| {
            let mut statement =
                c.prepare_cached("SELECT * FROM usage_samples WHERE run = ?1 ORDER BY sequence")?;
            let mut rows = statement.query([number(c, run)?])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let bytes: Vec<u8> = row.get("sample")?;
                let usage = v1::Usage::decode(bytes.as_slice())
                    .map_err(|e| JournalError::Damaged { path: path.clone(), detail: e.to_string() })?;
                found.push(UsageSample { elapsed_ns: unsigned(row, "elapsed_ns")?, usage });
            }
            Ok(found)
        })
        .await
    }

    /// What the worker dropped of the run's streams, oldest first.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn gaps(&self, run: RunId) -> Result<Vec<GapRow>, JournalError> {
        self.read(move |c| {
            let mut statement = c.prepare_cached("SELECT * FROM gaps WHERE run = ?1 ORDER BY sequence")?;
            let rows = statement.query_map([number(c, run)?], |row| {
                Ok(GapRow {
                    stream: row.get("stream")?,
                    from_offset: unsigned(row, "from_offset")?,
                    dropped_bytes: unsigned(row, "dropped_bytes")?,
                    dropped_points: unsigned(row, "dropped_points")?,
                    reason: row.get("reason")?,
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }
}
