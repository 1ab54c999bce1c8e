//! The worker's half of the contract with PID 1 (`worker/sandbox-init/main.rs`): the embedded program, the numbers
//! of its orders, and the file of settings that it reads when the start gate opens. The reports that come back
//! are in `report.rs`. Change these three together.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Write as _},
    os::fd::AsRawFd as _,
    process::Command,
    time::Duration,
};

use rustix::fs::{MemfdFlags, memfd_create};

use super::Order;

/// PID 1: static, so that it runs in any image.
pub(crate) const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sandbox-init"));
/// Runs the program on this host, from memory: the state folder may lie where nothing may be executed. The file is to be kept
/// until the command was started.
///
/// # Errors
/// Where there is no memory for it.
pub(crate) fn from_memory() -> io::Result<(Command, File)> {
    let mut program = File::from(memfd_create("sandbox-init", MemfdFlags::CLOEXEC)?);
    program.write_all(PROGRAM)?;
    Ok((Command::new(format!("/proc/self/fd/{}", program.as_raw_fd())), program))
}

/// How long the start gate of a cold sandbox stays shut before PID 1 gives up.
pub(crate) const COLD_GATE: Duration = Duration::from_secs(600);
/// Where PID 1 finds its settings, below `in/`.
pub(crate) const SETTINGS: &str = "init";
/// The program's folder, which is also its home.
pub(crate) const WORK: &str = "/work";
/// What PID 1 starts unless the assignment says otherwise. `-sP`: neither a user's folder nor the current one is on the
/// path of what is imported. Not `-I`: it would ignore PYTHONHASHSEED too.
pub(crate) const RUNNER: [&str; 3] = ["/usr/bin/python3", "-sP", "/opt/autoresearch/runner.py"];

/// A signal that PID 1 takes as an order, by the name that the engine's kill call takes and the kernel's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrderSignal {
    pub name: &'static str,
    pub number: rustix::process::Signal,
}

/// Opens the end gate: PID 1 kills what is left and exits.
pub(crate) const END: OrderSignal = OrderSignal { name: "SIGINT", number: rustix::process::Signal::INT };

impl Order {
    pub(crate) fn signal(self) -> OrderSignal {
        use rustix::process::Signal;
        match self {
            Self::Start => OrderSignal { name: "SIGUSR1", number: Signal::USR1 },
            Self::Terminate => OrderSignal { name: "SIGTERM", number: Signal::TERM },
            Self::Kill => OrderSignal { name: "SIGUSR2", number: Signal::USR2 },
        }
    }
}

/// What PID 1 is told: who the program is, what it is, and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings<'a> {
    pub uid: u32,
    pub limit: Duration,
    pub grace: Duration,
    pub arguments: &'a [String],
}

impl Settings<'_> {
    /// As PID 1 reads it: one `key value` a line. `None` where an argument cannot be written so.
    pub(crate) fn render(&self) -> Option<String> {
        let mut text = String::new();
        let unfit = |argument: &String| argument.contains(['\n', '\r', '\0']);
        if self.arguments.is_empty() || self.arguments.iter().any(unfit) {
            return None;
        }
        writeln!(text, "uid {}", self.uid).ok()?;
        writeln!(text, "limit_ms {}", whole_millis(self.limit)).ok()?;
        writeln!(text, "grace_ms {}", whole_millis(self.grace)).ok()?;
        writeln!(text, "folder {WORK}").ok()?;
        for argument in self.arguments {
            writeln!(text, "argument {argument}").ok()?;
        }
        Some(text)
    }
}

fn whole_millis(time: Duration) -> u64 {
    // A year is longer than any limit, and PID 1 adds to it.
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(365 * 24 * 3_600_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_cannot_add_a_line() {
        let settings = |argument: &str| {
            let arguments = [argument.to_owned()];
            Settings { uid: 50_000, limit: Duration::MAX, grace: Duration::ZERO, arguments: &arguments }
                .render()
        };
        assert_eq!(settings("a\nuid 0"), None);
        assert_eq!(
            settings("/bin/true").as_deref(),
            Some("uid 50000\nlimit_ms 31536000000\ngrace_ms 0\nfolder /work\nargument /bin/true\n")
        );
    }

    #[test]
    fn pid_1_is_embedded_and_static() {
        assert_eq!(&PROGRAM[..4], b"\x7fELF");
        assert!(!PROGRAM.windows(9).any(|w| w == b"/ld-linux"), "it needs a loader");
    }
}
