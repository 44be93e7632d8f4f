//! The running total of each stream.

use std::time::Duration;

use nyquist_core::wire::{DataPoint, MetricFields};

use crate::accumulate::distribution::Distribution;
use crate::accumulate::total::Total;
use crate::accumulate::write::{is_delta, put_fixed, put_number, put_times};
use crate::streams::{
    Aging, Bounded, Converter, Full, HeapSize, Measured, Point, put_distribution, put_point_without_values,
};

/// A stream's total.
#[derive(Debug)]
pub(super) struct Stream {
    /// The start of the first window; 0 if it is not known.
    start: u64,
    /// The end of the last.
    time: u64,
    /// When the last point came, by the processor's clock.
    last_seen: Duration,
    /// Points that were added, but the batch they came in was refused: they will come again.
    refused: Option<Box<Refused>>,
    total: Sum,
}

/// The ends of windows, in the order in which their batches were refused.
#[derive(Debug, Default)]
struct Refused {
    times: Vec<u64>,
}

/// So many of a stream are remembered: a sender that never comes again must not fill the memory.
const MAX_REFUSED: usize = 1024;

impl Refused {
    fn note(&mut self, time: u64) {
        if self.times.len() >= MAX_REFUSED {
            self.times.remove(0);
        }
        self.times.push(time);
    }

    /// Takes `time` out; `false` if it is not there.
    fn take(&mut self, time: u64) -> bool {
        let place = self.times.iter().position(|refused| *refused == time);
        place.is_some_and(|place| self.times.remove(place) == time)
    }
}

impl Aging for Stream {
    fn last_seen(&self) -> Duration {
        self.last_seen
    }
}

#[derive(Debug)]
enum Sum {
    Number(Total),
    Distribution(Box<Distribution>),
}

impl Sum {
    fn new(value: Measured) -> Self {
        match value {
            Measured::Number(number) => {
                let mut total = Total::default();
                total.add(number);
                Self::Number(total)
            }
            Measured::Distribution(mut distribution) => {
                distribution.begin_total();
                Self::Distribution(distribution)
            }
        }
    }
}

impl HeapSize for Stream {
    fn heap(&self) -> usize {
        let total = match &self.total {
            Sum::Number(_) => 0,
            Sum::Distribution(distribution) => size_of::<Distribution>() + distribution.bytes(),
        };
        let refused = self
            .refused
            .as_ref()
            .map_or(0, |refused| size_of::<Refused>() + refused.times.capacity() * size_of::<u64>());
        total + refused
    }
}

/// Why a point was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// A new stream, for which there is no room.
    Limit,
    /// Its window began before its stream: another sender has the same stream.
    OlderStart,
    /// Its window ended before, or with, what was added last.
    OutOfOrder,
}

impl Lost {
    pub(super) const ALL: [Self; 3] = [Self::Limit, Self::OlderStart, Self::OutOfOrder];

    /// As the Collector calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::OlderStart => "delta.ErrOlderStart",
            Self::OutOfOrder => "delta.ErrOutOfOrder",
        }
    }

    /// What is wrong and what to do, for the log.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Limit => {
                "there is no room for another stream: raise max_streams or memory_limit_mib, or limit cardinality before"
            }
            Self::OlderStart => {
                "their window began before their stream: several senders have the same stream, give each a \
                 service.instance.id"
            }
            Self::OutOfOrder => {
                "their window ended no later than what was added last: they come late, twice, or from several senders of \
                 one stream"
            }
        }
    }
}

/// Adds the points of one batch.
pub(super) struct Adding<'a> {
    streams: &'a Bounded<Stream>,
    now: Duration,
    done: Done,
}

/// What became of the points of a batch.
#[derive(Default)]
pub(super) struct Done {
    /// The streams that points were added to, and the ends of their windows.
    touched: Vec<(u64, u64)>,
    pub(super) converted: usize,
    /// Points that had been added before, in a batch that was refused.
    pub(super) repeated: usize,
    pub(super) lost: [usize; Lost::ALL.len()],
    /// The same by the names of metrics.
    pub(super) lost_of: Vec<(Box<[u8]>, [usize; Lost::ALL.len()])>,
}

impl Done {
    fn lose(&mut self, metric: &[u8], lost: Lost) {
        self.lost[lost as usize] += 1;
        if self.lost_of.last().is_none_or(|(last, _)| **last != *metric) {
            self.lost_of.push((metric.into(), Default::default()));
        }
        if let Some((_, of_metric)) = self.lost_of.last_mut() {
            of_metric[lost as usize] += 1;
        }
    }

    /// The batch was refused: it will come again.
    pub(super) fn refused(&self, streams: &Bounded<Stream>) {
        for &(stream, time) in &self.touched {
            let _ = streams.change(stream, |kept, _| {
                if let Some(kept) = kept {
                    kept.refused.get_or_insert_default().note(time);
                }
            });
        }
    }
}

