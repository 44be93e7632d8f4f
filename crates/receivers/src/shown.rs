//! OTLP metrics as text, for tests: one line a point.

use nyquist_core::proto::common::v1::{KeyValue, any_value::Value};
use nyquist_core::proto::metrics::v1::metric::Data;
use nyquist_core::proto::metrics::v1::{Exemplar, MetricsData, NumberDataPoint, number_data_point};

/// Every point of `data`: `resource | metric type{attributes} what it says @time`, times in milliseconds, in the
/// order of the text.
pub(crate) fn points(data: &MetricsData) -> Vec<String> {
    let mut lines = Vec::new();
    for resource in &data.resource_metrics {
        let own = pairs(resource.resource.as_ref().map_or(&[], |resource| &resource.attributes));
        for scope in &resource.scope_metrics {
            for metric in &scope.metrics {
                let unit = if metric.unit.is_empty() { String::new() } else { format!("[{}]", metric.unit) };
                let mut add = |kind: &str, attributes: &[KeyValue], flags: u32, text: String, start: u64, time: u64| {
                    let text = if flags == 1 { format!("ended{}", inner(&text)) } else { text };
                    let from = if start == 0 { String::new() } else { format!(" from {}", start / 1_000_000) };
                    let (name, attributes) = (&metric.name, pairs(attributes));
                    let line =
                        format!("{own} | {kind} {name}{unit}{{{attributes}}} {text}{from} @{}", time / 1_000_000);
                    lines.push(line);
                };
                match metric.data.as_ref().expect("data") {
                    Data::Gauge(gauge) => {
                        for point in &gauge.data_points {
                            let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
                            add("gauge", &point.attributes, point.flags, number(point), start, time);
                        }
                    }
                    Data::Sum(sum) => {
                        assert_eq!(sum.aggregation_temporality, 2);
                        let kind = if sum.is_monotonic { "counter" } else { "sum" };
                        for point in &sum.data_points {
                            let text = format!("{}{}", number(point), exemplars(&point.exemplars));
                            let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
                            add(kind, &point.attributes, point.flags, text, start, time);
                        }
                    }
                    Data::Histogram(histogram) => {
                        assert_eq!(histogram.aggregation_temporality, 2);
                        for point in &histogram.data_points {
                            let text = format!(
                                "{:?} {:?} count={} sum={:?}{}",
                                point.explicit_bounds,
                                point.bucket_counts,
                                point.count,
                                point.sum,
                                exemplars(&point.exemplars)
                            );
                            let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
                            add("histogram", &point.attributes, point.flags, text, start, time);
                        }
                    }
                    Data::ExponentialHistogram(histogram) => {
                        for point in &histogram.data_points {
                            let buckets = |buckets: &Option<
                                nyquist_core::proto::metrics::v1::exponential_histogram_data_point::Buckets,
                            >| {
                                buckets.as_ref().map(|own| format!("{}:{:?}", own.offset, own.bucket_counts))
                            };
                            let text = format!(
                                "scale={} zero={}<{} +{} -{} count={} sum={:?}{}",
                                point.scale,
                                point.zero_count,
                                point.zero_threshold,
                                buckets(&point.positive).unwrap_or_default(),
                                buckets(&point.negative).unwrap_or_default(),
                                point.count,
                                point.sum,
                                exemplars(&point.exemplars)
                            );
                            let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
                            add("exponential", &point.attributes, point.flags, text, start, time);
                        }
                    }
                    Data::Summary(summary) => {
                        for point in &summary.data_points {
                            let values: Vec<String> = point
                                .quantile_values
                                .iter()
                                .map(|value| format!("{}={}", value.quantile, value.value))
                                .collect();
                            let text = format!("{} count={} sum={}", values.join(","), point.count, point.sum);
                            let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
                            add("summary", &point.attributes, point.flags, text, start, time);
                        }
                    }
                }
            }
        }
    }
    lines.sort();
    lines
}

/// Of the text of a point that has ended: its bounds or quantiles.
fn inner(text: &str) -> String {
    let bounds = text.split(" [").next().filter(|text| text.starts_with('[') && *text != "[]");
    let quantiles = text.split(" count=").next().filter(|text| text.contains('=') && !text.contains("scale="));
    bounds.or(quantiles).map(|own| format!(" {own}")).unwrap_or_default()
}

/// The scopes: name, version, schema URL and attributes.
pub(crate) fn scopes(data: &MetricsData) -> Vec<String> {
    let all = data.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let shown = all.map(|own| {
        let scope = own.scope.clone().unwrap_or_default();
        format!("{} {} {} {}", scope.name, scope.version, own.schema_url, pairs(&scope.attributes))
    });
    shown.collect()
}

fn number(point: &NumberDataPoint) -> String {
    match point.value {
        Some(number_data_point::Value::AsDouble(value)) => value.to_string(),
        Some(number_data_point::Value::AsInt(value)) => value.to_string(),
        None => "nothing".to_owned(),
    }
}

fn exemplars(exemplars: &[Exemplar]) -> String {
    let show = |own: &Exemplar| {
        let value = match own.value {
            Some(nyquist_core::proto::metrics::v1::exemplar::Value::AsDouble(value)) => value,
            _ => f64::NAN,
        };
        let (trace, span) = (hex::encode(&own.trace_id), hex::encode(&own.span_id));
        format!(" # {trace} {span} {} {value}@{}", pairs(&own.filtered_attributes), own.time_unix_nano / 1_000_000)
    };
    exemplars.iter().map(show).collect()
}

fn pairs(attributes: &[KeyValue]) -> String {
    let show = |own: &KeyValue| match own.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => format!("{}={text}", own.key),
        other => format!("{}={other:?}", own.key),
    };
    attributes.iter().map(show).collect::<Vec<_>>().join(",")
}
