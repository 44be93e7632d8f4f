//! The decoded message, and the same message as the views show it.

use prost::Message;

use crate::proto::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value};
use crate::proto::logs::v1::{LogRecord, LogsData, ResourceLogs, ScopeLogs};
use crate::proto::metrics::v1 as pb;
use crate::proto::resource::v1::Resource;
use crate::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use crate::wire::{self, DataPoint, Fields, MetricKind, Number, Temporality, Value};

/// A decoded request.
pub(super) trait Model: Message + Default + std::fmt::Debug {
    fn items(&self) -> usize;
    fn invalid_ids(&self) -> usize {
        0
    }
    /// Reads `bytes` with nothing but views.
    fn through_views(bytes: &[u8]) -> Self;
    /// Removes what views do not show.
    fn forget_what_views_lack(&mut self);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the check saw to UTF-8")
}

fn children(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    Fields::new(message).filter_map(|field| match field.value {
        Value::Len(bytes) if field.number == 1 => Some(bytes),
        _ => None,
    })
}

fn value(view: wire::AnyValue<'_>) -> Option<AnyValue> {
    use any_value::Value;
    let value = match view {
        wire::AnyValue::Empty => return None,
        wire::AnyValue::String(bytes) => Value::StringValue(text(bytes)),
        wire::AnyValue::Bool(value) => Value::BoolValue(value),
        wire::AnyValue::Int(value) => Value::IntValue(value),
        wire::AnyValue::Double(value) => Value::DoubleValue(value),
        wire::AnyValue::Bytes(bytes) => Value::BytesValue(bytes.to_vec()),
        wire::AnyValue::Array(bytes) => {
            // An element that is empty is an element.
            let values = children(bytes).map(|bytes| value(wire::AnyValue::new(bytes)).unwrap_or_default()).collect();
            Value::ArrayValue(ArrayValue { values })
        }
        wire::AnyValue::KvList(bytes) => {
            let values = children(bytes).map(|bytes| pair(wire::KeyValue::new(bytes))).collect();
            Value::KvlistValue(KeyValueList { values })
        }
    };
    Some(AnyValue { value: Some(value) })
}

fn pair(view: wire::KeyValue<'_>) -> KeyValue {
    KeyValue { key: text(view.key), value: value(view.value), ..Default::default() }
}

/// The attributes of a message whose accessor is `attributes`: iterated over, selected by the keys
/// that were met, and looked up one by one.
fn attributes(attributes: wire::Attributes<'_>) -> Vec<KeyValue> {
    let all: Vec<_> = attributes.clone().collect();
    let keys = wire::KeySet::new(all.iter().map(|attribute| attribute.key));
    for attribute in &all {
        let first = all.iter().find(|other| other.key == attribute.key).map(|other| other.value);
        assert_eq!(format!("{:?}", attributes.clone().get(attribute.key)), format!("{first:?}"));
    }
    let mut selected = Vec::new();
    attributes.select(&keys, |index, value| selected.push(wire::KeyValue { key: keys.key(index).unwrap(), value }));
    // Not compared as values: NaN.
    assert_eq!(format!("{all:?}"), format!("{selected:?}"));
    pairs(all.into_iter())
}

fn pairs<'a>(views: impl Iterator<Item = wire::KeyValue<'a>>) -> Vec<KeyValue> {
    views.map(pair).collect()
}

fn forget_value(value: &mut Option<AnyValue>) {
    if let Some(set) = value {
        forget_in_value(set);
        if set.value.is_none() {
            *value = None;
        }
    }
}

fn forget_in_value(value: &mut AnyValue) {
    match &mut value.value {
        Some(any_value::Value::StringValueStrindex(_)) => value.value = None,
        Some(any_value::Value::ArrayValue(array)) => array.values.iter_mut().for_each(forget_in_value),
        Some(any_value::Value::KvlistValue(list)) => forget_pairs(&mut list.values),
        _ => {}
    }
}

fn forget_pairs(pairs: &mut [KeyValue]) {
    for pair in pairs {
        pair.key_strindex = 0;
        forget_value(&mut pair.value);
    }
}

fn forget_resource(resource: &mut Option<Resource>) {
    let resource = resource.get_or_insert_default();
    resource.dropped_attributes_count = 0;
    resource.entity_refs.clear();
    forget_pairs(&mut resource.attributes);
}

