//! One shard: deciding early where memory is short.

use super::fifo::Fifo;
use super::record::UNIT;
use super::shard::Shard;
use super::timers::Handle;
use super::work;
use crate::tail_sampling::tally::Trigger;

/// Headers that a call without memory looks at.
const MAX_SWEEP: u32 = 4096;
/// Under pressure the log is compacted if more than this part of it is dead.
const DEAD_PART: u64 = 4;

/// Early decisions that free nothing, because the traces are kept and the next stage takes them too slowly. More of them
/// would take from traces the time in which they become complete, and help nobody.
#[derive(Debug, Default)]
pub(super) struct Vain {
    /// Traces that were decided early and kept, one after the other.
    kept: u32,
    /// In nanoseconds: when more are to be tried.
    until: u64,
}

impl Vain {
    /// So many in a row say that most are kept.
    const ENOUGH: u32 = 32;
    /// As long as senders that are refused are told to stay away, in nanoseconds.
    const PATIENCE: u64 = 1_000_000_000;
    /// With so many batches to hand on, the next stage has enough to do.
    const PILE: u64 = 4;

    fn note(&mut self, is_kept: bool, now: u64) {
        self.kept = if is_kept { self.kept.saturating_add(1) } else { 0 };
        if self.kept >= Self::ENOUGH {
            self.until = now.saturating_add(Self::PATIENCE);
        }
    }

    /// Is it so now? After a while it is tried with one more.
    fn is(&mut self, now: u64) -> bool {
        if self.kept >= Self::ENOUGH && now >= self.until {
            self.kept = Self::ENOUGH - 1;
        }
        self.kept >= Self::ENOUGH
    }
}

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
    /// goes before a thousand small ones. False if no trace is undecided, or it would be in vain.
    fn decide_early(&mut self, now: u64) -> bool {
        let kept = self.kept_count;
        let decided = match self.pop_giant() {
            Some(slot) => {
                self.decide_now(slot, Trigger::Memory, now);
                true
            }
            None => !self.is_in_vain(now) && self.decide_oldest(Trigger::Memory, now),
        };
        if decided {
            self.vain.note(self.kept_count > kept, now);
        }
        decided
    }

    /// Is all that is decided early kept, and is there plenty to hand on already?
    fn is_in_vain(&mut self, now: u64) -> bool {
        self.kept_bytes > Vain::PILE * self.settings.batch_size as u64 && self.vain.is(now)
    }

    /// Which class of giants a trace of so many units belongs to.
    fn giant_class(&self, units: u32) -> Option<u32> {
        (units / (self.settings.giant / UNIT as u32).max(1)).checked_ilog2()
    }

    /// A trace has grown from so many units to so many.
    pub(super) fn note_giant(&mut self, trace: Handle, (before, after): (u32, u32)) {
        let class = self.giant_class(after);
        if class == self.giant_class(before) {
            return;
        }
        let class = class.unwrap_or_default() as usize;
        while self.giants.len() <= class {
            self.giants.push(Fifo::default());
        }
        if let Some(queue) = self.giants.get_mut(class) {
            queue.push(trace);
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
