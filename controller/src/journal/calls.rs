//! Calls to models. A call is written down, with the most it may cost, before it is made; its reply is usable again
//! after a kill and is never paid for twice. Requests hold no keys: whoever makes them keeps those out.

use kit::digest::Digest;
use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    BudgetError, CallId, CampaignId, Journal, JournalError, MicroUsd,
    budget::{Charge, Purse, reserve, settle},
    campaigns::number,
    rows::{parsed, signed, unsigned, unsigned_option, words},
    seal::{NAME_MAX, bounded, check, cut, from_text, seal, to_text},
};

words! {
    /// Where a call is.
    CallState {
        /// Under way, or in flight at a kill.
        Open = "open",
        /// With its reply.
        Done = "done",
        /// Without one.
        Failed = "failed",
    }
}

/// What a call begins with.
#[derive(Debug, Clone)]
pub struct NewCall {
    /// "plan", "code", …
    pub purpose: String,
    /// Its spec, like "anthropic:MODEL".
    pub model: String,
    /// What is asked, whole; [`request_digest`] names it.
    pub request: Value,
    /// The most it may cost: prompt and largest output at the model's price.
    pub reserve: MicroUsd,
}

/// Tokens of one call, all attempts together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Neither read from nor written to a cache.
    pub input: u64,
    /// Thinking included.
    pub output: u64,
    /// Read from the provider's cache.
    pub cache_read: u64,
    /// Written to the provider's cache.
    pub cache_write: u64,
}

/// What a call ends with.
#[derive(Debug, Clone)]
pub struct CallReply {
    /// As the loop will want it again.
    pub reply: Value,
    /// Tokens.
    pub usage: TokenUsage,
    /// `None` where nobody knows: then all that was reserved counts.
    pub cost: Option<MicroUsd>,
    /// Requests that were sent for it.
    pub attempts: u32,
}

/// A reply that is there already.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredReply {
    /// The call that paid for it.
    pub call: CallId,
    /// As it was stored.
    pub reply: Value,
}

/// One call, without its bodies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallRow {
    /// Its id.
    pub id: CallId,
    /// "plan", "code", …
    pub purpose: String,
    /// Its spec.
    pub model: String,
    /// What names the request.
    pub request_digest: Digest,
    /// Where it is.
    pub state: CallState,
    /// Set aside for it.
    pub reserved: MicroUsd,
    /// Once it is over.
    pub charged: Option<MicroUsd>,
    /// False where it was charged in full because nobody knows what it cost.
    pub cost_known: bool,
    /// Where the provider told.
    pub usage: Option<TokenUsage>,
    /// Requests that were sent for it.
    pub attempts: u32,
    /// Why it has no reply.
    pub error: Option<String>,
    /// ns since 1970.
    pub begun_ns: i64,
    /// ns since 1970.
    pub ended_ns: Option<i64>,
}

impl CallRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let usage = match unsigned_option(row, "input_tokens")? {
            None => None,
            Some(input) => Some(TokenUsage {
                input,
                output: unsigned(row, "output_tokens")?,
                cache_read: unsigned(row, "cache_read_tokens")?,
                cache_write: unsigned(row, "cache_write_tokens")?,
            }),
        };
        Ok(Self {
            id: parsed(row, "id")?,
            purpose: row.get("purpose")?,
            model: row.get("model")?,
            request_digest: parsed(row, "request_digest")?,
            state: row.get("state")?,
            reserved: unsigned(row, "reserved_usd").map(MicroUsd)?,
            charged: unsigned_option(row, "charged_usd")?.map(MicroUsd),
            cost_known: row.get("cost_known")?,
            usage,
            attempts: row.get("attempts")?,
            error: row.get("error")?,
            begun_ns: row.get("begun_ns")?,
            ended_ns: row.get("ended_ns")?,
        })
    }
}

/// What names a request: the SHA-256 of its compact JSON.
#[must_use]
pub fn request_digest(request: &Value) -> Digest {
    Digest::of(request.to_string().as_bytes())
}

/// Ends an open call: gives its reservation back and books the cost. `false` where it is over already.
fn end(
    connection: &Connection,
    call: CallId,
    state: CallState,
    cost: Option<MicroUsd>,
    now: i64,
) -> Result<bool, JournalError> {
    let found = connection
        .prepare_cached("SELECT campaign, reserved_usd, state FROM calls WHERE id = ?1")?
        .query_row([call.to_string()], |row| {
            Ok((
                row.get::<_, i64>("campaign")?,
                unsigned(row, "reserved_usd")?,
                row.get::<_, CallState>("state")?,
            ))
        })
        .optional()?;
    let Some((campaign, reserved, before)) = found else {
        return Err(JournalError::not_found("call", call));
    };
    if before != CallState::Open {
        return Ok(false);
    }
    let charge = cost.map_or(Charge::Unknown, |cost| Charge::Known(cost.0));
    settle(connection, campaign, Purse::Cost, reserved, charge)?;
    connection
        .prepare_cached(
            "UPDATE calls SET state = ?2, charged_usd = ?3, cost_known = ?4, ended_ns = ?5 WHERE id = ?1",
        )?
        .execute((call.to_string(), state, signed(charge.of(reserved)), cost.is_some(), now))?;
    Ok(true)
}

