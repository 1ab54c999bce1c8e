//! Faults, done at an exact instant and proven to have happened: a program stopped at a point and killed there, a
//! connection that is cut or swallows everything, a clock that jumps, a disk without room, a machine that comes back
//! empty. What a fault is lies here; which of them a campaign must survive is `tests/faults`.

/// A laptop with a controller, a machine with a worker, and the way between them.
pub mod site;

/// The smallest campaign that passes through every phase, and what it must find.
pub mod campaign;
/// A clock that a test sets, for one program.
pub mod clock;
/// A file system that a test fills.
pub mod disk;
/// Programs that stop themselves at a point.
pub mod halts;
/// What the kernel says of a process.
pub mod process;
/// The way between controller and worker, in a test's hands.
pub mod proxy;
/// What the journal's file holds.
pub mod record;
