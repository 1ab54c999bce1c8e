//! The harness of the end-to-end tests: the real binaries, real Docker, each test in a home of its own. Tests wait by
//! asking, never by sleeping for a fixed time, and end by checking from outside that nothing is left.

use std::time::{Duration, Instant};

/// Things of this host that no program may reach, and the proof that none did.
pub mod canary;
/// An engine of its own for one test, so that it may be killed.
pub mod engine;
/// Faults at an exact instant, each with the proof that it happened.
pub mod faults;
/// A home of its own for one test: data folder, environment, commands, and what must be gone at the end.
pub mod home;
/// What of ours is on this machine: containers, mounts, loop devices, processes.
pub mod leftovers;

/// A hostile program as data: its file and what its header expects.
pub mod program;
/// A scripted language model behind a real HTTP server.
pub mod vendor;
/// Looks at running sandboxes from outside.
pub mod witness;
/// A worker of the real binary on a folder of its own, and a client on its socket.
pub mod worker;

mod plain;

pub use home::{Home, Ran};

/// Asks again until there is an answer; after `longest` the test fails with what was last seen.
///
/// # Panics
/// When the time is over.
pub fn wait_for<T>(what: &str, longest: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let since = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(seen) if since.elapsed() > longest => {
                panic!("{what}: not within {longest:?}; last seen: {seen}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
