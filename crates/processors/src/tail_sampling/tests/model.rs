//! The sampler beside a simple one that decodes everything and keeps it in maps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::trace::v1::{Span, Status, TracesData};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::support::{Id, Rig, attribute, by_trace, exception, millis, resource, resource_spans, text, value};

const RULES: &str = "
decision_wait: 100s
memory_limit_mib: 256
rules:
  - name: vip
    sampling_percentage: 100
    when: {any: [{attribute: {key: user.id, values: [u1, u2, 7]}}, {span_name: {values: [POST /pay]}}]}
  - {name: errors, sampling_percentage: 100, when: {error: true}}
  - name: slow in eu
    sampling_percentage: 70
    when: {latency: {threshold: 1s}, attribute: {key: region, scope: resource, values: [eu]}}
  - {name: slow, sampling_percentage: 50, when: {latency: {threshold: 1s}}}
  - {name: busy db, sampling_percentage: 30, when: {match: same_span, attribute: {key: db, exists: true}, latency: {of: span, threshold: 300ms}}}
  - {name: slow root, sampling_percentage: 60, when: {latency: {of: root, threshold: 500ms}}}
  - {name: few, sampling_percentage: 0, when: {span_count: {max: 1}}}
  - {name: default, sampling_percentage: 10}
";

/// The same, with whatever OTTL can say.
const RULES_IN_OTTL: &str = r#"
decision_wait: 100s
memory_limit_mib: 256
rules:
  - name: vip
    sampling_percentage: 100
    when: {ottl: {span: ['ContainsValue(["u1", "u2", 7], attributes["user.id"])', 'span.name == "POST /pay"']}}
  - name: errors
    sampling_percentage: 100
    when:
      ottl:
        span: ['status.code == STATUS_CODE_ERROR or span.attributes["error"] == true']
        spanevent: ['IsMatch(name, "^exception$")']
  - name: slow in eu
    sampling_percentage: 70
    when: {latency: {threshold: 1s}, ottl: {span: ['resource.attributes["region"] == "eu"']}}
  - {name: slow, sampling_percentage: 50, when: {latency: {threshold: 1s}}}
  - name: busy db
    sampling_percentage: 30
    when: {ottl: {span: ['attributes["db"] != nil and end_time_unix_nano - start_time_unix_nano > 300 * 1000000']}}
  - name: slow root
    sampling_percentage: 60
    when: {ottl: {span: ['IsRootSpan() and Milliseconds(end_time - start_time) > 500']}}
  - {name: few, sampling_percentage: 0, when: {span_count: {max: 1}}}
  - {name: default, sampling_percentage: 10}
"#;

const COMPRESSED: [&str; 5] = [
    "",
    "compression: lz4\ncompression_delay: 0s",
    "",
    "compression: zstd\ncompression_delay: 0s",
    "compression: zstd\ncompression_delay: 5ms",
];

/// Decides as the rules above say, by their words: the rule and its percentage.
fn decide(id: Id, spans: &[(String, Span)]) -> Option<(&'static str, f64)> {
    let any = |test: &dyn Fn(&str, &Span) -> bool| spans.iter().any(|(region, span)| test(region, span));
    let duration = |span: &Span| span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano) / 1_000_000;
    let is_root = |span: &Span| span.parent_span_id.is_empty();
    let first = spans.iter().map(|(_, span)| span.start_time_unix_nano).min().unwrap();
    let last = spans.iter().map(|(_, span)| span.end_time_unix_nano).max().unwrap();
    let slow = last.saturating_sub(first) > 1_000_000_000;
    let vip = any(&|_, span| {
        span.name == "POST /pay"
            || match value(&span.attributes, "user.id") {
                Some(Value::StringValue(user)) => user == "u1" || user == "u2",
                Some(Value::IntValue(user)) => *user == 7,
                _ => false,
            }
    });
    let error = any(&|_, span| {
        span.status.as_ref().is_some_and(|status| status.code == 2)
            || span.events.iter().any(|event| event.name == "exception")
            || matches!(value(&span.attributes, "error"), Some(Value::BoolValue(true)))
    });
    let (rule, percentage) = if vip {
        ("vip", 100.0)
    } else if error {
        ("errors", 100.0)
    } else if slow && any(&|region, _| region == "eu") {
        ("slow in eu", 70.0)
    } else if slow {
        ("slow", 50.0)
    } else if any(&|_, span| value(&span.attributes, "db").is_some() && duration(span) > 300) {
        ("busy db", 30.0)
    } else if any(&|_, span| is_root(span) && duration(span) > 500) {
        ("slow root", 60.0)
    } else if spans.len() <= 1 {
        ("few", 0.0)
    } else {
        ("default", 10.0)
    };
    let mut low = [0; 8];
    low[1..].copy_from_slice(&id[9..]);
    let explicit = spans.iter().find_map(|(_, span)| span.trace_state.split("rv:").nth(1)?.get(..14));
    let random = explicit.map_or(u64::from_be_bytes(low), |rv| u64::from_str_radix(rv, 16).unwrap());
    let random = random as f64 / (1u64 << 56) as f64;
    (random >= 1.0 - percentage / 100.0).then_some((rule, percentage))
}

