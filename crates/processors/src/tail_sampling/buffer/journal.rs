//! What a shard remembers for the log on disk (`durable`): since when it needs what is in there, and
//! which decisions are not written down yet.

use std::collections::BTreeMap;

use super::fifo::Fifo;
use super::timers::Millis;
use super::trace::Why;

/// Times are counted in steps of 2^8 = 256 ms: as precise as the log is cut.
const STEP_BITS: u32 = 8;
/// What an entry of a small B-tree takes, on average.
const ENTRY: usize = 32;

/// What became of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its spans are not needed any more.
    Dropped,
    /// It will be handed on.
    Kept,
    /// The next stage has it, all that there was of it.
    Delivered,
}

/// A decision to write down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) id: [u8; 16],
    pub(crate) outcome: Outcome,
    pub(crate) why: Why,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Journal {
    /// How many traces in the buffer need what came at these times, in steps.
    needs: BTreeMap<u64, u32>,
    /// Slots of traces that have been written anew, and since when they need what came.
    moved: BTreeMap<u32, u64>,
    notes: Fifo<Note>,
    /// More notes are not taken: what they say is decided again after a restart.
    most_notes: usize,
    count: usize,
    /// Traces that the batch in the making has completed.
    leaving: Vec<Note>,
    left: Option<u64>,
    /// The latest time that was seen, in milliseconds.
    now: u64,
}

impl Journal {
    /// One whose notes take at most `bytes`.
    pub(super) fn new(bytes: usize, now: u64) -> Self {
        Self {
            needs: BTreeMap::new(),
            moved: BTreeMap::new(),
            notes: Fifo::default(),
            most_notes: bytes / size_of::<Note>(),
            count: 0,
            leaving: Vec::new(),
            left: None,
            now: now / 1_000_000,
        }
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        (self.needs.len() + self.moved.len()) * ENTRY + self.notes.bytes() + self.leaving.capacity() * size_of::<Note>()
    }

    /// It is `now`, in nanoseconds.
    pub(super) fn see(&mut self, now: u64) {
        self.now = self.now.max(now / 1_000_000);
    }

    /// A trace whose first span came at `arrival` is in the buffer.
    pub(super) fn enter(&mut self, arrival: Millis) {
        let step = arrival.full(self.now) >> STEP_BITS;
        *self.needs.entry(step).or_default() += 1;
    }

    /// It is not any more.
    pub(super) fn exit(&mut self, slot: u32, arrival: Millis) {
        let since = self.moved.remove(&slot).unwrap_or_else(|| arrival.full(self.now));
        self.give_up(since);
    }

    /// The trace needs nothing that came before `since` any more.
    pub(super) fn move_to(&mut self, slot: u32, arrival: Millis, since: u64) {
        self.exit(slot, arrival);
        self.moved.insert(slot, since);
        *self.needs.entry(since >> STEP_BITS).or_default() += 1;
    }

    /// Since when the trace needs what came.
    pub(super) fn since(&self, slot: u32, arrival: Millis) -> u64 {
        self.moved.get(&slot).copied().unwrap_or_else(|| arrival.full(self.now))
    }

    /// All digits of a trace's time, in milliseconds.
    pub(super) fn full(&self, arrival: Millis) -> u64 {
        arrival.full(self.now)
    }

    fn give_up(&mut self, since: u64) {
        let step = since >> STEP_BITS;
        if let Some(count) = self.needs.get_mut(&step) {
            *count -= 1;
            if *count == 0 {
                self.needs.remove(&step);
            }
        }
    }

    /// Nothing that came before this time, in milliseconds, is needed; `None` if nothing is.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.needs.first_key_value().map(|(step, _)| step << STEP_BITS)
    }

    pub(super) fn note(&mut self, id: [u8; 16], outcome: Outcome, why: Why) {
        if self.count < self.most_notes {
            self.count += 1;
            self.notes.push(Note { id, outcome, why });
        }
    }

    pub(super) fn take_notes(&mut self, into: &mut Vec<Note>) {
        while let Some(note) = self.notes.pop() {
            into.push(note);
        }
        self.count = 0;
    }

    /// The batch in the making has all there is of the trace.
    pub(super) fn leave(&mut self, slot: u32, arrival: Millis, id: [u8; 16], why: Why) {
        let since = self.since(slot, arrival);
        self.left = Some(self.left.map_or(since, |left| left.min(since)));
        self.leaving.push(Note { id, outcome: Outcome::Delivered, why });
    }

    /// The traces that have left, and since when they need what came.
    pub(super) fn take_left(&mut self) -> (Vec<Note>, Option<u64>) {
        (std::mem::take(&mut self.leaving), self.left.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail_sampling::tally::Trigger;

    const MILLI: u64 = 1_000_000;

    /// Guarantee: the oldest need is never later than that of any trace in the buffer, across the wrap of
    /// the 32 bits of a trace's time.
    #[test]
    fn the_oldest_need_is_that_of_the_oldest_trace() {
        let wrap = 1 << 32;
        let mut journal = Journal::new(1 << 20, (wrap - 10_000) * MILLI);
        let at = |ms: u64| Millis::of(ms * MILLI);
        journal.enter(at(wrap - 9_000));
        journal.see((wrap + 5_000) * MILLI);
        journal.enter(at(wrap + 5_000));
        let oldest = |journal: &Journal| journal.oldest().unwrap();
        assert!((wrap - 9_256..=wrap - 9_000).contains(&oldest(&journal)));
        journal.move_to(7, at(wrap - 9_000), wrap + 4_000);
        assert!((wrap + 3_744..=wrap + 4_000).contains(&oldest(&journal)));
        journal.exit(7, at(wrap - 9_000));
        assert!((wrap + 4_744..=wrap + 5_000).contains(&oldest(&journal)));
        journal.exit(8, at(wrap + 5_000));
        assert_eq!(journal.oldest(), None);
        assert_eq!(journal.bytes(), Journal::new(0, 0).bytes());
    }

    #[test]
    fn notes_are_bounded() {
        let mut journal = Journal::new(10 * size_of::<Note>(), 0);
        let why = Why { reason: 3, trigger: Some(Trigger::Root) };
        for index in 0..20 {
            journal.note([index; 16], Outcome::Dropped, why);
        }
        let mut notes = Vec::new();
        journal.take_notes(&mut notes);
        assert_eq!(notes.len(), 10);
        journal.note([1; 16], Outcome::Kept, why);
        notes.clear();
        journal.take_notes(&mut notes);
        assert_eq!(notes, [Note { id: [1; 16], outcome: Outcome::Kept, why }]);
    }
}
