//! Exponential histograms as Prometheus' native histograms.
//!
//! OTLP's bucket `i` covers `(base^i, base^(i+1)]`, Prometheus' is named after its upper bound:
//! hence the `+ 1`. Scales above 8 have no schema; buckets are merged until the scale is 8. Target
//! buckets that come out empty must still advance the index, which is where the Collector's
//! exporter (v0.165) goes wrong.

use super::points::{Buckets, Exponential};

/// Gaps of up to this many empty buckets are filled with zero deltas, larger ones open a span.
const FILLED_GAP: i64 = 2;

/// What stands for a zero threshold of 0, as in the Collector and in Prometheus.
const DEFAULT_ZERO_THRESHOLD: f64 = 1e-128;

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
    /// Resolution, -4 to 8.
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
}

/// The histogram has no native equivalent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotNative {
    /// Its scale is below -4.
    Scale,
    /// Its buckets lie outside of what 32 bits can number.
    Index,
}

impl NativeHistogram {
    /// Fills `self` from `histogram`, re-using its buffers.
    pub(super) fn fill(&mut self, histogram: &Exponential<'_>) -> Result<(), NotNative> {
        if histogram.scale < -4 {
            return Err(NotNative::Scale);
        }
        let reduction = u32::try_from(histogram.scale - 8).unwrap_or(0).min(63);
        self.schema = histogram.scale.min(8);
        self.zero_threshold =
            if histogram.zero_threshold == 0.0 { DEFAULT_ZERO_THRESHOLD } else { histogram.zero_threshold };
        self.zero_count = histogram.zero_count;
        self.count = histogram.count;
        self.sum = histogram.sum.unwrap_or_default();
        self.positive.fill(&histogram.positive, reduction)?;
        self.negative.fill(&histogram.negative, reduction)
    }

    /// The histogram that ends its series.
    pub(super) fn fill_stale(&mut self, stale: f64) {
        self.schema = 0;
        self.zero_threshold = DEFAULT_ZERO_THRESHOLD;
        self.zero_count = 0;
        self.count = 0;
        self.sum = stale;
        self.positive.clear();
        self.negative.clear();
    }
}

impl Spans {
    fn clear(&mut self) {
        self.spans.clear();
        self.deltas.clear();
    }

    fn fill(&mut self, buckets: &Buckets<'_>, reduction: u32) -> Result<(), NotNative> {
        self.clear();
        let mut writer = Writer { spans: self, last_index: None, last_count: 0 };
        let (mut target, mut merged) = (i64::MIN, 0u64);
        for (position, count) in buckets.counts().enumerate() {
            let index = ((i64::from(buckets.offset) + position as i64) >> reduction) + 1;
            if index != target {
                writer.put(target, merged)?;
                (target, merged) = (index, 0);
            }
            merged = merged.saturating_add(count);
        }
        writer.put(target, merged)
    }
}

struct Writer<'a> {
    spans: &'a mut Spans,
    last_index: Option<i64>,
    last_count: i64,
}

impl Writer<'_> {
    fn put(&mut self, index: i64, count: u64) -> Result<(), NotNative> {
        if count == 0 {
            return Ok(());
        }
        match (self.last_index, self.spans.spans.last_mut()) {
            (Some(last), Some(span)) if index - last - 1 <= FILLED_GAP => {
                span.1 += (index - last) as u32;
                for _ in last + 1..index {
                    self.put_delta(0);
                }
            }
            (last, _) => {
                let offset = last.map_or(index, |last| index - last - 1);
                self.spans.spans.push((i32::try_from(offset).map_err(|_| NotNative::Index)?, 1));
            }
        }
        self.put_delta(i64::try_from(count).unwrap_or(i64::MAX));
        self.last_index = Some(index);
        Ok(())
    }

    fn put_delta(&mut self, count: i64) {
        self.spans.deltas.push(count - self.last_count);
        self.last_count = count;
    }
}

impl From<NotNative> for super::Untranslatable {
    fn from(problem: NotNative) -> Self {
        match problem {
            NotNative::Scale => Self::Scale,
            NotNative::Index => Self::Value,
        }
    }
}