/// The `tracestate` that a kept span leaves with.
fn state_after(before: &str, percentage: f64) -> String {
    let all = 1u64 << 56;
    let threshold = all - (percentage / 100.0 * all as f64).round() as u64;
    let th = before.split("th:").nth(1).and_then(|rest| rest.split([';', ',']).next());
    let stricter = th.is_some_and(|th| u64::from_str_radix(&format!("{th:0<14}"), 16).unwrap() >= threshold);
    if threshold == 0 || stricter || before.contains("bad key") {
        return before.to_owned();
    }
    let digits = format!("{threshold:014x}");
    let rv = before.split("rv:").nth(1).map(|rest| format!(";rv:{}", &rest[..14])).unwrap_or_default();
    let others: String = before
        .split(',')
        .filter(|entry| !entry.is_empty() && !entry.starts_with("ot="))
        .map(|entry| format!(",{entry}"))
        .collect();
    format!("ot=th:{}{rv}{others}", digits.trim_end_matches('0'))
}

fn random_span(rng: &mut StdRng, id: Id) -> Span {
    let start = rng.random_range(1..=400u64) * 1_000_000;
    let length = if rng.random_bool(0.05) { 2000 } else { rng.random_range(0..600) } * 1_000_000;
    let mut span = Span {
        trace_id: id.to_vec(),
        span_id: rng.random::<[u8; 8]>().to_vec(),
        parent_span_id: if rng.random_bool(0.2) { vec![] } else { vec![1; 8] },
        name: if rng.random_bool(0.01) { "POST /pay" } else { "GET /" }.to_owned(),
        start_time_unix_nano: start,
        end_time_unix_nano: start + length,
        ..Span::default()
    };
    for index in 0..rng.random_range(0..4) {
        span.attributes.push(attribute(&format!("filler.{index}"), text(&"f".repeat(rng.random_range(0..300)))));
    }
    if rng.random_bool(0.1) {
        let user = match rng.random_range(0..4) {
            0 => text("u1"),
            1 => Value::IntValue(rng.random_range(0..20)),
            _ => text("u3"),
        };
        span.attributes.push(attribute("user.id", user));
    }
    if rng.random_bool(0.1) {
        span.attributes.push(attribute("db", text("pg")));
    }
    if rng.random_bool(0.02) {
        span.attributes.push(attribute("error", Value::BoolValue(rng.random_bool(0.5))));
    }
    if rng.random_bool(0.02) {
        span.status = Some(Status { code: rng.random_range(0..3), ..Status::default() });
    }
    if rng.random_bool(0.01) {
        span.events.push(exception());
    }
    span.attributes.shuffle(rng);
    span
}

type Sent = BTreeMap<Id, Vec<(String, Span)>>;

/// Random traces, cut into requests at random.
fn random_requests(rng: &mut StdRng, traces: usize) -> (Sent, Vec<TracesData>) {
    let mut all = Vec::new();
    for _ in 0..traces {
        let id: Id = rng.random();
        let region = ["eu", "us", "asia"][rng.random_range(0..3)];
        let rv = format!("rv:{:014x}", rng.random::<u64>() >> 8);
        let state = match rng.random_range(0..20) {
            0 => format!("ot={rv}"),
            1 => format!("a=1,ot={rv};th:c,b=2"),
            2 => "ot=th:4,b=2".to_owned(),
            3 => "bad key=1,ot=th:8".to_owned(),
            _ => String::new(),
        };
        for _ in 0..rng.random_range(1..8) {
            let mut span = random_span(rng, id);
            if rng.random_bool(0.7) {
                span.trace_state.clone_from(&state);
            }
            all.push((region.to_owned(), span));
        }
    }
    if rng.random_bool(0.5) {
        all.shuffle(rng);
    }
    let mut sent = Sent::new();
    for (region, span) in &all {
        sent.entry(span.trace_id.as_slice().try_into().unwrap()).or_default().push((region.clone(), span.clone()));
    }
    let mut requests = Vec::new();
    while !all.is_empty() {
        let mut data = TracesData::default();
        for (region, span) in all.drain(..rng.random_range(1..=all.len().min(50))) {
            let attributes = vec![attribute("region", text(&region))];
            let resource = resource(attributes);
            match data.resource_spans.last_mut().filter(|group| group.resource.as_ref() == Some(&resource)) {
                Some(group) => group.scope_spans[0].spans.push(span),
                None => data.resource_spans.push(resource_spans(resource, vec![span])),
            }
        }
        requests.push(data);
    }
    (sent, requests)
}

