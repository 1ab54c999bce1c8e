//! The loop: plan, code, run, repair, analyse, decide, report. It knows what a campaign is; it does not know SQL
//! (`journal`), the wire (`fleet`), a vendor (`llm`), a formula (`stats`) or a page (`report`).

/// From runs to numbers and verdicts, by rule.
pub mod analyst;
/// Hard stops that are the program's.
pub mod budget;
/// Whether a plan is sound, told by field.
pub mod check;
/// Running variants over seeds, with every intention journalled first.
pub mod executor;
/// What the loop needs of the machines.
pub mod lab;
/// The step of a campaign, pure.
pub mod machine;
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
/// What a campaign was asked for.
pub mod settings;
/// The smallest effect of interest as a user writes it.
pub mod wish;
/// What the loop asks of a model or of the rules.
pub mod researcher;

#[cfg(test)]
pub(crate) mod fixtures;
