//! Instructions per span of `load_balancing`: read the trace ids, ask the ring, write three requests.
//!
//! The work is in one function, [`measured`], for callgrind to count:
//!
//!     cargo bench --no-run -p nyquist-exporters --bench load_balancing_instructions
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no \
//!         '--toggle-collect=*measured*' target/release/deps/load_balancing_instructions-... 200
//!
//! "Collected" divided by the number of spans that is printed is the figure. The arguments are how many
//! requests of 500 spans in traces of ten are measured, and what of: `traces` (spans of a trace side by
//! side, the default), `mixed` (traces take turns), `overlap` (traces are remembered), `service`, `inner` (trace ids
//! may be in the midst of spans).

#![allow(clippy::print_stdout, clippy::expect_used, missing_docs, reason = "a measuring program")]

#[path = "../../processors/benches/common/mod.rs"]
mod common;

use std::time::Duration;

use common::{Requests, SPANS_PER_REQUEST};
use nyquist_core::batch::Signal;
use nyquist_core::config::from_str;
use nyquist_exporters::load_balancing::{LoadBalancingConfig, Splitter};

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONFIG: &str = "resolver: {static: {hostnames: [a]}}\n";

#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    work()
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let rounds: usize = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(200);
    let what = arguments.next().unwrap_or_default();
    let more = match what.as_str() {
        "overlap" => "overlap: 10s",
        "service" => "routing_key: service",
        _ => "",
    };
    let Ok((config, _)) = from_str::<LoadBalancingConfig>(&format!("{CONFIG}{more}")) else {
        panic!("the configuration is sound")
    };
    let endpoints = ["10.1.0.1:4317", "10.1.0.2:4317", "10.1.0.3:4317"];
    let splitter = Splitter::new(&config, Signal::Traces, &endpoints).expect("a known key");
    let mut requests = Requests::new(what == "mixed");
    let mut bytes = 0;
    for round in 0..rounds {
        let request = bytes::Bytes::copy_from_slice(requests.refresh(round));
        // A thousand requests a second.
        let now = Duration::from_millis(round as u64);
        bytes += measured(|| {
            splitter.split(&request, what != "inner", now).iter().map(|part| part.bytes.len()).sum::<usize>()
        });
    }
    println!("spans measured: {}, bytes a span: {}", rounds * SPANS_PER_REQUEST, bytes / (rounds * SPANS_PER_REQUEST));
}
