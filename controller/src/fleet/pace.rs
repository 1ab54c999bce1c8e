//! How long things are waited for, in one place: a test takes shorter ones and moves its clock by hand.

use std::time::Duration;

use kit::retry::Policy;

/// The times of a fleet.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between attempts to reach a worker. There is no last one.
    pub redial: Policy,
    /// One attempt takes at most so long, asking the worker who it is included: `ssh` may wait for a jump host.
    pub dial: Duration,
    /// A stream without a message for so long is broken: the other side beats every 5 s (WORKER §1).
    pub silence: Duration,
    /// A connected worker is asked so often what it has, and answers within [`Pace::answer`].
    pub refresh: Duration,
    /// A question is answered in this time, or the connection is broken.
    pub answer: Duration,
    /// A worker that was out of reach for so long, of the controller's own awake time, has lost its runs (WORKER §2).
    pub patience: Duration,
    /// Somebody who cancels has said that he does not wait: a run that is cancelled while its worker is out of reach is
    /// followed for so long, and is cancelled there when the worker is back.
    pub cancel_patience: Duration,
    /// A worker that failed over and over is set aside for so long, twice as long the next time, and so on.
    pub aside: Duration,
    /// At most so long.
    pub aside_longest: Duration,
    /// A slot that the worker says is taken is asked for again after so long where it names no time itself.
    pub slot_taken: Duration,
    /// A worker of which all slots are ours leaves one free for somebody else once in so long …
    pub yield_every: Duration,
    /// … for as long as somebody who was refused needs to ask again.
    pub yield_for: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            redial: Policy {
                attempts: u32::MAX,
                base: Duration::from_millis(200),
                longest: Duration::from_secs(30),
            },
            dial: Duration::from_secs(60),
            silence: Duration::from_secs(15),
            refresh: Duration::from_secs(30),
            answer: Duration::from_secs(15),
            patience: Duration::from_secs(30 * 60),
            cancel_patience: Duration::from_secs(15),
            aside: Duration::from_secs(60),
            aside_longest: Duration::from_secs(60 * 60),
            slot_taken: Duration::from_millis(250),
            yield_every: Duration::from_secs(60),
            yield_for: Duration::from_secs(3),
        }
    }
}
