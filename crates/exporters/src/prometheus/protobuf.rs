//! The page as delimited `io.prometheus.client.MetricFamily` messages: what a Prometheus that scrapes
//! native histograms asks for.
//!
//! <https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto>.

use prost::Message;

use super::negotiate::Format;
use super::store::{Series, Snapshot, StoredExemplar};
use crate::prometheus_mapping::{MetricType, NativeHistogram, OwnedValue, Spans, decoded_labels};

/// The whole page. Its names are escaped unless the format has any.
pub(super) fn render(format: Format, snapshot: &Snapshot) -> Vec<u8> {
    let Snapshot { series, families, renamed } = snapshot;
    let mut out = Vec::with_capacity(series.len() * 128);
    let is_same = |left: &Series, right: &Series| renamed.shown(&left.family.name) == renamed.shown(&right.family.name);
    for group in series.chunk_by(is_same) {
        let Some(first) = group.first() else { continue };
        let name = renamed.shown(&first.family.name);
        let info = families.get(name);
        let metric_type = info.map_or(first.family.sample_type(), |info| info.metric_type);
        let family = MetricFamily {
            name: name.to_owned(),
            help: info.map(|info| info.help.to_string()),
            kind: match metric_type {
                MetricType::Counter => 0,
                MetricType::Gauge | MetricType::Info | MetricType::StateSet => 1,
                MetricType::Summary => 2,
                MetricType::Unknown => 3,
                MetricType::Histogram => 4,
            },
            unit: first.family.unit.clone(),
            metric: group.iter().map(|series| metric(format, series, metric_type)).collect(),
        };
        // Writing to a Vec does not fail.
        let _ = family.encode_length_delimited(&mut out);
    }
    out
}

fn metric(format: Format, series: &Series, metric_type: MetricType) -> Metric {
    let label = pairs(&series.labels);
    let mut metric = Metric { label, ..Metric::default() };
    metric.timestamp_ms = format.timestamps.then_some(series.time);
    let created_timestamp = (series.start > 0).then(|| Timestamp::of(series.start));
    match &series.value {
        &OwnedValue::Number { value, .. } => match metric_type {
            MetricType::Counter => {
                let exemplar = series.exemplar(f64::NEG_INFINITY, f64::INFINITY).map(exemplar);
                metric.counter = Some(Counter { value, exemplar, created_timestamp });
            }
            MetricType::Unknown => metric.untyped = Some(Number { value }),
            _ => metric.gauge = Some(Number { value }),
        },
        OwnedValue::Histogram { count, sum, bounds, counts } => {
            let (mut all, mut below) = (0u64, f64::NEG_INFINITY);
            let mut bucket = Vec::with_capacity(bounds.len() + 1);
            for (&upper_bound, count) in bounds.iter().zip(counts) {
                all = all.saturating_add(*count);
                let exemplar = series.exemplar(below, upper_bound).map(exemplar);
                bucket.push(Bucket { cumulative_count: all, upper_bound, exemplar });
                below = upper_bound;
            }
            let exemplar = series.exemplar(below, f64::INFINITY).map(exemplar);
            bucket.push(Bucket { cumulative_count: *count, upper_bound: f64::INFINITY, exemplar });
            let (sample_count, sample_sum) = (*count, sum.unwrap_or_default());
            metric.histogram =
                Some(Histogram { sample_count, sample_sum, bucket, created_timestamp, ..Histogram::default() });
        }
        OwnedValue::Native(histogram) => {
            let exemplars = series.exemplars.iter().map(exemplar).collect();
            metric.histogram = Some(Histogram { created_timestamp, exemplars, ..native(histogram) });
        }
        OwnedValue::Summary { count, sum, quantiles } => {
            let quantile = quantiles.iter().map(|&(quantile, value)| Quantile { quantile, value }).collect();
            metric.summary = Some(Summary { sample_count: *count, sample_sum: *sum, quantile, created_timestamp });
        }
    }
    metric
}

fn native(histogram: &NativeHistogram) -> Histogram {
    let spans = |spans: &Spans| spans.spans.iter().map(|&(offset, length)| BucketSpan { offset, length }).collect();
    Histogram {
        sample_count: histogram.count,
        sample_sum: histogram.sum,
        schema: Some(histogram.schema),
        zero_threshold: Some(histogram.zero_threshold),
        zero_count: Some(histogram.zero_count),
        negative_span: spans(&histogram.negative),
        negative_delta: histogram.negative.deltas.clone(),
        positive_span: spans(&histogram.positive),
        positive_delta: histogram.positive.deltas.clone(),
        ..Histogram::default()
    }
}

