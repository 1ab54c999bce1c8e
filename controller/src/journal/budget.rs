//! Budgets: reserved in the transaction that journals an intent, settled by the one that journals its result. The
//! totals stand in the campaign's row, so that a reservation costs the same after 10,000 runs as before the first.
//!
//! What has no result is settled in full and counted as unknown, so that a campaign never spends more than it was given.
//! Charges are rounded up to the millisecond.

use std::{fmt, time::Duration};

use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::{Deserialize, Serialize};

use super::{
    BudgetError, CampaignId, Journal, JournalError,
    rows::{signed, unsigned, unsigned_option},
};

/// Money in millionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MicroUsd(pub u64);

impl MicroUsd {
    /// In dollars, for display.
    #[must_use]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${:.4}", self.dollars())
    }
}

/// The hard stops of a campaign; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Iterations in all.
    pub max_iterations: Option<u32>,
    /// Awake and not paused.
    pub wall: Option<Duration>,
    /// Devices × their time.
    pub device: Option<Duration>,
    /// Of model calls.
    pub cost: Option<MicroUsd>,
    /// Failures in a row.
    pub max_failures: Option<u32>,
}

/// What a campaign has used, and what is set aside for what is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Awake and not paused.
    pub active: Duration,
    /// Device time of what is over, the unknown part included.
    pub device_settled: Duration,
    /// Device time of what is under way.
    pub device_reserved: Duration,
    /// The part of `device_settled` that was charged in full because nobody knows what was used.
    pub device_unknown: Duration,
    /// Cost of calls that are over, the unknown part included.
    pub cost_settled: MicroUsd,
    /// The most that calls under way may cost.
    pub cost_reserved: MicroUsd,
    /// The part of `cost_settled` that was charged in full because nobody knows what it cost.
    pub cost_unknown: MicroUsd,
}

impl Spent {
    /// Device time that counts against the limit.
    #[must_use]
    pub fn device(&self) -> Duration {
        self.device_settled + self.device_reserved
    }

    /// Cost that counts against the limit.
    #[must_use]
    pub fn cost(&self) -> MicroUsd {
        MicroUsd(self.cost_settled.0.saturating_add(self.cost_reserved.0))
    }
}

/// What was used of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charge {
    /// So much; milliseconds or millionths of a dollar.
    Known(u64),
    /// Nobody knows: all of it.
    Unknown,
}

impl Charge {
    pub(super) fn of(self, reserved: u64) -> u64 {
        match self {
            Self::Known(used) => used,
            Self::Unknown => reserved,
        }
    }
}

/// Milliseconds, rounded up.
pub(super) fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).min(i64::MAX as u64)
}

/// Which total a reservation belongs to. The names are columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purse {
    Device,
    Cost,
}

/// Sets `wanted` aside, or says what is left. Nothing is written where it does not fit.
pub(super) fn reserve(
    connection: &Connection,
    campaign: i64,
    purse: Purse,
    wanted: u64,
) -> Result<Result<(), BudgetError>, JournalError> {
    let (read, update) = match purse {
        Purse::Device => (
            "SELECT limit_device_ms AS top, device_settled_ms + device_reserved_ms AS used FROM campaigns
             WHERE number = ?1",
            "UPDATE campaigns SET device_reserved_ms = device_reserved_ms + ?2 WHERE number = ?1",
        ),
        Purse::Cost => (
            "SELECT limit_cost_usd AS top, cost_settled_usd + cost_reserved_usd AS used FROM campaigns
             WHERE number = ?1",
            "UPDATE campaigns SET cost_reserved_usd = cost_reserved_usd + ?2 WHERE number = ?1",
        ),
    };
    let (limit, used) = connection
        .prepare_cached(read)?
        .query_row([campaign], |row| Ok((unsigned_option(row, "top")?, unsigned(row, "used")?)))?;
    if let Some(limit) = limit {
        let left = limit.saturating_sub(used);
        if wanted > left {
            return Ok(Err(match purse {
                Purse::Device => BudgetError::Device {
                    left: Duration::from_millis(left),
                    wanted: Duration::from_millis(wanted),
                },
                Purse::Cost => BudgetError::Cost { left: MicroUsd(left), wanted: MicroUsd(wanted) },
            }));
        }
    }
    connection.prepare_cached(update)?.execute((campaign, signed(wanted)))?;
    Ok(Ok(()))
}

