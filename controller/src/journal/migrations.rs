//! The schema, as the list of steps that made it.
//!
//! Two laws:
//! 1. A step that was ever released is never changed, moved or removed. Only new ones are added, at the end.
//! 2. A step never breaks what the version before it left on disk: it adds tables and columns with defaults, and
//!    whatever else it moves, it moves in the same transaction.
//!
//! `user_version` is the number of steps that were taken; `application_id` says that the file is ours. All steps that
//! are missing are one transaction: a kill leaves the schema before or after.
//!
//! Conventions: `…_ns` is wall time in ns since 1970, `…_ms` a span in milliseconds, `…_usd` millionths of a US dollar;
//! a number that a sandbox gave as 64-bit float is stored as its bits in an INTEGER, so that NaN and infinities survive.

use rusqlite::Connection;

use super::ControllerId;

/// "ARes": what `file` and we know the journal by.
pub(super) const APPLICATION_ID: i32 = 0x4152_6573;

/// Never reordered, never edited: see the laws above.
const STEPS: &[&str] = &[FIRST, SNAPSHOTS, FLEET_WORKERS];

/// The version that this program writes.
pub(super) const VERSION: i32 = STEPS.len() as i32;

const FIRST: &str = "
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE campaigns (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    stop_reason TEXT,
    question TEXT NOT NULL,
    settings TEXT NOT NULL,
    researcher TEXT NOT NULL,
    seed INTEGER,
    answer TEXT,
    report_markdown TEXT,
    report_html TEXT,
    report_json TEXT,
    created_ns INTEGER NOT NULL,
    updated_ns INTEGER NOT NULL,
    active_ms INTEGER NOT NULL DEFAULT 0,
    limit_iterations INTEGER,
    limit_wall_ms INTEGER,
    limit_device_ms INTEGER,
    limit_cost_usd INTEGER,
    limit_failures INTEGER,
    device_settled_ms INTEGER NOT NULL DEFAULT 0 CHECK (device_settled_ms >= 0),
    device_reserved_ms INTEGER NOT NULL DEFAULT 0 CHECK (device_reserved_ms >= 0),
    device_unknown_ms INTEGER NOT NULL DEFAULT 0 CHECK (device_unknown_ms >= 0),
    cost_settled_usd INTEGER NOT NULL DEFAULT 0 CHECK (cost_settled_usd >= 0),
    cost_reserved_usd INTEGER NOT NULL DEFAULT 0 CHECK (cost_reserved_usd >= 0),
    cost_unknown_usd INTEGER NOT NULL DEFAULT 0 CHECK (cost_unknown_usd >= 0)
) STRICT;

CREATE TABLE steps (
    campaign INTEGER NOT NULL REFERENCES campaigns (number),
    sequence INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    seal INTEGER NOT NULL,
    at_ns INTEGER NOT NULL,
    UNIQUE (campaign, sequence)
) STRICT;

CREATE TABLE experiments (
    campaign INTEGER NOT NULL REFERENCES campaigns (number),
    number INTEGER NOT NULL,
    role TEXT NOT NULL,
    digest TEXT NOT NULL,
    plan TEXT NOT NULL,
    plan_seal INTEGER NOT NULL,
    result TEXT,
    result_seal INTEGER,
    registered_ns INTEGER NOT NULL,
    closed_ns INTEGER,
    UNIQUE (campaign, number)
) STRICT;

CREATE TABLE revisions (
    campaign INTEGER NOT NULL REFERENCES campaigns (number),
    experiment INTEGER NOT NULL,
    number INTEGER NOT NULL,
    digest TEXT NOT NULL,
    source TEXT NOT NULL,
    seal INTEGER NOT NULL,
    reason TEXT NOT NULL,
    at_ns INTEGER NOT NULL,
    UNIQUE (campaign, experiment, number),
    FOREIGN KEY (campaign, experiment) REFERENCES experiments (campaign, number)
) STRICT;

CREATE TABLE calls (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    campaign INTEGER NOT NULL REFERENCES campaigns (number),
    purpose TEXT NOT NULL,
    model TEXT NOT NULL,
    request_digest TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    reserved_usd INTEGER NOT NULL,
    charged_usd INTEGER,
    cost_known INTEGER NOT NULL DEFAULT 1,
    reply TEXT,
    reply_seal INTEGER,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cache_read_tokens INTEGER,
    cache_write_tokens INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    begun_ns INTEGER NOT NULL,
    ended_ns INTEGER
) STRICT;
CREATE INDEX calls_of_campaign ON calls (campaign, request_digest, state);

