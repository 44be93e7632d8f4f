//! Swappable edges, and the stage at the head of a pipeline.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;

use crate::batch::{Batch, NoRoom, Permits, Refusal};
use crate::component::Consumer;
use crate::telemetry::{Entry, Ledger};

/// An arrow of the graph, which can be pointed at another stage while data flows.
pub struct Edge {
    target: ArcSwap<Arc<dyn Consumer>>,
}

impl Edge {
    /// An edge to `target`.
    #[must_use]
    pub fn new(target: Arc<dyn Consumer>) -> Arc<Self> {
        Arc::new(Self { target: ArcSwap::from_pointee(target) })
    }

    /// Points the edge at `target`. Batches under way finish where they are.
    pub fn swap(&self, target: Arc<dyn Consumer>) {
        self.target.store(Arc::new(target));
    }
}

#[async_trait]
impl Consumer for Edge {
    async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
        let target = self.target.load_full();
        target.consume(batch).await
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        let target = self.target.load_full();
        target.reserve(batch, permits).await
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.target.load().metadata_keys()
    }
}

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
