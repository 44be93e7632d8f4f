//! Exponential histograms, added up without losing a count.
//!
//! Of two scales the smaller one is taken, of two zero thresholds the larger one, and the scale
//! falls further where more than [`MAX_BUCKETS`] buckets would be needed.

use nyquist_core::wire::{BucketsView, ExponentialHistogramDataPointView};

use super::distribution::{Distribution, Growth, added};

/// Buckets on either side.
const MAX_BUCKETS: i64 = 160;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exponential {
    pub(crate) scale: i32,
    pub(crate) zero_threshold: f64,
    pub(crate) zero_count: u64,
    pub(crate) positive: Buckets,
    pub(crate) negative: Buckets,
    pub(crate) count: u64,
    pub(crate) sum: Option<f64>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// Neighbouring buckets; the first one has the index `offset`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Buckets {
    pub(crate) offset: i64,
    pub(crate) counts: Vec<u64>,
}

impl Exponential {
    /// Reads a point. Its buckets are read in two passes, so that a point with millions of them
    /// takes no more memory than any other.
    pub(crate) fn new(point: ExponentialHistogramDataPointView<'_>) -> Self {
        let fields = point.fields();
        let (positive, negative) = (point.positive(), point.negative());
        let shift = shift_for(&[range_of(positive), range_of(negative)]);
        Self {
            scale: fields.scale.saturating_sub_unsigned(shift),
            zero_threshold: fields.zero_threshold,
            zero_count: fields.zero_count,
            positive: Buckets::new(positive, shift),
            negative: Buckets::new(negative, shift),
            count: fields.count,
            sum: fields.sum,
            min: fields.min,
            max: fields.max,
        }
    }

    pub(crate) fn since(&self, last: &Self) -> Growth {
        let Some(count) = self.count.checked_sub(last.count) else { return Growth::Reset };
        let (mut now, mut last) = (self.clone(), last.clone());
        now.align(&mut last);
        let growth = (|| {
            Some(Self {
                zero_count: now.zero_count.checked_sub(last.zero_count)?,
                positive: now.positive.minus(&last.positive)?,
                negative: now.negative.minus(&last.negative)?,
                count,
                sum: now.sum.zip(last.sum).map(|(now, last)| now - last),
                min: None,
                max: None,
                ..now.clone()
            })
        })();
        growth.map_or(Growth::Unclear, |growth| Growth::By(Distribution::Exponential(growth)))
    }

    pub(crate) fn add(&mut self, mut other: Self) {
        self.align(&mut other);
        let shift = shift_for(&[self.positive.range_with(&other.positive), self.negative.range_with(&other.negative)]);
        self.lower_scale(shift);
        other.lower_scale(shift);
        self.positive.plus(&other.positive);
        self.negative.plus(&other.negative);
        self.zero_count = self.zero_count.saturating_add(other.zero_count);
        self.count = self.count.saturating_add(other.countable());
        self.sum = added(self.sum, other.sum);
        self.min = self.min.zip(other.min).map(|(own, other)| own.min(other));
        self.max = self.max.zip(other.max).map(|(own, other)| own.max(other));
    }

    /// How many of its values can be added to a total. Those that are NaN are in no bucket, and have made the sum NaN:
    /// left out of the sum, they have to be left out of the count, which must be that of the buckets.
    pub(super) fn countable(&self) -> u64 {
        if self.sum.is_none_or(f64::is_finite) {
            return self.count;
        }
        let all = self.positive.counts.iter().chain(&self.negative.counts);
        all.fold(self.zero_count, |sum, count| sum.saturating_add(*count)).min(self.count)
    }

    pub(crate) fn bytes(&self) -> usize {
        (self.positive.counts.capacity() + self.negative.counts.capacity()) * 8
    }

    /// Brings both to the same scale and zero threshold.
    fn align(&mut self, other: &mut Self) {
        let scale = self.scale.min(other.scale);
        let threshold = self.zero_threshold.max(other.zero_threshold);
        for one in [self, other] {
            one.lower_scale(one.scale.abs_diff(scale));
            one.raise_threshold(threshold);
        }
    }

    fn lower_scale(&mut self, by: u32) {
        if by > 0 {
            self.scale = self.scale.saturating_sub_unsigned(by);
            self.positive.merge_neighbours(by);
            self.negative.merge_neighbours(by);
        }
    }

