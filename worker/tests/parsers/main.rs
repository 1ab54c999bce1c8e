//! Every parser of bytes that a sandbox controls, fed a million cases each: whole lines and wrecked ones, cut anywhere.
//! No case may panic, read past its limit, lose count, or allocate more than a small multiple of what it was given.
//!
//! The cases come from a seed, so they are the same in every run; `AUTORESEARCH_FUZZ_SEED` makes others. Every day a
//! parser gets a million of them where that takes under 20 s in the dev profile, else a hundred thousand (an entry of a
//! tree costs system calls: twenty thousand). `AUTORESEARCH_FUZZ_CASES=1000000 cargo test -p worker --test parsers`
//! gives every one of them its million, in some minutes.
//!
//! What belongs here: parsers of the worker that are reached from outside. Those of the controller and what makes text
//! safe for a terminal have their cases beside them.

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
