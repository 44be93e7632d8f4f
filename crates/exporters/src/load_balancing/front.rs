//! The queue in front of the backends: `sending_queue`, `retry_on_failure` and `timeout` of the exporter
//! itself.

use std::sync::Arc;

use async_trait::async_trait;
use nyquist_core::batch::{Batch, Code, DropReason};
use nyquist_core::delivery::{Attempt, Lost, Outcome, Request};
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

/// A request on its way.
pub(super) struct Rest {
    /// What has not been delivered, and may be.
    batches: Vec<Batch>,
    items: usize,
    /// Items that a backend has refused for good, and what was said.
    refused: usize,
    why: Option<(Code, String)>,
    /// What backends took, and have lost.
    lost: Lost,
}

impl Rest {
    /// No backend has to be asked any more.
    fn settle(&self) -> Outcome {
        let mut lost = self.lost.clone();
        match &self.why {
            // What was partly taken the backend's exporter has said.
            None if lost.is_empty() => Outcome::Delivered,
            None => Outcome::Settled { lost, message: String::new() },
            Some((code, message)) if self.refused >= self.items => {
                Outcome::Refused { code: *code, message: message.clone() }
            }
            Some((_, message)) => {
                lost.add(DropReason::Rejected, self.refused);
                Outcome::Settled { lost, message: message.clone() }
            }
        }
    }
}

#[async_trait]
impl Attempt for Front {
    type Encoded = Mutex<Rest>;

    fn encode(&self, request: &Request) -> Result<Mutex<Rest>, Outcome> {
        let batch = Batch::from_wire(request.signal(), request.bytes(), request.items());
        let batches = vec![batch.with_metadata(Arc::clone(request.metadata()))];
        Ok(Mutex::new(Rest { batches, items: request.items(), refused: 0, why: None, lost: Lost::default() }))
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.metadata_keys.clone()
    }

    fn in_flight(&self, num_consumers: usize) -> usize {
        num_consumers.saturating_mul(WAITING)
    }

    async fn attempt(&self, rest: &Mutex<Rest>) -> Outcome {
        // A clone: an attempt that is cut short (`timeout`) must not lose it.
        let batches = rest.lock().batches.clone();
        let placed = self.balancer.place_all(batches).await;
        let mut rest = rest.lock();
        let Unplaced { refusal, left, refused, lost } = match placed {
            Ok(lost) => {
                rest.lost.merge(lost);
                return rest.settle();
            }
            Err(unplaced) => unplaced,
        };
        let (code, message) = (refusal.code(), refusal.message().to_owned());
        rest.batches = left;
        rest.lost.merge(lost);
        rest.refused += refused;
        if refused > 0 {
            rest.why.get_or_insert_with(|| (code, message.clone()));
        }
        match rest.batches.is_empty() {
            true => rest.settle(),
            false => Outcome::Retry { code, after: refusal.retry_delay(), message },
        }
    }
}
