//! Random streams of every kind against the simplest model: what the inputs have grown by.
//!
//! A reader follows what comes out as a backend would: a series grows by the difference to its last value, or by all
//! of its value where it is new or has a new start. Guarantee, whatever the limits, retirements, promotions, idle times
//! and restarts: the outputs never grow by more than the inputs have; and by less only where the limiter says so:
//! each stream that is missing something was counted by `rebaselined`.

use nyquist_core::proto::metrics::v1::exponential_histogram_data_point::Buckets;
use nyquist_core::proto::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Histogram, HistogramDataPoint, Summary, SummaryDataPoint,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sum,
    Histogram,
    Exponential,
    Summary,
}

const KINDS: [Kind; 4] = [Kind::Sum, Kind::Histogram, Kind::Exponential, Kind::Summary];

/// What is limited, and how. In the first ones no stream ever changes sides: nothing may be missing.
const STEADY: [&str; 4] = [
    "rules: [{metrics: [c], labels: {u: 3}}]",
    "rules: [{metrics: [c], labels: {u: 0}}]",
    "rules: [{metrics: [c], labels: {u: 0}}], replacement: ''",
    "rules: [{metrics: [c], labels: {u: 4}}], on_exceed: hash_label, hash_buckets: 3",
];
const CHANGING: [&str; 7] = [
    "default: {max_series_per_metric: 12}",
    "default: {max_series_per_metric: 12}, on_exceed: hash_label, hash_buckets: 3",
    "default: {max_series_per_metric: 12}, on_exceed: overflow_series",
    "rules: [{metrics: [c], labels: {u: 4}}], keep: top_k",
    "rules: [{metrics: [c], labels: {u: 8}}], min_sightings: 2",
    "rules: [{metrics: [c], labels: {u: 6}}], keep: top_k, min_sightings: 3, default: {max_series_per_metric: 9}",
    "default: {max_series_per_metric: 14}, tenant_from: 'resource[\"r\"]', max_tenants: 1",
];

/// A stream of the sender.
#[derive(Clone)]
struct Stream {
    resource: &'static str,
    labels: String,
    start: u64,
    value: u64,
    /// How far the last delta went.
    until: u64,
    /// What it has grown by over all its lives.
    grown: u64,
    /// It pauses until this export.
    pauses_until: u64,
}

/// Follows emitted series: what they have grown by, and whether they behave.
#[derive(Default)]
struct Reader {
    last: BTreeMap<String, (u64, u64, f64)>,
    grown: f64,
}

impl Reader {
    fn read(&mut self, points: &[Point], is_delta: bool, context: &str) {
        for point in points.iter().filter(|point| !point.is_end) {
            let now = total(point);
            let series = point.series();
            assert!(point.start <= point.time, "{context}: {point:?}");
            if is_delta {
                self.grown += now;
                continue;
            }
            match self.last.insert(series.clone(), (point.start, point.time, now)) {
                Some((start, time, before)) if start == point.start => {
                    assert!(point.time > time, "{context}: {series}: time {} after {time}", point.time);
                    assert!(now >= before, "{context}: {series}: fell from {before} to {now}");
                    self.grown += now - before;
                }
                _ => self.grown += now,
            }
        }
    }
}

