//! No call takes long: how much is done while a shard is locked, beside copying in what came, counted in
//! units of about 100 ns, so that the same is found on every machine.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nyquist_core::proto::trace::v1::Span;
use prost::Message;

use super::support::{Id, Rig, id_of, large_span, millis, request, secs, span};

/// 5 ms.
const MOST: u64 = 50_000;

fn most_work(rig: &Rig) -> u64 {
    rig.sampler.most_work.swap(0, Ordering::Relaxed)
}

fn tiny(id: Id) -> Span {
    Span { trace_id: id.to_vec(), span_id: vec![7; 8], ..Span::default() }
}

/// Scenario: 200,000 traces of one tiny span, which is most to decide for the least memory, then requests
/// of a MiB for which there is no room. Guarantee: each call decides a bounded number, and comes to its end.
#[test]
fn making_room_is_done_in_slices() {
    for shards in [1, 4] {
        let rig = Rig::new(&format!(
            "
memory_limit_mib: 48
num_shards: {shards}
decision_cache: {{sampled_cache_size: 0, non_sampled_cache_size: 0}}
decision_log: {{size: 0}}
rules: [{{name: some, sampling_percentage: 1}}]
"
        ));
        for group in 0..200_000 / 500u64 {
            rig.insert(&request((0..500).map(|trace| tiny(id_of(group * 500 + trace))).collect()), millis(group));
        }
        assert!(most_work(&rig) < MOST);
        let mut refused = 0;
        for large in 0..60u64 {
            let spans = (0..250).map(|trace| large_span(id_of(1_000_000 + large * 250 + trace), 4000)).collect();
            let message = request(spans).encode_to_vec();
            while rig.sampler.insert(&message, secs(1)).is_err() {
                refused += 1;
                assert!(refused < 1000, "there is never room");
                assert!(rig.sampler.memory() <= 48 << 20);
                rig.take(secs(1));
            }
            let work = most_work(&rig);
            assert!(work < MOST, "{work} with {shards} shards");
            rig.take(secs(1));
        }
        let early = rig.metric("early_decisions", &[("cause", "memory")]);
        assert!(early > 4 * MOST / 10, "{early} were decided early");
    }
}

/// Scenario: half of what came in is dropped and dead between what lives, so that blocks are compacted, in
/// a buffer of tiny records. Guarantee: a call copies a block at the most.
#[test]
fn compacting_is_done_in_slices() {
    let rig = Rig::new(
        "
memory_limit_mib: 32
num_shards: 1
decision_wait: 100s
decision_wait_after_last_span: 1s
rules: [{name: none, sampling_percentage: 0}]
",
    );
    let spans = |from: u64, every: u64| (0..500).map(|trace| tiny(id_of(from + trace * every))).collect();
    for group in 0..100u64 {
        rig.insert(&request(spans(group * 500, 1)), secs(0));
    }
    // Nine of ten fall silent.
    for group in 0..10u64 {
        rig.insert(&request(spans(group * 5000, 10)), millis(900));
    }
    for step in 0..400u64 {
        for shard in 0..rig.sampler.shards() {
            while rig.sampler.decide(shard, millis(1000 + step), 256) {}
        }
    }
    let work = most_work(&rig);
    assert!((2_000..MOST).contains(&work), "{work}");
    assert!(rig.sampler.pending() <= 5000);
}

/// Scenario: forty blocks are full, then everything is dropped and nothing comes. Guarantee: their memory is
/// given back little by little, and all of it.
#[test]
fn blocks_are_given_back_in_slices() {
    let rig = Rig::new(
        "
memory_limit_mib: 256
num_shards: 1
decision_wait: 1s
rules: [{name: none, sampling_percentage: 0}]
",
    );
    for group in 0..160u64 {
        rig.insert(&request((0..60).map(|trace| large_span(id_of(group * 60 + trace), 4000)).collect()), secs(0));
    }
    let full = rig.sampler.memory();
    let mut before = full;
    for round in 0..2000u64 {
        while rig.sampler.decide(0, secs(2) + Duration::from_millis(50 * round), 256) {}
        let now = rig.sampler.memory();
        assert!(before.saturating_sub(now) <= 9 << 20, "{before} to {now} in one round");
        before = now;
    }
    let work = most_work(&rig);
    assert!(work < MOST, "{work}");
    assert!(before + (36 << 20) < full, "{before} of {full}");
}

/// Scenario: tables grow from nothing to a hundred thousand traces with all kinds of timers. Guarantee: no
/// call does more because of how many there are.
#[test]
fn growing_does_not_wait() {
    let rig = Rig::new(
        "
memory_limit_mib: 128
num_shards: 1
decision_wait_after_root_received: 20s
decision_wait_after_last_span: 20s
rules: [{name: some, sampling_percentage: 10}]
",
    );
    let mut most = 0;
    for group in 0..1000u64 {
        rig.insert(&request((0..100).map(|trace| span(id_of(group * 100 + trace))).collect()), secs(0));
        let (work, moved) = (most_work(&rig), rig.sampler.moved());
        most = most.max(work + moved);
    }
    assert_eq!(rig.sampler.pending(), 100_000);
    assert!(most < MOST / 10, "{most}");
}

/// Scenario: somebody waits for a shard in which two thousand traces are due, and then as many are to be handed on.
/// Guarantee: a call decides, and one takes, only a little before the shard is free; without anybody who waits, all.
#[test]
fn who_waits_for_a_shard_has_it_soon() {
    let rig = || {
        let rig = Rig::new(
            "
decision_wait: 1s
num_shards: 1
rules: [{name: all, sampling_percentage: 100}]
",
        );
        for group in 0..20u64 {
            rig.insert(
                &request((0..100).map(|trace| large_span(id_of(group * 100 + trace), 400)).collect()),
                millis(0),
            );
        }
        rig
    };
    let alone = rig();
    assert!(!alone.sampler.decide(0, secs(2), 5000), "all were decided");
    let all = alone.sampler.take(0, secs(2)).expect("they are kept").batch().items();

    let shared = rig();
    let waiting = shared.sampler.shards[0].wait();
    assert!(shared.sampler.decide(0, secs(2), 5000), "there are more to decide");
    while shared.sampler.decide(0, secs(2), 5000) {}
    let some = shared.sampler.take(0, secs(2)).expect("they are kept").batch().items();
    assert!(some < all, "{some} of {all} spans were taken at once while somebody waited");
    drop(waiting);
    assert_eq!(some + shared.take(secs(2)).len(), 2000, "the rest comes after");
    assert_eq!(all + alone.take(secs(2)).len(), 2000);
}
