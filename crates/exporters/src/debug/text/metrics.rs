//! Data points.

use nyquist_core::proto::common::v1::KeyValue;
use nyquist_core::proto::metrics::v1::{
    AggregationTemporality, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, MetricsData, NumberDataPoint,
    SummaryDataPoint, exponential_histogram_data_point::Buckets, metric::Data, number_data_point::Value,
};

use super::common::{Lines, inline, inline_resource, inline_scope, time};

pub(super) fn lines(data: &MetricsData) -> String {
    let mut out = Lines::default();
    for (index, resource) in data.resource_metrics.iter().enumerate() {
        out.line(format_args!("ResourceMetrics #{index}{}", inline_resource(resource.resource.as_ref())));
        for (index, scope) in resource.scope_metrics.iter().enumerate() {
            out.line(format_args!("ScopeMetrics #{index}{}", inline_scope(scope.scope.as_ref())));
            for metric in &scope.metrics {
                metric_lines(&mut out, metric);
            }
        }
    }
    out.finish()
}

fn metric_lines(out: &mut Lines, metric: &Metric) {
    let mut point = |attributes: &[KeyValue], value: String| {
        let labels = inline(attributes).trim_start().replace(' ', ",");
        out.line(format_args!("{}{{{labels}}} {value}", metric.name));
    };
    match &metric.data {
        None => {}
        Some(Data::Gauge(gauge)) => gauge.data_points.iter().for_each(|p| point(&p.attributes, number(p))),
        Some(Data::Sum(sum)) => sum.data_points.iter().for_each(|p| point(&p.attributes, number(p))),
        Some(Data::Histogram(histogram)) => {
            for p in &histogram.data_points {
                point(
                    &p.attributes,
                    format!("count={}{}", p.count, optional(&[("sum", p.sum), ("min", p.min), ("max", p.max)])),
                );
            }
        }
        Some(Data::ExponentialHistogram(histogram)) => {
            for p in &histogram.data_points {
                point(
                    &p.attributes,
                    format!("count={}{}", p.count, optional(&[("sum", p.sum), ("min", p.min), ("max", p.max)])),
                );
            }
        }
        Some(Data::Summary(summary)) => {
            for p in &summary.data_points {
                let quantiles: String =
                    p.quantile_values.iter().map(|q| format!(" q{}={}", q.quantile, q.value)).collect();
                point(&p.attributes, format!("count={} sum={}{quantiles}", p.count, p.sum));
            }
        }
    }
}

fn optional(values: &[(&str, Option<f64>)]) -> String {
    values.iter().filter_map(|(name, value)| value.map(|value| format!(" {name}={value}"))).collect()
}

fn number(point: &NumberDataPoint) -> String {
    match point.value {
        Some(Value::AsInt(value)) => value.to_string(),
        Some(Value::AsDouble(value)) => value.to_string(),
        None => String::new(),
    }
}

pub(super) fn details(data: &MetricsData) -> String {
    let mut out = Lines::default();
    for (index, resource) in data.resource_metrics.iter().enumerate() {
        out.line(format_args!("ResourceMetrics #{index}"));
        out.resource(&resource.schema_url, resource.resource.as_ref());
        for (index, scope) in resource.scope_metrics.iter().enumerate() {
            out.line(format_args!("ScopeMetrics #{index}"));
            out.scope("ScopeMetrics", &scope.schema_url, scope.scope.as_ref());
            for (index, metric) in scope.metrics.iter().enumerate() {
                out.line(format_args!("Metric #{index}"));
                metric_details(&mut out, metric);
            }
        }
    }
    out.finish()
}

