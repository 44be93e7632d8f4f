//! Log records.

use nyquist_core::proto::logs::v1::{LogRecord, LogsData};

use super::common::{Lines, inline, inline_resource, inline_scope, plain, time, typed};

pub(super) fn lines(data: &LogsData) -> String {
    let mut out = Lines::default();
    for (index, resource) in data.resource_logs.iter().enumerate() {
        out.line(format_args!("ResourceLog #{index}{}", inline_resource(resource.resource.as_ref())));
        for (index, scope) in resource.scope_logs.iter().enumerate() {
            out.line(format_args!("ScopeLog #{index}{}", inline_scope(scope.scope.as_ref())));
            for record in &scope.log_records {
                out.line(format_args!("{}{}", plain(record.body.as_ref()), inline(&record.attributes)));
            }
        }
    }
    out.finish()
}

pub(super) fn details(data: &LogsData) -> String {
    let mut out = Lines::default();
    for (index, resource) in data.resource_logs.iter().enumerate() {
        out.line(format_args!("ResourceLog #{index}"));
        out.resource(&resource.schema_url, resource.resource.as_ref());
        for (index, scope) in resource.scope_logs.iter().enumerate() {
            out.line(format_args!("ScopeLogs #{index}"));
            out.scope("ScopeLogs", &scope.schema_url, scope.scope.as_ref());
            for (index, record) in scope.log_records.iter().enumerate() {
                out.line(format_args!("LogRecord #{index}"));
                write_record(&mut out, record);
            }
        }
    }
    out.finish()
}

fn write_record(out: &mut Lines, record: &LogRecord) {
    let severity = record.severity_number().as_str_name().trim_start_matches("SEVERITY_NUMBER_");
    let number = record.severity_number;
    out.line(format_args!("ObservedTimestamp: {}", time(record.observed_time_unix_nano)));
    out.line(format_args!("Timestamp: {}", time(record.time_unix_nano)));
    out.line(format_args!("SeverityText: {}", record.severity_text));
    out.line(format_args!("SeverityNumber: {severity}({number})"));
    if !record.event_name.is_empty() {
        out.line(format_args!("EventName: {}", record.event_name));
    }
    out.line(format_args!("Body: {}", typed(record.body.as_ref())));
    out.attributes("Attributes:", "     ", &record.attributes);
    out.line(format_args!("Trace ID: {}", hex::encode(&record.trace_id)));
    out.line(format_args!("Span ID: {}", hex::encode(&record.span_id)));
    out.line(format_args!("Flags: {}", record.flags));
}