fn exemplar(exemplar: &StoredExemplar) -> Exemplar {
    let label = pairs(&exemplar.labels);
    Exemplar { label, value: exemplar.value, timestamp: Some(Timestamp::of(exemplar.time)) }
}

fn pairs(labels: &[u8]) -> Vec<LabelPair> {
    let pair = |(name, value): (&[u8], &[u8])| LabelPair {
        name: String::from_utf8_lossy(name).into_owned(),
        value: String::from_utf8_lossy(value).into_owned(),
    };
    decoded_labels(labels).map(pair).collect()
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MetricFamily {
    #[prost(string, required, tag = "1")]
    pub(super) name: String,
    #[prost(string, optional, tag = "2")]
    pub(super) help: Option<String>,
    /// A `MetricType`, which is an enum.
    #[prost(int32, required, tag = "3")]
    pub(super) kind: i32,
    #[prost(message, repeated, tag = "4")]
    pub(super) metric: Vec<Metric>,
    #[prost(string, tag = "5")]
    pub(super) unit: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub(super) label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    pub(super) gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    pub(super) counter: Option<Counter>,
    #[prost(message, optional, tag = "4")]
    pub(super) summary: Option<Summary>,
    #[prost(message, optional, tag = "5")]
    pub(super) untyped: Option<Number>,
    #[prost(message, optional, tag = "7")]
    pub(super) histogram: Option<Histogram>,
    #[prost(int64, optional, tag = "6")]
    pub(super) timestamp_ms: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelPair {
    #[prost(string, required, tag = "1")]
    pub(super) name: String,
    #[prost(string, required, tag = "2")]
    pub(super) value: String,
}

/// A `Gauge` or an `Untyped`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Number {
    #[prost(double, required, tag = "1")]
    pub(super) value: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Counter {
    #[prost(double, required, tag = "1")]
    pub(super) value: f64,
    #[prost(message, optional, tag = "2")]
    pub(super) exemplar: Option<Exemplar>,
    #[prost(message, optional, tag = "3")]
    pub(super) created_timestamp: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Quantile {
    #[prost(double, required, tag = "1")]
    pub(super) quantile: f64,
    #[prost(double, required, tag = "2")]
    pub(super) value: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    #[prost(uint64, required, tag = "1")]
    pub(super) sample_count: u64,
    #[prost(double, required, tag = "2")]
    pub(super) sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub(super) quantile: Vec<Quantile>,
    #[prost(message, optional, tag = "4")]
    pub(super) created_timestamp: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    #[prost(uint64, required, tag = "1")]
    pub(super) sample_count: u64,
    #[prost(double, required, tag = "2")]
    pub(super) sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub(super) bucket: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    pub(super) schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    pub(super) zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    pub(super) zero_count: Option<u64>,
    #[prost(message, repeated, tag = "9")]
    pub(super) negative_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "10")]
    pub(super) negative_delta: Vec<i64>,
    #[prost(message, repeated, tag = "12")]
    pub(super) positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    pub(super) positive_delta: Vec<i64>,
    #[prost(message, optional, tag = "15")]
    pub(super) created_timestamp: Option<Timestamp>,
    #[prost(message, repeated, tag = "16")]
    pub(super) exemplars: Vec<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Bucket {
    #[prost(uint64, required, tag = "1")]
    pub(super) cumulative_count: u64,
    #[prost(double, required, tag = "2")]
    pub(super) upper_bound: f64,
    #[prost(message, optional, tag = "3")]
    pub(super) exemplar: Option<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BucketSpan {
    #[prost(sint32, required, tag = "1")]
    pub(super) offset: i32,
    #[prost(uint32, required, tag = "2")]
    pub(super) length: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    pub(super) label: Vec<LabelPair>,
    #[prost(double, required, tag = "2")]
    pub(super) value: f64,
    #[prost(message, optional, tag = "3")]
    pub(super) timestamp: Option<Timestamp>,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

impl Timestamp {
    fn of(millis: i64) -> Self {
        // Below a thousand million: 32 bits.
        Self { seconds: millis.div_euclid(1000), nanos: (millis.rem_euclid(1000) * 1_000_000) as i32 }
    }
}
