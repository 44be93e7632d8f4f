//! The life of traces: time, late spans, limits, pressure. Driven by explicit times.

use nyquist_core::batch::DropReason;
use nyquist_core::telemetry::Entry;
use prost::Message;

use super::support::{
    ERRORS, EVERYTHING, KeptSpan, Rig, T1, T2, T3, attribute, by_trace, child, config, exception, failed, id_of,
    large_span, millis, request, resource, resource_spans, secs, span, text,
};
use nyquist_core::proto::common::v1::InstrumentationScope;
use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::trace::v1::{ScopeSpans, Span, TracesData};

#[test]
fn late_spans_follow_the_decision_on_their_trace() {
    let rig = config(ERRORS, "decision_wait: 1s");
    rig.insert(&request(vec![failed(span(T1)), span(T2)]), secs(0));
    rig.decide(secs(1));
    let kept = rig.take(secs(1));
    assert_eq!(by_trace(&kept), [(T1, 1)].into());
    assert!(!kept[0].has("tailsampling.cached_decision"));

    rig.insert(&request(vec![child(T1), failed(child(T2))]), secs(10));
    let late = rig.take(secs(10));
    assert_eq!(by_trace(&late), [(T1, 1)].into());
    assert!(late[0].has("tailsampling.cached_decision"));
    assert_eq!(late[0].text("tailsampling.policy").as_deref(), Some("E"));
    assert_eq!(rig.ledger.count(Entry::SampledOut), 2);
    assert_eq!(rig.ledger.held_count(), 0);
    assert_eq!(rig.metric("early_releases_from_cache_decision", &[("sampled", "true")]), 1);
    assert_eq!(rig.metric("early_releases_from_cache_decision", &[("sampled", "false")]), 1);
}

/// Scenario: spans of a trace keep coming for long after its decision, while the cache for decisions has room for a
/// fraction of those that are made. Guarantee: as long as they come, they follow it.
#[test]
fn a_decision_that_late_spans_follow_is_not_forgotten() {
    let rig = config(
        ERRORS,
        "decision_wait: 1s\nnum_shards: 1\ndecision_cache: {sampled_cache_size: 7, non_sampled_cache_size: 7}",
    );
    let (kept, dropped, silent) = (T1, T2, T3);
    rig.insert(&request(vec![failed(span(kept)), span(dropped), failed(span(silent))]), secs(0));
    rig.decide(secs(2));
    assert_eq!(rig.take(secs(2)).len(), 2);
    for round in 0..50u64 {
        let now = secs(3 + 2 * round);
        let others = (0..6).map(|other| {
            if other % 2 == 0 { failed(span(id_of(round * 6 + other))) } else { span(id_of(round * 6 + other)) }
        });
        rig.insert(&request(others.chain([child(kept), child(dropped)]).collect()), now);
        rig.decide(now + secs(2));
        assert_eq!(by_trace(&rig.take(now + secs(2))).len(), 4, "three others, and what is late");
    }
    assert_eq!(rig.metric("early_releases_from_cache_decision", &[("sampled", "true")]), 50);
    assert_eq!(rig.metric("early_releases_from_cache_decision", &[("sampled", "false")]), 50);
    assert_eq!(rig.metric("new_trace_id_received", &[]), 3 + 50 * 6);
    // One that nobody asked for is.
    rig.insert(&request(vec![child(silent)]), secs(200));
    assert_eq!(rig.metric("new_trace_id_received", &[]), 3 + 50 * 6 + 1);
}

#[test]
fn without_a_cache_a_decided_trace_starts_over() {
    let rig = config(ERRORS, "decision_wait: 1s\ndecision_cache: {sampled_cache_size: 0, non_sampled_cache_size: 0}");
    rig.insert(&request(vec![span(T1)]), secs(0));
    rig.decide(secs(2));
    rig.insert(&request(vec![failed(span(T1))]), secs(9));
    assert_eq!(rig.finish(secs(11)).len(), 1);
}

