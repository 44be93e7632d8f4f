//! Totals of deltas, and the ends of silent series, over many pushes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nyquist_core::proto::metrics::v1::{
    ExponentialHistogramDataPoint, Metric, MetricsData, exponential_histogram_data_point::Buckets, metric::Data,
};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::prometheus_mapping::tests::lines::Bench;
use crate::prometheus_mapping::{HashSeed, NativeHistogram, PointValue, STALE_NAN_BITS, Settings, Translator};
use crate::testing::*;

const STALE: Duration = Duration::from_secs(300);

fn accumulating() -> Bench {
    let mut bench = Bench::new(Settings { accept_delta: true, target_info: false, ..Settings::default() });
    bench.streams.accumulator = Some(Accumulator::new(1 << 20, STALE));
    bench
}

fn as_delta(mut metric: Metric) -> MetricsData {
    match &mut metric.data {
        Some(Data::Histogram(histogram)) => histogram.aggregation_temporality = DELTA,
        Some(Data::ExponentialHistogram(histogram)) => histogram.aggregation_temporality = DELTA,
        other => panic!("{other:?}"),
    }
    push(vec![metric])
}

#[test]
fn histograms_add_up_until_their_bounds_change() {
    let mut bench = accumulating();
    let h = |at: i64, bounds: &[f64], counts: &[u64]| {
        let mut point = histogram_point();
        (point.time_unix_nano, point.start_time_unix_nano) = (nanos(at), nanos(at - 10));
        (point.explicit_bounds, point.bucket_counts) = (bounds.to_vec(), counts.to_vec());
        point.count = counts.iter().sum();
        as_delta(histogram(point))
    };
    bench.lines(&h(T, &[0.5, 1.0], &[1, 2, 3]));
    let lines = bench.lines(&h(T + 10, &[0.5, 1.0], &[1, 0, 1]));
    let start = T - 10;
    for expected in
        ["le=\"0.5\"} 2@", "le=\"1\"} 4@", "le=\"+Inf\"} 8@", "h_seconds_sum{instance=\"i-1\",job=\"shop/cart\"} 18@"]
    {
        assert!(
            lines.iter().any(|line| line.contains(expected) && line.ends_with(&format!("start={start}"))),
            "{lines:#?}"
        );
    }
    let lines = bench.lines(&h(T + 20, &[0.7], &[1, 1]));
    assert!(
        lines.contains(&format!("h_seconds_count{{instance=\"i-1\",job=\"shop/cart\"}} 2@{} start={}", T + 20, T + 10)),
        "{lines:#?}"
    );
}

#[test]
fn a_stream_ends_when_told_and_when_idle() {
    let mut bench = accumulating();
    let d = |value: i64, at: i64, flags: u32| {
        let mut point = int(value, at);
        point.flags = flags;
        push(vec![sum("d", "", true, DELTA, vec![point])])
    };
    let value = |lines: &[String]| lines[0].split(' ').nth(1).unwrap().split('@').next().unwrap().to_owned();
    bench.lines(&d(5, T, 0));
    assert_eq!(value(&bench.lines(&d(0, T + 1, 1))), "stale");
    assert_eq!(value(&bench.lines(&d(2, T + 2, 0))), "2", "told to end: a new total");
    bench.now += STALE - Duration::from_secs(1);
    assert_eq!(value(&bench.lines(&d(2, T + 3, 0))), "4");
    bench.now += STALE;
    bench.lines(&push(vec![]));
    assert!(bench.streams.accumulator.as_ref().unwrap().is_empty());
    assert_eq!(bench.streams.accumulator.as_ref().unwrap().bytes(), 0);
    assert_eq!(value(&bench.lines(&d(2, T + 4, 0))), "2", "forgotten: a new total");
}

#[test]
fn what_began_before_the_total_is_refused() {
    let mut bench = accumulating();
    let d = |start: i64, at: i64| {
        let mut point = int(1, at);
        point.start_time_unix_nano = nanos(start);
        push(vec![sum("d", "", true, DELTA, vec![point])])
    };
    bench.lines(&d(T - 10, T));
    assert_eq!(bench.lines(&d(T - 20, T + 1)), [""; 0]);
    assert_eq!(bench.lost.points, [("out_of_order", "d_total".to_owned(), 1)]);
    assert_eq!(bench.lines(&d(T + 5, T + 10)).len(), 1, "a gap is no reset");
}

