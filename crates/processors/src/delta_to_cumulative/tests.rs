//! Running totals.

use std::time::Duration;

use nyquist_core::batch::DropReason;
use nyquist_core::component::{Component, ProcessorContext};
use nyquist_core::telemetry::Entry;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;

use super::*;
use crate::streams::testing::*;
use crate::test_util::{self, Sink, errors};

fn rig(yaml: &str) -> Rig {
    Rig::new::<DeltaToCumulativeConfig>(yaml)
}

fn points_of(rig: &Rig, error: &str) -> u64 {
    rig.telemetry.sum("otelcol_deltatocumulative_datapoints", &[("error", error)])
}

/// The rules for one stream, a line a point: start, end and value of the window, and what comes out.
#[tokio::test]
async fn sums() {
    type Line = (u64, u64, i64, Option<(u64, u64, f64)>);
    let cases: &[(&str, &[Line])] = &[
        ("windows add up from the first start", &[(1, 2, 5, Some((1, 2, 5.0))), (2, 3, 2, Some((1, 3, 7.0)))]),
        ("a gap is no reset", &[(1, 2, 5, Some((1, 2, 5.0))), (7, 9, 2, Some((1, 9, 7.0)))]),
        ("windows that overlap are added", &[(1, 4, 5, Some((1, 4, 5.0))), (2, 6, 2, Some((1, 6, 7.0)))]),
        ("an older window is dropped", &[(3, 5, 5, Some((3, 5, 5.0))), (3, 4, 2, None), (5, 6, 1, Some((3, 6, 6.0)))]),
        ("the same end again is dropped", &[(1, 2, 5, Some((1, 2, 5.0))), (1, 2, 5, None)]),
        ("one that began before the stream is dropped", &[(3, 5, 5, Some((3, 5, 5.0))), (2, 6, 2, None)]),
        ("without a start it counts all the same", &[(0, 2, 5, Some((0, 2, 5.0))), (0, 3, 1, Some((0, 3, 6.0)))]),
        ("what falls is added too", &[(1, 2, 5, Some((1, 2, 5.0))), (2, 3, -7, Some((1, 3, -2.0)))]),
    ];
    for (name, lines) in cases {
        let rig = rig("{}");
        for (start, end, value, expected) in *lines {
            let found = read(rig.number(DELTA, int(*start, *end, *value)).await);
            assert_eq!(found, *expected, "{name}: {start} to {end}");
        }
    }
}

/// What was dropped, and why, is told.
#[tokio::test]
async fn drops_are_told() {
    let rig = rig("max_streams: 1");
    rig.number(DELTA, int(3, 5, 1)).await;
    rig.number(DELTA, int(3, 5, 1)).await;
    rig.number(DELTA, int(2, 6, 1)).await;
    let mut other = int(3, 5, 1);
    other.attributes.push(text("c", "3"));
    assert_eq!(rig.number(DELTA, other).await, None);
    let told: Vec<u64> =
        ["", "delta.ErrOutOfOrder", "delta.ErrOlderStart", "limit"].map(|error| points_of(&rig, error)).into();
    assert_eq!(told, [1, 1, 1, 1]);
    assert_eq!(rig.ledger.dropped_count(DropReason::ProcessorError), 2);
    assert_eq!(rig.ledger.dropped_count(DropReason::OverLimit), 1);
}

/// Scenario: a processor is in two pipelines. Guarantee: its gauges show what both track, without one that is gone.
#[tokio::test]
async fn pipelines_share_the_gauges() {
    let one = rig("{}");
    let other = Rig::shown_in::<DeltaToCumulativeConfig>("{}", Arc::clone(&one.telemetry));
    one.send(vec![sum("a", DELTA, vec![int(1, 2, 5)]), sum("b", DELTA, vec![int(1, 2, 5)])]).await;
    other.number(DELTA, int(1, 2, 5)).await;
    let telemetry = Arc::clone(&one.telemetry);
    let tracked = || telemetry.gauge("otelcol_deltatocumulative_streams_tracked", "", &[("processor", "tested")]).get();
    assert_eq!(tracked(), 3);
    drop(one);
    assert_eq!(tracked(), 1);
}

/// Each metric that loses points is named in the log, with why.
#[tokio::test]
async fn losses_are_named() {
    let extensions = Default::default();
    let telemetry = Telemetry::new();
    let context = test_util::context(
        Signal::Metrics,
        Arc::new(Sink::default()) as Arc<dyn Consumer>,
        &extensions,
        &telemetry,
        nyquist_core::clock::ManualClock::new(BEGAN * SECOND) as Arc<dyn nyquist_core::clock::Clock>,
    );
    let processor = DeltaToCumulative::new(&test_util::config("max_streams: 1"), context);
    for (name, start, end) in [("c", 3, 5), ("c", 3, 5), ("c", 2, 6), ("other", 3, 5)] {
        let data = request(vec![sum(name, DELTA, vec![int(start, end, 1)])]);
        processor.consume(Batch::from_metrics(data)).await.unwrap();
    }
    for (reason, metric) in [("delta.ErrOutOfOrder", "c"), ("delta.ErrOlderStart", "c"), ("limit", "other")] {
        assert!(processor.log.has_named(reason, metric.as_bytes()), "{reason}");
    }
    assert!(!processor.log.has_named("limit", b"c"));
}

