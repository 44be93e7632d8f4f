//! `opentelemetry.proto.trace.v1`, read in place.

use super::common::{Attributes, last_len, len_fields};
use super::cursor::{Field, Fields, Value};
use super::envelope::envelope_views;
use super::view::view;

envelope_views! {
    /// An `ExportTraceServiceRequest` (equally a `TracesData`).
    TracesView.resource_spans,
    /// A `ResourceSpans`.
    ResourceSpansView.scope_spans,
    /// A `ScopeSpans`.
    ScopeSpansView.spans,
    SpanView
}

view! {
    /// A `Span`. Each accessor scans the span: read what you need once, or all at once with
    /// [`SpanView::fields`].
    SpanView
}

/// The fields of a `Span` other than attributes, events and links, from one scan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanFields<'a> {
    /// `trace_id` (1): 16 bytes once past the ingress check.
    pub trace_id: &'a [u8],
    /// `span_id` (2): 8 bytes once past the ingress check.
    pub span_id: &'a [u8],
    /// `trace_state` (3).
    pub trace_state: &'a [u8],
    /// `parent_span_id` (4): empty for a root span.
    pub parent_span_id: &'a [u8],
    /// `name` (5).
    pub name: &'a [u8],
    /// `kind` (6): 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    /// `start_time_unix_nano` (7).
    pub start_time: u64,
    /// `end_time_unix_nano` (8).
    pub end_time: u64,
    /// `flags` (16).
    pub flags: u32,
    /// The code of `status` (15): 0 unset, 1 ok, 2 error.
    pub status_code: i32,
    /// The message of `status` (15).
    pub status_message: &'a [u8],
}

impl<'a> SpanView<'a> {
    /// Everything but attributes, events and links, in one scan.
    #[must_use]
    pub fn fields(self) -> SpanFields<'a> {
        let mut found = SpanFields::default();
        for Field { number, value } in Fields::new(self.0) {
            match (number, value) {
                (1, Value::Len(id)) => found.trace_id = id,
                (2, Value::Len(id)) => found.span_id = id,
                (3, Value::Len(state)) => found.trace_state = state,
                (4, Value::Len(id)) => found.parent_span_id = id,
                (5, Value::Len(name)) => found.name = name,
                (6, Value::Varint(kind)) => found.kind = kind as i32,
                (7, Value::Fixed64(time)) => found.start_time = time,
                (8, Value::Fixed64(time)) => found.end_time = time,
                (15, Value::Len(status)) => {
                    for Field { number, value } in Fields::new(status) {
                        match (number, value) {
                            (2, Value::Len(message)) => found.status_message = message,
                            (3, Value::Varint(code)) => found.status_code = code as i32,
                            _ => {}
                        }
                    }
                }
                (16, Value::Fixed32(flags)) => found.flags = flags,
                _ => {}
            }
        }
        found
    }

    /// `trace_id` (1): 16 bytes once past the ingress check.
    #[must_use]
    pub fn trace_id(self) -> &'a [u8] {
        last_len(self.0, 1)
    }

    /// The same for a span of a batch that [has edge ids](crate::batch::Batch::has_edge_ids): what is between is not
    /// read.
    #[must_use]
    #[inline]
    pub fn edge_trace_id(self) -> &'a [u8] {
        let found = match self.0 {
            [0x0a, 0x10, rest @ ..] => rest.first_chunk::<16>(),
            [0x0a, ..] => None,
            bytes => match bytes.split_last_chunk::<18>() {
                Some((_, [0x0a, 0x10, id @ ..])) => Some(id),
                _ => None,
            },
        };
        match found {
            Some(id) => id,
            // Written in more bytes than it needs.
            None => self.trace_id(),
        }
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
                (3, Value::Varint(code)) => Some(u64::from(code as u32)),
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

/// The name of a span's `kind` (6) as the Collector writes it, which is Go's `SpanKind.String()`; empty if it has none.
#[must_use]
pub fn span_kind_text(kind: i32) -> &'static str {
    match kind {
        0 => "Unspecified",
        1 => "Internal",
        2 => "Server",
        3 => "Client",
        4 => "Producer",
        5 => "Consumer",
        _ => "",
    }
}
