//! Takes everything and keeps nothing.

use std::sync::Arc;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, Refusal, Signal};
use nyquist_core::component::{
    BuildError, Component, Consumer, Exporter, ExporterConfig, ExporterContext, ExporterFactory, Info, Stability,
    exporter,
};
use nyquist_core::config::Validate;
use nyquist_core::telemetry::{Entry, Ledger};
use serde::Deserialize;

/// The `nop` exporter.
#[must_use]
pub fn factory() -> ExporterFactory {
    exporter::<NopConfig>(Info { name: "nop", aliases: &[], signals: &Signal::ALL, stability: Stability::Beta })
}

/// It has no settings.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NopConfig {}

impl Validate for NopConfig {}

impl ExporterConfig for NopConfig {
    fn build(&self, context: ExporterContext<'_>) -> Result<Arc<dyn Exporter>, BuildError> {
        Ok(Arc::new(Nop(context.ledger)))
    }
}

struct Nop(Ledger);

impl Component for Nop {}

#[async_trait]
impl Consumer for Nop {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        self.0.add(Entry::Accepted, batch.items());
        self.0.add(Entry::Exported, batch.items());
        Ok(())
    }

    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}
