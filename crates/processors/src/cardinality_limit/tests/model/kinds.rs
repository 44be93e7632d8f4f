//! Points of every kind that say the same: that their stream stands at a value, or has grown by it.

use nyquist_core::proto::metrics::v1::exponential_histogram_data_point::Buckets;
use nyquist_core::proto::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Histogram, HistogramDataPoint, Summary, SummaryDataPoint,
};

use super::super::*;
use super::reader::Parts;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Double,
    /// A delta sum that can fall.
    UpDown,
    Histogram,
    /// Histograms of which each stream has bounds of its own: some contain others, some do not fit together.
    Bounds,
    /// Each stream at a scale of its own.
    Exponential,
    Summary,
}

pub(super) const KINDS: [Kind; 7] =
    [Kind::Int, Kind::Double, Kind::UpDown, Kind::Histogram, Kind::Bounds, Kind::Exponential, Kind::Summary];

/// Values are multiples of this, so that their parts are whole numbers.
pub(super) const UNIT: i64 = 6;

/// A point to be sent.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) resource: &'static str,
    pub(super) labels: String,
    pub(super) start: u64,
    pub(super) time: u64,
    pub(super) value: i64,
}

impl Kind {
    pub(super) fn has(self, is_delta: bool) -> bool {
        match self {
            // What it does as a cumulative sum is another test.
            Self::UpDown => is_delta,
            // Summaries have no temporality.
            Self::Summary => !is_delta,
            _ => true,
        }
    }

    /// What a point of `value` adds up to.
    pub(super) fn parts(self, value: i64) -> Parts {
        let value = value as f64;
        Parts(match self {
            Self::Int | Self::Double => vec![value],
            Self::UpDown => vec![-value],
            Self::Bounds | Self::Summary => vec![value, value * 2.0],
            // With two buckets; with the zero bucket and the positive ones.
            Self::Histogram | Self::Exponential => vec![value, value * 2.0, value / 2.0, value / 3.0],
        })
    }

    /// What a point that has come out adds up to, of which the parts must agree.
    pub(super) fn parts_of(self, point: &Point) -> Parts {
        Parts(match &point.data {
            Data::Histogram(data) => {
                let own = &data.data_points[0];
                let buckets: Vec<f64> = own.bucket_counts.iter().map(|count| *count as f64).collect();
                // Of histograms whose bounds do not fit together only count and sum are left.
                let has_buckets = self != Self::Bounds || !buckets.is_empty();
                assert!(!has_buckets || buckets.iter().sum::<f64>() == own.count as f64);
                let mut parts = vec![own.count as f64, own.sum.unwrap()];
                if self == Self::Histogram {
                    assert_eq!(own.explicit_bounds, [1.0, 2.0]);
                    parts.extend([buckets[0], buckets[1]]);
                }
                parts
            }
            Data::ExponentialHistogram(data) => {
                let own = &data.data_points[0];
                let side =
                    |side: &Option<Buckets>| side.iter().flat_map(|side| &side.bucket_counts).sum::<u64>() as f64;
                let (positive, negative) = (side(&own.positive), side(&own.negative));
                assert_eq!(positive + negative + own.zero_count as f64, own.count as f64);
                vec![own.count as f64, own.sum.unwrap(), own.zero_count as f64, positive]
            }
            Data::Summary(data) => {
                let own = &data.data_points[0];
                vec![own.count as f64, own.sum]
            }
            _ => vec![point.value],
        })
    }
}

/// The request that reports `points`.
pub(super) fn data(kind: Kind, is_delta: bool, points: &[Sent]) -> MetricsData {
    let mut request = MetricsData::default();
    for resource in ["1", "2"] {
        let own: Vec<&Sent> = points.iter().filter(|point| point.resource == resource).collect();
        if !own.is_empty() {
            request.resource_metrics.extend(of(resource, metric(kind, is_delta, &own)).resource_metrics);
        }
    }
    request
}

fn metric(kind: Kind, is_delta: bool, points: &[&Sent]) -> Data {
    let aggregation_temporality =
        if is_delta { AggregationTemporality::Delta as i32 } else { AggregationTemporality::Cumulative as i32 };
    let bounds_of = |sent: &Sent| match kind {
        Kind::Bounds => [vec![1.0, 2.0], vec![1.0], vec![3.0], vec![]][sent.labels.len() % 4].clone(),
        _ => vec![1.0, 2.0],
    };
    match kind {
        Kind::Int | Kind::Double | Kind::UpDown => {
            let one = |sent: &&Sent| NumberDataPoint {
                start_time_unix_nano: sent.start,
                value: Some(match kind {
                    Kind::Int => number_data_point::Value::AsInt(sent.value),
                    Kind::Double => number_data_point::Value::AsDouble(sent.value as f64),
                    _ => number_data_point::Value::AsInt(-sent.value),
                }),
                ..point(&sent.labels, 0, sent.time)
            };
            let data_points = points.iter().map(one).collect();
            Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: kind != Kind::UpDown })
        }
        Kind::Histogram | Kind::Bounds => {
            let one = |sent: &&Sent| {
                let (value, explicit_bounds) = (sent.value as u64, bounds_of(sent));
                let bucket_counts = match explicit_bounds.len() {
                    2 => vec![value / 2, value / 3, value / 6],
                    1 => vec![value / 2, value / 2],
                    _ => vec![value],
                };
                HistogramDataPoint {
                    attributes: attributes(&sent.labels),
                    start_time_unix_nano: sent.start,
                    time_unix_nano: sent.time,
                    count: value,
                    sum: Some(sent.value as f64 * 2.0),
                    bucket_counts,
                    explicit_bounds,
                    ..HistogramDataPoint::default()
                }
            };
            Data::Histogram(Histogram { data_points: points.iter().map(one).collect(), aggregation_temporality })
        }
        Kind::Exponential => {
            let one = |sent: &&Sent| {
                let value = sent.value as u64;
                ExponentialHistogramDataPoint {
                    attributes: attributes(&sent.labels),
                    start_time_unix_nano: sent.start,
                    time_unix_nano: sent.time,
                    count: value,
                    sum: Some(sent.value as f64 * 2.0),
                    scale: sent.labels.len() as i32 % 3,
                    zero_count: value / 2,
                    positive: Some(Buckets { offset: -1, bucket_counts: vec![value / 6, value / 6] }),
                    negative: Some(Buckets { offset: 5, bucket_counts: vec![value / 6] }),
                    ..ExponentialHistogramDataPoint::default()
                }
            };
            let data_points = points.iter().map(one).collect();
            Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
        }
        Kind::Summary => {
            let one = |sent: &&Sent| SummaryDataPoint {
                attributes: attributes(&sent.labels),
                start_time_unix_nano: sent.start,
                time_unix_nano: sent.time,
                count: sent.value as u64,
                sum: sent.value as f64 * 2.0,
                ..SummaryDataPoint::default()
            };
            Data::Summary(Summary { data_points: points.iter().map(one).collect() })
        }
    }
}
