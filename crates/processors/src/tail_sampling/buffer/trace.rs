//! The folded state of a trace.

use super::log::Addr;
use super::slab::Slot;
use super::timers::Millis;
use crate::tail_sampling::rules::{Bits, Facts};

/// Where a trace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The slot is unused.
    Free,
    /// Not decided.
    Pending,
    /// About to be decided.
    Due,
    /// Decided to be kept, and not yet handed on.
    Kept,
}

/// No policy or rule is the reason.
pub(super) const NO_REASON: u16 = u16::MAX;
/// A late error is: the trace itself was decided against.
pub(super) const LATE_ERROR: u16 = u16::MAX - 1;
/// Stress is: the trace was decided by its id alone.
pub(super) const STRESS: u16 = u16::MAX - 2;

/// What is known of a trace.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    pub(super) id: [u8; 16],
    pub(super) bits: Bits,
    /// The earliest start that is set; `u64::MAX` if none is.
    pub(super) start: u64,
    /// The latest end.
    pub(super) end: u64,
    /// When its first span came.
    pub(super) arrival: Millis,
    /// Bytes of spans. (No trace is undecided that has more than fit.)
    pub(crate) bytes: u32,
    /// When its last span came, in milliseconds after the first.
    pub(super) last_seen: u32,
    /// Bytes in the log, in units of 8.
    pub(super) units: u32,
    pub(crate) spans: u32,
    pub(super) first: Addr,
    pub(super) last: Addr,
    /// The number of this trace: tells a stale reference to the slot from a good one.
    pub(super) generation: u32,
    /// Why it is kept, as an index into the rule set's reasons, or one of the constants above.
    pub(super) reason: u16,
    pub(super) trigger: u8,
    pub(super) state: State,
    /// A root span has arrived.
    pub(crate) has_root: bool,
    /// The reason has been written to one of its spans.
    pub(super) recorded: bool,
    /// It was decided before, and these are spans that came later.
    pub(super) late: bool,
}

/// What a trace takes in the slab; part of what the README says of memory.
const _: () = assert!(size_of::<Trace>() <= 104);

impl Trace {
    pub(super) fn new(id: [u8; 16], now: u64, generation: u32) -> Self {
        Self { id, arrival: Millis::of(now), generation, state: State::Pending, ..Self::empty() }
    }

    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            id: &self.id,
            bits: &self.bits,
            start: self.start,
            end: self.end,
            spans: u64::from(self.spans),
            bytes: u64::from(self.bytes),
        }
    }

    /// Bytes in the log.
    pub(super) fn footprint(&self) -> u64 {
        u64::from(self.units) * 8
    }

    /// When its last span came.
    pub(super) fn last_arrival(&self) -> Millis {
        self.arrival.after(self.last_seen)
    }

    /// Nanoseconds since its first span came, to the millisecond.
    pub(crate) fn waited(&self, now: u64) -> u64 {
        u64::from(self.arrival.late_by(Millis::of(now)).unwrap_or_default()) * 1_000_000
    }

    /// Seconds since its first span came; `now` is in nanoseconds.
    pub(super) fn age(&self, now: u64) -> f64 {
        f64::from(self.arrival.late_by(Millis::of(now)).unwrap_or_default()) / 1e3
    }
}

impl Slot for Trace {
    fn empty() -> Self {
        Self {
            id: [0; 16],
            bits: Bits::NONE,
            start: u64::MAX,
            end: 0,
            arrival: Millis::ZERO,
            bytes: 0,
            last_seen: 0,
            units: 0,
            spans: 0,
            first: Addr::NONE,
            last: Addr::NONE,
            generation: 0,
            reason: NO_REASON,
            trigger: 0,
            state: State::Free,
            has_root: false,
            recorded: false,
            late: false,
        }
    }

    fn link(&mut self) -> &mut u32 {
        &mut self.spans
    }
}
