//! What the kernel says of a process, and signals to it: never asked of our own programs.

use std::{fs, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait_for;

const STOPS: Duration = Duration::from_secs(20);

/// The letter of its state, like `T` for stopped; absent where it is gone.
#[must_use]
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything: the state is the first word after its last parenthesis.
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Sends a signal.
///
/// # Panics
/// Where the process is gone.
pub fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("{signal} to {pid}: {error}"));
}

/// Waits until a process is stopped.
///
/// # Panics
/// Where it is not.
pub fn until_stopped(pid: i32) {
    wait_for("a stopped process", STOPS, || match state(pid) {
        Some('T') => Ok(()),
        other => Err(format!("process {pid} is {other:?}")),
    });
}

/// A line of `/proc/PID/status` that tells kibibytes, in bytes: `VmRSS`, `VmHWM`.
#[must_use]
pub fn memory(pid: i32, line: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// Forgets the highest resident size so far, so that `VmHWM` tells the one from now on.
///
/// # Panics
/// Where it is gone.
pub fn forget_peak(pid: i32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the process runs, and these tests may");
}
