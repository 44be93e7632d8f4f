//! Histograms of all kinds, added up.

use std::sync::Arc;

use nyquist_core::wire::{HistogramDataPointView, SummaryDataPointView};

use super::exponential::Exponential;

/// More bounds than this are not kept: such a histogram counts as one without buckets.
const MAX_BOUNDS: usize = 1024;

/// Count, sum and buckets: of an explicit or exponential histogram, or (without buckets) of a
/// summary.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Distribution {
    Explicit(Explicit),
    Exponential(Exponential),
}

/// What has come between two reports of a cumulative stream.
pub(crate) enum Growth {
    /// This much.
    By(Distribution),
    /// The stream has begun anew: everything in the later report.
    Reset,
    /// It cannot be told: the two do not fit together.
    Unclear,
}

impl Distribution {
    /// What has come since `last`.
    pub(crate) fn since(&self, last: &Self) -> Growth {
        match (self, last) {
            (Self::Explicit(now), Self::Explicit(last)) => now.since(last),
            (Self::Exponential(now), Self::Exponential(last)) => now.since(last),
            _ => Growth::Unclear,
        }
    }

    /// Adds `other`, or hands it back if the bounds do not fit.
    pub(crate) fn add(&mut self, other: Self) -> Result<(), Self> {
        match (self, other) {
            (Self::Explicit(own), Self::Explicit(other)) => own.add(other).map_err(Self::Explicit),
            (Self::Exponential(own), Self::Exponential(other)) => {
                own.add(other);
                Ok(())
            }
            (_, other) => Err(other),
        }
    }

    /// Adds `other` on the bounds that both have.
    pub(crate) fn add_coarsely(&mut self, other: Self) {
        if let (Self::Explicit(own), Self::Explicit(mut other)) = (self, other) {
            let common: Arc<[f64]> = own.bounds.iter().copied().filter(|bound| other.bounds.contains(bound)).collect();
            own.fold(&common);
            other.fold(&common);
            let _ = own.add(other);
        }
    }

    /// The same shape with nothing in it.
    pub(crate) fn zeroed(&self) -> Self {
        match self {
            Self::Explicit(own) => Self::Explicit(Explicit {
                bounds: Arc::clone(&own.bounds),
                buckets: vec![0; own.buckets.len()],
                count: 0,
                sum: own.sum.map(|_| 0.0),
                min: None,
                max: None,
            }),
            Self::Exponential(own) => Self::Exponential(Exponential {
                scale: own.scale,
                zero_threshold: own.zero_threshold,
                zero_count: 0,
                positive: Default::default(),
                negative: Default::default(),
                count: 0,
                sum: own.sum.map(|_| 0.0),
                min: None,
                max: None,
            }),
        }
    }

    /// The sum of its values, if known.
    pub(crate) fn sum(&self) -> Option<f64> {
        match self {
            Self::Explicit(own) => own.sum,
            Self::Exponential(own) => own.sum,
        }
    }

    fn sum_mut(&mut self) -> &mut Option<f64> {
        match self {
            Self::Explicit(own) => &mut own.sum,
            Self::Exponential(own) => &mut own.sum,
        }
    }

    /// Makes it the first of a total. A sum that is NaN or infinite would spoil it for ever: it does not count.
    pub(crate) fn begin_total(&mut self) {
        if let Self::Exponential(own) = self {
            own.count = own.countable();
        }
        self.become_baseline(Some(0.0));
    }

    /// Makes it what the next report of its stream is compared with. From a sum that is NaN or infinite nothing
    /// could be subtracted: `counted`, what has been counted of the stream since its start, takes its place.
    pub(crate) fn become_baseline(&mut self, counted: Option<f64>) {
        if let (Some(sum), Some(counted)) = (self.sum_mut(), counted)
            && !sum.is_finite()
        {
            *sum = counted;
        }
    }

    /// Minimum and maximum say nothing of a part of a cumulative stream.
    pub(crate) fn forget_extremes(&mut self) {
        let (min, max) = self.extremes_mut();
        (*min, *max) = (None, None);
    }

    /// Minimum and maximum are those of `whole`, of which this is the part that is new.
    pub(crate) fn take_extremes(&mut self, whole: &Self) {
        let (least, most) = match whole {
            Self::Explicit(whole) => (whole.min, whole.max),
            Self::Exponential(whole) => (whole.min, whole.max),
        };
        let (min, max) = self.extremes_mut();
        (*min, *max) = (least, most);
    }

