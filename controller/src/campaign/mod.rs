//! The loop: plan, code, run, repair, analyse, decide, report. It knows what a campaign is; it does not know SQL
//! (`journal`), the wire (`fleet`), a vendor (`llm`), a formula (`stats`) or a page (`report`).

/// From runs to numbers and verdicts, by rule.
pub mod analyst;
/// The first paragraph of the report.
pub mod answer;
/// Hard stops that are the program's.
pub mod budget;
/// Whether a plan is sound, told by field.
pub mod check;
/// A closed experiment as the researcher sees it.
pub mod closed;
/// The loop at work.
mod driver;
/// What ends a campaign without a report.
pub mod error;
/// Running variants over seeds, with every intention journalled first.
pub mod executor;
/// An image made ready, with progress.
pub mod images;
/// What a kill must not take.
mod kept;
/// What earlier experiments tell about a plan.
pub mod known;
/// What the loop needs of the machines.
pub mod lab;
/// The step of a campaign, pure.
pub mod machine;
/// A language model as the researcher.
pub mod model;
/// Numbers that a researcher may write.
pub mod numbers;
/// The rule-based researcher: a catalogue of questions and two PyTorch programs.
pub mod offline;
/// The plan of an experiment, as data.
pub mod plan;
/// What a program must be before it runs.
pub mod program_check;
/// What a campaign tells whoever watches it.
pub mod progress;
/// What a campaign has found so far.
pub mod record;
/// What an outcome asks for.
pub mod repair;
/// From what was found to the report.
mod reporter;
/// What the loop asks of a model or of the rules.
pub mod researcher;
/// From a question to a report: the one door of this room.
mod run;
/// What a campaign was asked for.
pub mod settings;
/// What another process may want of a campaign under way.
pub mod steering;
/// The smallest effect of interest as a user writes it.
pub mod wish;

pub use driver::Deps;
pub use error::CampaignError;
pub use lab::{DataSet, Lab};
pub use machine::StoppedBy;
pub use model::{ModelError, ModelResearcher};
pub use progress::{Progress, Watchers};
pub use record::outcome_word_of;
pub use run::{CampaignEnd, cancel_campaign, end_of, is_resumable, resume_campaign, run_campaign};
pub use settings::{CampaignSettings, SettingsError};

#[cfg(test)]
pub(crate) mod fixtures;

#[cfg(test)]
mod tests;