/// Whole numbers stay whole; with a fraction among them the total is a double.
#[tokio::test]
async fn types_of_numbers() {
    let rig = rig("{}");
    assert_eq!(rig.number(DELTA, int(1, 2, 5)).await.unwrap().value, Some(Number::AsInt(5)));
    let half = rig.number(DELTA, number(2, 3, Number::AsDouble(0.5))).await.unwrap();
    assert_eq!(half.value, Some(Number::AsDouble(5.5)));
    assert_eq!(rig.number(DELTA, int(3, 4, 1)).await.unwrap().value, Some(Number::AsDouble(6.5)));
    let spoilt = rig.number(DELTA, number(4, 5, Number::AsDouble(f64::NAN))).await.unwrap();
    assert_eq!(spoilt.value, Some(Number::AsDouble(6.5)), "one that is no number does not spoil the total");
}

/// What is no delta passes byte for byte, and beside deltas unchanged; names, units, attributes, exemplars
/// and flags stay; the order of attributes does not matter.
#[tokio::test]
async fn the_rest_is_left_alone() {
    let rig = rig("{}");
    let others = vec![gauge("g", vec![int(1, 2, 5)]), sum("t", CUMULATIVE, vec![int(1, 2, 5)])];
    assert_eq!(rig.send(others.clone()).await, others);
    let mut first = int(1, 2, 5);
    first.exemplars.push(Default::default());
    let mixed = rig.send([others.clone(), vec![sum("c", DELTA, vec![first.clone()])]].concat()).await;
    assert_eq!(mixed[..2], others);
    assert_eq!(mixed[2], sum("c", CUMULATIVE, vec![first]));
    let mut second = int(2, 3, 2);
    second.attributes.reverse();
    assert_eq!(read(rig.number(DELTA, second).await), Some((1, 3, 7.0)));
    // Another name, another kind, another unit: other streams.
    let mut unit = sum("c", DELTA, vec![int(3, 4, 1)]);
    unit.unit = "s".to_owned();
    let rising = sum("c2", DELTA, vec![int(3, 4, 1)]);
    for metric in rig.send(vec![unit, rising]).await {
        let Some(opentelemetry_proto::tonic::metrics::v1::metric::Data::Sum(sum)) = metric.data else { panic!() };
        assert_eq!(read(Some(sum.data_points[0].clone())), Some((3, 4, 1.0)));
    }
}

/// Histograms add up bucket by bucket; sum, minimum and maximum stay while all have them; with other bounds
/// the total begins anew.
#[tokio::test]
async fn histograms() {
    let rig = rig("{}");
    let mut one = buckets(1, 2, &[1, 2, 0]);
    (one.min, one.max) = (Some(0.5), Some(1.5));
    let mut two = buckets(2, 3, &[0, 1, 3]);
    (two.min, two.max) = (Some(0.7), Some(9.0));
    rig.histogram(DELTA, one).await;
    let total = rig.histogram(DELTA, two).await.unwrap();
    assert_eq!((total.bucket_counts.as_slice(), total.count, total.sum), (&[1, 3, 3][..], 7, Some(9.0)));
    assert_eq!((total.min, total.max, since(total.start_time_unix_nano)), (Some(0.5), Some(9.0), 1));
    let mut sumless = buckets(3, 4, &[1, 0, 0]);
    sumless.sum = None;
    let total = rig.histogram(DELTA, sumless).await.unwrap();
    assert_eq!((total.count, total.sum, total.min, total.max), (8, None, None, None));
    let total = rig.histogram(DELTA, buckets(4, 5, &[1, 1])).await.unwrap();
    let window = (since(total.start_time_unix_nano), since(total.time_unix_nano));
    assert_eq!((total.bucket_counts.as_slice(), total.count, window), (&[1, 1][..], 2, (4, 5)));
}

