//! Tokens of one call in one record for all providers. A count that the server did not send is `None`: unknown is
//! not zero, and a budget must not take it for zero.

use serde::{Deserialize, Serialize};

/// Tokens. The whole input is the sum of the four input counts; reasoning is a part of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Input that no cache held.
    pub input_uncached: Option<u64>,
    /// Input read from a cache.
    pub cache_read: Option<u64>,
    /// Input written to a cache for five minutes, or for a provider's only lifetime.
    pub cache_write_5m: Option<u64>,
    /// Input written to a cache for an hour.
    pub cache_write_1h: Option<u64>,
    /// All output, reasoning included.
    pub output_total: Option<u64>,
    /// The part of the output that was reasoning.
    pub output_reasoning: Option<u64>,
}

impl Usage {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self {
        input_uncached: None,
        cache_read: None,
        cache_write_5m: None,
        cache_write_1h: None,
        output_total: None,
        output_reasoning: None,
    };

    /// The whole input, or `None` where not even the uncached part is known.
    #[must_use]
    pub fn input_total(&self) -> Option<u64> {
        let rest = [self.cache_read, self.cache_write_5m, self.cache_write_1h];
        let rest = rest.into_iter().flatten().fold(0, u64::saturating_add);
        self.input_uncached.map(|uncached| uncached.saturating_add(rest))
    }
}

/// Fields of a usage object of OpenAI's two formats, whose input count includes what caches held. `names` are
/// the input count, its details, the output count, its details.
pub(super) fn inclusive(usage: &serde_json::Value, names: [&str; 4]) -> Usage {
    let count = |value: &serde_json::Value, name: &str| value.get(name).and_then(serde_json::Value::as_u64);
    let [input, input_details, output, output_details] = names;
    let details = &usage[input_details];
    let read = count(details, "cached_tokens").or_else(|| count(usage, "prompt_cache_hit_tokens"));
    let write = count(details, "cache_write_tokens");
    let cached = read.unwrap_or(0).saturating_add(write.unwrap_or(0));
    Usage {
        input_uncached: count(usage, input).map(|all| all.saturating_sub(cached)),
        cache_read: read,
        cache_write_5m: write,
        cache_write_1h: None,
        output_total: count(usage, output),
        output_reasoning: count(&usage[output_details], "reasoning_tokens"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_caches_held_is_counted_once() {
        let usage = json!({"prompt_tokens": 1200, "completion_tokens": 240,
            "prompt_tokens_details": {"cached_tokens": 1024}, "completion_tokens_details": {"reasoning_tokens": 192}});
        let names =
            ["prompt_tokens", "prompt_tokens_details", "completion_tokens", "completion_tokens_details"];
        let usage = inclusive(&usage, names);
        assert_eq!(
            (usage.input_uncached, usage.cache_read, usage.cache_write_5m),
            (Some(176), Some(1024), None)
        );
        assert_eq!(usage.input_total(), Some(1200));
        assert_eq!((usage.output_total, usage.output_reasoning), (Some(240), Some(192)));
        assert_eq!(inclusive(&json!({}), names), Usage::UNKNOWN);
        assert_eq!(Usage::UNKNOWN.input_total(), None);
    }
}
