//! Differences.

use std::time::Duration;

use nyquist_core::batch::DropReason;
use nyquist_core::component::{Component, ProcessorContext};
use nyquist_core::telemetry::{Entry, Telemetry};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;

use super::*;
use crate::streams::testing::*;
use crate::test_util::{self, Sink, errors};

fn rig(yaml: &str) -> Rig {
    Rig::new::<CumulativeToDeltaConfig>(yaml)
}

fn dropped(rig: &Rig, reason: &str) -> u64 {
    rig.telemetry.sum("otelcol_cumulativetodelta_datapoints_dropped", &[("reason", reason)])
}

/// The rules for one stream, a line a point: start, time and total, and what comes out.
#[tokio::test]
async fn sums() {
    type Line = (u64, u64, i64, Option<(u64, u64, f64)>);
    let cases: &[(&str, &[Line])] = &[
        ("differences follow one another", &[(1, 2, 5, Some((1, 2, 5.0))), (1, 3, 7, Some((2, 3, 2.0)))]),
        ("nothing new is nothing", &[(1, 2, 5, Some((1, 2, 5.0))), (1, 3, 5, Some((2, 3, 0.0)))]),
        ("a new start is a reset", &[(1, 2, 5, Some((1, 2, 5.0))), (4, 5, 9, Some((4, 5, 9.0)))]),
        ("a fall is a reset too", &[(1, 2, 5, Some((1, 2, 5.0))), (1, 3, 2, Some((2, 3, 2.0)))]),
        ("what came before is dropped", &[(1, 4, 5, Some((1, 4, 5.0))), (1, 3, 4, None), (1, 4, 5, None)]),
        ("a start that is not known may be older", &[(0, 2, 5, None), (0, 3, 7, Some((2, 3, 2.0)))]),
        ("a start at the first point too", &[(2, 2, 5, None), (2, 3, 7, Some((2, 3, 2.0)))]),
    ];
    for (name, lines) in cases {
        let rig = rig("{}");
        for (start, time, value, expected) in *lines {
            let found = read(rig.number(CUMULATIVE, int(*start, *time, *value)).await);
            assert_eq!(found, *expected, "{name}: at {time}");
        }
    }
}

/// What the first point gives: by default nothing if the stream is older than the processor.
#[tokio::test]
async fn initial_values() {
    let older = || {
        let mut point = int(1, 2, 5);
        point.start_time_unix_nano = SECOND;
        point
    };
    for (setting, of_older, of_newer) in [("auto", false, true), ("keep", true, true), ("drop", false, false)] {
        for (point, counts) in [(older(), of_older), (int(1, 2, 5), of_newer)] {
            let rig = rig(&format!("initial_value: {setting}"));
            let first = rig.number(CUMULATIVE, point).await;
            assert_eq!(first.is_some(), counts, "{setting}");
            let (left_out, told) = (u64::from(!counts), rig.ledger.count(Entry::Filtered));
            assert_eq!((dropped(&rig, "initial"), told), (left_out, left_out), "{setting}");
            let next = rig.number(CUMULATIVE, int(0, 3, 7)).await;
            assert_eq!(read(next), Some((2, 3, 2.0)), "{setting}");
        }
    }
}

/// Histograms of both kinds: bucket by bucket; a fall is a reset; other buckets give nothing once. Minimum
/// and maximum of a total say nothing of a part of it.
#[tokio::test]
async fn histograms() {
    let rig = rig("{}");
    let mut first = buckets(1, 2, &[1, 2, 0]);
    (first.min, first.max) = (Some(0.5), Some(1.5));
    assert_eq!(rig.histogram(CUMULATIVE, first.clone()).await, Some(first.clone()));
    let mut second = buckets(1, 3, &[1, 3, 3]);
    (second.min, second.max) = (Some(0.5), Some(9.0));
    let part = rig.histogram(CUMULATIVE, second).await.unwrap();
    assert_eq!((part.bucket_counts.as_slice(), part.count, part.sum), (&[0, 1, 3][..], 4, Some(7.0)));
    assert_eq!((part.min, part.max, since(part.start_time_unix_nano)), (None, None, 2));
    let reset = rig.histogram(CUMULATIVE, buckets(1, 4, &[1, 0, 0])).await.unwrap();
    assert_eq!((reset.bucket_counts.as_slice(), since(reset.start_time_unix_nano)), (&[1, 0, 0][..], 3));
    assert_eq!(rig.histogram(CUMULATIVE, buckets(1, 5, &[5, 5])).await, None);
    assert_eq!(dropped(&rig, "bucket_mismatch"), 1);
    let part = rig.histogram(CUMULATIVE, buckets(1, 6, &[6, 5])).await.unwrap();
    assert_eq!(part.bucket_counts, [1, 0]);

    rig.exponential(CUMULATIVE, powers(1, 2, 1, 0, &[1, 2, 3, 4])).await.unwrap();
    let part = rig.exponential(CUMULATIVE, powers(1, 3, 0, 0, &[13, 7, 20])).await.unwrap();
    let positive = part.positive.unwrap();
    assert_eq!((part.scale, part.count, positive.offset), (0, 30, 0));
    assert_eq!(positive.bucket_counts, [10, 0, 20]);
}

