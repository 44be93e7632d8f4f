//! `policies`, as the Collector's documentation and our README describe them.

use nyquist_core::proto::common::v1::KeyValue;
use nyquist_core::proto::common::v1::any_value::Value;
use serde_json::{Map, Value as Json, json};

use std::collections::BTreeSet;

use crate::conditions::{finds, status_name, threshold};
use crate::probability::{Change, given_randomness};
use crate::spans::{Id, Placed, first_value, trace_duration};

#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) policy: Policy,
}

#[derive(Debug, Clone)]
pub(crate) enum Policy {
    AlwaysSample,
    Latency {
        threshold_ms: i64,
        upper_threshold_ms: i64,
    },
    Numeric {
        key: String,
        min: i64,
        max: i64,
        invert: bool,
    },
    Probabilistic {
        percentage: f64,
        salt: String,
    },
    StatusCode(Vec<i32>),
    Text {
        key: String,
        values: Vec<String>,
        regex: bool,
        invert: bool,
    },
    TraceState {
        key: String,
        values: Vec<String>,
    },
    TraceFlags,
    SpanCount {
        min: i32,
        max: i32,
    },
    Boolean {
        key: String,
        value: bool,
        invert: bool,
    },
    And(Vec<Named>),
    Not(Box<Named>),
    /// At the top only: whom all of these match is dropped.
    Drop(Vec<Named>),
}

#[derive(Debug, PartialEq)]
pub(crate) enum Decision {
    /// By one of these policies, in their order.
    Sampled(Vec<String>),
    NotSampled,
    Dropped,
}

/// A trace that is decided.
#[derive(Clone, Copy)]
pub(crate) struct Trace<'a> {
    pub(crate) id: Id,
    pub(crate) spans: &'a [Placed],
    /// `use_tracestate`
    pub(crate) by_trace_state: bool,
}

/// The votes of all policies, combined.
pub(crate) fn decide(policies: &[Named], trace: Trace<'_>) -> Decision {
    let dropped = policies.iter().any(|named| match &named.policy {
        Policy::Drop(parts) => parts.iter().all(|part| part.policy.samples(trace)),
        _ => false,
    });
    if dropped {
        return Decision::Dropped;
    }
    let votes = policies
        .iter()
        .filter(|named| !matches!(named.policy, Policy::Drop(_)) && named.policy.samples(trace))
        .map(|named| named.name.clone());
    match votes.collect::<Vec<_>>() {
        votes if votes.is_empty() => Decision::NotSampled,
        votes => Decision::Sampled(votes),
    }
}

/// Which part of traces a policy keeps.
struct Share {
    /// The randomness that a trace has to have, if that is all that is to it.
    threshold: u64,
    /// Whose hashes it goes by where nothing is given.
    salts: BTreeSet<String>,
    is_known: bool,
}

/// `use_tracestate`: of those that sample a trace the first with the largest rate, which names it, and what becomes of the
/// thresholds of its spans.
pub(crate) fn most_generous(policies: &[Named], voters: &[String], first_match: bool) -> (String, Change) {
    let shares: Vec<(&Named, Share)> = policies.iter().map(|named| (named, named.policy.share())).collect();
    let is_drop = |named: &Named| matches!(named.policy, Policy::Drop(_));
    let (drops, others): (Vec<_>, Vec<_>) = shares.iter().partition(|(named, _)| is_drop(named));
    let rated: Vec<_> = others.iter().filter(|(_, share)| share.threshold > 0).collect();
    let salts: BTreeSet<&String> = rated.iter().flat_map(|(_, share)| &share.salts).collect();

    let (named, share) = others
        .iter()
        .filter(|(named, _)| voters.contains(&named.name))
        .min_by_key(|(_, share)| share.threshold)
        .expect("somebody has voted");
    let is_last = others.last().is_some_and(|(last, _)| last.name == named.name);
    let some_are_dropped = drops.iter().any(|(_, share)| share.threshold > 0 || !share.is_known);
    let another_chance = others.iter().any(|(_, share)| !share.is_known) || rated.len() > 1 && salts.len() > 1;
    let doubtful = another_chance || first_match && !is_last;
    let change = match share.threshold {
        _ if !share.is_known || some_are_dropped => Change::Erase,
        0 => Change::Stay,
        _ if doubtful => Change::Erase,
        threshold => Change::Stricter(threshold),
    };
    (named.name.clone(), change)
}

