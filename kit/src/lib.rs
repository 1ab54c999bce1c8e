//! What both programs need and the domain does not know. Nothing here knows of runs, campaigns, models or the
//! protocol; whatever does belongs in `worker` or `controller`.

/// Time that counts only while this program is awake, and word when it slept.
pub mod awake;
/// Time comes in from outside: wall, monotonic, and the clock that goes on while the machine sleeps.
pub mod clock;
/// SHA-256 digests as a type, with a hasher for files and streams.
pub mod digest;
/// Durations as people write them: `90s`, `8h`, `1h30m`.
pub mod duration;
/// Folders of the user, files that are replaced whole, and the lock of a folder.
pub mod folder;
/// Points at which a test has the program stop.
pub mod halt;
/// Ids as types, and the one place that makes them.
pub mod id;
/// Keys, certificates and who was let in, for connections between machines.
pub mod identity;
/// Names and labels as the protocol allows them.
pub mod name;
/// What may be asked of a package index: names and versions, and no places.
pub mod requirement;
/// The one retry rule: it decides, the caller sleeps.
pub mod retry;
/// Byte counts as people write them: `256MiB`, `4GiB`.
pub mod size;
/// The one way to start a task and to stop it.
pub mod task;
/// What a program tells those who watch it: logs, traces, metrics.
pub mod telemetry;
/// Text that came from a sandbox, made safe for a terminal.
pub mod text;
