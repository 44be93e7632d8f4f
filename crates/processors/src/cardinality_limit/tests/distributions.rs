use nyquist_core::proto::metrics::v1::exponential_histogram_data_point::Buckets;
use nyquist_core::proto::metrics::v1::summary_data_point::ValueAtQuantile;
use nyquist_core::proto::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Histogram, HistogramDataPoint, Summary, SummaryDataPoint,
};

use super::*;

const NO_USERS: &str = "{rules: [{metrics: [c], labels: {u: 0}}]}";

fn histogram_point(user: &str, bounds: &[f64], buckets: &[u64], time: u64) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: attributes(&format!("u={user}")),
        start_time_unix_nano: START,
        time_unix_nano: time,
        count: buckets.iter().sum(),
        sum: Some(buckets.iter().sum::<u64>() as f64),
        bucket_counts: buckets.to_vec(),
        explicit_bounds: bounds.to_vec(),
        ..HistogramDataPoint::default()
    }
}

fn histogram(points: Vec<HistogramDataPoint>, temporality: AggregationTemporality) -> MetricsData {
    request(Data::Histogram(Histogram { data_points: points, aggregation_temporality: temporality as i32 }))
}

fn cumulative_histogram(points: Vec<HistogramDataPoint>) -> MetricsData {
    histogram(points, AggregationTemporality::Cumulative)
}

/// Attributes, bounds, buckets and count of the histograms.
fn buckets(points: &[Point]) -> Vec<(String, Vec<f64>, Vec<u64>, u64)> {
    let one = |point: &Point| match &point.data {
        Data::Histogram(data) => {
            let own = &data.data_points[0];
            (point.attributes.clone(), own.explicit_bounds.clone(), own.bucket_counts.clone(), own.count)
        }
        other => panic!("{other:?}"),
    };
    points.iter().map(one).collect()
}

fn other(bounds: &[f64], buckets: &[u64]) -> (String, Vec<f64>, Vec<u64>, u64) {
    ("u=other".to_owned(), bounds.to_vec(), buckets.to_vec(), buckets.iter().sum())
}

#[tokio::test]
async fn histograms_add_up_bucket_by_bucket() {
    for temporality in [AggregationTemporality::Cumulative, AggregationTemporality::Delta] {
        let bench = Bench::new(NO_USERS);
        let points = vec![
            histogram_point("c", &[0.5, 1.0], &[1, 0, 0], at(0)),
            histogram_point("d", &[0.5, 1.0], &[0, 2, 1], at(0)),
        ];
        let step = bench.step(&histogram(points, temporality)).await;
        assert_eq!(buckets(&step), [other(&[0.5, 1.0], &[1, 2, 1])], "L10");
        assert_eq!((step[0].start, step[0].time), (START, at(0)), "L10");
    }
}

#[tokio::test]
async fn cumulative_histograms_count_increments_and_survive_resets() {
    let bench = Bench::new(NO_USERS);
    let c = |buckets: &[u64], time| cumulative_histogram(vec![histogram_point("c", &[1.0], buckets, time)]);
    assert_eq!(buckets(&bench.step(&c(&[1, 2], at(0))).await), [other(&[1.0], &[1, 2])]);
    assert_eq!(buckets(&bench.step(&c(&[4, 2], at(1))).await), [other(&[1.0], &[4, 2])]);
    // A bucket falls: a reset that the start does not tell.
    assert_eq!(buckets(&bench.step(&c(&[1, 1], at(2))).await), [other(&[1.0], &[5, 3])]);
    // Old news.
    assert_eq!(bench.step(&c(&[9, 9], at(1))).await, []);
}

#[tokio::test]
async fn bounds_that_contain_each_other_are_folded_to_the_coarser() {
    for order in [[0, 1], [1, 0]] {
        let bench = Bench::new(NO_USERS);
        let points =
            [histogram_point("c", &[0.5, 1.0], &[1, 2, 3], at(0)), histogram_point("d", &[0.5], &[10, 20], at(0))];
        let step = bench.step(&cumulative_histogram(order.map(|index: usize| points[index].clone()).into())).await;
        assert_eq!(buckets(&step), [other(&[0.5], &[11, 25])], "L11");
        assert_eq!(bench.own("bounds_conflict"), 0.0, "L11");
    }
}

