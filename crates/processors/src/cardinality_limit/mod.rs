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
mod distribution;
mod edit;
mod exponential;
mod forgotten;
mod hash;
mod limiter;
mod metric;
mod output;
mod report;
mod scan;
mod shard;
mod shared;
mod sketch;
mod sweep;
#[cfg(test)]
mod tests;
mod total;

use std::sync::Arc;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, Permits, Refusal, Signal};
use nyquist_core::component::{
    self, BuildError, Component, Consumer, Host, Info, Processor, ProcessorConfig, ProcessorContext, ProcessorFactory,
    Stability, StartError,
};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use config::{Budgets, CardinalityLimitConfig, GaugeMode, LabelLimit, OnExceed, Rule};
use limiter::Limiter;
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
    fn limiter(&self, context: ProcessorContext<'_>) -> Result<Limiter, BuildError> {
        let id = context.id.to_string();
        let report = Report::new(&context.telemetry, &id, self.report.top_n, self.report.sample_values);
        let shared = Shared::new(self, report, context.clock).map_err(|error| BuildError::new(&["rules"], error))?;
        Ok(Limiter::new(shared, context.next, context.ledger))
    }
}

impl ProcessorConfig for CardinalityLimitConfig {
    fn build(&self, context: ProcessorContext<'_>) -> Result<Arc<dyn Processor>, BuildError> {
        let limiter = Arc::new(self.limiter(context)?);
        Ok(Arc::new(CardinalityLimit { limiter, interval: self.flush_interval.0, task: Mutex::default() }))
    }
}

struct CardinalityLimit {
    limiter: Arc<Limiter>,
    interval: std::time::Duration,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[async_trait]
impl Component for CardinalityLimit {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let limiter = Arc::clone(&self.limiter);
        let interval = self.interval;
        let task = host.runtimes.vital("the flush of cardinality_limit", async move { limiter.run(interval).await });
        *self.task.lock() = Some(host.runtimes.spawn(task));
        Ok(())
    }

    async fn shutdown(&self, deadline: Instant) {
        self.limiter.stop(deadline);
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the cardinality limiter's flush has failed");
        }
    }
}

#[async_trait]
impl Consumer for CardinalityLimit {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        self.limiter.consume(batch).await
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), Refusal> {
        self.limiter.reserve(batch, permits).await
    }
}
