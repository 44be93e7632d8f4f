//! CPU time of the tail sampler per span: read, insert, decide, assemble; in steady state, on one
//! thread, with realistic spans of about 410 bytes in traces of ten.
//!
//!     cargo bench -p nyquist-processors --bench tail_sampling [-- seconds]

#![allow(clippy::print_stdout, clippy::expect_used, missing_docs, reason = "a measuring program")]

use std::time::{Duration, Instant};

use nyquist_core::config::ComponentId;
use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use nyquist_core::telemetry::{Ledger, Telemetry};
use nyquist_processors::tail_sampling::config::TailSamplingConfig;
use nyquist_processors::tail_sampling::sampler::Sampler;
use prost::Message;

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SPANS_PER_REQUEST: usize = 500;
const SPANS_PER_TRACE: usize = 10;
/// Few enough to be in a cache, as a request that has just been received is.
const REQUESTS: usize = 8;
const TICK: Duration = Duration::from_millis(100);

/// As if so many spans a second came in: with a wait of 5 s the buffer holds five times that.
fn spans_per_second() -> f64 {
    std::env::var("SPANS_PER_SECOND").ok().and_then(|number| number.parse().ok()).unwrap_or(60_000.0)
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn span(id: [u8; 16], number: usize, random: u64) -> Span {
    let start = 1_700_000_000_000_000_000 + random % 1_000_000_000;
    let slow = random.is_multiple_of(200);
    Span {
        trace_id: id.to_vec(),
        span_id: random.to_le_bytes().to_vec(),
        parent_span_id: if number == 0 { vec![] } else { vec![3; 8] },
        name: "GET /api/v1/orders/{id}".to_owned(),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + if slow { 2_000_000_000 } else { 10_000_000 },
        attributes: vec![
            text("http.request.method", "GET"),
            attribute("http.response.status_code", Value::IntValue(200)),
            text("url.path", "/api/v1/orders/8841"),
            text("server.address", "orders.shop.svc"),
            attribute("server.port", Value::IntValue(8080)),
            text("network.peer.address", "10.20.30.40"),
            text("user.id", format!("user-{}", random % 10_000)),
            text("user_agent.original", "okhttp/4.12"),
            text("http.route", "/api/v1/orders/{id}"),
            text("thread.name", "worker-7"),
        ],
        status: random.is_multiple_of(500).then(|| Status { code: 2, ..Status::default() }),
        flags: 0x101,
        ..Span::default()
    }
}

/// A message, and which trace id of the request stands where.
type Template = (Vec<u8>, Vec<(usize, usize)>);

/// Requests whose trace ids can be changed in place, and where those are.
struct Requests {
    messages: Vec<Template>,
    random: u64,
}

impl Requests {
    /// `interleaved`: the spans of the traces of a request take turns.
    fn new(interleaved: bool) -> Self {
        let mut random = 88_172_645_463_325_252;
        let mut messages = Vec::new();
        for _ in 0..REQUESTS {
            let traces = SPANS_PER_REQUEST / SPANS_PER_TRACE;
            let mut spans = Vec::new();
            for index in 0..SPANS_PER_REQUEST {
                let (trace, number) = if interleaved {
                    (index % traces, index / traces)
                } else {
                    (index / SPANS_PER_TRACE, index % SPANS_PER_TRACE)
                };
                let mut id = [0xfe; 16];
                id[15] = trace as u8;
                spans.push(span(id, number, next(&mut random)));
            }
            let scope = InstrumentationScope { name: "io.shop.orders".to_owned(), ..InstrumentationScope::default() };
            let resource = Resource {
                attributes: vec![
                    text("service.name", "orders"),
                    text("service.version", "1.2.3"),
                    text("host.name", "node-17"),
                    text("k8s.pod.name", "orders-5f6d8c7b9-xk2lp"),
                ],
                ..Resource::default()
            };
            let data = TracesData {
                resource_spans: vec![ResourceSpans {
                    resource: Some(resource),
                    scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }],
                    ..ResourceSpans::default()
                }],
            };
            let message = data.encode_to_vec();
            let ids = (0..message.len() - 15)
                .filter(|&at| message[at..at + 15] == [0xfe; 15])
                .map(|at| (at, usize::from(message[at + 15])))
                .collect();
            messages.push((message, ids));
        }
        Self { messages, random }
    }

    /// Gives the request new trace ids.
    fn refresh(&mut self, index: usize) -> &[u8] {
        let (message, places) = &mut self.messages[index % REQUESTS];
        let seed = next(&mut self.random);
        for &(at, trace) in places.iter() {
            let mut state = seed ^ (trace as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            message[at..at + 8].copy_from_slice(&next(&mut state).to_le_bytes());
            message[at + 8..at + 16].copy_from_slice(&next(&mut state).to_le_bytes());
        }
        message
    }
}

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
}

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("this is Linux");
    let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

