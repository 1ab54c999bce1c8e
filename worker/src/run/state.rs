//! The machine of a run: one total pure function from (state, event) to the next state and what to do, or to a
//! refusal. It does no I/O; the driver does what it says, and recovery goes through it too.
//!
//! ```text
//!              Begin             SandboxReady          GateOpened
//!   Accepted ────────▶ Preparing ────────────▶ Starting ─────────▶ Running
//!      │                   │                      │                 │  StopWanted: Record, Terminate
//!      │ StopWanted        │ StopWanted           │ StopWanted      │  ProgramEnded: Kill
//!      │ Abandoned         │ Abandoned            │ Abandoned       ▼
//!      │                   │                      │              Ending ──┐ ProgramEnded, GraceOver: Kill
//!      │                   │                      │                 │  ◀──┘
//!      ▼                   ▼                      ▼                 ▼ Quiet, Abandoned
//!      └──────────────────▶└─────────────────────▶└──────────▶ Harvesting ───Removed──▶ Finished
//! ```
//!
//! Happy path: Begin, SandboxReady, GateOpened, ProgramEnded, Quiet, Removed. A reason (`RecordReason`) is always on
//! disk before the first signal goes out, so that a kill of ours is never mistaken for the program's doing.
//! `Abandoned` is every end that is neither the program's doing nor a limit's: it leads to `lost`.
//!
//! A process that finds an unfinished run on its disk begins with `TakenUp`, from the last state that the run's events tell, and
//! what it says of the run's sandbox ([`Standing`]) leads back into the same machine. It is the one event that may go back,
//! and only where nothing of the program ever ran: then the sandbox is made again.

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// On disk, slot taken, nothing made.
    Accepted,
    /// The sandbox is being made.
    Preparing,
    /// The sandbox is there, its gate shut.
    Starting,
    /// The gate was opened.
    Running,
    /// The program ended, or the reason to end it is on disk.
    Ending,
    /// Nothing of the program lives; what it left is being taken out.
    Harvesting,
    /// The last event is written.
    Finished,
}

/// Why we end a run ourselves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// The caller asked.
    Cancelled,
    /// The wall-clock limit.
    TimedOut,
    /// The divergence rule was met; says how.
    Diverged {
        /// For a person: metric, value, rule.
        detail: String,
    },
    /// No output, no metric, idle CPU and GPU.
    Stalled,
    /// Its packages cannot be had; nothing was made yet.
    DependencyConflict {
        /// The resolver's words.
        detail: String,
    },
    /// Another limit, by its name.
    LimitExceeded {
        /// "disk", "pids", "shm" or "artifacts".
        limit: String,
    },
}

/// What a process that takes a run up finds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Nothing of the program ever ran, whatever is there of the sandbox.
    Unopened,
    /// As before, and the reason to end it is on disk.
    Unwanted,
    /// The moment of the gate is on disk, and PID 1 has not had the order.
    AtGate,
    /// The program was started; PID 1 says whether it has ended.
    Started,
    /// As before, and the reason to end it is on disk.
    Stopped,
    /// The gate was opened, and the sandbox is gone; or something else than the program ended the run, and that is on disk.
    Lost,
    /// What its end came to is on disk; the rest of the harvest may be missing.
    Judged,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RunEvent {
    /// The driver took a new run up.
    Begin,
    /// The driver took up a run of an earlier process.
    TakenUp(Standing),
    /// The sandbox waits at its gate.
    SandboxReady,
    /// PID 1 reported the program's start.
    GateOpened,
    /// We want it to end.
    StopWanted(Reason),
    /// The program's main process ended.
    ProgramEnded,
    /// The grace after SIGTERM is over.
    GraceOver,
    /// No process of the program lives.
    Quiet,
    /// Sandbox, engine, host or worker failed; what was there is to be cleared away.
    Abandoned,
    /// Nothing of the sandbox is left.
    Removed,
}

/// What the driver has to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Leave nothing of the sandbox that the record names, and count the attempt.
    Clear,
    /// Make the sandbox that the record names.
    Prepare,
    /// Put the program in, check the limits, put the moment on disk, open the gate.
    Open,
    /// Everything is checked and in: put the moment on disk anew, open the gate.
    Reopen,
    /// Follow logs and limits.
    Follow,
    /// Put the reason on disk and sync it.
    RecordReason(Reason),
    /// SIGTERM to the program's group; the grace begins.
    Terminate,
    /// SIGKILL to all that is left, and wait until it is gone.
    Kill,
    /// Drain the logs, take the evidence, open the end gate, copy the artifacts.
    Harvest,
    /// Remove the sandbox.
    Remove,
    /// Write the last event, free slot and disk.
    Finish,
}