#[test]
fn it_decides_as_a_simple_sampler_does() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut thaws = 0;
    for round in 0..40 {
        let rules = [RULES, RULES_IN_OTTL][round / 8 % 2];
        let compressed = COMPRESSED[round / 8 % 5];
        let rules = match compressed {
            "" => rules.to_owned(),
            // Blocks are small, and some are full.
            _ => format!("{}\n{compressed}", rules.replace("memory_limit_mib: 256", "memory_limit_mib: 8")),
        };
        let rig = Rig::new(&format!("{rules}\nnum_shards: {}", round % 8 + 1));
        let traces = rng.random_range(1..300);
        let (sent, requests) = random_requests(&mut rng, traces);
        for (at, request) in requests.iter().enumerate() {
            rig.insert(request, millis(at as u64));
            rig.decide(millis(at as u64));
        }
        rig.decide(millis(99_000));
        assert_eq!(rig.sampler.pending(), sent.len(), "seed {seed}: nothing is decided before its time");
        rig.decide(Duration::from_secs(1000));
        let kept = rig.take(Duration::from_secs(1000));
        let expected: BTreeMap<Id, usize> = sent
            .iter()
            .filter(|(id, spans)| decide(**id, spans).is_some())
            .map(|(id, spans)| (*id, spans.len()))
            .collect();
        assert_eq!(by_trace(&kept), expected, "seed {seed}, round {round}");
        for span in kept.iter().filter(|span| span.has("nyquist.sampling.rule")) {
            assert_eq!(
                span.text("nyquist.sampling.rule").as_deref(),
                decide(span.id(), &sent[&span.id()]).map(|(rule, _)| rule)
            );
        }
        // What came, but for the reason and the threshold.
        for span in kept {
            let region = match value(&span.resource.as_ref().unwrap().attributes, "region") {
                Some(Value::StringValue(region)) => region.clone(),
                other => panic!("{other:?}"),
            };
            let mut original = span.span.clone();
            original.attributes.retain(|attribute| !attribute.key.starts_with("nyquist.sampling."));
            let sent = &sent[&span.id()];
            let (_, percentage) = decide(span.id(), sent).unwrap();
            let as_sent = |(from, sent): &(String, Span)| {
                original.trace_state.clone_from(&sent.trace_state);
                let state = state_after(&sent.trace_state, percentage);
                *from == region && original == *sent && span.span.trace_state == state
            };
            assert!(sent.iter().any(as_sent), "seed {seed}, round {round}: {span:?}");
        }
        assert_eq!(rig.ledger.held_count(), 0);
        if !compressed.is_empty() {
            thaws += rig.metric("decompressed_chunks", &[]);
        }
    }
    assert!(thaws > 0, "seed {seed}: nothing compressed was read");
}

