//! Classic histograms as native ones with custom buckets (schema -53), which remote write 2.0 has.
//!
//! `custom_values` are the bounds without `+Inf`; spans index into them, and the bucket above the
//! last bound is the one behind them.

use crate::prometheus_mapping::{Histogram, NativeHistogram};

/// The schema that says so.
const CUSTOM_BUCKETS: i32 = -53;

/// How histograms with explicit bounds are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As classic ones.
    Classic,
    /// As native ones with custom buckets.
    Native,
    /// As both.
    Both,
}

/// A histogram with custom buckets; `None` if it has no equivalent: its sum is not known, or its
/// bounds are not finite and rising.
pub(super) fn convert<'a>(histogram: &Histogram<'a>, native: &mut NativeHistogram) -> Option<&'a [f64]> {
    let sum = histogram.sum?;
    let bounds = match histogram.bounds.split_last() {
        Some((&f64::INFINITY, finite)) => finite,
        _ => histogram.bounds,
    };
    let is_valid = bounds.iter().all(|bound| bound.is_finite()) && bounds.is_sorted_by(|left, right| left < right);
    if !is_valid {
        return None;
    }
    let own = histogram.counts.get(..bounds.len().min(histogram.counts.len())).unwrap_or_default();
    let above = histogram.counts.get(own.len()..).unwrap_or_default();
    let below_last = own.iter().fold(0u64, |sum, &count| sum.saturating_add(count));
    let counted = above.iter().fold(0u64, |sum, &count| sum.saturating_add(count));
    // What no bucket holds is above the last bound, as in the classic form.
    let above = counted.max(histogram.count.saturating_sub(below_last));
    native.schema = CUSTOM_BUCKETS;
    (native.zero_threshold, native.zero_count) = (0.0, 0);
    (native.count, native.sum) = (below_last.saturating_add(above), sum);
    native.negative.spans.clear();
    native.negative.deltas.clear();
    let (spans, deltas) = (&mut native.positive.spans, &mut native.positive.deltas);
    spans.clear();
    deltas.clear();
    let buckets = own.iter().copied().enumerate().chain([(bounds.len(), above)]);
    let (mut end, mut last) = (0, 0i64);
    for (index, count) in buckets.filter(|(_, count)| *count > 0) {
        match spans.last_mut() {
            Some(span) if index == end => span.1 += 1,
            _ => spans.push((i32::try_from(index - end).ok()?, 1)),
        }
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        deltas.push(count - last);
        (end, last) = (index + 1, count);
    }
    Some(bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(bounds: &'a [f64], counts: &'a [u64], count: u64) -> Histogram<'a> {
        Histogram { count, sum: Some(1.0), bounds, counts }
    }

    #[test]
    fn buckets_keep_their_places() {
        let mut native = NativeHistogram::default();
        let bounds = [-2.0, -1.0, 0.0, 1.0, 2.0];
        // The example of OpenTelemetry's compatibility specification.
        assert_eq!(convert(&of(&bounds, &[10, 0, 0, 20, 5, 2], 37), &mut native), Some(&bounds[..]));
        assert_eq!(native.positive.spans, [(0, 1), (2, 3)]);
        assert_eq!(native.positive.deltas, [10, 10, -15, -3]);
        assert_eq!((native.schema, native.count), (-53, 37));
        // An explicit +Inf is the overflow bucket; so is what no bucket holds.
        assert_eq!(convert(&of(&[1.0, f64::INFINITY], &[1, 2, 0], 5), &mut native), Some(&[1.0][..]));
        assert_eq!((&native.positive.spans[..], &native.positive.deltas[..]), (&[(0, 2)][..], &[1, 3][..]));
        assert_eq!(native.count, 5);
        assert_eq!(convert(&of(&[], &[], 4), &mut native), Some(&[][..]));
        assert_eq!((&native.positive.spans[..], native.count), (&[(0, 1)][..], 4));
    }

    #[test]
    fn what_has_no_equivalent_stays_classic() {
        let mut native = NativeHistogram::default();
        for bounds in [[1.0, 1.0], [2.0, 1.0], [f64::NAN, 1.0], [f64::INFINITY, 1.0], [1.0, f64::NEG_INFINITY]] {
            assert_eq!(convert(&of(&bounds, &[1, 2, 3], 6), &mut native), None, "{bounds:?}");
        }
        assert_eq!(convert(&Histogram { sum: None, ..of(&[1.0], &[1, 2], 3) }, &mut native), None);
    }
}
