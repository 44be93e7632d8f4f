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
///
/// What goes together may be several batches, one for each client: each is handed over when the one before it is
/// settled.
#[derive(Debug)]
pub struct Outgoing {
    pub(super) batch: Batch,
    pub(super) spans: usize,
    pub(super) settled: bool,
    /// Unsettled, it is not lost: it is in the log on disk.
    pub(super) stays: bool,
    /// The traces that it completes, with those before it.
    pub(super) parcel: Option<Parcel>,
    /// What comes after it, the next one last.
    pub(super) rest: Vec<Outgoing>,
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

    /// `batches` to be offered one after the other, which together complete the traces of `parcel`.
    pub(super) fn in_turn(mut batches: Vec<Self>, parcel: Option<Parcel>) -> Option<Self> {
        if let Some(last) = batches.last_mut() {
            last.parcel = parcel;
        }
        batches.reverse();
        Self::first_of(batches)
    }

    fn first_of(mut batches: Vec<Self>) -> Option<Self> {
        let mut first = batches.pop()?;
        first.rest = batches;
        Some(first)
    }

    /// The next stage has taken it. Returns what goes with it and is to be offered now.
    pub fn accepted(mut self) -> Option<Self> {
        self.settle()
    }

    fn settle(&mut self) -> Option<Self> {
        self.settled = true;
        if let Some(parcel) = self.parcel.take() {
            parcel.settle();
        }
        Self::first_of(std::mem::take(&mut self.rest))
    }

    /// The next stage has refused it for good. Returns what goes with it and is to be offered now.
    pub fn rejected(mut self) -> Option<Self> {
        self.ledger.dropped(DropReason::Rejected, self.spans);
        self.settle()
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
