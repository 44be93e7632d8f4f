//! Fills a tail sampler with 10 million spans and prints what that takes: accounted and resident memory
//! over the bytes that came, and the longest call while tables grew.
//!
//!     cargo run --release -p nyquist-processors --example tail_sampling_memory [-- spans [spans-per-trace]]
//!
//! Spans come one by one in turn over fifty traces, so that none of a trace stand together: the worst case.

#![allow(clippy::print_stdout, clippy::expect_used, missing_docs, reason = "a measuring program")]

#[path = "../benches/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::{Requests, SPANS_PER_REQUEST, SPANS_PER_TRACE, resident};
use nyquist_core::config::ComponentId;
use nyquist_core::runtime::use_small_pages;
use nyquist_core::telemetry::{Ledger, Telemetry};
use nyquist_processors::tail_sampling::config::TailSamplingConfig;
use nyquist_processors::tail_sampling::sampler::Sampler;

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONFIG: &str = "
decision_wait: 30s
decision_wait_after_root_received: 20s
decision_wait_after_last_span: 20s
memory_limit_mib: 16384
rules: [{name: default, sampling_percentage: 5}]
";

/// Nanoseconds that this thread has been on a processor: without those in which others were.
fn on_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number of nanoseconds")
}

fn main() {
    use_small_pages(); // as the gateway does
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse().expect("a number"));
    let spans: usize = numbers.next().unwrap_or(10_000_000);
    let per_trace: usize = numbers.next().unwrap_or(SPANS_PER_TRACE);
    let config: TailSamplingConfig = serde_yaml::from_str(CONFIG).expect("the configuration is sound");
    let telemetry = Telemetry::new();
    let sampler = Sampler::new(&config, &ComponentId::of("tail_sampling"), Ledger::detached(), &telemetry)
        .expect("the configuration is valid");
    let mut requests = if per_trace == 1 { Requests::of_single_spans() } else { Requests::new(true) };
    // Tables of past decisions, which are there from the start.
    let fixed = sampler.memory();
    let before = resident();
    let (mut wire, mut longest, mut all) = (0, Duration::ZERO, Duration::ZERO);
    let mut busiest = Vec::new();
    for request in 0..spans / SPANS_PER_REQUEST {
        let message = requests.refresh(request);
        wire += message.len();
        let (begin, cpu) = (Instant::now(), on_cpu());
        sampler.insert(message, Duration::ZERO).expect("there is room");
        all += begin.elapsed();
        longest = longest.max(begin.elapsed());
        busiest.push((on_cpu() - cpu, request));
    }
    let traces = sampler.pending();
    println!("{spans} spans in {traces} traces, {:.0} bytes a span on the wire", wire as f64 / spans as f64);
    println!(
        "accounted {:.3} x wire, resident {:.3} x wire",
        ratio(sampler.memory(), wire),
        ratio(resident() - before, wire)
    );
    let beside = (sampler.memory() - fixed).saturating_sub(wire) as f64;
    println!(
        "beside the wire: {:.1} bytes a trace, {:.1} of them in {per_trace} records of 16 to 19; and {:.1} MB from the start",
        beside / traces as f64,
        beside / traces as f64 - sampler.table_memory() as f64 / traces as f64,
        fixed as f64 / 1e6
    );
    println!("a trace without its records: {:.1} bytes", sampler.table_memory() as f64 / traces as f64);
    println!("{:.0} ns a span, longest call {longest:?}", all.as_nanos() as f64 / spans as f64);
    busiest.sort_unstable_by(|one, other| other.cmp(one));
    let slow = busiest.iter().filter(|&&(nanos, _)| nanos > 5_000_000).count();
    println!("{slow} of {} calls took over 5 ms of CPU time; the longest (us, number of the call):", busiest.len());
    println!("{:?}", busiest.iter().take(8).map(|&(nanos, call)| (nanos / 1000, call)).collect::<Vec<_>>());
}

fn ratio(bytes: usize, wire: usize) -> f64 {
    bytes as f64 / wire as f64
}
