//! What a second core gives: spans a second through one tail sampler (read, insert, decide, assemble) from one thread and
//! from two, in turns, and from two threads with a sampler each: what the machine gives. Every thread decides the shards
//! that are its own, as a worker of the gateway does.
//!
//!     cargo run --release -p nyquist-processors --example tail_sampling_cores [-- rounds [num_shards]]

#![allow(clippy::print_stdout, clippy::expect_used, missing_docs, reason = "a measuring program")]

#[path = "../benches/common/mod.rs"]
mod common;

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use common::{Requests, SPANS_PER_REQUEST};
use nyquist_core::config::ComponentId;
use nyquist_core::runtime::use_small_pages;
use nyquist_core::telemetry::{Ledger, Telemetry};
use nyquist_processors::tail_sampling::config::TailSamplingConfig;
use nyquist_processors::tail_sampling::sampler::Sampler;

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONFIG: &str = "
decision_wait: 250ms
memory_limit_mib: 12288
rules:
  - {name: vip, sampling_percentage: 100, when: {attribute: {key: user.id, scope: span, values: [user-1, user-2]}}}
  - {name: errors, sampling_percentage: 100, when: {error: true}}
  - {name: slow, sampling_percentage: 50, when: {latency: {threshold: 1s}}}
  - {name: default, sampling_percentage: 10}
";

/// Until the buffer is as full as it gets and its memory has been touched.
const WARM_UP: Duration = Duration::from_secs(6);
const WINDOW: Duration = Duration::from_secs(4);
const TICK: Duration = Duration::from_millis(10);

/// Feeds `sampler` until the window is over; spans taken in within the window.
fn feed(sampler: &Sampler, own: usize, threads: usize, begin: Instant) -> usize {
    let mut requests = Requests::new(false).of_thread(own);
    let (mut spans, mut next_tick) = (0, TICK);
    for index in 0.. {
        let now = begin.elapsed();
        if now > WARM_UP + WINDOW {
            break;
        }
        sampler.insert(requests.refresh(index), now).expect("there is room");
        if now > WARM_UP {
            spans += SPANS_PER_REQUEST;
        }
        if now < next_tick {
            continue;
        }
        next_tick = now + TICK;
        for shard in (own..sampler.shards()).step_by(threads) {
            while sampler.decide(shard, now, 256) {}
            while let Some(out) = sampler.take(shard, now) {
                out.accepted();
            }
        }
    }
    spans
}

fn sampler(telemetry: &Arc<Telemetry>) -> Sampler {
    let mut config: TailSamplingConfig = serde_yaml::from_str(CONFIG).expect("the configuration is sound");
    config.num_shards = std::env::args().nth(2).map_or(0, |shards| shards.parse().expect("a number of shards"));
    Sampler::new(&config, &ComponentId::of("tail_sampling"), Ledger::detached(), telemetry)
        .expect("the configuration is valid")
}

/// Millions of spans a second from so many threads: through one sampler, or through one each.
fn measure(threads: usize, shared: bool) -> f64 {
    let (together, begin) = (Barrier::new(threads), Instant::now());
    let telemetry = Telemetry::new();
    let shared = shared.then(|| sampler(&telemetry));
    let spans: usize = thread::scope(|scope| {
        let (shared, together) = (shared.as_ref(), &together);
        let feed = |number| {
            scope.spawn(move || {
                let own = shared.is_none().then(|| sampler(&Telemetry::new()));
                together.wait();
                match (shared, &own) {
                    (Some(sampler), _) => feed(sampler, number, threads, begin),
                    (None, Some(own)) => feed(own, 0, 1, begin),
                    (None, None) => 0,
                }
            })
        };
        let workers: Vec<_> = (0..threads).map(feed).collect();
        workers.into_iter().map(|worker| worker.join().expect("it does not panic")).sum()
    });
    spans as f64 / WINDOW.as_secs_f64() / 1e6
}

fn main() {
    use_small_pages(); // as the gateway does
    let rounds: usize = std::env::args().nth(1).map_or(3, |rounds| rounds.parse().expect("a number of rounds"));
    // The first to touch memory pays for it.
    measure(2, false);
    for _ in 0..rounds {
        let (one, two, apart) = (measure(1, true), measure(2, true), measure(2, false));
        println!(
            "million spans/s: one thread {one:.2}, two {two:.2} ({:.2} times), two with a sampler each {apart:.2} ({:.2} times)",
            two / one,
            apart / one
        );
    }
}
