//! From evidence to exactly one outcome: pure, first match wins, never from exit 137.
//!
//! The order, and why: our own reason first, because a kill of ours explains every exit; then what says that
//! nothing can be known (no gate, no report); then the kernel's counters, the framework's words, full limits; and only
//! then the exit code, which the program chooses.

use proto::v1::{LostCause, Outcome, OutcomeKind};

use super::{spec::RunLimits, state::Reason, traceback::Exception};
use crate::sandbox::{Evidence, Reports};

const SIGABRT: i32 = 6;
const SIGBUS: i32 = 7;
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;
const SIGXFSZ: i32 = 25;
const SIGSYS: i32 = 31;

/// What is known at a run's end.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Ours, on disk before the first signal.
    pub reason: Option<Reason>,
    /// What failed that is neither the program nor a limit.
    pub abandoned: Option<(LostCause, String)>,
    /// Whether the start gate was opened.
    pub gate_opened: bool,
    /// Of PID 1.
    pub reports: Reports,
    /// Whether SIGKILL went out by the engine, because PID 1 did not answer an order.
    pub killed_by_engine: bool,
    /// Of the cgroup, behind the end gate.
    pub evidence: Evidence,
    /// The most of the disk that a reading found in use.
    pub disk_peak: u64,
    /// In the last of standard error.
    pub exception: Option<Exception>,
    /// The last of standard error, for a failure without a traceback.
    pub stderr_tail: String,
    /// How the divergence rule is met, also where that was read only after the end.
    pub diverged: Option<String>,
    /// Metrics that were asked for and did not come, or were not finite, or have a gap.
    pub missing_metrics: Vec<String>,
}

/// The one outcome.
#[must_use]
pub fn classify(facts: &Facts, limits: &RunLimits) -> Outcome {
    let mut outcome = decide(facts, limits);
    if let Some(end) = &facts.reports.ended {
        outcome.exit_code = end.exit_code;
        outcome.signal = end.signal;
    }
    if let Some(exception) = &facts.exception
        && outcome.kind() != OutcomeKind::Succeeded
    {
        outcome.exception_class.clone_from(&exception.class);
        outcome.exception_message.clone_from(&exception.message);
        outcome.traceback.clone_from(&exception.traceback);
    } else if outcome.kind() == OutcomeKind::Failed {
        outcome.traceback = super::traceback::bounded(&facts.stderr_tail);
    }
    outcome
}

fn outcome(kind: OutcomeKind, message: impl Into<String>) -> Outcome {
    Outcome { kind: kind.into(), message: message.into(), ..Outcome::default() }
}

/// An outcome that is neither the program's doing nor a limit's.
#[must_use]
pub fn lost(cause: LostCause, message: impl Into<String>) -> Outcome {
    Outcome { lost_cause: cause.into(), ..outcome(OutcomeKind::Lost, message) }
}

/// An outcome for a limit that has no kind of its own.
#[must_use]
pub fn limit_exceeded(limit: &str, message: impl Into<String>) -> Outcome {
    Outcome { limit: limit.to_owned(), ..outcome(OutcomeKind::LimitExceeded, message) }
}

/// The resolver's words go where a program's traceback goes: several lines, for whoever is to mend it.
fn dependency_conflict(words: &str) -> Outcome {
    let first = words.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let first = kit::text::one_line(first.trim_start_matches("ERROR: "), 300);
    Outcome {
        traceback: super::traceback::bounded(words),
        ..outcome(OutcomeKind::DependencyConflict, format!("the packages cannot be had: {first}"))
    }
}

