//! Spans.

use nyquist_core::proto::trace::v1::{Span, TracesData, span::SpanKind, status::StatusCode};

use super::common::{Lines, inline, inline_resource, inline_scope, time};

pub(super) fn lines(data: &TracesData) -> String {
    let mut out = Lines::default();
    for (index, resource) in data.resource_spans.iter().enumerate() {
        out.line(format_args!("ResourceTraces #{index}{}", inline_resource(resource.resource.as_ref())));
        for (index, scope) in resource.scope_spans.iter().enumerate() {
            out.line(format_args!("ScopeTraces #{index}{}", inline_scope(scope.scope.as_ref())));
            for span in &scope.spans {
                let (trace, id) = (hex::encode(&span.trace_id), hex::encode(&span.span_id));
                out.line(format_args!("{} {trace} {id}{}", span.name, inline(&span.attributes)));
            }
        }
    }
    out.finish()
}

pub(super) fn details(data: &TracesData) -> String {
    let mut out = Lines::default();
    for (index, resource) in data.resource_spans.iter().enumerate() {
        out.line(format_args!("ResourceSpans #{index}"));
        out.resource(&resource.schema_url, resource.resource.as_ref());
        for (index, scope) in resource.scope_spans.iter().enumerate() {
            out.line(format_args!("ScopeSpans #{index}"));
            out.scope("ScopeSpans", &scope.schema_url, scope.scope.as_ref());
            for (index, span) in scope.spans.iter().enumerate() {
                out.line(format_args!("Span #{index}"));
                write_span(&mut out, span);
            }
        }
    }
    out.finish()
}

fn write_span(out: &mut Lines, span: &Span) {
    let kind = match span.kind() {
        SpanKind::Unspecified => "Unspecified",
        SpanKind::Internal => "Internal",
        SpanKind::Server => "Server",
        SpanKind::Client => "Client",
        SpanKind::Producer => "Producer",
        SpanKind::Consumer => "Consumer",
    };
    let status = span.status.as_ref();
    let code = match status.map_or(StatusCode::Unset, |status| status.code()) {
        StatusCode::Unset => "Unset",
        StatusCode::Ok => "Ok",
        StatusCode::Error => "Error",
    };
    let message = status.map_or("", |status| &status.message);
    let mut entry = |name: &str, value: &str| out.line(format_args!("    {name:<15}: {value}"));
    entry("Trace ID", &hex::encode(&span.trace_id));
    entry("Parent ID", &hex::encode(&span.parent_span_id));
    entry("ID", &hex::encode(&span.span_id));
    entry("Name", &span.name);
    entry("Kind", kind);
    if !span.trace_state.is_empty() {
        entry("TraceState", &span.trace_state);
    }
    entry("Start time", &time(span.start_time_unix_nano));
    entry("End time", &time(span.end_time_unix_nano));
    entry("Status code", code);
    entry("Status message", message);
    let dropped = [
        ("DroppedAttributesCount", span.dropped_attributes_count),
        ("DroppedEventsCount", span.dropped_events_count),
        ("DroppedLinksCount", span.dropped_links_count),
    ];
    for (name, count) in dropped.into_iter().filter(|(_, count)| *count > 0) {
        entry(name, &count.to_string());
    }
    out.attributes("Attributes:", "     ", &span.attributes);
    if !span.events.is_empty() {
        out.line(format_args!("Events:"));
    }
    for (index, event) in span.events.iter().enumerate() {
        out.line(format_args!("SpanEvent #{index}"));
        out.line(format_args!("     -> Name: {}", event.name));
        out.line(format_args!("     -> Timestamp: {}", time(event.time_unix_nano)));
        out.line(format_args!("     -> DroppedAttributesCount: {}", event.dropped_attributes_count));
        out.attributes("     -> Attributes::", "          ", &event.attributes);
    }
    if !span.links.is_empty() {
        out.line(format_args!("Links:"));
    }
    for (index, link) in span.links.iter().enumerate() {
        out.line(format_args!("SpanLink #{index}"));
        out.line(format_args!("     -> Trace ID: {}", hex::encode(&link.trace_id)));
        out.line(format_args!("     -> ID: {}", hex::encode(&link.span_id)));
        out.line(format_args!("     -> TraceState: {}", link.trace_state));
        out.line(format_args!("     -> DroppedAttributesCount: {}", link.dropped_attributes_count));
        out.attributes("     -> Attributes::", "          ", &link.attributes);
    }
}
