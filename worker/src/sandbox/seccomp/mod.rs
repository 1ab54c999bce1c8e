//! Which system calls a sandbox may make: one table of our own for every backend. What the table does not name is
//! refused, so a call that a later kernel brings is refused too.
//!
//! What belongs here: the table as data (`table`), the names and numbers of the calls (`numbers`), and its two
//! renderings: `profile`, the JSON that an engine takes, and `program`, the instructions that the kernel takes. A test
//! runs both over every number and holds them against each other.
//!
//! PID 1 and the program run under the same filter: what PID 1 needs more (to change its uid, to kill) is harmless
//! without the capabilities that go with it. Calls of another instruction set's numbering (32 bit, x32) end the
//! process: the table says nothing about them, and a program that makes them tries to go round it.

mod numbers;
mod profile;
mod program;
mod table;
#[cfg(test)]
mod tests;

use numbers::Machine;

/// What a call is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The kernel makes it.
    Allow,
    /// The kernel makes it where one of these holds, otherwise [`EPERM`].
    AllowWhere(&'static [table::Rule]),
    /// An error in its place: [`EPERM`] for what needs a privilege, [`ENOSYS`] for what this kernel might as well not
    /// have, because libraries fall back to an older call only on that one.
    Error(u16),
}

/// Operation not permitted.
const EPERM: u16 = 1;
/// Function not implemented.
const ENOSYS: u16 = 38;

/// This machine is one that the table has no numbers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no table of system calls for this processor: sandboxes need x86_64 or aarch64")]
pub(crate) struct UnknownMachine;

/// The table as an engine takes it: the content of the security option `seccomp=`.
///
/// # Errors
/// [`UnknownMachine`].
pub(crate) fn profile() -> Result<String, UnknownMachine> {
    Ok(profile::render(Machine::own().ok_or(UnknownMachine)?))
}

/// The table as the kernel takes it: an array of `struct sock_filter`, eight bytes each, in this machine's byte order,
/// for `seccomp(2)` or `prctl(PR_SET_SECCOMP)`. Where it is installed without CAP_SYS_ADMIN, no-new-privileges goes first.
///
/// # Errors
/// [`UnknownMachine`].
pub(crate) fn program() -> Result<Vec<u8>, UnknownMachine> {
    let instructions = program::render(Machine::own().ok_or(UnknownMachine)?);
    Ok(instructions.iter().flat_map(|instruction| instruction.bytes()).collect())
}