/// Exponential histograms add up at the coarser scale and the wider zero bucket, and no count is lost.
#[tokio::test]
async fn exponential_histograms() {
    let rig = rig("{}");
    rig.exponential(DELTA, powers(1, 2, 1, 0, &[1, 2, 3, 4])).await;
    let total = rig.exponential(DELTA, powers(2, 3, 0, 0, &[10, 0, 20])).await.unwrap();
    let positive = total.positive.unwrap();
    assert_eq!((total.scale, total.count, positive.offset), (0, 40, 0));
    assert_eq!(positive.bucket_counts, [13, 7, 20]);
    let mut wide = powers(3, 4, 0, 2, &[1]);
    (wide.zero_threshold, wide.zero_count, wide.count) = (2.0, 5, 6);
    let total = rig.exponential(DELTA, wide).await.unwrap();
    assert_eq!((total.zero_threshold, total.zero_count, total.count), (2.0, 18, 46));
    let far = rig.exponential(DELTA, powers(4, 5, 20, 1 << 20, &[1; 160])).await.unwrap();
    assert_eq!(far.count, 206);
    assert!(far.positive.unwrap().bucket_counts.len() <= 160);
}

/// A sum that is NaN or infinite is not added, and spoils no other: of numbers and of histograms of both kinds.
#[tokio::test]
async fn what_is_no_number_is_not_added() {
    for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for sums in [[odd, 2.0, 3.0], [2.0, odd, 3.0]] {
            let rig = rig("{}");
            let mut last = (None, None, None);
            for (time, own) in (2..).zip(sums) {
                let mut classic = buckets(time - 1, time, &[1, 0]);
                let mut native = powers(time - 1, time, 0, 0, &[1]);
                (classic.sum, native.sum) = (Some(own), Some(own));
                let number = rig.number(DELTA, number(time - 1, time, Number::AsDouble(own))).await.unwrap();
                let classic = rig.histogram(DELTA, classic).await.unwrap();
                let native = rig.exponential(DELTA, native).await.unwrap();
                assert_eq!((classic.count, native.count), (time - 1, time - 1));
                last = (number.value, classic.sum, native.sum);
            }
            assert_eq!(last, (Some(Number::AsDouble(5.0)), Some(5.0), Some(5.0)), "{sums:?}");
        }
    }
}

/// A stream that says it has no value has ended; what comes later begins anew.
#[tokio::test]
async fn no_recorded_value() {
    let rig = rig("{}");
    rig.number(DELTA, int(1, 2, 5)).await;
    let mut end = int(2, 3, 0);
    (end.flags, end.value) = (1, None);
    let flagged = rig.number(DELTA, end).await.unwrap();
    assert_eq!((flagged.flags, flagged.value, since(flagged.start_time_unix_nano)), (1, None, 1));
    assert_eq!(read(rig.number(DELTA, int(5, 6, 2)).await), Some((5, 6, 2.0)));
}

/// Scenario: the next stage refuses a batch, which is sent again. Guarantee: nothing is added twice, and
/// every point leaves once.
#[tokio::test]
async fn refused_batches_come_again() {
    let rig = rig("{}");
    rig.number(DELTA, int(1, 2, 5)).await;
    let batch = || vec![sum("c", DELTA, vec![int(2, 3, 1), int(3, 4, 1)])];
    rig.sink.refuse.store(2, std::sync::atomic::Ordering::SeqCst);
    for _ in 0..2 {
        assert!(rig.try_send(batch()).await.unwrap_err().is_retryable());
    }
    rig.try_send(batch()).await.unwrap();
    let left = rig.taken();
    let Some(opentelemetry_proto::tonic::metrics::v1::metric::Data::Sum(total)) = &left[0].data else { panic!() };
    let left: Vec<_> = total.data_points.iter().map(|point| read(Some(point.clone())).unwrap()).collect();
    assert_eq!(left, [(1, 4, 7.0)], "the newest total has the other point in it");
    assert_eq!(rig.ledger.count(Entry::Merged), 1);
    assert_eq!(read(rig.number(DELTA, int(4, 5, 1)).await), Some((1, 5, 8.0)));
    assert_eq!(rig.number(DELTA, int(4, 5, 1)).await, None, "an accepted one is not repeated");
    assert_eq!(points_of(&rig, ""), 3);
}

