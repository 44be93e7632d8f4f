//! The folded state of traces.

use super::log::Addr;
use crate::tail_sampling::rules::extra::{Extras, NO_EXTRA};
use crate::tail_sampling::rules::{Bits, Facts};

/// Where a trace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The slot is unused.
    Free,
    /// Not decided.
    Pending,
    /// Decided to be kept, and not yet handed on.
    Kept,
}

/// What is known of a trace.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    pub(super) id: [u8; 16],
    pub(super) bits: Bits,
    /// The earliest start that is set; `u64::MAX` if none is.
    pub(super) start: u64,
    /// The latest end.
    pub(super) end: u64,
    /// When its first span came, in nanoseconds of the sampler's clock.
    pub(super) arrival: u64,
    /// Bytes of spans.
    pub(super) bytes: u64,
    /// Bytes in the log.
    pub(super) footprint: u64,
    pub(super) spans: u32,
    pub(super) first: Addr,
    pub(super) last: Addr,
    /// Bits of the hash of its id.
    pub(super) tag: u32,
    /// How often the slot was used before: tells a stale reference from a good one.
    pub(super) generation: u32,
    /// A place in the shard's extras.
    pub(super) extra: u32,
    /// Why it is kept, as an index into the rule set's reasons; `u16::MAX` for no reason.
    pub(super) reason: u16,
    pub(super) trigger: u8,
    pub(super) state: State,
    /// A root span has arrived.
    pub(super) has_root: bool,
    /// The reason has been written to one of its spans.
    pub(super) recorded: bool,
    /// It was decided before, and these are spans that came later.
    pub(super) late: bool,
}

impl Trace {
    const EMPTY: Self = Self {
        id: [0; 16],
        bits: Bits::NONE,
        start: u64::MAX,
        end: 0,
        arrival: 0,
        bytes: 0,
        footprint: 0,
        spans: 0,
        first: Addr::NONE,
        last: Addr::NONE,
        tag: 0,
        generation: 0,
        extra: NO_EXTRA,
        reason: u16::MAX,
        trigger: 0,
        state: State::Free,
        has_root: false,
        recorded: false,
        late: false,
    };

    pub(super) fn facts<'a>(&'a self, extras: &'a Extras) -> Facts<'a> {
        Facts {
            id: &self.id,
            bits: &self.bits,
            start: self.start,
            end: self.end,
            spans: u64::from(self.spans),
            bytes: self.bytes,
            extra: extras.get(self.extra),
        }
    }
}

const CHUNK_BITS: u32 = 9;
const CHUNK: usize = 1 << CHUNK_BITS;

/// Traces in slots that never move.
#[derive(Debug, Default)]
pub(super) struct Slab {
    chunks: Vec<Box<[Trace]>>,
    free: Vec<u32>,
    used: usize,
}

impl Slab {
    /// How many slots are in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    #[inline]
    pub(super) fn get(&self, slot: u32) -> Option<&Trace> {
        self.chunks.get((slot >> CHUNK_BITS) as usize)?.get(slot as usize % CHUNK)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Trace> {
        self.chunks.get_mut((slot >> CHUNK_BITS) as usize)?.get_mut(slot as usize % CHUNK)
    }

    /// A slot for a new trace.
    pub(super) fn take(&mut self, id: [u8; 16], tag: u32, arrival: u64) -> u32 {
        if self.free.is_empty() {
            let base = (self.chunks.len() << CHUNK_BITS) as u32;
            self.chunks.push(vec![Trace::EMPTY; CHUNK].into());
            self.free.extend((base..base + CHUNK as u32).rev());
        }
        let slot = self.free.pop().unwrap_or_default();
        self.used += 1;
        if let Some(trace) = self.get_mut(slot) {
            let generation = trace.generation;
            *trace = Trace { id, tag, arrival, generation, state: State::Pending, ..Trace::EMPTY };
        }
        slot
    }

    pub(super) fn give_back(&mut self, slot: u32) {
        if let Some(trace) = self.get_mut(slot) {
            trace.state = State::Free;
            trace.generation = trace.generation.wrapping_add(1);
            self.used -= 1;
            self.free.push(slot);
        }
    }

    /// All slots, used or not.
    pub(super) fn slots(&self) -> std::ops::Range<u32> {
        0..(self.chunks.len() << CHUNK_BITS) as u32
    }
}