/// The Collector's caches know the low half of an id only.
#[test]
fn a_trace_never_gets_the_decision_of_another_one() {
    let (mut a, mut b) = ([0xaa; 16], [0xaa; 16]);
    (a[0], b[0]) = (1, 2);
    let rig = config(ERRORS, "decision_cache: {sampled_cache_size: 10}\nnum_shards: 1");
    rig.insert(&request(vec![failed(span(a))]), secs(0));
    assert_eq!(rig.finish(secs(1)).len(), 1);
    rig.insert(&request(vec![span(b)]), secs(2));
    assert_eq!(rig.finish(secs(3)).len(), 0);
}

/// Where the Collector loses the oldest trace, we decide it.
#[test]
fn the_oldest_trace_is_decided_when_there_are_too_many() {
    let rig = config(ERRORS, "decision_wait: 5s\nnum_traces: 2\nnum_shards: 1");
    rig.insert(&request(vec![failed(span(T1))]), millis(0));
    rig.insert(&request(vec![span(T2)]), millis(100));
    rig.insert(&request(vec![span(T3)]), millis(200));
    assert_eq!(rig.sampler.pending(), 2);
    let kept = rig.take(millis(200));
    assert_eq!(by_trace(&kept), [(T1, 1)].into());
    assert_eq!(kept[0].text("nyquist.sampling.trigger").as_deref(), Some("count"));
    assert_eq!(rig.metric("decisions", &[("policy", "E"), ("trigger", "count"), ("decision", "sampled")]), 1);
}

#[test]
fn with_block_on_overflow_senders_wait_and_go_on_after_decisions() {
    let rig = config(ERRORS, "decision_wait: 5s\nnum_traces: 2\nblock_on_overflow: true");
    rig.insert(&request(vec![span(T1)]), secs(0));
    assert!(!rig.sampler.must_wait());
    rig.insert(&request(vec![span(T2)]), secs(0));
    assert!(rig.sampler.must_wait());
    rig.decide(secs(5));
    assert!(!rig.sampler.must_wait());
}

#[test]
fn policies_are_not_asked_about_a_trace_that_is_too_large() {
    let rig = Rig::new(
        "
memory_limit_mib: 64
maximum_trace_size_bytes: 1024
policies: [{name: all, type: always_sample}]
",
    );
    let big = attribute("big", text(&"x".repeat(3072)));
    rig.insert(&request(vec![Span { attributes: vec![big], ..span(T1) }]), secs(0));
    rig.insert(&request(vec![child(T1)]), secs(1));
    assert_eq!(rig.finish(secs(60)).len(), 0);
    assert_eq!(rig.metric("traces_dropped_too_large", &[]), 1);
    let sampled = rig.metric("global_count_traces_sampled", &[("sampled", "true"), ("decision", "sampled")]);
    assert_eq!(sampled, 0);
    assert_eq!(rig.ledger.count(Entry::SampledOut), 2);
}

#[test]
fn rules_decide_a_trace_at_its_size_limit_and_the_rest_follows() {
    let rig = config(EVERYTHING, "maximum_trace_size_bytes: 1024");
    let big = attribute("big", text(&"x".repeat(3072)));
    rig.insert(&request(vec![Span { attributes: vec![big], ..span(T1) }]), secs(0));
    let kept = rig.take(secs(0));
    assert_eq!(kept[0].text("nyquist.sampling.trigger").as_deref(), Some("size"));
    rig.insert(&request(vec![child(T1)]), secs(1));
    let late = rig.take(secs(1));
    assert_eq!(by_trace(&late), [(T1, 1)].into());
    assert!(late[0].has("nyquist.sampling.late"));
}