/// Why an event changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The run is past it: harmless, for two ends can race.
    #[error("too late for this event")]
    Late,
    /// It cannot happen yet: a defect of the driver.
    #[error("too early for this event")]
    Early,
}

/// The next state and what to do.
///
/// # Errors
/// [`Refusal`]: the state stays.
pub fn next(state: State, event: RunEvent) -> Result<(State, Vec<Action>), Refusal> {
    use RunEvent as E;
    use State as S;
    Ok(match (state, event) {
        (S::Finished, _) => return Err(Refusal::Late),

        (S::Accepted, E::Begin) => (S::Preparing, vec![Action::Prepare]),
        (_, E::Begin) => return Err(Refusal::Late),

        (state, E::TakenUp(standing)) => taken_up(state, standing),

        (S::Preparing, E::SandboxReady) => (S::Starting, vec![Action::Open]),
        (S::Accepted, E::SandboxReady) => return Err(Refusal::Early),
        (_, E::SandboxReady) => return Err(Refusal::Late),

        (S::Starting, E::GateOpened) => (S::Running, vec![Action::Follow]),
        (S::Accepted | S::Preparing, E::GateOpened) => return Err(Refusal::Early),
        (_, E::GateOpened) => return Err(Refusal::Late),

        // Before the gate nothing of the program lives, so no signal is needed.
        (S::Accepted | S::Preparing | S::Starting, E::StopWanted(reason)) => {
            (S::Harvesting, vec![Action::RecordReason(reason), Action::Remove])
        }
        (S::Running, E::StopWanted(reason)) => {
            (S::Ending, vec![Action::RecordReason(reason), Action::Terminate])
        }
        // The first reason counts.
        (S::Ending | S::Harvesting, E::StopWanted(_)) => return Err(Refusal::Late),

        (S::Running | S::Ending, E::ProgramEnded) => (S::Ending, vec![Action::Kill]),
        (S::Harvesting, E::ProgramEnded) => return Err(Refusal::Late),
        (_, E::ProgramEnded) => return Err(Refusal::Early),

        (S::Ending, E::GraceOver) => (S::Ending, vec![Action::Kill]),
        (S::Harvesting, E::GraceOver) => return Err(Refusal::Late),
        (_, E::GraceOver) => return Err(Refusal::Early),

        (S::Ending, E::Quiet) => (S::Harvesting, vec![Action::Harvest, Action::Remove]),
        (S::Harvesting, E::Quiet) => return Err(Refusal::Late),
        (_, E::Quiet) => return Err(Refusal::Early),

        // Logs may be there once the gate was open, so they are drained.
        (S::Running | S::Ending, E::Abandoned) => (S::Harvesting, vec![Action::Harvest, Action::Remove]),
        (S::Accepted | S::Preparing | S::Starting, E::Abandoned) => (S::Harvesting, vec![Action::Remove]),
        (S::Harvesting, E::Abandoned) => (S::Harvesting, vec![Action::Remove]),

        (S::Harvesting, E::Removed) => (S::Finished, vec![Action::Finish]),
        (_, E::Removed) => return Err(Refusal::Early),
    })
}

fn taken_up(state: State, standing: Standing) -> (State, Vec<Action>) {
    let harvest = (State::Harvesting, vec![Action::Harvest, Action::Remove]);
    match (standing, state) {
        (Standing::Unopened, _) => (State::Preparing, vec![Action::Clear, Action::Prepare]),
        (Standing::Unwanted, _) => (State::Harvesting, vec![Action::Remove]),
        (Standing::Lost | Standing::Judged, _)
        | (Standing::AtGate | Standing::Started | Standing::Stopped, State::Harvesting) => harvest,
        (Standing::AtGate, State::Accepted | State::Preparing | State::Starting) => {
            (State::Starting, vec![Action::Reopen])
        }
        (Standing::Stopped, _) => (State::Ending, vec![Action::Terminate]),
        // Without a reason of ours it was the program's own end that was seen.
        (Standing::AtGate | Standing::Started, State::Ending) => (State::Ending, vec![Action::Kill]),
        (Standing::AtGate | Standing::Started, _) => (State::Running, vec![Action::Follow]),
    }
}

impl State {
    /// As the protocol told it; `None` for a word that is no state.
    #[must_use]
    pub fn of_wire(state: proto::v1::RunState) -> Option<Self> {
        use proto::v1::RunState as W;
        Some(match state {
            W::Unspecified => return None,
            W::Accepted => Self::Accepted,
            W::Preparing => Self::Preparing,
            W::Starting => Self::Starting,
            W::Running => Self::Running,
            W::Ending => Self::Ending,
            W::Harvesting => Self::Harvesting,
            W::Finished => Self::Finished,
        })
    }