/// What is not cumulative, does not only grow, or has no value, stays as it is.
#[tokio::test]
async fn the_rest_is_left_alone() {
    let rig = rig("initial_value: keep");
    let mut falling = sum("t", CUMULATIVE, vec![int(1, 2, 5)]);
    if let Some(Data::Sum(sum)) = &mut falling.data {
        sum.is_monotonic = false;
    }
    let others = vec![gauge("g", vec![int(1, 2, 5)]), falling, sum("d", DELTA, vec![int(1, 2, 5)])];
    assert_eq!(rig.send(others.clone()).await, others);
    rig.number(CUMULATIVE, int(1, 2, 5)).await;
    let mut nothing = int(1, 3, 0);
    (nothing.flags, nothing.value) = (1, None);
    assert_eq!(rig.number(CUMULATIVE, nothing.clone()).await, Some(nothing));
    let nan = rig.number(CUMULATIVE, number(1, 4, Number::AsDouble(f64::NAN))).await.unwrap();
    assert!(matches!(nan.value, Some(Number::AsDouble(value)) if value.is_nan()));
    assert_eq!(read(rig.number(CUMULATIVE, int(1, 5, 8)).await), Some((2, 5, 3.0)));
}

/// A total that is NaN or infinite says nothing of what has come since: the next one is compared with the one before.
#[tokio::test]
async fn what_is_no_number_is_no_baseline() {
    for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let rig = rig("{}");
        let mut found = (0.0, 0.0, 0.0);
        for (time, own) in (2..).zip([5.0, odd, 8.0, 9.0]) {
            let mut classic = buckets(1, time, &[time, 0]);
            let mut native = powers(1, time, 0, 0, &[time]);
            (classic.sum, native.sum) = (Some(own), Some(own));
            let number = rig.number(CUMULATIVE, number(1, time, Number::AsDouble(own))).await;
            let classic = rig.histogram(CUMULATIVE, classic).await.unwrap().sum.unwrap();
            let native = rig.exponential(CUMULATIVE, native).await.unwrap().sum.unwrap();
            if own.is_finite() {
                found.0 += read(number).unwrap().2;
                found.1 += classic;
                found.2 += native;
            }
        }
        assert_eq!(found, (9.0, 9.0, 9.0), "{odd}");
    }
}

/// Which metrics are converted.
#[tokio::test]
async fn selection() {
    let cases: [(&str, &[&str]); 8] = [
        ("{}", &["a.c", "a.h", "b.e"]),
        ("include: {match_type: strict, metrics: [a.c]}", &["a.c"]),
        ("include: {match_type: regexp, metrics: ['^a']}", &["a.c", "a.h"]),
        ("exclude: {match_type: regexp, metrics: ['h$']}", &["a.c", "b.e"]),
        ("{include: {match_type: regexp, metrics: ['^a']}, exclude: {match_type: strict, metrics: [a.c]}}", &["a.h"]),
        ("include: {metric_types: [sum]}", &["a.c"]),
        ("include: {metric_types: [histogram, exponentialhistogram]}", &["a.h", "b.e"]),
        ("{include: {match_type: regexp, metrics: [a]}, exclude: {metric_types: [Histogram]}}", &["a.c"]),
    ];
    for (yaml, expected) in cases {
        let rig = rig(&format!("{yaml}\n").replace("{}", "initial_value: keep"));
        let metrics = vec![
            sum("a.c", CUMULATIVE, vec![int(1, 2, 5)]),
            histogram("a.h", CUMULATIVE, vec![buckets(1, 2, &[1])]),
            exponential("b.e", CUMULATIVE, vec![powers(1, 2, 0, 0, &[1])]),
        ];
        let converted: Vec<String> = rig
            .send(metrics)
            .await
            .into_iter()
            .filter(|metric| match metric.data.as_ref().unwrap() {
                Data::Sum(sum) => sum.aggregation_temporality == DELTA,
                Data::Histogram(histogram) => histogram.aggregation_temporality == DELTA,
                Data::ExponentialHistogram(histogram) => histogram.aggregation_temporality == DELTA,
                _ => false,
            })
            .map(|metric| metric.name)
            .collect();
        assert_eq!(converted, expected, "{yaml}");
    }
}