/// However many streams there are, the bytes stay below the limit, and the old ones go on.
#[test]
fn memory_is_bounded() {
    let mut bench = accumulating();
    bench.streams.accumulator = Some(Accumulator::new(100_000, STALE));
    let flood = |from: usize, at: i64| {
        let points = (from..from + 1000).map(|n| number(1.0, at, &[("n", &n.to_string())])).collect();
        push(vec![sum("d", "", true, DELTA, points)])
    };
    let admitted = bench.lines(&flood(0, T)).len();
    assert!((100..1000).contains(&admitted), "{admitted}");
    for batch in 1..20 {
        assert_eq!(bench.lines(&flood(batch * 1000, T)).len(), 0);
    }
    let accumulator = bench.streams.accumulator.as_ref().unwrap();
    assert!(accumulator.len() == admitted && accumulator.bytes() < 101_000);
    let refused: usize =
        bench.lost.points.iter().map(|(reason, _, points)| if *reason == "over_limit" { *points } else { 0 }).sum();
    assert_eq!(refused, 20_000 - admitted);
    assert_eq!(bench.lines(&flood(0, T + 1)).iter().filter(|line| line.contains(" 2@")).count(), admitted);
}

#[test]
fn silent_series_end() {
    let mut bench = Bench::new(Settings { target_info: false, ..Settings::default() });
    bench.streams.stale_tracker = Some(StaleTracker::new(1 << 20, STALE));
    let x = |at: i64| gauge("g", "", vec![number(1.0, at, &[])]);
    bench.lines(&push(vec![x(T + 5), histogram(histogram_point()), summary(), exponentials(exponential(3, 0, &[1]))]));
    bench.now += STALE - Duration::from_secs(1);
    assert_eq!(bench.lines(&push(vec![x(T + 6)])).len(), 1);
    bench.now += Duration::from_secs(1);
    let lines = bench.lines(&push(vec![]));
    let after = T + 1;
    let ends = |line: &str| line.contains(" stale@") || line.contains(" sum=stale ");
    assert_eq!(
        lines.len(),
        5 + 4 + 1,
        "each series of the histogram and the summary, and the native histogram: {lines:#?}"
    );
    assert!(lines.iter().all(|line| ends(line) && line.ends_with(&format!("@{after}"))), "{lines:#?}");
    bench.now += STALE;
    let lines = bench.lines(&push(vec![]));
    assert_eq!(
        lines,
        [format!("g{{instance=\"i-1\",job=\"shop/cart\"}} stale@{}", T + 7)],
        "later than its last point"
    );
    assert!(bench.streams.stale_tracker.as_ref().unwrap().is_empty());

    let mut told = number(0.0, T + 10, &[]);
    told.flags = 1;
    bench.lines(&push(vec![x(T + 9)]));
    bench.lines(&push(vec![gauge("g", "", vec![told])]));
    bench.now += STALE;
    assert_eq!(bench.lines(&push(vec![])), [""; 0], "what has ended is not ended again");
}

/// Series that there is no room to track are counted and named, point by point.
#[test]
fn untracked_series_are_known() {
    let mut bench = Bench::new(Settings { target_info: false, ..Settings::default() });
    bench.streams.stale_tracker = Some(StaleTracker::new(1, STALE));
    for (name, at) in [("g", T), ("h", T), ("h", T + 1), ("g", T + 1)] {
        bench.lines(&push(vec![gauge(name, "", vec![number(1.0, at, &[])])]));
    }
    let tracker = bench.streams.stale_tracker.as_mut().unwrap();
    let untracked = tracker.take_untracked().map(|(family, points)| (family.name.clone(), points));
    assert_eq!((untracked, tracker.len()), (Some(("h".to_owned(), 2)), 1));
    assert!(tracker.take_untracked().is_none());
}