/// One run of one kind against one configuration; the clock stands still unless `idles`.
async fn run(seed: u64, limits: &str, kind: Kind, is_delta: bool, idles: bool) {
    let context = format!("seed {seed}, {kind:?}, delta {is_delta}, idles {idles}, {limits}");
    let mut random = SmallRng::seed_from_u64(seed);
    let bench = Bench::new(&format!("{{{limits}, idle_ttl: 160s}}"));
    let mut streams: Vec<Stream> = (0..40)
        .map(|index| Stream {
            resource: if index % 5 == 0 { "2" } else { "1" },
            labels: format!("m={},u={}", index % 2, index / 2),
            start: START,
            value: 0,
            until: START,
            grown: 0,
            pauses_until: 0,
        })
        .collect();
    let mut reader = Reader::default();
    for export in 0..60 {
        let time = at(export);
        let mut points = Vec::new();
        for stream in &mut streams {
            if random.random_bool(0.3) || export < stream.pauses_until {
                continue;
            }
            if idles && random.random_bool(0.03) {
                stream.pauses_until = export + 25;
            }
            if random.random_bool(0.02) {
                stream.start = time - 1;
                stream.value = 0;
            }
            let more = random.random_range(0..10);
            stream.value += more;
            stream.grown += more;
            let (start, value) = if is_delta { (stream.until, more) } else { (stream.start, stream.value) };
            stream.until = time;
            points.push((stream.resource, stream.labels.clone(), start, value));
        }
        // Sometimes an export comes in two batches, with a flush between them.
        let cut = random.random_range(0..=points.len());
        for part in [&points[..cut], &points[cut..]] {
            for resource in ["1", "2"] {
                let part: Vec<_> = part.iter().filter(|point| point.0 == resource).cloned().collect();
                bench.send(&of(resource, data(kind, is_delta, &part, time))).await;
            }
            if random.random_bool(0.5) {
                bench.limiter.flush(false).await;
            }
        }
        reader.read(&bench.emitted(), is_delta, &context);
        if idles {
            bench.pass_time(10);
        }
    }
    bench.limiter.flush(true).await;
    reader.read(&bench.emitted(), is_delta, &context);
    let grown: u64 = streams.iter().map(|stream| stream.grown).sum();
    let short = grown as f64 - reader.grown;
    assert!(short >= 0.0, "{context}: {} of {grown}: something was counted twice", reader.grown);
    let rebaselined = bench.own("rebaselined");
    let most_of_one = streams.iter().map(|stream| stream.grown).max().unwrap_or_default() as f64;
    assert!(short <= rebaselined * most_of_one, "{context}: {short} short with {rebaselined} rebaselined");
    let is_steady = STEADY.contains(&limits) && !idles;
    if is_delta || is_steady {
        assert_eq!((short, if is_delta { 0.0 } else { rebaselined }), (0.0, 0.0), "{context}");
    }
}

type Sent = (&'static str, String, u64, u64);

fn data(kind: Kind, is_delta: bool, points: &[Sent], time: u64) -> Data {
    let aggregation_temporality =
        if is_delta { AggregationTemporality::Delta as i32 } else { AggregationTemporality::Cumulative as i32 };
    match kind {
        Kind::Sum => {
            let one = |(_, labels, start, value): &Sent| NumberDataPoint {
                start_time_unix_nano: *start,
                ..point(labels, *value as i64, time)
            };
            let data_points = points.iter().map(one).collect();
            Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true })
        }
        Kind::Histogram => {
            let one = |(_, labels, start, value): &Sent| HistogramDataPoint {
                attributes: attributes(labels),
                start_time_unix_nano: *start,
                time_unix_nano: time,
                count: *value,
                sum: Some(*value as f64),
                bucket_counts: vec![value / 3, value - value / 3],
                explicit_bounds: vec![1.0],
                ..HistogramDataPoint::default()
            };
            Data::Histogram(Histogram { data_points: points.iter().map(one).collect(), aggregation_temporality })
        }
        Kind::Exponential => {
            let one = |(_, labels, start, value): &Sent| ExponentialHistogramDataPoint {
                attributes: attributes(labels),
                start_time_unix_nano: *start,
                time_unix_nano: time,
                count: *value,
                sum: Some(*value as f64),
                // Each stream at a scale of its own.
                scale: labels.len() as i32 % 3,
                zero_count: value / 3,
                positive: Some(Buckets { offset: -1, bucket_counts: vec![(value + 1) / 3, value.div_ceil(3)] }),
                ..ExponentialHistogramDataPoint::default()
            };
            let data_points = points.iter().map(one).collect();
            Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
        }
        Kind::Summary => {
            let one = |(_, labels, start, value): &Sent| SummaryDataPoint {
                attributes: attributes(labels),
                start_time_unix_nano: *start,
                time_unix_nano: time,
                count: *value,
                sum: *value as f64,
                ..SummaryDataPoint::default()
            };
            Data::Summary(Summary { data_points: points.iter().map(one).collect() })
        }
    }
}

