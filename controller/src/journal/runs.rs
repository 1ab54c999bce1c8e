//! Runs: planned with their reservation in one transaction, sent, ended. What a worker streams comes in by `apply.rs`.

use std::time::Duration;

use kit::digest::Digest;
use prost::Message as _;
use proto::v1;
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::Serialize;

use super::{
    BudgetError, CampaignId, Journal, JournalError, RunId,
    apply::outcome_word,
    budget::{Charge, Purse, milliseconds, reserve, settle},
    campaigns::{self, number as campaign_number},
    experiments::must_be_open,
    rows::{parsed, parsed_option, signed, unsigned, unsigned_option, words},
    seal::{NAME_MAX, SPEC_MAX, bounded, check, cut, seal},
};

words! {
    /// What a run is for.
    RunPurpose {
        /// A tiny trial before the real thing: journalled and never analysed.
        Smoke = "smoke",
        /// One variant and one seed of an experiment.
        Full = "full",
        /// A user's own program.
        Exec = "exec",
    }
}

words! {
    /// Where a run is: before a worker has it, and then as WORKER §2 has it.
    RunState {
        /// Written down, with its reservation.
        Planned = "planned",
        /// Sent to a worker, which may or may not have it.
        Sent = "sent",
        /// On the worker's disk.
        Accepted = "accepted",
        /// Image, packages, volume.
        Preparing = "preparing",
        /// Sandbox made, gate shut.
        Starting = "starting",
        /// Its program runs.
        Running = "running",
        /// On its way to the end.
        Ending = "ending",
        /// Artifacts are copied.
        Harvesting = "harvesting",
        /// With exactly one outcome.
        Finished = "finished",
    }
}

words! {
    /// A stream of a run; the word is its file's name.
    LogStream {
        /// Standard output.
        Stdout = "stdout",
        /// Standard error.
        Stderr = "stderr",
        /// The metrics channel's JSON lines.
        Metrics = "metrics",
    }
}

impl LogStream {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Metrics];
}

/// What a run begins with.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Made by the caller.
    pub id: RunId,
    /// Whose.
    pub campaign: CampaignId,
    /// 1 is "e1"; `None` for `exec`.
    pub experiment: Option<u32>,
    /// Of the code.
    pub revision: Option<Digest>,
    /// "v1", …
    pub variant: String,
    /// Of the four streams.
    pub seed: u64,
    /// What it is for.
    pub purpose: RunPurpose,
    /// The lost run that it stands in for.
    pub predecessor: Option<RunId>,
    /// By name.
    pub image: String,
    /// The encoded `RunSpec`, sent again as it is.
    pub spec: Vec<u8>,
    /// The longest it may hold each of its devices: its limit, its grace, and half a second to end.
    pub reserve: Duration,
    /// GPUs, or 1 where it takes a CPU slot.
    pub devices: u32,
}

/// How a run ended that no worker told the end of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndedHere {
    /// The worker refused the request, so that no run was made. Charged nothing.
    Rejected {
        /// The field at fault.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The worker is out of reach, or another one, or forgot it. Charged in full, as unknown.
    Lost {
        /// Why.
        cause: v1::LostCause,
        /// One line.
        message: String,
    },
    /// Before any worker had it: charged nothing where it was never sent, else in full, as unknown.
    Cancelled {
        /// One line.
        message: String,
    },
}

