//! Every parser of bytes that a sandbox controls, fed a million cases each: whole lines and wrecked ones, cut anywhere.
//! No case may panic, read past its limit, lose count, or allocate more than a small multiple of what it was given.
//!
//! The cases come from a seed, so they are the same in every run. `AUTORESEARCH_FUZZ_CASES` sets their number, and
//! `AUTORESEARCH_FUZZ_SEED` makes others. The million takes 3 to 25 s for each parser in the dev profile; where a case
//! costs system calls (`tail`, `artifacts`) there are fewer without the variable, and the test says how many.
//!
//! What belongs here: parsers of the worker that are reached from outside. Those of the controller have their cases in
//! its own `journal/tests/hostile.rs`, what makes text safe for a terminal in `kit`.

mod artifacts;
mod cases;
mod metrics;
mod reports;
mod segments;
mod tail;
mod traceback;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;
