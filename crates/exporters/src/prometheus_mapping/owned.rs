//! Values that outlive their points, and add up.

use std::sync::Arc;

use super::native::NativeHistogram;
use super::points::{Histogram, Summary};
use super::{PointValue, STALE_NAN_BITS};

/// The value of a point, kept.
#[derive(Debug, Clone, PartialEq)]
pub enum OwnedValue {
    /// Of a gauge or sum.
    Number(f64),
    /// A histogram with explicit bounds.
    Histogram {
        /// How many values.
        count: u64,
        /// Their sum, if known.
        sum: Option<f64>,
        /// Upper bounds of the buckets but the last.
        bounds: Arc<[f64]>,
        /// Counts of the buckets.
        counts: Vec<u64>,
    },
    /// A native histogram.
    Native(NativeHistogram),
    /// A summary.
    Summary {
        /// How many values.
        count: u64,
        /// Their sum.
        sum: f64,
        /// Quantiles (0 to 1) and their values.
        quantiles: Vec<(f64, f64)>,
    },
}

/// What came of adding a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It was added.
    Continued,
    /// It could not be: the buckets are others. The value is the delta alone, from here on.
    StartedOver,
}

impl OwnedValue {
    /// `value`, kept.
    #[must_use]
    pub fn of(value: &PointValue<'_>) -> Self {
        match *value {
            PointValue::Number(value) => Self::Number(value),
            PointValue::Histogram(Histogram { count, sum, bounds, counts }) => {
                Self::Histogram { count, sum, bounds: bounds.into(), counts: counts.to_vec() }
            }
            PointValue::Native(histogram) => Self::Native(histogram.clone()),
            PointValue::Summary(Summary { count, sum, quantiles }) => {
                Self::Summary { count, sum, quantiles: quantiles.to_vec() }
            }
        }
    }

    /// The value of a point.
    #[must_use]
    pub fn view(&self) -> PointValue<'_> {
        match self {
            Self::Number(value) => PointValue::Number(*value),
            Self::Histogram { count, sum, bounds, counts } => {
                PointValue::Histogram(Histogram { count: *count, sum: *sum, bounds, counts })
            }
            Self::Native(histogram) => PointValue::Native(histogram),
            Self::Summary { count, sum, quantiles } => {
                PointValue::Summary(Summary { count: *count, sum: *sum, quantiles })
            }
        }
    }

    /// Is `value` of the same kind?
    #[must_use]
    pub fn is_like(&self, value: &PointValue<'_>) -> bool {
        matches!(
            (self, value),
            (Self::Number(_), PointValue::Number(_))
                | (Self::Histogram { .. }, PointValue::Histogram(_))
                | (Self::Native(_), PointValue::Native(_))
                | (Self::Summary { .. }, PointValue::Summary(_))
        )
    }

    /// Replaces the value, re-using what can be.
    pub fn set(&mut self, value: &PointValue<'_>) {
        match (&mut *self, value) {
            (Self::Number(old), PointValue::Number(new)) => *old = *new,
            (Self::Histogram { count, sum, bounds, counts }, PointValue::Histogram(new)) if **bounds == *new.bounds => {
                (*count, *sum) = (new.count, new.sum);
                counts.clear();
                counts.extend_from_slice(new.counts);
            }
            (Self::Native(old), PointValue::Native(new)) => old.clone_from(new),
            (_, new) => *self = Self::of(new),
        }
    }

    /// Adds a delta. Where that is not possible the value starts over with it.
    pub fn add(&mut self, value: &PointValue<'_>) -> Added {
        match (&mut *self, value) {
            (Self::Number(total), PointValue::Number(change)) => *total += change,
            (Self::Histogram { count, sum, bounds, counts }, PointValue::Histogram(change))
                if **bounds == *change.bounds && counts.len() == change.counts.len() =>
            {
                *count = count.saturating_add(change.count);
                *sum = sum.zip(change.sum).map(|(total, change)| total + change);
                for (total, change) in counts.iter_mut().zip(change.counts) {
                    *total = total.saturating_add(*change);
                }
            }
            (Self::Native(total), PointValue::Native(change)) => {
                if total.add(change).is_err() {
                    total.clone_from(change);
                    return Added::StartedOver;
                }
            }
            (_, new) => {
                *self = Self::of(new);
                return Added::StartedOver;
            }
        }
        Added::Continued
    }

    /// Makes it the value that ends a series, which still knows its buckets and quantiles.
    pub fn end(&mut self) {
        let stale = f64::from_bits(STALE_NAN_BITS);
        match self {
            Self::Number(value) => *value = stale,
            // Each of their series gets the marker because the point says that it ends them.
            Self::Histogram { .. } | Self::Summary { .. } => {}
            Self::Native(histogram) if histogram.schema == super::CUSTOM_BUCKETS => histogram.fill_stale_custom(stale),
            Self::Native(histogram) => histogram.fill_stale(stale),
        }
    }

    /// How much memory it takes outside of itself, roughly, in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Number(_) => 0,
            Self::Histogram { bounds, counts, .. } => (bounds.len() + counts.len()) * 8,
            Self::Native(histogram) => histogram.heap_bytes(),
            Self::Summary { quantiles, .. } => quantiles.len() * 16,
        }
    }
}
