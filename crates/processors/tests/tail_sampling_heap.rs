//! The byte budget of `tail_sampling` against what the allocator has really handed out, after every single
//! call. A program of its own, because it counts for the whole of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test")]

mod counting;

use std::time::Duration;

use counting::held;
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::common::v1::{AnyValue, KeyValue};
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use nyquist_core::telemetry::{Entry, Ledger, Telemetry};
use nyquist_core::wire::put_len_field;
use nyquist_processors::tail_sampling::sampler::Sampler;
use prost::Message;

/// What one thread keeps from request to request to read the next (shared by all samplers of a process, and so in
/// no one's budget), the sampler's own series, and small lists of names.
const BESIDE: isize = 256 << 10;

/// A sampler that is watched.
struct Watched {
    sampler: Sampler,
    ledger: Ledger,
    _telemetry: std::sync::Arc<Telemetry>,
    /// Allocated before there was anything in it.
    base: isize,
    /// What may be allocated beside it.
    beside: isize,
    sent: u64,
    kept: u64,
    refused: u64,
    /// The most that was accounted for, and the most that was allocated.
    peak: (usize, isize),
}

impl Watched {
    /// `yaml` is a map in braces.
    fn new(yaml: &str, compression: &str) -> Self {
        let yaml = yaml.replacen('{', &format!("{{compression: {compression}, "), 1);
        let (config, _) = from_str(&yaml).expect("the configuration is valid");
        let (telemetry, ledger, base) = (Telemetry::new(), Ledger::detached(), held());
        let sampler = Sampler::new(&config, &ComponentId::of("tail_sampling"), ledger.clone(), &telemetry).unwrap();
        Self {
            sampler,
            ledger,
            _telemetry: telemetry,
            base,
            beside: BESIDE,
            sent: 0,
            kept: 0,
            refused: 0,
            peak: (0, 0),
        }
    }

    /// What is accounted for is within the limit, and no less than what is allocated.
    fn check(&mut self) {
        let (accounted, limit) = (self.sampler.memory(), self.sampler.memory_limit());
        assert!(accounted <= limit, "{accounted} bytes are accounted for, of {limit}");
        let allocated = held() - self.base;
        assert!(
            allocated <= accounted as isize + self.beside,
            "{allocated} bytes are allocated, {accounted} are accounted for"
        );
        self.peak = (self.peak.0.max(accounted), self.peak.1.max(allocated));
    }