    fn extremes_mut(&mut self) -> (&mut Option<f64>, &mut Option<f64>) {
        match self {
            Self::Explicit(own) => (&mut own.min, &mut own.max),
            Self::Exponential(own) => (&mut own.min, &mut own.max),
        }
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Explicit(own) => own.buckets.capacity() * 8 + own.bounds.len() * 8 + 16,
            Self::Exponential(own) => own.bytes(),
        }
    }
}

/// A histogram with explicit bounds. Without bounds it has one bucket.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Explicit {
    pub(crate) bounds: Arc<[f64]>,
    pub(crate) buckets: Vec<u64>,
    pub(crate) count: u64,
    pub(crate) sum: Option<f64>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
}

impl Explicit {
    /// Reads a histogram point. Buckets that do not fit the bounds are left out.
    pub(crate) fn new(point: HistogramDataPointView<'_>) -> Self {
        let fields = point.fields();
        let mut bounds: Vec<f64> = point.explicit_bounds().take(MAX_BOUNDS + 1).collect();
        let mut buckets: Vec<u64> = point.bucket_counts().take(MAX_BOUNDS + 2).collect();
        let ascending = bounds.windows(2).all(|pair| matches!(pair, [low, high] if low < high));
        if !ascending || bounds.len() > MAX_BOUNDS || buckets.len() != bounds.len() + 1 {
            bounds.clear();
            buckets = vec![fields.count];
        }
        let (count, sum) = (fields.count, fields.sum);
        Self { bounds: bounds.into(), buckets, count, sum, min: fields.min, max: fields.max }
    }

    /// Reads count and sum of a summary; its quantiles cannot be added up.
    pub(crate) fn from_summary(point: SummaryDataPointView<'_>) -> Self {
        let fields = point.fields();
        let buckets = vec![fields.count];
        Self { bounds: [].into(), buckets, count: fields.count, sum: Some(fields.sum), min: None, max: None }
    }

    fn since(&self, last: &Self) -> Growth {
        if self.bounds != last.bounds {
            return Growth::Unclear;
        }
        let mut buckets = Vec::with_capacity(self.buckets.len());
        for (now, last) in self.buckets.iter().zip(&last.buckets) {
            let Some(growth) = now.checked_sub(*last) else { return Growth::Reset };
            buckets.push(growth);
        }
        let Some(count) = self.count.checked_sub(last.count) else { return Growth::Reset };
        let sum = self.sum.zip(last.sum).map(|(now, last)| now - last);
        let bounds = Arc::clone(&self.bounds);
        Growth::By(Distribution::Explicit(Self { bounds, buckets, count, sum, min: None, max: None }))
    }

    fn add(&mut self, mut other: Self) -> Result<(), Self> {
        if self.bounds != other.bounds {
            if contains(&other.bounds, &self.bounds) {
                other.fold(&self.bounds);
            } else if contains(&self.bounds, &other.bounds) {
                self.fold(&other.bounds);
            } else {
                return Err(other);
            }
        }
        for (own, other) in self.buckets.iter_mut().zip(&other.buckets) {
            *own = own.saturating_add(*other);
        }
        self.count = self.count.saturating_add(other.count);
        self.sum = added(self.sum, other.sum);
        self.min = self.min.zip(other.min).map(|(own, other)| own.min(other));
        self.max = self.max.zip(other.max).map(|(own, other)| own.max(other));
        Ok(())
    }

    /// Adds buckets up until only `bounds`, a part of its own, are left.
    fn fold(&mut self, bounds: &Arc<[f64]>) {
        if self.bounds == *bounds {
            return;
        }
        let mut folded = Vec::with_capacity(bounds.len() + 1);
        let mut wanted = bounds.iter();
        let mut next = wanted.next();
        let mut sum = 0u64;
        for (index, count) in self.buckets.iter().enumerate() {
            sum = sum.saturating_add(*count);
            let bound = self.bounds.get(index);
            if bound.is_some() && bound == next {
                folded.push(sum);
                sum = 0;
                next = wanted.next();
            }
        }
        folded.push(sum);
        self.buckets = folded;
        self.bounds = Arc::clone(bounds);
    }
}

/// Two sums in one. NaN and infinities, which would stay for ever, do not count.
pub(super) fn added(own: Option<f64>, other: Option<f64>) -> Option<f64> {
    own.zip(other).map(|(own, other)| if other.is_finite() { own + other } else { own })
}

/// Are the (ascending) bounds `coarse` all in `fine`? No bounds at all are not a coarser set: one
/// histogram without buckets must not take the buckets from all others.
fn contains(fine: &[f64], coarse: &[f64]) -> bool {
    !coarse.is_empty() && coarse.iter().all(|bound| fine.contains(bound))
}
