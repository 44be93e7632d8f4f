//! `cumulative_to_delta`: what has come since the last point, instead of totals.
//!
//! Of each stream the last point is kept, in shards behind short locks; a cumulative point is rewritten,
//! on wire bytes, into its difference to that. A batch that the next stage refuses is undone, so that it
//! gives the same differences when it is sent again.

mod config;
mod differences;
mod matching;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, DropReason, Permits, Refusal, Signal};
use nyquist_core::clock::Clock;
use nyquist_core::component::{
    self, BuildError, Component, Consumer, Host, Info, Processor, ProcessorConfig, ProcessorContext, ProcessorFactory,
    Stability, StartError,
};
use nyquist_core::telemetry::{Counter, Entry, Ledger, UpDown};
use nyquist_core::wire::Temporality;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, MissedTickBehavior};

pub use config::{CumulativeToDeltaConfig, InitialValue, MatchConfig, MatchType, MetricType, RegexpConfig};
use differences::{Dropped, Settings, Stream, Subtracting};
use matching::Selection;

use crate::streams::{Bounded, Identities, convert};

/// How often stale streams are looked for, at the least.
const SWEEP: Duration = Duration::from_secs(60);

/// The component type `cumulative_to_delta`.
#[must_use]
pub fn factory() -> ProcessorFactory {
    component::processor::<CumulativeToDeltaConfig>(Info {
        name: "cumulative_to_delta",
        aliases: &["cumulativetodelta"],
        signals: &[Signal::Metrics],
        stability: Stability::Alpha,
    })
}

impl ProcessorConfig for CumulativeToDeltaConfig {
    fn build(&self, context: ProcessorContext<'_>) -> Result<Arc<dyn Processor>, BuildError> {
        Ok(Arc::new(CumulativeToDelta::new(self, context)?))
    }
}

/// What is shared with the task that sweeps.
struct Shared {
    streams: Bounded<Stream>,
    /// Zero is never.
    max_staleness: Duration,
    clock: Arc<dyn Clock>,
    tracked: UpDown,
    bytes: UpDown,
}

impl Shared {
    /// Gives up the streams that nothing came for.
    fn sweep(&self) {
        let now = self.clock.now();
        let is_stale = |stream: &Stream| now.saturating_sub(stream.last_seen) > self.max_staleness;
        self.streams.sweep(|stream| is_stale(stream).then_some(stream.time));
        self.publish();
    }

    fn publish(&self) {
        self.tracked.set(self.streams.len() as i64);
        self.bytes.set(self.streams.bytes() as i64);
    }
}

/// The processor.
struct CumulativeToDelta {
    shared: Arc<Shared>,
    settings: Settings,
    identities: Identities,
    next: Arc<dyn Consumer>,
    ledger: Ledger,
    dropped: [Counter; Dropped::ALL.len()],
    task: Mutex<Option<JoinHandle<()>>>,
}

impl CumulativeToDelta {
    fn new(config: &CumulativeToDeltaConfig, context: ProcessorContext<'_>) -> Result<Self, BuildError> {
        let selection = Selection::new(config).map_err(|(path, error)| BuildError::new(&[path, "metrics"], error))?;
        let (telemetry, id) = (&context.telemetry, context.id.to_string());
        let labels = [("processor", id.as_str())];
        let gauge =
            |name: &str, help: &str| telemetry.gauge(&format!("otelcol_cumulativetodelta_{name}"), help, &labels);
        let shared = Shared {
            streams: Bounded::new(config.max_streams(), config.memory_limit_mib << 20),
            max_staleness: config.max_staleness.0,
            tracked: gauge("streams_tracked", "Streams that are tracked now."),
            bytes: gauge("state_bytes", "Bytes that they take."),
            clock: context.clock,
        };
        let dropped = |reason: Dropped| {
            let help = "Cumulative points that gave no difference, by reason.";
            let labels = [("processor", id.as_str()), ("reason", reason.name())];
            telemetry.counter("otelcol_cumulativetodelta_datapoints_dropped", help, &labels)
        };
        let began = shared.clock.unix_nanos();
        Ok(Self {
            shared: Arc::new(shared),
            settings: Settings { selection, initial_value: config.initial_value, began },
            identities: Identities::default(),
            next: context.next,
            ledger: context.ledger,
            dropped: Dropped::ALL.map(dropped),
            task: Mutex::default(),
        })
    }
}

#[async_trait]
impl Component for CumulativeToDelta {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        if self.shared.max_staleness.is_zero() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let task = async move {
            let mut ticks = tokio::time::interval(SWEEP.min(shared.max_staleness));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                shared.sweep();
            }
        };
        *self.task.lock() = Some(host.runtimes.spawn(host.runtimes.vital("the sweep of cumulative_to_delta", task)));
        Ok(())
    }

    async fn shutdown(&self, _: Instant) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

#[async_trait]
impl Consumer for CumulativeToDelta {
    async fn consume(&self, mut batch: Batch) -> Result<(), Refusal> {
        let before = batch.items();
        let mut subtracting = Subtracting::new(&self.shared.streams, &self.settings, self.shared.clock.now());
        let Some(converted) = convert(batch.wire(), &self.identities, Temporality::Delta, &mut subtracting) else {
            return self.next.consume(batch).await;
        };
        let done = subtracting.finish();
        let after = before.saturating_sub(converted.removed);
        if after > 0 {
            batch.set_wire(converted.bytes.into(), after);
            if let Err(refusal) = self.next.consume(batch).await {
                done.undo(&self.shared.streams);
                return Err(refusal);
            }
        }
        for (reason, (&points, counter)) in Dropped::ALL.iter().zip(done.dropped.iter().zip(&self.dropped)) {
            counter.inc_by(points as u64);
            match reason {
                // There is nothing yet that it could be the difference to.
                Dropped::Initial | Dropped::BucketMismatch => self.ledger.add(Entry::Filtered, points),
                Dropped::OutOfOrder => self.ledger.dropped(DropReason::ProcessorError, points),
                Dropped::Limit => self.ledger.dropped(DropReason::OverLimit, points),
            }
        }
        self.shared.publish();
        Ok(())
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), Refusal> {
        self.next.reserve(batch, permits).await
    }
}
