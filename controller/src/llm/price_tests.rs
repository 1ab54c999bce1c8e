use super::*;

fn of(spec: &str) -> Option<Price> {
    price(&spec.parse().expect("a model"))
}

fn usage(input: u64, cached: u64, output: u64) -> Usage {
    Usage {
        input_uncached: Some(input),
        cache_read: Some(cached),
        output_total: Some(output),
        ..Usage::UNKNOWN
    }
}

#[test]
fn the_table_is_whole_and_each_price_says_where_it_is_from() {
    let table: Vec<Price> = serde_json::from_str(include_str!("prices.json")).expect("the table");
    assert!(table.len() > 15);
    for price in &table {
        assert!(!price.source.is_empty() && price.as_of.parse::<jiff::civil::Date>().is_ok(), "{price:?}");
        assert!(price.rates.iter().filter(|rates| rates.above == 0).count() == 1, "{price:?}");
        assert!(price.rates.iter().all(|rates| rates.cache_read < rates.input && rates.input < rates.output));
        assert_eq!(table.iter().filter(|other| other.model == price.model).count(), 1, "{}", price.model);
    }
}

#[test]
fn unknown_is_none_and_local_is_nothing() {
    assert_eq!(of("openai:gpt-6.2-astra"), None);
    assert_eq!(of("anthropic:claude-fable-5-2"), None);
    assert_eq!(of("compatible:gpt-6.2-sol"), None);
    assert_eq!(of("ollama:qwen3:8b").and_then(|price| price.cost(&Usage::UNKNOWN)), Some(MicroUsd(0)));
    assert_eq!(of("openai:gpt-6.2-sol").and_then(|price| price.cost(&Usage::UNKNOWN)), None);
}

#[test]
fn dated_names_are_the_same_model_and_longer_names_are_not() {
    assert!(of("anthropic:claude-haiku-4-5-20251001").is_some());
    assert!(of("openai:gpt-5.6-luna-2026-08-01").is_some());
    assert!(of("anthropic:claude-sonnet-5-6").is_none());
    assert_eq!(of("anthropic:claude-opus-5-5").map(|price| price.model), Some("claude-opus-5-5".into()));
}

#[test]
fn cost_is_exact_to_the_last_digit_and_rounded_up_once() {
    let sonnet = of("anthropic:claude-sonnet-5-5").expect("a price");
    // 176 × $2 + 1,024 × $0.10 + 240 × $10, per million: 352 + 102.4 + 2,400 µ$.
    assert_eq!(sonnet.cost(&usage(176, 1024, 240)), Some(MicroUsd(2855)));
    let sol = of("openai:gpt-6.2-sol").expect("a price");
    assert_eq!(sol.cost(&usage(176, 1024, 240)), Some(MicroUsd(2855)), "the same call, the same price");
    assert_eq!(MicroUsd(2855).to_string(), "$0.0029");
    assert_eq!(MicroUsd(12_345_678).to_string(), "$12.3457");
}

#[test]
fn a_long_prompt_is_dearer_as_a_whole_from_the_first_token_over() {
    let sol = of("openai:gpt-6.2-sol").expect("a price");
    assert_eq!(sol.cost(&usage(272_000, 0, 1000)), Some(MicroUsd(554_000)));
    assert_eq!(sol.cost(&usage(272_001, 0, 1000)), Some(MicroUsd(1_103_004)));
    assert_eq!(
        sol.cost(&usage(1, 272_000, 0)),
        Some(MicroUsd(54_404)),
        "what caches held counts for the size"
    );
    let haiku = of("anthropic:claude-haiku-5-5").expect("a price");
    assert_eq!(haiku.cost(&usage(100_000, 0, 0)), Some(MicroUsd(10_000)));
    assert_eq!(haiku.cost(&usage(100_001, 0, 0)), Some(MicroUsd(50_001)));
}

#[test]
fn the_most_is_never_less_than_the_cost() {
    for spec in ["anthropic:claude-sonnet-5-5", "openai:gpt-6.2-sol", "anthropic:claude-haiku-5-5"] {
        let price = of(spec).expect("a price");
        for prompt in [0, 1000, 100_001, 272_001] {
            let written = Usage { input_uncached: Some(0), cache_write_5m: Some(prompt), ..usage(0, 0, 500) };
            for spent in [usage(prompt, 0, 500), usage(0, prompt, 500), written] {
                assert!(price.cost(&spent).expect("known") <= price.most(prompt, 500), "{spec} {prompt}");
            }
        }
    }
}
