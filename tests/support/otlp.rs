//! Spans and metrics that tests make by hand.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::unix_nanos;

/// The id of a span: trace id and span id.
pub(crate) type SpanKey = (Vec<u8>, Vec<u8>);

/// A string attribute.
pub(crate) fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// A trace id that no other `number` gives.
pub(crate) fn trace_id(number: u64) -> Vec<u8> {
    // The low half must look random, because sampling by rate reads it: a bijective mixer
    // (splitmix64's finalizer) keeps it unique.
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    [(number + 1).to_be_bytes(), mixed.to_be_bytes()].concat()
}

/// The spans of trace `number`: a root and its children, 20 ms long, that ended now.
pub(crate) fn trace(number: u64, spans: u64) -> Vec<Span> {
    let end = unix_nanos();
    let span = |index: u64| Span {
        trace_id: trace_id(number),
        span_id: (index + 1).to_be_bytes().to_vec(),
        parent_span_id: if index == 0 { Vec::new() } else { 1_u64.to_be_bytes().to_vec() },
        name: format!("operation-{index}"),
        kind: 2,
        start_time_unix_nano: end - 20_000_000,
        end_time_unix_nano: end,
        attributes: vec![attribute("http.request.method", "GET"), attribute("user.id", &format!("user-{number}"))],
        status: Some(Status::default()),
        ..Span::default()
    };
    (0..spans).map(span).collect()
}

/// A request with `spans` of one resource.
pub(crate) fn traces_request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope { name: "tests".to_owned(), ..InstrumentationScope::default() };
    let scope_spans = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
    let resource = Resource { attributes: vec![attribute("service.name", service)], ..Resource::default() };
    let resource_spans =
        ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

/// A request with one cumulative, monotonic sum of whole numbers; a point for each list of
/// attributes.
pub(crate) fn sum_request(
    service: &str,
    name: &str,
    start: u64,
    points: &[(Vec<KeyValue>, i64)],
) -> ExportMetricsServiceRequest {
    let time = unix_nanos();
    let point = |(attributes, value): &(Vec<KeyValue>, i64)| NumberDataPoint {
        attributes: attributes.clone(),
        start_time_unix_nano: start,
        time_unix_nano: time,
        value: Some(number_data_point::Value::AsInt(*value)),
        ..NumberDataPoint::default()
    };
    let sum = Sum {
        data_points: points.iter().map(point).collect(),
        aggregation_temporality: AggregationTemporality::Cumulative.into(),
        is_monotonic: true,
    };
    let metric = Metric { name: name.to_owned(), data: Some(metric::Data::Sum(sum)), ..Metric::default() };
    let scope_metrics = ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() };
    let resource = Resource { attributes: vec![attribute("service.name", service)], ..Resource::default() };
    let resource_metrics =
        ResourceMetrics { resource: Some(resource), scope_metrics: vec![scope_metrics], ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }
}

/// The keys of all spans of a request.
pub(crate) fn span_keys(request: &ExportTraceServiceRequest) -> Vec<SpanKey> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans).map(|span| (span.trace_id.clone(), span.span_id.clone())).collect()
}
