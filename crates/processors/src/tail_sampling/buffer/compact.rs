//! One shard: giving the memory of decided traces back.

use nyquist_core::wire::{Field, Fields, Value};

use super::freeze::thawing;
use super::record::{self, Addr, Contents};
use super::shard::Shard;

/// To copy a record forward, in units of [`work`](super::work).
const RECORD: u64 = 1;
/// To copy so many bytes.
const BYTES: u64 = 1024;
/// So few blocks are not worth compacting.
const FEW: usize = 4;
/// Blocks by which the log grows when one that is compressed is copied: what is in it, and what links to that.
const GROWTH: usize = 2;
/// Headers that are looked at in each round of tidying.
const SWEEP: u32 = 4;

impl Shard {
    /// Frees blocks; if more than half of what is held is dead, makes the oldest block free.
    pub(crate) fn tidy(&mut self) {
        self.log.free_unused();
        self.headers.sweep(self.log.oldest(), SWEEP);
        // What is copied is at most as much as is freed.
        // (Of compressed blocks, too: what is dead in them takes its part of what they do.)
        let half_dead = self.live_bytes.saturating_mul(2) < self.log.bytes() as u64;
        if self.has_blocks_to_compact() && half_dead && !self.has_done_enough() {
            self.compact();
        }
    }

    pub(super) fn has_blocks_to_compact(&self) -> bool {
        self.log.blocks() > FEW
    }

    /// Copies what lives in the oldest block to the end of the log. False if there is no memory for it.
    pub(super) fn compact(&mut self) -> bool {
        // What was compressed is longer at the end of the log, by a block at most, and so is where it is linked.
        if !self.settings.compression.is_none() && !self.claim(GROWTH * self.settings.block_size) {
            return false;
        }
        let (data, thawed) = self.log.take_oldest();
        self.work += data.len() as u64 / BYTES + thawing(thawed);
        let mut offset = 0;
        while let Some((record, bytes)) = record::read(&data, offset) {
            offset += self.log.footprint(record.len);
            self.work += RECORD;
            let Some(id) = first_trace_id(bytes) else {
                continue;
            };
            let (_, tag) = self.settings.hash.of(&id);
            let traces = &self.traces;
            if let Some(slot) = self.index.find(tag, |slot| traces.get(slot).is_some_and(|trace| trace.id == id)) {
                self.move_forward(slot, &data);
            }
        }
        self.log.recycle(data);
        self.log.free_unused();
        true
    }

    /// Moves those records of a trace that are in the oldest block, whose bytes are `data`.
    fn move_forward(&mut self, slot: u32, data: &[u8]) {
        let Some(trace) = self.traces.get(slot) else {
            return;
        };
        let old_first = trace.first;
        let mut next = old_first;
        let (mut first_copy, mut last_copy) = (Addr::NONE, Addr::NONE);
        while self.log.in_oldest(next) {
            let Some((record, bytes)) = record::read(data, self.log.offset(next)) else {
                break;
            };
            // It is going to stand behind the cut, whatever it was.
            let later = self.cut.is_later(&record, self.log.place(next));
            let Some(copy) = self.log.append(bytes, record.scope, Contents { later, ..record.contents }) else {
                break;
            };
            self.headers.touch(record.scope, self.log.current());
            if first_copy == Addr::NONE {
                first_copy = copy;
            } else {
                self.log.link(last_copy, copy);
            }
            last_copy = copy;
            next = record.next;
        }
        if first_copy == Addr::NONE {
            return;
        }
        let Some(trace) = self.traces.get_mut(slot) else {
            return;
        };
        let last = std::mem::replace(&mut trace.last, last_copy);
        trace.first = if next == Addr::NONE { first_copy } else { next };
        let first = trace.first;
        if next != Addr::NONE {
            self.log.link(last, first_copy);
        }
        self.log.remove_first(old_first);
        self.log.add_first(first);
    }
}

/// The trace id of the first span of a run.
fn first_trace_id(run: &[u8]) -> Option<[u8; 16]> {
    let span = Fields::new(run).find_map(|field| match field {
        Field { number: 2, value: Value::Len(span) } => Some(span),
        _ => None,
    })?;
    let id = Fields::new(span).filter_map(|field| match field {
        Field { number: 1, value: Value::Len(id) } => Some(id),
        _ => None,
    });
    id.last()?.try_into().ok()
}
