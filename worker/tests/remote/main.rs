//! A worker on another machine, over the real binary with real TLS on loopback: who gets in and who does not, what a
//! hostile network does to it, the bridge that ssh runs, and a worker that dials.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on says so by ending")]

#[path = "../shared/connect.rs"]
mod connect;

/// The bridge.
mod bridge;
/// The worker dials.
mod dialled;
mod fixture;
/// Bytes that are not ours.
mod hostile;
/// Joining, leaving, taking back.
mod joining;
