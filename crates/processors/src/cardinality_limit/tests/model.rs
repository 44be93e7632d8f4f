//! Random streams against the simplest model: what the inputs have grown by.

use nyquist_core::proto::metrics::v1::{Histogram, HistogramDataPoint};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// A stream of the sender, cumulative.
#[derive(Clone)]
struct Stream {
    labels: String,
    start: u64,
    value: u64,
    /// What it has grown by over all its lives.
    grown: u64,
}

/// Follows emitted series: what they have grown by, and whether they behave.
#[derive(Default)]
struct Reader {
    last: BTreeMap<String, (u64, u64, f64)>,
    grown: f64,
    /// What series that pass as they are had before they were first seen.
    unseen: f64,
}

impl Reader {
    fn read(&mut self, points: &[Point], value: impl Fn(&Point) -> f64) {
        for point in points.iter().filter(|point| !point.is_end) {
            let now = value(point);
            let series = point.series();
            let last = self.last.insert(series.clone(), (point.start, point.time, now));
            match last {
                Some((start, time, before)) => {
                    assert!(point.time > time, "{series}: time {} after {time}", point.time);
                    if start == point.start {
                        assert!(now >= before, "{series}: fell from {before} to {now}");
                        self.grown += now - before;
                    } else {
                        self.grown += now;
                    }
                }
                None => self.grown += now,
            }
        }
    }
}

async fn run(seed: u64, as_histograms: bool) {
    let mut random = SmallRng::seed_from_u64(seed);
    let yaml = ["{rules: [{metrics: [c], labels: {u: 3}}]}", "{default: {max_series_per_metric: 12}}"];
    let bench = Bench::new(yaml[(seed % 2) as usize]);
    let mut streams: Vec<Stream> = (0..40)
        .map(|index| Stream { labels: format!("m={},u={}", index % 2, index / 2), start: START, value: 0, grown: 0 })
        .collect();
    let mut reader = Reader::default();
    let mut largest_rebaselined = 0.0;
    for export in 0..60 {
        let time = at(export);
        let mut points = Vec::new();
        for stream in &mut streams {
            if random.random_bool(0.3) {
                continue;
            }
            if random.random_bool(0.02) {
                stream.start = time - 1;
                stream.value = 0;
            }
            let more = random.random_range(0..10);
            stream.value += more;
            stream.grown += more;
            points.push((stream.labels.clone(), stream.start, stream.value));
        }
        // Sometimes an export comes in two batches, with a flush between them.
        let cut = random.random_range(0..=points.len());
        for part in [&points[..cut], &points[cut..]] {
            bench.send(&request(data(part, time, as_histograms))).await;
            if random.random_bool(0.5) {
                bench.limiter.flush(false).await;
            }
        }
        reader.read(&bench.emitted(), total);
        largest_rebaselined = bench.own("rebaselined");
    }
    bench.limiter.flush(true).await;
    reader.read(&bench.emitted(), total);
    let grown: u64 = streams.iter().map(|stream| stream.grown).sum();
    // Never more; and less only by what streams had when they set a baseline.
    assert!(reader.grown <= grown as f64, "seed {seed}: {} of {grown}", reader.grown);
    let most_at_once = streams.iter().map(|stream| stream.grown).max().unwrap_or_default() as f64;
    let short = grown as f64 - reader.grown;
    assert!(
        short <= largest_rebaselined * most_at_once,
        "seed {seed}: {short} short with {largest_rebaselined} rebaselined"
    );
    if seed.is_multiple_of(2) {
        // With a limit on values no stream ever changes sides: nothing may be missing.
        assert_eq!(largest_rebaselined, 0.0, "seed {seed}");
        assert_eq!(reader.grown, grown as f64, "seed {seed}");
    }
    assert_eq!(reader.unseen, 0.0);
}

fn data(points: &[(String, u64, u64)], time: u64, as_histograms: bool) -> Data {
    if !as_histograms {
        let number = |(labels, start, value): &(String, u64, u64)| NumberDataPoint {
            start_time_unix_nano: *start,
            ..point(labels, *value as i64, time)
        };
        return cumulative(points.iter().map(number).collect());
    }
    let one = |(labels, start, value): &(String, u64, u64)| HistogramDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: *start,
        time_unix_nano: time,
        count: *value,
        sum: Some(*value as f64),
        bucket_counts: vec![value / 3, value - value / 3],
        explicit_bounds: vec![1.0],
        ..HistogramDataPoint::default()
    };
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    Data::Histogram(Histogram { data_points: points.iter().map(one).collect(), aggregation_temporality })
}

fn total(point: &Point) -> f64 {
    match &point.data {
        Data::Histogram(data) => {
            let own = &data.data_points[0];
            assert_eq!(own.bucket_counts.iter().sum::<u64>(), own.count);
            own.count as f64
        }
        _ => point.value,
    }
}

#[tokio::test]
async fn cumulative_sums_grow_as_their_inputs_do() {
    for seed in 0..60 {
        run(seed, false).await;
    }
}

#[tokio::test]
async fn cumulative_histograms_grow_as_their_inputs_do() {
    for seed in 0..60 {
        run(seed, true).await;
    }
}

#[tokio::test]
async fn delta_sums_are_neither_lost_nor_doubled() {
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let bench = Bench::new("{default: {max_series_per_metric: 12, max_values_per_label: 7}}");
        let (mut sent, mut received) = (0.0, 0.0);
        for export in 0..40 {
            let mut points = Vec::new();
            for _ in 0..random.random_range(0..60) {
                let labels = format!("m={},u={}", random.random_range(0..3), random.random_range(0..30));
                let value = random.random_range(0..10);
                sent += f64::from(value);
                let start_time_unix_nano = at(export) - SECOND;
                points.push(NumberDataPoint { start_time_unix_nano, ..point(&labels, value.into(), at(export)) });
            }
            bench.send(&request(delta(points))).await;
            if random.random_bool(0.6) {
                bench.limiter.flush(false).await;
            }
            received += bench.emitted().iter().filter(|point| !point.is_end).map(|point| point.value).sum::<f64>();
        }
        bench.limiter.flush(true).await;
        received += bench.emitted().iter().filter(|point| !point.is_end).map(|point| point.value).sum::<f64>();
        assert_eq!(received, sent, "seed {seed}");
    }
}
