//! The worker: runs one program per sandbox under hard limits and tells what happened. It knows nothing of
//! research, campaigns or models, and never imports the controller.

/// CPUs, GPUs and the slots that they make.
pub mod device;
/// The images that runs may name: recipes, building, pinning.
pub mod image;
/// The life of a run: state machine, spool, outcome.
pub mod run;
/// Sandboxes behind one trait.
pub mod sandbox;
/// The gRPC face.
pub mod service;
