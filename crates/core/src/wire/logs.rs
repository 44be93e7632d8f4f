//! `opentelemetry.proto.logs.v1`, read in place.

use super::common::{AnyValue, Attributes, len_fields};
use super::cursor::{Field, Fields, Value};
use super::envelope::envelope_views;
use super::view::view;

envelope_views! {
    /// An `ExportLogsServiceRequest` (equally a `LogsData`).
    LogsView.resource_logs,
    /// A `ResourceLogs`.
    ResourceLogsView.scope_logs,
    /// A `ScopeLogs`.
    ScopeLogsView.log_records,
    LogRecordView
}

view! {
    /// A `LogRecord`. Read it once with [`LogRecordView::fields`].
    LogRecordView
}

/// The fields of a `LogRecord` other than body and attributes, from one scan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogRecordFields<'a> {
    /// `time_unix_nano` (1).
    pub time: u64,
    /// `observed_time_unix_nano` (11).
    pub observed_time: u64,
    /// `severity_number` (2): 1 to 24, 0 unspecified.
    pub severity_number: i32,
    /// `severity_text` (3).
    pub severity_text: &'a [u8],
    /// `dropped_attributes_count` (7).
    pub dropped_attributes_count: u32,
    /// `flags` (8).
    pub flags: u32,
    /// `trace_id` (9): empty if there is none; not checked.
    pub trace_id: &'a [u8],
    /// `span_id` (10): empty if there is none; not checked.
    pub span_id: &'a [u8],
    /// `event_name` (12).
    pub event_name: &'a [u8],
}

impl<'a> LogRecordView<'a> {
    /// Everything but body and attributes, in one scan.
    #[must_use]
    pub fn fields(self) -> LogRecordFields<'a> {
        let mut found = LogRecordFields::default();
        for Field { number, value } in Fields::new(self.0) {
            match (number, value) {
                (1, Value::Fixed64(time)) => found.time = time,
                (2, Value::Varint(severity)) => found.severity_number = severity as i32,
                (3, Value::Len(text)) => found.severity_text = text,
                (7, Value::Varint(count)) => found.dropped_attributes_count = count as u32,
                (8, Value::Fixed32(flags)) => found.flags = flags,
                (9, Value::Len(id)) => found.trace_id = id,
                (10, Value::Len(id)) => found.span_id = id,
                (11, Value::Fixed64(time)) => found.observed_time = time,
                (12, Value::Len(name)) => found.event_name = name,
                _ => {}
            }
        }
        found
    }

    /// `body` (5).
    #[must_use]
    pub fn body(self) -> AnyValue<'a> {
        len_fields(self.0, 5).fold(AnyValue::Empty, AnyValue::merge)
    }

    /// `attributes` (6).
    #[must_use]
    pub fn attributes(self) -> Attributes<'a> {
        Attributes::new(self.0, 6)
    }
}
