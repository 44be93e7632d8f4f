//! State of streams over many pushes, for sinks that write them on: deltas are added up
//! ([`Accumulator`]), and series that have fallen silent are ended ([`StaleTracker`]).
//!
//! Both are fed in the order in which points arrived, and forget streams that have been silent for
//! long enough. Memory is bounded in bytes, whatever arrives: when it is used up, new streams are
//! refused, or not tracked.

mod accumulate;
mod stale;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use accumulate::Accumulator;
pub use stale::StaleTracker;

use super::{Family, LostExemplars, LostLabels, Point, Sink, Target, Untranslatable};

/// What is known of streams; each part is optional.
#[derive(Default)]
pub struct Streams {
    /// Adds up deltas. Without it they are passed on as they are.
    pub accumulator: Option<Accumulator>,
    /// Ends silent series.
    pub stale_tracker: Option<StaleTracker>,
}

impl Streams {
    /// Is there anything to do?
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.accumulator.is_none() && self.stale_tracker.is_none()
    }

    /// A sink in front of `sink`. `now` is the clock's.
    pub fn sink<'a, S: Sink>(&'a mut self, sink: &'a mut S, now: Duration) -> StreamsSink<'a, S> {
        StreamsSink { streams: self, sink, now }
    }

    /// Forgets streams that are idle, and ends their series if they are tracked. `unix_millis` is the
    /// clock's, too.
    pub fn sweep<S: Sink>(&mut self, now: Duration, unix_millis: i64, sink: &mut S) {
        if let Some(accumulator) = &mut self.accumulator {
            accumulator.sweep(now);
        }
        if let Some(tracker) = &mut self.stale_tracker {
            tracker.sweep(now, unix_millis, sink);
        }
    }
}

/// See [`Streams::sink`].
pub struct StreamsSink<'a, S> {
    streams: &'a mut Streams,
    sink: &'a mut S,
    now: Duration,
}

impl<S: Sink> Sink for StreamsSink<'_, S> {
    fn metric(&mut self, family: &Arc<Family>, description: &[u8]) {
        if let Some(tracker) = &mut self.streams.stale_tracker {
            tracker.metric(description);
        }
        self.sink.metric(family, description);
    }

    fn point(&mut self, point: &Point<'_>) {
        let Streams { accumulator, stale_tracker } = &mut *self.streams;
        let total = match accumulator {
            Some(accumulator) if point.is_delta => match accumulator.add(point, self.now) {
                Ok(total) => total,
                Err(reason) => return self.sink.dropped(reason, point.family.name.as_bytes(), point.items),
            },
            _ => *point,
        };
        if let Some(tracker) = stale_tracker {
            tracker.note(&total, self.now);
        }
        self.sink.point(&total);
    }

    fn dropped(&mut self, reason: Untranslatable, metric: &[u8], points: usize) {
        self.sink.dropped(reason, metric, points);
    }

    fn target(&mut self, target: &Target<'_>) {
        self.sink.target(target);
    }

    fn labels_lost(&mut self, metric: &[u8], lost: LostLabels) {
        self.sink.labels_lost(metric, lost);
    }

    fn exemplars_lost(&mut self, metric: &[u8], lost: LostExemplars) {
        self.sink.exemplars_lost(metric, lost);
    }

    fn targets_forgotten(&mut self, targets: usize) {
        self.sink.targets_forgotten(targets);
    }
}
