//! `delta_to_cumulative`: adds up what has changed, so that totals leave.
//!
//! Each stream has its running total, in shards behind short locks; a delta point is rewritten, on wire
//! bytes, into the total at its time. What is not a delta passes untouched.
//!
//! A batch that the next stage refuses has been added already. Its streams remember which points those are: when it is
//! sent again, they leave as totals without being added twice.

mod config;
#[cfg(test)]
mod tests;
mod totals;

use std::sync::Arc;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, DropReason, NoRoom, Permits, Refusal, Signal};
use nyquist_core::component::{
    self, BuildError, Component, Consumer, Host, Info, Processor, ProcessorConfig, ProcessorContext, ProcessorFactory,
    Stability, StartError,
};
use nyquist_core::telemetry::{Counter, Entry, Ledger, LossLog, Telemetry};
use nyquist_core::wire::Temporality;
use tokio::time::Instant;

pub use config::DeltaToCumulativeConfig;
use totals::{Adding, Lost, Stream};

use crate::streams::{Bounded, Identities, Tracked, convert};

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

/// The processor.
struct DeltaToCumulative {
    tracked: Tracked<Stream>,
    identities: Identities,
    next: Arc<dyn Consumer>,
    ledger: Ledger,
    converted: Counter,
    lost: [Counter; Lost::ALL.len()],
    log: LossLog,
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
        let streams = Bounded::new(max_streams, config.memory_limit_mib << 20);
        let tracked = Tracked::new(streams, config.max_stale.0, context.clock, gauge);
        Self {
            tracked,
            identities: Identities::default(),
            next: context.next,
            ledger: context.ledger,
            converted: points(telemetry, &id, ""),
            lost: Lost::ALL.map(|lost| points(telemetry, &id, lost.name())),
            log: LossLog::new(format!("processor/{id}")),
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
        self.tracked.start(host, "delta_to_cumulative");
        Ok(())
    }

    async fn shutdown(&self, _: Instant) {
        self.tracked.stop();
    }
}

#[async_trait]
impl Consumer for DeltaToCumulative {
    async fn consume(&self, mut batch: Batch) -> Result<(), Refusal> {
        let before = batch.items();
        let mut adding = Adding::new(self.tracked.streams(), self.tracked.now());
        let Some(converted) = convert(batch.wire(), &self.identities, Temporality::Cumulative, &mut adding) else {
            return self.next.consume(batch).await;
        };
        let done = adding.finish();
        let after = before.saturating_sub(converted.removed);
        if after > 0 {
            batch.set_wire(converted.bytes.into(), after);
            if let Err(refusal) = self.next.consume(batch).await {
                done.refused(self.tracked.streams());
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
        for (metric, lost) in &done.lost_of {
            for (reason, &points) in Lost::ALL.iter().zip(lost) {
                self.log.lost(reason.name(), metric, points, reason.advice());
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
