//! When a trace is decided, and what spans do that come later. Driven by explicit times.

use nyquist_core::proto::trace::v1::Span;
use nyquist_core::telemetry::Entry;

use super::support::{
    ERRORS, EVERYTHING, Rig, T1, T2, T3, by_trace, child, config, exception, failed, id_of, large_span, millis,
    request, secs, span,
};
use crate::tail_sampling::explain::Status;

/// When the trace is decided, found by looking every 10 ms.
fn decided_at(rig: &Rig, from: u64, to: u64) -> Option<u64> {
    (from..=to).step_by(10).find(|&at| {
        rig.decide(millis(at));
        rig.sampler.pending() == 0
    })
}

#[test]
fn a_trace_is_decided_when_its_wait_is_over() {
    let rig = config(EVERYTHING, "decision_wait: 500ms");
    rig.insert(&request(vec![span(T1)]), millis(100));
    rig.insert(&request(vec![child(T1)]), millis(400));
    assert_eq!(decided_at(&rig, 0, 2000), Some(600));
    assert_eq!(rig.take(millis(600)).len(), 2);
}

#[test]
fn a_root_span_moves_the_decision_forward_and_never_back() {
    let rig = config(EVERYTHING, "decision_wait: 30s\ndecision_wait_after_root_received: 5s");
    rig.insert(&request(vec![child(T1)]), secs(0));
    rig.insert(&request(vec![span(T1)]), secs(3));
    rig.insert(&request(vec![span(T1)]), secs(4));
    assert_eq!(decided_at(&rig, 0, 40_000), Some(8000));
    assert_eq!(rig.metric("decisions", &[("policy", "all"), ("trigger", "root"), ("decision", "sampled")]), 1);

    let rig = config(EVERYTHING, "decision_wait: 5s\ndecision_wait_after_root_received: 10s");
    rig.insert(&request(vec![span(T1)]), secs(0));
    assert_eq!(decided_at(&rig, 0, 40_000), Some(5000));
}

/// Silence counts from the last span, however many came before, and never beyond the wait.
#[test]
fn a_silent_trace_is_decided() {
    let rig = config(EVERYTHING, "decision_wait: 30s\ndecision_wait_after_last_span: 2s");
    for at in [0, 1500, 2900, 4000, 4321] {
        rig.insert(&request(vec![child(T1)]), millis(at));
        rig.decide(millis(at + 100));
    }
    assert_eq!(rig.sampler.pending(), 1);
    let at = decided_at(&rig, 4500, 40_000).unwrap();
    assert!((6321..6421).contains(&at), "{at}");
    let kept = rig.take(millis(at));
    assert_eq!(kept.iter().find_map(|span| span.text("nyquist.sampling.trigger")).as_deref(), Some("idle"));
    assert_eq!(rig.metric("decisions", &[("policy", "all"), ("trigger", "idle"), ("decision", "sampled")]), 1);

    // A span every second: only the wait ends it.
    for second in 100..140 {
        rig.insert(&request(vec![child(T2)]), secs(second));
        rig.decide(secs(second));
    }
    assert_eq!(rig.metric("decisions", &[("policy", "all"), ("trigger", "wait"), ("decision", "sampled")]), 1);

    // A silence that is longer than the wait is none.
    let rig = config(EVERYTHING, "decision_wait: 5s\ndecision_wait_after_last_span: 10s");
    rig.insert(&request(vec![child(T3)]), secs(0));
    assert_eq!(decided_at(&rig, 0, 40_000), Some(5000));
}

/// Many traces with all triggers, looked at every 50 ms: each is decided at the earliest of its
/// times, to within 100 ms.
#[test]
fn each_trace_is_decided_within_100_ms_of_its_time() {
    use rand::{RngExt, SeedableRng};
    const TICK: u64 = 50;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let rig = config(
        EVERYTHING,
        "decision_wait: 10s\ndecision_wait_after_root_received: 1s\ndecision_wait_after_last_span: 3s\nnum_shards: 2",
    );
    // (time, trace, root)
    let mut events = Vec::new();
    let mut due = std::collections::BTreeMap::new();
    for number in 0..300 {
        let begin = rng.random_range(1000..20_000);
        let (mut at, mut last, mut at_most) = (begin, begin, begin + 10_000);
        loop {
            let root = rng.random_bool(0.1);
            if at >= at_most.min(last + 3000) {
                break;
            }
            events.push((at, number, root));
            last = at;
            if root {
                at_most = at_most.min(at + 1000);
            }
            at += rng.random_range(1..4000);
        }
        due.insert(id_of(number), at_most.min(last + 3000));
    }
    events.sort_unstable();
    let mut events = events.into_iter().peekable();
    for now in (0..40_000).step_by(TICK as usize) {
        rig.decide(millis(now));
        for span in rig.take(millis(now)) {
            if let Some(due) = due.remove(&span.id()) {
                assert!((due..=due + 100).contains(&now), "seed {seed}: due at {due}, decided at {now}");
            } else {
                assert!(!span.has("nyquist.sampling.late"), "seed {seed}: no span came late");
            }
        }
        while let Some((at, number, root)) = events.next_if(|(at, ..)| *at < now + TICK) {
            let id = id_of(number);
            if due.contains_key(&id) {
                rig.insert(&request(vec![if root { span(id) } else { child(id) }]), millis(at));
            }
        }
    }
    assert!(due.is_empty(), "seed {seed}");
}

