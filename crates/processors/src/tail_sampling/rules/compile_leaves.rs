//! The Collector's policies that ask something of a trace themselves, and no other policy.

use std::sync::Arc;

use regex::bytes::RegexSet;

use super::compile::{Builder, Place};
use super::compile_policies::Compiled;
use super::doubts::Coin;
use super::expr::Expr;
use super::limits::Bucket;
use super::matchers::{TextMatcher, ValueMatcher};
use super::plan::Places;
use super::random::{Fnv, fnv_threshold, rejection_threshold};
use super::sieves::Sieve;
use crate::tail_sampling::config::{PolicyConfig, StringAttributeConfig};

/// Of hashes, where the configuration names none.
const DEFAULT_SALT: &str = "default-hash-seed";

pub(super) fn leaf(policy: &PolicyConfig, block: &Place, builder: &mut Builder<'_>) -> Option<Compiled> {
    const SPAN_OR_RESOURCE: Places = Places::SPAN.and(Places::RESOURCE);
    let expr = match policy.kind.as_str() {
        "always_sample" => Expr::Const(true),
        "trace_flags" => builder.sampled_flag(),
        "latency" => {
            let config = policy.latency?;
            let up_to = (config.upper_threshold_ms != 0).then_some(config.upper_threshold_ms);
            if up_to.is_some_and(|up_to| up_to <= config.threshold_ms) {
                builder.error(&block.key("upper_threshold_ms"), "not above threshold_ms, so no trace would match");
            }
            match up_to {
                Some(up_to) if builder.compat => builder.prefix_latency(config.threshold_ms, up_to),
                _ => Expr::Latency { unit_nanos: 1_000_000, above: config.threshold_ms, up_to },
            }
        }
        "numeric_attribute" => {
            let config = policy.numeric_attribute.as_ref()?;
            required_key(&config.key, block, builder);
            if config.min_value == 0 && config.max_value == 0 {
                builder.error(block, "min_value or max_value is required; 0 means no bound");
            }
            let min = if config.min_value == 0 { i64::MIN } else { config.min_value };
            let max = if config.max_value == 0 { i64::MAX } else { config.max_value };
            if min > max {
                builder.error(&block.key("max_value"), "less than min_value, so no trace would match");
            }
            let identity = format!("int {min} {max}");
            let matcher = match builder.compat {
                true => ValueMatcher::IntOrZeroRange(min, max),
                false => ValueMatcher::IntRange(min, max),
            };
            inverted_if(builder.attribute(&config.key, SPAN_OR_RESOURCE, matcher, &identity), config.invert_match)
        }
        "string_attribute" => {
            let config = policy.string_attribute.as_ref()?;
            required_key(&config.key, block, builder);
            let identity = format!("text {} {:?}", config.enabled_regex_matching, config.values);
            let text = text_matcher(config, block, builder)?;
            let reads_empty = builder.compat && config.enabled_regex_matching && text.matches(b"");
            let mut expr =
                builder.attribute(&config.key, SPAN_OR_RESOURCE, ValueMatcher::NonEmptyText(text), &identity);
            if reads_empty {
                let of_resource =
                    builder.attribute(&config.key, Places::RESOURCE, ValueMatcher::EmptyText, "empty or no text");
                expr = Expr::Any(vec![expr, of_resource]);
            }
            inverted_if(expr, config.invert_match)
        }
        "boolean_attribute" => {
            let config = policy.boolean_attribute.as_ref()?;
            required_key(&config.key, block, builder);
            let matcher = match builder.compat {
                true => ValueMatcher::BoolOrFalse(config.value),
                false => ValueMatcher::Bool(config.value),
            };
            let identity = format!("bool {}", config.value);
            inverted_if(builder.attribute(&config.key, SPAN_OR_RESOURCE, matcher, &identity), config.invert_match)
        }
        "status_code" => status_code(&policy.status_code.as_ref()?.status_codes, block, builder)?,
        "span_count" => {
            let config = policy.span_count?;
            let min = u64::try_from(config.min_spans).unwrap_or(0);
            let max = u64::try_from(config.max_spans).ok().filter(|&max| max > 0).unwrap_or(u64::MAX);
            if min > max {
                builder.error(&block.key("max_spans"), "less than min_spans, so no trace would match");
            }
            Expr::SpanCount { min, max }
        }
        "trace_state" => {
            let config = policy.trace_state.as_ref()?;
            required_key(&config.key, block, builder);
            // The Collector ignores these too.
            let possible = |value: &&String| !value.is_empty() && config.key.len() + value.len() < 256;
            let values: Vec<String> = config.values.iter().filter(possible).cloned().collect();
            let identity = format!("{values:?}");
            builder.trace_state(&config.key, TextMatcher::exact(values), &identity)
        }
        "probabilistic" => {
            let config = policy.probabilistic.as_ref()?;
            if !config.sampling_percentage.is_finite() {
                builder.error(&block.key("sampling_percentage"), "not a number between 0 and 100");
            }
            let salt = if config.hash_salt.is_empty() { DEFAULT_SALT } else { &config.hash_salt };
            let threshold = fnv_threshold(config.sampling_percentage);
            let (salt, rejected) = (Fnv::of(salt.as_bytes()), rejection_threshold(config.sampling_percentage));
            let expr = match builder.use_trace_state {
                true => Expr::Consistent { salt, threshold, rejected },
                false => Expr::Probabilistic { salt, threshold },
            };
            let coins = (rejected > 0).then_some(Coin::Hash(salt.value())).into_iter().collect();
            return Some(Compiled { expr, threshold: rejected, known: true, is_leveled: false, coins });
        }
        "rate_limiting" => {
            let config = policy.rate_limiting?;
            match limit(config.spans_per_second, config.burst_capacity, block, builder) {
                Limit::Bucket(bucket) => Expr::SpanRate(bucket),
                Limit::Sieve(sieve) => Expr::SpanSieve(sieve),
            }
        }
        "bytes_limiting" => {
            let config = policy.bytes_limiting?;
            builder.plan.sizes = true;
            match limit(config.bytes_per_second, config.burst_capacity, block, builder) {
                Limit::Bucket(bucket) => Expr::ByteRate(bucket),
                Limit::Sieve(sieve) => Expr::ByteSieve(sieve),
            }
        }
        "ottl_condition" => builder.ottl(policy.ottl_condition.as_ref()?, &policy.name, block)?,
        _ => return None,
    };
    Some(expr.into())
}

