//! Deltas to totals, by the rules of the Collector's `delta_to_cumulative`: a stream's total begins
//! with its first point and that point's start; what is not newer than the total, or began before
//! it, is refused; a gap is no reset. Streams are the series that go out, not OTLP's: why this is not the processor's
//! accumulator, `docs/decisions/2026-11-23-two-accumulators.md` says.

use std::time::Duration;

use lru::LruCache;

use super::super::owned::{Added, OwnedValue};
use super::super::{Point, PointValue, Untranslatable};

/// What a stream takes besides its value's buckets, roughly, in bytes.
const STREAM_BYTES: usize = 160;

struct Stream {
    total: OwnedValue,
    /// When the total began, in milliseconds since the epoch; 0 if unknown.
    start: i64,
    /// Time of its newest point, in milliseconds since the epoch.
    time: i64,
    seen: Duration,
    bytes: usize,
}

/// The totals of delta streams.
pub struct Accumulator {
    /// By the hash of name and labels, and the kind of the value.
    streams: LruCache<u64, Stream>,
    bytes: usize,
    max_bytes: usize,
    max_stale: Duration,
}

impl Accumulator {
    /// Forgets streams without a point for `max_stale`, and takes on no new ones while those it has
    /// take `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize, max_stale: Duration) -> Self {
        Self { streams: LruCache::unbounded(), bytes: 0, max_bytes, max_stale }
    }

    /// How many streams it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Does it hold none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// What they take, roughly, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a point of delta temporality, and returns the point with the total. `now` is the clock's.
    ///
    /// # Errors
    /// If the point is out of order, or no number, or there is no room for another stream.
    pub fn add<'p>(&'p mut self, point: &Point<'p>, now: Duration) -> Result<Point<'p>, Untranslatable> {
        let key = point.hash ^ kind_bits(&point.value);
        if point.is_stale {
            if let Some(gone) = self.streams.pop(&key) {
                self.bytes = self.bytes.saturating_sub(gone.bytes);
            }
            return Ok(Point { is_delta: false, ..*point });
        }
        if !point.value.is_countable() {
            return Err(Untranslatable::Value);
        }
        if !self.streams.contains(&key) {
            self.make_room(now)?;
            let total = OwnedValue::total_of(&point.value);
            let bytes = STREAM_BYTES + total.heap_bytes();
            self.bytes += bytes;
            let stream = Stream { total, start: point.start, time: i64::MIN, seen: now, bytes };
            self.streams.put(key, stream);
        }
        let Some(stream) = self.streams.get_mut(&key) else { return Err(Untranslatable::OverLimit) };
        let is_new = stream.time == i64::MIN;
        let began_before = point.start != 0 && point.start < stream.start;
        if !is_new && (point.time <= stream.time || began_before) {
            return Err(Untranslatable::OutOfOrder);
        }
        if !is_new && stream.total.add(&point.value) == Added::StartedOver {
            stream.start = if point.start == 0 { stream.time } else { point.start };
        }
        (stream.time, stream.seen) = (point.time, now);
        let bytes = STREAM_BYTES + stream.total.heap_bytes();
        self.bytes = (self.bytes + bytes).saturating_sub(stream.bytes);
        stream.bytes = bytes;
        Ok(Point { value: stream.total.view(), start: stream.start, is_delta: false, ..*point })
    }

    /// Forgets streams that are idle.
    pub fn sweep(&mut self, now: Duration) {
        // Least recently used first: the first that is not idle ends the sweep.
        while let Some((_, oldest)) = self.streams.peek_lru() {
            if now.saturating_sub(oldest.seen) < self.max_stale {
                break;
            }
            let Some((_, gone)) = self.streams.pop_lru() else { break };
            self.bytes = self.bytes.saturating_sub(gone.bytes);
        }
    }

    fn make_room(&mut self, now: Duration) -> Result<(), Untranslatable> {
        if self.bytes >= self.max_bytes {
            self.sweep(now);
        }
        if self.bytes >= self.max_bytes { Err(Untranslatable::OverLimit) } else { Ok(()) }
    }
}

/// A histogram may be handed out in two forms, whose totals must not mix.
fn kind_bits(value: &PointValue<'_>) -> u64 {
    match value {
        PointValue::Number(_) => 0,
        PointValue::Histogram(_) => 1,
        PointValue::Native(_) => 2,
        PointValue::Summary(_) => 3,
    }
}