    fn insert(&mut self, spans: Vec<Span>, now: Duration) {
        let count = spans.len() as u64;
        let service = attribute("service.name", "shop");
        let resource = Some(Resource { attributes: vec![service], ..Resource::default() });
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let data =
            TracesData { resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }] };
        let message = data.encode_to_vec();
        drop(data);
        // The request itself is its sender's.
        self.base += message.capacity() as isize;
        let outcome = self.sampler.insert(&message, now);
        self.check();
        self.base -= message.capacity() as isize;
        drop(message);
        match outcome {
            Ok(()) => self.sent += count,
            Err(refusal) => {
                assert!(refusal.is_retryable(), "{refusal}");
                self.refused += 1;
            }
        }
        self.check();
    }

    fn decide(&mut self, now: Duration) {
        for shard in 0..self.sampler.shards() {
            while self.sampler.decide(shard, now, 100) {
                self.check();
            }
        }
        self.check();
    }

    fn take(&mut self, now: Duration) {
        for shard in 0..self.sampler.shards() {
            while let Some(out) = self.sampler.take(shard, now) {
                self.check();
                self.kept += out.batch().items() as u64;
                out.accepted();
                self.check();
            }
        }
    }

    /// Decides and takes all that is left: every span was kept or sampled out, and the memory is given back.
    fn finish(mut self, now: Duration) -> (usize, isize) {
        for shard in 0..self.sampler.shards() {
            while self.sampler.decide_all(shard, now, 100, false) {
                self.check();
            }
        }
        self.take(now);
        assert_eq!(self.kept + self.ledger.count(Entry::SampledOut), self.sent);
        assert_eq!(self.ledger.held_count(), 0);
        for round in 0..1000 {
            self.decide(now + Duration::from_secs(10) + Duration::from_millis(50 * round));
        }
        let limit = self.sampler.memory_limit();
        assert!(self.sampler.memory() < limit / 3, "{} of {limit} after everything has left", self.sampler.memory());
        self.peak
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// A trace id that looks random.
fn id(number: u64) -> Vec<u8> {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut id = vec![7; 16];
    id[8..].copy_from_slice(&(mixed ^ mixed >> 29).to_be_bytes());
    id
}

fn span(trace_id: Vec<u8>, filling: usize) -> Span {
    Span {
        trace_id,
        span_id: vec![1; 8],
        parent_span_id: vec![2; 8],
        name: "GET /".to_owned(),
        start_time_unix_nano: 1_000_000_000,
        end_time_unix_nano: 1_100_000_000,
        attributes: vec![attribute("filling", &"x".repeat(filling))],
        ..Span::default()
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Scenario: one trace that never ends, of ten times the budget, among small ones; with a limit for traces and
/// without, kept and not kept, with a next stage that takes and one that does not. Guarantee: after every call the
/// account is within the limit, and true.
fn an_endless_trace(compression: &str) {
    for (name, limit, percentage, is_taken) in [
        ("kept", "", 100, true),
        ("without a limit", "maximum_trace_size_bytes: 0", 100, true),
        ("not kept", "maximum_trace_size_bytes: 0", 0, true),
        ("stuck", "", 100, false),
    ] {
        let mut watched = Watched::new(
            &format!(
                "{{memory_limit_mib: 8, num_shards: 2, decision_wait: 1s, {limit}{} rules: [{{name: all, sampling_percentage: {percentage}}}]}}",
                if limit.is_empty() { "" } else { "," }
            ),
            compression,
        );
        for number in 0..8000u64 {
            let now = millis(number);
            let mut spans: Vec<Span> = (0..5).map(|_| span(vec![0xee; 16], 2000)).collect();
            spans.push(span(id(number), 300));
            watched.insert(spans, now);
            watched.decide(now);
            if is_taken && number % 10 == 0 {
                watched.take(now);
            }
        }
        // These spans are so much alike that, compressed, all of them may find room.
        let is_stuck = !is_taken && compression == "none";
        assert!(watched.refused == 0 || !is_taken, "{name}: {} requests were refused", watched.refused);
        assert!(watched.refused > 0 || !is_stuck, "{name}: none was refused");
        let limit = watched.sampler.memory_limit();
        let peak = watched.finish(millis(100_000));
        println!("endless, {name}: at most {} KiB accounted for, {} KiB allocated", peak.0 >> 10, peak.1 >> 10);
        assert!(!is_stuck || peak.0 > limit / 2, "{name}: it was full");
    }
}

/// Scenario: a million spans, each of a trace of its own. Guarantee: as above.
fn a_flood_of_trace_ids(compression: &str) {
    let mut watched = Watched::new(
        "{memory_limit_mib: 16, num_shards: 4, decision_wait_after_root_received: 20s, \
         decision_wait_after_last_span: 20s, rules: [{name: some, sampling_percentage: 1}]}",
        compression,
    );
    for group in 0..10_000u64 {
        let now = millis(group);
        let root = |number| Span { parent_span_id: vec![], attributes: vec![], ..span(id(number), 0) };
        watched.insert((0..100).map(|number| root(group * 100 + number)).collect(), now);
        if group % 50 == 0 {
            watched.decide(now);
            watched.take(now);
        }
    }
    let limit = watched.sampler.memory_limit();
    assert!(watched.sampler.pending() > 30_000, "{} traces are held", watched.sampler.pending());
    let peak = watched.finish(millis(200_000));
    println!("flood: at most {} KiB accounted for, {} KiB allocated", peak.0 >> 10, peak.1 >> 10);
    assert!(peak.0 > limit / 2, "it was full");
}

/// Scenario: a trace of an hour with a span a second, among others that come and go. Guarantee: as above; it leaves
/// whole.
fn a_trace_of_an_hour(compression: &str) {
    let mut watched = Watched::new(
        "{memory_limit_mib: 4, num_shards: 1, decision_wait: 2h, decision_wait_after_last_span: 3s, maximum_trace_size_bytes: 0, \
         rules: [{name: long, sampling_percentage: 100, when: {span_count: {min: 2}}}]}",
        compression,
    );
    for second in 0..3600u64 {
        let mut spans: Vec<Span> = (0..5).map(|number| span(id(second * 5 + number), 1000)).collect();
        spans.push(span(vec![0xee; 16], 100));
        watched.insert(spans, millis(second * 1000));
        watched.decide(millis(second * 1000));
        watched.take(millis(second * 1000));
    }
    assert_eq!(watched.kept, 0, "nothing was decided early");
    watched.decide(millis(3700 * 1000));
    watched.take(millis(3700 * 1000));
    assert_eq!(watched.kept, 3600);
    let peak = watched.finish(millis(3800 * 1000));
    println!("an hour: at most {} KiB accounted for, {} KiB allocated", peak.0 >> 10, peak.1 >> 10);
}

/// Scenario: every span has a resource and a scope of its own, kept ones get attributes. Guarantee: as above.
fn resources_of_their_own(compression: &str) {
    let mut watched = Watched::new(
        "{memory_limit_mib: 8, num_shards: 2, decision_wait: 1s, record: all, rules: [{name: half, sampling_percentage: 50}]}",
        compression,
    );
    for number in 0..20_000u64 {
        let now = millis(number);
        let service = attribute("service.name", &format!("{number} {}", "y".repeat(300)));
        let resource = Some(Resource { attributes: vec![service], ..Resource::default() });
        let scope_spans = vec![ScopeSpans { spans: vec![span(id(number), 500)], ..ScopeSpans::default() }];
        let data =
            TracesData { resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }] };
        let message = data.encode_to_vec();
        drop(data);
        if watched.sampler.insert(&message, now).is_ok() {
            watched.sent += 1;
        }
        drop(message);
        watched.check();
        watched.decide(now);
        if number % 100 == 0 {
            watched.take(now);
        }
    }
    let peak = watched.finish(millis(100_000));
    println!("resources: at most {} KiB accounted for, {} KiB allocated", peak.0 >> 10, peak.1 >> 10);
}

/// Scenario: long traces of spans that can be compressed, that cannot, and of large ones, of which half are kept and
/// handed on late, twice as much as there is room for. Guarantee: as above.
fn a_mixture(compression: &str) {
    let mut watched = Watched::new(
        "{memory_limit_mib: 8, num_shards: 2, decision_wait: 3s, maximum_trace_size_bytes: 0, \
         rules: [{name: half, sampling_percentage: 50}]}",
        compression,
    );
    let mut state = 1u64;
    for number in 0..12_000u64 {
        let now = millis(number);
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{:016x}", state ^ state >> 29)
        };
        // Each trace has a span every 100 ms, for two seconds.
        let mut spans: Vec<Span> =
            (0..5).map(|nth| span(id(number % 100 + nth * 100 + number / 2000 * 1000), 800)).collect();
        spans[0].attributes = (0..50).map(|_| attribute(&noise(), &noise())).collect();
        if number % 500 == 0 {
            spans.push(span(id(number), 300_000));
        }
        watched.insert(spans, now);
        watched.decide(now);
        if number % 700 == 0 {
            watched.take(now);
        }
    }
    assert!(watched.kept > 1000, "{} were kept", watched.kept);
    let peak = watched.finish(millis(100_000));
    println!("mixture: at most {} KiB accounted for, {} KiB allocated", peak.0 >> 10, peak.1 >> 10);
}

