//! OTLP metrics in few words, for tests.

use nyquist_core::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use nyquist_core::proto::metrics::v1::{
    AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exemplar, exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
    summary_data_point::ValueAtQuantile,
};
use nyquist_core::proto::resource::v1::Resource;

/// 1,700,000,000 seconds, in milliseconds.
pub(crate) const T: i64 = 1_700_000_000_000;

pub(crate) const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;
pub(crate) const DELTA: i32 = AggregationTemporality::Delta as i32;

pub(crate) fn nanos(millis: i64) -> u64 {
    millis as u64 * 1_000_000
}

pub(crate) fn attributes(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    let value = |text: &str| Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
    pairs
        .iter()
        .map(|(key, text)| KeyValue { key: (*key).to_owned(), value: value(text), ..Default::default() })
        .collect()
}

/// The resource of the test cases.
pub(crate) const SHOP: &[(&str, &str)] =
    &[("service.namespace", "shop"), ("service.name", "cart"), ("service.instance.id", "i-1")];

pub(crate) fn push(metrics: Vec<Metric>) -> MetricsData {
    push_from(SHOP, metrics)
}

pub(crate) fn push_from(resource: &[(&str, &str)], metrics: Vec<Metric>) -> MetricsData {
    push_scoped(resource, InstrumentationScope::default(), "", metrics)
}

pub(crate) fn push_scoped(
    resource: &[(&str, &str)],
    scope: InstrumentationScope,
    schema_url: &str,
    metrics: Vec<Metric>,
) -> MetricsData {
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: schema_url.to_owned() }];
    let resource = Some(Resource { attributes: attributes(resource), ..Default::default() });
    MetricsData { resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }] }
}

pub(crate) fn metric(name: &str, unit: &str, data: Data) -> Metric {
    Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description: "What it is".to_owned(),
        data: Some(data),
        ..Default::default()
    }
}

pub(crate) fn number(value: f64, at: i64, labels: &[(&str, &str)]) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: nanos(T - 60_000),
        time_unix_nano: nanos(at),
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    }
}

pub(crate) fn int(value: i64, at: i64) -> NumberDataPoint {
    NumberDataPoint { value: Some(number_data_point::Value::AsInt(value)), ..number(0.0, at, &[]) }
}

pub(crate) fn gauge(name: &str, unit: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    metric(name, unit, Data::Gauge(Gauge { data_points }))
}

/// A gauge of one point with these attributes.
pub(crate) fn labelled(labels: &[(&str, &str)]) -> Metric {
    gauge("x", "", vec![number(1.0, T, labels)])
}

pub(crate) fn sum(
    name: &str,
    unit: &str,
    is_monotonic: bool,
    temporality: i32,
    data_points: Vec<NumberDataPoint>,
) -> Metric {
    metric(name, unit, Data::Sum(Sum { data_points, is_monotonic, aggregation_temporality: temporality }))
}

/// The histogram of most cases: bounds 0.5 and 1, counts 1, 2, 3.
pub(crate) fn histogram_point() -> HistogramDataPoint {
    HistogramDataPoint {
        time_unix_nano: nanos(T),
        count: 6,
        sum: Some(9.0),
        explicit_bounds: vec![0.5, 1.0],
        bucket_counts: vec![1, 2, 3],
        ..Default::default()
    }
}

pub(crate) fn histogram(point: HistogramDataPoint) -> Metric {
    let histogram = Histogram { data_points: vec![point], aggregation_temporality: CUMULATIVE };
    metric("h", "s", Data::Histogram(histogram))
}

pub(crate) fn exponential(scale: i32, offset: i32, counts: &[u64]) -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        time_unix_nano: nanos(T),
        scale,
        sum: Some(9.0),
        count: counts.iter().sum(),
        positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
        ..Default::default()
    }
}

pub(crate) fn exponentials(point: ExponentialHistogramDataPoint) -> Metric {
    let histogram = ExponentialHistogram { data_points: vec![point], aggregation_temporality: CUMULATIVE };
    metric("e", "", Data::ExponentialHistogram(histogram))
}

pub(crate) fn summary() -> Metric {
    let point = SummaryDataPoint {
        time_unix_nano: nanos(T),
        count: 4,
        sum: 3.0,
        quantile_values: vec![
            ValueAtQuantile { quantile: 0.5, value: 1.0 },
            ValueAtQuantile { quantile: 0.99, value: 2.0 },
        ],
        ..Default::default()
    };
    metric("x", "", Data::Summary(Summary { data_points: vec![point] }))
}

pub(crate) fn an_exemplar(value: f64, labels: &[(&str, &str)]) -> Exemplar {
    Exemplar {
        filtered_attributes: attributes(labels),
        time_unix_nano: nanos(T),
        trace_id: (1..=16).collect(),
        span_id: (1..=8).collect(),
        value: Some(exemplar::Value::AsDouble(value)),
    }
}
