//! A laptop and a GPU machine, over the real binaries, real Docker, a real sshd: workers over ssh, over TLS, dialled in, and
//! what goes wrong on the way. As root: each test has two network namespaces of its own.

mod dialled;
mod hostile;
mod left;
mod net;
mod ssh;
mod sshd;
mod tls;
mod two_controllers;

/// A program that says where it ran and logs a number.
const PROGRAM: &str =
    "import autoresearch as ar\nprint('hello from far away', flush=True)\nar.log(step=1, loss=0.5)\n";
/// One that runs until it is told to stop, or for a while.
const SLEEPER: &str = "import time, autoresearch as ar\nprint('started', flush=True)\nfor step in range(40):\n    ar.log(step=step, loss=1.0)\n    time.sleep(0.25)\nprint('done', flush=True)\n";
/// Whether a run's object says that all is well.
fn assert_succeeded(code: i32, run: &serde_json::Value) {
    assert_eq!(run["outcome"], "succeeded", "{run:#}");
    assert_eq!(code, 0, "{run:#}");
    assert!(run["stdout"].as_str().is_some_and(|text| text.contains("hello from far away")), "{run:#}");
}