#[tokio::test]
async fn bounds_that_do_not_fit_give_two_series() {
    let bench = Bench::new(NO_USERS);
    let points = |factor: u64, time| {
        cumulative_histogram(vec![
            histogram_point("c", &[0.5, 1.0], &[factor, 2 * factor, 3 * factor], time),
            histogram_point("d", &[0.7], &[10 * factor, 20 * factor], time),
        ])
    };
    let mut step = buckets(&bench.step(&points(1, at(0))).await);
    step.sort_by_key(|(attributes, ..)| attributes.len());
    let second = ("otel.metric.bounds=0.7,u=other".to_owned(), vec![0.7], vec![10, 20], 30);
    assert_eq!(step, [other(&[0.5, 1.0], &[1, 2, 3]), second], "L12");
    assert_eq!(bench.own("bounds_conflict"), 1.0, "L12");
    let step = bench.step(&points(2, at(1))).await;
    assert_eq!(step.len(), 2, "L12");
    assert_eq!(buckets(&step).iter().map(|(.., count)| count).sum::<u64>(), 72, "L12");
    assert_eq!(bench.own("bounds_conflict"), 1.0, "L12: known by now");
}

/// Scenario: the same after a restart, which keeps the slots of both series. Guarantee: both go on.
#[tokio::test]
async fn bounds_that_do_not_fit_give_two_series_after_a_restart_too() {
    let directory = tempfile::tempdir().unwrap();
    let yaml = "{storage: place, rules: [{metrics: [c], labels: {u: 0}}]}";
    let points = |factor: u64, time| {
        cumulative_histogram(vec![
            histogram_point("c", &[0.5, 1.0], &[factor, 2 * factor, 3 * factor], time),
            histogram_point("d", &[0.7], &[10 * factor, 20 * factor], time),
        ])
    };
    let bench = Bench::stored(yaml, directory.path(), BEGIN).await;
    bench.step(&points(1, at(0))).await;
    bench.stop().await;
    let bench = Bench::stored(yaml, directory.path(), at(0) + SECOND).await;
    bench.step(&points(2, at(1))).await;
    let mut step = buckets(&bench.step(&points(3, at(2))).await);
    step.sort_by_key(|(attributes, ..)| attributes.len());
    let second = ("otel.metric.bounds=0.7,u=other".to_owned(), vec![0.7], vec![10, 20], 30);
    assert_eq!(step, [other(&[0.5, 1.0], &[1, 2, 3]), second]);
}

#[tokio::test]
async fn too_many_kinds_of_bounds_keep_what_they_have_in_common() {
    let bench = Bench::new(NO_USERS);
    let points = (0..20)
        .map(|index| histogram_point(&format!("{index}"), &[f64::from(index) + 0.5, 1000.0], &[1, 1, 1], at(0)))
        .collect();
    let step = buckets(&bench.step(&histogram(points, AggregationTemporality::Delta)).await);
    assert!(step.len() <= 4, "{step:?}");
    assert_eq!(step.iter().map(|(.., count)| count).sum::<u64>(), 60);
    assert_eq!(step.iter().flat_map(|(_, _, buckets, _)| buckets).sum::<u64>(), 60, "{step:?}");
}

fn exponential(user: &str, scale: i32, offset: i32, counts: &[u64], time: u64) -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        attributes: attributes(&format!("u={user}")),
        start_time_unix_nano: START,
        time_unix_nano: time,
        count: counts.iter().sum::<u64>() + 1,
        sum: Some(1.0),
        scale,
        zero_count: 1,
        positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
        ..ExponentialHistogramDataPoint::default()
    }
}

fn exponentials(points: Vec<ExponentialHistogramDataPoint>, temporality: AggregationTemporality) -> MetricsData {
    request(Data::ExponentialHistogram(ExponentialHistogram {
        data_points: points,
        aggregation_temporality: temporality as i32,
    }))
}