fn required_key(key: &str, block: &Place, builder: &mut Builder<'_>) {
    if key.is_empty() {
        builder.error(&block.key("key"), "the name of an attribute is required");
    }
}

fn inverted_if(expr: Expr, invert: bool) -> Expr {
    if invert { Expr::Not(Box::new(expr)) } else { expr }
}

fn text_matcher(config: &StringAttributeConfig, block: &Place, builder: &mut Builder<'_>) -> Option<TextMatcher> {
    let values = config.values.iter().filter(|value| !value.is_empty());
    if !config.enabled_regex_matching {
        return Some(TextMatcher::exact(values.cloned()));
    }
    match RegexSet::new(values) {
        Ok(set) => Some(TextMatcher::Regexes(set)),
        Err(error) => {
            builder.error(&block.key("values"), format!("invalid regular expression: {error}"));
            None
        }
    }
}

fn status_code(codes: &[String], block: &Place, builder: &mut Builder<'_>) -> Option<Expr> {
    let place = block.key("status_codes");
    if codes.is_empty() {
        builder.error(&place, "at least one of OK, ERROR, UNSET is required");
        return None;
    }
    let mut parts = Vec::new();
    for (index, code) in codes.iter().enumerate() {
        match ["UNSET", "OK", "ERROR"].iter().position(|known| known == code) {
            Some(number) => parts.push(builder.status(number)),
            None => builder.error(&place.index(index), format!("unknown status {code:?}: write OK, ERROR or UNSET")),
        }
    }
    Some(Expr::Any(parts))
}

/// A limit, with or without heed to randomness.
enum Limit {
    Bucket(Arc<Bucket>),
    Sieve(Arc<Sieve>),
}

fn limit(rate: i64, burst: i64, block: &Place, builder: &mut Builder<'_>) -> Limit {
    if rate < 0 {
        builder.error(block, "the rate is negative: no trace would ever pass");
    }
    let rate = u64::try_from(rate).unwrap_or(0);
    let burst = u64::try_from(burst).ok().filter(|&burst| burst > 0).unwrap_or(rate.saturating_mul(2));
    // What keeps nothing, or no more than once, stands for nothing.
    if builder.use_trace_state && rate > 0 {
        Limit::Sieve(Arc::new(Sieve::new(rate, burst)))
    } else {
        Limit::Bucket(Arc::new(Bucket::new(rate, burst)))
    }
}
