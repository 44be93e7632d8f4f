//! `opentelemetry.proto.trace.v1`, read in place.

use super::common::{Attributes, KeyValue, last_len, len_fields};
use super::cursor::{Fields, Value};

/// An `ExportTraceServiceRequest` (equally a `TracesData`).
#[derive(Debug, Clone, Copy)]
pub struct TracesView<'a>(&'a [u8]);

impl<'a> TracesView<'a> {
    /// A view of the message in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Its `resource_spans` (1).
    pub fn resource_spans(self) -> impl Iterator<Item = ResourceSpansView<'a>> {
        len_fields(self.0, 1).map(ResourceSpansView)
    }
}

/// A `ResourceSpans`.
#[derive(Debug, Clone, Copy)]
pub struct ResourceSpansView<'a>(&'a [u8]);

impl<'a> ResourceSpansView<'a> {
    /// A view of the message in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The whole message.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The attributes of its resource (1), over all the pieces in which it was written.
    pub fn resource_attributes(self) -> impl Iterator<Item = KeyValue<'a>> {
        len_fields(self.0, 1).flat_map(|resource| Attributes::new(resource, 1))
    }

    /// Its `scope_spans` (2).
    pub fn scope_spans(self) -> impl Iterator<Item = ScopeSpansView<'a>> {
        len_fields(self.0, 2).map(ScopeSpansView)
    }

    /// Its `schema_url` (3).
    #[must_use]
    pub fn schema_url(self) -> &'a [u8] {
        last_len(self.0, 3)
    }
}

/// A `ScopeSpans`.
#[derive(Debug, Clone, Copy)]
pub struct ScopeSpansView<'a>(&'a [u8]);

impl<'a> ScopeSpansView<'a> {
    /// A view of the message in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The whole message.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The attributes of its scope (1).
    pub fn scope_attributes(self) -> impl Iterator<Item = KeyValue<'a>> {
        len_fields(self.0, 1).flat_map(|scope| Attributes::new(scope, 3))
    }

    /// Its `spans` (2).
    pub fn spans(self) -> impl Iterator<Item = SpanView<'a>> {
        len_fields(self.0, 2).map(SpanView)
    }
}

/// A `Span`. Each accessor scans the span: read what you need once.
#[derive(Debug, Clone, Copy)]
pub struct SpanView<'a>(&'a [u8]);

impl<'a> SpanView<'a> {
    /// A view of the message in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The whole message.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// `trace_id` (1): 16 bytes once past the ingress check.
    #[must_use]
    pub fn trace_id(self) -> &'a [u8] {
        last_len(self.0, 1)
    }

    /// `span_id` (2): 8 bytes once past the ingress check.
    #[must_use]
    pub fn span_id(self) -> &'a [u8] {
        last_len(self.0, 2)
    }

    /// `parent_span_id` (4): empty for a root span.
    #[must_use]
    pub fn parent_span_id(self) -> &'a [u8] {
        last_len(self.0, 4)
    }

    /// `name` (5).
    #[must_use]
    pub fn name(self) -> &'a [u8] {
        last_len(self.0, 5)
    }

    /// `start_time_unix_nano` (7).
    #[must_use]
    pub fn start_time(self) -> u64 {
        self.fixed64(7)
    }

    /// `end_time_unix_nano` (8).
    #[must_use]
    pub fn end_time(self) -> u64 {
        self.fixed64(8)
    }

    /// `attributes` (9).
    #[must_use]
    pub fn attributes(self) -> Attributes<'a> {
        Attributes::new(self.0, 9)
    }

    /// The code of `status` (15): 0 unset, 1 ok, 2 error.
    #[must_use]
    pub fn status_code(self) -> u64 {
        len_fields(self.0, 15)
            .flat_map(Fields::new)
            .filter_map(|field| match (field.number, field.value) {
                (3, Value::Varint(code)) => Some(code),
                _ => None,
            })
            .last()
            .unwrap_or_default()
    }

    fn fixed64(self, number: u32) -> u64 {
        Fields::new(self.0)
            .filter_map(|field| match field.value {
                Value::Fixed64(value) if field.number == number => Some(value),
                _ => None,
            })
            .last()
            .unwrap_or_default()
    }
}