/// Values as an exponential histogram of `scale` counts them.
fn observe(values: &[f64], scale: i32, at: i64) -> ExponentialHistogramDataPoint {
    let side = |sign: f64| {
        let mut counts = BTreeMap::<i32, u64>::new();
        for value in values.iter().map(|value| value * sign).filter(|value| *value > 0.0) {
            *counts.entry((value.log2() * f64::from(scale).exp2()).ceil() as i32 - 1).or_default() += 1;
        }
        let first = counts.keys().next().copied().unwrap_or_default();
        let last = counts.keys().last().copied().unwrap_or(first - 1);
        let bucket_counts = (first..=last).map(|index| counts.get(&index).copied().unwrap_or_default()).collect();
        Some(Buckets { offset: first, bucket_counts })
    };
    ExponentialHistogramDataPoint {
        time_unix_nano: nanos(at),
        scale,
        count: values.len() as u64,
        sum: Some(values.iter().sum()),
        zero_count: values.iter().filter(|value| **value == 0.0).count() as u64,
        positive: side(1.0),
        negative: side(-1.0),
        ..Default::default()
    }
}

#[derive(Default)]
struct Last(Option<NativeHistogram>);

impl Sink for Last {
    fn point(&mut self, point: &Point<'_>) {
        if let PointValue::Native(histogram) = point.value {
            self.0 = Some(histogram.clone());
        }
    }
    fn dropped(&mut self, reason: Untranslatable, _: &[u8], _: usize) {
        panic!("dropped: {reason:?}");
    }
}

proptest! {
    /// The total of many deltas, each at a scale of its own, has every observation in the bucket in
    /// which a histogram of the total's resolution would have counted it.
    #[test]
    fn exponential_totals_are_those_of_all_observations(
        pushes in prop::collection::vec((-2..12i32, prop::collection::vec(
            prop_oneof![Just(0.0), -1e3..1e3f64, 1e-3..1.0f64], 1..20)), 1..8),
    ) {
        let settings = Arc::new(Settings { accept_delta: true, ..Settings::default() });
        let mut translator = Translator::new(settings, HashSeed::default());
        let mut streams = Streams { accumulator: Some(Accumulator::new(1 << 20, STALE)), stale_tracker: None };
        let mut last = Last::default();
        for (index, (scale, values)) in pushes.iter().enumerate() {
            let metric = as_delta(exponentials(observe(values, *scale, T + index as i64)));
            translator.translate(&metric.encode_to_vec(), &mut streams.sink(&mut last, Duration::ZERO));
        }
        let total = last.0.unwrap();
        let all: Vec<f64> = pushes.iter().flat_map(|(_, values)| values.clone()).collect();
        prop_assert_eq!(total.count, all.len() as u64);
        prop_assert_eq!(total.zero_count, all.iter().filter(|value| **value == 0.0).count() as u64);
        for (spans, sign) in [(&total.positive, 1.0), (&total.negative, -1.0)] {
            let mut expected = BTreeMap::<i32, u64>::new();
            for value in all.iter().map(|value| value * sign).filter(|value| *value > 0.0) {
                // At the pushed scale first, as it was counted, then coarser: rounding at a boundary
                // must not differ.
                let number = (value.log2() * f64::from(total.schema).exp2()).ceil() as i32;
                *expected.entry(number).or_default() += 1;
            }
            let got: BTreeMap<i32, u64> = spans.buckets().collect();
            prop_assert!(got.len() <= 160);
            prop_assert_eq!(got, expected);
        }
    }
}

#[test]
fn the_wider_zero_bucket_swallows_what_it_covers() {
    let mut bench = accumulating();
    let e = |at: i64, threshold: f64, zero: u64, offset: i32, counts: &[u64]| {
        let mut point = exponential(0, offset, counts);
        (point.time_unix_nano, point.zero_threshold, point.zero_count) = (nanos(at), threshold, zero);
        point.count += zero;
        as_delta(exponentials(point))
    };
    // Buckets (0.25, 0.5], (0.5, 1], (1, 2].
    bench.lines(&e(T, 0.0, 1, -2, &[2, 4, 8]));
    let lines = bench.lines(&e(T + 1, 0.75, 16, 0, &[32]));
    assert_eq!(
        lines,
        [format!("e{{instance=\"i-1\",job=\"shop/cart\"}} schema=0 zt=1e0 zero=23 count=63 sum=18 {{1:40}}@{}", T + 1)]
    );
}

