//! `forward`: what leaves some pipelines goes on into others of the same signal.

use std::sync::Arc;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, NoRoom, Permits, Refusal, Signal};
use nyquist_core::component::{
    BuildError, Component, Connector, ConnectorConfig, ConnectorContext, ConnectorFactory, Consumer, Info, Stability,
    connector,
};
use nyquist_core::config::Validate;
use nyquist_core::telemetry::{Entry, Ledger};
use serde::Deserialize;

/// The `forward` connector.
#[must_use]
pub fn factory() -> ConnectorFactory {
    const PAIRS: [(Signal, Signal); 3] =
        [(Signal::Traces, Signal::Traces), (Signal::Metrics, Signal::Metrics), (Signal::Logs, Signal::Logs)];
    let info = Info { name: "forward", aliases: &[], signals: &Signal::ALL, stability: Stability::Beta };
    connector::<ForwardConfig>(info, &PAIRS)
}

/// It has no settings.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ForwardConfig {}

impl Validate for ForwardConfig {}

impl ConnectorConfig for ForwardConfig {
    fn build(&self, context: ConnectorContext<'_>) -> Result<Arc<dyn Connector>, BuildError> {
        Ok(Arc::new(Forward { next: context.next, ledger: context.taken }))
    }
}

struct Forward {
    next: Arc<dyn Consumer>,
    ledger: Ledger,
}

impl Component for Forward {}

#[async_trait]
impl Consumer for Forward {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        let items = batch.items();
        self.next.consume(batch).await?;
        self.ledger.add(Entry::Accepted, items);
        self.ledger.add(Entry::Emitted, items);
        Ok(())
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        self.next.reserve(batch, permits).await
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.next.metadata_keys()
    }
}
