//! Kept spans on their way.

use std::sync::Arc;

use nyquist_core::batch::{Batch, DropReason};
use nyquist_core::clock::Clock;
use nyquist_core::telemetry::Ledger;

use super::budget::Charge;
use super::durable::Parcel;
use super::metrics::Metrics;

/// A batch of kept spans on its way to the next stage. The spans are held until it is settled;
/// dropped unsettled, they count as lost in shutdown.
#[derive(Debug)]
pub struct Outgoing {
    pub(super) batch: Batch,
    pub(super) spans: usize,
    pub(super) settled: bool,
    /// Unsettled, it is not lost: it is in the log on disk.
    pub(super) stays: bool,
    /// The traces that it completes.
    pub(super) parcel: Option<Parcel>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ledger: Ledger,
    pub(super) _charge: Charge,
}

impl Outgoing {
    /// A copy of the batch, to offer.
    #[must_use]
    pub fn batch(&self) -> Batch {
        self.batch.clone()
    }

    /// It is settled: writes down, where there is a log, that its traces need not be sent again.
    pub(super) async fn write_down(&mut self, clock: &dyn Clock) {
        if let Some(parcel) = self.parcel.take() {
            parcel.delivered(clock).await;
        }
    }

    /// The next stage has taken it.
    pub fn accepted(mut self) {
        self.settle();
    }

    fn settle(&mut self) {
        self.settled = true;
        if let Some(parcel) = self.parcel.take() {
            parcel.settle();
        }
    }

    /// The next stage has refused it for good.
    pub fn rejected(mut self) {
        self.settle();
        self.ledger.dropped(DropReason::Rejected, self.spans);
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if !self.settled && self.stays {
            // Held until the next process sends it.
            return;
        }
        if !self.settled {
            self.ledger.dropped(DropReason::Shutdown, self.spans);
        }
        self.ledger.held(-(self.spans as i64));
        self.metrics.spans(-(self.spans as i64));
    }
}
