//! Histograms as Prometheus' native histograms: exponential ones, and ones with bounds of their own.
//!
//! OTLP's bucket `i` covers `(base^i, base^(i+1)]`, Prometheus' is named after its upper bound:
//! hence the `+ 1`. Scales above 8 have no schema; buckets are merged until the scale is 8. Target
//! buckets that come out empty must still advance the index, which is where the Collector's
//! exporter (v0.165) goes wrong.
//!
//! With bounds of its own (schema -53), bucket `i` ends at bound `i`, and the last one has no bound.

use super::Untranslatable;
use super::points::{Buckets, Exponential, Histogram};

/// Gaps of up to this many empty buckets are filled with zero deltas, larger ones open a span.
const FILLED_GAP: i64 = 2;

/// What stands for a zero threshold of 0, as in the Collector and in Prometheus.
const DEFAULT_ZERO_THRESHOLD: f64 = 1e-128;

/// The schema of histograms with bounds of their own. Remote write 1.0 must not carry it.
pub const CUSTOM_BUCKETS: i32 = -53;

/// Buckets of one sign.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Spans {
    /// Offset (from the end of the span before; of the first, absolute) and length.
    pub spans: Vec<(i32, u32)>,
    /// The difference of each bucket's count to that of the one before.
    pub deltas: Vec<i64>,
}

/// A native histogram with integer counts.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct NativeHistogram {
    /// Resolution, -4 to 8; or [`CUSTOM_BUCKETS`].
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Its count.
    pub zero_count: u64,
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Buckets of values above zero.
    pub positive: Spans,
    /// Buckets of values below zero.
    pub negative: Spans,
    /// With [`CUSTOM_BUCKETS`] the upper bounds of all buckets but the last one; else empty.
    pub custom_bounds: Vec<f64>,
}

impl NativeHistogram {
    /// Fills `self` from `histogram`, re-using its buffers.
    ///
    /// # Errors
    /// If there is no native histogram like it, or Prometheus would refuse it.
    pub(super) fn fill(&mut self, histogram: &Exponential<'_>) -> Result<(), Untranslatable> {
        let sum = histogram.sum.ok_or(Untranslatable::NoSum)?;
        if histogram.scale < -4 {
            return Err(Untranslatable::Scale);
        }
        let reduction = u32::try_from(histogram.scale - 8).unwrap_or(0).min(63);
        self.schema = histogram.scale.min(8);
        let is_width = histogram.zero_threshold > 0.0 && histogram.zero_threshold.is_finite();
        self.zero_threshold = if is_width { histogram.zero_threshold } else { DEFAULT_ZERO_THRESHOLD };
        self.zero_count = histogram.zero_count;
        (self.count, self.sum) = (histogram.count, sum);
        self.custom_bounds.clear();
        let positive = self.positive.fill(reduced(&histogram.positive, reduction))?;
        let negative = self.negative.fill(reduced(&histogram.negative, reduction))?;
        check_count(histogram.count, sum, positive.saturating_add(negative).saturating_add(histogram.zero_count))
    }

    /// Fills `self` from a histogram with explicit bounds, re-using its buffers. What its count has
    /// more than its buckets goes into the last one.
    ///
    /// # Errors
    /// If it has no sum, more buckets than bounds can tell apart, or more in its buckets than its
    /// count says.
    pub(super) fn fill_custom(&mut self, histogram: &Histogram<'_>) -> Result<(), Untranslatable> {
        let sum = histogram.sum.ok_or(Untranslatable::NoSum)?;
        if histogram.counts.len() > histogram.bounds.len() + 1 {
            return Err(Untranslatable::Bounds);
        }
        let in_buckets = histogram.counts.iter().fold(0u64, |all, count| all.saturating_add(*count));
        let rest = histogram.count.checked_sub(in_buckets).ok_or(Untranslatable::Count)?;
        self.clear(CUSTOM_BUCKETS, 0.0);
        (self.count, self.sum) = (histogram.count, sum);
        self.custom_bounds.extend_from_slice(histogram.bounds);
        let last = histogram.bounds.len();
        let counts = (0..=last).map(|index| histogram.counts.get(index).copied().unwrap_or_default());
        let buckets = counts.enumerate().map(|(index, count)| {
            let count = if index == last { count.saturating_add(rest) } else { count };
            (index as i64, count)
        });
        self.positive.fill(buckets).map(drop)
    }

