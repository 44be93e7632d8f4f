//! Series that have fallen silent end with a stale marker.

use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;

use super::super::exemplars::Exemplars;
use super::super::owned::OwnedValue;
use super::super::{Family, Point, PointLabels, Sink};

/// What a series takes besides its labels and buckets, roughly, in bytes.
const SERIES_BYTES: usize = 250;

struct Series {
    family: Arc<Family>,
    description: Arc<[u8]>,
    labels: PointLabels,
    hash: u64,
    /// Its last value: its bounds and quantiles are those of the series to end.
    last: OwnedValue,
    /// Of the last point, in milliseconds since the epoch.
    time: i64,
    seen: Duration,
    bytes: usize,
}

/// Remembers every series, to end those without new points. It knows nothing of the time before it
/// was made: what a restart forgets is not ended.
pub struct StaleTracker {
    /// By [`Point::series`].
    series: LruCache<u64, Series>,
    /// Of the metric whose points come.
    description: Arc<[u8]>,
    bytes: usize,
    max_bytes: usize,
    stale_after: Duration,
    /// How many points there was no room for to track their series, and whose the last one was.
    untracked: Option<(Arc<Family>, usize)>,
}

impl StaleTracker {
    /// Ends series without a point for `stale_after`. Series for which `max_bytes` leaves no room are
    /// not tracked.
    #[must_use]
    pub fn new(max_bytes: usize, stale_after: Duration) -> Self {
        Self {
            series: LruCache::unbounded(),
            description: Arc::default(),
            bytes: 0,
            max_bytes,
            stale_after,
            untracked: None,
        }
    }

    /// How many points have come, since this was asked before, whose series will not end because there is no room to
    /// track them; and the metric of the last one.
    pub fn take_untracked(&mut self) -> Option<(Arc<Family>, usize)> {
        self.untracked.take()
    }

    /// How many series it tracks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// What they take, roughly, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Does it track none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The points of a metric with this description follow.
    pub fn metric(&mut self, description: &[u8]) {
        if *self.description != *description {
            self.description = description.into();
        }
    }

    /// Notes a point that is sent. `now` is the clock's.
    pub fn note(&mut self, point: &Point<'_>, now: Duration) {
        let key = point.series();
        if point.is_stale {
            if let Some(gone) = self.series.pop(&key) {
                self.bytes = self.bytes.saturating_sub(gone.bytes);
            }
            return;
        }
        if let Some(known) = self.series.get_mut(&key) {
            known.last.set(&point.value);
            known.time = known.time.max(point.time);
            known.seen = now;
            let bytes = SERIES_BYTES + known.labels.encoded().len() + known.last.heap_bytes();
            self.bytes = (self.bytes + bytes).saturating_sub(known.bytes);
            known.bytes = bytes;
            return;
        }
        if self.bytes >= self.max_bytes {
            let points = self.untracked.take().map_or(0, |(_, points)| points);
            self.untracked = Some((Arc::clone(point.family), points + 1));
            return;
        }
        let last = OwnedValue::of(&point.value);
        let bytes = SERIES_BYTES + point.labels.encoded().len() + last.heap_bytes();
        self.bytes += bytes;
        let series = Series {
            family: Arc::clone(point.family),
            description: Arc::clone(&self.description),
            labels: point.labels.clone(),
            hash: point.hash,
            last,
            time: point.time,
            seen: now,
            bytes,
        };
        self.series.put(key, series);
    }

    /// Ends the series that are silent. `now` and `unix_millis` are the clock's.
    pub fn sweep<S: Sink>(&mut self, now: Duration, unix_millis: i64, sink: &mut S) {
        let no_exemplars = Exemplars::default();
        // Least recently used first: the first that is not silent ends the sweep.
        while let Some((_, oldest)) = self.series.peek_lru() {
            if now.saturating_sub(oldest.seen) < self.stale_after {
                break;
            }
            let Some((_, mut gone)) = self.series.pop_lru() else { break };
            self.bytes = self.bytes.saturating_sub(gone.bytes);
            gone.last.end();
            sink.metric(&gone.family, &gone.description);
            sink.point(&Point {
                family: &gone.family,
                labels: &gone.labels,
                hash: gone.hash,
                time: unix_millis.max(gone.time.saturating_add(1)),
                start: 0,
                is_delta: false,
                is_stale: true,
                items: 0,
                value: gone.last.view(),
                exemplars: &no_exemplars,
            });
        }
    }
}
