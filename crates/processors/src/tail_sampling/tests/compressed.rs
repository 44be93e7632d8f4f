//! The buffer with compressed blocks: the same traces leave as without, it takes a part of the memory, and nobody waits
//! for long.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use nyquist_core::proto::trace::v1::{Span, TracesData};
use nyquist_core::telemetry::Entry;
use prost::Message;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::support::{Id, Rig, attribute, by_trace, child, id_of, large_span, millis, request, secs, text};

const CODECS: [&str; 2] = ["lz4", "zstd"];

/// A span of some 400 bytes, as services send them: keys and routes repeat themselves, ids, times and numbers do not.
fn realistic(random: &mut SmallRng, id: Id) -> Span {
    let route = ["orders", "carts", "users", "payments", "search"][random.random_range(0..5)];
    let start = 1_700_000_000_000_000_000 + random.random_range(0..10_000_000_000u64);
    Span {
        trace_id: id.to_vec(),
        span_id: random.random::<[u8; 8]>().to_vec(),
        parent_span_id: random.random::<[u8; 8]>().to_vec(),
        name: format!("GET /api/v1/{route}/{{id}}"),
        start_time_unix_nano: start,
        end_time_unix_nano: start + random.random_range(0..500_000_000),
        attributes: vec![
            attribute("http.request.method", text("GET")),
            attribute("url.path", text(&format!("/api/v1/{route}/{}", random.random_range(0..10_000_000)))),
            attribute("server.address", text(&format!("{route}.shop.svc"))),
            attribute(
                "network.peer.address",
                text(&format!("10.1.{}.{}", random.random::<u8>(), random.random::<u8>())),
            ),
            attribute("user.id", text(&format!("user-{}", random.random_range(0..1_000_000)))),
            attribute("http.route", text(&format!("/api/v1/{route}/{{id}}"))),
            attribute("user_agent.original", text("okhttp/4.12")),
            attribute("thread.name", text(&format!("worker-{}", random.random_range(0..64)))),
        ],
        ..Span::default()
    }
}

const README: &str = include_str!("../README.md");

/// What compressed blocks take, and what they took.
fn compressed(rig: &Rig) -> (i64, i64) {
    let gauge = |name| rig.telemetry.gauge(&format!("otelcol_processor_tail_sampling_{name}"), "", &[]).get();
    (gauge("compressed_bytes"), gauge("compressed_original_bytes"))
}

/// Traces of ten spans whose spans come over 200 ms, a request for each millisecond.
fn requests(count: u64) -> Vec<TracesData> {
    let mut random = SmallRng::seed_from_u64(9);
    let mut requests: BTreeMap<u64, Vec<Span>> = BTreeMap::new();
    for trace in 0..count {
        let begin = trace / 2;
        for _ in 0..10 {
            let at = begin + random.random_range(0..200u64);
            requests.entry(at).or_default().push(realistic(&mut random, id_of(trace)));
        }
    }
    requests.into_values().map(request).collect()
}

/// Scenario: traces of realistic spans wait for long; then they are decided in order. Guarantee: what is kept is what is kept
/// without compression, span for span; the buffer takes less than 0.4 times the bytes that came
/// (lz4: 0.45); what is read is
/// decompressed once or twice; in the end nothing is left.
#[test]
fn the_same_leaves_from_a_part_of_the_memory() {
    let requests = requests(4000);
    let wire: usize = requests.iter().map(Message::encoded_len).sum();
    let mut outcomes = Vec::new();
    for (codec, most) in [("none", 1.2), ("lz4", 0.45), ("zstd", 0.4)] {
        let delay = if codec == "none" { "" } else { "compression_delay: 100ms" };
        let rig = Rig::new(&format!(
            "
memory_limit_mib: 64
num_shards: 2
decision_wait: 20s
record: none
decision_cache: {{sampled_cache_size: 0, non_sampled_cache_size: 0}}
decision_log: {{size: 0}}
compression: {codec}
{delay}
rules: [{{name: some, sampling_percentage: 10}}]
"
        ));
        let empty = rig.sampler.memory();
        for (at, request) in requests.iter().enumerate() {
            rig.insert(request, millis(at as u64));
            rig.decide(millis(at as u64));
        }
        rig.decide(secs(10));
        let ratio = (rig.sampler.memory() - empty) as f64 / wire as f64;
        println!("{codec}: {ratio:.3} x wire, {empty} bytes before");
        let is_compressed = codec != "none";
        assert!(ratio < most && (is_compressed || ratio > 1.0), "{codec}: {ratio}");
        let (packed, raw) = if is_compressed { compressed(&rig) } else { (0, 0) };
        assert!(packed <= raw * 2 / 5, "{packed} of {raw}");
        let mut kept = Vec::new();
        for at in 20_000..23_000 {
            rig.decide(millis(at));
            if at % 20 == 0 {
                kept.extend(rig.take(millis(at)));
            }
        }
        assert_eq!(rig.sampler.pending(), 0);
        if is_compressed {
            let (chunks, thaws) = (raw / 4096, rig.metric("decompressed_chunks", &[]) as i64);
            println!("{codec}: {packed} of {raw} bytes, {thaws} of about {chunks} chunks were decompressed");
            assert!(thaws > chunks / 2 && thaws < 2 * chunks, "{thaws} of {chunks}");
            assert_eq!(compressed(&rig), (0, 0));
            for name in ["compressed_bytes", "compressed_original_bytes", "decompressed_chunks"] {
                assert!(README.contains(&format!("| `{name}` |")), "{name}");
            }
        }
        assert_eq!(rig.ledger.held_count(), 0);
        kept.sort_by(|one, other| one.span.span_id.cmp(&other.span.span_id));
        outcomes.push(kept);
    }
    assert!(outcomes[0].len() > 3000);
    for outcome in &outcomes[1..] {
        assert!(*outcome == outcomes[0]);
    }
}