fn measure(name: &str, rules: &str, interleaved: bool, seconds: f64) {
    let yaml = format!("{{decision_wait: 5s, memory_limit_mib: 1024, {rules}}}");
    let config: TailSamplingConfig = serde_yaml::from_str(&yaml).expect("the configuration is sound");
    let telemetry = Telemetry::new();
    let sampler = Sampler::new(&config, &ComponentId::of("tail_sampling"), Ledger::detached(), &telemetry)
        .expect("the configuration is valid");
    let mut requests = Requests::new(interleaved);
    let bytes = requests.messages.iter().map(|(message, _)| message.len()).sum::<usize>();
    let span_bytes = bytes as f64 / (REQUESTS * SPANS_PER_REQUEST) as f64;

    let before = resident();
    let rate = spans_per_second();
    let step = Duration::from_secs_f64(SPANS_PER_REQUEST as f64 / rate);
    let (mut now, mut next_tick) = (Duration::ZERO, TICK);
    let (mut spent, mut spans, mut kept) = (Duration::ZERO, 0usize, 0usize);
    let mut parts = [Duration::ZERO; 3];
    // Two waits to fill and turn over, then the measurement.
    let warm = Duration::from_secs(12);
    let (mut memory, mut held, mut cpu_before) = (0, 0, Duration::ZERO);
    for index in 0.. {
        let message = requests.refresh(index);
        let begin = Instant::now();
        sampler.insert(message, now).expect("there is room");
        let inserted = Instant::now();
        parts[0] += inserted - begin;
        now += step;
        if now >= next_tick {
            next_tick += TICK;
            for shard in 0..sampler.shards() {
                let begin = Instant::now();
                while sampler.decide(shard, now, 256) {}
                let decided = Instant::now();
                while let Some(out) = sampler.take(shard, now) {
                    kept += out.batch().items();
                    out.accepted();
                }
                parts[1] += decided - begin;
                parts[2] += decided.elapsed();
            }
        }
        spent += begin.elapsed();
        spans += SPANS_PER_REQUEST;
        if now < warm {
            (spent, spans, kept, parts) = (Duration::ZERO, 0, 0, [Duration::ZERO; 3]);
            (memory, held, cpu_before) = (sampler.memory(), resident() - before, cpu());
        } else if spent.as_secs_f64() > seconds {
            break;
        }
    }
    let cpu_after = cpu();
    for index in 0..spans / SPANS_PER_REQUEST {
        std::hint::black_box(requests.refresh(index));
    }
    let refreshing = cpu() - cpu_after;
    let per_span = |duration: Duration| duration.as_nanos() as f64 / spans as f64;
    let buffered = rate * 5.0 * span_bytes;
    println!(
        "{name:24} {:6.1} ns CPU/span  (wall {:.1}: read+insert {:.1}, decide {:.1}, assemble {:.1}; kept {:.1} %; {span_bytes:.0} \
         bytes/span; memory {:.3}, resident {:.3} x wire)",
        per_span((cpu_after - cpu_before).saturating_sub(refreshing)),
        per_span(spent),
        per_span(parts[0]),
        per_span(parts[1]),
        per_span(parts[2]),
        100.0 * kept as f64 / spans as f64,
        memory as f64 / buffered,
        held as f64 / buffered,
    );
}

fn main() {
    let seconds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(2.0);
    let only = std::env::args().nth(1).filter(|argument| argument.starts_with(char::is_alphabetic));
    let rules = |default: u32| {
        format!(
            "rules: [\
            {{name: vip, sampling_percentage: 100, when: {{attribute: {{key: user.id, scope: span, values: [user-1, user-2]}}}}}},\
            {{name: errors, sampling_percentage: 100, when: {{error: true}}}},\
            {{name: slow, sampling_percentage: 50, when: {{latency: {{threshold: 1s}}}}}},\
            {{name: default, sampling_percentage: {default}}}]"
        )
    };
    // Every trace of the benchmark is slow or failed with a small probability of its own.
    let cases = [
        ("whole_traces", rules(5), false),
        ("interleaved", rules(5), true),
        ("whole_traces_all_kept", rules(100), false),
        ("interleaved_all_kept", rules(100), true),
    ];
    for (name, rules, interleaved) in cases {
        if only.as_deref().is_none_or(|only| only == name) {
            measure(name, &rules, interleaved, seconds);
        }
    }
}