/// What one thread keeps of the largest request, to read the next: runs of spans, headers and their bytes.
const KEPT: isize = 4 << 20;

/// Spans with nothing but an id, each as a field of its scope.
fn tiny(numbers: std::ops::Range<u64>) -> impl Iterator<Item = Vec<u8>> {
    numbers.map(|number| field(2, &field(1, &id(number))))
}

fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_len_field(&mut out, number, content);
    out
}

/// Scenario: requests of a million empty scopes or resources, of many spans each in a scope of its own, of many traces; taken
/// in or refused; with what makes the sampler take notes on the traces of a request. Guarantee: what reading such a
/// request has taken is given back, by the thread and by the shards.
fn what_a_request_leaves() {
    let few = || tiny(0..100).collect::<Vec<_>>().concat();
    let none = |number: u32| field(number, &[]).repeat(1 << 20);
    let requests = [
        ("empty scopes", field(1, &[none(2), field(2, &few()), none(2)].concat())),
        ("empty resources", [none(1), field(1, &field(2, &few())), none(1)].concat()),
        ("scopes", field(1, &tiny(0..60_000).flat_map(|span| field(2, &span)).collect::<Vec<_>>())),
        ("traces", field(1, &field(2, &tiny(0..100_000).collect::<Vec<_>>().concat()))),
    ];
    for rules in [
        "rules: [{name: none, sampling_percentage: 0}]",
        "rules: [{name: rate, adaptive: {goal_spans_per_second: 10, keys: [span_name]}}]",
        "policies: [{name: slow, type: latency, latency: {threshold_ms: 1000}}], sampling_strategy: span-ingest",
        "policies: [{name: few, type: bytes_limiting, bytes_limiting: {bytes_per_second: 10}}]",
    ] {
        for ((name, message), is_taken) in requests.iter().flat_map(|request| [(request, true), (request, false)]) {
            let limit = if is_taken { 128 } else { 5 };
            let mut watched = Watched::new(
                &format!(
                    "{{memory_limit_mib: {limit}, num_shards: 2, decision_cache: {{sampled_cache_size: 100, non_sampled_cache_size: 100}}, {rules}}}"
                ),
                "none",
            );
            watched.beside = KEPT;
            let empty = watched.sampler.memory() as isize;
            let outcome = watched.sampler.insert(message, millis(0));
            assert_eq!(outcome.is_ok(), is_taken, "{name}, {rules}: {outcome:?}");
            watched.check();
            for shard in 0..2 {
                while watched.sampler.decide_all(shard, millis(0), 1000, true) {}
            }
            watched.take(millis(0));
            for round in 0..1000 {
                watched.decide(millis(60_000 + 50 * round));
            }
            let accounted = watched.sampler.memory() as isize - empty;
            assert!(accounted < 1 << 20, "{name}, {rules}: {accounted} bytes stay accounted for");
            let base = watched.base;
            drop(watched);
            let left = held() - base;
            assert!(left < KEPT, "{name}, {rules}: the thread keeps {left} bytes");
        }
    }
}

/// One test, because the counter is that of the whole process.
#[test]
fn the_account_is_within_the_limit_and_true_after_every_call() {
    what_a_request_leaves();
    // With a delay of 0, so that all that is full is compressed, linked and read so.
    for compression in ["none", "lz4, compression_delay: 0s", "zstd, compression_delay: 0s"] {
        println!("compression: {compression}");
        an_endless_trace(compression);
        a_flood_of_trace_ids(compression);
        a_trace_of_an_hour(compression);
        resources_of_their_own(compression);
        a_mixture(compression);
    }
}
