//! Processors that look at, or change, one batch at a time.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Component, Consumer};
use crate::batch::{Batch, NoRoom, Permits, Refusal};
use crate::telemetry::{Entry, Ledger};

/// The simplest kind of processor: synchronous, without locks, channels or tasks.
///
/// `process` is called concurrently. Items that are gone afterwards count as filtered, items that
/// have come as created.
pub trait BatchProcessor: Send + Sync + 'static {
    /// Looks at `batch` or changes it. A batch that ends empty goes no further.
    ///
    /// # Errors
    /// A refusal sends the batch back to whoever sent it, unchanged.
    fn process(&self, batch: &mut Batch) -> Result<(), Refusal>;

    /// The metadata, in lower case, that it looks at.
    fn metadata_keys(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A [`BatchProcessor`] as a stage of a pipeline.
pub struct Stateless<P> {
    processor: P,
    next: Arc<dyn Consumer>,
    ledger: Ledger,
}

impl<P: BatchProcessor> Stateless<P> {
    /// `processor` in front of `next`.
    #[must_use]
    pub fn new(processor: P, next: Arc<dyn Consumer>, ledger: Ledger) -> Arc<Self> {
        Arc::new(Self { processor, next, ledger })
    }
}

impl<P: BatchProcessor> Component for Stateless<P> {}

#[async_trait]
impl<P: BatchProcessor> Consumer for Stateless<P> {
    async fn consume(&self, mut batch: Batch) -> Result<(), Refusal> {
        let before = batch.items();
        self.processor.process(&mut batch)?;
        let after = batch.items();
        if after > 0 {
            self.next.consume(batch).await?;
        }
        // Counted only once accepted, so that a refused and repeated batch counts once.
        if after < before {
            self.ledger.add(Entry::Filtered, before - after);
        } else if after > before {
            self.ledger.add(Entry::Created, after - before);
        }
        Ok(())
    }

    async fn reserve(&self, batch: &Batch, permits: &mut Permits) -> Result<(), NoRoom> {
        self.next.reserve(batch, permits).await
    }

    fn metadata_keys(&self) -> Vec<String> {
        let mut keys = self.next.metadata_keys();
        keys.extend(self.processor.metadata_keys());
        keys
    }
}
