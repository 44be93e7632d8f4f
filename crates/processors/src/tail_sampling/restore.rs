//! The sampler's side of a start from a log on disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nyquist_core::batch::{DropReason, Refusal};
use nyquist_core::telemetry::Entry;

use super::budget::Charge;
use super::buffer::{Arrival, Note};
use super::durable::Durable;
use super::request::Sender;
use super::sampler::{REQUEST, Sampler, nanos};

impl Sampler {
    /// From now on there is a log on disk.
    pub(super) fn attach(&self, durable: Arc<Durable>, now: Duration) {
        for shard in 0..self.shards.len() {
            self.visit(shard, |shard| shard.keep_journal(nanos(now)));
        }
        let _ = self.durable.set(durable);
    }

    /// Between `true` and `false`, what is in the log is being read.
    pub(super) fn set_restoring(&self, restoring: bool) {
        self.restoring.store(restoring, Ordering::Release);
    }

    /// Tells rules whose reasons are not the same apart.
    pub(super) fn fingerprint(&self) -> u32 {
        let reasons = self.settings.rules.reasons.iter();
        let bytes = reasons.flat_map(|reason| reason.attributes.iter().copied().chain([0xff]));
        // FNV-1a
        bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }

    /// Remembers a decision from before a restart; `is_same` tells whether its reason is one of these
    /// rules'.
    pub(super) fn remember(&self, note: Note, is_same: bool, now: Duration) {
        let (shard, _) = self.settings.hash.of(&note.id);
        self.visit(shard, |shard| shard.restore_outcome(note, is_same, nanos(now)));
    }

    /// Charges the budget for memory elsewhere.
    pub(super) fn charge(&self, bytes: usize) -> Charge {
        Charge::new(&self.budget, bytes)
    }

    /// Takes in what is needed of the request in record `sequence` that came at `at`, before a restart; or, if it is a trace
    /// `anew`, when that began. Returns how many spans that is.
    ///
    /// # Errors
    /// As [`Sampler::insert`]; if it is permanent, the spans are booked as lost.
    pub(super) fn restore(
        &self,
        message: &[u8],
        sequence: u64,
        at: Duration,
        is_needed: impl FnMut(&[u8; 16]) -> bool,
        anew: Option<([u8; 16], Duration)>,
    ) -> Result<usize, Refusal> {
        let at = nanos(at);
        REQUEST.with_borrow_mut(|request| {
            request.read(message, Sender::Log, &self.settings.rules.plan, &self.settings.hash);
            request.retain(is_needed);
            let spans = request.spans;
            if spans == 0 {
                request.shrink();
                return Ok(0);
            }
            let admitted = self.admit(message, request, at).map(|reservation| {
                self.ledger.add(Entry::Created, spans);
                let now = at;
                self.take_in(Arrival { message, request, now, stress: false, restored: true, sequence });
                if let Some((id, began)) = anew {
                    let (shard, _) = self.settings.hash.of(&id);
                    self.visit(shard, |shard| shard.restore_arrival(&id, nanos(began)));
                }
                drop(reservation);
                spans
            });
            request.shrink();
            if admitted.as_ref().is_err_and(|refusal| !refusal.is_retryable()) {
                self.ledger.add(Entry::Created, spans);
                self.ledger.dropped(DropReason::MemoryPressure, spans);
            }
            admitted
        })
    }
}
