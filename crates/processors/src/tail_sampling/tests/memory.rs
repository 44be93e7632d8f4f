//! Memory: what is held over what came in, and the budget, which is kept whatever comes.

use nyquist_core::batch::DropReason;
use nyquist_core::proto::trace::v1::{Span, TracesData};
use nyquist_core::telemetry::Entry;
use prost::Message;

use super::support::{
    Id, Rig, attribute, by_trace, child, id_of, large_span, millis, request, resource, resource_spans, secs, span, text,
};

/// A sampler with `traces` traces of `spans` spans of 410 bytes, sent span by span so that none stand
/// together, each trace with a root, and all kinds of timers set; and how many bytes came.
fn filled(traces: u64, spans: u64) -> (Rig, usize) {
    filled_with(traces, spans, "rules: [{name: some, sampling_percentage: 10}]", "")
}

/// The same by other rules, with this `tracestate` on each span.
fn filled_with(traces: u64, spans: u64, rules: &str, trace_state: &str) -> (Rig, usize) {
    // A fiftieth of the default, as the traces are of those that the README speaks of.
    let rig = Rig::new(&format!(
        "
memory_limit_mib: 256
num_shards: 1
decision_wait_after_root_received: 20s
decision_wait_after_last_span: 20s
decision_cache: {{sampled_cache_size: 1311, non_sampled_cache_size: 10486}}
{rules}
"
    ));
    // The span has 410 bytes with it.
    let filling = 336 - trace_state.len();
    let span_of = |id| Span { trace_state: trace_state.to_owned(), ..large_span(id, filling) };
    let mut wire = 0;
    for group in 0..traces / 100 {
        let ids: Vec<Id> = (0..100).map(|trace| id_of(group * 100 + trace)).collect();
        for _ in 0..spans {
            let message = request(ids.iter().map(|&id| span_of(id)).collect()).encode_to_vec();
            wire += message.len();
            rig.sampler.insert(&message, secs(0)).unwrap();
        }
    }
    assert_eq!(rig.sampler.pending() as u64, traces);
    let each = wire as f64 / (traces * spans) as f64;
    assert!((405.0..415.0).contains(&each), "{each} bytes a span");
    (rig, wire)
}

/// As 10 million spans would, scaled down: within 1.2 of the wire bytes, with tables, timers of all kinds
/// and past decisions. (`examples/tail_sampling_memory.rs` holds the 10 million.)
#[test]
fn memory_stays_near_the_wire_size() {
    let (rig, wire) = filled(20_000, 10);
    let ratio = rig.sampler.memory() as f64 / wire as f64;
    println!("{ratio:.3} x wire");
    assert!(ratio > 1.0, "{ratio}");
    assert!(ratio < 1.2, "{ratio}");
}

/// A trace costs at most 160 bytes beside its records: its slot, its place in the index and its timers
/// of all three kinds, however many there are. (A record costs 16 bytes and up to 7 that fill it.)
#[test]
fn a_trace_costs_at_most_160_bytes() {
    for traces in [20_000, 23_000, 26_500, 30_500, 35_000] {
        let (rig, wire) = filled(traces, 1);
        let overhead = rig.sampler.table_memory() as f64 / traces as f64;
        let ratio = rig.sampler.memory() as f64 / wire as f64;
        println!("{traces} traces of one span: {overhead:.1} bytes a trace, {ratio:.3} x wire");
        assert!(overhead > 112.0, "{overhead}");
        assert!(overhead <= 160.0, "{overhead}");
    }
}

