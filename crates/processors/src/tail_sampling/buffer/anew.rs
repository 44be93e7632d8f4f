//! One shard and the log on disk: what is noted, what is written anew, what comes back after a restart.

use super::assemble::{Assembly, Part};
use super::cache::Past;
use super::freeze::thawing;
use super::headers::Headers;
use super::journal::{Journal, Note, Outcome};
use super::log::Log;
use super::record::Addr;
use super::shard::Shard;
use super::timers::Millis;
use super::trace::{State, Trace, Why};
use crate::tail_sampling::client;

/// Slots that one call looks at, at most.
const LOOKS: u32 = 1 << 14;

/// A trace as it is now.
#[derive(Debug)]
pub(crate) struct Anew {
    slot: u32,
    generation: u32,
    pub(crate) id: [u8; 16],
    /// When its first span came, in milliseconds.
    pub(crate) arrival: u64,
    /// Milliseconds from its first span to its last.
    pub(crate) last_seen: u32,
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

    /// Traces that need what came before `before`, to be written anew, until they take `max_bytes`.
    /// `cursor` says where the search goes on.
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
        if trace.state == State::Kept {
            let (_, tag) = self.settings.hash.of(&trace.id);
            journal.note(trace.id, Outcome::Kept, self.sampled.why(tag, trace));
        }
        let message = self.assembly.copy(trace, &mut self.headers, &mut self.log, self.settings.batch_size);
        self.work += thawing(self.assembly.thawed);
        let Trace { id, generation, last_seen, spans, .. } = *trace;
        Some(Anew { slot, generation, id, arrival: journal.full(trace.arrival), last_seen, spans, message })
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
    /// The spans of one trace, as they came and from whom.
    fn copy(&mut self, trace: &Trace, headers: &mut Headers, log: &mut Log, max_bytes: usize) -> Vec<u8> {
        self.begin(max_bytes);
        self.thawed = 0;
        let mut addr = trace.first;
        while addr != Addr::NONE {
            // Once now, and once when it is written.
            self.thawed += 2 * log.thaw(addr).unwrap_or_default();
            let Some((record, _)) = log.read(addr) else {
                break;
            };
            self.add_from_log(&record, addr, headers);
            addr = record.next;
        }
        let mut parts = self.write(headers, log);
        if let [Part { client, message, .. }] = parts.as_mut_slice()
            && client.is_empty()
        {
            return std::mem::take(message);
        }
        // First what is of nobody: a name holds for all that comes behind it.
        parts.sort_by_key(|part| !part.client.is_empty());
        parts.iter().flat_map(|part| [client::field(&part.client), part.message.clone()]).flatten().collect()
    }
}
