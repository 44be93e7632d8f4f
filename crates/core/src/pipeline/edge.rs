//! The arrows of the graph.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;

use crate::batch::{Batch, NoRoom, Permits, Refusal};
use crate::component::Consumer;

/// An arrow of the graph, which can be pointed at another stage while data flows: the seam at which a reload
/// of the configuration exchanges components.
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use tokio::task::yield_now;

    use super::*;
    use crate::batch::Signal;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    #[async_trait]
    impl Consumer for Counted {
        async fn consume(&self, batch: Batch) -> Result<(), Refusal> {
            self.0.fetch_add(batch.items(), Ordering::Relaxed);
            Ok(())
        }

        fn metadata_keys(&self) -> Vec<String> {
            Vec::new()
        }
    }

    /// Guarantee: from the moment of the swap on all goes to the new stage; no batch is lost, none comes twice.
    #[tokio::test]
    async fn an_edge_is_pointed_elsewhere_while_data_flows() {
        let (one, two) = (Arc::new(Counted::default()), Arc::new(Counted::default()));
        let count = |stage: &Counted| stage.0.load(Ordering::Relaxed);
        let edge = Edge::new(one.clone());
        let sender = Arc::clone(&edge);
        let sending = tokio::spawn(async move {
            for _ in 0..100 {
                sender.consume(Batch::from_wire(Signal::Traces, Bytes::from_static(b"x"), 1)).await.unwrap();
                yield_now().await;
            }
        });
        while count(&one) < 10 {
            yield_now().await;
        }
        edge.swap(two.clone());
        let before = count(&one);
        sending.await.unwrap();
        assert_eq!((count(&one), count(&two)), (before, 100 - before));
    }
}
