//! OTLP messages as they came off the wire.
//!
//! Nobody decodes what nobody reads: [`Fields`] walks a protobuf message in place, and the views
//! ([`TracesView`], [`MetricsView`], [`LogsView`]) give names to what it finds. Views never fail:
//! bytes enter the pipeline through the ingress check, which accepts exactly what prost accepts.
//! On bytes that were not checked a view stops early; it never panics.
//!
//! Field order, repetition and unknown fields are never assumed: the Go Collector writes fields
//! last to first, and protobuf allows a sub-message to come in several pieces (which merge).

mod check;
mod common;
mod cursor;
mod envelope;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod keys;
mod logs;
mod metrics;
mod reshape;
#[cfg(test)]
mod tests;
mod traces;
mod view;

pub use check::{CheckError, Checked, MAX_VALUE_DEPTH, check};
pub use common::{AnyValue, Attributes, KeyValue};
pub use cursor::{Field, Fields, Malformed, Value, put_len_field, put_tag, put_varint, varint_len};
pub use keys::KeySet;
pub use logs::{LogRecordFields, LogRecordView, LogsView, ResourceLogsView, ScopeLogsView};
pub use metrics::{
    BucketsView, DataPoint, Doubles, ExemplarFields, ExemplarView, ExponentialHistogramDataPointView,
    ExponentialHistogramFields, Fixed64s, HistogramDataPointView, HistogramFields, MetricFields, MetricKind,
    MetricView, MetricsView, Number, NumberDataPointView, NumberFields, PointBytes, ResourceMetricsView,
    ScopeMetricsView, SummaryDataPointView, SummaryFields, Temporality, ValueAtQuantile, Varints,
};
pub use reshape::{
    Owned, Owners, Placed, RequestBuilder, ResourceSlot, ScopeSlot, SizeLimit, TraceId, TracesBuilder, header,
    join_split_values, merge, retain_items, retain_spans, split_by_owner, split_by_size, split_by_trace,
    without_invalid_ids,
};
pub use traces::{ResourceSpansView, ScopeSpansView, SpanFields, SpanView, TracesView, span_kind_text};
