//! A hostile program as data: a Python file whose header, TOML behind `#:`, says how its run must end and what may be seen of
//! it. An unknown key, a wrong word or a missing header is an error, so that an expectation is never passed over in silence.
//!
//! ```text
//! #: about = "fills the disk with one file"
//! #: outcome = "limit_exceeded"
//! #: limit = "disk"
//! #: flags = ["--disk", "32MiB"]
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Format as _, Toml},
};
use serde::Deserialize;

const HEADER: &str = "#:";

/// How a run ends; the words of WORKER.md §5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words are defined there")]
pub enum Outcome {
    Succeeded,
    Failed,
    MissingMetrics,
    Diverged,
    OutOfMemory,
    TimedOut,
    LimitExceeded,
}

impl Outcome {
    /// As `exec` prints it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::MissingMetrics => "missing_metrics",
            Self::Diverged => "diverged",
            Self::OutOfMemory => "out_of_memory",
            Self::TimedOut => "timed_out",
            Self::LimitExceeded => "limit_exceeded",
        }
    }
}

/// A look from outside that only some programs need; every program gets the common ones anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// `autoresearch logs` and the text form of `exec` hold no character that drives a terminal.
    LogsPrintable,
    /// Host name and paths inside say nothing of the host.
    HostHidden,
    /// `artifacts/beats` holds moments of the monotonic clock: none is later than the last process seen from outside.
    BeatsStopped,
    /// No copy of an artifact holds anything of this host's `/etc/passwd` or `/etc/shadow`.
    NoHostFiles,
}

/// What must be seen of a run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// What the program does, in one line.
    pub about: String,
    /// How its run ends.
    pub outcome: Outcome,
    /// Flags of `exec` beside the suite's own; they win.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Settings of the worker, like `"limits.default.artifacts" = "1MiB"`.
    #[serde(default)]
    pub worker: BTreeMap<String, String>,
    /// Of the program.
    pub exit: Option<i64>,
    /// Of the program.
    pub signal: Option<i64>,
    /// Which limit, where the outcome is one.
    pub limit: Option<String>,
    /// The class of the program's exception.
    pub exception: Option<String>,
    /// Each is in the outcome's message.
    #[serde(default)]
    pub message: Vec<String>,
    /// Each is in one of the notes; where there is none here, there is none there.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Each is in the last of standard output.
    #[serde(default)]
    pub stdout: Vec<String>,
    /// None is in the last of standard output.
    #[serde(default)]
    pub stdout_not: Vec<String>,
    /// Each is in the last of standard error.
    #[serde(default)]
    pub stderr: Vec<String>,
    /// Written to standard output, to the byte.
    pub stdout_bytes: Option<u64>,
    /// Kept of standard output at most, so many bytes.
    pub stdout_kept: Option<u64>,
    /// Points that are kept at most.
    pub points_kept: Option<u64>,
    /// Last values of metrics, all of them.
    pub metrics: Option<BTreeMap<String, f64>>,
    /// Artifacts that came out, all of them.
    pub kept: Option<Vec<String>>,
    /// How many came out.
    pub kept_count: Option<u64>,
    /// What was left out, and a part of the reason.
    #[serde(default)]
    pub left_out: BTreeMap<String, String>,
    /// Each either came out or is named as left out: nothing is passed over in silence.
    #[serde(default)]
    pub accounted: Vec<String>,
    /// The kernel may let a program at its memory limit fight for pages until its time is over, and then that is told with a
    /// note (WORKER.md §5 leaves it to the kernel). Only with the outcome `out_of_memory`.
    #[serde(default)]
    pub may_starve: bool,
    /// The run is over within so many seconds of its gate.
    pub seconds: Option<u64>,
    /// More looks from outside.
    #[serde(default)]
    pub checks: Vec<Check>,
}

/// One file of the suite.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file's name without `.py`.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// From its header.
    pub expectation: Expectation,
}

/// Where the programs lie.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hostile")
}

/// The names of all programs there are, sorted.
///
/// # Panics
/// Where the folder cannot be read.
#[must_use]
pub fn names() -> Vec<String> {
    let entries = fs::read_dir(folder()).expect("the folder of hostile programs");
    let paths = entries.map(|entry| entry.expect("an entry of that folder").path());
    let mut names: Vec<String> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "py"))
        .map(|path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

impl Program {
    /// Reads one with its header.
    ///
    /// # Errors
    /// Names the file and what is wrong in its header.
    pub fn load(name: &str) -> Result<Self, String> {
        let path = folder().join(format!("{name}.py"));
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let expectation = parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self { name: name.to_owned(), path, expectation })
    }
}

fn parse(text: &str) -> Result<Expectation, String> {
    let mut header = String::new();
    for line in text.lines().take_while(|line| line.starts_with(HEADER)) {
        header.push_str(&line[HEADER.len()..]);
        header.push('\n');
    }
    if header.is_empty() {
        return Err(format!("it does not begin with a header (lines after `{HEADER}`)"));
    }
    let below = text.lines().skip_while(|line| line.starts_with(HEADER));
    if let Some(line) = below.into_iter().find(|line| line.starts_with(HEADER)) {
        return Err(format!("the header is broken before: {line}"));
    }
    let expectation: Expectation =
        Figment::from(Toml::string(&header)).extract().map_err(|e| e.to_string())?;
    if (expectation.outcome == Outcome::LimitExceeded) != expectation.limit.is_some() {
        return Err("`limit` belongs to the outcome `limit_exceeded`, and that one needs it".to_owned());
    }
    if expectation.may_starve && expectation.outcome != Outcome::OutOfMemory {
        return Err("`may_starve` belongs to the outcome `out_of_memory`".to_owned());
    }
    Ok(expectation)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_header_that_is_wrong_is_refused() {
        let fine = "#: about = \"x\"\n#: outcome = \"failed\"\n#: exit = 3\nprint()\n";
        assert_eq!(parse(fine).map(|e| e.exit), Ok(Some(3)));
        for wrong in [
            "print()\n",
            "#: about = \"x\"\n",
            "#: about = \"x\"\n#: outcome = \"fialed\"\n",
            "#: about = \"x\"\n#: outcome = \"failed\"\n#: exti = 3\n",
            "#: about = \"x\"\n#: outcome = \"failed\"\n#: exit = \"3\"\n",
            "#: about = \"x\"\n#: outcome = \"limit_exceeded\"\n",
            "#: about = \"x\"\n#: outcome = \"failed\"\n#: limit = \"disk\"\n",
            "#: about = \"x\"\n#: outcome = \"failed\"\n#: checks = [\"no_such_check\"]\n",
            "#: about = \"x\"\n#: outcome = \"failed\"\n\n#: exit = 3\n",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
