//! One shard and the log on disk: what is noted, what is written anew, what comes back after a restart.
//!
//! A trace that is written anew replaces its spans in the records up to a number, exactly: a span more would come twice
//! after a crash, and one less not at all. But records come into the buffer in any order, and while some are on their
//! way there is no number up to which, and not beyond, all are in it. So first a [`Cut`] is made: what had come before has lower
//! numbers than the highest one on disk at that moment, and of what comes after it is noted with each record in the
//! buffer on which side it belongs. When the last record on the lower side is in the buffer, traces can be written anew up to
//! the cut, also those that go on growing.

use super::assemble::{Assembly, Part};
use super::cache::Past;
use super::freeze::thawing;
use super::headers::Headers;
use super::journal::{Journal, Note, Outcome};
use super::log::{Log, Place};
use super::record::{Addr, Record};
use super::shard::Shard;
use super::timers::Millis;
use super::trace::{State, Trace, Why};
use crate::tail_sampling::client;

/// Slots that one call looks at, at most.
const LOOKS: u32 = 1 << 14;

/// See the module's documentation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// The number of the last record on disk on the lower side.
    pub(super) upto: u64,
    /// What is in the buffer before this place is on the lower side, whatever is noted with it: that was about an older cut.
    place: Place,
}

impl Cut {
    /// Everything is on the lower side.
    pub(super) const NONE: Self = Self { upto: u64::MAX, place: Place::LAST };

    /// Is a record of the buffer, which is at `place`, on the upper side?
    pub(super) fn is_later(&self, record: &Record, place: Place) -> bool {
        record.contents.later && place >= self.place
    }
}

/// A trace as it was at the cut.
#[derive(Debug)]
pub(crate) struct Anew {
    slot: u32,
    generation: u32,
    pub(crate) id: [u8; 16],
    /// When its first span came, in milliseconds.
    pub(crate) arrival: u64,
    /// Milliseconds from its first span to its last.
    pub(crate) last_seen: u32,
    /// The number of the last record on disk whose spans it replaces.
    pub(crate) upto: u64,
    pub(crate) spans: u32,
    /// Its spans, as an export request that says which client sent what.
    pub(crate) message: Vec<u8>,
}

impl Shard {
    /// From now on there is a log on disk.
    pub(crate) fn keep_journal(&mut self, now: u64) {
        self.journal = Some(Box::new(Journal::new(self.settings.block_size, now)));
    }

    pub(super) fn see(&mut self, now: u64) {
        if let Some(journal) = &mut self.journal {
            journal.see(now);
        }
    }

    pub(super) fn note(&mut self, id: [u8; 16], outcome: Outcome, why: Why) {
        if let Some(journal) = &mut self.journal {
            journal.note(id, outcome, why);
        }
    }

    /// Hands over the decisions that are not written down yet; returns since when the shard needs what
    /// came, in milliseconds.
    pub(crate) fn take_notes(&mut self, into: &mut Vec<Note>) -> Option<u64> {
        let journal = self.journal.as_mut()?;
        journal.take_notes(into);
        journal.oldest()
    }

    /// Bytes of spans in the buffer.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Makes a cut after the record on disk with the highest number, which is read while nobody else has the shard. Returns it.
    pub(crate) fn cut(&mut self, seen: impl FnOnce() -> u64) -> u64 {
        let upto = seen();
        self.cut = Cut { upto, place: self.log.end() };
        upto
    }