fn decide(facts: &Facts, limits: &RunLimits) -> Outcome {
    if let Some(own) = own_reason(facts, limits) {
        return own;
    }
    if let Some((cause, detail)) = &facts.abandoned {
        return lost(*cause, detail.clone());
    }
    if facts.reports.terminating {
        // Our own order to end has a reason on disk before it is sent: this one came from somebody else outside.
        return lost(
            LostCause::Engine,
            "something other than the worker asked the sandbox to stop, as an engine does when it restarts",
        );
    }
    if !facts.gate_opened {
        return lost(LostCause::Sandbox, "the start gate was never opened");
    }
    let ended = facts.reports.ended.as_ref();
    let gone_by_kill = facts.reports.gone.as_ref().is_some_and(|gone| gone.exit_code == Some(137));
    if ended.is_none() && (!gone_by_kill || facts.killed_by_engine) {
        let detail = facts.reports.gone.as_ref().map(|gone| gone.detail.as_str()).unwrap_or_default();
        let words = if detail.is_empty() { "and the engine gave no reason" } else { detail };
        return lost(LostCause::Sandbox, format!("the sandbox ended without a report of its PID 1: {words}"));
    }
    let signal = ended.and_then(|end| end.signal);
    let exit_code = ended.and_then(|end| end.exit_code);
    // Without a report PID 1 itself was killed, and the program with it.
    let killed = ended.is_none() || signal == Some(SIGKILL);
    let unsuccessful = exit_code != Some(0);
    let evidence = &facts.evidence;
    let oom = evidence.complete && evidence.oom_kills > 0;

    if oom && !evidence.memory_limit_met && killed {
        return lost(
            LostCause::HostMemory,
            "the kernel killed the program because the machine, not the run, was out of memory",
        );
    }
    if oom && unsuccessful && evidence.memory_limit_met {
        let size = kit::size::Bytes(limits.memory_bytes);
        let who = if killed { "the program" } else { "a process of the program" };
        return Outcome {
            child: !killed,
            ..outcome(
                OutcomeKind::OutOfMemory,
                format!("the kernel killed {who} at the run's memory limit of {size}"),
            )
        };
    }
    if unsuccessful && facts.exception.as_ref().is_some_and(Exception::is_gpu_out_of_memory) {
        return outcome(OutcomeKind::GpuOutOfMemory, "the framework ran out of the GPU's memory");
    }
    if unsuccessful && evidence.complete {
        if evidence.disk_full || was_refused_room(facts, limits) {
            let size = kit::size::Bytes(limits.disk_bytes);
            return limit_exceeded("disk", format!("the run's disk of {size} was full"));
        }
        if evidence.pids_refused > 0 {
            let (pids, refused) = (limits.pids, evidence.pids_refused);
            return limit_exceeded(
                "pids",
                format!("the limit of {pids} processes and threads refused {refused} of them"),
            );
        }
        if evidence.shm_full {
            let size = kit::size::Bytes(limits.shm_bytes);
            return limit_exceeded("shm", format!("the shared memory of {size} (/dev/shm) was full"));
        }
    }
    if ended.is_none() {
        return lost(
            LostCause::UnknownKill,
            "PID 1 of the sandbox was killed by a SIGKILL that was not ours",
        );
    }
    if unsuccessful {
        return outcome(OutcomeKind::Failed, failure(facts, exit_code, signal));
    }
    let notes = if oom {
        vec![format!("{} processes were killed for memory while the program went on", evidence.oom_kills)]
    } else {
        Vec::new()
    };
    if !facts.missing_metrics.is_empty() {
        let names = facts.missing_metrics.join(", ");
        return Outcome {
            metrics: facts.missing_metrics.clone(),
            notes,
            ..outcome(
                OutcomeKind::MissingMetrics,
                format!("the program exited with 0, but these metrics never came whole and finite: {names}"),
            )
        };
    }
    Outcome { notes, ..outcome(OutcomeKind::Succeeded, "the program exited with 0") }
}

/// The last reading may find room again: what the program had open without a name is gone with it, and ext4 refuses a block
/// some way before the last one while others are still on their way to the disk. Then both count together, the program's
/// word and that the disk was nearly full; neither does alone.
fn was_refused_room(facts: &Facts, limits: &RunLimits) -> bool {
    let nearly = limits.disk_bytes - limits.disk_bytes / 8;
    facts.exception.as_ref().is_some_and(Exception::is_disk_full) && facts.disk_peak >= nearly.max(1)
}

