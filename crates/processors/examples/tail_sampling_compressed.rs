//! What `compression` of the tail sampler's buffer saves, and what it costs: memory over the bytes that came, and CPU time a
//! span, for each codec.
//!
//!     cargo run --release -p nyquist-processors --example tail_sampling_compressed [-- spans]
//!
//! So many spans (1,000,000) come in each 30 s of simulated time, the wait of the sampler, in requests of 500 and traces of ten;
//! 10 % of the traces are kept. The buffer is filled, its memory is measured, and then it turns over once more, while CPU time
//! is. The spans of a trace come over 2 s, or, in a second run, within two requests: what is read to hand a trace on lies far
//! apart, or close together.
//!
//! A span has some 460 bytes, of which nothing is the same in all: ids of traces, spans and parents, times, a number in the
//! path, a user and an address are random in each, routes, methods, statuses, user agents, threads and pods are drawn from
//! short lists, as in real traffic. Every measurement is a process of its own.

#![allow(clippy::print_stdout, clippy::expect_used, missing_docs, reason = "a measuring program")]

#[path = "../benches/common/mod.rs"]
mod common;

use std::process::Command;
use std::time::Duration;

use common::{SPANS_PER_REQUEST, SPANS_PER_TRACE, resident};
use nyquist_core::config::ComponentId;
use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::common::v1::{AnyValue, KeyValue};
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use nyquist_core::runtime::use_small_pages;
use nyquist_core::telemetry::{Ledger, Telemetry};
use nyquist_processors::tail_sampling::config::TailSamplingConfig;
use nyquist_processors::tail_sampling::sampler::Sampler;
use prost::Message;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WAIT: Duration = Duration::from_secs(30);
/// As the sampler's tasks do.
const TICK: Duration = Duration::from_millis(50);
const CHUNK: f64 = 4096.0;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [codec, spans, open] = arguments.as_slice() {
        use_small_pages(); // as the gateway does
        return measure(codec, spans.parse().expect("a number"), open.parse().expect("a number"));
    }
    let spans: usize = arguments.first().map_or(1_000_000, |spans| spans.parse().expect("a number of spans"));
    println!(
        "| compression | spans of a trace | resident / wire | accounted / wire | ns a span: insert | decide, compress | hand on | all | \
         times a chunk is decompressed |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let open_for_2_s = spans * 2 / WAIT.as_secs() as usize / SPANS_PER_TRACE;
    for open in [open_for_2_s, SPANS_PER_REQUEST / SPANS_PER_TRACE] {
        for codec in ["none", "lz4", "zstd"] {
            let program = std::env::current_exe().expect("it runs");
            let status = Command::new(program).args([codec, &spans.to_string(), &open.to_string()]).status();
            assert!(status.expect("it can be started").success());
        }
    }
}

/// Spans of so many open traces, each of which gets the next with the same probability.
struct Traffic {
    random: SmallRng,
    open: Vec<([u8; 16], usize)>,
}

impl Traffic {
    fn new(open: usize) -> Self {
        let mut random = SmallRng::seed_from_u64(7);
        // Those that are there at the beginning are of all ages.
        let open = (0..open).map(|_| (random.random(), random.random_range(0..SPANS_PER_TRACE))).collect();
        Self { random, open }
    }

    fn request(&mut self, now: Duration) -> Vec<u8> {
        let spans = (0..SPANS_PER_REQUEST).map(|_| self.span(now)).collect();
        let pod = format!("orders-5f6d8c7b9-{:02}", self.random.random_range(0..40));
        let resource = Resource {
            attributes: vec![
                text("service.name", "orders"),
                text("service.version", "1.2.3"),
                text("k8s.pod.name", &pod),
            ],
            ..Resource::default()
        };
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let resource_spans = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
        TracesData { resource_spans: vec![resource_spans] }.encode_to_vec()
    }

