//! The queue in front of the backends: `sending_queue`, `retry_on_failure` and `timeout` of the exporter
//! itself.

use std::sync::Arc;

use async_trait::async_trait;
use nyquist_core::batch::Batch;
use nyquist_core::delivery::{Attempt, Outcome, Request};
use parking_lot::Mutex;

use super::balancer::{Balancer, Unplaced};

/// A request in front waits for the slowest of its backends; so that one that is down does not stop the
/// others, this many times `num_consumers` requests may wait.
pub(super) const WAITING: usize = 100;

/// Gives a request to the backends and waits until each has its part. Parts that were delivered are not
/// sent again.
pub(super) struct Front {
    pub(super) balancer: Arc<Balancer>,
    /// What the backends' exporters look at.
    pub(super) metadata_keys: Vec<String>,
}

#[async_trait]
impl Attempt for Front {
    /// What is not delivered yet.
    type Encoded = Mutex<Vec<Batch>>;

    fn encode(&self, request: &Request) -> Result<Mutex<Vec<Batch>>, Outcome> {
        let batch = Batch::from_wire(request.signal(), request.bytes(), request.items());
        Ok(Mutex::new(vec![batch.with_metadata(Arc::clone(request.metadata()))]))
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.metadata_keys.clone()
    }

    fn in_flight(&self, num_consumers: usize) -> usize {
        num_consumers.saturating_mul(WAITING)
    }

    async fn attempt(&self, rest: &Mutex<Vec<Batch>>) -> Outcome {
        // A clone: an attempt that is cut short (`timeout`) must not lose it.
        let batches = rest.lock().clone();
        let Err(Unplaced { refusal, left }) = self.balancer.place_all(batches).await else { return Outcome::Delivered };
        *rest.lock() = left;
        let (code, message) = (refusal.code(), refusal.message().to_owned());
        if refusal.is_retryable() {
            Outcome::Retry { code, after: refusal.retry_delay(), message }
        } else {
            Outcome::Refused { code, message }
        }
    }
}
