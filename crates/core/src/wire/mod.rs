//! OTLP messages as they came off the wire.
//!
//! Nobody decodes what nobody reads: [`Fields`] walks a protobuf message in place, and the views
//! ([`TracesView`], [`MetricsView`], [`LogsView`]) give names to what it finds. Views never fail:
//! bytes enter the pipeline through the ingress check, which accepts exactly what prost accepts.
//! On bytes that were not checked a view stops early; it never panics.
//!
//! Field order, repetition and unknown fields are never assumed: the Go Collector writes fields
//! last to first, and protobuf allows a sub-message to come in several pieces (which merge).

mod common;
mod cursor;
mod traces;

pub use common::{AnyValue, Attributes, KeyValue};
pub use cursor::{Field, Fields, Malformed, Value, put_len_field, put_tag, put_varint, varint_len};
pub use traces::{ResourceSpansView, ScopeSpansView, SpanView, TracesView};