/// Gives a reservation back and books what was used of it.
pub(super) fn settle(
    connection: &Connection,
    campaign: i64,
    purse: Purse,
    reserved: u64,
    charge: Charge,
) -> Result<(), JournalError> {
    let update = match purse {
        Purse::Device => {
            "UPDATE campaigns SET device_reserved_ms = device_reserved_ms - ?2,
                 device_settled_ms = device_settled_ms + ?3, device_unknown_ms = device_unknown_ms + ?4
             WHERE number = ?1"
        }
        Purse::Cost => {
            "UPDATE campaigns SET cost_reserved_usd = cost_reserved_usd - ?2,
                 cost_settled_usd = cost_settled_usd + ?3, cost_unknown_usd = cost_unknown_usd + ?4
             WHERE number = ?1"
        }
    };
    let unknown = if charge == Charge::Unknown { reserved } else { 0 };
    connection.prepare_cached(update)?.execute((
        campaign,
        signed(reserved),
        signed(charge.of(reserved)),
        signed(unknown),
    ))?;
    Ok(())
}

pub(super) fn limits_of(row: &Row<'_>) -> rusqlite::Result<Limits> {
    Ok(Limits {
        max_iterations: row.get("limit_iterations")?,
        wall: unsigned_option(row, "limit_wall_ms")?.map(Duration::from_millis),
        device: unsigned_option(row, "limit_device_ms")?.map(Duration::from_millis),
        cost: unsigned_option(row, "limit_cost_usd")?.map(MicroUsd),
        max_failures: row.get("limit_failures")?,
    })
}

pub(super) fn spent_of(row: &Row<'_>) -> rusqlite::Result<Spent> {
    let span = |column| unsigned(row, column).map(Duration::from_millis);
    let money = |column| unsigned(row, column).map(MicroUsd);
    Ok(Spent {
        active: span("active_ms")?,
        device_settled: span("device_settled_ms")?,
        device_reserved: span("device_reserved_ms")?,
        device_unknown: span("device_unknown_ms")?,
        cost_settled: money("cost_settled_usd")?,
        cost_reserved: money("cost_reserved_usd")?,
        cost_unknown: money("cost_unknown_usd")?,
    })
}

impl Journal {
    /// Sets all hard stops of a campaign at once. A limit under what is spent already refuses whatever comes next.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn set_limits(&self, campaign: CampaignId, limits: Limits) -> Result<(), JournalError> {
        let now = self.now();
        self.write(move |c| {
            let changed = c
                .prepare_cached(
                    "UPDATE campaigns SET limit_iterations = ?2, limit_wall_ms = ?3, limit_device_ms = ?4,
                         limit_cost_usd = ?5, limit_failures = ?6, updated_ns = ?7 WHERE id = ?1",
                )?
                .execute((
                    campaign.to_string(),
                    limits.max_iterations,
                    limits.wall.map(|w| signed(milliseconds(w))),
                    limits.device.map(|d| signed(milliseconds(d))),
                    limits.cost.map(|c| signed(c.0)),
                    limits.max_failures,
                    now,
                ))?;
            if changed == 0 { Err(JournalError::not_found("campaign", campaign)) } else { Ok(()) }
        })
        .await
    }

    /// The hard stops of a campaign.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn limits(&self, campaign: CampaignId) -> Result<Limits, JournalError> {
        self.read(move |c| {
            c.prepare_cached("SELECT * FROM campaigns WHERE id = ?1")?
                .query_row([campaign.to_string()], limits_of)
                .optional()?
                .ok_or_else(|| JournalError::not_found("campaign", campaign))
        })
        .await
    }

    /// What a campaign has used.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn spent(&self, campaign: CampaignId) -> Result<Spent, JournalError> {
        self.read(move |c| {
            c.prepare_cached("SELECT * FROM campaigns WHERE id = ?1")?
                .query_row([campaign.to_string()], spent_of)
                .optional()?
                .ok_or_else(|| JournalError::not_found("campaign", campaign))
        })
        .await
    }

    /// Adds to the time in which the campaign was neither paused nor asleep.
    ///
    /// # Errors
    /// [`JournalError::NotFound`].
    pub async fn add_active_time(&self, campaign: CampaignId, time: Duration) -> Result<(), JournalError> {
        let added = signed(milliseconds(time));
        self.write(move |c| {
            let changed = c
                .prepare_cached("UPDATE campaigns SET active_ms = active_ms + ?2 WHERE id = ?1")?
                .execute((campaign.to_string(), added))?;
            if changed == 0 { Err(JournalError::not_found("campaign", campaign)) } else { Ok(()) }
        })
        .await
    }
}
