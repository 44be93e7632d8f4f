//! CPU time of the tail sampler per span: read, insert, decide, assemble; in steady state, on one
//! thread, with realistic spans of about 410 bytes in traces of ten.
//!
//!     cargo bench -p nyquist-processors --bench tail_sampling [-- seconds]

#![allow(clippy::print_stdout, clippy::expect_used, missing_docs, reason = "a measuring program")]

mod common;

use std::time::{Duration, Instant};

use common::{REQUESTS, Requests, SPANS_PER_REQUEST, resident};
use nyquist_core::config::ComponentId;
use nyquist_core::telemetry::{Ledger, Telemetry};
use nyquist_processors::tail_sampling::config::TailSamplingConfig;
use nyquist_processors::tail_sampling::sampler::Sampler;

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TICK: Duration = Duration::from_millis(100);

/// As if so many spans a second came in: with a wait of 5 s the buffer holds five times that.
fn spans_per_second() -> f64 {
    std::env::var("SPANS_PER_SECOND").ok().and_then(|number| number.parse().ok()).unwrap_or(60_000.0)
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number"))
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
