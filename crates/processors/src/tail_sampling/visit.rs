//! Visits to shards, and the books.
//!
//! Who visits a shard counts in a tally of the thread's own. It is booked when the last shard of a request has been
//! visited and none is locked any more: what all threads add to is touched once, not once for each shard. Only the
//! budget is told at once, so that it is exact.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use nyquist_core::batch::DropReason;
use nyquist_core::telemetry::Entry;
use parking_lot::MutexGuard;

use super::buffer::Shard;
use super::lock::Locked;
use super::sampler::Sampler;
use super::tally::Tally;

thread_local! {
    /// Empty, for the next visits of this thread.
    static TALLY: Cell<Option<Box<Tally>>> = const { Cell::new(None) };
}

/// Visits to shards that are booked together.
#[derive(Debug)]
pub(super) struct Visits<'a> {
    sampler: &'a Sampler,
    tally: Box<Tally>,
}

impl Visits<'_> {
    /// Calls `act` with a shard, which is the one behind `locked`, and counts what happens.
    pub(super) fn visit<T>(&mut self, locked: &Locked, shard: &mut Shard, act: impl FnOnce(&mut Shard) -> T) -> T {
        shard.swap_tally(&mut self.tally);
        let result = act(shard);
        shard.swap_tally(&mut self.tally);
        self.settle(shard);
        locked.note(shard);
        result
    }

    /// Tells the budget what a shard takes now.
    fn settle(&mut self, shard: &mut Shard) {
        #[cfg(test)]
        self.sampler.most_work.fetch_max(shard.work(), Ordering::Relaxed);
        shard.end_work();
        let footprint = shard.footprint();
        let before = shard.charged + std::mem::take(&mut shard.claimed);
        if footprint != before {
            self.sampler.budget.change(before, footprint);
        }
        self.tally.bytes += footprint as i64 - shard.charged as i64;
        shard.charged = footprint;
        if let Some(compressed) = shard.compressed() {
            self.sampler.metrics.compressed(compressed);
        }
        let pending = shard.pending();
        self.tally.pending += pending as isize - shard.charged_pending as isize;
        shard.charged_pending = pending;
    }
}

impl Sampler {
    /// Calls `act` with a shard, as soon as nobody else has it.
    pub(super) fn visit<T>(&self, shard: usize, act: impl FnOnce(&mut Shard) -> T) -> Option<T> {
        let locked = self.shards.get(shard)?;
        Some(self.booked(|visits| {
            locked.give_way();
            let mut shard = locked.lock();
            let result = visits.visit(locked, &mut shard, act);
            // To a receiver that waits: the next slice of decisions would have the lock again before it wakes up.
            MutexGuard::unlock_fair(shard);
            result
        }))
    }

    /// Calls `act`, which visits shards, and books what has happened in them.
    pub(super) fn booked<T>(&self, act: impl FnOnce(&mut Visits<'_>) -> T) -> T {
        let mut visits = Visits { sampler: self, tally: TALLY.take().unwrap_or_default() };
        visits.tally.fit(self.settings.rules.names.len());
        let result = act(&mut visits);
        let mut tally = visits.tally;
        self.book(&tally);
        tally.clear();
        TALLY.set(Some(tally));
        result
    }

    fn book(&self, tally: &Tally) {
        self.metrics.count(tally);
        if tally.pending != 0 {
            self.pending.fetch_add(tally.pending, Ordering::Relaxed);
        }
        if tally.held != 0 {
            self.ledger.held(tally.held);
            self.metrics.spans(tally.held);
        }
        if tally.sampled_out > 0 {
            self.ledger.add(Entry::SampledOut, tally.sampled_out);
        }
        if tally.discarded > 0 {
            self.ledger.dropped(DropReason::Shutdown, tally.discarded);
        }
        if tally.no_room > 0 {
            self.ledger.dropped(DropReason::MemoryPressure, tally.no_room);
        }
        let [without_root, with_root] = tally.roots;
        if without_root + with_root > 0
            && let Some(percentage) = self.evidence.count(without_root, with_root)
        {
            tracing::warn!(
                "tail_sampling: {percentage} % of the traces had no root span when they were decided: if their spans go to \
                 several gateways, each decides on a part only; balance by trace id in front of them (load_balancing with \
                 routing_key: traceID)"
            );
        }
    }
}