/// One run, without its bodies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunRow {
    /// Its id.
    pub id: RunId,
    /// Whose.
    pub campaign: CampaignId,
    /// 1 is "e1"; `None` for `exec`.
    pub experiment: Option<u32>,
    /// Of the code.
    pub revision: Option<Digest>,
    /// "v1", …
    pub variant: String,
    /// Of the four streams.
    pub seed: u64,
    /// What it is for.
    pub purpose: RunPurpose,
    /// The lost run that it stands in for.
    pub predecessor: Option<RunId>,
    /// By name.
    pub image: String,
    /// Where it is.
    pub state: RunState,
    /// The worker it was sent to.
    pub worker_id: Option<String>,
    /// Of that worker, when it was sent.
    pub boot_id: Option<String>,
    /// It holds so many.
    pub devices: u32,
    /// Device time that was set aside.
    pub reserved: Duration,
    /// Device time that it was charged, once it is over.
    pub charged: Option<Duration>,
    /// False where it was charged in full because nobody knows what it used.
    pub usage_known: bool,
    /// Watch on after this.
    pub last_sequence: u64,
    /// Journalled bytes of standard output: what lies past them in the file is not to be read.
    pub stdout_bytes: u64,
    /// Journalled bytes of standard error.
    pub stderr_bytes: u64,
    /// Journalled bytes of the metrics channel.
    pub metrics_bytes: u64,
    /// Metric points of all names.
    pub points: u64,
    /// WORKER §5's word, once it is over.
    pub outcome: Option<String>,
    /// One line, once it is over.
    pub message: Option<String>,
    /// Of the program, where it ended by itself.
    pub exit_code: Option<i32>,
    /// From the start gate to the last process gone.
    pub wall: Option<Duration>,
    /// Of the whole sandbox.
    pub memory_peak_bytes: Option<u64>,
    /// Every artifact is on this disk.
    pub artifacts_done: bool,
    /// The worker was told to forget it.
    pub released: bool,
    /// ns since 1970, by this machine's clock.
    pub planned_ns: i64,
    /// ns since 1970, by the worker's clock.
    pub started_ns: Option<i64>,
    /// ns since 1970, by the clock of whoever ended it.
    pub finished_ns: Option<i64>,
}

impl RunRow {
    /// Journalled bytes of one stream.
    #[must_use]
    pub fn stream_bytes(&self, stream: LogStream) -> u64 {
        match stream {
            LogStream::Stdout => self.stdout_bytes,
            LogStream::Stderr => self.stderr_bytes,
            LogStream::Metrics => self.metrics_bytes,
        }
    }

    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: parsed(row, "id")?,
            campaign: parsed(row, "campaign_id")?,
            experiment: row.get("experiment")?,
            revision: parsed_option(row, "revision")?,
            variant: row.get("variant")?,
            seed: row.get::<_, i64>("seed")?.cast_unsigned(),
            purpose: row.get("purpose")?,
            predecessor: parsed_option(row, "predecessor")?,
            image: row.get("image")?,
            state: row.get("state")?,
            worker_id: row.get("worker")?,
            boot_id: row.get("boot")?,
            devices: row.get("devices")?,
            reserved: unsigned(row, "reserved_ms").map(Duration::from_millis)?,
            charged: unsigned_option(row, "charged_ms")?.map(Duration::from_millis),
            usage_known: row.get("usage_known")?,
            last_sequence: unsigned(row, "last_sequence")?,
            stdout_bytes: unsigned(row, "stdout_bytes")?,
            stderr_bytes: unsigned(row, "stderr_bytes")?,
            metrics_bytes: unsigned(row, "metrics_bytes")?,
            points: unsigned(row, "points")?,
            outcome: row.get("outcome")?,
            message: row.get("message")?,
            exit_code: row.get("exit_code")?,
            wall: unsigned_option(row, "wall_ms")?.map(Duration::from_millis),
            memory_peak_bytes: unsigned_option(row, "memory_peak_bytes")?,
            artifacts_done: row.get("artifacts_done")?,
            released: row.get("released")?,
            planned_ns: row.get("planned_ns")?,
            started_ns: row.get("started_ns")?,
            finished_ns: row.get("finished_ns")?,
        })
    }
}

/// A usage sample that was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageSample {
    /// Since the start gate.
    pub elapsed_ns: u64,
    /// As the worker sent it.
    pub usage: v1::Usage,
}

/// What a worker dropped of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GapRow {
    /// Which stream.
    pub stream: LogStream,
    /// From where.
    pub from_offset: u64,
    /// How much.
    pub dropped_bytes: u64,
    /// How many points with it.
    pub dropped_points: u64,
    /// Why.
    pub reason: String,
}

pub(super) const COLUMNS: &str =
    "SELECT runs.*, campaigns.id AS campaign_id FROM runs JOIN campaigns ON campaigns.number = runs.campaign";

/// A run's number, which the other tables refer to.
pub(super) fn number(connection: &Connection, run: RunId) -> Result<i64, JournalError> {
    connection
        .prepare_cached("SELECT number FROM runs WHERE id = ?1")?
        .query_row([run.to_string()], |row| row.get(0))
        .optional()?
        .ok_or_else(|| JournalError::not_found("run", run))
}