impl Policy {
    fn share(&self) -> Share {
        match self {
            Self::Probabilistic { percentage, salt } => {
                let threshold = threshold(*percentage);
                let salts = if threshold > 0 { [salt.clone()].into() } else { BTreeSet::new() };
                Share { threshold, salts, is_known: true }
            }
            Self::And(parts) | Self::Drop(parts) => {
                let shares: Vec<Share> = parts.iter().map(|part| part.policy.share()).collect();
                let salts: BTreeSet<String> = shares.iter().flat_map(|share| share.salts.clone()).collect();
                Share {
                    threshold: shares.iter().map(|share| share.threshold).max().unwrap_or(0),
                    is_known: shares.iter().all(|share| share.is_known) && salts.len() < 2,
                    salts,
                }
            }
            Self::Not(part) => {
                let share = part.policy.share();
                let is_known = share.is_known && share.threshold == 0;
                Share { threshold: 0, salts: BTreeSet::new(), is_known }
            }
            _ => Share { threshold: 0, salts: BTreeSet::new(), is_known: true },
        }
    }

    /// What it may say that it keeps, in percent: of several rates in one the smallest.
    pub(crate) fn rates(&self) -> Vec<f64> {
        match self {
            Self::Probabilistic { percentage, .. } => vec![*percentage],
            Self::And(parts) => {
                let least = parts.iter().flat_map(|part| part.policy.rates()).fold(100.0, f64::min);
                vec![least]
            }
            _ => vec![100.0],
        }
    }

    fn samples(&self, trace: Trace<'_>) -> bool {
        let Trace { id, spans, by_trace_state } = trace;
        match self {
            Self::AlwaysSample => true,
            Self::Latency { threshold_ms, upper_threshold_ms } => {
                trace_duration(spans).map(|duration| duration / 1_000_000).is_some_and(|whole_ms| {
                    whole_ms > i128::from(*threshold_ms)
                        && (*upper_threshold_ms == 0 || whole_ms <= i128::from(*upper_threshold_ms))
                })
            }
            Self::Numeric { key, min, max, invert } => {
                let in_range = |attributes: &[KeyValue]| match first_value(attributes, key) {
                    Some(Value::IntValue(number)) => (*min == 0 || number >= min) && (*max == 0 || number <= max),
                    _ => false,
                };
                any_attributes(spans, in_range) != *invert
            }
            Self::Text { key, values, regex, invert } => {
                let matches = |attributes: &[KeyValue], may_be_empty: bool| match first_value(attributes, key) {
                    Some(Value::StringValue(text)) if text.is_empty() && !may_be_empty => false,
                    Some(Value::StringValue(text)) if *regex => values.iter().any(|value| finds(value, text)),
                    Some(Value::StringValue(text)) => values.iter().any(|value| !value.is_empty() && value == text),
                    _ => false,
                };
                // The Collector skips empty texts of spans, not those of resources.
                let of_any =
                    |span: &Placed| matches(span.resource_attributes(), true) || matches(&span.span.attributes, false);
                spans.iter().any(of_any) != *invert
            }
            Self::Boolean { key, value, invert } => {
                let matches = |attributes: &[KeyValue]| first_value(attributes, key) == Some(&Value::BoolValue(*value));
                any_attributes(spans, matches) != *invert
            }
            Self::Probabilistic { percentage, salt } => {
                if let Some(randomness) = given_randomness(spans, id).filter(|_| by_trace_state) {
                    return randomness >= threshold(*percentage);
                }
                let salt = if salt.is_empty() { "default-hash-seed" } else { salt };
                fnv_1a_64(salt.as_bytes(), &id) <= share_of_u64(*percentage)
            }
            Self::StatusCode(codes) => spans.iter().any(|span| codes.contains(&span.status())),
            Self::TraceState { key, values } => spans.iter().any(|span| {
                trace_state(&span.span.trace_state).is_some_and(|entries| {
                    entries.iter().any(|(entry, value)| {
                        entry == key && !value.is_empty() && key.len() + value.len() < 256 && values.contains(value)
                    })
                })
            }),
            Self::TraceFlags => spans.iter().any(|span| span.span.flags & 1 == 1),
            Self::SpanCount { min, max } => {
                let count = spans.len() as i64;
                count >= i64::from(*min) && (*max == 0 || count <= i64::from(*max))
            }
            Self::And(parts) => parts.iter().all(|part| part.policy.samples(trace)),
            Self::Not(part) => !part.policy.samples(trace),
            Self::Drop(_) => panic!("drop stands at the top only"),
        }
    }
}

/// Do the attributes of a resource or a span meet this.
fn any_attributes(spans: &[Placed], meets: impl Fn(&[KeyValue]) -> bool) -> bool {
    spans.iter().any(|span| meets(span.resource_attributes()) || meets(&span.span.attributes))
}