/// The value or count of a point, whose parts must add up to it.
fn total(point: &Point) -> f64 {
    match &point.data {
        Data::Histogram(data) => {
            let own = &data.data_points[0];
            assert_eq!(own.bucket_counts.iter().sum::<u64>(), own.count);
            assert_eq!(own.sum, Some(own.count as f64));
            own.count as f64
        }
        Data::ExponentialHistogram(data) => {
            let own = &data.data_points[0];
            let positive: u64 = own.positive.iter().flat_map(|side| &side.bucket_counts).sum();
            assert_eq!(positive + own.zero_count, own.count);
            own.count as f64
        }
        Data::Summary(data) => data.data_points[0].count as f64,
        _ => point.value,
    }
}

fn seeds() -> std::ops::Range<u64> {
    if std::env::var("NYQUIST_LONG").is_ok_and(|value| value == "1") { 0..200 } else { 0..4 }
}

async fn run_all(limits: &[&str], idles: bool) {
    for seed in seeds() {
        for limits in limits {
            for kind in KINDS {
                for is_delta in [false, true] {
                    // Summaries have no temporality.
                    if !(kind == Kind::Summary && is_delta) {
                        run(seed, limits, kind, is_delta, idles).await;
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn limits_on_values_lose_nothing() {
    run_all(&STEADY, false).await;
}

#[tokio::test]
async fn nothing_is_counted_twice_whoever_changes_sides() {
    run_all(&CHANGING, false).await;
}

#[tokio::test]
async fn nothing_is_counted_twice_when_streams_are_idle_and_come_back() {
    run_all(&STEADY, true).await;
    run_all(&CHANGING, true).await;
}

/// Scenario: sums that can fall, and gauges that are summed. Guarantee: once everything has been reported, what comes
/// out adds up to what the senders last said, wherever each stream is counted.
#[tokio::test]
async fn last_values_add_up_to_what_was_said_last() {
    for seed in seeds() {
        for limits in STEADY.iter().chain(&CHANGING) {
            for as_gauge in [false, true] {
                let context = format!("seed {seed}, gauge {as_gauge}, {limits}");
                let mut random = SmallRng::seed_from_u64(seed);
                let bench = Bench::new(&format!("{{{limits}, gauge: sum}}"));
                let mut said: BTreeMap<String, i64> = BTreeMap::new();
                let mut shown: BTreeMap<String, f64> = BTreeMap::new();
                for export in 0..40 {
                    let mut now = Vec::new();
                    for index in 0..30 {
                        // All of them in the end.
                        if export < 38 && random.random_bool(0.4) {
                            continue;
                        }
                        let labels = format!("m={},u={}", index % 2, index / 2);
                        let value = random.random_range(-50..50);
                        said.insert(labels.clone(), value);
                        now.push(point(&labels, value, at(export)));
                    }
                    let data = if as_gauge { gauge(now) } else { up_down(now) };
                    show(&mut shown, bench.step(&request(data)).await);
                }
                // What waits for a newer time does not wait for ever.
                for _ in 0..10 {
                    bench.limiter.flush(false).await;
                    show(&mut shown, bench.emitted());
                }
                let (said, shown): (i64, f64) = (said.values().sum(), shown.values().sum());
                assert_eq!(shown, said as f64, "{context}");
            }
        }
    }
}

/// What a backend shows once `points` have come.
fn show(shown: &mut BTreeMap<String, f64>, points: Vec<Point>) {
    for point in points {
        if point.is_end {
            shown.remove(&point.attributes);
        } else {
            shown.insert(point.attributes, point.value);
        }
    }
}