/// One run.
pub(super) fn load(connection: &Connection, run: RunId) -> Result<RunRow, JournalError> {
    connection
        .prepare_cached(&format!("{COLUMNS} WHERE runs.id = ?1"))?
        .query_row([run.to_string()], RunRow::of)
        .optional()?
        .ok_or_else(|| JournalError::not_found("run", run))
}

/// What the end of a run changes in its row, whoever tells it.
pub(super) struct End<'a> {
    pub outcome: v1::OutcomeKind,
    pub message: &'a str,
    pub exit_code: Option<i32>,
    pub wall_ms: Option<u64>,
    pub memory_peak_bytes: Option<u64>,
    pub finished: &'a v1::Finished,
    pub charge: Charge,
    pub at_ns: i64,
}

/// Ends a run: outcome, result, and the settlement of its reservation.
pub(super) fn finish(connection: &Connection, row: &RunRow, end: &End<'_>) -> Result<(), JournalError> {
    let reserved = milliseconds(row.reserved);
    let campaign = campaign_number(connection, row.campaign)?;
    settle(connection, campaign, Purse::Device, reserved, end.charge)?;
    connection
        .prepare_cached(
            "UPDATE runs SET state = ?2, outcome = ?3, message = ?4, exit_code = ?5, wall_ms = ?6,
                 memory_peak_bytes = ?7, charged_ms = ?8, usage_known = ?9, finished_ns = ?10 WHERE id = ?1",
        )?
        .execute(rusqlite::params![
            row.id.to_string(),
            RunState::Finished,
            outcome_word(end.outcome),
            cut(end.message),
            end.exit_code,
            end.wall_ms.map(signed),
            end.memory_peak_bytes.map(signed),
            signed(end.charge.of(reserved)),
            end.charge != Charge::Unknown,
            end.at_ns
        ])?;
    let bytes = end.finished.encode_to_vec();
    connection
        .prepare_cached("INSERT INTO run_results (run, finished, seal) VALUES (?1, ?2, ?3)")?
        .execute((number(connection, row.id)?, &bytes, seal(&bytes)))?;
    Ok(())
}

impl Journal {
    /// Writes a run down and sets its device time aside, in one transaction.
    ///
    /// # Errors
    /// [`BudgetError::Device`] where it does not fit; nothing is written then. [`JournalError::State`] where its
    /// experiment is closed or is not registered.
    pub async fn plan_run(&self, new: NewRun) -> Result<(), BudgetError> {
        bounded("a run's spec", &new.spec, SPEC_MAX)?;
        for (what, text) in [("a variant", &new.variant), ("an image's name", &new.image)] {
            bounded(what, text.as_bytes(), NAME_MAX)?;
        }
        let reserved = milliseconds(new.reserve.saturating_mul(new.devices));
        let now = self.now();
        self.write(move |c| {
            let campaign = campaign_number(c, new.campaign)?;
            if let Some(experiment) = new.experiment {
                must_be_open(c, campaign, experiment)?;
            }
            if let Some(predecessor) = new.predecessor {
                number(c, predecessor)?;
            }
            if let Err(refused) = reserve(c, campaign, Purse::Device, reserved)? {
                return Ok(Err(refused));
            }
            c.prepare_cached(
                "INSERT INTO runs (id, campaign, experiment, revision, variant, seed, purpose, predecessor, image, state,
                     devices, reserved_ms, planned_ns)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?
            .execute(rusqlite::params![
                new.id.to_string(),
                campaign,
                new.experiment,
                new.revision.map(|r| r.to_string()),
                new.variant,
                new.seed.cast_signed(),
                new.purpose,
                new.predecessor.map(|p| p.to_string()),
                new.image,
                RunState::Planned,
                new.devices,
                signed(reserved),
                now
            ])?;
            let run = c.last_insert_rowid();
            c.prepare_cached("INSERT INTO run_specs (run, spec, seal) VALUES (?1, ?2, ?3)")?
                .execute((run, &new.spec, seal(&new.spec)))?;
            Ok(Ok(()))
        })
        .await?
    }

