//! Times of senders, as far as they are believed where they count for others: so that one clock that is far too fast
//! spoils nothing for anybody else.

use std::sync::atomic::{AtomicU64, Ordering};

use nyquist_core::clock::Clock;

/// How much faster than the gateway's clock (nanoseconds) those of senders may be.
const MAX_CLOCK_SKEW: u64 = 60_000_000_000;
/// Times of reports are told apart in milliseconds: that is all Prometheus keeps.
const MILLISECOND: u64 = 1_000_000;

/// The latest time that the clock of a sender may show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SkewLimit(u64);

/// A time (Unix nanoseconds) that is not far in the future, whatever a sender said. 0 is one that is not known.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Capped(u64);

impl SkewLimit {
    /// What holds for points that come now.
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self(clock.unix_nanos().saturating_add(MAX_CLOCK_SKEW))
    }

    pub(crate) fn cap(self, time: u64) -> Capped {
        Capped(time.min(self.0))
    }

    /// Can a clock that is right, or nearly so, not have shown `time` (Unix nanoseconds) yet?
    pub(crate) fn excludes(self, time: u64) -> bool {
        time > self.0
    }
}

impl Capped {
    pub(crate) const UNKNOWN: Self = Self(0);

    pub(crate) fn nanos(self) -> u64 {
        self.0
    }

    pub(crate) fn is_known(self) -> bool {
        self != Self::UNKNOWN
    }

    /// The next one that a report can have: a step so small that the time stays near the clock's.
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(MILLISECOND))
    }

    /// Is it later than `other`, so that both can be times of reports?
    pub(crate) fn is_apart_from(self, other: Self) -> bool {
        self.0 / MILLISECOND > other.0 / MILLISECOND
    }
}

/// The latest of the times that many have given.
#[derive(Debug, Default)]
pub(crate) struct LatestOf(AtomicU64);

impl LatestOf {
    pub(crate) fn get(&self) -> Capped {
        Capped(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn raise(&self, time: Capped) {
        self.0.fetch_max(time.0, Ordering::Relaxed);
    }
}
