//! Spreads telemetry over several backends, so that what belongs together comes to one of them.
//!
//! ```text
//! consume -> [front queue] -> split by key -> ring -> an otlp exporter for each backend: queue, retry, health
//!                                               ^
//!                                   resolver: who is there
//! ```
//!
//! - The ack comes when every part of a batch has room in the queue of its backend; room is set aside
//!   everywhere before anything is put anywhere. With a queue in front, that one acknowledges, and keeps the
//!   batch until every backend has its part.
//! - A backend that leaves hands its queue on: each request in it is split anew and put into the queues of
//!   those that are there.
//! - Parts are slices of the wire message; nothing is decoded.

mod backend;
mod balancer;
mod config;
mod front;
mod identity;
mod keys;
mod metrics;
mod pins;
mod resolver;
mod ring;
mod splitter;
#[cfg(test)]
mod tests;
mod values;

use std::sync::Arc;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, NoRoom, Permits, Refusal, Signal};
use nyquist_core::component::{
    BuildError, Component, Consumer, Exporter, ExporterConfig, ExporterContext, ExporterFactory, Host, Info, Stability,
    StartError, exporter,
};
use nyquist_core::config::Duration;
use nyquist_core::delivery::{Delivery, LogGate, QueueConfig, RetryConfig, Settings, Status};
use nyquist_core::telemetry::{Ledger, Telemetry};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

pub use config::{DnsConfig, FileConfig, LoadBalancingConfig, ProtocolConfig, ResolverConfig, StaticConfig};
pub use splitter::Splitter;

use crate::otlp::{MAX_MERGED, OtlpConfig};
use backend::Template;
use balancer::Balancer;
use front::Front;
use keys::Routing;
use metrics::ResolverMetrics;
use resolver::Resolver;

/// The `load_balancing` exporter.
#[must_use]
pub fn factory() -> ExporterFactory {
    exporter::<LoadBalancingConfig>(Info {
        name: "load_balancing",
        aliases: &["loadbalancing"],
        signals: &Signal::ALL,
        stability: Stability::Beta,
    })
}

impl LoadBalancingConfig {
    /// The settings of what stands in front of the backends, if anything does.
    fn front(&self) -> Option<(QueueConfig, RetryConfig)> {
        let queue = self.sending_queue.clone().filter(|queue| queue.enabled);
        let retry = self.retry_on_failure.clone().filter(|retry| retry.enabled);
        if queue.is_none() && retry.is_none() && self.timeout.0.is_zero() {
            return None;
        }
        let is_durable = queue.as_ref().is_some_and(|queue| queue.storage.is_some());
        let retry = match (&self.retry_on_failure, is_durable) {
            (Some(retry), _) => retry.clone(),
            // What is on disk stays there until it is delivered, unless told otherwise.
            (None, true) => RetryConfig { max_elapsed_time: Some(Duration::from_secs(0)), ..RetryConfig::default() },
            (None, false) => RetryConfig { enabled: false, ..RetryConfig::default() },
        };
        Some((queue.unwrap_or_else(QueueConfig::disabled), retry))
    }

    /// The exporters of the backends, behind a front or not.
    fn otlp(&self, has_front: bool) -> OtlpConfig {
        let mut otlp = self.protocol.otlp.clone();
        if has_front {
            // The front keeps everything until it is delivered, and nobody may drop it before.
            otlp.sending_queue.wait_for_result = true;
            otlp.sending_queue.block_on_overflow = true;
        }
        otlp
    }
}

impl ExporterConfig for LoadBalancingConfig {
    fn build(&self, context: ExporterContext<'_>) -> Result<Arc<dyn Exporter>, BuildError> {
        let resolver = self.resolver.build().map_err(|error| BuildError::new(&["resolver"], error))?;
        self.build_with(context, resolver)
    }
}

