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

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RunEvent {
    /// The driver took the run up.
    Begin,
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
    /// Make the sandbox that the record names.
    Prepare,
    /// Put the program in, check the limits, put the moment on disk, open the gate.
    Open,
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

impl State {
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
