//! The loop: plan, code, run, repair, analyse, decide, report. It knows what a campaign is; it does not know SQL
//! (`journal`), the wire (`fleet`), a vendor (`llm`), a formula (`stats`) or a page (`report`).

/// The rule-based researcher: a catalogue of questions and two PyTorch programs.
pub mod offline;
/// The plan of an experiment, as data.
pub mod plan;
/// What the loop asks of a model or of the rules.
pub mod researcher;