/// What few configurations and traces need beside that: 16 bytes for what `tracestate` says or a rule only tries, and with
/// adaptive percentages 64 more for every seven distinct values.
#[test]
fn what_few_traces_need_beside_costs_what_the_readme_says() {
    const TRACES: u64 = 25_600;
    let overhead = |rules: &str, trace_state: &str| {
        let (rig, _) = filled_with(TRACES, 1, rules, trace_state);
        rig.sampler.table_memory() as f64 / TRACES as f64
    };
    let some = "rules: [{name: some, sampling_percentage: 10}]";
    let plain = overhead(some, "");
    let tries = "rules: [{name: t, dry_run: true, sampling_percentage: 1, when: {error: true}}, {name: s, sampling_percentage: 10}]";
    let adaptive = "rules: [{name: a, adaptive: {goal_percentage: 5, keys: [service.name, span_name, filling, none]}}]";
    for (rules, trace_state, most) in
        [(some, "v=1", 0.0), (some, "ot=rv:0123456789abcd", 16.0), (tries, "", 16.0), (adaptive, "", 80.0)]
    {
        let more = overhead(rules, trace_state) - plain;
        println!("{more:.2} bytes more: {rules} {trace_state}");
        // Shards hash ids by keys of their own, so the index is not the same each time.
        assert!((most - 4.0..=most + 4.0).contains(&more), "{more} {rules} {trace_state}");
    }
}

/// The budget is kept (the rig sees to that), nothing is lost, and small traces go on as if the endless one
/// were not there.
#[test]
fn an_endless_trace_does_not_take_the_buffer() {
    let endless: Id = [0xee; 16];
    // With and without its own limit; kept and not.
    for (limit, percentage) in [("", 100), ("maximum_trace_size_bytes: 0", 100), ("maximum_trace_size_bytes: 0", 0)] {
        let rig = Rig::new(&format!(
            "
memory_limit_mib: 8
num_shards: 2
decision_wait: 1s
{limit}
rules: [{{name: all, sampling_percentage: {percentage}}}]
"
        ));
        let (mut sent, mut kept) = (0, 0);
        for number in 0..4000u64 {
            let now = millis(number);
            let mut spans: Vec<Span> = (0..3).map(|_| large_span(endless, 2000)).collect();
            spans.push(large_span(id_of(number), 300));
            sent += spans.len();
            rig.insert(&request(spans), now);
            rig.decide(now);
            if number % 10 == 0 {
                kept += rig.take(now).len();
            }
        }
        let early = |cause: &str| rig.metric("early_decisions", &[("cause", cause)]);
        assert!(early("size") + early("memory") >= 1, "the endless trace was decided");
        let waited = rig.metric(
            "decisions",
            &[
                ("policy", "all"),
                ("trigger", "wait"),
                ("decision", if percentage == 100 { "sampled" } else { "not_sampled" }),
            ],
        );
        println!("{waited} small traces had their time, {} were decided early", early("memory"));
        // Without a limit some go early once, until the giant's memory is free.
        let expected = if limit.is_empty() { 2999 } else { 2500 };
        assert!(waited >= expected, "{waited} small traces had their time");
        kept += rig.finish(secs(100)).len();
        assert_eq!(kept as u64 + rig.ledger.count(Entry::SampledOut), sent as u64);
        assert_eq!(rig.ledger.held_count(), 0);
    }
}

/// Under pressure a giant goes before the small ones, although they are older.
#[test]
fn one_giant_is_decided_before_a_thousand_small_traces() {
    let rig = Rig::new(
        "
memory_limit_mib: 8
num_shards: 1
maximum_trace_size_bytes: 0
decision_cache: {sampled_cache_size: 0, non_sampled_cache_size: 0}
rules: [{name: none, sampling_percentage: 0}]
",
    );
    for number in 0..1000 {
        rig.insert(&request(vec![large_span(id_of(number), 400)]), millis(number));
    }
    let giant: Id = [0xee; 16];
    let mut at = 0;
    while rig.metric("early_decisions", &[("cause", "memory")]) == 0 {
        at += 1;
        rig.insert(&request(vec![large_span(giant, 4000)]), millis(1000 + at));
    }
    assert_eq!(rig.sampler.pending(), 1000);
    assert_eq!(rig.ledger.count(Entry::SampledOut), at);
}