    /// Moves the buckets that lie within `threshold` to the zero bucket.
    fn raise_threshold(&mut self, threshold: f64) {
        if self.zero_threshold >= threshold {
            return;
        }
        self.zero_threshold = threshold;
        let scale = f64::from(self.scale);
        for side in [&mut self.positive, &mut self.negative] {
            // Bucket i ends at 2^((i + 1) * 2^-scale).
            let ends = |index: usize| ((side.offset + index as i64 + 1) as f64 * (-scale).exp2()).exp2();
            let within = (0..side.counts.len()).take_while(|&index| ends(index) <= threshold).count();
            let moved: u64 = side.counts.drain(..within).fold(0, u64::saturating_add);
            side.offset += within as i64;
            self.zero_count = self.zero_count.saturating_add(moved);
        }
    }
}

/// First and last index.
type Range = Option<(i64, i64)>;

/// The range of the buckets that are not empty.
fn range_of(buckets: BucketsView<'_>) -> Range {
    let offset = i64::from(buckets.offset());
    let mut range: Range = None;
    for (index, count) in buckets.bucket_counts().enumerate() {
        if count > 0 {
            let index = offset + index as i64;
            range = Some((range.map_or(index, |(first, _)| first), index));
        }
    }
    range
}

/// By how much the scale must fall so that each range takes [`MAX_BUCKETS`] at the most.
fn shift_for(ranges: &[Range]) -> u32 {
    let fits = |shift: u32| {
        ranges.iter().flatten().all(|&(first, last)| shifted(last, shift) - shifted(first, shift) < MAX_BUCKETS)
    };
    // Indexes have 33 bits and a few more, so this ends.
    (0..63).find(|&shift| fits(shift)).unwrap_or(63)
}

/// The bucket that takes in bucket `index` once the scale has fallen by `shift`.
fn shifted(index: i64, shift: u32) -> i64 {
    index >> shift.min(63)
}

impl Buckets {
    fn new(view: BucketsView<'_>, shift: u32) -> Self {
        let Some((first, last)) = range_of(view) else { return Self::default() };
        let offset = shifted(first, shift);
        let unshifted = i64::from(view.offset());
        let mut counts = vec![0u64; (shifted(last, shift) - offset + 1) as usize];
        for (index, count) in view.bucket_counts().enumerate() {
            let index = unshifted + index as i64;
            if count == 0 || index < first || index > last {
                continue;
            }
            if let Some(sum) = counts.get_mut((shifted(index, shift) - offset) as usize) {
                *sum = sum.saturating_add(count);
            }
        }
        Self { offset, counts }
    }

    fn merge_neighbours(&mut self, shift: u32) {
        let Some((first, last)) = self.range() else { return };
        let offset = shifted(first, shift);
        let mut counts = vec![0u64; (shifted(last, shift) - offset + 1) as usize];
        for (index, count) in self.counts.iter().enumerate() {
            let place = shifted(self.offset + index as i64, shift) - offset;
            if let Some(sum) = counts.get_mut(place as usize) {
                *sum = sum.saturating_add(*count);
            }
        }
        *self = Self { offset, counts };
    }

    fn range(&self) -> Range {
        (!self.counts.is_empty()).then(|| (self.offset, self.offset + self.counts.len() as i64 - 1))
    }

    fn range_with(&self, other: &Self) -> Range {
        match (self.range(), other.range()) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (range, None) | (None, range) => range,
        }
    }

    fn plus(&mut self, other: &Self) {
        let Some((first, last)) = self.range_with(other) else { return };
        let mut counts = vec![0u64; (last - first + 1) as usize];
        for side in [&*self, other] {
            for (index, count) in side.counts.iter().enumerate() {
                if let Some(sum) = counts.get_mut((side.offset - first) as usize + index) {
                    *sum = sum.saturating_add(*count);
                }
            }
        }
        *self = Self { offset: first, counts };
    }

    /// `None` if a bucket of `other` is larger.
    fn minus(&self, other: &Self) -> Option<Self> {
        let mut rest = self.clone();
        for (index, &count) in other.counts.iter().enumerate() {
            if count == 0 {
                continue;
            }
            let place = usize::try_from(other.offset + index as i64 - self.offset).ok()?;
            let own = rest.counts.get_mut(place)?;
            *own = own.checked_sub(count)?;
        }
        Some(rest)
    }
}