    /// The histogram that ends its series.
    pub(super) fn fill_stale(&mut self, stale: f64) {
        self.clear(0, DEFAULT_ZERO_THRESHOLD);
        self.sum = stale;
    }

    /// The one that ends a series of histograms with bounds of their own.
    pub(super) fn fill_stale_custom(&mut self, stale: f64) {
        self.clear(CUSTOM_BUCKETS, 0.0);
        self.sum = stale;
    }

    fn clear(&mut self, schema: i32, zero_threshold: f64) {
        (self.schema, self.zero_threshold) = (schema, zero_threshold);
        (self.zero_count, self.count, self.sum) = (0, 0, 0.0);
        self.positive.clear();
        self.negative.clear();
        self.custom_bounds.clear();
    }
}

/// Prometheus refuses histograms whose buckets do not add up, and with them (in remote write 1.0)
/// the whole request. Observations of NaN are in no bucket.
fn check_count(count: u64, sum: f64, in_buckets: u64) -> Result<(), Untranslatable> {
    let adds_up = in_buckets == count || (sum.is_nan() && in_buckets < count);
    if adds_up { Ok(()) } else { Err(Untranslatable::Count) }
}

/// Buckets under Prometheus' numbers, several with one number where they have to be merged.
fn reduced(buckets: &Buckets<'_>, reduction: u32) -> impl Iterator<Item = (i64, u64)> {
    let offset = i64::from(buckets.offset);
    buckets.counts().enumerate().map(move |(position, count)| (((offset + position as i64) >> reduction) + 1, count))
}

impl Spans {
    fn clear(&mut self) {
        self.spans.clear();
        self.deltas.clear();
    }

    /// Fills `self` with buckets in the order of their numbers; equal ones are merged. Returns how
    /// many observations they hold.
    pub(super) fn fill(&mut self, buckets: impl Iterator<Item = (i64, u64)>) -> Result<u64, Untranslatable> {
        self.clear();
        let mut writer = Writer { spans: self, last_index: None, last_count: 0 };
        let (mut target, mut merged, mut all) = (i64::MIN, 0u64, 0u64);
        for (index, count) in buckets {
            if index != target {
                writer.put(target, merged)?;
                (target, merged) = (index, 0);
            }
            merged = merged.saturating_add(count);
            all = all.saturating_add(count);
        }
        writer.put(target, merged)?;
        Ok(all)
    }

    /// The buckets that are not empty: number and count.
    pub fn buckets(&self) -> impl Iterator<Item = (i32, u64)> {
        let mut deltas = self.deltas.iter();
        let (mut next, mut count) = (0i64, 0i64);
        let numbers = self.spans.iter().flat_map(move |&(offset, length)| {
            let first = next + i64::from(offset);
            next = first + i64::from(length);
            first..next
        });
        numbers.filter_map(move |number| {
            count += deltas.next()?;
            let number = i32::try_from(number).ok()?;
            (count > 0).then_some((number, count as u64))
        })
    }
}

struct Writer<'a> {
    spans: &'a mut Spans,
    last_index: Option<i64>,
    last_count: i64,
}

impl Writer<'_> {
    fn put(&mut self, index: i64, count: u64) -> Result<(), Untranslatable> {
        if count == 0 {
            return Ok(());
        }
        let number = i32::try_from(index).ok().filter(|number| *number > i32::MIN).ok_or(Untranslatable::Value)?;
        let count = i64::try_from(count).map_err(|_| Untranslatable::Value)?;
        match (self.last_index, self.spans.spans.last_mut()) {
            (Some(last), Some(span)) if index - last - 1 <= FILLED_GAP => {
                span.1 += (index - last) as u32;
                for _ in last + 1..index {
                    self.put_delta(0);
                }
            }
            (Some(last), _) => {
                let gap = i32::try_from(index - last - 1).map_err(|_| Untranslatable::Value)?;
                self.spans.spans.push((gap, 1));
            }
            (None, _) => self.spans.spans.push((number, 1)),
        }
        self.put_delta(count);
        self.last_index = Some(index);
        Ok(())
    }

    fn put_delta(&mut self, count: i64) {
        self.spans.deltas.push(count - self.last_count);
        self.last_count = count;
    }
}