/// Scenario: everything is kept, the next stage takes nothing, the buffer is full, and senders come again and again.
/// Guarantee: they are refused; traces are not decided early for their sake, which would free nothing, and become
/// complete. When the next stage is back, so is the gateway, and all leaves.
#[test]
fn traces_are_not_decided_early_in_vain() {
    for shards in [1, 4] {
        let rig = Rig::new(&format!(
            "
memory_limit_mib: 16
num_shards: {shards}
decision_wait: 60s
rules: [{{name: all, sampling_percentage: 100}}]
"
        ));
        let early = || rig.metric("early_decisions", &[("cause", "memory")]);
        let mut sent = 0;
        let mut send = |number: u64, now| {
            let message = request(vec![large_span(id_of(number), 4000)]).encode_to_vec();
            let is_taken = rig.sampler.insert(&message, now).is_ok();
            sent += usize::from(is_taken);
            is_taken
        };
        let first_refused = (0..10_000).find(|&number| !send(number, millis(number))).expect("it becomes full");
        for attempt in 0..10_000 {
            assert!(!send(20_000 + attempt, millis(first_refused + attempt)), "there is no room");
        }
        assert!(first_refused > 2500 && early() < first_refused / 4, "{} of {first_refused}, {shards} shards", early());

        let mut kept = rig.take(secs(20)).len();
        for number in 30_000..40_000 {
            assert!(send(number, secs(21) + millis(number - 30_000)), "there is room again");
            kept += rig.take(secs(21)).len();
        }
        kept += rig.finish(secs(100)).len();
        assert_eq!(kept, sent);
    }
}

/// Traces of one span each, with ever new ids: tables are most of what they take.
#[test]
fn a_flood_of_trace_ids_keeps_the_budget() {
    let rig = Rig::new(
        "
memory_limit_mib: 8
num_shards: 2
decision_wait_after_last_span: 20s
rules: [{name: some, sampling_percentage: 1}]
",
    );
    const TRACES: u64 = 120_000;
    let (mut kept, mut refused) = (0, 0);
    for group in 0..TRACES / 100 {
        let spans = (0..100).map(|trace| Span { name: String::new(), ..span(id_of(group * 100 + trace)) }).collect();
        let message = request(spans).encode_to_vec();
        // Room is made in slices, and tables give theirs back late: seldom one slice is not enough.
        while rig.sampler.insert(&message, millis(group)).is_err() {
            refused += 1;
            assert!(refused < 20, "senders find room");
        }
        if group % 50 == 0 {
            rig.decide(millis(group));
            kept += rig.take(millis(group)).len();
        }
    }
    assert!(rig.metric("early_decisions", &[("cause", "memory")]) > 50_000);
    assert!(rig.sampler.pending() > 10_000, "{}", rig.sampler.pending());
    kept += rig.finish(secs(100)).len();
    assert_eq!(kept as u64 + rig.ledger.count(Entry::SampledOut), TRACES);
    // What the flood took is there for others, once the last timers have rung and nothing has needed
    // the spare blocks for a while.
    for _ in 0..500 {
        rig.decide(secs(200));
    }
    assert!(rig.sampler.memory() < 2 << 20, "{}", rig.sampler.memory());
}

/// A trace of an hour, with a span a second, among others that come and go: it leaves whole, and the log
/// is compacted around it.
#[test]
fn a_trace_of_an_hour_keeps_the_budget() {
    let long: Id = [0xee; 16];
    let rig = Rig::new(
        "
memory_limit_mib: 4
num_shards: 1
decision_wait: 2h
decision_wait_after_last_span: 3s
rules: [{name: long, sampling_percentage: 100, when: {span_count: {min: 2}}}]
",
    );
    for second in 0..3600u64 {
        let mut spans: Vec<Span> = (0..5).map(|trace| large_span(id_of(second * 5 + trace), 1000)).collect();
        spans.push(child(long));
        rig.insert(&request(spans), secs(second));
        rig.decide(secs(second));
        assert!(rig.sampler.pending() < 30);
    }
    assert_eq!(rig.metric("early_decisions", &[("cause", "memory")]), 0);
    assert!(rig.sampler.memory() < 3 << 20, "{}", rig.sampler.memory());
    rig.decide(secs(3700));
    assert_eq!(by_trace(&rig.take(secs(3700))), [(long, 3600)].into());
}

