//! Counts and durations, added up.

use super::exponential::Exponential;

/// How durations are recorded.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// In buckets with these upper bounds, and one above.
    Explicit(Box<[f64]>),
    /// In at most so many exponential buckets.
    Exponential(usize),
}

/// What a series counts: of all spans with its attributes, or of those since it was last asked.
#[derive(Debug, Clone)]
pub(super) struct Recorder {
    /// How many spans, or events.
    pub(super) count: u64,
    /// The sum of their durations.
    pub(super) sum: f64,
    pub(super) durations: Durations,
    pub(super) exemplars: Vec<Exemplar>,
}

/// Where the durations fall.
#[derive(Debug, Clone)]
pub(super) enum Durations {
    /// They are not recorded.
    None,
    /// Counts of the buckets.
    Explicit(Box<[u64]>),
    /// Counts and bounds.
    Exponential(Box<Exponential>),
}

/// A span as an example.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Exemplar {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    pub(super) duration: f64,
}

impl Recorder {
    /// One that records durations in `shape`, if at all.
    pub(super) fn new(shape: Option<&Shape>) -> Self {
        let durations = match shape {
            None => Durations::None,
            Some(Shape::Explicit(bounds)) => Durations::Explicit(vec![0; bounds.len() + 1].into()),
            Some(Shape::Exponential(max_size)) => Durations::Exponential(Box::new(Exponential::new(*max_size))),
        };
        Self { count: 0, sum: 0.0, durations, exemplars: Vec::new() }
    }

    /// Bytes that one of `shape` takes at the most.
    pub(super) fn max_bytes(shape: Option<&Shape>, exemplars: usize) -> usize {
        let durations = match shape {
            None => 0,
            Some(Shape::Explicit(bounds)) => (bounds.len() + 1) * 8,
            Some(Shape::Exponential(max_size)) => max_size.next_power_of_two() * 8 + size_of::<Exponential>(),
        };
        size_of::<Self>() + durations + exemplars * size_of::<Exemplar>()
    }

    /// Counts a `duration` that stands for `times` spans.
    #[inline]
    pub(super) fn record(&mut self, shape: &Shape, duration: f64, times: u64) {
        self.count = self.count.saturating_add(times);
        match (&mut self.durations, shape) {
            (Durations::Explicit(buckets), Shape::Explicit(bounds)) => {
                self.sum += duration * times as f64;
                let index = bounds.partition_point(|bound| *bound < duration);
                if let Some(bucket) = buckets.get_mut(index) {
                    *bucket = bucket.saturating_add(times);
                }
            }
            (Durations::Exponential(own), _) => {
                self.sum += duration * times as f64;
                own.record(duration, times);
            }
            _ => {}
        }
    }

    /// Adds an example, unless there are `limit`.
    #[inline]
    pub(super) fn add_exemplar(&mut self, exemplar: Exemplar, limit: usize) {
        if self.exemplars.len() < limit {
            self.exemplars.push(exemplar);
        }
    }

    /// Adds what `other`, one of the same shape, has recorded; of the examples no more than `limit`.
    pub(super) fn merge(&mut self, other: &Self, limit: usize) {
        self.count = self.count.saturating_add(other.count);
        self.sum += other.sum;
        match (&mut self.durations, &other.durations) {
            (Durations::Explicit(own), Durations::Explicit(other)) => {
                for (own, other) in own.iter_mut().zip(other) {
                    *own = own.saturating_add(*other);
                }
            }
            (Durations::Exponential(own), Durations::Exponential(other)) => own.merge(other),
            _ => {}
        }
        for &exemplar in &other.exemplars {
            self.add_exemplar(exemplar, limit);
        }
    }

    /// Begins anew, in the same memory.
    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.sum = 0.0;
        self.exemplars.clear();
        match &mut self.durations {
            Durations::None => {}
            Durations::Explicit(buckets) => buckets.fill(0),
            Durations::Exponential(own) => own.clear(),
        }
    }
}
