//! The stage at the head of a pipeline.

use std::sync::Arc;

use async_trait::async_trait;

use crate::batch::{Batch, NoRoom, Permits, Refusal};
use crate::component::Consumer;
use crate::telemetry::{Entry, Ledger};

/// The head of a pipeline: books what the pipeline took responsibility for.
pub(super) struct Head {
    pub(super) next: Arc<dyn Consumer>,
    pub(super) ledger: Ledger,
}

#[async_trait]
impl Consumer for Head {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        let items = batch.items();
        self.next.consume(batch).await?;
        self.ledger.add(Entry::Accepted, items);
        Ok(())
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        self.next.reserve(batch, permits).await
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.next.metadata_keys()
    }
}