/// Several threads take in, decide and hand on at once, near the limit: no two of them take the same room.
#[test]
fn the_budget_is_kept_between_threads() {
    let rig = Rig::new(
        "
memory_limit_mib: 8
num_shards: 4
decision_wait: 1s
rules: [{name: half, sampling_percentage: 50}]
",
    );
    const THREADS: u64 = 4;
    const REQUESTS: u64 = 1500;
    let kept = std::sync::atomic::AtomicUsize::new(0);
    let sent = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (rig, kept, sent) = (&rig, &kept, &sent);
            scope.spawn(move || {
                for number in 0..REQUESTS {
                    let id = |trace| id_of(((thread * REQUESTS + number) << 8) + trace);
                    let spans: Vec<Span> = (0..8).map(|trace| large_span(id(trace), 1000)).collect();
                    let message = request(spans).encode_to_vec();
                    if rig.sampler.insert(&message, millis(number)).is_ok() {
                        sent.fetch_add(8, std::sync::atomic::Ordering::Relaxed);
                    }
                    // One worker a shard, as in the processor.
                    rig.sampler.decide(thread as usize, millis(number), 100);
                    if number % 20 == 0 {
                        while let Some(out) = rig.sampler.take(thread as usize, millis(number)) {
                            kept.fetch_add(out.batch().items(), std::sync::atomic::Ordering::Relaxed);
                            out.accepted();
                        }
                    }
                }
            });
        }
    });
    let kept = kept.into_inner() + rig.finish(secs(100)).len();
    assert_eq!(kept as u64 + rig.ledger.count(Entry::SampledOut), sent.into_inner() as u64);
    assert!(rig.metric("early_decisions", &[("cause", "memory")]) > 1000);
    assert_eq!(rig.ledger.held_count(), 0);
}

/// Spans larger than a block and large resources, kept and with attributes on all spans.
#[test]
fn huge_spans_and_resources_keep_the_budget() {
    let rig = Rig::new(
        "
memory_limit_mib: 8
num_shards: 1
decision_wait: 10ms
record: all
rules: [{name: all, sampling_percentage: 100}]
",
    );
    let (mut sent, mut kept, mut refused) = (0, 0, 0);
    for number in 0..200u64 {
        let now = millis(number * 20);
        let unique = text(&format!("{number} {}", "y".repeat((number as usize % 7) * 20_000)));
        let resource = resource(vec![attribute("unique", unique)]);
        let large = large_span(id_of(number), (number as usize % 5) * 150_000);
        let data = TracesData { resource_spans: vec![resource_spans(resource, vec![large])] };
        match rig.sampler.insert(&data.encode_to_vec(), now) {
            Ok(()) => sent += 1,
            Err(refusal) => {
                assert!(refusal.is_retryable(), "{refusal}");
                refused += 1;
            }
        }
        rig.decide(now);
        if number % 3 == 0 {
            kept += rig.take(now).len();
        }
    }
    kept += rig.finish(secs(100)).len();
    assert_eq!(kept, sent);
    assert!(refused < 100, "{refused}");

    let hopeless = request(vec![large_span([1; 16], 9 << 20)]).encode_to_vec();
    let refusal = rig.sampler.insert(&hopeless, secs(200)).unwrap_err();
    assert!(!refusal.is_retryable(), "{refusal}");
    let wide = resource(vec![attribute("wide", text(&"y".repeat(200_000)))]);
    let wide = TracesData { resource_spans: vec![resource_spans(wide, vec![span([1; 16])])] };
    assert!(!rig.sampler.insert(&wide.encode_to_vec(), secs(200)).unwrap_err().is_retryable());
    assert_eq!(rig.ledger.dropped_count(DropReason::MemoryPressure), 0);
}