pub(crate) fn fnv_1a_64(salt: &[u8], id: &[u8]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in salt.iter().chain(id) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

/// The largest hash that a percentage samples.
pub(crate) fn share_of_u64(percentage: f64) -> u64 {
    // A fraction of 53 bits: its product with 64 bits fits.
    let scaled = (percentage.min(100.0) / 100.0 * (1_u64 << 53) as f64) as u128;
    ((scaled * u128::from(u64::MAX)) >> 53) as u64
}

/// The entries of a W3C `tracestate`; none if it is not valid.
pub(crate) fn trace_state(text: &str) -> Option<Vec<(String, String)>> {
    let mut entries: Vec<(String, String)> = Vec::new();
    for member in text.split(',').filter(|member| !member.is_empty()) {
        let (key, value) = member.split_once('=')?;
        let key = key.trim_start_matches([' ', '\t']);
        let value = value.trim_end_matches([' ', '\t']);
        let first = key.chars().next()?;
        let key_is_valid = (first.is_ascii_lowercase() || first.is_ascii_digit())
            && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-*/@".contains(c));
        let value_is_valid = !value.is_empty() && value.chars().all(|c| (' '..='~').contains(&c) && c != '=');
        if !key_is_valid || !value_is_valid || entries.iter().any(|(other, _)| other == key) {
            return None;
        }
        entries.push((key.to_owned(), value.to_owned()));
    }
    Some(entries)
}

impl Named {
    /// The policy in YAML: a name, a type, and a block of that name if it has one.
    pub(crate) fn json(&self) -> Json {
        let list = |parts: &[Self]| parts.iter().map(Self::json).collect::<Json>();
        let (kind, block) = match &self.policy {
            Policy::AlwaysSample => ("always_sample", json!(null)),
            Policy::TraceFlags => ("trace_flags", json!(null)),
            Policy::Latency { threshold_ms, upper_threshold_ms } => {
                ("latency", json!({ "threshold_ms": threshold_ms, "upper_threshold_ms": upper_threshold_ms }))
            }
            Policy::Numeric { key, min, max, invert } => {
                ("numeric_attribute", json!({ "key": key, "min_value": min, "max_value": max, "invert_match": invert }))
            }
            Policy::Probabilistic { percentage, salt } => {
                ("probabilistic", json!({ "sampling_percentage": percentage, "hash_salt": salt }))
            }
            Policy::StatusCode(codes) => {
                let names: Json = codes.iter().map(|&code| status_name(code)).collect();
                ("status_code", json!({ "status_codes": names }))
            }
            Policy::Text { key, values, regex, invert } => (
                "string_attribute",
                json!({ "key": key, "values": values, "enabled_regex_matching": regex, "invert_match": invert }),
            ),
            Policy::TraceState { key, values } => ("trace_state", json!({ "key": key, "values": values })),
            Policy::SpanCount { min, max } => ("span_count", json!({ "min_spans": min, "max_spans": max })),
            Policy::Boolean { key, value, invert } => {
                ("boolean_attribute", json!({ "key": key, "value": value, "invert_match": invert }))
            }
            Policy::And(parts) => ("and", json!({ "and_sub_policy": list(parts) })),
            Policy::Not(part) => ("not", json!({ "not_sub_policy": part.json() })),
            Policy::Drop(parts) => ("drop", json!({ "drop_sub_policy": list(parts) })),
        };
        let mut policy = Map::new();
        policy.insert("name".to_owned(), json!(self.name));
        policy.insert("type".to_owned(), json!(kind));
        if !block.is_null() {
            policy.insert(kind.to_owned(), block);
        }
        Json::Object(policy)
    }
}

/// The table's ids and hashes (an independent computation of the Collector's algorithm).
#[test]
fn the_hash_is_the_collectors() {
    let id = |hex: &str| -> Vec<u8> { hex::decode(hex).unwrap() };
    let t3 = id("4bf92f3577b34da6a3ce929d0e0e4736");
    let t6 = id("7bba9f33312b3dbb8b2c2c62bb7abe2d");
    assert_eq!(fnv_1a_64(b"default-hash-seed", &t3), 0xa545_33ba_2e49_70b5);
    assert_eq!(fnv_1a_64(b"default-hash-seed", &t6), 0x916c_9940_2448_3ea3);
    assert_eq!(fnv_1a_64(b"salt-a", &t3), 0x51df_62e0_739d_7a7f);
    assert_eq!(share_of_u64(50.0), 0x7fff_ffff_ffff_ffff);
    assert_eq!(share_of_u64(100.0), u64::MAX);
    assert_eq!(share_of_u64(10.0) >> 16, 0x1999_9999_9999);
}
