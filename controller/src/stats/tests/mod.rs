//! Tests of this room, one file per question.

/// Are the numbers those of SciPy and statsmodels?
mod against_reference;
/// METHOD §3.2's table, upper limits, seeds needed.
mod designs;
/// Failed runs: imputation, shares, rulings that rest on them.
mod failed_runs;
/// METHOD §4: shares and their sums.
mod ledgers;
/// What must hold for any data.
mod properties;
/// Each rule from series to number, and each way it refuses.
mod reductions;
/// What METHOD promises about whole campaigns; ignored unless asked for.
mod simulations;
/// METHOD §3.1, row by row; gates.
mod verdicts;