impl LoadBalancingConfig {
    /// The exporter to the backends that `resolver` finds.
    fn build_with(
        &self,
        context: ExporterContext<'_>,
        resolver: Arc<dyn Resolver>,
    ) -> Result<Arc<dyn Exporter>, BuildError> {
        let routing = Routing::new(self.routing_key.as_deref(), &self.routing_attributes, context.signal);
        let routing = routing.map_err(|error| BuildError::new(&["routing_key"], error))?;
        let front = self.front();
        let ledger = match &front {
            None => context.ledger.clone(),
            // The front keeps the account: it hears from the backends' exporters what came of each part.
            Some(_) => Ledger::new(&Telemetry::new(), "backends", context.signal),
        };
        let template = Template {
            id: context.id.clone(),
            signal: context.signal,
            ledger,
            batching: context.batching.clone(),
            extensions: context.extensions.clone(),
            telemetry: Arc::clone(&context.telemetry),
            clock: Arc::clone(&context.clock),
            otlp: self.otlp(front.is_some()),
        };
        let metadata_keys = template.check()?;
        let metrics = ResolverMetrics::new(&context.telemetry, &context.id.to_string(), resolver.name());
        let balancer = Balancer::new(template, routing, self.overlap.0, metrics);
        let front = match front {
            None => None,
            Some((queue, retry)) => {
                let settings = Settings {
                    kind: "load_balancing",
                    queue,
                    retry,
                    timeout: self.timeout.0,
                    endpoint: "the backends".to_owned(),
                    max_request_bytes: MAX_MERGED,
                };
                // Batching is for the backends' queues, which merge what goes to the same backend.
                let context = ExporterContext { batching: None, ..context };
                Some(Delivery::new(
                    &context,
                    settings,
                    Front { balancer: Arc::clone(&balancer), metadata_keys: metadata_keys.clone() },
                )?)
            }
        };
        let is_durable = self.sending_queue.as_ref().is_some_and(|queue| queue.enabled && queue.storage.is_some());
        let stop = watch::Sender::new(false);
        Ok(Arc::new(LoadBalancing { balancer, resolver, front, metadata_keys, is_durable, stop }))
    }
}

/// The exporter.
struct LoadBalancing {
    balancer: Arc<Balancer>,
    resolver: Arc<dyn Resolver>,
    front: Option<Arc<Delivery<Front>>>,
    /// What the backends' exporters look at.
    metadata_keys: Vec<String>,
    /// The front's queue is on disk.
    is_durable: bool,
    /// Ends the watch of the resolver.
    stop: watch::Sender<bool>,
}

#[async_trait]
impl Consumer for LoadBalancing {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        match &self.front {
            Some(front) => front.consume(batch).await,
            None if batch.items() == 0 => Ok(()),
            // Without a front the backends' exporters keep the account, what they have lost included.
            None => self.balancer.place(batch).await.map(|_| ()).map_err(|unplaced| unplaced.refusal),
        }
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        match &self.front {
            Some(front) => front.reserve(batch, permits).await,
            None if batch.items() == 0 => Ok(()),
            None => self.balancer.reserve(batch, permits).await,
        }
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.front.as_ref().map_or_else(|| self.metadata_keys.clone(), |front| front.metadata_keys())
    }
}

#[async_trait]
impl Component for LoadBalancing {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        self.balancer.start(host)?;
        let log = LogGate::default();
        resolve(&*self.resolver, &self.balancer, &log).await;
        if let Some(interval) = self.resolver.interval() {
            let (resolver, balancer) = (Arc::clone(&self.resolver), Arc::clone(&self.balancer));
            let mut stopped = self.stop.subscribe();
            let watch = async move {
                loop {
                    tokio::select! {
                        () = sleep(interval) => {}
                        _ = stopped.wait_for(|stopped| *stopped) => return,
                    }
                    resolve(&*resolver, &balancer, &log).await;
                }
            };
            host.runtimes.spawn(host.runtimes.vital("the resolver of load_balancing", watch));
        }
        match &self.front {
            Some(front) => front.start(host).await,
            None => Ok(()),
        }
    }

    async fn shutdown(&self, deadline: Instant) {
        self.stop.send_replace(true);
        if let Some(front) = &self.front {
            front.begin_shutdown();
            let mut end = deadline;
            if self.is_durable {
                // What is not delivered by now is safe.
                self.balancer.begin_shutdown();
            } else {
                end = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
            }
            front.shutdown(end).await;
        }
        self.balancer.shutdown(deadline).await;
    }

    fn status(&self) -> Option<Status> {
        Some(self.balancer.status())
    }

    fn parts(&self) -> Vec<(String, Status)> {
        let named = |(endpoint, status)| (format!("backend:{endpoint}"), status);
        self.balancer.parts().into_iter().map(named).collect()
    }
}

/// Asks the resolver once.
async fn resolve(resolver: &dyn Resolver, balancer: &Balancer, log: &LogGate) {
    let found = resolver.resolve().await;
    let found = found.and_then(|endpoints| match endpoints.is_empty() {
        // It is wrong more often than right, and nobody would be better off for it.
        true => Err("the list of backends is empty".to_owned()),
        false => Ok(endpoints),
    });
    if let Err(error) = &found
        && let Some(since) = log.event(0)
    {
        tracing::warn!(
            exporter = balancer.id(),
            signal = balancer.signal().name(),
            resolver = resolver.name(),
            error,
            failures = since.requests,
            backends = balancer.count(),
            "failed to resolve the backends; going on with those that are known"
        );
    }
    balancer.resolved(found.ok()).await;
}