/// The buffer stays nearly full: new traces are decided by their id, at once; until there is room again.
#[test]
fn under_stress_new_traces_are_decided_by_their_id() {
    let rig = Rig::new(
        "
memory_limit_mib: 8
num_shards: 2
decision_wait: 60s
stress: {minimum_duration: 2s, sampling_percentage: 20}
rules: [{name: none, sampling_percentage: 0}]
",
    );
    let (mut under_stress, mut kept) = (Vec::new(), Vec::new());
    let active = || rig.telemetry.gauge("otelcol_processor_tail_sampling_stress_active", "", &[]).get() == 1;
    for number in 0..12_000u64 {
        rig.insert(&request(vec![large_span(id_of(number), 4000)]), millis(number));
        if active() {
            under_stress.push(number);
        }
        rig.decide(millis(number));
        if number % 100 == 0 {
            kept.extend(rig.take(millis(number)));
        }
    }
    kept.extend(rig.take(secs(13)));
    let first = under_stress[0];
    assert!((3000..6000).contains(&first), "{first}");
    assert!(under_stress.len() > 4000);
    // Two seconds at least of traces were decided without being buffered.
    let stressed: Vec<_> =
        kept.iter().filter(|span| span.text("nyquist.sampling.trigger").as_deref() == Some("stress")).collect();
    assert_eq!(stressed.len(), kept.len(), "the rule keeps nothing");
    let rate = stressed.len() as f64 / under_stress.len() as f64;
    assert!((0.17..0.23).contains(&rate), "{rate}");
    for span in stressed {
        assert!(span.has("nyquist.sampling.rate"));
        // 20 %: the upper fifth of the randomness.
        assert!(span.id()[9] >= 0xcc);
    }
    let labels = |decision| [("policy", "none"), ("trigger", "stress"), ("decision", decision)];
    let counted = rig.metric("decisions", &labels("sampled")) + rig.metric("decisions", &labels("not_sampled"));
    assert_eq!(counted as usize, under_stress.len());
    // And so it is told, of the last of them.
    for &number in under_stress.iter().rev().take(100) {
        let told = rig.sampler.explain(&id_of(number), secs(13));
        let decided = &told.decisions[0];
        assert_eq!((decided.trigger.as_str(), decided.kept), ("stress", id_of(number)[9] >= 0xcc));
        assert_eq!((decided.sampling_percentage, decided.spans), (Some(20.0), 1));
    }
    // Later spans follow.
    let late = under_stress.iter().map(|&number| child(id_of(number))).take(500).collect();
    rig.insert(&request(late), secs(13));
    assert_eq!(rig.take(secs(13)).iter().filter(|span| span.id()[9] < 0xcc).count(), 0);
    rig.decide_all(secs(14));
    rig.decide(secs(39));
    rig.insert(&request(vec![span([1; 16])]), secs(40));
    assert!(!active());
}

/// Scenario: a dry run, with `stress`, of a buffer that stays full for long. Guarantee: nothing is dropped; what
/// there is no room for is refused, and everything that was taken leaves.
#[test]
fn a_dry_run_drops_nothing_under_stress() {
    let rig = Rig::new(
        "
memory_limit_mib: 4
num_shards: 1
decision_wait: 60s
dry_run: true
stress: {minimum_duration: 1s, sampling_percentage: 0}
rules: [{name: none, sampling_percentage: 0}]
",
    );
    let (mut taken, mut refused) = (0, 0);
    for step in 0..3000u64 {
        let message = request(vec![large_span(id_of(step), 4000)]).encode_to_vec();
        match rig.sampler.insert(&message, millis(step * 10)) {
            Ok(()) => taken += 1,
            Err(refusal) => {
                assert!(refusal.is_retryable());
                refused += 1;
            }
        }
    }
    assert!(refused > 1000, "{refused}");
    assert_eq!(rig.telemetry.gauge("otelcol_processor_tail_sampling_stress_active", "", &[]).get(), 0);
    assert_eq!(rig.finish(secs(100)).len(), taken);
    assert_eq!(rig.ledger.count(Entry::SampledOut), 0);
}
