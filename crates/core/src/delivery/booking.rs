//! What became of a request, in the ledger, the metrics and the log.

use std::sync::atomic::Ordering;

use super::sending::End;
use super::stage::{Inner, Keeper, interrupted, shutting_down, signed};
use super::{Attempt, Lost};
use crate::batch::{DropReason, Refusal};
use crate::telemetry::Entry;

/// A request was not delivered, or not all of it.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) refusal: Refusal,
    /// It stays on disk, for the next process.
    pub(super) stays: bool,
}

impl Failure {
    /// What is to be said of two parts: what both lost; or the first refusal, and the whole stays if a part does.
    pub(super) fn both(one: Result<Lost, Self>, two: Result<Lost, Self>) -> Result<Lost, Self> {
        match (one, two) {
            (Ok(mut one), Ok(two)) => {
                one.merge(two);
                Ok(one)
            }
            (Err(one), Err(two)) => Err(Self { stays: one.stays || two.stays, ..one }),
            (one, two) => one.and(two),
        }
    }
}

/// A request that must end up in the ledger, even if the task that works on it is dropped.
pub(super) struct Booking<'a, A: Attempt> {
    inner: &'a Inner<A>,
    pub(super) items: usize,
}

impl<'a, A: Attempt> Booking<'a, A> {
    pub(super) fn new(inner: &'a Inner<A>, items: usize) -> Self {
        inner.metrics.in_flight.inc();
        Self { inner, items }
    }

    /// Books how it ended. Returns what was lost of what was taken.
    pub(super) fn settle(&mut self, end: End) -> Result<Lost, Failure> {
        let items = std::mem::take(&mut self.items);
        let Inner { ledger, metrics, keeper, .. } = self.inner;
        if *keeper == Keeper::Disk && end.is_shutdown() {
            // Held until the next process sends it.
            return Err(Failure { refusal: shutting_down(), stays: true });
        }
        let is_ours = *keeper != Keeper::Sender;
        if is_ours {
            ledger.held(-signed(items));
        }
        match end {
            End::Delivered { lost, message } => {
                if !is_ours {
                    ledger.add(Entry::Accepted, items);
                }
                let mut claimed = lost;
                let lost = claimed.take_share(items);
                lost.iter().for_each(|(reason, items)| ledger.dropped(reason, items));
                ledger.add(Entry::Exported, items - lost.items());
                metrics.sent.inc_by(items as u64);
                if let Some(message) = message {
                    self.log_partly(lost.items(), &message);
                }
                Ok(lost)
            }
            End::Moved { lost, mut reported } => {
                let (reason, lost) = lost.unwrap_or((DropReason::Shutdown, 0));
                let lost = lost.min(items);
                let refusal = match reason {
                    DropReason::Rejected => Refusal::permanent("another backend refused what was moved to it"),
                    _ => Refusal::retryable(None, "not every other queue had room"),
                };
                if is_ours {
                    // The other queue has accepted it, in the same ledger.
                    ledger.add(Entry::Emitted, items - lost);
                    ledger.dropped(reason, lost);
                }
                if lost == 0 {
                    return Ok(reported);
                }
                metrics.send_failed.inc_by(lost as u64);
                if is_ours {
                    self.inner.log_drop(reason, &refusal, lost);
                } else if !refusal.is_retryable() && lost < items {
                    // The others have theirs, and are not to be counted as refused with it.
                    ledger.add(Entry::Accepted, lost);
                    ledger.dropped(reason, lost);
                    reported.add(reason, lost);
                    return Ok(reported);
                }
                Err(Failure { refusal, stays: false })
            }
            End::Failed { reason, refusal } => {
                metrics.send_failed.inc_by(items as u64);
                if is_ours {
                    ledger.dropped(reason, items);
                    self.inner.log_drop(reason, &refusal, items);
                }
                Err(Failure { refusal, stays: false })
            }
            End::TooLarge(message) => Err(Failure { refusal: Refusal::permanent(message), stays: false }),
        }
    }

    fn log_partly(&self, rejected: usize, message: &str) {
        let Some(since) = self.inner.partly_log.event(rejected) else { return };
        tracing::warn!(
            exporter = self.inner.exporter,
            message,
            dropped_items = since.items,
            requests = since.requests,
            "{} took the request but not all of it",
            self.inner.settings.endpoint
        );
    }
}

impl<A: Attempt> Drop for Booking<'_, A> {
    fn drop(&mut self) {
        self.inner.metrics.in_flight.dec();
        if self.items > 0 {
            let is_bug = std::thread::panicking() && self.inner.keeper != Keeper::Disk;
            let reason = if is_bug { DropReason::InternalError } else { DropReason::Shutdown };
            let _ = self.settle(End::Failed { reason, refusal: interrupted() });
        }
    }
}

impl<A: Attempt> Inner<A> {
    fn log_drop(&self, reason: DropReason, refusal: &Refusal, items: usize) {
        if reason == DropReason::Shutdown {
            self.lost_at_shutdown.fetch_add(items as u64, Ordering::Relaxed);
        }
        let Some(since) = self.dropped_log.event(items) else { return };
        tracing::error!(
            exporter = self.exporter,
            error = refusal.message(),
            reason = reason.name(),
            dropped_items = since.items,
            dropped_requests = since.requests,
            "Exporting failed. Dropping data."
        );
    }
}
