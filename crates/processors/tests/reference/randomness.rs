//! Percentages of `rules` where ids are hashed first: with `hash_salt`, and for ids that count up.
//! Which traces are kept is not documented then, but how many, and that it is always the same ones.

use std::collections::BTreeSet;
use std::time::Duration;

use nyquist_core::proto::trace::v1::Span;
use serde_json::json;

use crate::generate::request;
use crate::random::Random;
use crate::rig::Rig;
use crate::spans::{Id, Placed};

const TRACES: u64 = 10_000;

#[test]
fn salted() {
    let ids = random_ids();
    let one = properties(&ids, "one");
    let other = properties(&ids, "another");
    let both = one.intersection(&other).count() as f64;
    near(both, TRACES as f64 / 4.0, "another salt keeps others: half of the half");
}

#[test]
fn salted_ids_do_not_depend_on_their_low_bytes() {
    let ids: Vec<Id> = random_ids().into_iter().map(|id| [&id[..9], &[0xff; 7]].concat().try_into().unwrap()).collect();
    properties(&ids, "salt");
}

#[test]
fn ids_that_count_up() {
    let ids: Vec<Id> = (1..=TRACES).map(|number| u128::from(number).to_be_bytes()).collect();
    properties(&ids, "");
}

/// Bounds, the same traces whatever the order and the shards, and fewer at a smaller percentage.
fn properties(ids: &[Id], salt: &str) -> BTreeSet<Id> {
    let half = keep(ids, salt, 50.0, 1);
    near(half.len() as f64, TRACES as f64 / 2.0, "50 %");
    let reordered: Vec<Id> = ids.iter().rev().copied().collect();
    assert_eq!(keep(&reordered, salt, 50.0, 8), half, "in another order, with 8 shards");
    let few = keep(ids, salt, 5.0, 2);
    assert!((few.len() as f64 - 500.0).abs() <= 5.0 * (500.0_f64 * 0.95).sqrt(), "{} at 5 %", few.len());
    assert!(few.is_subset(&half), "what 5 % keep, 50 % keep too");
    assert_eq!(keep(ids, salt, 100.0, 2).len(), ids.len());
    assert_eq!(keep(ids, salt, 0.0, 2).len(), 0);
    half
}

/// Within five sigma of a half or a quarter of them.
fn near(count: f64, expected: f64, what: &str) {
    let sigma = (expected * (1.0 - expected / TRACES as f64)).sqrt();
    assert!((count - expected).abs() <= 5.0 * sigma, "{what}: {count} instead of {expected}");
}

fn keep(ids: &[Id], salt: &str, percentage: f64, shards: usize) -> BTreeSet<Id> {
    let rig = Rig::new(&json!({
        "rules": [{ "name": "all", "sampling_percentage": percentage }],
        "hash_salt": salt,
        "num_shards": shards,
        "memory_limit_mib": 64,
    }));
    let spans = ids.iter().map(|id| Placed {
        span: Span { trace_id: id.to_vec(), span_id: vec![1; 8], ..Span::default() },
        ..Placed::default()
    });
    rig.insert(&request(&mut Random::new(0), spans.collect()), Duration::ZERO);
    rig.decide_all(Duration::ZERO, false);
    rig.take(Duration::ZERO).iter().map(Placed::id).collect()
}

fn random_ids() -> Vec<Id> {
    let mut random = Random::new(1);
    (0..TRACES).map(|_| random.bytes()).collect()
}
