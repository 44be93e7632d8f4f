//! `sampling_strategy: span-ingest`: what a request brings of a trace is looked at alone, as it comes.
//! What keeps or drops the trace is final; a trace that nothing has kept when its time comes is not
//! sampled.

use std::collections::HashSet;

use super::shard::Shard;
use super::trace::{State, Trace};
use crate::tail_sampling::rules::Bits;
use crate::tail_sampling::rules::verdict::Decision;
use crate::tail_sampling::tally::Trigger;

/// The traces of a request, in order. Reused from request to request.
#[derive(Debug, Default)]
pub(super) struct Batches {
    slots: Vec<(u32, u32)>,
    known: HashSet<u32>,
}

impl Batches {
    /// Traces that are kept allocated from request to request.
    const KEEP: usize = 1024;
    /// What a place in the table takes, of which an eighth is empty.
    const PLACE: usize = size_of::<u32>() + 1;
    /// What a trace takes, of a list and a table that have just grown.
    const EACH: usize = 2 * size_of::<(u32, u32)>() + 3 * Self::PLACE;
    /// For so few there is room from the first one on.
    const FEW: usize = 8;

    /// By how much those of so many shards can grow when so many runs come.
    pub(super) const fn growth(shards: usize, runs: usize) -> usize {
        (shards * Self::FEW + runs) * Self::EACH
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<(u32, u32)>() + self.known.capacity() * 8 / 7 * Self::PLACE
    }

    fn shrink(&mut self) {
        if self.slots.capacity() > Self::KEEP {
            self.slots.shrink_to(Self::KEEP);
            self.known.shrink_to(Self::KEEP);
        }
    }
}

impl Shard {
    /// A run of the trace in `slot` is about to come: if it is the request's first, what came before is
    /// no longer looked at.
    pub(super) fn begin_batch(&mut self, slot: u32) {
        let Some(trace) = self.traces.get_mut(slot).filter(|trace| trace.state == State::Pending) else {
            return;
        };
        if self.batches.known.insert(slot) {
            self.batches.slots.push((slot, trace.generation));
            (trace.bits, trace.start, trace.end) = (Bits::NONE, u64::MAX, 0);
        }
    }

    /// Asks the policies about what a request has brought.
    pub(super) fn decide_batches(&mut self, now: u64) {
        let mut batches = std::mem::take(&mut self.batches);
        batches.known.clear();
        for (slot, generation) in batches.slots.drain(..) {
            let pending = |trace: &&Trace| trace.state == State::Pending && trace.generation == generation;
            if self.traces.get(slot).filter(pending).is_none() {
                continue;
            }
            let judged = self.ask(slot, now);
            if judged.verdict.decision != Decision::NotSampled {
                self.apply(slot, Trigger::Ingest, judged, now);
            }
        }
        batches.shrink();
        self.batches = batches;
    }
}