fn metric_details(out: &mut Lines, metric: &Metric) {
    out.line(format_args!("Descriptor:"));
    out.line(format_args!("     -> Name: {}", metric.name));
    out.line(format_args!("     -> Description: {}", metric.description));
    out.line(format_args!("     -> Unit: {}", metric.unit));
    let kind = match &metric.data {
        None => "Empty",
        Some(Data::Gauge(_)) => "Gauge",
        Some(Data::Sum(_)) => "Sum",
        Some(Data::Histogram(_)) => "Histogram",
        Some(Data::ExponentialHistogram(_)) => "ExponentialHistogram",
        Some(Data::Summary(_)) => "Summary",
    };
    out.line(format_args!("     -> DataType: {kind}"));
    match &metric.data {
        None => {}
        Some(Data::Gauge(gauge)) => {
            gauge.data_points.iter().enumerate().for_each(|(index, point)| number_details(out, index, point));
        }
        Some(Data::Sum(sum)) => {
            out.line(format_args!("     -> IsMonotonic: {}", sum.is_monotonic));
            out.line(format_args!("     -> AggregationTemporality: {}", temporality(sum.aggregation_temporality())));
            sum.data_points.iter().enumerate().for_each(|(index, point)| number_details(out, index, point));
        }
        Some(Data::Histogram(histogram)) => {
            let temporality = temporality(histogram.aggregation_temporality());
            out.line(format_args!("     -> AggregationTemporality: {temporality}"));
            histogram.data_points.iter().enumerate().for_each(|(index, point)| histogram_details(out, index, point));
        }
        Some(Data::ExponentialHistogram(histogram)) => {
            let temporality = temporality(histogram.aggregation_temporality());
            out.line(format_args!("     -> AggregationTemporality: {temporality}"));
            histogram.data_points.iter().enumerate().for_each(|(index, point)| exponential_details(out, index, point));
        }
        Some(Data::Summary(summary)) => {
            summary.data_points.iter().enumerate().for_each(|(index, point)| summary_details(out, index, point));
        }
    }
}

fn temporality(value: AggregationTemporality) -> &'static str {
    match value {
        AggregationTemporality::Unspecified => "Unspecified",
        AggregationTemporality::Delta => "Delta",
        AggregationTemporality::Cumulative => "Cumulative",
    }
}

fn head(out: &mut Lines, kind: &str, index: usize, attributes: &[KeyValue], start: u64, at: u64) {
    out.line(format_args!("{kind} #{index}"));
    out.attributes("Data point attributes:", "     ", attributes);
    out.line(format_args!("StartTimestamp: {}", time(start)));
    out.line(format_args!("Timestamp: {}", time(at)));
}

fn number_details(out: &mut Lines, index: usize, point: &NumberDataPoint) {
    head(out, "NumberDataPoints", index, &point.attributes, point.start_time_unix_nano, point.time_unix_nano);
    out.line(format_args!("Value: {}", number(point)));
}

fn extremes(out: &mut Lines, sum: Option<f64>, min: Option<f64>, max: Option<f64>) {
    for (name, value) in [("Sum", sum), ("Min", min), ("Max", max)] {
        if let Some(value) = value {
            out.line(format_args!("{name}: {value}"));
        }
    }
}

fn histogram_details(out: &mut Lines, index: usize, point: &HistogramDataPoint) {
    head(out, "HistogramDataPoints", index, &point.attributes, point.start_time_unix_nano, point.time_unix_nano);
    out.line(format_args!("Count: {}", point.count));
    extremes(out, point.sum, point.min, point.max);
    for (index, bound) in point.explicit_bounds.iter().enumerate() {
        out.line(format_args!("ExplicitBounds #{index}: {bound}"));
    }
    for (index, count) in point.bucket_counts.iter().enumerate() {
        out.line(format_args!("Buckets #{index}, Count: {count}"));
    }
}

fn exponential_details(out: &mut Lines, index: usize, point: &ExponentialHistogramDataPoint) {
    let (start, at) = (point.start_time_unix_nano, point.time_unix_nano);
    head(out, "ExponentialHistogramDataPoints", index, &point.attributes, start, at);
    out.line(format_args!("Count: {}", point.count));
    extremes(out, point.sum, point.min, point.max);
    out.line(format_args!("Scale: {}", point.scale));
    out.line(format_args!("ZeroCount: {}", point.zero_count));
    let base = (2f64).powf((2f64).powi(-point.scale));
    buckets(out, "-", base, point.negative.as_ref());
    buckets(out, "", base, point.positive.as_ref());
}

fn buckets(out: &mut Lines, sign: &str, base: f64, buckets: Option<&Buckets>) {
    let Some(buckets) = buckets else { return };
    for (index, count) in buckets.bucket_counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let exponent = f64::from(buckets.offset) + index as f64;
        let (lower, upper) = (base.powf(exponent), base.powf(exponent + 1.0));
        out.line(format_args!("Bucket ({sign}{lower}, {sign}{upper}], Count: {count}"));
    }
}

fn summary_details(out: &mut Lines, index: usize, point: &SummaryDataPoint) {
    head(out, "SummaryDataPoints", index, &point.attributes, point.start_time_unix_nano, point.time_unix_nano);
    out.line(format_args!("Count: {}", point.count));
    out.line(format_args!("Sum: {}", point.sum));
    for (index, quantile) in point.quantile_values.iter().enumerate() {
        out.line(format_args!("QuantileValue #{index}: Quantile {}, Value {}", quantile.quantile, quantile.value));
    }
}
