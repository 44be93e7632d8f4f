//! `delta_to_cumulative`: adds up what has changed, so that totals leave.
//!
//! Each stream has its running total, in shards behind short locks; a delta point is rewritten, on wire
//! bytes, into the total at its time. What is not a delta passes untouched.
//!
//! A batch that the next stage refuses has been added already. Its streams remember that: when it is
//! sent again, its points leave as totals without being added twice.

mod config;
#[cfg(test)]
mod tests;
mod totals;

use std::sync::Arc;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, DropReason, Permits, Refusal, Signal};
use nyquist_core::clock::Clock;
use nyquist_core::component::{
    self, BuildError, Component, Consumer, Host, Info, Processor, ProcessorConfig, ProcessorContext, ProcessorFactory,
    Stability, StartError,
};
use nyquist_core::telemetry::{Counter, Entry, Ledger, Telemetry, UpDown};
use nyquist_core::wire::Temporality;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, MissedTickBehavior};

pub use config::DeltaToCumulativeConfig;
use totals::{Adding, Lost, Stream};

use crate::streams::{Bounded, Identities, convert};

/// How often stale streams are looked for, at the least.
const SWEEP: Duration = Duration::from_secs(60);

/// The component type `delta_to_cumulative`.
#[must_use]
pub fn factory() -> ProcessorFactory {
    component::processor::<DeltaToCumulativeConfig>(Info {
        name: "delta_to_cumulative",
        aliases: &["deltatocumulative"],
        signals: &[Signal::Metrics],
        stability: Stability::Alpha,
    })
}

impl ProcessorConfig for DeltaToCumulativeConfig {
    fn build(&self, context: ProcessorContext<'_>) -> Result<Arc<dyn Processor>, BuildError> {
        Ok(Arc::new(DeltaToCumulative::new(self, context)))
    }
}

/// What is shared with the task that sweeps.
struct Shared {
    streams: Bounded<Stream>,
    max_stale: Duration,
    clock: Arc<dyn Clock>,
    tracked: UpDown,
    bytes: UpDown,
}

impl Shared {
    /// Gives up the streams that nothing came for.
    fn sweep(&self) {
        let now = self.clock.now();
        self.streams.sweep(|stream| (now.saturating_sub(stream.last_seen) > self.max_stale).then_some(0));
        self.publish();
    }

    fn publish(&self) {
        self.tracked.set(self.streams.len() as i64);
        self.bytes.set(self.streams.bytes() as i64);
    }
}

/// The processor.
struct DeltaToCumulative {
    shared: Arc<Shared>,
    identities: Identities,
    next: Arc<dyn Consumer>,
    ledger: Ledger,
    converted: Counter,
    lost: [Counter; Lost::ALL.len()],
    task: Mutex<Option<JoinHandle<()>>>,
}

impl DeltaToCumulative {
    fn new(config: &DeltaToCumulativeConfig, context: ProcessorContext<'_>) -> Self {
        let (telemetry, id) = (&context.telemetry, context.id.to_string());
        let labels = [("processor", id.as_str())];
        let gauge =
            |name: &str, help: &str| telemetry.gauge(&format!("otelcol_deltatocumulative_{name}"), help, &labels);
        let max_streams = config.max_streams();
        gauge("streams_limit", "How many streams are tracked at the most.")
            .set(i64::try_from(max_streams).unwrap_or(i64::MAX));
        gauge("streams_max_stale", "Seconds without a point after which a stream is given up.")
            .set(config.max_stale.0.as_secs() as i64);
        let shared = Shared {
            streams: Bounded::new(max_streams, config.memory_limit_mib << 20),
            max_stale: config.max_stale.0,
            clock: context.clock,
            tracked: gauge("streams_tracked", "Streams that are tracked now."),
            bytes: gauge("state_bytes", "Bytes that they take."),
        };
        Self {
            shared: Arc::new(shared),
            identities: Identities::default(),
            next: context.next,
            ledger: context.ledger,
            converted: points(telemetry, &id, ""),
            lost: Lost::ALL.map(|lost| points(telemetry, &id, lost.name())),
            task: Mutex::default(),
        }
    }
}

fn points(telemetry: &Telemetry, id: &str, error: &str) -> Counter {
    let help = "Delta points; those with an error were dropped.";
    telemetry.counter("otelcol_deltatocumulative_datapoints", help, &[("processor", id), ("error", error)])
}

#[async_trait]
impl Component for DeltaToCumulative {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let shared = Arc::clone(&self.shared);
        let task = async move {
            let mut ticks = tokio::time::interval(SWEEP.min(shared.max_stale));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                shared.sweep();
            }
        };
        *self.task.lock() = Some(host.runtimes.spawn(host.runtimes.vital("the sweep of delta_to_cumulative", task)));
        Ok(())
    }

    async fn shutdown(&self, _: Instant) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

#[async_trait]
impl Consumer for DeltaToCumulative {
    async fn consume(&self, mut batch: Batch) -> Result<(), Refusal> {
        let before = batch.items();
        let mut adding = Adding::new(&self.shared.streams, self.shared.clock.now());
        let Some(converted) = convert(batch.wire(), &self.identities, Temporality::Cumulative, &mut adding) else {
            return self.next.consume(batch).await;
        };
        let done = adding.finish();
        let after = before.saturating_sub(converted.removed);
        if after > 0 {
            batch.set_wire(converted.bytes.into(), after);
            if let Err(refusal) = self.next.consume(batch).await {
                done.refused(&self.shared.streams);
                return Err(refusal);
            }
        }
        self.converted.inc_by(done.converted as u64);
        self.ledger.add(Entry::Merged, done.repeated);
        for (lost, (&points, counter)) in Lost::ALL.iter().zip(done.lost.iter().zip(&self.lost)) {
            counter.inc_by(points as u64);
            let reason = if *lost == Lost::Limit { DropReason::OverLimit } else { DropReason::ProcessorError };
            self.ledger.dropped(reason, points);
        }
        self.shared.publish();
        Ok(())
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), Refusal> {
        self.next.reserve(batch, permits).await
    }
}
