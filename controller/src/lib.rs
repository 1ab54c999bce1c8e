//! The controller: the research loop, its journal, its reports, and the command line over them. It is the only
//! program that holds keys to models. It runs no generated code: that is the worker's, over `proto`.
//!
//! Imports run one way: `cli → campaign → {llm, fleet, stats, report, journal} → {proto, kit}`; the five in the
//! middle do not import each other.

/// The loop: plan, code, run, repair, analyse, decide, report.
pub mod campaign;
/// One file per command, and the local worker.
pub mod cli;
/// Connections to workers, scheduling over their slots, retry.
pub mod fleet;
/// SQLite: schema, migrations, queries; and the log files of runs.
pub mod journal;
/// The controller as a library.
mod library;
/// Providers of language models behind one trait.
pub mod llm;
/// Markdown, HTML and JSON from one document; plots.
pub mod report;
/// Estimates, intervals, verdicts, the ledger: METHOD.
pub mod stats;
/// Numbers for those who watch.
pub mod telemetry;

pub use library::{AutoResearch, Builder, Error, Outcome};
