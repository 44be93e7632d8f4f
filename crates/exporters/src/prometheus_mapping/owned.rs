//! Values that outlive their points, and add up.

use std::sync::Arc;

use super::native::NativeHistogram;
use super::points::{Histogram, Summary};
use super::{PointValue, STALE_NAN_BITS};

/// The value of a point, kept.
#[derive(Debug, Clone, PartialEq)]
pub enum OwnedValue {
    /// Of a gauge or sum.
    Number {
        /// It.
        value: f64,
        /// What rounding has left out of a total: it is carried along until it counts.
        rest: f64,
    },
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

/// `value` and `rest`, which belong together, and `change`: as a double, and what rounding has left out of it. A
/// counter beyond 2^53 would stand still without it (Neumaier 1974).
fn sum(value: f64, rest: f64, change: f64) -> (f64, f64) {
    let exact = |left: f64, right: f64| {
        let sum = left + right;
        let (large, small) = if left.abs() >= right.abs() { (left, right) } else { (right, left) };
        (sum, (large - sum) + small)
    };
    let (sum, lost) = exact(value, change);
    let (sum, rest) = exact(sum, rest + lost);
    if rest.is_finite() { (sum, rest) } else { (value + change, 0.0) }
}

impl OwnedValue {
    /// `value`, kept.
    #[must_use]
    pub fn of(value: &PointValue<'_>) -> Self {
        match *value {
            PointValue::Number(value) => Self::Number { value, rest: 0.0 },
            PointValue::Histogram(Histogram { count, sum, bounds, counts }) => {
                Self::Histogram { count, sum, bounds: bounds.into(), counts: counts.to_vec() }
            }
            PointValue::Native(histogram) => Self::Native(histogram.clone()),
            PointValue::Summary(Summary { count, sum, quantiles }) => {
                Self::Summary { count, sum, quantiles: quantiles.to_vec() }
            }
        }
    }

    /// A total that begins with the delta `value`.
    #[must_use]
    pub fn total_of(value: &PointValue<'_>) -> Self {
        let mut total = Self::of(value);
        match &mut total {
            // A sum that is NaN or infinite would spoil the total for ever.
            Self::Histogram { sum: Some(sum), .. } if !sum.is_finite() => *sum = 0.0,
            Self::Native(histogram) => histogram.begin_total(),
            _ => {}
        }
        total
    }

    /// The value of a point.
    #[must_use]
    pub fn view(&self) -> PointValue<'_> {
        match self {
            Self::Number { value, .. } => PointValue::Number(*value),
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
            (Self::Number { .. }, PointValue::Number(_))
                | (Self::Histogram { .. }, PointValue::Histogram(_))
                | (Self::Native(_), PointValue::Native(_))
                | (Self::Summary { .. }, PointValue::Summary(_))
        )
    }

    /// Replaces the value, re-using what can be.
    pub fn set(&mut self, value: &PointValue<'_>) {
        match (&mut *self, value) {
            (Self::Number { value, rest }, PointValue::Number(new)) => (*value, *rest) = (*new, 0.0),
            (Self::Histogram { count, sum, bounds, counts }, PointValue::Histogram(new)) if **bounds == *new.bounds => {
                (*count, *sum) = (new.count, new.sum);
                counts.clear();
                counts.extend_from_slice(new.counts);
            }
            (Self::Native(old), PointValue::Native(new)) => old.clone_from(new),
            (_, new) => *self = Self::of(new),
        }
    }

    /// Adds a delta. Where that is not possible the value starts over with it. Sums of histograms that are NaN or
    /// infinite are left out; numbers are to be asked about with [`PointValue::is_countable`] before.
    pub fn add(&mut self, value: &PointValue<'_>) -> Added {
        match (&mut *self, value) {
            (Self::Number { value, rest }, PointValue::Number(change)) => (*value, *rest) = sum(*value, *rest, *change),
            (Self::Histogram { count, sum, bounds, counts }, PointValue::Histogram(change))
                if **bounds == *change.bounds && counts.len() == change.counts.len() =>
            {
                *count = count.saturating_add(change.count);
                *sum = sum.zip(change.sum).map(|(sum, change)| if change.is_finite() { sum + change } else { sum });
                for (total, change) in counts.iter_mut().zip(change.counts) {
                    *total = total.saturating_add(*change);
                }
            }
            (Self::Native(total), PointValue::Native(change)) => {
                if total.add(change).is_err() {
                    *self = Self::total_of(value);
                    return Added::StartedOver;
                }
            }
            (_, new) => {
                *self = Self::total_of(new);
                return Added::StartedOver;
            }
        }
        Added::Continued
    }

    /// Makes it the value that ends a series, which still knows its buckets and quantiles.
    pub fn end(&mut self) {
        let stale = f64::from_bits(STALE_NAN_BITS);
        match self {
            Self::Number { value, .. } => *value = stale,
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
            Self::Number { .. } => 0,
            Self::Histogram { bounds, counts, .. } => (bounds.len() + counts.len()) * 8,
            Self::Native(histogram) => histogram.heap_bytes(),
            Self::Summary { quantiles, .. } => quantiles.len() * 16,
        }
    }
}