    /// Writes down which worker a run is about to be sent to. Before the request, because a reply may never come.
    ///
    /// # Errors
    /// [`JournalError::State`] where a worker has it already, or it is over.
    pub async fn run_sent(&self, run: RunId, worker_id: &str, boot_id: &str) -> Result<(), JournalError> {
        for (what, text) in [("a worker's id", worker_id), ("a boot id", boot_id)] {
            bounded(what, text.as_bytes(), NAME_MAX)?;
        }
        let (worker, boot) = (worker_id.to_owned(), boot_id.to_owned());
        self.write(move |c| {
            let row = load(c, run)?;
            if !matches!(row.state, RunState::Planned | RunState::Sent) {
                return Err(JournalError::state("run", run, format!("it is {} already", row.state)));
            }
            c.prepare_cached("UPDATE runs SET state = ?2, worker = ?3, boot = ?4 WHERE id = ?1")?
                .execute((run.to_string(), RunState::Sent, worker, boot))?;
            Ok(())
        })
        .await
    }

    /// Ends a run that no worker will tell the end of. One that is over stays as it is: `false` then.
    ///
    /// # Errors
    /// [`JournalError::NotFound`]; [`JournalError::State`] where it is to be rejected and a worker has it.
    pub async fn end_run(&self, run: RunId, how: EndedHere) -> Result<bool, JournalError> {
        let now = self.now();
        self.write(move |c| {
            let row = load(c, run)?;
            if row.state == RunState::Finished {
                return Ok(false);
            }
            let early = matches!(row.state, RunState::Planned | RunState::Sent);
            let (outcome, message, cause, charge) = match how {
                EndedHere::Rejected { .. } if !early => {
                    let problem = format!("it is {}, so it cannot be rejected", row.state);
                    return Err(JournalError::state("run", run, problem));
                }
                EndedHere::Rejected { field, reason } => {
                    (v1::OutcomeKind::Rejected, format!("{field}: {reason}"), None, Charge::Known(0))
                }
                EndedHere::Lost { cause, message } => {
                    (v1::OutcomeKind::Lost, message, Some(cause), Charge::Unknown)
                }
                EndedHere::Cancelled { message } => {
                    let unsent = row.state == RunState::Planned;
                    let charge = if unsent { Charge::Known(0) } else { Charge::Unknown };
                    (v1::OutcomeKind::Cancelled, message, None, charge)
                }
            };
            let message = cut(&message);
            let told = v1::Outcome {
                kind: outcome.into(),
                message: message.clone(),
                lost_cause: cause.map_or(0, i32::from),
                ..Default::default()
            };
            let finished =
                v1::Finished { outcome: Some(told), last_sequence: row.last_sequence, ..Default::default() };
            let end = End {
                outcome,
                message: &message,
                exit_code: None,
                wall_ms: None,
                memory_peak_bytes: None,
                finished: &finished,
                charge,
                at_ns: now,
            };
            finish(c, &row, &end)?;
            Ok(true)
        })
        .await
    }

    /// The worker refused the request, and no run was made: `rejected`, charged nothing.
    ///
    /// # Errors
    /// As [`Journal::end_run`].
    pub async fn reject_run(&self, run: RunId, field: &str, reason: &str) -> Result<(), JournalError> {
        let how = EndedHere::Rejected { field: cut(field), reason: cut(reason) };
        self.end_run(run, how).await.map(drop)
    }

    /// Every artifact of the run is on this disk, synced.
    ///
    /// # Errors
    /// [`JournalError::State`] where the run is not over.
    pub async fn store_artifacts_done(&self, run: RunId) -> Result<(), JournalError> {
        self.mark(run, "UPDATE runs SET artifacts_done = 1 WHERE id = ?1 AND state = 'finished'").await
    }

    /// The worker may forget the run, and was told so.
    ///
    /// # Errors
    /// [`JournalError::State`] where the run is not over.
    pub async fn mark_released(&self, run: RunId) -> Result<(), JournalError> {
        self.mark(run, "UPDATE runs SET released = 1 WHERE id = ?1 AND state = 'finished'").await
    }

    async fn mark(&self, run: RunId, sql: &'static str) -> Result<(), JournalError> {
        self.write(move |c| {
            if c.prepare_cached(sql)?.execute([run.to_string()])? == 0 {
                let row = load(c, run)?;
                return Err(JournalError::state("run", run, format!("it is {}, not over", row.state)));
            }
            Ok(())
        })
        .await
    }

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
