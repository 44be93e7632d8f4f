//! The `memory_limiter` processor: refuses telemetry while the process uses too much memory.

mod config;
mod limiter;
pub(crate) mod memory;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, NoRoom, Permits, Refusal, Signal};
use nyquist_core::component::{
    self, BuildError, Component, Consumer, Host, Info, Processor, ProcessorConfig, ProcessorContext, ProcessorFactory,
    Stability, StartError,
};
use nyquist_core::delivery::Status;
use nyquist_core::net::admission::Gate;
use nyquist_core::telemetry::{Counter, Telemetry, UpDown};
use tokio::time::Instant;

pub use config::MemoryLimiterConfig;
use limiter::Limiter;
use memory::{Linux, MemorySource};

/// The component type `memory_limiter`.
#[must_use]
pub fn factory() -> ProcessorFactory {
    component::processor::<MemoryLimiterConfig>(Info {
        name: "memory_limiter",
        aliases: &[],
        signals: &Signal::ALL,
        stability: Stability::Beta,
    })
}

impl ProcessorConfig for MemoryLimiterConfig {
    fn build(&self, context: ProcessorContext<'_>) -> Result<Arc<dyn Processor>, BuildError> {
        let id = context.id.to_string();
        let limiter = match self.shared.get() {
            Some(limiter) => Arc::clone(limiter),
            None => {
                let limiter = self.limiter(&id, &context.telemetry, Box::new(Linux::default()))?;
                Arc::clone(self.shared.get_or_init(|| limiter))
            }
        };
        limiter.show_in(gauge(&context.telemetry, &id));
        let counter = |outcome: &str| {
            let items = context.signal.items_name();
            let name = format!("otelcol_processor_memory_limiter_{outcome}_{items}");
            let help = format!("Number of {items} that the memory limiter {outcome}.");
            context.telemetry.counter(&name, &help, &[("processor", &id)])
        };
        Ok(Arc::new(MemoryLimiter {
            limiter,
            interval: self.check_interval.0,
            accepted: counter("accepted"),
            refused: counter("refused"),
            next: context.next,
        }))
    }

    fn gate(&self) -> Option<Arc<Gate>> {
        self.shared.get().map(|limiter| Arc::clone(limiter.gate()))
    }
}

impl MemoryLimiterConfig {
    fn limiter(
        &self,
        id: &str,
        telemetry: &Telemetry,
        source: Box<dyn MemorySource>,
    ) -> Result<Arc<Limiter>, BuildError> {
        source.used().map_err(|error| BuildError::new(&[], format!("cannot measure memory use: {error}")))?;
        let limits = self.limits(|| source.total()).map_err(|error| {
            let message = format!("the total memory is not known ({error}); set limit_mib instead");
            BuildError::new(&["limit_percentage"], message)
        })?;
        tracing::info!(hard_limit = limits.hard, soft_limit = limits.soft, "memory limiter configured");
        Ok(Limiter::new(limits, source, gauge(telemetry, id)))
    }
}

fn gauge(telemetry: &Telemetry, id: &str) -> UpDown {
    let help = "1 while the memory limiter refuses telemetry.";
    telemetry.gauge("nyquist_memory_limiter_refusing", help, &[("processor", id)])
}

struct MemoryLimiter {
    limiter: Arc<Limiter>,
    interval: std::time::Duration,
    accepted: Counter,
    refused: Counter,
    next: Arc<dyn Consumer>,
}

impl MemoryLimiter {
    fn refusal(&self, items: usize) -> Refusal {
        self.refused.inc_by(items as u64);
        Refusal::retryable(None, "data refused due to high memory usage")
    }
}

#[async_trait]
impl Component for MemoryLimiter {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        self.limiter.start(host, self.interval);
        Ok(())
    }

    async fn shutdown(&self, _deadline: Instant) {
        self.limiter.stop();
    }

    fn status(&self) -> Option<Status> {
        Some(self.limiter.status())
    }
}

#[async_trait]
impl Consumer for MemoryLimiter {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        if self.limiter.refuses() {
            return Err(self.refusal(batch.items()));
        }
        self.accepted.inc_by(batch.items() as u64);
        self.next.consume(batch).await
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        if self.limiter.refuses() {
            return Err(self.refusal(batch.items()).into());
        }
        self.next.reserve(batch, permits).await
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.next.metadata_keys()
    }
}