/// Scenario: a batch is refused, and before it comes again other batches come: a late one that was never added, and a later
/// one that is accepted. Guarantee: the late one is dropped and told, and what was added is known whenever it comes.
#[tokio::test]
async fn only_what_was_added_comes_again() {
    let rig = rig("{}");
    let of = |start, end, value| vec![sum("c", DELTA, vec![int(start, end, value)])];
    let value = |metrics: Vec<opentelemetry_proto::tonic::metrics::v1::Metric>| {
        let Some(opentelemetry_proto::tonic::metrics::v1::metric::Data::Sum(sum)) = &metrics[0].data else { panic!() };
        read(Some(sum.data_points[0].clone())).unwrap()
    };
    rig.number(DELTA, int(1, 2, 1)).await;
    rig.sink.refuse.store(2, std::sync::atomic::Ordering::SeqCst);
    for (start, end, value) in [(2, 10, 2), (10, 11, 4)] {
        assert!(rig.try_send(of(start, end, value)).await.unwrap_err().is_retryable());
    }
    assert_eq!(rig.send(of(4, 5, 100)).await, [], "late, and never added");
    assert_eq!((points_of(&rig, "delta.ErrOutOfOrder"), rig.ledger.count(Entry::Merged)), (1, 0));
    assert_eq!(rig.ledger.dropped_count(DropReason::ProcessorError), 1);
    assert_eq!(value(rig.send(of(11, 12, 8)).await), (1, 12, 15.0), "those of the refused batches are in it");
    for (start, end, value) in [(2, 10, 2), (10, 11, 4)] {
        assert_eq!(rig.send(of(start, end, value)).await, [], "it is in the total");
    }
    assert_eq!((points_of(&rig, "delta.ErrOutOfOrder"), rig.ledger.count(Entry::Merged)), (1, 2));
    assert_eq!(rig.send(of(10, 11, 4)).await, [], "once");
    assert_eq!(points_of(&rig, "delta.ErrOutOfOrder"), 2);
}

/// Scenario: a sender whose batches are refused, and which never sends one again. Guarantee: what is remembered of them is
/// bounded, and charged.
#[tokio::test]
async fn refused_batches_take_bounded_memory() {
    let rig = rig("{}");
    let refusals = 3000;
    rig.sink.refuse.store(refusals, std::sync::atomic::Ordering::SeqCst);
    for end in 0..refusals as u64 {
        let refused = rig.try_send(vec![sum("c", DELTA, vec![int(1, end + 2, 1)])]).await;
        assert!(refused.unwrap_err().is_retryable());
    }
    let all = (1, refusals as u64 + 2, refusals as f64 + 1.0);
    assert_eq!(read(rig.number(DELTA, int(1, refusals as u64 + 2, 1)).await), Some(all));
    let name = "otelcol_deltatocumulative_state_bytes";
    let bytes = rig.telemetry.gauge(name, "", &[("processor", "tested")]).get();
    assert!((8 * 1024..16 * 1024).contains(&bytes), "{bytes}");
}

/// A stream without points for long is given up, and begins anew when it comes again; others stay.
#[tokio::test(start_paused = true)]
async fn stale_streams() {
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
    let processor = DeltaToCumulative::new(&test_util::config("max_stale: 5m"), context);
    processor
        .start(&test_util::host(&telemetry, Some(Arc::clone(&clock) as Arc<dyn nyquist_core::clock::Clock>)))
        .await
        .unwrap();
    let send = async |name: &str, start, end| {
        let data = request(vec![sum(name, DELTA, vec![int(start, end, 1)])]);
        processor.consume(Batch::from_metrics(data)).await.unwrap();
    };
    send("old", 1, 2).await;
    for minute in 1..7u64 {
        send("busy", minute * 60, minute * 60 + 1).await;
        clock.advance(Duration::from_secs(60));
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(processor.tracked.streams().len(), 1);
    send("old", 400, 401).await;
    send("busy", 400, 401).await;
    let mut last: Vec<_> = sink.take().split_off(7);
    let mut values = Vec::new();
    for batch in &mut last {
        let metric = &batch.metrics_mut().unwrap().resource_metrics[0].scope_metrics[0].metrics[0];
        let Some(opentelemetry_proto::tonic::metrics::v1::metric::Data::Sum(sum)) = &metric.data else { panic!() };
        values.push(read(Some(sum.data_points[0].clone())).unwrap());
    }
    assert_eq!(values, [(400, 401, 1.0), (60, 401, 7.0)]);
    processor.shutdown(Instant::now()).await;
}

/// State stays within its bytes, whatever comes.
#[tokio::test]
async fn the_memory_limit() {
    let rig = rig("{memory_limit_mib: 1, max_streams: 0}");
    for number in 0..3000 {
        let mut point = buckets(1, 2, &[1; 100]);
        point.attributes = vec![text("n", &number.to_string())];
        rig.histogram(DELTA, point).await;
    }
    let (kept, refused) = (points_of(&rig, ""), points_of(&rig, "limit"));
    assert_eq!(kept + refused, 3000);
    // A histogram of 100 buckets takes about two kilobytes.
    assert!((300..1000).contains(&kept), "{kept}");
}

#[test]
fn what_is_refused() {
    assert_eq!(errors::<DeltaToCumulativeConfig>("max_stale: 0s").len(), 1);
    assert_eq!(errors::<DeltaToCumulativeConfig>("max_streams: -1").len(), 1);
    assert_eq!(errors::<DeltaToCumulativeConfig>("memory_limit_mib: 0").len(), 1);
    assert_eq!(errors::<DeltaToCumulativeConfig>("max_series: 5").len(), 1);
}