/// Scenario: deltas that are NaN or infinite, and histograms with such sums, at first or later. Guarantee: what cannot be
/// added is left out and counted, and the total is that of all others.
#[test]
fn what_is_no_number_spoils_no_total() {
    for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for values in [[odd, 5.0, 2.0], [5.0, odd, 2.0]] {
            let mut bench = accumulating();
            let mut last = Vec::new();
            for (at, value) in (T..).zip(values) {
                let mut classic = histogram_point();
                let mut native = exponential(0, 0, &[1]);
                (classic.time_unix_nano, classic.sum) = (nanos(at), Some(value));
                (native.time_unix_nano, native.sum) = (nanos(at), Some(value));
                if value.is_nan() {
                    // The value that is NaN is in no bucket.
                    native.count += 1;
                }
                let mut push = push(vec![sum("d", "", true, DELTA, vec![number(value, at, &[])])]);
                for histogram in [as_delta(histogram(classic)), as_delta(exponentials(native))] {
                    push.resource_metrics.extend(histogram.resource_metrics);
                }
                last = bench.lines(&push);
            }
            for expected in
                ["d_total{%B} 7@", "h_seconds_sum{%B} 7@", "h_seconds_count{%B} 18@", " count=3 sum=7 {1:3}"]
            {
                let expected = expected.replace("%B", r#"instance="i-1",job="shop/cart""#);
                assert!(last.iter().any(|line| line.contains(&expected)), "{values:?}: {expected} in {last:#?}");
            }
            assert_eq!(bench.lost.points, [("value", "d_total".to_owned(), 1)], "{values:?}");
        }
    }
}

/// A counter goes on beyond what a double tells apart from its successor, and fractions do not drift.
#[test]
fn totals_lose_nothing_to_rounding() {
    let cases: [(f64, f64, usize, &str); 3] = [
        (9_007_199_254_740_992.0, 1.0, 4, "9007199254740996"),
        (0.1, 0.1, 9, "1"),
        (f64::MAX, 1.0, 3, "179769313486231570000"),
    ];
    for (first, step, steps, expected) in cases {
        let mut bench = accumulating();
        let d = |value: f64, at: i64| push(vec![sum("d", "", true, DELTA, vec![number(value, at, &[])])]);
        let mut last = bench.lines(&d(first, T));
        for index in 0..steps {
            last = bench.lines(&d(step, T + 1 + index as i64));
        }
        let value = last[0].split(' ').nth(1).unwrap().split('@').next().unwrap();
        assert!(value == expected || value.starts_with(expected) && first == f64::MAX, "{value}, not {expected}");
    }
}

/// Scenario: other bounds, in a delta that does not say when it began. Guarantee: the new total begins where the old one
/// ended, as in `delta_to_cumulative`.
#[test]
fn a_total_that_begins_anew_begins_after_the_last() {
    let mut bench = accumulating();
    let h = |at: i64, bounds: &[f64]| {
        let mut point = histogram_point();
        (point.time_unix_nano, point.explicit_bounds) = (nanos(at), bounds.to_vec());
        as_delta(histogram(point))
    };
    bench.lines(&h(T, &[0.5, 1.0]));
    let lines = bench.lines(&h(T + 10, &[0.7, 1.0]));
    assert!(lines.len() == 5 && lines.iter().all(|line| line.ends_with(&format!(" start={T}"))), "{lines:#?}");
}

#[test]
fn stale_markers_keep_their_bits() {
    let mut value = crate::prometheus_mapping::OwnedValue::Number { value: 1.0, rest: 0.0 };
    value.end();
    let PointValue::Number(number) = value.view() else { panic!() };
    assert_eq!(number.to_bits(), STALE_NAN_BITS);
}
