//! What holds for every input: the bodies of the fuzz targets, which ordinary tests run too.
//! Panics are findings.

use crate::ast::Node;
use crate::traces::{SPAN, SPAN_EVENT, SpanContext};
use crate::{Condition, parse_condition, parse_statement};

/// Reads `data` as an expression. What is wrong has its place in the text; what can be compiled can be
/// evaluated on nothing at all.
pub fn expression(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = parse_statement(&text);
    match parse_condition(&text) {
        Ok(Node { at, .. }) => assert!(at.start < at.end && at.end <= text.len(), "{at:?} in {text:?}"),
        Err(problem) => {
            assert!(problem.line >= 1 && problem.column >= 1 && problem.width >= 1, "{problem:?}");
            assert!(problem.excerpt().lines().count() <= 2, "{problem:?}");
        }
    }
    for schema in [&SPAN, &SPAN_EVENT] {
        if let Ok(condition) = Condition::compile(&text, schema) {
            evaluate(&condition, &[], &[], &[]);
        }
    }
}

/// Conditions of every kind on a span, a resource and a scope of foreign bytes.
pub fn data(data: &[u8]) {
    let third = data.len() / 3;
    let (span, rest) = data.split_at(third);
    let (resource_spans, scope_spans) = rest.split_at(third);
    for source in CONDITIONS {
        for schema in [&SPAN, &SPAN_EVENT] {
            if let Ok(condition) = Condition::compile(source, schema) {
                evaluate(&condition, span, resource_spans, scope_spans);
                evaluate(&condition, data, data, data);
            }
        }
    }
}

fn evaluate(condition: &Condition<crate::traces::TraceField>, span: &[u8], resource: &[u8], scope: &[u8]) {
    let context = SpanContext::new(span, resource, scope);
    let first = condition.eval(&context);
    // Texts that end with the clock aside, the answer depends on nothing but the bytes.
    if !condition.source().contains("Now") {
        assert_eq!(first, condition.eval(&context), "{}", condition.source());
    }
    for event in context.events().take(10) {
        let _ = condition.eval(&event);
    }
}

/// Every field, and what reaches deepest into values.
pub const CONDITIONS: &[&str] = &[
    r#"span.attributes["a"] == "b" or IsMatch(span.attributes["k"], "a+b")"#,
    r#"span.attributes == resource.attributes and scope.attributes == span.attributes"#,
    r#"span.attributes["a"] == [1, {"a": nil}] or span.attributes["a"]["b"][0] == {"x": [0x00]}"#,
    r#"String(span.attributes) == "" or String(span.attributes["a"]) == """#,
    r#"Len(span.attributes) + Len(span.events) + Len(span.links) + Len(resource.attributes) == 3"#,
    r#"Keys(span.attributes) == Values(span.attributes) or ContainsValue(Values(span.attributes), 1)"#,
    r#"span.trace_state["a"] == "b" or span.trace_state == "" or Len(span.trace_state) == 1"#,
    r#"span.trace_id == TraceID("000102030405060708090a0b0c0d0e0f") or span.trace_id.string == span.span_id.string"#,
    r#"span.parent_span_id == span.span_id or IsRootSpan()"#,
    r#"span.kind.string == span.kind.deprecated_string or span.status.message == scope.name"#,
    r#"span.end_time - span.start_time > Duration("1s") or span.end_time_unix_nano / span.kind > 1"#,
    r#"Year(span.start_time) == Month(span.end_time) or Weekday(spanevent.time) == 7 or Hour(Now()) == 3"#,
    r#"Split(span.name, "") == Split(span.name, "a") or Substring(span.name, 1, 2) == Trim(span.name)"#,
    r#"Concat(Values(span.attributes), span.name) == ToUpperCase(ToLowerCase(span.name))"#,
    r#"Int(Values(span.attributes)[0]) * Int(Values(span.attributes)[1]) / 3 == -span.flags"#,
    r#"Coalesce(Values(resource.attributes)) == nil or Index(span.name, scope.version) == 0"#,
    r#"IsInCIDR(span.name, ["10.0.0.0/8"]) or Bool(span.name) or ParseInt(span.name, 16) == 1"#,
    r#"SHA256(span.name) == Base64Encode(span.name) or Hex(span.span_id) == Hex(span.flags)"#,
    r#"name == "a" or attributes["a"]["b"] != nil or spanevent.event_index == 1 or time_unix_nano == 3"#,
    r#"Time(span.name, "%FT%T.%L%z") == span.start_time or FormatTime(span.end_time, "%c %s %j") == span.name"#,
    r#"Time(span.name, "%b %e %H:%M:%S") == nil or FormatTime(spanevent.time, "%A %y %I%p") == "x""#,
    r#"ExtractPatterns(span.name, "(?P<a>\\w+)(?P<b>b)?") == URL(span.name) or Sort(Values(span.attributes)) == []"#,
    r#"ParseKeyValue(span.name, "a") == nil or ToKeyValueString(span.attributes, "a", "b", true) == span.name"#,
    r#"Decode(span.name, "base64") == Substring(span.name, 1, 3, true) or IsEmpty(span.attributes)"#,
    r#"IsValidLuhn(span.name) or ParseInt(span.name, 0) == 1 or Log(span.flags) == 1"#,
    "dropped_attributes_count == span.dropped_events_count + span.dropped_links_count",
    "resource.dropped_attributes_count == scope.dropped_attributes_count and resource.schema_url == scope.schema_url",
];
