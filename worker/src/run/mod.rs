//! The life of a run, from the request to its `finished` event. Nothing here knows gRPC; the protocol's messages
//! are used as data, because events are stored as they are sent.
//!
//! ```text
//!   service ──▶ registry ──admits──▶ driver ──orders──▶ sandbox (a trait)
//!                  │                    │ limits, reasons, evidence ─▶ outcome (pure)
//!                  │                    ▼
//!                  │                 recorder ◀── tail ◀── the sandbox's log files
//!                  │                    │ one writer
//!                  ▼                    ▼
//!               record, tombstones   spool ──▶ any number of watchers
//! ```
//!
//! - One driver task owns a run, one recorder task owns its spool. Everyone else holds a [`handle::RunHandle`]:
//!   a published state to watch and a token to cancel with.
//! - Intent before deed: the record is synced before a sandbox is made, the reason before the first signal.
//! - A run outlives the process: what a later one needs is on disk before anything is done that cannot be seen again
//!   (`record`, `draft`, the spool), and `recovery` with `take_up` goes on from there.
//! - What the sandbox left (logs, metrics, artifacts) is hostile: each parser here is bounded and total.
//!
//! Design notes. No handler owns a run, so a connection that drops takes nothing with it. A queue of commands to
//! the driver was left out: the only command is `cancel`, which is idempotent, and a token says just that.

/// Starting a run: what is checked, and in which order.
mod admission;
/// Copying what the program made, out of a hostile tree.
pub mod artifacts;
/// The plan's rule for stopping a program that has diverged.
pub mod divergence;
/// What a run's end came to, before what it was read from is removed.
pub mod draft;
/// The task that owns a run.
pub mod driver;
/// What everyone but the driver sees of a run.
pub mod handle;
/// The last part of a run: evidence, outcome, artifacts, removal.
pub mod harvest;
/// The disk that admitted runs may still fill.
pub mod ledger;
/// Metric lines, parsed with bounds.
pub mod metrics;
/// From evidence to exactly one outcome.
pub mod outcome;
/// A run's packages, before its sandbox is made.
mod packaging;
/// How far a run's events say it has come.
mod past;
/// The record of a run on disk.
pub mod record;
/// The one writer of a run's spool.
pub mod recorder;
/// Taking up what an earlier process left.
pub mod recovery;
/// Every run on this worker.
pub mod registry;
/// What runs need from other rooms.
pub mod seams;
/// A request turned into a checked specification.
pub mod spec;
/// Append-only, checksummed segments of events.
pub mod spool;
/// The machine: states, events, actions.
pub mod state;
/// Reading the sandbox's log files.
pub mod tail;
/// A run of an earlier process, in its driver's hands.
mod take_up;
/// Ids that are forgotten, and must stay so.
pub mod tombstones;
/// The exception in the last of standard error.
pub mod traceback;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod killed_tests;
#[cfg(test)]
mod tests;

kit::id_type!(
    /// Of a run, made by the controller.
    RunId,
    "run"
);