/// Waits end, the buffer turns over, memory is short, spans come late: whatever happens, no span is
/// lost or doubled, and no trace that is decided once is decided otherwise later.
#[test]
fn every_span_is_kept_or_counted_out_once() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut thaws = 0;
    for round in 0..9 {
        let shards = round % 4 + 1;
        let compressed = COMPRESSED[[0, 1, 3][round % 3]];
        let rig = Rig::new(&format!(
            "
num_shards: {shards}
memory_limit_mib: 4
decision_wait: 200ms
decision_wait_after_root_received: {}ms
{compressed}
rules:
  - {{name: half, sampling_percentage: 50}}
",
            [0, 50][round % 2]
        ));
        let mut now = 0;
        let mut open: Vec<Id> = Vec::new();
        let (mut sent, mut kept) = (0, Vec::new());
        for _ in 0..4000 {
            now += rng.random_range(0..3);
            while open.len() < 60 {
                open.push(rng.random());
            }
            if rng.random_bool(0.3) {
                let index = rng.random_range(0..open.len());
                open.swap_remove(index);
            }
            let count = rng.random_range(1..20);
            let spans: Vec<Span> = (0..count)
                .map(|_| {
                    let id = open[rng.random_range(0..open.len())];
                    let mut span = random_span(&mut rng, id);
                    let filling = [0, 200, 3000, 20_000][rng.random_range(0..4)];
                    span.attributes.push(attribute("filling", text(&"z".repeat(filling))));
                    span
                })
                .collect();
            let request = super::support::request(spans);
            let message = prost::Message::encode_to_vec(&request);
            match rig.sampler.insert(&message, millis(now)) {
                Ok(()) => sent += count,
                Err(refusal) => assert!(refusal.is_retryable()),
            }
            if rng.random_bool(0.5) {
                rig.decide(millis(now));
            }
            if rng.random_bool(0.3) {
                let shard = rng.random_range(0..shards);
                if let Some(out) = rig.sampler.take(shard, millis(now)) {
                    kept.extend(super::support::read(&out.batch().into_wire()));
                    out.accepted();
                }
            }
        }
        kept.extend(rig.finish(millis(now)));
        let ids: BTreeSet<Vec<u8>> = kept.iter().map(|span| span.span.span_id.clone()).collect();
        assert_eq!(ids.len(), kept.len(), "seed {seed}: no span is kept twice");
        let out = rig.ledger.count(nyquist_core::telemetry::Entry::SampledOut) as usize;
        assert_eq!(kept.len() + out, sent, "seed {seed}, round {round}");
        for span in &kept {
            assert!(span.id()[9] >= 0x80, "seed {seed}: a trace is kept by its id alone");
        }
        assert_eq!(rig.ledger.held_count(), 0, "seed {seed}");
        if !compressed.is_empty() {
            thaws += rig.metric("decompressed_chunks", &[]);
        }
    }
    assert!(thaws > 0, "seed {seed}: nothing compressed was read");
}

/// The composite sampler on 100,000 traces: each class at its rate, and the same traces whatever
/// the number of shards.
#[test]
fn each_class_is_kept_at_its_rate_on_any_number_of_shards() {
    const TRACES: usize = 100_000;
    let rules = "
memory_limit_mib: 512
record: none
rules:
  - {name: vip, sampling_percentage: 100, when: {attribute: {key: user.id, values: [vip]}}}
  - {name: errors, sampling_percentage: 100, when: {error: true}}
  - {name: slow, sampling_percentage: 50, when: {latency: {threshold: 1s}}}
  - {name: default, sampling_percentage: 10}
";
    let mut rng = StdRng::seed_from_u64(11);
    let mut classes: BTreeMap<Id, usize> = BTreeMap::new();
    let mut spans = Vec::new();
    for _ in 0..TRACES {
        let id: Id = rng.random();
        let class = match rng.random_range(0..100) {
            0..5 => 0,
            5..15 => 1,
            15..35 => 2,
            _ => 3,
        };
        classes.insert(id, class);
        let mut root = super::support::span(id);
        match class {
            0 => root.attributes.push(attribute("user.id", text("vip"))),
            1 => root = super::support::failed(root),
            2 => root.end_time_unix_nano += 1_000_000_000,
            _ => {}
        }
        spans.push(root);
    }
    let mut kept_by_shards = Vec::new();
    for shards in [1, 8] {
        let rig = Rig::new(&format!("{rules}\nnum_shards: {shards}"));
        for chunk in spans.chunks(500) {
            rig.insert(&super::support::request(chunk.to_vec()), millis(0));
        }
        let kept = by_trace(&rig.finish(millis(1)));
        for (class, rate) in [1.0, 1.0, 0.5, 0.1].into_iter().enumerate() {
            let total = classes.values().filter(|&&of| of == class).count() as f64;
            let found = kept.keys().filter(|id| classes[*id] == class).count() as f64;
            let deviation = (total * rate * (1.0 - rate)).sqrt();
            assert!((found - total * rate).abs() <= 4.0 * deviation, "class {class}: {found} of {total}");
        }
        kept_by_shards.push(kept);
    }
    assert_eq!(kept_by_shards[0], kept_by_shards[1]);
}