    /// As the protocol says it.
    #[must_use]
    pub fn wire(self) -> proto::v1::RunState {
        use proto::v1::RunState as W;
        match self {
            Self::Accepted => W::Accepted,
            Self::Preparing => W::Preparing,
            Self::Starting => W::Starting,
            Self::Running => W::Running,
            Self::Ending => W::Ending,
            Self::Harvesting => W::Harvesting,
            Self::Finished => W::Finished,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 7] = [
        State::Accepted,
        State::Preparing,
        State::Starting,
        State::Running,
        State::Ending,
        State::Harvesting,
        State::Finished,
    ];

    fn events() -> Vec<RunEvent> {
        vec![
            RunEvent::Begin,
            RunEvent::SandboxReady,
            RunEvent::GateOpened,
            RunEvent::StopWanted(Reason::Cancelled),
            RunEvent::ProgramEnded,
            RunEvent::GraceOver,
            RunEvent::Quiet,
            RunEvent::Abandoned,
            RunEvent::Removed,
        ]
    }

    const STANDINGS: [Standing; 7] = [
        Standing::Unopened,
        Standing::Unwanted,
        Standing::AtGate,
        Standing::Started,
        Standing::Stopped,
        Standing::Lost,
        Standing::Judged,
    ];

    #[test]
    fn whatever_a_new_process_finds_leads_on_and_only_what_never_ran_goes_back() {
        for state in STATES.into_iter().filter(|s| *s != State::Finished) {
            assert_eq!(State::of_wire(state.wire()), Some(state));
            for standing in STANDINGS {
                let (to, actions) = next(state, RunEvent::TakenUp(standing)).unwrap();
                let again = actions.contains(&Action::Prepare);
                assert_eq!(again, standing == Standing::Unopened);
                assert!(rank(to) >= rank(state) || again, "{state:?} {standing:?} goes back to {to:?}");
                // Nothing is made while something may be left, and nothing is signalled whose reason is not on disk.
                if again {
                    assert_eq!(actions[0], Action::Clear);
                }
                assert!(!actions.contains(&Action::Terminate) || standing == Standing::Stopped);
                if to == State::Harvesting {
                    assert_eq!(actions.last(), Some(&Action::Remove));
                }
            }
        }
        for standing in STANDINGS {
            assert_eq!(next(State::Finished, RunEvent::TakenUp(standing)), Err(Refusal::Late));
        }
    }

    fn rank(state: State) -> usize {
        STATES.iter().position(|s| *s == state).unwrap()
    }

    #[test]
    fn every_pair_is_decided_and_none_goes_back() {
        for state in STATES {
            for event in events() {
                match next(state, event.clone()) {
                    Ok((to, actions)) => {
                        assert!(rank(to) >= rank(state), "{state:?} {event:?} goes back to {to:?}");
                        assert!(!actions.is_empty(), "{state:?} {event:?} does nothing");
                        // A signal on our own account comes after its reason.
                        if actions.contains(&Action::Terminate) {
                            assert!(matches!(actions[0], Action::RecordReason(_)));
                        }
                        // Finished only from harvesting, where the sandbox was removed.
                        assert!(to != State::Finished || state == State::Harvesting);
                        if to == State::Harvesting {
                            assert_eq!(actions.last(), Some(&Action::Remove));
                        }
                    }
                    Err(Refusal::Early) => assert!(rank(state) < rank(State::Harvesting)),
                    Err(Refusal::Late) => assert!(rank(state) > rank(State::Accepted)),
                }
            }
        }
    }

    #[test]
    fn from_everywhere_it_can_be_ended() {
        for state in STATES.into_iter().filter(|s| *s != State::Finished) {
            let (to, _) = next(state, RunEvent::Abandoned).unwrap();
            assert_eq!(to, State::Harvesting);
            assert_eq!(next(to, RunEvent::Removed).unwrap(), (State::Finished, vec![Action::Finish]));
        }
    }

    #[test]
    fn the_happy_path() {
        let path = [
            (RunEvent::Begin, State::Preparing),
            (RunEvent::SandboxReady, State::Starting),
            (RunEvent::GateOpened, State::Running),
            (RunEvent::ProgramEnded, State::Ending),
            (RunEvent::Quiet, State::Harvesting),
            (RunEvent::Removed, State::Finished),
        ];
        let mut state = State::Accepted;
        for (event, expected) in path {
            state = next(state, event).unwrap().0;
            assert_eq!(state, expected);
        }
    }
}
