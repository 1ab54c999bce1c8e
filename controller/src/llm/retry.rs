//! When and how long to wait. The rule for the delay is `kit::retry`'s; here is what providers add to it: the
//! `Retry-After` family of headers, a longer backoff for overload, and a gate that all calls of one model share,
//! so that forty tasks do not each find out by themselves that the server asked for a pause.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{Timestamp, fmt::rfc2822};
use kit::retry::Policy;

use super::error::Fault;

/// Limits of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallPolicy {
    /// Attempts and the delays between them.
    pub retry: Policy,
    /// The longest `Retry-After` that is waited out; a longer one fails the call with the time in its message.
    pub longest_retry_after: Duration,
    /// How long the server may be silent, before its first byte too.
    pub silence: Duration,
    /// All attempts and waits together.
    pub deadline: Duration,
}

impl CallPolicy {
    /// For a hosted provider: they send a sign of life every few seconds.
    #[must_use]
    pub fn hosted() -> Self {
        Self {
            retry: Policy { attempts: 5, base: Duration::from_secs(1), longest: Duration::from_secs(60) },
            longest_retry_after: Duration::from_secs(15 * 60),
            silence: Duration::from_secs(120),
            deadline: Duration::from_secs(60 * 60),
        }
    }

    /// For a local server, which sends not even headers while it loads a model and reads the prompt.
    #[must_use]
    pub fn local() -> Self {
        Self { silence: Duration::from_secs(600), ..Self::hosted() }
    }
}

/// What a wait is for. Tests let the one kind pass at once and the other never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Before the next attempt.
    Retry,
    /// For the next byte.
    Silence,
    /// For a last frame that adds nothing to the answer.
    Grace,
    /// For the call as a whole.
    Deadline,
}

/// Sleeps. It comes in from outside so that no test has to.
#[async_trait]
pub trait Timer: Send + Sync {
    /// Returns after `span`.
    async fn sleep(&self, why: Wait, span: Duration);
}

/// The real one.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemTimer;

#[async_trait]
impl Timer for SystemTimer {
    async fn sleep(&self, _why: Wait, span: Duration) {
        tokio::time::sleep(span).await;
    }
}

/// How many times longer the backoff is where the server says that it is overloaded.
const OVERLOAD_FACTOR: u32 = 4;

/// How long to wait before attempt `next` (the second is 1), or `None` where there is to be none. `draw` is a
/// uniform number in `[0, 1)`.
pub(super) fn delay(policy: &CallPolicy, fault: &Fault, next: u32, draw: f64) -> Option<Duration> {
    if !fault.is_retryable() || fault.retry_after().is_some_and(|asked| asked > policy.longest_retry_after) {
        return None;
    }
    let mut retry = policy.retry;
    if matches!(fault, Fault::Overload { .. }) {
        retry.base = retry.base.saturating_mul(OVERLOAD_FACTOR);
    }
    if matches!(fault, Fault::Connect(_)) {
        // Nobody listens: a short blip is waited out, a server that was never started is not.
        retry.attempts = retry.attempts.min(2);
    }
    retry.delay(next, fault.retry_after(), draw)
}

/// What the headers ask for, milliseconds before seconds before a date. What makes no sense is ignored.
pub(super) fn retry_after(
    headers: impl Fn(&'static str) -> Option<String>,
    now: Timestamp,
) -> Option<Duration> {
    let seconds = |seconds: f64| (seconds.is_finite() && seconds > 0.0 && seconds < 1e9).then_some(seconds);
    let number = |name| headers(name).and_then(|text| text.trim().parse::<f64>().ok());
    if let Some(asked) = number("retry-after-ms").and_then(|ms| seconds(ms / 1000.0)) {
        return Some(Duration::from_secs_f64(asked));
    }
    if let Some(given) = number("retry-after") {
        return seconds(given).map(Duration::from_secs_f64);
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(headers("retry-after")?.trim()).ok()?;
    Duration::try_from(date.duration_since(now)).ok().filter(|wait| !wait.is_zero())
}

/// "Please try again in 6.57s": where there is no header, a rate limit's message may say it.
pub(super) fn retry_after_hint(message: &str) -> Option<Duration> {
    let rest = message.split_once("try again in ")?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let number: f64 = rest[..end].parse().ok()?;
    let seconds = match rest[end..].trim_start() {
        unit if unit.starts_with("ms") => number / 1000.0,
        unit if unit.starts_with('s') => number,
        _ => return None,
    };
    (seconds > 0.0 && seconds < 1e6).then(|| Duration::from_secs_f64(seconds))
}

/// The moment before which nobody asks this model again, on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Duration>);

impl Gate {
    /// Closes it until `until`, if that is later than now.
    pub fn close(&self, until: Duration) {
        let mut gate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *gate = (*gate).max(until);
    }

    /// How long it is still closed.
    pub fn remaining(&self, now: Duration) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &'static str, value: &str) -> Option<Duration> {
        let now = "2026-11-24T06:00:00Z".parse().expect("a time");
        retry_after(|asked| (asked == name).then(|| value.to_owned()), now)
    }

    #[test]
    fn reads_every_form_and_ignores_nonsense() {
        assert_eq!(read("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(read("retry-after", "0.5"), Some(Duration::from_millis(500)));
        assert_eq!(read("retry-after-ms", "250.0"), Some(Duration::from_millis(250)));
        assert_eq!(read("retry-after", "Tue, 24 Nov 2026 06:00:30 GMT"), Some(Duration::from_secs(30)));
        for nonsense in ["-1", "inf", "NaN", "soon", "", "Tue, 24 Nov 2026 05:59:00 GMT", "1e300"] {
            assert_eq!(read("retry-after", nonsense), None, "{nonsense}");
        }
        assert_eq!(retry_after_hint("Please try again in 6.57s."), Some(Duration::from_millis(6570)));
        assert_eq!(retry_after_hint("Please try again in 20ms."), Some(Duration::from_millis(20)));
        assert_eq!(retry_after_hint("Please try again in a while"), None);
    }

    #[test]
    fn waits_by_class() {
        let policy = CallPolicy::hosted();
        let rate =
            |secs| Fault::RateLimit { retry_after: Some(Duration::from_secs(secs)), detail: String::new() };
        assert_eq!(delay(&policy, &rate(7), 1, 0.0), Some(Duration::from_secs(7)));
        assert_eq!(delay(&policy, &rate(3600), 1, 0.0), None, "longer than we wait");
        assert_eq!(delay(&policy, &rate(7), 5, 0.0), None, "the last attempt is behind us");
        assert_eq!(delay(&policy, &Fault::Quota(String::new()), 1, 0.0), None);
        let overload = Fault::Overload { retry_after: None, detail: String::new() };
        assert_eq!(delay(&policy, &overload, 1, 1.0), Some(Duration::from_secs(4)));
        assert_eq!(delay(&policy, &Fault::Connect(String::new()), 2, 1.0), None);
    }

    #[test]
    fn the_gate_only_ever_closes_longer() {
        let gate = Gate::default();
        gate.close(Duration::from_secs(9));
        gate.close(Duration::from_secs(4));
        assert_eq!(gate.remaining(Duration::from_secs(2)), Duration::from_secs(7));
        assert_eq!(gate.remaining(Duration::from_secs(10)), Duration::ZERO);
    }
}
