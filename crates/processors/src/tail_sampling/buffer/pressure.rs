//! One shard: deciding early where memory is short.

use super::fifo::Fifo;
use super::shard::Shard;
use super::work;
use crate::tail_sampling::tally::Trigger;

/// Headers that a call without memory looks at.
const MAX_SWEEP: u32 = 4096;
/// Under pressure the log is compacted if more than this part of it is dead.
const DEAD_PART: u64 = 4;

impl Shard {
    /// Compresses what can be, and decides traces early until those that held `bytes` are decided.
    pub(crate) fn relieve(&mut self, now: u64, bytes: usize) {
        if self.limit_spares() >= bytes || self.freeze_full() >= bytes {
            return;
        }
        let dead = (self.log.bytes() as u64).saturating_sub(self.live_bytes);
        if self.has_blocks_to_compact() && dead > self.log.bytes() as u64 / DEAD_PART {
            // What was decided already is enough, once its memory is free.
            if self.has_done_enough() || self.compact() {
                if !self.has_done_enough() {
                    self.compact();
                }
                return;
            }
        }
        if self.is_on_its_way() {
            self.tidy();
            return;
        }
        let before = self.undecided_bytes();
        while !self.has_done_enough() {
            let decided = before.saturating_sub(self.undecided_bytes());
            if decided >= bytes as u64 || !self.decide_early(now) {
                break;
            }
        }
        self.tidy();
    }

    /// Decides traces early until `bytes` of memory are free, as far as that helps.
    pub(crate) fn make_room(&mut self, now: u64, bytes: usize) {
        let target = self.footprint().saturating_sub(bytes);
        self.give_back(bytes);
        self.freeze_full();
        self.headers.sweep(self.log.oldest(), MAX_SWEEP);
        while !self.has_done_enough() {
            let missing = self.footprint().saturating_sub(target);
            if missing == 0 || !self.decide_early(now) {
                break;
            }
            self.tidy();
            self.give_back(missing);
        }
    }

    /// Is what was decided to be kept, and is about to be handed on, enough? Small traces would pay for a giant that is
    /// decided already. Not where it piles up.
    fn is_on_its_way(&self) -> bool {
        self.budget.small_excess().is_some_and(|excess| self.kept_bytes > excess as u64)
    }

    fn give_back(&mut self, bytes: usize) {
        self.work += self.log.drop_spares(bytes) as u64 * work::BLOCK;
    }

    fn undecided_bytes(&self) -> u64 {
        self.live_bytes.saturating_sub(self.kept_bytes)
    }

    /// Decides a giant if there is one, the largest first; else the oldest trace. So one large trace
    /// goes before a thousand small ones. False if no trace is undecided.
    fn decide_early(&mut self, now: u64) -> bool {
        match self.pop_giant() {
            Some(slot) => {
                self.decide_now(slot, Trigger::Memory, now);
                true
            }
            None => self.decide_oldest(Trigger::Memory, now),
        }
    }

    fn pop_giant(&mut self) -> Option<u32> {
        for class in (0..self.giants.len()).rev() {
            while let Some(handle) = self.giants.get_mut(class).and_then(Fifo::pop) {
                let units = self.traces.get(handle.slot).map_or(0, |trace| trace.units);
                // One that has grown on stands in a higher class too.
                if self.is_pending(handle) && self.giant_class(units) == Some(class as u32) {
                    return Some(handle.slot);
                }
            }
        }
        None
    }

    /// Decides the oldest undecided trace; false if there is none.
    pub(super) fn decide_oldest(&mut self, trigger: Trigger, now: u64) -> bool {
        while let Some(handle) = self.waiting.pop() {
            if self.is_pending(handle) {
                self.decide_now(handle.slot, trigger, now);
                return true;
            }
        }
        false
    }
}
