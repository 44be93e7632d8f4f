//! The folded state of a trace.

use super::extras::TraceExtras;
use super::record::{Addr, UNIT};
use super::slab::Slot;
use super::timers::Millis;
use crate::tail_sampling::rules::extra::NO_EXTRA;
use crate::tail_sampling::rules::{Bits, Facts};
use crate::tail_sampling::tally::Trigger;

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
/// A rule or policy of before a restart is, that is not there any more.
pub(super) const EARLIER_RULES: u16 = u16::MAX - 3;

/// Why a trace is kept, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Why {
    /// An index into the rule set's reasons, or one of the constants above.
    pub(crate) reason: u16,
    /// Why it was decided then; `None` if nobody knows, or a late span brought it back.
    pub(crate) trigger: Option<Trigger>,
}

impl Why {
    /// As it is after a restart with other rules.
    pub(super) fn after_a_change(self) -> Self {
        Self { reason: self.reason.max(EARLIER_RULES), ..self }
    }

    /// The rules that decided are not there any more.
    pub(crate) fn is_of_earlier_rules(self) -> bool {
        self.reason == EARLIER_RULES
    }

    /// A late error is why.
    pub(super) const LATE_ERROR: Self = Self { reason: LATE_ERROR, trigger: None };
}

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
    /// Its size: bytes of spans, or what the Collector counts (see `sizes`). (No trace is undecided that has more than fit.)
    pub(crate) bytes: u32,
    /// When its last span came, in milliseconds after the first.
    pub(super) last_seen: u32,
    /// Bytes in the log, in units of [`UNIT`].
    pub(super) units: u32,
    pub(crate) spans: u32,
    pub(super) first: Addr,
    pub(super) last: Addr,
    /// The number of this trace: tells a stale reference to the slot from a good one.
    pub(super) generation: u32,
    /// A place in the shard's extras.
    pub(super) extra: u32,
    /// Why it is kept, as an index into the rule set's reasons, or one of the constants above.
    pub(super) reason: u16,
    pub(super) state: State,
    pub(crate) marks: Marks,
}

/// What decided a trace, and two facts about it, in one byte.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Marks(u8);

impl Marks {
    const HAS_ROOT: u8 = 0x80;
    const RECORDED: u8 = 0x40;
    const TRIGGER: u8 = 0x3f;
    /// In place of a trigger.
    const LATE: u8 = 0x3f;
    const UNKNOWN: u8 = 0x3e;

    /// Of a trace that this has decided; `None`: nobody knows what has.
    pub(super) fn of(trigger: Option<Trigger>) -> Self {
        Self(trigger.map_or(Self::UNKNOWN, |trigger| trigger as u8))
    }

    /// Of a trace that was decided before; these are spans that came later.
    pub(super) fn late() -> Self {
        Self(Self::LATE)
    }

    pub(super) fn is_late(self) -> bool {
        self.0 & Self::TRIGGER == Self::LATE
    }

    pub(super) fn set_trigger(&mut self, trigger: Trigger) {
        self.0 = self.0 & !Self::TRIGGER | trigger as u8;
    }

    /// What decided the trace; `None` if it was decided before, and these are spans that came later, or if nobody knows.
    pub(super) fn trigger(self) -> Option<Trigger> {
        Trigger::ALL.get(usize::from(self.0 & Self::TRIGGER)).copied()
    }

    /// Notes that a root span has arrived.
    pub(super) fn root_came(&mut self) {
        self.0 |= Self::HAS_ROOT;
    }

    pub(crate) fn has_root(self) -> bool {
        self.0 & Self::HAS_ROOT != 0
    }

    /// Notes that the reason has been written to one of its spans.
    pub(super) fn record(&mut self) {
        self.0 |= Self::RECORDED;
    }

    pub(super) fn is_recorded(self) -> bool {
        self.0 & Self::RECORDED != 0
    }
}

/// What a trace takes in the slab; part of what the README says of memory.
const _: () = assert!(size_of::<Trace>() <= 104);

impl Trace {
    pub(super) fn new(id: [u8; 16], now: u64, generation: u32) -> Self {
        Self { id, arrival: Millis::of(now), generation, state: State::Pending, ..Self::empty() }
    }

    pub(super) fn facts<'a>(&'a self, extras: &'a TraceExtras) -> Facts<'a> {
        Facts {
            id: &self.id,
            bits: &self.bits,
            start: self.start,
            end: self.end,
            spans: u64::from(self.spans),
            bytes: u64::from(self.bytes),
            extra: extras.get(self.extra),
            marks: extras.marks(self.extra),
        }
    }

    /// Bytes in the log.
    pub(super) fn footprint(&self) -> u64 {
        u64::from(self.units) * UNIT as u64
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
            extra: NO_EXTRA,
            reason: NO_REASON,
            state: State::Free,
            marks: Marks::default(),
        }
    }

    fn link(&mut self) -> &mut u32 {
        &mut self.spans
    }
}