/// Scenario: the next stage refuses a batch, which is sent again. Guarantee: the same differences leave.
#[tokio::test]
async fn refused_batches_are_undone() {
    let rig = rig("{}");
    let batch = || vec![sum("c", CUMULATIVE, vec![int(1, 2, 5), int(1, 3, 6)])];
    rig.sink.refuse.store(2, std::sync::atomic::Ordering::SeqCst);
    for _ in 0..2 {
        assert!(rig.try_send(batch()).await.unwrap_err().is_retryable());
    }
    rig.try_send(batch()).await.unwrap();
    let left = rig.taken();
    let Some(Data::Sum(sum)) = &left[0].data else { panic!() };
    let left: Vec<_> = sum.data_points.iter().map(|point| read(Some(point.clone())).unwrap()).collect();
    assert_eq!(left, [(1, 2, 5.0), (2, 3, 1.0)]);
}

/// Streams beyond the limit are dropped and told of.
#[tokio::test]
async fn the_limit() {
    let rig = rig("max_streams: 1");
    rig.number(CUMULATIVE, int(1, 2, 5)).await;
    let mut other = int(1, 2, 5);
    other.attributes.clear();
    assert_eq!(rig.number(CUMULATIVE, other).await, None);
    assert_eq!((dropped(&rig, "limit"), rig.ledger.dropped_count(DropReason::OverLimit)), (1, 1));
    assert_eq!(rig.number(CUMULATIVE, int(1, 2, 5)).await, None);
    assert_eq!((dropped(&rig, "out_of_order"), rig.ledger.dropped_count(DropReason::ProcessorError)), (1, 1));
}

/// Scenario: a stream is given up, and then comes again with the total it had. Guarantee: that total is not
/// counted twice.
#[tokio::test(start_paused = true)]
async fn stale_streams_are_not_counted_twice() {
    let (sink, clock, telemetry) =
        (Arc::new(Sink::default()), nyquist_core::clock::ManualClock::new(BEGAN * SECOND), Telemetry::new());
    let extensions = Default::default();
    let context: ProcessorContext<'_> = test_util::context(
        Signal::Metrics,
        Arc::clone(&sink) as Arc<dyn Consumer>,
        &extensions,
        &telemetry,
        Arc::clone(&clock) as Arc<dyn nyquist_core::clock::Clock>,
    );
    let processor = CumulativeToDelta::new(&test_util::config("max_staleness: 5m"), context).unwrap();
    processor
        .start(&test_util::host(&telemetry, Some(Arc::clone(&clock) as Arc<dyn nyquist_core::clock::Clock>)))
        .await
        .unwrap();
    let send = async |start, time, value| {
        let data = request(vec![sum("c", CUMULATIVE, vec![int(start, time, value)])]);
        processor.consume(Batch::from_metrics(data)).await.unwrap();
        let mut taken = sink.take();
        taken.first_mut().map(|batch| {
            let metric = &batch.metrics_mut().unwrap().resource_metrics[0].scope_metrics[0].metrics[0];
            let Some(Data::Sum(sum)) = &metric.data else { panic!() };
            read(Some(sum.data_points[0].clone())).unwrap()
        })
    };
    assert_eq!(send(1, 10, 5).await, Some((1, 10, 5.0)));
    clock.advance(Duration::from_secs(400));
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert_eq!(processor.tracked.streams().len(), 0);
    assert_eq!(send(1, 410, 7).await, None, "the 5 have been counted");
    assert_eq!(send(1, 420, 8).await, Some((410, 420, 1.0)));
    clock.advance(Duration::from_secs(400));
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert_eq!(send(500, 850, 3).await, Some((500, 850, 3.0)), "one that began after that is new");

    // A clock that is a century ahead keeps no other stream from being new; nor is its own new again.
    let far = 4_000_000_000;
    assert_eq!(send(far - 1, far, 3).await, Some((far - 1, far, 3.0)));
    clock.advance(Duration::from_secs(400));
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert_eq!(send(far - 1, far + 1, 4).await, None, "the 3 have been counted");
    clock.advance(Duration::from_secs(400));
    tokio::time::sleep(Duration::from_secs(400)).await;
    clock.advance(Duration::from_secs(200));
    assert_eq!(send(1750, 1760, 5).await, Some((1750, 1760, 5.0)), "one that began after that is new");
    processor.shutdown(Instant::now()).await;
}

#[test]
fn what_is_refused() {
    let cases = [
        ("include: {metrics: [a]}", "include: match_type must be set if metrics are supplied"),
        ("exclude: {match_type: strict}", "exclude: metrics must be supplied if match_type is set"),
        ("include: {match_type: regexp, metrics: ['(']}", "include.metrics: "),
        ("include: {match_type: glob, metrics: [a]}", "include.match_type: "),
        ("include: {metric_types: [gauge]}", "include.metric_types[0]: "),
        ("initial_value: zero", "initial_value: "),
        ("max_stale: 5m", "max_stale"),
    ];
    for (yaml, expected) in cases {
        let errors = errors::<CumulativeToDeltaConfig>(yaml);
        assert!(errors.iter().any(|error| error.contains(expected)), "{yaml}: {errors:?}");
    }
}