#[test]
fn a_dropped_traces_late_spans_are_dropped_and_counted() {
    let rig = Rig::new("
memory_limit_mib: 64
decision_wait: 1s
policies:
  - {name: all, type: always_sample}
  - {name: d, type: drop, drop: {drop_sub_policy: [{name: h, type: string_attribute, string_attribute: {key: url.path, values: [/health]}}]}}
");
    let health = |span: Span| Span { attributes: vec![attribute("url.path", text("/health"))], ..span };
    rig.insert(&request(vec![health(span(T1))]), secs(0));
    rig.decide(secs(1));
    rig.insert(&request(vec![child(T1)]), secs(2));
    assert_eq!(rig.finish(secs(9)).len(), 0);
    assert_eq!(rig.ledger.count(Entry::SampledOut), 2);
}

#[test]
fn the_reason_is_on_the_root_span_or_on_all_or_on_none() {
    let spans = || vec![child(T1), span(T1), child(T1)];
    let carriers = |kept: &[KeptSpan]| {
        let with_reason = kept.iter().filter(|span| span.has("nyquist.sampling.rule"));
        with_reason.map(|span| span.span.parent_span_id.is_empty()).collect::<Vec<_>>()
    };
    let rig = config(EVERYTHING, "");
    rig.insert(&request(spans()), secs(0));
    rig.insert(&request(vec![child(T2), child(T2)]), secs(0));
    let kept = rig.finish(secs(60));
    let (first, second): (Vec<_>, Vec<_>) = kept.into_iter().partition(|span| span.id() == T1);
    assert_eq!(carriers(&first), [true], "the root span");
    assert_eq!(carriers(&second), [false], "the first span where there is no root");
    let root = first.iter().find(|span| span.span.parent_span_id.is_empty()).unwrap();
    assert_eq!(root.text("nyquist.sampling.rule").as_deref(), Some("all"));
    let rate = super::support::value(&root.span.attributes, "nyquist.sampling.rate");
    assert_eq!(rate, Some(&Value::DoubleValue(100.0)));

    let rig = config(EVERYTHING, "record: all");
    rig.insert(&request(spans()), secs(0));
    assert_eq!(carriers(&rig.finish(secs(60))).len(), 3);

    let rig = config(EVERYTHING, "record: none");
    rig.insert(&request(spans()), secs(0));
    assert_eq!(carriers(&rig.finish(secs(60))).len(), 0);
}

/// What is kept is what came, with everything around it, and resources and scopes are not repeated.
#[test]
fn kept_spans_are_grouped_below_their_resource_and_scope() {
    let group = |service: &str, scope: &str, spans: Vec<Span>| {
        let mut group = resource_spans(resource(vec![attribute("service.name", text(service))]), vec![]);
        group.schema_url = format!("https://{service}");
        let name = scope.to_owned();
        let scope = InstrumentationScope { name, version: "1".to_owned(), ..InstrumentationScope::default() };
        group.scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: "https://scope".to_owned() }];
        group
    };
    let rig = config(EVERYTHING, "num_shards: 1\nrecord: none");
    let mut sent = Vec::new();
    for index in 0..5u8 {
        let data = TracesData {
            resource_spans: vec![
                group("a", "x", vec![span([index; 16]), failed(child([index; 16]))]),
                group("b", "x", vec![child([index; 16])]),
                group("a", "y", vec![Span { events: vec![exception()], ..child([index; 16]) }]),
            ],
        };
        sent.extend(super::support::read(&data.encode_to_vec()));
        rig.insert(&data, secs(0));
    }
    rig.decide(secs(30));
    let message = rig.sampler.take(0, secs(30)).unwrap().batch().into_wire();
    let groups = TracesData::decode(message.clone()).unwrap().resource_spans;
    let shape: Vec<usize> = groups.iter().map(|group| group.scope_spans.len()).collect();
    assert_eq!(shape.len(), 2);
    assert_eq!(shape.iter().sum::<usize>(), 3);
    let mut kept = super::support::read(&message);
    let key = |span: &KeptSpan| format!("{span:?}");
    kept.sort_by_key(key);
    sent.sort_by_key(key);
    assert_eq!(kept, sent);
}