#[test]
fn a_trace_is_decided_at_its_span_limit_and_the_rest_follows() {
    let rig = config(EVERYTHING, "span_limit: 3");
    rig.insert(&request(vec![child(T1), child(T1)]), secs(0));
    assert_eq!(rig.sampler.pending(), 1);
    rig.insert(&request(vec![child(T1)]), secs(1));
    assert_eq!(rig.sampler.pending(), 0);
    let kept = rig.take(secs(1));
    assert_eq!(by_trace(&kept), [(T1, 3)].into());
    assert_eq!(kept.iter().find_map(|span| span.text("nyquist.sampling.trigger")).as_deref(), Some("spans"));
    rig.insert(&request(vec![child(T1), child(T1), child(T1), child(T1)]), secs(2));
    let late = rig.take(secs(2));
    assert_eq!(by_trace(&late), [(T1, 4)].into());
    assert!(late[0].has("nyquist.sampling.late"));
    assert_eq!(rig.metric("early_decisions", &[("cause", "spans")]), 1);

    let rig = config(ERRORS, "span_limit: 2");
    rig.insert(&request(vec![child(T1), child(T1), child(T1)]), secs(0));
    rig.insert(&request(vec![failed(child(T1))]), secs(1));
    assert_eq!(rig.finish(secs(9)).len(), 0);
    assert_eq!(rig.ledger.count(Entry::SampledOut), 4);
}

/// Case 99 of the map of the Collector's behaviour, and what we offer instead.
#[test]
fn a_late_error_brings_its_trace_back_if_wanted() {
    for error in [failed(child(T1)), Span { events: vec![exception()], ..child(T1) }] {
        let rig = config(ERRORS, "decision_wait: 1s\nlate_errors: keep");
        rig.insert(&request(vec![span(T1)]), secs(0));
        rig.decide(secs(1));
        rig.insert(&request(vec![child(T1)]), secs(9));
        assert_eq!(rig.take(secs(9)).len(), 0);
        rig.insert(&request(vec![error]), secs(10));
        let kept = rig.take(secs(10));
        assert_eq!(by_trace(&kept), [(T1, 1)].into());
        assert!(kept[0].has("nyquist.sampling.late") && kept[0].has("nyquist.sampling.incomplete"));
        // From then on everything.
        rig.insert(&request(vec![child(T1), child(T1)]), secs(11));
        let more = rig.take(secs(11));
        assert_eq!(by_trace(&more), [(T1, 2)].into());
        assert!(more.iter().any(|span| span.has("nyquist.sampling.incomplete")));
        assert_eq!(rig.metric("late_errors_kept", &[]), 1);
        let told = rig.sampler.explain(&T1, secs(11));
        assert!(told.late_error && told.status == Status::Kept && !told.decisions[0].kept);
        assert_eq!(rig.ledger.count(Entry::SampledOut), 2);
        assert_eq!(rig.ledger.held_count(), 0);
    }
    let rig = config(ERRORS, "decision_wait: 1s");
    rig.insert(&request(vec![span(T1)]), secs(0));
    rig.decide(secs(1));
    rig.insert(&request(vec![failed(child(T1))]), secs(10));
    assert_eq!(rig.finish(secs(10)).len(), 0);
}

/// Timers of traces that were decided otherwise do not hold up those that are due, and cost a bounded
/// number of looks a call.
#[test]
fn stale_timers_are_passed_over() {
    let rig = config(EVERYTHING, "num_shards: 1\ndecision_wait: 30s\ndecision_wait_after_last_span: 1s");
    for number in 0..5000 {
        rig.insert(&request(vec![large_span(id_of(number), 10)]), millis(0));
    }
    let mut calls = 1;
    while rig.sampler.decide(0, secs(2), 100) {
        calls += 1;
    }
    assert_eq!(rig.sampler.pending(), 0);
    assert!((50..=60).contains(&calls), "{calls}");
    rig.insert(&request(vec![span(T1)]), secs(30));
    let mut calls = 1;
    while rig.sampler.decide(0, secs(31), 100) {
        calls += 1;
    }
    assert_eq!(rig.sampler.pending(), 0);
    assert!(calls < 20, "{calls}");
}

/// Times that no clock shows: an end before the start by more than 63 bits hold is still no long time, and one
/// after it by as much is one.
#[test]
fn wrapped_times_are_no_long_times() {
    use nyquist_core::proto::trace::v1::Span;
    for of in ["trace", "span", "root"] {
        let rig = Rig::new(&format!(
            "{{memory_limit_mib: 64, rules: [{{name: slow, sampling_percentage: 100, when: {{latency: {{of: {of}, threshold: 1s}}}}}}]}}"
        ));
        let times = [(u64::MAX, 1, false), (u64::MAX - 1, 5_000_000_000, false), (2, 1, false), (1, u64::MAX, true)];
        for (number, (start, end, _)) in (0..).zip(times) {
            let one = Span { start_time_unix_nano: start, end_time_unix_nano: end, ..span(id_of(number)) };
            rig.insert(&request(vec![one]), millis(0));
        }
        let kept = rig.finish(millis(1));
        assert_eq!(kept.len(), times.iter().filter(|(.., is_long)| *is_long).count(), "{of}");
    }
}
