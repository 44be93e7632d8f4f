//! The `batch` processor: asks the exporters behind it to batch.
//!
//! Batching in front of a queue would acknowledge telemetry that nobody holds durably, and would
//! lose it when a later stage refuses. So the processor itself passes everything through, and its
//! settings become the batching of the exporters that its pipeline leads to.

mod config;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, NoRoom, Permits, Refusal, Signal};
use nyquist_core::component::{
    self, BuildError, Component, Consumer, Info, Processor, ProcessorConfig, ProcessorContext, ProcessorFactory,
    Stability,
};
use nyquist_core::delivery;

pub use config::BatchConfig;

/// The component type `batch`.
#[must_use]
pub fn factory() -> ProcessorFactory {
    component::processor::<BatchConfig>(Info {
        name: "batch",
        aliases: &[],
        signals: &Signal::ALL,
        stability: Stability::Beta,
    })
}

impl ProcessorConfig for BatchConfig {
    fn build(&self, context: ProcessorContext<'_>) -> Result<Arc<dyn Processor>, BuildError> {
        Ok(Arc::new(PassThrough { next: context.next }))
    }

    fn batching(&self) -> Option<delivery::BatchConfig> {
        // `timeout: 0` means "send at once", whatever the size.
        let min_size = if self.timeout.0.is_zero() { 0 } else { self.send_batch_size };
        Some(delivery::BatchConfig {
            flush_timeout: self.timeout,
            min_size,
            max_size: self.send_batch_max_size,
            sizer: Some(delivery::Sizer::Items),
            partition: delivery::Partition { metadata_keys: self.metadata_keys.clone() },
        })
    }
}

struct PassThrough {
    next: Arc<dyn Consumer>,
}

impl Component for PassThrough {}

#[async_trait]
impl Consumer for PassThrough {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        self.next.consume(batch).await
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        self.next.reserve(batch, permits).await
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.next.metadata_keys()
    }
}
