//! What has come since the last point of each stream.

use std::time::Duration;

use nyquist_core::wire::{DataPoint, MetricFields};

use super::config::InitialValue;
use super::matching::Selection;
use crate::accumulate::distribution::Growth;
use crate::accumulate::total::{growth, is_finite};
use crate::accumulate::write::put_times;
use crate::skew::{Capped, SkewLimit};
use crate::streams::{Aging, Bounded, Converter, Full, HeapSize, Measured, Point, put_point_without_values};

/// What all batches have in common.
pub(super) struct Settings {
    pub(super) selection: Selection,
    pub(super) initial_value: InitialValue,
    /// When this processor began, Unix nanoseconds.
    pub(super) began: u64,
}

/// The last point of a stream.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    start: u64,
    time: u64,
    /// When it came, by the processor's clock.
    last_seen: Duration,
    value: Measured,
}

impl HeapSize for Stream {
    fn heap(&self) -> usize {
        self.value.heap()
    }
}

impl Aging for Stream {
    fn last_seen(&self) -> Duration {
        self.last_seen
    }

    fn horizon(&self) -> u64 {
        self.time
    }
}

/// Why a point gave no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// It is the first of its stream.
    Initial,
    /// Its buckets are others than before.
    BucketMismatch,
    /// A later point, or this one, has come before.
    OutOfOrder,
    /// A new stream, for which there is no room.
    Limit,
}

impl Dropped {
    pub(super) const ALL: [Self; 4] = [Self::Initial, Self::BucketMismatch, Self::OutOfOrder, Self::Limit];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::BucketMismatch => "bucket_mismatch",
            Self::OutOfOrder => "out_of_order",
            Self::Limit => "limit",
        }
    }
}

/// Subtracts what was, for the points of one batch.
pub(super) struct Subtracting<'a> {
    streams: &'a Bounded<Stream>,
    settings: &'a Settings,
    now: Duration,
    skew_limit: SkewLimit,
    done: Done,
}

/// What became of the points of a batch.
#[derive(Default)]
pub(super) struct Done {
    changes: Vec<Change>,
    pub(super) dropped: [usize; Dropped::ALL.len()],
}

/// A stream went from one point to another.
struct Change {
    stream: u64,
    before: Option<Stream>,
    /// The time of the point it went to.
    time: u64,
}

impl Done {
    /// Takes back what the batch changed, but where a later one has gone on from it.
    pub(super) fn undo(self, streams: &Bounded<Stream>) {
        for Change { stream, before, time } in self.changes.into_iter().rev() {
            let _ = streams.change(stream, |kept, _| {
                if kept.as_ref().is_some_and(|kept| kept.time == time) {
                    *kept = before;
                }
            });
        }
    }
}

impl<'a> Subtracting<'a> {
    pub(super) fn new(
        streams: &'a Bounded<Stream>,
        settings: &'a Settings,
        now: Duration,
        skew_limit: SkewLimit,
    ) -> Self {
        Self { streams, settings, now, skew_limit, done: Done::default() }
    }

    pub(super) fn finish(self) -> Done {
        self.done
    }
}

/// What a point gives.
enum Given {
    /// It as it is: all of it is new.
    All,
    /// This, since this time.
    Since(u64, Measured),
    /// All of it, which began at some time since this one.
    Reset(u64, Measured),
    Nothing(Dropped),
}

impl Converter for Subtracting<'_> {
    fn wants(&self, metric: &MetricFields<'_>) -> bool {
        self.settings.selection.has(metric)
    }

    fn convert(&mut self, stream: u64, _: &MetricFields<'_>, raw: DataPoint<'_>, out: &mut Vec<u8>) -> bool {
        let Some(point) = Point::new(raw) else { return false };
        let says_nothing = matches!(point.value, Measured::Number(number) if !is_finite(number));
        if point.has_no_value() || says_nothing {
            // The stream goes on from where it was.
            out.extend_from_slice(raw.bytes());
            return true;
        }
        let (start, time) = (point.start, point.time);
        let mut new = Stream { start, time, last_seen: self.now, value: point.value };
        let (settings, limit) = (self.settings, self.skew_limit);
        let changed = self.streams.change(stream, |kept, horizon| {
            let given = match kept {
                None => initial(settings, &new, limit, horizon),
                Some(last) if new.time <= last.time => Given::Nothing(Dropped::OutOfOrder),
                Some(last) => new.since(last),
            };
            if matches!(given, Given::Nothing(Dropped::OutOfOrder)) {
                return (given, None);
            }
            let counted = given.counted(kept.as_ref());
            if let Measured::Distribution(distribution) = &mut new.value {
                distribution.become_baseline(counted);
            }
            let before = kept.replace(new);
            (given, Some(Change { stream, before, time }))
        });
        let (given, change) = match changed {
            Ok((given, change)) => (given, change),
            Err(Full) => (Given::Nothing(Dropped::Limit), None),
        };
        self.done.changes.extend(change);
        match given {
            Given::All => out.extend_from_slice(raw.bytes()),
            Given::Since(start, ref part) | Given::Reset(start, ref part) => {
                put_point_without_values(out, raw);
                put_times(out, start.min(time), time);
                part.put(out);
            }
            Given::Nothing(reason) => {
                self.done.dropped[reason as usize] += 1;
                return false;
            }
        }
        true
    }
}

impl Given {
    /// What the sums that were given come to by now, of a histogram; `None` if that is not known.
    fn counted(&self, last: Option<&Stream>) -> Option<f64> {
        match self {
            Self::All | Self::Reset(..) => Some(0.0),
            Self::Since(..) => last.and_then(Stream::sum),
            Self::Nothing(_) => None,
        }
    }
}

/// What the first point of a stream gives. Streams that began before `horizon` may have been known before.
fn initial(settings: &Settings, new: &Stream, limit: SkewLimit, horizon: Capped) -> Given {
    let is_new = match settings.initial_value {
        InitialValue::Auto => {
            // A start that is later because its clock is too fast tells nothing.
            let was_given_up = new.start <= horizon.nanos() || (horizon.is_known() && limit.excludes(new.time));
            let may_be_older = new.start == 0 || new.start < settings.began || was_given_up;
            !may_be_older && new.start != new.time
        }
        InitialValue::Keep => true,
        InitialValue::Drop => false,
    };
    if is_new { Given::All } else { Given::Nothing(Dropped::Initial) }
}

impl Stream {
    /// The sum of a histogram.
    fn sum(&self) -> Option<f64> {
        match &self.value {
            Measured::Distribution(distribution) => distribution.sum(),
            Measured::Number(_) => None,
        }
    }

    /// What this point gives, after `last`.
    fn since(&self, last: &Self) -> Given {
        let begins_anew = self.start != 0 && self.start > last.start && self.start >= last.time;
        if begins_anew {
            return Given::All;
        }
        match (&self.value, &last.value) {
            (Measured::Number(now), Measured::Number(before)) => match growth(*now, *before) {
                Some(grown) => Given::Since(last.time, Measured::Number(grown)),
                // It fell, so it began anew at some time since.
                None => Given::Reset(last.time, self.value.clone()),
            },
            (Measured::Distribution(now), Measured::Distribution(before)) => match now.since(before) {
                Growth::By(grown) => Given::Since(last.time, Measured::Distribution(Box::new(grown))),
                Growth::Reset => Given::Reset(last.time, self.value.clone()),
                Growth::Unclear => Given::Nothing(Dropped::BucketMismatch),
            },
            _ => Given::Nothing(Dropped::BucketMismatch),
        }
    }
}
