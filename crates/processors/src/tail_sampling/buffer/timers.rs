//! What wakes a trace.
//!
//! Each queue holds timers of one length, so it is in the order of time without sorting, and setting a
//! timer is one store at its end. A timer that has lost its meaning is left where it is and thrown
//! away when its turn comes, or when there are too many of them.

use super::fifo::Fifo;

/// A trace, as long as it is the same one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handle {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// A time in milliseconds of the sampler's clock, of which 32 bits are enough: a timer is never longer
/// than the longest `decision_wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Millis(u32);

impl Millis {
    pub(super) const ZERO: Self = Self(0);

    pub(super) fn of(nanos: u64) -> Self {
        Self((nanos / 1_000_000) as u32)
    }

    pub(super) fn after(self, millis: u32) -> Self {
        Self(self.0.wrapping_add(millis))
    }

    /// All of its digits, close to `now`, in milliseconds.
    pub(super) fn full(self, now: u64) -> u64 {
        now.saturating_add_signed(i64::from(self.0.wrapping_sub(now as u32) as i32))
    }

    /// Milliseconds from it to `other`; negative if it comes after.
    pub(super) fn before(self, other: Self) -> i32 {
        other.0.wrapping_sub(self.0) as i32
    }

    /// Milliseconds from `now` until it is reached; 0 if it was.
    pub(super) fn ahead_of(self, now: Self) -> u32 {
        u32::try_from(self.0.wrapping_sub(now.0) as i32).unwrap_or_default()
    }

    /// Has it been reached at `now`?
    pub(super) fn is_due(self, now: Self) -> bool {
        self.late_by(now).is_some()
    }

    /// Milliseconds since it was reached; `None` if it was not.
    pub(super) fn late_by(self, now: Self) -> Option<u32> {
        u32::try_from(now.0.wrapping_sub(self.0) as i32).ok()
    }
}

/// A trace to look at when its time has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timer {
    pub(super) due: Millis,
    pub(super) trace: Handle,
}

/// Timers of any length up to a longest one: queues of that length, half of it, and so on. A timer
/// goes into the longest that is not longer than it, so it may ring early, and never late by more than
/// the shortest; who finds that it is early sets it again.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    rungs: Vec<(u32, Fifo<Timer>)>,
}

/// Milliseconds that a timer of a ladder may be late.
const PRECISION: u32 = 20;

impl Ladder {
    /// For timers of up to `longest` milliseconds; 0 for none.
    pub(super) fn new(longest: u32) -> Self {
        let lengths = std::iter::successors(Some(longest), |&length| (length > PRECISION).then_some(length / 2));
        Self { rungs: lengths.filter(|&length| length > 0).map(|length| (length, Fifo::default())).collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rungs.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.rungs.iter().map(|(_, queue)| queue.len()).sum()
    }

    /// Removes some of the timers of traces that need none; see [`Fifo::purge`].
    pub(super) fn purge(&mut self, chunks: usize, mut keep: impl FnMut(Handle) -> bool) {
        for (_, queue) in &mut self.rungs {
            queue.purge(chunks, |timer| keep(timer.trace));
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.rungs.iter().map(|(_, queue)| queue.bytes()).sum()
    }

    /// Sets a timer that rings `millis` after `now`, or earlier.
    pub(super) fn set(&mut self, now: Millis, millis: u32, trace: Handle) {
        let found = self.rungs.iter().position(|&(length, _)| length <= millis);
        let last = self.rungs.len().saturating_sub(1);
        if let Some((length, queue)) = self.rungs.get_mut(found.unwrap_or(last)) {
            queue.push(Timer { due: now.after(*length), trace });
        }
    }

    /// A trace whose timer rings.
    pub(super) fn pop_due(&mut self, now: Millis) -> Option<Handle> {
        let due = |(_, queue): &&mut (u32, Fifo<Timer>)| queue.front().is_some_and(|timer| timer.due.is_due(now));
        let (_, queue) = self.rungs.iter_mut().find(due)?;
        Some(queue.pop()?.trace)
    }
}
