//! The worker: runs one program per sandbox under hard limits and tells what happened. It knows nothing of
//! research, campaigns or models, and never imports the controller.

/// Input files by their digest.
pub mod blobs;
/// The command line of `autoresearch-worker`.
pub mod cli;
/// Defaults, file, environment and flags, turned into one value.
pub mod config;
/// Data sets: taking them in, keeping them, lending them to runs.
pub mod datasets;
/// CPUs, GPUs and the slots that they make.
pub mod device;
/// What works on this host, and what to do about the rest.
pub mod doctor;
/// The images that runs may name: recipes, building, pinning.
pub mod image;
/// Packages of a run: resolving, fetching, keeping.
pub mod packages;
/// The life of a run: state machine, spool, outcome.
pub mod run;
/// Sandboxes behind one trait.
pub mod sandbox;
/// The process: folder, lock, sockets, start and end.
pub mod serve;
/// The gRPC face.
pub mod service;
/// Numbers for those who watch.
pub mod telemetry;
