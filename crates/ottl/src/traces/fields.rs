//! The paths of spans and span events, as contrib's `ottlspan` and `ottlspanevent` have them.

use crate::context::{PathEntry, Paths, Schema};

/// A field of a span, of what it stands in, or of one of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the tables below say which path each is")]
pub enum TraceField {
    Attributes,
    Name,
    Kind,
    KindText,
    KindDeprecatedText,
    StatusCode,
    StatusMessage,
    StartUnixNano,
    EndUnixNano,
    Start,
    End,
    TraceId,
    TraceIdText,
    SpanId,
    SpanIdText,
    ParentSpanId,
    ParentSpanIdText,
    IsRoot,
    TraceState,
    Flags,
    DroppedAttributes,
    Events,
    DroppedEvents,
    Links,
    DroppedLinks,
    ResourceAttributes,
    ResourceDroppedAttributes,
    ResourceSchemaUrl,
    ScopeName,
    ScopeVersion,
    ScopeAttributes,
    ScopeDroppedAttributes,
    ScopeSchemaUrl,
    EventName,
    EventAttributes,
    EventUnixNano,
    EventTime,
    EventDroppedAttributes,
    EventIndex,
}

type Entry = PathEntry<TraceField>;

const SPAN_PATHS: Paths<TraceField> = Paths {
    name: "span",
    alias: None,
    fields: &[
        Entry::keyed("attributes", TraceField::Attributes),
        Entry::plain("name", TraceField::Name),
        Entry::plain("kind", TraceField::Kind),
        Entry::plain("kind.string", TraceField::KindText),
        Entry::plain("kind.deprecated_string", TraceField::KindDeprecatedText),
        Entry::plain("status.code", TraceField::StatusCode),
        Entry::plain("status.message", TraceField::StatusMessage),
        Entry::plain("start_time_unix_nano", TraceField::StartUnixNano),
        Entry::plain("end_time_unix_nano", TraceField::EndUnixNano),
        Entry::plain("start_time", TraceField::Start),
        Entry::plain("end_time", TraceField::End),
        Entry::plain("trace_id", TraceField::TraceId),
        Entry::plain("trace_id.string", TraceField::TraceIdText),
        Entry::plain("span_id", TraceField::SpanId),
        Entry::plain("span_id.string", TraceField::SpanIdText),
        Entry::plain("parent_span_id", TraceField::ParentSpanId),
        Entry::plain("parent_span_id.string", TraceField::ParentSpanIdText),
        Entry::keyed("trace_state", TraceField::TraceState),
        Entry::plain("flags", TraceField::Flags),
        Entry::plain("dropped_attributes_count", TraceField::DroppedAttributes),
        Entry::plain("events", TraceField::Events),
        Entry::plain("dropped_events_count", TraceField::DroppedEvents),
        Entry::plain("links", TraceField::Links),
        Entry::plain("dropped_links_count", TraceField::DroppedLinks),
    ],
};

const RESOURCE_PATHS: Paths<TraceField> = Paths {
    name: "resource",
    alias: None,
    fields: &[
        Entry::keyed("attributes", TraceField::ResourceAttributes),
        Entry::plain("dropped_attributes_count", TraceField::ResourceDroppedAttributes),
        Entry::plain("schema_url", TraceField::ResourceSchemaUrl),
    ],
};

const SCOPE_PATHS: Paths<TraceField> = Paths {
    name: "scope",
    alias: Some("instrumentation_scope"),
    fields: &[
        Entry::plain("name", TraceField::ScopeName),
        Entry::plain("version", TraceField::ScopeVersion),
        Entry::keyed("attributes", TraceField::ScopeAttributes),
        Entry::plain("dropped_attributes_count", TraceField::ScopeDroppedAttributes),
        Entry::plain("schema_url", TraceField::ScopeSchemaUrl),
    ],
};

const EVENT_PATHS: Paths<TraceField> = Paths {
    name: "spanevent",
    alias: None,
    fields: &[
        Entry::plain("name", TraceField::EventName),
        Entry::keyed("attributes", TraceField::EventAttributes),
        Entry::plain("time_unix_nano", TraceField::EventUnixNano),
        Entry::plain("time", TraceField::EventTime),
        Entry::plain("dropped_attributes_count", TraceField::EventDroppedAttributes),
        Entry::plain("event_index", TraceField::EventIndex),
    ],
};

const ENUMS: &[(&str, i64)] = &[
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
    ("STATUS_CODE_UNSET", 0),
    ("STATUS_CODE_OK", 1),
    ("STATUS_CODE_ERROR", 2),
];

/// Conditions on spans.
pub const SPAN: Schema<TraceField> = Schema {
    default: "span",
    contexts: &[SPAN_PATHS, RESOURCE_PATHS, SCOPE_PATHS],
    enums: ENUMS,
    converters: &[("IsRootSpan", TraceField::IsRoot)],
};

/// Conditions on events of spans.
pub const SPAN_EVENT: Schema<TraceField> = Schema {
    default: "spanevent",
    contexts: &[EVENT_PATHS, SPAN_PATHS, RESOURCE_PATHS, SCOPE_PATHS],
    enums: ENUMS,
    converters: &[],
};

/// The name of the enum.
pub(super) fn kind_symbol(kind: i32) -> &'static str {
    let kinds = ENUMS.iter().filter(|(name, _)| name.starts_with("SPAN_KIND_"));
    kinds.into_iter().find(|(_, value)| *value == i64::from(kind)).map_or("", |(name, _)| name)
}