fn own_reason(facts: &Facts, limits: &RunLimits) -> Option<Outcome> {
    let own = match (&facts.reason, &facts.diverged) {
        (Some(Reason::Cancelled), _) => outcome(OutcomeKind::Cancelled, "cancelled by the caller"),
        (Some(Reason::TimedOut), _) => {
            let limit = kit::duration::Span(std::time::Duration::from_millis(limits.time_ms));
            let ended =
                outcome(OutcomeKind::TimedOut, format!("the wall-clock limit of {limit} was reached"));
            Outcome { notes: full_memory(&facts.evidence, limits).into_iter().collect(), ..ended }
        }
        (Some(Reason::Diverged { detail }), _) => outcome(OutcomeKind::Diverged, detail.clone()),
        (Some(Reason::Stalled), _) => {
            let limit = kit::duration::Span(std::time::Duration::from_millis(limits.stall_ms));
            outcome(
                OutcomeKind::Stalled,
                format!("no output, no metric and idle devices for longer than {limit}"),
            )
        }
        (Some(Reason::DependencyConflict { detail }), _) => dependency_conflict(detail),
        (Some(Reason::LimitExceeded { limit }), _) => {
            limit_exceeded(limit, format!("the run's limit on {limit} was reached"))
        }
        (None, Some(detail)) if facts.abandoned.is_none() => outcome(OutcomeKind::Diverged, detail.clone()),
        (None, _) => return None,
    };
    Some(own)
}

/// A program at its memory limit may fight for pages for many seconds before the kernel kills it, and run out of time
/// first: then it is worth knowing. The limit is not met in the kernel's words then, so the peak is looked at.
fn full_memory(evidence: &Evidence, limits: &RunLimits) -> Option<String> {
    let near = limits.memory_bytes - limits.memory_bytes / 64;
    let full = evidence.memory_limit_met || evidence.reading.memory_peak_bytes >= near;
    (evidence.complete && limits.memory_bytes > 0 && full).then(|| {
        let size = kit::size::Bytes(limits.memory_bytes);
        format!("memory reached its limit of {size}, files that were read included: this alone can make a program slow")
    })
}