impl<'a> Adding<'a> {
    pub(super) fn new(streams: &'a Bounded<Stream>, now: Duration) -> Self {
        Self { streams, now, done: Done::default() }
    }

    pub(super) fn finish(self) -> Done {
        self.done
    }
}

/// What a point did to its stream.
enum Step {
    Added,
    Repeated { is_newest: bool },
    Lost(Lost),
}

impl Converter for Adding<'_> {
    fn wants(&self, metric: &MetricFields<'_>) -> bool {
        metric.kind.is_some_and(is_delta)
    }

    fn convert(&mut self, stream: u64, metric: &MetricFields<'_>, raw: DataPoint<'_>, out: &mut Vec<u8>) -> bool {
        let Some(point) = Point::new(raw) else { return false };
        if point.has_no_value() {
            return self.end(stream, raw, &point, out);
        }
        let time = point.time;
        let now = self.now;
        let step = self.streams.change(stream, |kept, _| {
            let step = match kept {
                None => {
                    *kept = Some(Stream::new(point, now));
                    Step::Added
                }
                Some(stream) => stream.add(point, now),
            };
            let is_written = matches!(step, Step::Added | Step::Repeated { is_newest: true });
            if let Some(stream) = kept.as_ref().filter(|_| is_written) {
                put_point_without_values(out, raw);
                put_times(out, stream.start.min(time), time);
                match &stream.total {
                    Sum::Number(total) => put_number(out, total.value()),
                    Sum::Distribution(distribution) => put_distribution(out, distribution),
                }
            }
            step
        });
        match step {
            Ok(Step::Added | Step::Repeated { is_newest: true }) => {
                self.done.touched.push((stream, time));
                self.done.converted += 1;
                true
            }
            Ok(Step::Repeated { is_newest: false }) => {
                self.done.touched.push((stream, time));
                self.done.repeated += 1;
                false
            }
            Ok(Step::Lost(lost)) => {
                self.done.lose(metric.name, lost);
                false
            }
            Err(Full) => {
                self.done.lose(metric.name, Lost::Limit);
                false
            }
        }
    }
}

impl Adding<'_> {
    /// A stream says that it has nothing more to say: it ends, and what comes later begins anew.
    fn end(&mut self, stream: u64, raw: DataPoint<'_>, point: &Point, out: &mut Vec<u8>) -> bool {
        let start = self.streams.change(stream, |kept, _| kept.take().map(|stream| stream.start));
        let start = start.ok().flatten().unwrap_or(point.start);
        put_point_without_values(out, raw);
        put_times(out, start.min(point.time), point.time);
        if !matches!(raw, DataPoint::Number(_)) {
            // A histogram has to have a count.
            put_fixed(out, 4, 0);
        }
        self.done.converted += 1;
        true
    }
}

impl Stream {
    fn new(point: Point, now: Duration) -> Self {
        let total = Sum::new(point.value);
        Self { start: point.start, time: point.time, last_seen: now, refused: None, total }
    }

    fn add(&mut self, point: Point, now: Duration) -> Step {
        self.last_seen = now;
        if self.has_been_refused(point.time) {
            return Step::Repeated { is_newest: point.time == self.time };
        }
        if point.start != 0 && point.start < self.start {
            return Step::Lost(Lost::OlderStart);
        }
        if point.time <= self.time {
            return Step::Lost(Lost::OutOfOrder);
        }
        match (&mut self.total, point.value) {
            (Sum::Number(total), Measured::Number(number)) => total.add(number),
            (Sum::Distribution(own), Measured::Distribution(other)) if have_same_bounds(own, &other) => {
                // The same bounds always fit.
                let _ = own.add(*other);
            }
            // Nothing to add to: the total begins anew, and its start says so.
            (total, value) => {
                self.start = if point.start == 0 { self.time } else { point.start };
                *total = Sum::new(value);
            }
        }
        self.time = point.time;
        Step::Added
    }

    /// Was a point of this time added, and its batch refused? It is not, from here on.
    fn has_been_refused(&mut self, time: u64) -> bool {
        let Some(refused) = &mut self.refused else { return false };
        let is_known = refused.take(time);
        if refused.times.is_empty() {
            self.refused = None;
        }
        is_known
    }
}

/// Exponential histograms always fit.
fn have_same_bounds(one: &Distribution, other: &Distribution) -> bool {
    match (one, other) {
        (Distribution::Explicit(one), Distribution::Explicit(other)) => one.bounds == other.bounds,
        (Distribution::Exponential(_), Distribution::Exponential(_)) => true,
        _ => false,
    }
}