CREATE TABLE runs (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    campaign INTEGER NOT NULL REFERENCES campaigns (number),
    experiment INTEGER,
    revision TEXT,
    variant TEXT NOT NULL,
    seed INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    predecessor TEXT REFERENCES runs (id),
    image TEXT NOT NULL,
    state TEXT NOT NULL,
    worker TEXT,
    boot TEXT,
    devices INTEGER NOT NULL,
    reserved_ms INTEGER NOT NULL,
    charged_ms INTEGER,
    usage_known INTEGER NOT NULL DEFAULT 1,
    last_sequence INTEGER NOT NULL DEFAULT 0,
    stdout_bytes INTEGER NOT NULL DEFAULT 0,
    stderr_bytes INTEGER NOT NULL DEFAULT 0,
    metrics_bytes INTEGER NOT NULL DEFAULT 0,
    points INTEGER NOT NULL DEFAULT 0,
    usage_seen INTEGER NOT NULL DEFAULT 0,
    usage_stride INTEGER NOT NULL DEFAULT 1,
    outcome TEXT,
    message TEXT,
    exit_code INTEGER,
    wall_ms INTEGER,
    memory_peak_bytes INTEGER,
    artifacts_done INTEGER NOT NULL DEFAULT 0,
    released INTEGER NOT NULL DEFAULT 0,
    planned_ns INTEGER NOT NULL,
    started_ns INTEGER,
    finished_ns INTEGER,
    FOREIGN KEY (campaign, experiment) REFERENCES experiments (campaign, number)
) STRICT;
CREATE INDEX runs_of_campaign ON runs (campaign, experiment, number);
CREATE INDEX runs_by_outcome ON runs (campaign, outcome);
CREATE INDEX runs_unfinished ON runs (number) WHERE state <> 'finished';
CREATE INDEX runs_unreleased ON runs (number) WHERE state = 'finished' AND released = 0;
CREATE INDEX runs_by_predecessor ON runs (predecessor) WHERE predecessor IS NOT NULL;

CREATE TABLE run_specs (
    run INTEGER PRIMARY KEY REFERENCES runs (number),
    spec BLOB NOT NULL,
    seal INTEGER NOT NULL
) STRICT;

CREATE TABLE run_results (
    run INTEGER PRIMARY KEY REFERENCES runs (number),
    finished BLOB NOT NULL,
    seal INTEGER NOT NULL
) STRICT;

CREATE TABLE series (
    run INTEGER NOT NULL REFERENCES runs (number),
    metric TEXT NOT NULL,
    points INTEGER NOT NULL,
    last_step INTEGER,
    last_value_bits INTEGER NOT NULL,
    PRIMARY KEY (run, metric)
) STRICT, WITHOUT ROWID;

CREATE TABLE points (
    run INTEGER NOT NULL REFERENCES runs (number),
    metric TEXT NOT NULL,
    first INTEGER NOT NULL,
    chunk BLOB NOT NULL,
    seal INTEGER NOT NULL,
    PRIMARY KEY (run, metric, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_samples (
    run INTEGER NOT NULL REFERENCES runs (number),
    sequence INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    elapsed_ns INTEGER NOT NULL,
    sample BLOB NOT NULL,
    PRIMARY KEY (run, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE gaps (
    run INTEGER NOT NULL REFERENCES runs (number),
    sequence INTEGER NOT NULL,
    stream TEXT NOT NULL,
    from_offset INTEGER NOT NULL,
    dropped_bytes INTEGER NOT NULL,
    dropped_points INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (run, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE findings (
    campaign INTEGER NOT NULL REFERENCES campaigns (number),
    id TEXT NOT NULL,
    experiment INTEGER NOT NULL,
    text TEXT NOT NULL,
    verdict TEXT NOT NULL,
    runs TEXT NOT NULL,
    seal INTEGER NOT NULL,
    at_ns INTEGER NOT NULL,
    UNIQUE (campaign, id),
    FOREIGN KEY (campaign, experiment) REFERENCES experiments (campaign, number)
) STRICT;

CREATE TABLE commands (
    number INTEGER PRIMARY KEY,
    campaign INTEGER NOT NULL REFERENCES campaigns (number),
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    at_ns INTEGER NOT NULL,
    taken_ns INTEGER
) STRICT;
CREATE INDEX commands_waiting ON commands (campaign, number) WHERE taken_ns IS NULL;

CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    boot TEXT NOT NULL,
    address TEXT NOT NULL,
    first_seen_ns INTEGER NOT NULL,
    last_seen_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What a campaign's loop holds in memory, as of its last step.
const SNAPSHOTS: &str = "
CREATE TABLE snapshots (
    campaign INTEGER PRIMARY KEY REFERENCES campaigns (number),
    version INTEGER NOT NULL,
    step INTEGER NOT NULL,
    body BLOB NOT NULL,
    seal INTEGER NOT NULL
) STRICT;
";

/// The workers that a user has registered.
const FLEET_WORKERS: &str = "
CREATE TABLE fleet_workers (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    address TEXT NOT NULL,
    worker_id TEXT,
    fingerprint TEXT,
    state TEXT NOT NULL,
    reason TEXT,
    added_ns INTEGER NOT NULL,
    seen_ns INTEGER
) STRICT, WITHOUT ROWID;
";

/// Takes the steps that are missing. The caller has made sure that the file is ours and not newer.
pub(super) fn migrate(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    // Asked again inside the transaction: another process may have been first.
    let taken: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for step in STEPS.iter().skip(usize::try_from(taken).unwrap_or_default()) {
        connection.execute_batch(step)?;
    }
    if taken == 0 {
        connection.execute(
            "INSERT INTO meta (key, value) VALUES ('controller_id', ?1)",
            [ControllerId::new().to_string()],
        )?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    if taken < VERSION {
        connection.pragma_update(None, "user_version", VERSION)?;
    }
    connection.execute_batch("COMMIT")
}
