//! Instructions per span of the tail sampler with eight rules: read, insert, decide, hand on.
//!
//! The work is in one function, [`measured`], for callgrind to count, after the buffer has been filled and
//! has turned over:
//!
//!     cargo bench --no-run -p nyquist-processors --bench tail_sampling_instructions
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no \
//!         '--toggle-collect=*measured*' target/release/deps/tail_sampling_instructions-... 200
//!
//! "Collected" divided by the number of spans that is printed is the figure. The argument is how many
//! requests of 500 spans are measured; `insert` and `decide` as a second argument measure that part only.

#![allow(clippy::print_stdout, clippy::expect_used, missing_docs, reason = "a measuring program")]

mod common;

use std::time::Duration;

use common::{Requests, SPANS_PER_REQUEST};
use nyquist_core::config::ComponentId;
use nyquist_core::telemetry::{Ledger, Telemetry};
use nyquist_processors::tail_sampling::config::TailSamplingConfig;
use nyquist_processors::tail_sampling::sampler::Sampler;

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONFIG: &str = "
decision_wait: 1s
memory_limit_mib: 512
num_shards: 4
rules:
  - {name: vip, sampling_percentage: 100, when: {attribute: {key: user.id, scope: span, values: [user-1, user-2]}}}
  - {name: payments, sampling_percentage: 100, when: {span_name: {values: [POST /pay, POST /refund]}}}
  - {name: errors, sampling_percentage: 100, when: {error: true}}
  - {name: server errors, sampling_percentage: 100, when: {attribute: {key: http.response.status_code, min: 500}}}
  - {name: slow root, sampling_percentage: 60, when: {latency: {of: root, threshold: 800ms}}}
  - {name: slow, sampling_percentage: 50, when: {latency: {threshold: 500ms}}}
  - {name: canary, sampling_percentage: 20, when: {attribute: {key: service.version, scope: resource, regex: '-rc'}}}
  - {name: default, sampling_percentage: 5}
";

/// Each request stands for so much time: the buffer holds two hundred of them.
const STEP: Duration = Duration::from_millis(5);
const WARM: u32 = 600;

/// Which part is to be measured.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    All,
    Insert,
    Decide,
}

fn insert(sampler: &Sampler, message: &[u8], now: Duration) {
    sampler.insert(message, now).expect("there is room");
}

fn decide(sampler: &Sampler, now: Duration) -> usize {
    let mut kept = 0;
    for shard in 0..sampler.shards() {
        while sampler.decide(shard, now, 256) {}
        while let Some(out) = sampler.take(shard, now) {
            kept += out.batch().items();
            out.accepted();
        }
    }
    kept
}

#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    work()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let rounds: u32 = arguments.first().and_then(|rounds| rounds.parse().ok()).unwrap_or(200);
    let part = match arguments.get(1).map(String::as_str) {
        Some("insert") => Part::Insert,
        Some("decide") => Part::Decide,
        _ => Part::All,
    };
    let config: TailSamplingConfig = serde_yaml::from_str(CONFIG).expect("the configuration is sound");
    let telemetry = Telemetry::new();
    let sampler = Sampler::new(&config, &ComponentId::of("tail_sampling"), Ledger::detached(), &telemetry)
        .expect("the configuration is valid");
    // Spans of a trace stand together, as libraries send them.
    let mut requests = Requests::new(false);
    let mut kept = 0;
    for round in 0..WARM + rounds {
        let now = STEP * round;
        let measuring = round >= WARM;
        let message = requests.refresh(round as usize);
        if measuring && part != Part::Decide {
            measured(|| insert(&sampler, message, now));
        } else {
            insert(&sampler, message, now);
        }
        // Every 50 ms, as the gateway does.
        if round % 10 == 0 {
            kept += if measuring && part != Part::Insert {
                measured(|| decide(&sampler, now))
            } else {
                decide(&sampler, now)
            };
        }
    }
    println!("spans measured: {}", rounds as usize * SPANS_PER_REQUEST);
    println!("kept of all: {:.1} %", 100.0 * kept as f64 / ((WARM + rounds) as usize * SPANS_PER_REQUEST) as f64);
}