fn only_exponential(points: &[Point]) -> ExponentialHistogramDataPoint {
    assert_eq!(points.len(), 1);
    match &points[0].data {
        Data::ExponentialHistogram(data) => data.data_points[0].clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn exponential_histograms_meet_at_the_smaller_scale() {
    let bench = Bench::new(NO_USERS);
    let points = |factor: u64, time| {
        let counts: Vec<u64> = (1..=8).map(|count| count * factor).collect();
        let data = vec![exponential("c", 3, 0, &counts, time), exponential("d", 1, -1, &[factor, factor], time)];
        exponentials(data, AggregationTemporality::Cumulative)
    };
    let merged = only_exponential(&bench.step(&points(1, at(0))).await);
    // Four buckets of scale 3 are one of scale 1: 1+2+3+4 and 5+6+7+8, beside -1 and 0.
    assert_eq!(merged.scale, 1, "L13");
    assert_eq!(merged.positive, Some(Buckets { offset: -1, bucket_counts: vec![1, 11, 26] }), "L13");
    assert_eq!((merged.count, merged.zero_count), (36 + 1 + 2 + 1, 2), "L13");
    let merged = only_exponential(&bench.step(&points(2, at(1))).await);
    assert_eq!(merged.positive, Some(Buckets { offset: -1, bucket_counts: vec![2, 22, 52] }), "L13");
    assert_eq!(merged.zero_count, 2, "L13: zero counts have not grown");
}

#[tokio::test]
async fn exponential_histograms_far_apart_lose_resolution_but_no_count() {
    let bench = Bench::new(NO_USERS);
    let points = vec![
        exponential("c", 20, i32::MIN, &[5], at(0)),
        exponential("d", 20, i32::MAX, &[7, 7, 7], at(0)),
        exponential("e", i32::MIN, 3, &[1], at(0)),
    ];
    let merged = only_exponential(&bench.step(&exponentials(points, AggregationTemporality::Delta)).await);
    let buckets = merged.positive.unwrap().bucket_counts;
    assert_eq!(buckets.iter().sum::<u64>(), 5 + 21 + 1);
    assert!(buckets.len() <= 160);
    assert_eq!(merged.count, 5 + 21 + 1 + 3);
}

#[tokio::test]
async fn summaries_add_count_and_sum_and_lose_their_quantiles() {
    let bench = Bench::new(NO_USERS);
    let summary = |user: &str, count, sum, time| SummaryDataPoint {
        attributes: attributes(&format!("u={user}")),
        start_time_unix_nano: START,
        time_unix_nano: time,
        count,
        sum,
        quantile_values: vec![ValueAtQuantile { quantile: 0.5, value: 1.0 }],
        ..SummaryDataPoint::default()
    };
    let send = |points| request(Data::Summary(Summary { data_points: points }));
    bench.step(&send(vec![summary("c", 1, 2.0, at(0)), summary("d", 10, 20.0, at(0))])).await;
    let step = bench.step(&send(vec![summary("c", 2, 3.5, at(1)), summary("d", 10, 20.0, at(1))])).await;
    let Data::Summary(data) = &step[0].data else { panic!() };
    let own = &data.data_points[0];
    assert_eq!((own.count, own.sum, own.quantile_values.len()), (12, 23.5, 0), "L14");
    assert_eq!(bench.own("dropped_quantiles"), 4.0, "L14");
}

/// Count and sum of the one point.
fn count_and_sum(points: &[Point]) -> (u64, f64) {
    assert_eq!(points.len(), 1);
    match &points[0].data {
        Data::Histogram(data) => (data.data_points[0].count, data.data_points[0].sum.unwrap()),
        Data::ExponentialHistogram(data) => (data.data_points[0].count, data.data_points[0].sum.unwrap()),
        Data::Summary(data) => (data.data_points[0].count, data.data_points[0].sum),
        other => panic!("{other:?}"),
    }
}

/// Scenario: a collapsed histogram or summary has a sum that is NaN or infinite for once, at first or later. Guarantee:
/// the sums that come after are counted, none of them twice.
#[tokio::test]
async fn a_sum_that_is_no_number_spoils_no_other() {
    /// A request of one point with this count, sum and time.
    type Make<'a> = &'a dyn Fn(u64, f64, u64) -> MetricsData;
    let classic = |count: u64, sum, time| {
        let point = HistogramDataPoint { sum: Some(sum), ..histogram_point("c", &[1.0], &[count, 0], time) };
        cumulative_histogram(vec![point])
    };
    let native = |count: u64, sum, time| {
        let point = ExponentialHistogramDataPoint {
            sum: Some(sum),
            zero_count: 0,
            count,
            ..exponential("c", 0, 0, &[count], time)
        };
        exponentials(vec![point], AggregationTemporality::Cumulative)
    };
    let summary = |count, sum, time| {
        let point = SummaryDataPoint {
            attributes: attributes("u=c"),
            start_time_unix_nano: START,
            time_unix_nano: time,
            count,
            sum,
            ..SummaryDataPoint::default()
        };
        request(Data::Summary(Summary { data_points: vec![point] }))
    };
    let kinds: [(&str, Make<'_>); 3] = [("histogram", &classic), ("exponential", &native), ("summary", &summary)];
    for (kind, make) in kinds {
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for (sums, expected) in [([100.0, odd, 101.0], 101.0), ([odd, 100.0, 102.0], 102.0)] {
                let bench = Bench::new(NO_USERS);
                let mut last = Vec::new();
                for (n, sum) in (0..).zip(sums) {
                    last = bench.step(&make(n + 1, sum, at(n))).await;
                }
                assert_eq!(count_and_sum(&last), (3, expected), "{kind}: {sums:?}");
            }
        }
    }
    let bench = Bench::new(NO_USERS);
    let point = |user, sum| HistogramDataPoint { sum: Some(sum), ..histogram_point(user, &[1.0], &[1, 0], at(0)) };
    let deltas = vec![point("c", f64::NAN), point("d", 5.0), point("e", f64::NAN)];
    let step = bench.step(&histogram(deltas, AggregationTemporality::Delta)).await;
    assert_eq!(count_and_sum(&step), (3, 5.0), "deltas");
}

/// Scenario: collapsed histograms with minimum and maximum. Guarantee: those of all of them, while all have them and
/// are there.
#[tokio::test]
async fn extremes_are_told_while_every_contributor_is_there() {
    let point = |user, count, extremes: Option<(f64, f64)>, time| HistogramDataPoint {
        min: extremes.map(|(min, _)| min),
        max: extremes.map(|(_, max)| max),
        ..histogram_point(user, &[1.0], &[count, 0], time)
    };
    let extremes = |points: &[Point]| {
        assert_eq!(points.len(), 1);
        let Data::Histogram(data) = &points[0].data else { panic!() };
        data.data_points[0].min.zip(data.data_points[0].max)
    };
    let started = |bench: Bench| async move {
        let points = vec![point("c", 2, Some((0.3, 0.7)), at(0)), point("d", 3, Some((0.2, 0.5)), at(0))];
        let step = bench.step(&cumulative_histogram(points)).await;
        assert_eq!(extremes(&step), Some((0.2, 0.7)));
        let step = bench.step(&cumulative_histogram(vec![point("d", 4, Some((0.1, 0.9)), at(1))])).await;
        assert_eq!(extremes(&step), Some((0.1, 0.9)));
        bench
    };
    let next = || cumulative_histogram(vec![point("c", 5, Some((0.0, 0.9)), at(3))]);

    let bench = started(Bench::new(NO_USERS)).await;
    bench.step(&cumulative_histogram(vec![point("d", 5, None, at(2))])).await;
    assert_eq!(extremes(&bench.step(&next()).await), None, "one without them");

    let bench = started(Bench::new(NO_USERS)).await;
    let ended = HistogramDataPoint { flags: 1, ..point("d", 0, None, at(2)) };
    bench.step(&cumulative_histogram(vec![ended])).await;
    assert_eq!(extremes(&bench.step(&next()).await), None, "one that has ended");

    let bench = started(Bench::new(NO_USERS)).await;
    let older = HistogramDataPoint { start_time_unix_nano: 0, ..point("e", 7, Some((0.0, 0.9)), at(2)) };
    bench.step(&cumulative_histogram(vec![older])).await;
    assert_eq!(extremes(&bench.step(&next()).await), None, "one that was not counted from its start");
}
