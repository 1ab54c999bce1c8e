//! Runs: planned with their reservation in one transaction, sent, ended. What a worker streams comes in by `apply.rs`;
//! what is read of them is in `run_reads.rs`.

use prost::Message as _;
use proto::v1;
use rusqlite::Connection;

use super::{
    BudgetError, Journal, JournalError, RunId,
    apply::outcome_word,
    budget::{Charge, Purse, milliseconds, reserve, settle},
    campaigns::number as campaign_number,
    experiments::must_be_open,
    rows::signed,
    run_rows::{EndedHere, NewRun, RunRow, RunState, load, number},
    seal::{NAME_MAX, SPEC_MAX, bounded, cut, seal},
};

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
}