/// Guarantee: where memory is short, full blocks are compressed, however young, before any trace is decided early.
#[test]
fn where_memory_is_short_it_compresses_first() {
    let requests = requests(3000);
    for codec in ["none", "lz4", "zstd"] {
        let delay = if codec == "none" { "" } else { "compression_delay: 1h" };
        let rig = Rig::new(&format!(
            "
memory_limit_mib: 8
num_shards: 1
decision_wait: 2h
compression: {codec}
{delay}
rules: [{{name: all, sampling_percentage: 100}}]
"
        ));
        let (mut sent, mut kept) = (0, 0);
        for (at, request) in requests.iter().enumerate() {
            rig.insert(request, millis(at as u64));
            sent += request.resource_spans[0].scope_spans[0].spans.len();
            kept += rig.take(millis(at as u64)).len();
        }
        let early = rig.metric("early_decisions", &[("cause", "memory")]);
        println!("{codec}: {early} early, {} pending", rig.sampler.pending());
        assert_eq!(early > 0, codec == "none", "{codec}");
        kept += rig.finish(secs(10)).len();
        assert_eq!(kept, sent, "{codec}");
    }
}

/// Scenario: a trace of an hour with a span a second, among others that come and go. Guarantee: it leaves whole, nothing is
/// decided early, and the log is compacted around it.
#[test]
fn a_trace_of_an_hour_keeps_the_budget() {
    let long: Id = [0xee; 16];
    for codec in CODECS {
        let rig = Rig::new(&format!(
            "
memory_limit_mib: 4
num_shards: 1
decision_wait: 2h
decision_wait_after_last_span: 3s
compression: {codec}
compression_delay: 0s
rules: [{{name: long, sampling_percentage: 100, when: {{span_count: {{min: 2}}}}}}]
"
        ));
        let mut random = SmallRng::seed_from_u64(1);
        let mut most = 0;
        for second in 0..3600u64 {
            let mut spans: Vec<Span> =
                (0..20).map(|trace| realistic(&mut random, id_of(second * 20 + trace))).collect();
            spans.push(child(long));
            rig.insert(&request(spans), secs(second));
            rig.decide(secs(second));
            assert!(rig.sampler.pending() < 100);
            most = most.max(compressed(&rig).1);
        }
        assert!(most > 0, "something was compressed");
        assert_eq!(rig.metric("early_decisions", &[("cause", "memory")]), 0);
        rig.decide(secs(3700));
        assert_eq!(by_trace(&rig.take(secs(3700))), [(long, 3600)].into());
    }
}

/// Scenario: what nothing can compress, and spans larger than a block, between others. Guarantee: they leave as they came.
#[test]
fn what_cannot_be_compressed_leaves_as_it_came() {
    for codec in CODECS {
        let rig = Rig::new(&format!(
            "
memory_limit_mib: 32
num_shards: 2
decision_wait: 10s
record: none
tracestate: false
compression: {codec}
compression_delay: 0s
rules: [{{name: all, sampling_percentage: 100}}]
"
        ));
        let mut random = SmallRng::seed_from_u64(3);
        let mut sent = BTreeMap::new();
        for number in 0..400u64 {
            let noise: String = (0..2000).map(|_| random.random_range('!'..'~')).collect();
            let mut spans = vec![realistic(&mut random, id_of(number)), realistic(&mut random, id_of(number / 2))];
            spans.push(Span { attributes: vec![attribute("noise", text(&noise))], ..child(id_of(number)) });
            if number % 100 == 0 {
                spans.push(large_span(id_of(number), 400_000));
            }
            for span in &mut spans {
                span.span_id = random.random::<[u8; 8]>().to_vec();
                sent.insert(span.span_id.clone(), span.clone());
            }
            rig.insert(&request(spans), millis(number));
            rig.decide(millis(number));
        }
        assert!(compressed(&rig).1 > 0);
        let kept = rig.finish(secs(20));
        assert_eq!(kept.len(), sent.len());
        assert!(kept.iter().all(|kept| sent[&kept.span.span_id] == kept.span));
        assert_eq!(rig.ledger.count(Entry::SampledOut), 0);
    }
}

/// Scenario: many full blocks are to be compressed at once, and then every span that is read is in another chunk.
/// Guarantee: nobody holds a shard for more than 5 ms, and all of it is done and read in the end.
#[test]
fn compressing_and_reading_are_done_in_slices() {
    const MOST: u64 = 50_000;
    for codec in CODECS {
        let rig = Rig::new(&format!(
            "
memory_limit_mib: 256
num_shards: 1
decision_wait: 100s
compression: {codec}
compression_delay: 1s
rules: [{{name: all, sampling_percentage: 100}}]
"
        ));
        let work = || rig.sampler.most_work.swap(0, Ordering::Relaxed);
        let mut random = SmallRng::seed_from_u64(3);
        // A span of each trace a round.
        const TRACES: u64 = 200;
        for round in 0..250u64 {
            rig.insert(
                &request((0..TRACES).map(|trace| realistic(&mut random, id_of(trace))).collect()),
                millis(round),
            );
        }
        assert_eq!(compressed(&rig).1, 0);
        assert!(work() < MOST);
        for round in 0..40 {
            rig.decide(secs(2) + millis(50 * round));
        }
        let raw = compressed(&rig).1;
        assert!(raw > 15 << 20, "{raw}");
        let most = work();
        assert!((10_000..MOST).contains(&most), "{most}");
        rig.decide(secs(101));
        let kept = rig.take(secs(101));
        assert_eq!(kept.len(), 250 * TRACES as usize);
        let most = work();
        assert!((10_000..MOST).contains(&most), "{most}");
    }
}
