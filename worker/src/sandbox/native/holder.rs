//! Volumes of a worker that is not root: a process in a user namespace holds each (`worker/sandbox-init/hold.rs`, change both
//! together). It is nobody's child, found by its arguments and its owner, and seen through /proc: what is mounted in its
//! namespace is there as long as it is.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::rights::Range;
use crate::sandbox::{
    SandboxId,
    hands::{Hands, Seen, Work},
    init,
};

/// The first argument of the embedded program for this role.
const ROLE: &str = "hold";
/// For what is not the run's: PID 1, its settings, input files.
const SPARE_BYTES: u64 = 80 << 20;
const END_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// Makes and ends holders.
#[derive(Debug)]
pub(super) struct Holder {
    range: Range,
    /// What was found last; a number may be another process's by now, so it is looked at again.
    known: Mutex<Option<i32>>,
}

impl Holder {
    pub(super) fn new(range: Range) -> Self {
        Self { range, known: Mutex::new(None) }
    }

    fn find(&self, folder: &Path) -> Option<i32> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.is_some_and(|pid| holds(pid, folder)) {
            *known = all().into_iter().find(|pid| holds(*pid, folder));
        }
        *known
    }

    fn make(&self, folder: &Path, slot_uid: u32, disk_bytes: u64) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("cannot start the program that holds volumes: {e}");
        let (mut command, _program) = init::from_memory().map_err(failed)?;
        let mut child = command
            .arg0("sandbox-init")
            .arg(ROLE)
            .arg(folder)
            .args([u64::from(slot_uid), disk_bytes, SPARE_BYTES].map(|number| number.to_string()))
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        // It leaves at once; its own child is the holder.
        child.wait().map_err(failed)?;
        let (Some(mut to), Some(from)) = (to, from) else {
            return Err("the program that holds volumes has no pipes".to_owned());
        };
        let mut lines = BufReader::new(from).lines();
        let mut next = || match lines.next() {
            Some(Ok(line)) => Ok(line),
            _ => Err("the program that holds volumes ended without a word".to_owned()),
        };
        let line = next()?;
        let pid = line.strip_prefix("map\t").ok_or_else(|| told(&line))?;
        self.range.give_to(pid)?;
        to.write_all(b"mapped\n").map_err(failed)?;
        let line = next()?;
        if line != "ready" {
            return Err(told(&line));
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = pid.parse().ok();
        Ok(())
    }

    fn end(&self, folder: &Path) -> Result<(), String> {
        let until = Instant::now() + END_LIMIT;
        // One that is being made has a parent of the same name for a moment.
        loop {
            let here: Vec<i32> = all().into_iter().filter(|pid| holds(*pid, folder)).collect();
            if here.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("the processes {here:?} that hold the volume do not end"));
            }
            for number in here {
                let handle = Pid::from_raw(number).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
                // By a handle that was opened first: the number may be another's a moment later.
                if let Some(handle) = handle.filter(|_| holds(number, folder))
                    && let Err(error) = pidfd_send_signal(&handle, Signal::KILL)
                {
                    tracing::debug!(%error, number, "a holder is gone before its signal");
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// The answer of a holder that failed.
fn told(line: &str) -> String {
    let words: Vec<&str> = line.split('\t').collect();
    let ["failed", step, errno] = words.as_slice() else {
        return format!("the program that holds volumes answered `{}`", kit::text::one_line(line, 200));
    };
    let why = errno.parse().map(std::io::Error::from_raw_os_error).map(|e| e.to_string());
    format!("the program that holds volumes could not {step}: {}", why.unwrap_or_default())
}

fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a process of this user's holds the volume of this folder. A program of a sandbox is another user's.
fn holds(pid: i32, folder: &Path) -> bool {
    let place = format!("/proc/{pid}");
    let own = rustix::process::geteuid().as_raw();
    // One that has ended and was not taken has an empty line.
    let named = |line: Vec<u8>| {
        let mut words = line.split(|byte| *byte == 0).skip(1);
        words.next() == Some(ROLE.as_bytes()) && words.next() == Some(folder.as_os_str().as_encoded_bytes())
    };
    fs::metadata(&place).is_ok_and(|found| found.uid() == own)
        && fs::read(format!("{place}/cmdline")).is_ok_and(named)
}

impl Hands for Holder {
    fn work(&self, _: SandboxId, folder: &Path, work: &Work) -> Result<(), String> {
        match work {
            Work::Make { slot_uid, disk_bytes, .. } => self.make(folder, *slot_uid, *disk_bytes),
            Work::Remove => self.end(folder),
        }
    }

    fn seen(&self, folder: &Path) -> Seen {
        // With none there is nothing at that place, which is the truth.
        let pid = self.find(folder).unwrap_or_default();
        let inside = folder.strip_prefix("/").unwrap_or(folder);
        Seen::Held { pid, root: PathBuf::from(format!("/proc/{pid}/root")).join(inside) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_holds_a_folder_that_nobody_made() {
        let folder = tempfile::tempdir().unwrap();
        assert!(all().contains(&i32::try_from(std::process::id()).unwrap()));
        assert!(!all().into_iter().any(|pid| holds(pid, folder.path())));
    }

    #[test]
    fn a_failure_names_its_step() {
        let words = told("failed\tmount the disk\t1");
        assert!(words.contains("mount the disk") && words.contains("not permitted"), "{words}");
        assert!(told("map").contains("answered"));
    }
}
