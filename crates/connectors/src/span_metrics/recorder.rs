//! Counts and durations, added up.

use super::exponential::Exponential;

/// How durations are recorded.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// In buckets with these upper bounds, and one above.
    Explicit(Bounds),
    /// In at most so many exponential buckets.
    Exponential(usize),
}

/// The upper bounds of buckets, ascending.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bounds {
    /// In the unit of the metrics.
    values: Box<[f64]>,
    /// For each bound the longest duration that is not above it, nanoseconds.
    limits: Box<[u64]>,
    /// How many limits are below each power of two; 0 for the first, 1, which 0 is looked up with.
    below: [u16; u64::BITS as usize + 1],
}

impl Bounds {
    /// Those with `values`, in a unit of so many nanoseconds.
    pub(super) fn new(values: Box<[f64]>, nanos_per_unit: f64) -> Self {
        let limits: Box<[u64]> = values.iter().map(|&bound| limit(bound, nanos_per_unit)).collect();
        let below = std::array::from_fn(|bits| match bits {
            0 => 0,
            _ => limits.iter().filter(|limit| u128::from(**limit) < 1 << bits).count() as u16,
        });
        Self { values, limits, below }
    }

    pub(super) fn values(&self) -> &[f64] {
        &self.values
    }

    /// The bucket of a duration: how many bounds are below it.
    #[inline]
    fn bucket(&self, nanos: u64) -> usize {
        // Few bounds are between two powers of two.
        let bits = (nanos | 1).ilog2() as usize;
        let Some(&[first, last]) = self.below.get(bits..bits + 2).and_then(<[u16]>::first_chunk::<2>) else { return 0 };
        let (first, last) = (usize::from(first), usize::from(last));
        let between = self.limits.get(first..last).unwrap_or_default();
        first + between.partition_point(|limit| *limit < nanos)
    }
}

/// The most nanoseconds that are no more than `bound` in the metrics' unit, as it is rounded there.
fn limit(bound: f64, nanos_per_unit: f64) -> u64 {
    let is_above = |nanos: u64| nanos as f64 / nanos_per_unit > bound;
    // Bits from the highest to the lowest: as many as there is room for.
    (0..u64::BITS).rev().fold(0, |limit, bit| if is_above(limit | 1 << bit) { limit } else { limit | 1 << bit })
}

/// How long a span took, and how many spans it stands for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spell {
    nanos: u64,
    /// In the unit of the metrics.
    pub(super) duration: f64,
    times: u64,
}

impl Spell {
    /// `nanos`, `times` over, for metrics with a unit of so many nanoseconds.
    #[inline]
    pub(super) fn new(nanos: u64, nanos_per_unit: f64, times: u64) -> Self {
        Self { nanos, duration: nanos as f64 / nanos_per_unit, times }
    }
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
            Some(Shape::Explicit(bounds)) => Durations::Explicit(vec![0; bounds.values.len() + 1].into()),
            Some(Shape::Exponential(max_size)) => Durations::Exponential(Box::new(Exponential::new(*max_size))),
        };
        Self { count: 0, sum: 0.0, durations, exemplars: Vec::new() }
    }

    /// Bytes that one of `shape` takes at the most.
    pub(super) fn max_bytes(shape: Option<&Shape>, exemplars: usize) -> usize {
        let durations = match shape {
            None => 0,
            Some(Shape::Explicit(bounds)) => (bounds.values.len() + 1) * 8,
            Some(Shape::Exponential(max_size)) => max_size.next_power_of_two() * 8 + size_of::<Exponential>(),
        };
        size_of::<Self>() + durations + exemplars * size_of::<Exemplar>()
    }

    /// Counts a span.
    #[inline]
    pub(super) fn record(&mut self, shape: &Shape, spell: Spell) {
        let Spell { nanos, duration, times } = spell;
        self.count = self.count.saturating_add(times);
        match (&mut self.durations, shape) {
            (Durations::Explicit(buckets), Shape::Explicit(bounds)) => {
                self.sum += duration * times as f64;
                if let Some(bucket) = buckets.get_mut(bounds.bucket(nanos)) {
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
    pub(super) fn add_exemplar(&mut self, exemplar: impl FnOnce() -> Option<Exemplar>, limit: usize) {
        if self.exemplars.len() < limit {
            self.exemplars.extend(exemplar());
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
            self.add_exemplar(|| Some(exemplar), limit);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The bucket of a duration is that of the quotient, whatever the bounds: at the bounds too, and where
        /// numbers are so large that they are rounded.
        #[test]
        fn buckets_are_those_of_the_quotients(
            bounds in prop::collection::btree_set(prop_oneof![0..100u64, 0..20_000_000_000u64, any::<u64>()], 0..200),
            durations in prop::collection::vec(any::<u64>(), 20),
            shift in 0..64u32,
            nanos_per_unit in prop_oneof![Just(1e6), Just(1e9)],
        ) {
            let bounds: Vec<u64> = bounds.into_iter().collect();
            let values = bounds.iter().map(|&bound| bound as f64 / nanos_per_unit).collect();
            let table = Bounds::new(values, nanos_per_unit);
            let near = bounds.iter().flat_map(|&bound| [bound.saturating_sub(1), bound, bound.saturating_add(1)]);
            for nanos in near.chain(durations.iter().map(|nanos| nanos >> shift)).chain([0, 1, u64::MAX]) {
                let duration = nanos as f64 / nanos_per_unit;
                let expected = table.values.iter().filter(|bound| **bound < duration).count();
                prop_assert_eq!(table.bucket(nanos), expected, "{}", nanos);
            }
        }
    }
}
