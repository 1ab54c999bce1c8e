//! What a call costs. Prices move often, so they are data (`prices.json`, with date and source) and not code; a
//! model that is not in the table has no price, which is not a price of zero. `ollama` costs nothing here.
//!
//! Amounts are whole micro-dollars: tokens times micro-dollars per million tokens are added up in full and
//! divided once, upwards, so that a budget is never passed by rounding.

use std::{fmt, sync::LazyLock};

use serde::{Deserialize, Serialize};

use super::{
    BILLED_ATTEMPTS, Request,
    spec::{ModelSpec, Provider},
    usage::Usage,
};

/// Millionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MicroUsd(pub u64);

impl fmt::Display for MicroUsd {
    /// Dollars with four decimals, rounded up: `$0.0123`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths_of_mills = self.0.div_ceil(100);
        write!(f, "${}.{:04}", tenths_of_mills / 10_000, tenths_of_mills % 10_000)
    }
}

/// Rates in micro-dollars per million tokens, for requests above a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rates {
    /// They hold for requests whose whole input is more than this, in tokens.
    #[serde(default)]
    above: u64,
    input: u64,
    cache_read: u64,
    cache_write_5m: u64,
    cache_write_1h: u64,
    output: u64,
}

/// The price of a model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The provider's name of the model.
    pub model: String,
    /// When the price was read.
    pub as_of: String,
    /// Where it was read: the vendor's page, or others'.
    pub source: String,
    rates: Vec<Rates>,
}

static TABLE: LazyLock<Vec<Price>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("prices.json")).unwrap_or_else(|error| {
        // A test reads the table, so this is never seen; no price at all is the safe reading.
        tracing::error!(%error, "prices.json is damaged: every price is unknown");
        Vec::new()
    })
});

/// The price of a model, or `None` where none is known.
#[must_use]
pub fn price(spec: &ModelSpec) -> Option<Price> {
    match spec.provider {
        Provider::Ollama => Some(Price {
            model: spec.model.clone(),
            as_of: "always".into(),
            source: "runs on hardware of your own".into(),
            rates: vec![Rates {
                above: 0,
                input: 0,
                cache_read: 0,
                cache_write_5m: 0,
                cache_write_1h: 0,
                output: 0,
            }],
        }),
        Provider::Compatible => None,
        Provider::Anthropic | Provider::OpenAi => {
            TABLE.iter().find(|price| is_named(&price.model, &spec.model)).cloned()
        }
    }
}

/// Whether `asked` is the model or a dated version of it (`…-20251001`, `…-2026-08-01`).
fn is_named(model: &str, asked: &str) -> bool {
    match asked.strip_prefix(model) {
        Some("") => true,
        Some(rest) => {
            let digits = rest.chars().filter(char::is_ascii_digit).count();
            rest.starts_with('-') && digits == 8 && rest.chars().all(|c| c.is_ascii_digit() || c == '-')
        }
        None => false,
    }
}

impl Price {
    /// What a call cost, or `None` where its tokens are not known. Counts of caches that a server does not send
    /// are then within its uncached input.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Option<MicroUsd> {
        if self.is_free() {
            return Some(MicroUsd(0));
        }
        let (input, output) = (usage.input_total()?, usage.output_total?);
        let rates = self.at(input);
        let parts = [
            (usage.input_uncached, rates.input),
            (usage.cache_read, rates.cache_read),
            (usage.cache_write_5m, rates.cache_write_5m),
            (usage.cache_write_1h, rates.cache_write_1h),
            (Some(output), rates.output),
        ];
        Some(total(parts.map(|(tokens, rate)| (tokens.unwrap_or(0), rate))))
    }

    /// The most that one attempt can cost: what is reserved before it is made. Prompt tokens count as written to
    /// the cache where that is dearer; an attempt that is repeated costs again.
    #[must_use]
    pub fn most(&self, prompt_tokens: u64, max_output_tokens: u64) -> MicroUsd {
        let rates = self.at(prompt_tokens);
        total([(prompt_tokens, rates.input.max(rates.cache_write_5m)), (max_output_tokens, rates.output)])
    }

    /// The most that a whole call can cost, with an answer that is cut off and asked for again with twice the
    /// room, and every further attempt that may be billed lost. What is not spent is given back when the call is
    /// settled by its own usage and its `lost`.
    #[must_use]
    pub fn reserve(&self, request: &Request) -> MicroUsd {
        let (prompt, answer) = (request.prompt_tokens_at_most(), u64::from(request.max_output_tokens));
        let again = self.most(prompt, 2 * answer).0.saturating_mul(u64::from(BILLED_ATTEMPTS - 1));
        MicroUsd(self.most(prompt, answer).0.saturating_add(again))
    }

    fn is_free(&self) -> bool {
        self.rates.iter().all(|rates| rates.input == 0 && rates.output == 0)
    }

    fn at(&self, input: u64) -> Rates {
        let fitting = self.rates.iter().filter(|rates| rates.above == 0 || input > rates.above);
        fitting.max_by_key(|rates| rates.above).copied().unwrap_or(Rates {
            above: 0,
            input: 0,
            cache_read: 0,
            cache_write_5m: 0,
            cache_write_1h: 0,
            output: 0,
        })
    }
}

fn total<const N: usize>(parts: [(u64, u64); N]) -> MicroUsd {
    let sum: u128 = parts.iter().map(|(tokens, rate)| u128::from(*tokens) * u128::from(*rate)).sum();
    MicroUsd(u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[path = "price_tests.rs"]
mod tests;