impl Journal {
    /// Writes a call down and sets its cost aside, in one transaction.
    ///
    /// # Errors
    /// [`BudgetError::Cost`] where it does not fit; nothing is written then.
    pub async fn begin_call(&self, campaign: CampaignId, new: NewCall) -> Result<CallId, BudgetError> {
        bounded("a call's purpose", new.purpose.as_bytes(), NAME_MAX)?;
        bounded("a model's name", new.model.as_bytes(), NAME_MAX)?;
        let request = to_text("a request", &new.request)?;
        let now = self.now();
        self.write(move |c| {
            let campaign = number(c, campaign)?;
            if let Err(refused) = reserve(c, campaign, Purse::Cost, new.reserve.0)? {
                return Ok(Err(refused));
            }
            let id = CallId::new();
            c.prepare_cached(
                "INSERT INTO calls (id, campaign, purpose, model, request_digest, request, state, reserved_usd, begun_ns)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(rusqlite::params![
                id.to_string(),
                campaign,
                new.purpose,
                new.model,
                Digest::of(request.as_bytes()).to_string(),
                request,
                CallState::Open,
                signed(new.reserve.0),
                now
            ])?;
            Ok(Ok(id))
        })
        .await?
    }

    /// Stores a reply and settles its cost.
    ///
    /// # Errors
    /// [`JournalError::State`] where the call is over.
    pub async fn finish_call(&self, call: CallId, reply: CallReply) -> Result<(), JournalError> {
        let text = to_text("a reply", &reply.reply)?;
        let now = self.now();
        self.write(move |c| {
            if !end(c, call, CallState::Done, reply.cost, now)? {
                return Err(JournalError::state("call", call, "it is over already"));
            }
            c.prepare_cached(
                "UPDATE calls SET reply = ?2, reply_seal = ?3, input_tokens = ?4, output_tokens = ?5,
                     cache_read_tokens = ?6, cache_write_tokens = ?7, attempts = ?8 WHERE id = ?1",
            )?
            .execute(rusqlite::params![
                call.to_string(),
                text,
                seal(text.as_bytes()),
                signed(reply.usage.input),
                signed(reply.usage.output),
                signed(reply.usage.cache_read),
                signed(reply.usage.cache_write),
                reply.attempts
            ])?;
            Ok(())
        })
        .await
    }

    /// Writes down that a call gave nothing. `cost` is zero where the provider was never reached or does not charge
    /// for a refusal, and `None` where nobody knows: then all that was reserved counts.
    ///
    /// # Errors
    /// [`JournalError::State`] where the call is over.
    pub async fn fail_call(
        &self,
        call: CallId,
        error: &str,
        cost: Option<MicroUsd>,
    ) -> Result<(), JournalError> {
        let (error, now) = (cut(error), self.now());
        self.write(move |c| {
            if !end(c, call, CallState::Failed, cost, now)? {
                return Err(JournalError::state("call", call, "it is over already"));
            }
            c.prepare_cached("UPDATE calls SET error = ?2 WHERE id = ?1")?
                .execute((call.to_string(), error))?;
            Ok(())
        })
        .await
    }

    /// Ends the calls that were in flight when the campaign's last owner was killed: each is charged in full and shown
    /// as unknown. For the campaign's new owner, before its first call. How many there were.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn settle_open_calls(&self, campaign: CampaignId) -> Result<u32, JournalError> {
        let now = self.now();
        self.write(move |c| {
            let campaign = number(c, campaign)?;
            let open = c
                .prepare_cached("SELECT id FROM calls WHERE campaign = ?1 AND state = 'open'")?
                .query_map([campaign], |row| parsed::<CallId>(row, "id"))?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            for call in &open {
                end(c, *call, CallState::Failed, None, now)?;
                c.prepare_cached(
                    "UPDATE calls SET error = 'in flight when the program ended' WHERE id = ?1",
                )?
                .execute([call.to_string()])?;
            }
            Ok(u32::try_from(open.len()).unwrap_or(u32::MAX))
        })
        .await
    }

    /// The last reply in this campaign to a request with this digest.
    ///
    /// # Errors
    /// [`JournalError::NotFound`]; [`JournalError::Damaged`] where the reply is not what was written.
    pub async fn find_reply(
        &self,
        campaign: CampaignId,
        request: Digest,
    ) -> Result<Option<StoredReply>, JournalError> {
        self.read(move |c| {
            let campaign = number(c, campaign)?;
            let mut statement = c.prepare_cached(
                "SELECT id, reply, reply_seal FROM calls
                 WHERE campaign = ?1 AND request_digest = ?2 AND state = 'done' ORDER BY number DESC LIMIT 1",
            )?;
            let mut rows = statement.query((campaign, request.to_string()))?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let reply: String = row.get("reply")?;
            check("reply of a model", reply.as_bytes(), row.get("reply_seal")?)?;
            Ok(Some(StoredReply { call: parsed(row, "id")?, reply: from_text("a reply", &reply)? }))
        })
        .await
    }

    /// All calls of a campaign, oldest first.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn calls(&self, campaign: CampaignId) -> Result<Vec<CallRow>, JournalError> {
        self.read(move |c| {
            let campaign = number(c, campaign)?;
            let mut statement =
                c.prepare_cached("SELECT * FROM calls WHERE campaign = ?1 ORDER BY number")?;
            let rows = statement.query_map([campaign], CallRow::of)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }
}
