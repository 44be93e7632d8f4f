//! Instructions per span of `span_metrics` in its steady state: read, find the series, count.
//!
//! The work is in one function, [`measured`], for callgrind to count, after every series has been seen:
//!
//!     cargo bench --no-run -p nyquist-connectors --bench span_metrics_instructions
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no \
//!         '--toggle-collect=*measured*' target/release/deps/span_metrics_instructions-... 200
//!
//! "Collected" divided by the number of spans that is printed is the figure. The argument is how many
//! requests of 500 spans are measured.

#![allow(clippy::print_stdout, clippy::expect_used, missing_docs, reason = "a measuring program")]

#[path = "../../processors/benches/common/mod.rs"]
mod common;

use std::sync::Arc;

use async_trait::async_trait;
use common::{REQUESTS, Requests, SPANS_PER_REQUEST};
use nyquist_connectors::span_metrics::SpanMetricsConfig;
use nyquist_core::batch::{Batch, Refusal, Signal};
use nyquist_core::clock::SystemClock;
use nyquist_core::component::{ConnectorConfig, ConnectorContext, Consumer, Extensions};
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::telemetry::{Ledger, Telemetry};

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONFIG: &str = "
dimensions: [{name: http.route}, {name: http.request.method, default: GET}]
";

struct Nowhere;

#[async_trait]
impl Consumer for Nowhere {
    async fn consume(&self, _: Batch) -> Result<(), Refusal> {
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    work()
}

fn main() {
    let argument = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let rounds: usize = argument.and_then(|rounds| rounds.parse().ok()).unwrap_or(200);
    let Ok((config, _)) = from_str::<SpanMetricsConfig>(CONFIG) else { panic!("the configuration is sound") };
    let connector = config
        .build(ConnectorContext {
            id: ComponentId::of("span_metrics"),
            from: Signal::Traces,
            to: Signal::Metrics,
            next: Arc::new(Nowhere),
            taken: Ledger::detached(),
            given: Ledger::detached(),
            extensions: &Extensions::default(),
            telemetry: Telemetry::new(),
            clock: Arc::new(SystemClock::default()),
        })
        .expect("the configuration is valid");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut requests = Requests::new(false);
    let mut consume = |round: usize, is_measured: bool| {
        let bytes = bytes::Bytes::copy_from_slice(requests.refresh(round));
        let batch = Batch::from_wire(Signal::Traces, bytes, SPANS_PER_REQUEST);
        let work = || runtime.block_on(connector.consume(batch)).expect("it takes everything");
        if is_measured { measured(work) } else { work() }
    };
    for round in 0..REQUESTS {
        consume(round, false);
    }
    for round in 0..rounds {
        consume(round, true);
    }
    println!("spans measured: {}", rounds * SPANS_PER_REQUEST);
}