fn forget_scope(scope: &mut Option<InstrumentationScope>) {
    let scope = scope.get_or_insert_default();
    scope.dropped_attributes_count = 0;
    forget_pairs(&mut scope.attributes);
}

/// The resource and scope levels, which differ only in names.
macro_rules! envelope {
    ($view:expr, $resources:ident, $scopes:ident, $items:ident, $Data:ident, $Resource:ident, $Scope:ident, $item:expr) => {
        $Data {
            $resources: $view
                .$resources()
                .map(|resource| $Resource {
                    resource: Some(Resource {
                        attributes: pairs(resource.resource_attributes()),
                        ..Default::default()
                    }),
                    schema_url: text(resource.schema_url()),
                    $scopes: resource
                        .$scopes()
                        .map(|scope| $Scope {
                            scope: Some(InstrumentationScope {
                                name: text(scope.scope_name()),
                                version: text(scope.scope_version()),
                                attributes: pairs(scope.scope_attributes()),
                                ..Default::default()
                            }),
                            schema_url: text(scope.schema_url()),
                            $items: scope.$items().map($item).collect(),
                        })
                        .collect(),
                })
                .collect(),
        }
    };
}

macro_rules! forget_envelope {
    ($data:expr, $resources:ident, $scopes:ident, $items:ident, $item:expr) => {
        for resource in &mut $data.$resources {
            forget_resource(&mut resource.resource);
            for scope in &mut resource.$scopes {
                forget_scope(&mut scope.scope);
                scope.$items.iter_mut().for_each($item);
            }
        }
    };
}

impl Model for TracesData {
    fn items(&self) -> usize {
        self.resource_spans.iter().flat_map(|resource| &resource.scope_spans).map(|scope| scope.spans.len()).sum()
    }

    fn invalid_ids(&self) -> usize {
        let valid = |id: &[u8], len| id.len() == len && id.iter().any(|byte| *byte != 0);
        self.resource_spans
            .iter()
            .flat_map(|resource| &resource.scope_spans)
            .flat_map(|scope| &scope.spans)
            .filter(|span| !(valid(&span.trace_id, 16) && valid(&span.span_id, 8)))
            .count()
    }

    fn through_views(bytes: &[u8]) -> Self {
        let view = wire::TracesView::new(bytes);
        envelope!(view, resource_spans, scope_spans, spans, TracesData, ResourceSpans, ScopeSpans, span)
    }

    fn forget_what_views_lack(&mut self) {
        forget_envelope!(self, resource_spans, scope_spans, spans, |span| {
            span.dropped_attributes_count = 0;
            span.dropped_events_count = 0;
            span.dropped_links_count = 0;
            span.events.clear();
            span.links.clear();
            span.status.get_or_insert_default();
            forget_pairs(&mut span.attributes);
        });
    }
}

fn span(view: wire::SpanView<'_>) -> Span {
    let fields = view.fields();
    // The accessors must say the same.
    assert_eq!(
        (fields.trace_id, fields.span_id, fields.parent_span_id, fields.name),
        (view.trace_id(), view.span_id(), view.parent_span_id(), view.name())
    );
    assert_eq!((fields.start_time, fields.end_time), (view.start_time(), view.end_time()));
    assert_eq!(fields.status_code, view.status_code() as i32);
    Span {
        trace_id: fields.trace_id.to_vec(),
        span_id: fields.span_id.to_vec(),
        trace_state: text(fields.trace_state),
        parent_span_id: fields.parent_span_id.to_vec(),
        name: text(fields.name),
        kind: fields.kind,
        start_time_unix_nano: fields.start_time,
        end_time_unix_nano: fields.end_time,
        flags: fields.flags,
        status: Some(Status { message: text(fields.status_message), code: fields.status_code }),
        attributes: attributes(view.attributes()),
        ..Default::default()
    }
}

impl Model for LogsData {
    fn items(&self) -> usize {
        self.resource_logs.iter().flat_map(|resource| &resource.scope_logs).map(|scope| scope.log_records.len()).sum()
    }

    fn through_views(bytes: &[u8]) -> Self {
        let view = wire::LogsView::new(bytes);
        envelope!(view, resource_logs, scope_logs, log_records, LogsData, ResourceLogs, ScopeLogs, log_record)
    }

    fn forget_what_views_lack(&mut self) {
        forget_envelope!(self, resource_logs, scope_logs, log_records, |record| {
            forget_value(&mut record.body);
            forget_pairs(&mut record.attributes);
        });
    }
}

