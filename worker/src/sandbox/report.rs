//! What PID 1 reports: one JSON object a line on its standard output, read whole each time. Only what is known
//! counts; a line without its end is read again when the rest of it is there; of two reports of one thing the first
//! counts. So a longer log never says less than a shorter one.

use std::time::Duration;

use serde::Deserialize;

use super::{ProgramEnd, Reports};

/// PID 1 writes far less; a longer line is not its own.
const LINE_BYTES_MAX: usize = 4096;
/// Of a failing step's name, in characters.
const STEP_CHARS_MAX: usize = 200;

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
pub struct Log {
    /// What it did.
    pub reports: Reports,
    /// Why it gave up; empty where it did not.
    pub failure: String,
    /// What a supervisor outside says of PID 1's own end: its exit code, or 128 and the signal.
    pub left: Option<i64>,
}

/// Reads a whole log.
#[must_use]
pub fn read(log: &[u8]) -> Log {
    let mut read = Log::default();
    for line in log.split_inclusive(|b| *b == b'\n') {
        if line.len() > LINE_BYTES_MAX || !line.ends_with(b"\n") {
            continue;
        }
        let Ok(line) = serde_json::from_slice::<Line>(line) else { continue };
        match line.event.as_str() {
            "ready" => read.reports.ready = true,
            "started" => read.reports.started = true,
            "terminating" => read.reports.terminating = true,
            "backstop" => read.reports.backstop = true,
            "shm_full" => read.reports.shm_full = true,
            "killed" => read.reports.killed = true,
            "drained" => read.reports.drained = true,
            "ended" => {
                read.reports.ended.get_or_insert(ProgramEnd {
                    exit_code: line.exit,
                    signal: line.signal,
                    elapsed: Duration::from_millis(line.elapsed_ms.unwrap_or_default()),
                });
            }
            "left" => read.left = line.exit.map(i64::from),
            "failed" if read.failure.is_empty() => {
                let step = kit::text::one_line(&line.step.unwrap_or_default(), STEP_CHARS_MAX);
                let errno = line.errno.unwrap_or_default();
                read.failure =
                    format!("PID 1 could not {step}: {}", std::io::Error::from_raw_os_error(errno));
            }
            "unwanted" if read.failure.is_empty() => {
                "PID 1 had no order in time".clone_into(&mut read.failure);
            }
            _ => {} // a note, or a later version's
        }
    }
    read
}

/// Reports only ever grow: a log that the engine could not read whole takes nothing back.
pub fn grow(known: &mut Reports, new: &Reports) -> bool {
    let before = known.clone();
    known.ready |= new.ready;
    known.started |= new.started;
    known.terminating |= new.terminating;
    known.backstop |= new.backstop;
    known.shm_full |= new.shm_full;
    known.killed |= new.killed;
    known.drained |= new.drained;
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
    fn the_first_report_of_an_end_counts() {
        let twice = [LOG, b"led\"}\n{\"event\":\"ended\",\"exit\":0}\n{\"event\":\"unwanted\"}"].concat();
        let log = read(&twice);
        assert_eq!(log.reports.ended.unwrap().exit_code, Some(137));
        assert_eq!(log.failure, "", "its line is not whole");
    }

    #[test]
    fn a_failure_names_the_step() {
        let failure = read(b"{\"event\":\"failed\",\"step\":\"exec the program\",\"errno\":2}\n").failure;
        assert!(failure.contains("exec the program") && failure.contains("No such file"), "{failure}");
    }
}