/// The Collector writes fields from last to first, and unknown fields are anybody's right.
#[test]
fn field_order_and_unknown_fields_do_not_matter() {
    fn reversed(message: &[u8], depth: usize) -> Vec<u8> {
        use nyquist_core::wire::{Fields, Value, put_len_field};
        let mut parts = Vec::new();
        let mut fields = Fields::new(message);
        let mut before = 0;
        while let Some(field) = fields.next() {
            let raw = &message[before..fields.position()];
            before = fields.position();
            let nested = matches!((depth, field.number), (0, 1) | (1, 1 | 2) | (2, 1 | 2) | (3, 9 | 15));
            parts.push(match field.value {
                Value::Len(inner) if nested => {
                    let mut out = Vec::new();
                    put_len_field(&mut out, field.number, &reversed(inner, depth + 1));
                    out
                }
                _ => raw.to_vec(),
            });
        }
        parts.reverse();
        let mut out = parts.concat();
        put_len_field(&mut out, 1000, b"from the future");
        out
    }
    let rig = Rig::new("
memory_limit_mib: 64
record: none
rules:
  - name: r
    sampling_percentage: 100
    when: {all: [{error: true}, {attribute: {key: k, values: [v]}}, {attribute: {key: service.name, scope: resource, values: [svc]}}]}
");
    let data = request(vec![Span { attributes: vec![attribute("k", text("v"))], ..failed(span(T1)) }, child(T1)]);
    let message = reversed(&data.encode_to_vec(), 0);
    rig.sampler.insert(&message, secs(0)).unwrap();
    rig.decide_all(secs(0));
    let out = (0..rig.sampler.shards()).find_map(|shard| rig.sampler.take(shard, secs(0))).expect("it is kept");
    let kept = out.batch().into_wire();
    assert_eq!(super::support::read(&kept).len(), 2);
    let marks = kept.windows(15).filter(|window| window == b"from the future").count();
    let sent = message.windows(15).filter(|window| window == b"from the future").count();
    // All but the one at the end of the request itself, which is no one's.
    assert_eq!(marks, sent - 1);
}

#[test]
fn spans_without_a_sound_id_are_counted_as_lost() {
    let rig = config(EVERYTHING, "");
    let short = Span { trace_id: vec![1, 2, 3], ..span(T1) };
    rig.insert(&request(vec![short, span(T1)]), secs(0));
    assert_eq!(rig.finish(secs(0)).len(), 1);
    assert_eq!(rig.ledger.dropped_count(DropReason::InvalidId), 1);
}

/// Guarantee: spans with an id of zeros are one trace, or none, as is configured; other ids are as ever.
#[test]
fn spans_of_the_zero_id_are_one_trace_or_none() {
    for (setting, kept, lost) in [("", 3, 0), ("zero_trace_ids: group", 3, 0), ("zero_trace_ids: reject", 1, 2)] {
        let rig = config(EVERYTHING, setting);
        rig.insert(&request(vec![span([0; 16]), span(T1)]), secs(0));
        rig.insert(&request(vec![child([0; 16])]), secs(0));
        assert_eq!(rig.sampler.pending(), if lost == 0 { 2 } else { 1 });
        assert_eq!(rig.finish(secs(0)).len(), kept, "{setting}");
        assert_eq!(rig.ledger.dropped_count(DropReason::InvalidId), lost, "{setting}");
    }
}

#[test]
fn foreign_bytes_do_no_harm() {
    let rig = config(EVERYTHING, "");
    let good = request(vec![span(T1), failed(child(T2))]).encode_to_vec();
    for cut in 0..good.len() {
        rig.sampler.insert(&good[..cut], secs(0)).unwrap();
        let mut broken = good.clone();
        broken[cut] ^= 0xff;
        rig.sampler.insert(&broken, secs(0)).unwrap();
    }
    rig.decide_all(secs(1));
    for shard in 0..rig.sampler.shards() {
        while let Some(out) = rig.sampler.take(shard, secs(1)) {
            out.accepted();
        }
    }
    rig.sampler.abandon();
    assert_eq!(rig.ledger.held_count(), 0);
}

/// Ten times as much as there is room for comes in within the wait: the oldest traces are decided
/// early, by the same rules, and everything is accounted for.
#[test]
fn under_pressure_the_oldest_traces_are_decided_early_and_nothing_is_lost() {
    let rig = Rig::new(
        "
memory_limit_mib: 8
num_shards: 2
rules: [{name: some, sampling_percentage: 10}]
",
    );
    let mut kept = Vec::new();
    const TRACES: u64 = 20_000;
    for number in 0..TRACES {
        rig.insert(&request(vec![large_span(id_of(number), 4000)]), millis(number / 100));
        if number % 100 == 0 {
            kept.extend(rig.take(millis(number / 100)));
        }
        assert!(rig.sampler.memory() < 10 << 20, "{}", rig.sampler.memory());
    }
    let early = rig.metric("decisions", &[("policy", "some"), ("trigger", "memory"), ("decision", "not_sampled")]);
    assert!(early > 10_000, "{early}");
    kept.extend(rig.finish(secs(100)));
    assert_eq!(kept.len() as u64 + rig.ledger.count(Entry::SampledOut), TRACES);
    assert!((1700..2300).contains(&kept.len()), "{}", kept.len());
    assert_eq!(rig.ledger.held_count(), 0);
    assert_eq!(rig.sampler.pending(), 0);
}

/// With a dead backend kept traces stay, until intake is refused; when it is back, all of them leave.
#[test]
fn kept_traces_wait_for_the_next_stage_and_intake_is_refused_when_full() {
    let rig = Rig::new(
        "
memory_limit_mib: 8
num_shards: 2
decision_wait: 1s
rules: [{name: all, sampling_percentage: 100}]
",
    );
    let mut accepted = 0;
    let mut in_flight = None;
    for number in 0..10_000 {
        let now = millis(number);
        match rig.sampler.insert(&request(vec![large_span(id_of(number), 4000)]).encode_to_vec(), now) {
            Ok(()) => accepted += 1,
            Err(refusal) => {
                assert!(refusal.is_retryable());
                break;
            }
        }
        rig.decide(now);
        in_flight = in_flight.or_else(|| rig.sampler.take(0, now));
    }
    assert!((1000..2500).contains(&accepted), "{accepted}");
    assert!(rig.sampler.memory() < 12 << 20);
    let first = in_flight.unwrap();
    let mut spans = first.batch().items();
    first.accepted();
    spans += rig.finish(secs(100)).len();
    assert_eq!(spans, accepted);
    assert!(rig.sampler.room().is_ok());
    assert_eq!(rig.ledger.held_count(), 0);
}

/// One trace that goes on for ever does not hold the blocks of those around it.
#[test]
fn a_long_trace_does_not_hold_the_memory_of_others() {
    let rig = Rig::new(
        "
memory_limit_mib: 256
num_shards: 1
decision_cache: {sampled_cache_size: 1000, non_sampled_cache_size: 1000}
decision_wait: 1h
decision_wait_after_root_received: 100ms
rules: [{name: children, sampling_percentage: 100, when: {span_count: {min: 1000}}}]
",
    );
    for number in 0..40_000u64 {
        let now = millis(number);
        let mut spans = vec![large_span(id_of(number), 1000)];
        if number % 10 == 0 {
            spans.push(child(T1));
        }
        rig.insert(&request(spans), now);
        rig.decide(now);
    }
    assert_eq!(rig.sampler.pending(), 101);
    assert!(rig.sampler.memory() < 12 << 20, "{}", rig.sampler.memory());
    // Nor do the timers of those that were decided long before their wait was over.
    assert!(rig.sampler.table_memory() < 128 << 10, "{}", rig.sampler.table_memory());
    rig.decide_all(secs(60));
    assert_eq!(by_trace(&rig.take(secs(60))), [(T1, 4000)].into());
}

/// A trace larger than a batch leaves in several.
#[test]
fn a_giant_trace_leaves_in_several_batches() {
    let rig = config(EVERYTHING, "num_shards: 1");
    for _ in 0..50 {
        rig.insert(&request((0..20).map(|_| large_span(T1, 5000)).collect()), secs(0));
    }
    rig.insert(&request(vec![large_span(T1, 3 << 20)]), secs(0));
    rig.decide(secs(30));
    let (mut spans, mut batches, mut recorded) = (0, 0, 0);
    while let Some(out) = rig.sampler.take(0, secs(30)) {
        let kept = super::support::read(&out.batch().into_wire());
        assert!(!kept.is_empty());
        spans += kept.len();
        recorded += kept.iter().filter(|span| span.has("nyquist.sampling.rule")).count();
        batches += 1;
        out.accepted();
    }
    assert_eq!((spans, recorded), (1001, 1));
    assert!((5..10).contains(&batches), "{batches}");
    assert_eq!(rig.ledger.held_count(), 0);
}

/// An attacker who sends every span with a resource of its own fills the budget, not the memory.
#[test]
fn headers_are_bounded_and_go_with_their_blocks() {
    let rig = Rig::new(
        "
memory_limit_mib: 16
num_shards: 2
decision_wait: 100ms
rules: [{name: none, sampling_percentage: 0}]
",
    );
    for number in 0..50_000u64 {
        let unique = resource(vec![attribute("unique", text(&format!("{number} {}", "y".repeat(300))))]);
        let data = TracesData { resource_spans: vec![resource_spans(unique, vec![span(id_of(number))])] };
        rig.insert(&data, millis(number / 10));
        rig.decide(millis(number / 10));
        assert!(rig.sampler.memory() < 20 << 20, "{}", rig.sampler.memory());
    }
    assert_eq!(rig.ledger.dropped_count(DropReason::MemoryPressure), 0);
}

/// Scenario: a trace that comes in two requests, of one and of two resources. Guarantee: `bytes_limiting` and `maximum_trace_size_bytes` of
/// policies count the bytes of these requests, but for the schema URLs, exactly; those of rules count those of spans.
#[test]
fn resources_and_scopes_count_for_policies_with_each_request() {
    let large = |name: &str| resource(vec![attribute(name, text(&"x".repeat(300)))]);
    let below = |name: &str, spans: Vec<Span>| {
        let mut below = resource_spans(large(name), spans);
        // As the Collector writes a scope that is empty.
        below.scope_spans[0].scope = Some(InstrumentationScope::default());
        below
    };
    let first = TracesData { resource_spans: vec![below("a", vec![span(T1), child(T1)])] };
    let second = TracesData { resource_spans: vec![below("a", vec![child(T1)]), below("b", vec![child(T1)])] };
    let whole = first.encoded_len() + second.encoded_len();
    let is_kept = |yaml: String| {
        let rig = Rig::new(&format!("memory_limit_mib: 64\ndecision_wait: 1s\n{yaml}"));
        let mut with_url = second.clone();
        with_url.resource_spans[0].schema_url = "https://opentelemetry.io/schemas/1.9.0".to_owned();
        rig.insert(&first, secs(10));
        rig.insert(&with_url, secs(10));
        rig.decide(secs(12));
        match rig.take(secs(12)).len() {
            0 => false,
            kept => {
                assert_eq!(kept, 4);
                true
            }
        }
    };
    let limit = |burst: usize| {
        let limit = format!("{{bytes_per_second: 1, burst_capacity: {burst}}}");
        format!("policies: [{{name: l, type: bytes_limiting, bytes_limiting: {limit}}}]")
    };
    assert!(is_kept(limit(whole)) && !is_kept(limit(whole - 1)));
    let all = "policies: [{name: all, type: always_sample}]\nmaximum_trace_size_bytes: ";
    assert!(is_kept(format!("{all}{whole}")) && !is_kept(format!("{all}{}", whole - 1)));
    // Four spans of some 60 bytes.
    let slow = "rules: [{name: one, sampling_percentage: 0, when: {span_count: {max: 3}}}, {name: all, sampling_percentage: 100}]";
    assert!(is_kept(format!("{slow}\nmaximum_trace_size_bytes: 400")), "the resources alone would be more");
}