fn log_record(view: wire::LogRecordView<'_>) -> LogRecord {
    let fields = view.fields();
    LogRecord {
        time_unix_nano: fields.time,
        observed_time_unix_nano: fields.observed_time,
        severity_number: fields.severity_number,
        severity_text: text(fields.severity_text),
        body: value(view.body()),
        attributes: attributes(view.attributes()),
        dropped_attributes_count: fields.dropped_attributes_count,
        flags: fields.flags,
        trace_id: fields.trace_id.to_vec(),
        span_id: fields.span_id.to_vec(),
        event_name: text(fields.event_name),
    }
}

use pb::{MetricsData, ResourceMetrics, ScopeMetrics};

impl Model for MetricsData {
    fn items(&self) -> usize {
        self.resource_metrics
            .iter()
            .flat_map(|resource| &resource.scope_metrics)
            .flat_map(|scope| &scope.metrics)
            .map(|metric| match &metric.data {
                None => 0,
                Some(pb::metric::Data::Gauge(gauge)) => gauge.data_points.len(),
                Some(pb::metric::Data::Sum(sum)) => sum.data_points.len(),
                Some(pb::metric::Data::Histogram(histogram)) => histogram.data_points.len(),
                Some(pb::metric::Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
                Some(pb::metric::Data::Summary(summary)) => summary.data_points.len(),
            })
            .sum()
    }

    fn through_views(bytes: &[u8]) -> Self {
        let view = wire::MetricsView::new(bytes);
        envelope!(view, resource_metrics, scope_metrics, metrics, MetricsData, ResourceMetrics, ScopeMetrics, metric)
    }

    fn forget_what_views_lack(&mut self) {
        forget_envelope!(self, resource_metrics, scope_metrics, metrics, forget_metric);
    }
}

fn forget_temporality(temporality: &mut i32) {
    if !(0..=2).contains(temporality) {
        *temporality = 0;
    }
}

fn forget_exemplars(exemplars: &mut [pb::Exemplar]) {
    exemplars.iter_mut().for_each(|exemplar| forget_pairs(&mut exemplar.filtered_attributes));
}

fn forget_metric(metric: &mut pb::Metric) {
    forget_pairs(&mut metric.metadata);
    let forget_numbers = |points: &mut [pb::NumberDataPoint]| {
        for point in points {
            forget_pairs(&mut point.attributes);
            forget_exemplars(&mut point.exemplars);
        }
    };
    match &mut metric.data {
        None => {}
        Some(pb::metric::Data::Gauge(gauge)) => forget_numbers(&mut gauge.data_points),
        Some(pb::metric::Data::Sum(sum)) => {
            forget_temporality(&mut sum.aggregation_temporality);
            forget_numbers(&mut sum.data_points);
        }
        Some(pb::metric::Data::Histogram(histogram)) => {
            forget_temporality(&mut histogram.aggregation_temporality);
            for point in &mut histogram.data_points {
                forget_pairs(&mut point.attributes);
                forget_exemplars(&mut point.exemplars);
            }
        }
        Some(pb::metric::Data::ExponentialHistogram(histogram)) => {
            forget_temporality(&mut histogram.aggregation_temporality);
            for point in &mut histogram.data_points {
                forget_pairs(&mut point.attributes);
                forget_exemplars(&mut point.exemplars);
                point.positive.get_or_insert_default();
                point.negative.get_or_insert_default();
            }
        }
        Some(pb::metric::Data::Summary(summary)) => {
            summary.data_points.iter_mut().for_each(|point| forget_pairs(&mut point.attributes));
        }
    }
}

fn metric(view: wire::MetricView<'_>) -> pb::Metric {
    let fields = view.fields();
    let temporality = |temporality| match temporality {
        Temporality::Unspecified => 0,
        Temporality::Delta => 1,
        Temporality::Cumulative => 2,
    };
    let points: Vec<DataPoint<'_>> = fields.data_points().collect();
    let numbers = || points.iter().map(number_point).collect();
    let data = fields.kind.map(|kind| match kind {
        MetricKind::Gauge => pb::metric::Data::Gauge(pb::Gauge { data_points: numbers() }),
        MetricKind::Sum { temporality: of, monotonic } => pb::metric::Data::Sum(pb::Sum {
            data_points: numbers(),
            aggregation_temporality: temporality(of),
            is_monotonic: monotonic,
        }),
        MetricKind::Histogram { temporality: of } => pb::metric::Data::Histogram(pb::Histogram {
            data_points: points.iter().map(histogram_point).collect(),
            aggregation_temporality: temporality(of),
        }),
        MetricKind::ExponentialHistogram { temporality: of } => {
            pb::metric::Data::ExponentialHistogram(pb::ExponentialHistogram {
                data_points: points.iter().map(exponential_point).collect(),
                aggregation_temporality: temporality(of),
            })
        }
        MetricKind::Summary => {
            pb::metric::Data::Summary(pb::Summary { data_points: points.iter().map(summary_point).collect() })
        }
    });
    assert_eq!(view.name(), fields.name);
    pb::Metric {
        name: text(fields.name),
        description: text(fields.description),
        unit: text(fields.unit),
        metadata: pairs(view.metadata()),
        data,
    }
}

fn exemplar(view: wire::ExemplarView<'_>) -> pb::Exemplar {
    let fields = view.fields();
    pb::Exemplar {
        filtered_attributes: pairs(view.filtered_attributes()),
        time_unix_nano: fields.time,
        span_id: fields.span_id.to_vec(),
        trace_id: fields.trace_id.to_vec(),
        value: fields.value.map(|value| match value {
            Number::Int(value) => pb::exemplar::Value::AsInt(value),
            Number::Double(value) => pb::exemplar::Value::AsDouble(value),
        }),
    }
}

fn number_point(point: &DataPoint<'_>) -> pb::NumberDataPoint {
    let DataPoint::Number(view) = point else { panic!("not a number point: {point:?}") };
    let fields = view.fields();
    pb::NumberDataPoint {
        attributes: attributes(view.attributes()),
        start_time_unix_nano: fields.start_time,
        time_unix_nano: fields.time,
        exemplars: view.exemplars().map(exemplar).collect(),
        flags: fields.flags,
        value: fields.value.map(|value| match value {
            Number::Int(value) => pb::number_data_point::Value::AsInt(value),
            Number::Double(value) => pb::number_data_point::Value::AsDouble(value),
        }),
    }
}

fn histogram_point(point: &DataPoint<'_>) -> pb::HistogramDataPoint {
    let DataPoint::Histogram(view) = point else { panic!("not a histogram point: {point:?}") };
    let fields = view.fields();
    pb::HistogramDataPoint {
        attributes: attributes(point.attributes()),
        start_time_unix_nano: fields.start_time,
        time_unix_nano: fields.time,
        count: fields.count,
        sum: fields.sum,
        bucket_counts: view.bucket_counts().collect(),
        explicit_bounds: view.explicit_bounds().collect(),
        exemplars: view.exemplars().map(exemplar).collect(),
        flags: fields.flags,
        min: fields.min,
        max: fields.max,
    }
}

fn exponential_point(point: &DataPoint<'_>) -> pb::ExponentialHistogramDataPoint {
    let DataPoint::ExponentialHistogram(view) = point else { panic!("not an exponential point: {point:?}") };
    let fields = view.fields();
    let buckets = |view: wire::BucketsView<'_>| {
        Some(pb::exponential_histogram_data_point::Buckets {
            offset: view.offset(),
            bucket_counts: view.bucket_counts().collect(),
        })
    };
    pb::ExponentialHistogramDataPoint {
        attributes: attributes(point.attributes()),
        start_time_unix_nano: fields.start_time,
        time_unix_nano: fields.time,
        count: fields.count,
        sum: fields.sum,
        scale: fields.scale,
        zero_count: fields.zero_count,
        positive: buckets(view.positive()),
        negative: buckets(view.negative()),
        flags: fields.flags,
        exemplars: view.exemplars().map(exemplar).collect(),
        min: fields.min,
        max: fields.max,
        zero_threshold: fields.zero_threshold,
    }
}

fn summary_point(point: &DataPoint<'_>) -> pb::SummaryDataPoint {
    let DataPoint::Summary(view) = point else { panic!("not a summary point: {point:?}") };
    let fields = view.fields();
    pb::SummaryDataPoint {
        attributes: attributes(point.attributes()),
        start_time_unix_nano: fields.start_time,
        time_unix_nano: fields.time,
        count: fields.count,
        sum: fields.sum,
        quantile_values: view
            .quantile_values()
            .map(|view| pb::summary_data_point::ValueAtQuantile { quantile: view.quantile, value: view.value })
            .collect(),
        flags: fields.flags,
    }
}