    /// Traces that need what came before `before`, as they were at the cut, to be written anew, until they take `max_bytes`.
    /// `cursor` says where the search goes on. All records on disk up to the cut are in the buffer.
    pub(crate) fn write_anew(&mut self, before: u64, max_bytes: usize, cursor: &mut u32) -> Vec<Anew> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let slots = self.traces.slots().end;
        for _ in 0..LOOKS.min(slots) {
            if bytes >= max_bytes || self.has_done_enough() {
                break;
            }
            if *cursor >= slots {
                *cursor = 0;
            }
            let slot = *cursor;
            *cursor += 1;
            if let Some(trace) = self.copy_of(slot, before) {
                bytes += trace.message.len();
                found.push(trace);
            }
        }
        found
    }

    fn copy_of(&mut self, slot: u32, before: u64) -> Option<Anew> {
        let journal = self.journal.as_mut()?;
        let trace = self.traces.get(slot).filter(|trace| trace.state != State::Free)?;
        // The one that is leaving is on its way in part.
        if journal.since(slot, trace.arrival) >= before || self.kept.front() == Some(slot) {
            return None;
        }
        let copy = self.assembly.copy(trace, self.cut, &mut self.headers, &mut self.log, self.settings.batch_size);
        self.work += thawing(self.assembly.thawed);
        let (message, spans) = copy?;
        if trace.state == State::Kept {
            let (_, tag) = self.settings.hash.of(&trace.id);
            journal.note(trace.id, Outcome::Kept, self.sampled.why(tag, trace));
        }
        let Trace { id, generation, last_seen, .. } = *trace;
        let arrival = journal.full(trace.arrival);
        Some(Anew { slot, generation, id, arrival, last_seen, upto: self.cut.upto, spans, message })
    }

    /// The trace has been written anew: it needs nothing that came before `since`.
    pub(crate) fn written_anew(&mut self, trace: &Anew, since: u64) {
        if let Some(journal) = &mut self.journal
            && let Some(found) = self.traces.get(trace.slot)
            && found.state != State::Free
            && found.generation == trace.generation
        {
            journal.move_to(trace.slot, found.arrival, since);
        }
    }

    /// Remembers a decision from before a restart.
    pub(crate) fn restore_outcome(&mut self, note: Note, is_same: bool, now: u64) {
        let (_, tag) = self.settings.hash.of(&note.id);
        let past = Past::new(if is_same { note.why } else { note.why.after_a_change() }, now);
        match note.outcome {
            Outcome::Dropped => self.not_sampled.insert(tag, &note.id, past),
            Outcome::Kept | Outcome::Delivered => self.sampled.insert(tag, &note.id, past),
        };
    }

    /// The first span of a restored trace came at `arrival`, in nanoseconds, and not when it was inserted.
    pub(crate) fn restore_arrival(&mut self, id: &[u8; 16], arrival: u64) {
        let (_, tag) = self.settings.hash.of(id);
        let traces = &self.traces;
        let found = self.index.find(tag, |slot| traces.get(slot).is_some_and(|trace| trace.id == *id));
        if let Some(slot) = found
            && let Some(trace) = self.traces.get_mut(slot)
        {
            let earlier = Millis::of(arrival);
            let Some(by) = earlier.late_by(trace.arrival) else { return };
            if let Some(journal) = &mut self.journal {
                journal.exit(slot, trace.arrival);
                journal.enter(earlier);
            }
            trace.arrival = earlier;
            trace.last_seen += by;
        }
    }

    /// Puts the undecided traces in the order of their arrival, which restored ones may not have come in.
    pub(crate) fn sort_waiting(&mut self) {
        let mut waiting = Vec::new();
        while let Some(handle) = self.waiting.pop() {
            waiting.push(handle);
        }
        let newest =
            waiting.iter().filter_map(|handle| self.traces.get(handle.slot)).map(|trace| trace.arrival).next_back();
        let Some(newest) = newest else { return };
        waiting.sort_by_key(|handle| {
            let arrival = self.traces.get(handle.slot).map_or(newest, |trace| trace.arrival);
            std::cmp::Reverse(arrival.before(newest))
        });
        for handle in waiting {
            self.waiting.push(handle);
        }
    }
}

impl Assembly {
    /// The spans of one trace up to the cut, as they came and from whom, and how many these are; `None` if there are none.
    fn copy(
        &mut self,
        trace: &Trace,
        cut: Cut,
        headers: &mut Headers,
        log: &mut Log,
        max_bytes: usize,
    ) -> Option<(Vec<u8>, u32)> {
        self.begin(max_bytes);
        self.thawed = 0;
        let mut spans = 0;
        let mut addr = trace.first;
        while addr != Addr::NONE {
            // Once now, and once when it is written.
            self.thawed += 2 * log.thaw(addr).unwrap_or_default();
            let Some((record, _)) = log.read(addr) else {
                break;
            };
            if !cut.is_later(&record, log.place(addr)) {
                self.add_from_log(&record, addr, headers);
                spans += u32::from(record.contents.spans);
            }
            addr = record.next;
        }
        if spans == 0 {
            return None;
        }
        let mut parts = self.write(headers, log);
        if let [Part { client, message, .. }] = parts.as_mut_slice()
            && client.is_empty()
        {
            return Some((std::mem::take(message), spans));
        }
        // First what is of nobody: a name holds for all that comes behind it.
        parts.sort_by_key(|part| !part.client.is_empty());
        let fields = parts.iter().flat_map(|part| [client::field(&part.client), part.message.clone()]);
        Some((fields.flatten().collect(), spans))
    }
}