    fn span(&mut self, now: Duration) -> Span {
        let random = &mut self.random;
        let trace = random.random_range(0..self.open.len());
        let (id, sent) = &mut self.open[trace];
        if *sent == SPANS_PER_TRACE {
            (*id, *sent) = (random.random(), 0);
        }
        *sent += 1;
        let (id, is_root) = (*id, *sent == SPANS_PER_TRACE);
        let mut pick = |list: &[&'static str]| list[random.random_range(0..list.len())];
        let route = pick(&["orders", "carts", "users", "payments", "inventory", "search", "reviews", "invoices"]);
        let method = pick(&["GET", "GET", "POST", "PUT", "DELETE"]);
        let agent = pick(&[
            "okhttp/4.12",
            "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0",
            "python-requests/2.32",
        ]);
        let status = [200, 200, 200, 201, 404, 500][random.random_range(0..6)];
        let start = 1_700_000_000_000_000_000 + now.as_nanos() as u64
            - random.random_range(0..2_000_000_000u64).min(now.as_nanos() as u64);
        Span {
            trace_id: id.to_vec(),
            span_id: random.random::<[u8; 8]>().to_vec(),
            parent_span_id: if is_root { vec![] } else { random.random::<[u8; 8]>().to_vec() },
            name: format!("{method} /api/v1/{route}/{{id}}"),
            kind: random.random_range(1..4),
            start_time_unix_nano: start,
            end_time_unix_nano: start + random.random_range(10_000..200_000_000u64),
            attributes: vec![
                text("http.request.method", method),
                attribute("http.response.status_code", Value::IntValue(status)),
                text("url.path", &format!("/api/v1/{route}/{}", random.random_range(1000..10_000_000))),
                text("server.address", &format!("{route}.shop.svc")),
                attribute("server.port", Value::IntValue(8080)),
                text(
                    "network.peer.address",
                    &format!("10.{}.{}.{}", random.random_range(0..4), random.random::<u8>(), random.random::<u8>()),
                ),
                text("user.id", &format!("user-{}", random.random_range(0..1_000_000))),
                text("user_agent.original", agent),
                text("http.route", &format!("/api/v1/{route}/{{id}}")),
                text("thread.name", &format!("worker-{}", random.random_range(0..64))),
            ],
            flags: 0x101,
            ..Span::default()
        }
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Nanoseconds that this thread has been on a processor: without those in which others were.
fn on_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number of nanoseconds")
}

/// What inserting, deciding and handing on have taken, in nanoseconds.
#[derive(Default)]
struct Took([u64; 3]);

impl Took {
    fn add(&mut self, part: usize, work: impl FnOnce()) {
        let begin = on_cpu();
        work();
        self.0[part] += on_cpu() - begin;
    }
}

fn measure(codec: &str, spans: usize, open: usize) {
    let yaml = format!(
        "{{decision_wait: {}s, memory_limit_mib: 8192, num_shards: 4, compression: {codec}, \
         rules: [{{name: default, sampling_percentage: 10}}]}}",
        WAIT.as_secs()
    );
    let config: TailSamplingConfig = serde_yaml::from_str(&yaml).expect("the configuration is sound");
    let telemetry = Telemetry::new();
    let sampler = Sampler::new(&config, &ComponentId::of("tail_sampling"), Ledger::detached(), &telemetry)
        .expect("the configuration is valid");
    let mut traffic = Traffic::new(open);
    let requests = spans / SPANS_PER_REQUEST;
    let step = WAIT / requests as u32;
    // What is generated and what is counted is there before.
    drop(traffic.request(Duration::ZERO));
    let (fixed, before) = (sampler.memory(), resident());
    let (mut now, mut next_tick) = (Duration::ZERO, TICK);
    let mut turn = |took: &mut Took| {
        let mut wire = 0;
        for _ in 0..requests {
            let message = traffic.request(now);
            wire += message.len();
            took.add(0, || sampler.insert(&message, now).expect("there is room"));
            drop(message);
            now += step;
            if now < next_tick {
                continue;
            }
            next_tick += TICK;
            for shard in 0..sampler.shards() {
                took.add(1, || while sampler.decide(shard, now, 256) {});
                took.add(2, || {
                    while let Some(out) = sampler.take(shard, now) {
                        out.accepted();
                    }
                });
            }
        }
        wire
    };
    let wire = turn(&mut Took::default()) as f64;
    let (resident, accounted) = ((resident() - before) as f64 / wire, (sampler.memory() - fixed) as f64 / wire);
    let metric = |name: &str| format!("otelcol_processor_tail_sampling_{name}");
    let help = "what it is";
    let compressed = codec != "none";
    let chunks = if compressed {
        telemetry.gauge(&metric("compressed_original_bytes"), help, &[]).get() as f64 / CHUNK
    } else {
        0.0
    };
    let thaws =
        || if compressed { telemetry.counter(&metric("decompressed_chunks"), help, &[]).get() as f64 } else { 0.0 };
    let thawed = thaws();
    let mut took = Took::default();
    turn(&mut took);
    let nanos = took.0.map(|nanos| nanos as f64 / spans as f64);
    let [insert, decide, take] = nanos;
    let times = if compressed { format!("{:.2}", (thaws() - thawed) / chunks) } else { "-".to_owned() };
    let over = if open == SPANS_PER_REQUEST / SPANS_PER_TRACE { "close together" } else { "over 2 s" };
    println!(
        "| {codec} | {over} | {resident:.3} | {accounted:.3} | {insert:.0} | {decide:.0} | {take:.0} | {:.0} | {times} |",
        insert + decide + take
    );
}
