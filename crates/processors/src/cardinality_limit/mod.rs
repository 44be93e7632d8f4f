//! The `cardinality_limit` processor: keeps metrics within series budgets.
//!
//! Points that have a slot pass as slices of the batch they came in. Of a point that has none, the
//! offending label's value is replaced, and what thereby becomes one series is added up and
//! reported at the next flush. What came in is never acknowledged before the stage behind has
//! accepted what passes, so that a batch that is refused and sent again counts once.

mod absorb;
mod absorb_distribution;
mod admission;
mod config;
mod contest;
mod doorkeeper;
mod edit;
mod exemplars;
mod forgotten;
mod hash;
mod label;
mod limiter;
mod metric;
mod offenders;
mod output;
mod place;
mod report;
mod retired;
mod scan;
mod series;
mod shard;
mod shared;
mod sketch;
mod snapshot;
mod sweep;
mod tenant;
#[cfg(test)]
mod tests;
mod times;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, NoRoom, Permits, Refusal, Signal};
use nyquist_core::component::{
    self, BuildError, Component, Consumer, Host, Info, Processor, ProcessorConfig, ProcessorContext, ProcessorFactory,
    Stability, StartError,
};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use config::{
    Budgets, CardinalityLimitConfig, GaugeMode, Keep, LabelLimit, OnExceed, Rule, TenantFrom, UpDownMode,
};
use hash::Hashes;
use limiter::Limiter;
use place::Place;
use report::Report;
use shared::Shared;

/// The component type `cardinality_limit`.
#[must_use]
pub fn factory() -> ProcessorFactory {
    component::processor::<CardinalityLimitConfig>(Info {
        name: "cardinality_limit",
        aliases: &[],
        signals: &[Signal::Metrics],
        stability: Stability::Alpha,
    })
}

impl CardinalityLimitConfig {
    fn limiter(&self, context: ProcessorContext<'_>, hashes: Hashes) -> Result<Limiter, BuildError> {
        let id = context.id.to_string();
        let report = Report::new(&context.telemetry, &id, self.report.top_n, self.report.sample_values);
        let shared =
            Shared::new(self, hashes, report, context.clock).map_err(|error| BuildError::new(&["rules"], error))?;
        Ok(Limiter::new(shared, context.next, context.ledger))
    }
}

impl ProcessorConfig for CardinalityLimitConfig {
    fn build(&self, context: ProcessorContext<'_>) -> Result<Arc<dyn Processor>, BuildError> {
        let place = Place::find(self, &context)?.map(Arc::new);
        let mut metadata_keys = context.next.metadata_keys();
        if let Some(TenantFrom::Metadata(key)) = &self.tenant_from {
            metadata_keys.push(key.clone());
        }
        let limiter = self.limiter(context, Hashes::new(rand::random()))?;
        let limit =
            CardinalityLimit { place, metadata_keys, interval: self.flush_interval.0, ..CardinalityLimit::default() };
        match &limit.place {
            Some(_) => *limit.waiting.lock() = Some(limiter),
            None => _ = limit.limiter.set(Arc::new(limiter)),
        }
        Ok(Arc::new(limit))
    }
}

#[derive(Default)]
struct CardinalityLimit {
    /// Until the storage is open.
    waiting: Mutex<Option<Limiter>>,
    limiter: OnceLock<Arc<Limiter>>,
    place: Option<Arc<Place>>,
    interval: Duration,
    /// What names tenants, and what those behind it look at.
    metadata_keys: Vec<String>,
    task: Mutex<Option<JoinHandle<()>>>,
    saving: Mutex<Option<JoinHandle<()>>>,
}

impl CardinalityLimit {
    fn limiter(&self) -> Result<&Arc<Limiter>, Refusal> {
        let error = || Refusal::retryable(None, "cardinality_limit: its storage is not open yet");
        self.limiter.get().ok_or_else(error)
    }
}

#[async_trait]
impl Component for CardinalityLimit {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let waiting = self.waiting.lock().take();
        if let (Some(place), Some(mut limiter)) = (&self.place, waiting) {
            place.open(&mut limiter).await?;
            let _ = self.limiter.set(Arc::new(limiter));
        }
        let Some(limiter) = self.limiter.get() else { return Ok(()) };
        let (flushing, interval) = (Arc::clone(limiter), self.interval);
        let flush = host.runtimes.vital("the flush of cardinality_limit", async move { flushing.run(interval).await });
        *self.task.lock() = Some(host.runtimes.spawn(flush));
        if let Some(place) = &self.place {
            let (place, limiter) = (Arc::clone(place), Arc::clone(limiter));
            let keep =
                host.runtimes.vital("the snapshots of cardinality_limit", async move { place.keep(&limiter).await });
            *self.saving.lock() = Some(host.runtimes.spawn(keep));
        }
        Ok(())
    }

    async fn shutdown(&self, deadline: Instant) {
        let Some(limiter) = self.limiter.get() else { return };
        if let Some(saving) = self.saving.lock().take() {
            saving.abort();
        }
        limiter.stop(deadline);
        let task = self.task.lock().take();
        if let Some(mut task) = task {
            match tokio::time::timeout_at(deadline, &mut task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the cardinality limiter's flush has failed"),
                Err(_) => {
                    task.abort();
                    // Until it is gone, it may still book what is in its hands.
                    let _ = task.await;
                }
            }
            limiter.abandon();
        }
        if let Some(place) = &self.place {
            place.close(limiter, deadline).await;
        }
    }
}

#[async_trait]
impl Consumer for CardinalityLimit {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        self.limiter()?.consume(batch).await
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        self.limiter()?.reserve(batch, permits).await
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.metadata_keys.clone()
    }
}
