//! Senders whose clocks are too fast.

use nyquist_core::proto::metrics::v1::{Histogram, HistogramDataPoint};

use super::*;

/// What a clock that is far too fast says.
const FAR: u64 = u64::MAX;

fn metric_called(name: &str, data: Data) -> MetricsData {
    let mut data = request(data);
    name.clone_into(&mut data.resource_metrics[0].scope_metrics[0].metrics[0].name);
    data
}

/// Cumulative ones with one bucket, which has the values' counts.
fn histogram(points: Vec<NumberDataPoint>) -> Data {
    let one = |point: NumberDataPoint| HistogramDataPoint {
        count: number(&point) as u64,
        bucket_counts: vec![number(&point) as u64],
        attributes: point.attributes,
        start_time_unix_nano: point.start_time_unix_nano,
        time_unix_nano: point.time_unix_nano,
        ..HistogramDataPoint::default()
    };
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    Data::Histogram(Histogram { data_points: points.into_iter().map(one).collect(), aggregation_temporality })
}

/// Checks that all reports of collapsed series are of now, or a minute later at the most; returns them.
fn collapsed(bench: &Bench, points: &[Point]) -> Vec<Point> {
    let others: Vec<Point> = points.iter().filter(|point| point.attributes == "u=other").cloned().collect();
    let latest = bench.clock.unix_nanos() + 61 * SECOND;
    for point in &others {
        assert!(point.start <= point.time && point.time <= latest, "{point:?}, and it is {latest}");
    }
    others
}

/// Guarantee: one sender whose clock says the end of time moves no report of a series that it shares with others
/// there: not while it lasts, nor when it comes back, nor those of metrics that come later.
#[tokio::test]
async fn one_clock_that_is_far_too_fast_moves_nobody_elses_points() {
    for (kind, make) in [
        ("cumulative", cumulative as fn(Vec<NumberDataPoint>) -> Data),
        ("delta", delta),
        ("gauge", gauge),
        ("up_down", up_down),
        ("histogram", histogram),
    ] {
        let bench = Bench::new("{rules: [{metrics: ['*'], labels: {u: 2}}], idle_ttl: 160s}");
        bench.step(&request(make(users(&[("a", 1), ("b", 2)], at(0))))).await;
        // The one that makes the series, and begins just before.
        let fast = NumberDataPoint { start_time_unix_nano: FAR - 1, ..point("u=fast", 3, FAR) };
        bench.send(&request(make(vec![fast]))).await;
        let mut reports = Vec::new();
        for export in 1..=12 {
            let points = vec![point("u=c", export, at(export as u64)), point("u=fast", export, FAR)];
            let step = bench.step(&request(make(points))).await;
            reports.extend(collapsed(&bench, &step));
            bench.pass_time(10);
        }
        assert!(reports.len() > 1, "{kind}: {reports:?}");
        // The series ends; who has the name next comes after it.
        for _ in 0..20 {
            bench.pass_time(20);
            bench.limiter.flush(false).await;
            collapsed(&bench, &bench.emitted());
        }
        let now = bench.clock.unix_nanos();
        let users = users(&[("a", 1), ("b", 1), ("c", 50), ("d", 50)], now);
        let again = bench.step(&request(make(users.clone()))).await;
        assert_eq!(collapsed(&bench, &again).len(), 1, "{kind}: {again:?}");
        // All of the metric is forgotten.
        for _ in 0..50 {
            bench.pass_time(20);
            bench.limiter.flush(false).await;
            collapsed(&bench, &bench.emitted());
        }
        let now = bench.clock.unix_nanos();
        let users: Vec<_> = users.into_iter().map(|point| NumberDataPoint { time_unix_nano: now, ..point }).collect();
        let other = bench.step(&metric_called("another", make(users))).await;
        assert_eq!(collapsed(&bench, &other).len(), 1, "{kind}: {other:?}");
    }
}

/// Guarantee: a gauge shows its newest value again once it is later than what a clock may be wrong by.
#[tokio::test]
async fn a_gauge_does_not_stay_at_what_a_fast_clock_has_said() {
    let bench = Bench::new("{rules: [{metrics: [c], labels: {u: 0}}]}");
    let step = bench.step(&request(gauge(vec![point("u=fast", 7, FAR)]))).await;
    assert_eq!(values(&step), map(&[("u=other", 7.0)]));
    bench.pass_time(70);
    let step = bench.step(&request(gauge(vec![point("u=c", 3, bench.clock.unix_nanos())]))).await;
    assert_eq!(values(&step), map(&[("u=other", 3.0)]));
}

/// A stream of a sender whose clock is `skew` seconds fast, reported one second after it has begun.
fn skewed(bench: &Bench, skew: u64) -> NumberDataPoint {
    let time = bench.clock.unix_nanos() + skew * SECOND;
    NumberDataPoint { start_time_unix_nano: time - SECOND, ..point("u=fast", 100, time) }
}

/// Guarantee: that streams of a fast clock are forgotten, and the filter of the forgotten ones has lost them, makes no
/// old acquaintances of all others; nor does it make new ones of them.
#[tokio::test]
async fn what_is_forgotten_of_a_fast_clock_tells_nothing_of_others() {
    for skew in [120, 200 * 365 * 24 * 3600] {
        let bench = Bench::new("{rules: [{metrics: [c], labels: {u: 0}}], memory_limit_mib: 1}");
        bench.pass_time(10);
        let fast = skewed(&bench, skew);
        let step = bench.step(&request(cumulative(vec![fast.clone()]))).await;
        assert_eq!(values(&step), map(&[("u=other", 0.0)]), "its start is not believed: a baseline");
        let ends = end("u=fast", fast.time_unix_nano + 1);
        bench.step(&request(cumulative(vec![ends]))).await;
        // More than the filter holds.
        let shared = &bench.limiter.shared;
        shared.forget_lives((1..100_000u64).map(|life| (life.wrapping_mul(0x9e37_79b9_7f4a_7c15), START)));

        bench.pass_time(100);
        let now = bench.clock.unix_nanos();
        let new = |labels| NumberDataPoint { start_time_unix_nano: now - SECOND, ..point(labels, 5, now) };
        let step = bench.step(&request(cumulative(vec![new("u=c")]))).await;
        assert_eq!(values(&step), map(&[("u=other", 5.0)]), "skew {skew}: a new stream counts in full");
        bench.send(&metric_called("another", cumulative(vec![new("u=c")]))).await;
        assert_eq!(values(&bench.emitted()), map(&[("u=c", 5.0)]), "skew {skew}: it passes as itself");
        // By now its start would be believed, if the clock it is from were.
        let fast = NumberDataPoint { time_unix_nano: now.saturating_add(skew * SECOND), ..fast };
        let step = bench.step(&request(cumulative(vec![fast]))).await;
        assert_eq!(values(&step), map(&[("u=other", 5.0)]), "skew {skew}: nothing is counted twice");
    }
}
