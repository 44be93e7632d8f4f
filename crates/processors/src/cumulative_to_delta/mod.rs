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
use nyquist_core::batch::{Batch, DropReason, NoRoom, Permits, Refusal, Signal};
use nyquist_core::component::{
    self, BuildError, Component, Consumer, Host, Info, Processor, ProcessorConfig, ProcessorContext, ProcessorFactory,
    Stability, StartError,
};
use nyquist_core::telemetry::{Counter, Entry, Ledger};
use nyquist_core::wire::Temporality;
use tokio::time::Instant;

pub use config::{CumulativeToDeltaConfig, InitialValue, MatchConfig, MatchType, MetricType, RegexpConfig};
use differences::{Dropped, Settings, Stream, Subtracting};
use matching::Selection;

use crate::streams::{Bounded, Identities, Tracked, convert};

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

/// The processor.
struct CumulativeToDelta {
    tracked: Tracked<Stream>,
    settings: Settings,
    identities: Identities,
    next: Arc<dyn Consumer>,
    ledger: Ledger,
    dropped: [Counter; Dropped::ALL.len()],
}

impl CumulativeToDelta {
    fn new(config: &CumulativeToDeltaConfig, context: ProcessorContext<'_>) -> Result<Self, BuildError> {
        let selection = Selection::new(config).map_err(|(path, error)| BuildError::new(&[path, "metrics"], error))?;
        let (telemetry, id) = (&context.telemetry, context.id.to_string());
        let labels = [("processor", id.as_str())];
        let gauge =
            |name: &str, help: &str| telemetry.gauge(&format!("otelcol_cumulativetodelta_{name}"), help, &labels);
        let began = context.clock.unix_nanos();
        let streams = Bounded::new(config.max_streams(), config.memory_limit_mib << 20);
        let tracked = Tracked::new(streams, config.max_staleness.0, context.clock, gauge);
        let dropped = |reason: Dropped| {
            let help = "Cumulative points that gave no difference, by reason.";
            let labels = [("processor", id.as_str()), ("reason", reason.name())];
            telemetry.counter("otelcol_cumulativetodelta_datapoints_dropped", help, &labels)
        };
        Ok(Self {
            tracked,
            settings: Settings { selection, initial_value: config.initial_value, began },
            identities: Identities::default(),
            next: context.next,
            ledger: context.ledger,
            dropped: Dropped::ALL.map(dropped),
        })
    }
}

#[async_trait]
impl Component for CumulativeToDelta {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        self.tracked.start(host, "cumulative_to_delta");
        Ok(())
    }

    async fn shutdown(&self, _: Instant) {
        self.tracked.stop();
    }
}

#[async_trait]
impl Consumer for CumulativeToDelta {
    async fn consume(&self, mut batch: Batch) -> Result<(), Refusal> {
        let before = batch.items();
        let mut subtracting =
            Subtracting::new(self.tracked.streams(), &self.settings, self.tracked.now(), self.tracked.skew_limit());
        let Some(converted) = convert(batch.wire(), &self.identities, Temporality::Delta, &mut subtracting) else {
            return self.next.consume(batch).await;
        };
        let done = subtracting.finish();
        let after = before.saturating_sub(converted.removed);
        if after > 0 {
            batch.set_wire(converted.bytes.into(), after);
            if let Err(refusal) = self.next.consume(batch).await {
                done.undo(self.tracked.streams());
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
        self.tracked.publish();
        Ok(())
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        self.next.reserve(batch, permits).await
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.next.metadata_keys()
    }
}
