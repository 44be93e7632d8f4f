//! Adding up native histograms: at the coarser resolution and with the wider zero bucket of the two.

use std::collections::BTreeMap;

use super::Untranslatable;
use super::native::{CUSTOM_BUCKETS, NativeHistogram, Spans};

/// More buckets of one sign are merged, as `delta_to_cumulative` does it.
const MAX_BUCKETS: usize = 160;

/// The coarsest resolution.
const MIN_SCHEMA: i32 = -4;

/// Buckets of one sign by number.
type Counts = BTreeMap<i32, u64>;

impl NativeHistogram {
    /// Adds `other`.
    ///
    /// # Errors
    /// If its bounds are others, or the sum is more than can be represented. Then `self` is as before.
    pub(super) fn add(&mut self, other: &Self) -> Result<(), Untranslatable> {
        let are_custom = (self.schema == CUSTOM_BUCKETS, other.schema == CUSTOM_BUCKETS);
        if are_custom.0 != are_custom.1 || self.custom_bounds != other.custom_bounds {
            return Err(Untranslatable::Bounds);
        }
        let mut sum = self.clone();
        // One NaN or infinity would stay for ever.
        sum.sum += if other.sum.is_finite() { other.sum } else { 0.0 };
        sum.count = checked(self.count, other.countable())?;
        sum.zero_count = checked(self.zero_count, other.zero_count)?;
        let mut sides = Sides::default();
        if are_custom.0 {
            sides.add(self, 0)?;
            sides.add(other, 0)?;
        } else {
            sum.schema = self.schema.min(other.schema);
            sides.add(self, self.schema - sum.schema)?;
            sides.add(other, other.schema - sum.schema)?;
            sum.zero_threshold = self.zero_threshold.max(other.zero_threshold);
            if self.zero_threshold.to_bits() != other.zero_threshold.to_bits() {
                sum.zero_count = checked(sum.zero_count, sides.widen_zero(&mut sum.zero_threshold, sum.schema))?;
            }
            while sides.len() > MAX_BUCKETS && sum.schema > MIN_SCHEMA {
                sum.schema -= 1;
                sides.halve()?;
            }
        }
        refill(&mut sum.positive, &sides.positive)?;
        refill(&mut sum.negative, &sides.negative)?;
        *self = sum;
        Ok(())
    }

    /// Makes it the first of a total.
    pub(super) fn begin_total(&mut self) {
        if !self.sum.is_finite() {
            self.count = self.countable();
            self.sum = 0.0;
        }
    }

    /// How many of its values can be added to a total. Those that are NaN are in no bucket, and have made the sum NaN:
    /// left out of the sum, they have to be left out of the count, or Prometheus refuses the total.
    fn countable(&self) -> u64 {
        if self.sum.is_finite() {
            return self.count;
        }
        let all = self.positive.buckets().chain(self.negative.buckets());
        all.fold(self.zero_count, |sum, (_, count)| sum.saturating_add(count)).min(self.count)
    }

    /// How much memory it takes outside of itself, roughly, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let spans = |spans: &Spans| spans.spans.len() * 8 + spans.deltas.len() * 8;
        spans(&self.positive) + spans(&self.negative) + self.custom_bounds.len() * 8
    }
}

#[derive(Default)]
struct Sides {
    positive: Counts,
    negative: Counts,
}

impl Sides {
    fn add(&mut self, histogram: &NativeHistogram, reduction: i32) -> Result<(), Untranslatable> {
        let reduction = u32::try_from(reduction).unwrap_or_default();
        for (side, spans) in [(&mut self.positive, &histogram.positive), (&mut self.negative, &histogram.negative)] {
            for (number, count) in spans.buckets() {
                put(side, coarser(number, reduction), count)?;
            }
        }
        Ok(())
    }

    /// Buckets of the fuller side.
    fn len(&self) -> usize {
        self.positive.len().max(self.negative.len())
    }

    /// Halves the resolution.
    fn halve(&mut self) -> Result<(), Untranslatable> {
        for side in [&mut self.positive, &mut self.negative] {
            let mut halved = Counts::new();
            for (&number, &count) in &*side {
                put(&mut halved, coarser(number, 1), count)?;
            }
            *side = halved;
        }
        Ok(())
    }

    /// Takes out the buckets that the zero bucket covers, and returns how many observations they
    /// hold. The zero bucket grows to the end of one that it covers in part.
    fn widen_zero(&mut self, threshold: &mut f64, schema: i32) -> u64 {
        let mut covered = 0u64;
        loop {
            let lowest = [&self.positive, &self.negative].into_iter().filter_map(|side| side.first_key_value());
            let Some(&number) = lowest.map(|(number, _)| number).min() else { return covered };
            if upper_bound(number - 1, schema) >= *threshold {
                return covered;
            }
            *threshold = threshold.max(upper_bound(number, schema));
            for side in [&mut self.positive, &mut self.negative] {
                covered = covered.saturating_add(side.remove(&number).unwrap_or_default());
            }
        }
    }
}

/// The bucket at a resolution that is lower by `reduction` steps.
fn coarser(number: i32, reduction: u32) -> i32 {
    let number = ((i64::from(number) - 1) >> reduction.min(63)) + 1;
    // Between the number and 1: still 32 bits.
    number as i32
}

/// Where bucket `number` ends.
fn upper_bound(number: i32, schema: i32) -> f64 {
    (f64::from(number) * f64::from(-schema).exp2()).exp2()
}

fn put(side: &mut Counts, number: i32, count: u64) -> Result<(), Untranslatable> {
    let known = side.entry(number).or_default();
    *known = checked(*known, count)?;
    Ok(())
}

fn checked(left: u64, right: u64) -> Result<u64, Untranslatable> {
    left.checked_add(right).ok_or(Untranslatable::Value)
}

fn refill(spans: &mut Spans, side: &Counts) -> Result<(), Untranslatable> {
    spans.fill(side.iter().map(|(&number, &count)| (i64::from(number), count))).map(drop)
}