fn failure(facts: &Facts, exit_code: Option<i32>, signal: Option<i32>) -> String {
    let hint = match signal {
        Some(SIGSYS) => ": it made a system call that the sandbox forbids",
        Some(SIGBUS) => ": often a full /dev/shm or a file that was cut while it was mapped",
        Some(SIGKILL) => ": it was killed from inside the sandbox, and not for memory",
        Some(SIGSEGV) => ": it touched memory that is not its own",
        Some(SIGABRT) => ": it aborted",
        Some(SIGXFSZ) => ": a file grew over its limit",
        _ => "",
    };
    let how = match (exit_code, signal) {
        (_, Some(signal)) => format!("signal {signal} ended the program{hint}"),
        (Some(code), None) => format!("the program exited with {code}"),
        (None, None) => "the program ended".to_owned(),
    };
    match &facts.exception {
        Some(exception) => {
            let what = kit::text::one_line(&format!("{}: {}", exception.class, exception.message), 300);
            format!("{how}: {what}")
        }
        None => how,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sandbox::{Gone, ProgramEnd};

    fn ended(exit_code: Option<i32>, signal: Option<i32>) -> Facts {
        Facts {
            gate_opened: true,
            reports: Reports {
                ready: true,
                started: true,
                ended: Some(ProgramEnd { exit_code, signal, elapsed: Duration::from_secs(1) }),
                killed: true,
                ..Reports::default()
            },
            evidence: Evidence { complete: true, ..Evidence::default() },
            ..Facts::default()
        }
    }

    fn kind(facts: &Facts) -> OutcomeKind {
        classify(facts, &RunLimits::default()).kind()
    }

    fn with(base: Facts, change: impl FnOnce(&mut Facts)) -> Facts {
        let mut facts = base;
        change(&mut facts);
        facts
    }

    #[test]
    fn exit_zero_is_success_and_needs_its_metrics() {
        assert_eq!(kind(&ended(Some(0), None)), OutcomeKind::Succeeded);
        let missing = with(ended(Some(0), None), |f| f.missing_metrics = vec!["loss".into()]);
        let outcome = classify(&missing, &RunLimits::default());
        assert_eq!((outcome.kind(), outcome.metrics), (OutcomeKind::MissingMetrics, vec!["loss".to_owned()]));
    }

    #[test]
    fn our_own_reason_explains_every_exit() {
        let reasons = [
            (Reason::Cancelled, OutcomeKind::Cancelled),
            (Reason::TimedOut, OutcomeKind::TimedOut),
            (Reason::Diverged { detail: "x".into() }, OutcomeKind::Diverged),
            (Reason::Stalled, OutcomeKind::Stalled),
            (Reason::LimitExceeded { limit: "disk".into() }, OutcomeKind::LimitExceeded),
        ];
        for (reason, expected) in reasons {
            for base in [ended(Some(0), None), ended(None, Some(SIGKILL)), Facts::default()] {
                let facts = with(base, |f| {
                    f.reason = Some(reason.clone());
                    f.evidence.oom_kills = 1;
                    f.diverged = Some("late".into());
                    f.missing_metrics = vec!["a".into()];
                });
                assert_eq!(kind(&facts), expected);
            }
        }
    }

    #[test]
    fn divergence_counts_when_it_was_read_after_the_end() {
        let facts = with(ended(Some(1), None), |f| f.diverged = Some("metric a is NaN".into()));
        assert_eq!(kind(&facts), OutcomeKind::Diverged);
    }

    #[test]
    fn no_gate_or_no_report_is_lost() {
        assert_eq!(kind(&Facts::default()), OutcomeKind::Lost);
        let abandoned = with(Facts::default(), |f| f.abandoned = Some((LostCause::Image, "gone".into())));
        assert_eq!(classify(&abandoned, &RunLimits::default()).lost_cause(), LostCause::Image);
        let silent = |exit_code, by_engine| {
            with(Facts { gate_opened: true, ..Facts::default() }, |f| {
                f.killed_by_engine = by_engine;
                f.reports.gone = Some(Gone { exit_code, detail: String::new() });
            })
        };
        let cause = |facts: &Facts| classify(facts, &RunLimits::default()).lost_cause();
        assert_eq!(cause(&silent(Some(3), false)), LostCause::Sandbox);
        assert_eq!(cause(&silent(Some(137), true)), LostCause::Sandbox);
        assert_eq!(cause(&silent(Some(137), false)), LostCause::UnknownKill);
    }

    #[test]
    fn an_order_to_stop_that_was_not_ours_is_the_engines() {
        let stopped = with(ended(None, Some(15)), |f| f.reports.terminating = true);
        assert_eq!(classify(&stopped, &RunLimits::default()).lost_cause(), LostCause::Engine);
        let ours = with(stopped, |f| f.reason = Some(Reason::TimedOut));
        assert_eq!(kind(&ours), OutcomeKind::TimedOut);
    }

    #[test]
    fn memory_is_told_by_the_kernel_alone() {
        let oom = |limit_met, exit, signal| {
            with(ended(exit, signal), |f| {
                f.evidence.oom_kills = 1;
                f.evidence.memory_limit_met = limit_met;
            })
        };
        let killed = classify(&oom(true, None, Some(SIGKILL)), &RunLimits::default());
        assert_eq!((killed.kind(), killed.child), (OutcomeKind::OutOfMemory, false));
        let child = classify(&oom(true, Some(1), None), &RunLimits::default());
        assert_eq!((child.kind(), child.child), (OutcomeKind::OutOfMemory, true));
        let host = classify(&oom(false, None, Some(SIGKILL)), &RunLimits::default());
        assert_eq!((host.kind(), host.lost_cause()), (OutcomeKind::Lost, LostCause::HostMemory));
        let went_on = classify(&oom(true, Some(0), None), &RunLimits::default());
        assert_eq!((went_on.kind(), went_on.notes.len()), (OutcomeKind::Succeeded, 1));
        // 137 by itself says nothing, and neither does a reading that could not be taken.
        assert_eq!(kind(&ended(Some(137), None)), OutcomeKind::Failed);
        let unread = with(oom(true, None, Some(SIGKILL)), |f| f.evidence.complete = false);
        assert_eq!(kind(&unread), OutcomeKind::Failed);
    }

    #[test]
    fn a_time_out_with_full_memory_says_so() {
        let limits = RunLimits { memory_bytes: 256 << 20, ..RunLimits::default() };
        let notes = |peak| {
            let facts = with(ended(None, Some(SIGKILL)), |f| {
                f.reason = Some(Reason::TimedOut);
                f.evidence.reading.memory_peak_bytes = peak;
            });
            let outcome = classify(&facts, &limits);
            assert_eq!(outcome.kind(), OutcomeKind::TimedOut);
            outcome.notes
        };
        assert!(notes(256 << 20).join("").contains("256"));
        assert_eq!(notes(128 << 20), Vec::<String>::new());
    }

    #[test]
    fn the_frameworks_words_count_only_for_a_failure() {
        let exception = Exception { class: "torch.OutOfMemoryError".into(), ..Exception::default() };
        let words = |exit| with(ended(Some(exit), None), |f| f.exception = Some(exception.clone()));
        assert_eq!(kind(&words(1)), OutcomeKind::GpuOutOfMemory);
        assert_eq!(kind(&words(0)), OutcomeKind::Succeeded);
    }

    #[test]
    fn full_limits_explain_a_failure_only() {
        type Full = (&'static str, fn(&mut Evidence));
        let full: [Full; 3] = [
            ("disk", |e| e.disk_full = true),
            ("pids", |e| e.pids_refused = 2),
            ("shm", |e| e.shm_full = true),
        ];
        for (limit, change) in full {
            let outcome = |exit| {
                classify(&with(ended(Some(exit), None), |f| change(&mut f.evidence)), &RunLimits::default())
            };
            assert_eq!((outcome(1).kind(), outcome(1).limit.as_str()), (OutcomeKind::LimitExceeded, limit));
            assert_eq!(outcome(0).kind(), OutcomeKind::Succeeded);
        }
    }

    #[test]
    fn a_disk_that_was_full_explains_a_failure_that_says_so() {
        let message = "[Errno 28] No space left on device".to_owned();
        let words = Exception { class: "OSError".into(), message, ..Exception::default() };
        let limits = RunLimits { disk_bytes: 64 << 20, ..RunLimits::default() };
        let kind = |disk_peak, exception: Option<&Exception>| {
            let facts = with(ended(Some(1), None), |f| {
                f.disk_peak = disk_peak;
                f.exception = exception.cloned();
            });
            classify(&facts, &limits).kind()
        };
        assert_eq!(kind(63 << 20, Some(&words)), OutcomeKind::LimitExceeded);
        // Neither a disk that was full for a while nor the words alone do.
        assert_eq!(kind(64 << 20, Some(&Exception::default())), OutcomeKind::Failed);
        assert_eq!(kind(32 << 20, Some(&words)), OutcomeKind::Failed);
    }

    #[test]
    fn the_rest_is_the_programs_own_failure() {
        for signal in [SIGSYS, SIGBUS, SIGKILL, SIGSEGV, SIGABRT, SIGXFSZ] {
            let outcome = classify(&ended(None, Some(signal)), &RunLimits::default());
            assert_eq!((outcome.kind(), outcome.signal), (OutcomeKind::Failed, Some(signal)));
            assert!(outcome.message.contains(": "), "a hint for signal {signal}");
        }
        let facts = with(ended(Some(2), None), |f| f.stderr_tail = "usage: x".into());
        let outcome = classify(&facts, &RunLimits::default());
        assert_eq!((outcome.exit_code, outcome.traceback.as_str()), (Some(2), "usage: x"));
    }
}
