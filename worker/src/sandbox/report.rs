//! What PID 1 reports: one JSON object a line on its standard output, read whole each time. Only what is known
//! counts; a line that is cut off is read again when the rest of it is there.

use std::time::Duration;

use serde::Deserialize;

use super::{ProgramEnd, Reports};

#[derive(Deserialize)]
struct Line {
    event: String,
    exit: Option<i32>,
    signal: Option<i32>,
    elapsed_ms: Option<u64>,
    step: Option<String>,
    errno: Option<i32>,
}

/// What a whole log says: the reports, and what PID 1 said of its own failure.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    pub reports: Reports,
    /// Why it gave up; empty where it did not.
    pub failure: String,
    /// What a supervisor outside says of PID 1's own end: its exit code, or 128 and the signal.
    pub left: Option<i64>,
}

/// Reads a whole log.
pub(crate) fn read(log: &[u8]) -> Log {
    let mut read = Log::default();
    for line in log.split(|b| *b == b'\n') {
        let Ok(line) = serde_json::from_slice::<Line>(line) else { continue };
        match line.event.as_str() {
            "ready" => read.reports.ready = true,
            "started" => read.reports.started = true,
            "terminating" => read.reports.terminating = true,
            "killed" => read.reports.killed = true,
            "ended" => {
                read.reports.ended = Some(ProgramEnd {
                    exit_code: line.exit,
                    signal: line.signal,
                    elapsed: Duration::from_millis(line.elapsed_ms.unwrap_or_default()),
                });
            }
            "left" => read.left = line.exit.map(i64::from),
            "failed" => {
                let step = line.step.unwrap_or_default();
                let errno = line.errno.unwrap_or_default();
                read.failure =
                    format!("PID 1 could not {step}: {}", std::io::Error::from_raw_os_error(errno));
            }
            "unwanted" => "PID 1 had no order in time".clone_into(&mut read.failure),
            _ => {} // a note, or a later version's
        }
    }
    read
}

/// Reports only ever grow: a log that the engine could not read whole takes nothing back.
pub(crate) fn grow(known: &mut Reports, new: &Reports) -> bool {
    let before = known.clone();
    known.ready |= new.ready;
    known.started |= new.started;
    known.terminating |= new.terminating;
    known.killed |= new.killed;
    known.ended = known.ended.take().or_else(|| new.ended.clone());
    known.gone = known.gone.take().or_else(|| new.gone.clone());
    before != *known
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"{\"event\":\"ready\"}\n{\"event\":\"started\"}\nnoise\n{\"event\":\"ended\",\"exit\":137,\"elapsed_ms\":12}\n{\"event\":\"kil";

    #[test]
    fn a_line_that_is_cut_off_waits_for_its_rest() {
        let log = read(LOG);
        assert!(log.reports.ready && log.reports.started && !log.reports.killed);
        let end = ProgramEnd { exit_code: Some(137), signal: None, elapsed: Duration::from_millis(12) };
        assert_eq!(log.reports.ended, Some(end));
        assert!(read(&[LOG, b"led\"}\n"].concat()).reports.killed);
    }

    #[test]
    fn what_is_known_is_never_taken_back() {
        let mut known = read(LOG).reports;
        assert!(!grow(&mut known, &Reports::default()));
        assert!(known.started && known.ended.is_some());
        assert!(grow(&mut known, &Reports { killed: true, ..Reports::default() }));
    }

    #[test]
    fn a_failure_names_the_step() {
        let failure = read(b"{\"event\":\"failed\",\"step\":\"exec the program\",\"errno\":2}\n").failure;
        assert!(failure.contains("exec the program") && failure.contains("No such file"), "{failure}");
    }
}
