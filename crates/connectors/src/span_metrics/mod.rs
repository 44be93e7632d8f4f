//! `span_metrics`: request, error and duration metrics of spans.
//!
//! A span is read once, in place (`reader`): one scan gives its times, its status, and the attributes
//! that are dimensions, and their hash is the series. Each core counts in a lane of its own (`lane`), so
//! that no span waits for another core; only the first span of a series on a core asks the `catalog`, which
//! knows all series, keeps them within their limits, and sends what is beyond them to overflow series.
//! At each interval the lanes are collected and a report is written (`encode`) and offered to the pipelines
//! behind until they take it (`reporter`). What has been silent for long is forgotten.
//!
//! The keys, names and values are those of the Collector's connector of the same name.

mod adjusted;
mod catalog;
pub mod config;
mod encode;
mod exponential;
mod fingerprint;
mod globs;
mod lane;
mod metrics;
mod plan;
mod reader;
mod recorder;
mod reporter;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, DropReason, Refusal, Signal};
use nyquist_core::component::{
    BuildError, Component, Connector, ConnectorConfig, ConnectorContext, ConnectorFactory, Consumer, Host, Info,
    Stability, StartError, connector,
};
use nyquist_core::telemetry::{Entry, Ledger};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use config::SpanMetricsConfig;
use metrics::OwnMetrics;
use plan::Plan;
use reporter::Reporter;
use state::{State, Taken};

/// The `span_metrics` connector.
#[must_use]
pub fn factory() -> ConnectorFactory {
    let info = Info {
        name: "span_metrics",
        aliases: &["spanmetrics"],
        signals: &[Signal::Traces],
        stability: Stability::Alpha,
    };
    connector::<SpanMetricsConfig>(info, &[(Signal::Traces, Signal::Metrics)])
}

impl ConnectorConfig for SpanMetricsConfig {
    fn build(&self, context: ConnectorContext<'_>) -> Result<Arc<dyn Connector>, BuildError> {
        Ok(Arc::new(SpanMetrics::new(self, context)?))
    }
}

/// The connector.
struct SpanMetrics {
    reporter: Arc<Reporter>,
    /// The account of the spans.
    taken: Ledger,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl SpanMetrics {
    fn new(config: &SpanMetricsConfig, context: ConnectorContext<'_>) -> Result<Self, BuildError> {
        let plan = Plan::new(config, instance_id()).map_err(|error| BuildError::new(&["dimensions"], error))?;
        let own = OwnMetrics::new(&context.telemetry, &context.id.to_string());
        let retries = own.retries.clone();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let reporter = Reporter {
            state: Arc::new(State::new(plan, cores, context.clock, own)),
            next: context.next,
            ledger: context.given,
            retries,
            in_hand: AtomicUsize::new(0),
            stop: watch::Sender::new(None),
        };
        Ok(Self { reporter: Arc::new(reporter), taken: context.taken, task: Mutex::default() })
    }
}

/// A random UUID: tells this process' series from those of other gateways, and of its predecessor.
fn instance_id() -> String {
    // Version 4, variant 1.
    let id = rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let digits = format!("{id:032x}");
    let mut text = String::with_capacity(36);
    for (index, digit) in digits.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

#[async_trait]
impl Component for SpanMetrics {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let reporter = Arc::clone(&self.reporter);
        let task = host.runtimes.vital("the reports of span_metrics", async move { reporter.run().await });
        *self.task.lock() = Some(host.runtimes.spawn(task));
        Ok(())
    }

    async fn shutdown(&self, deadline: Instant) {
        self.reporter.stop.send_replace(Some(deadline));
        let task = self.task.lock().take();
        if let Some(mut task) = task
            && tokio::time::timeout_at(deadline, &mut task).await.is_err()
        {
            task.abort();
            // Until it is gone, the report in its hands is not accounted for.
            let _ = task.await;
            self.reporter.settle(Some(DropReason::Shutdown));
        }
    }
}

#[async_trait]
impl Consumer for SpanMetrics {
    async fn consume(&self, mut batch: Batch) -> Result<(), Refusal> {
        let Taken { counted, skipped } = self.reporter.state.take(batch.wire());
        self.taken.add(Entry::Accepted, counted + skipped);
        self.taken.add(Entry::Merged, counted);
        self.taken.add(Entry::Filtered, skipped);
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}
