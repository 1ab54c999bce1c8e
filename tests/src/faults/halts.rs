//! Programs that stop themselves at a point (`kit::halt`): the instant at which a fault is done.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::{Signal, kill};

use super::process;
use crate::wait_for;

/// Until a campaign has come to a point, on a machine with other work.
const REACHED: Duration = Duration::from_secs(180);

/// The folder in which points leave their marks.
#[derive(Debug)]
pub struct Halts {
    folder: PathBuf,
}

/// A process that has stopped itself at a point.
#[derive(Debug, Clone)]
pub struct Stopped {
    /// Where.
    pub point: String,
    /// Who.
    pub pid: i32,
}

impl Halts {
    /// In a folder of a test's own.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder for the points");
        Self { folder: folder.to_owned() }
    }

    /// The variable that has a program stop at these points, like `controller.release` or `worker.running#3`.
    #[must_use]
    pub fn variable(&self, points: &[&str]) -> (String, String) {
        let value = format!("{}:{}", self.folder.display(), points.join(","));
        (kit::halt::VARIABLE.to_owned(), value)
    }

    /// Waits until a program has stopped there, and sees that it has. `alive` says, where it is known, why none ever will.
    ///
    /// # Panics
    /// Where none does.
    #[must_use]
    pub fn reached(&self, point: &str, mut alive: impl FnMut() -> Result<(), String>) -> Stopped {
        let name = point.split('#').next().unwrap_or(point);
        let pid = wait_for(&format!("a program at {point}"), REACHED, || {
            // The mark is made before the number is written into it.
            let text = fs::read_to_string(self.folder.join(name)).unwrap_or_default();
            if let (true, Ok(pid)) = (text.ends_with('\n'), text.trim().parse()) {
                return Ok(pid);
            }
            if let Err(why) = alive() {
                panic!("{point} was never reached: {why}");
            }
            Err(format!("the mark holds {text:?}"))
        });
        process::until_stopped(pid);
        Stopped { point: point.to_owned(), pid }
    }
}

impl Stopped {
    /// Lets it go on; nothing where it was killed meanwhile.
    pub fn go_on(&self) {
        kill(nix::unistd::Pid::from_raw(self.pid), Signal::SIGCONT).ok();
    }
}

impl Drop for Halts {
    /// A test that failed leaves nobody stopped: who is stopped can neither end nor be waited for.
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let pid = fs::read_to_string(entry.path()).ok().and_then(|text| text.trim().parse().ok());
            if let Some(pid) = pid.filter(|pid| process::state(*pid) == Some('T')) {
                kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
    }
}
