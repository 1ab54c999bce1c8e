//! The one retry rule: exponential backoff with full jitter, capped, for a bounded number of attempts. It
//! decides, the caller sleeps, so that a test needs no time.

use std::time::Duration;

/// How often and how long. The n-th delay is drawn between nothing and `base · 2ⁿ`, at most `longest`
/// ("full jitter": M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Attempts in all, the first one included.
    pub attempts: u32,
    /// Upper end of the first delay.
    pub base: Duration,
    /// Upper end of every delay.
    pub longest: Duration,
}

impl Policy {
    /// How long to wait before attempt `next` (the second attempt is 1), or `None` where there is none.
    /// `at_least` is what the other side asked for; `draw` is a uniform number in `[0, 1)`.
    #[must_use]
    pub fn delay(&self, next: u32, at_least: Option<Duration>, draw: f64) -> Option<Duration> {
        if next >= self.attempts {
            return None;
        }
        let ceiling = self.base.saturating_mul(1 << next.saturating_sub(1).min(20)).min(self.longest);
        let jittered = ceiling.mul_f64(draw.clamp(0.0, 1.0));
        Some(jittered.max(at_least.unwrap_or_default()))
    }

    /// As [`Policy::delay`], with the draw from the thread's generator.
    #[must_use]
    pub fn next_delay(&self, next: u32, at_least: Option<Duration>) -> Option<Duration> {
        self.delay(next, at_least, rand::random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_is_capped_and_ends() {
        let policy = Policy { attempts: 4, base: Duration::from_secs(1), longest: Duration::from_secs(3) };
        let full = |n| policy.delay(n, None, 1.0);
        assert_eq!(full(1), Some(Duration::from_secs(1)));
        assert_eq!(full(2), Some(Duration::from_secs(2)));
        assert_eq!(full(3), Some(Duration::from_secs(3)));
        assert_eq!(full(4), None);
        assert_eq!(policy.delay(1, None, 0.0), Some(Duration::ZERO));
        assert_eq!(policy.delay(1, Some(Duration::from_secs(9)), 0.5), Some(Duration::from_secs(9)));
    }
}
