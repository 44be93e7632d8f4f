//! What OTLP's messages look like: `opentelemetry-proto` 1.10, as a table.

use crate::batch::Signal;

use Kind::{
    Bool, Bytes, Double, Enum, Fixed32, Fixed64, Id, Int64, Message as Sub, Sfixed64, Sint32, Text, Uint32, Uint64,
};

/// A message type.
#[derive(Debug)]
pub struct Message {
    /// Its fields, by ascending number in most cases.
    pub fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// Its name in lowerCamelCase.
    pub name: &'static str,
    /// Its number on the wire.
    pub number: u32,
    /// Its type.
    pub kind: Kind,
    /// When it is written.
    pub presence: Presence,
}

/// When a field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// When it is not zero or empty.
    Implicit,
    /// Whenever it is there: `optional` fields, sub-messages.
    Explicit,
    /// Whenever it is there; of such fields of a message only the last one counts: its oneof.
    OneOf,
    /// Once for each element; numbers are packed.
    Repeated,
}

/// A field's type.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `string`.
    Text,
    /// Base64.
    Bytes,
    /// Hex digits for this many bytes, or none.
    Id(usize),
    /// `bool`.
    Bool,
    /// `int64`.
    Int64,
    /// `uint32`.
    Uint32,
    /// `uint64`.
    Uint64,
    /// `sint32`.
    Sint32,
    /// `fixed32`.
    Fixed32,
    /// `fixed64`.
    Fixed64,
    /// `sfixed64`.
    Sfixed64,
    /// `double`.
    Double,
    /// The names of the numbers 0, 1, 2 ...
    Enum(&'static [&'static str]),
    /// A message of its own.
    Message(&'static Message),
}

const fn one(name: &'static str, number: u32, kind: Kind) -> Field {
    let presence = match kind {
        Sub(_) => Presence::Explicit,
        _ => Presence::Implicit,
    };
    Field { name, number, kind, presence }
}

const fn optional(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, presence: Presence::Explicit }
}

const fn choice(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, presence: Presence::OneOf }
}

const fn many(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, presence: Presence::Repeated }
}

const TRACE_ID: Kind = Id(16);
const SPAN_ID: Kind = Id(8);

/// The export request of `signal`.
pub fn request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
        Signal::Logs => &LOGS,
    }
}

// common and resource

/// A value of any type.
pub static ANY_VALUE: Message = Message {
    fields: &[
        choice("stringValue", 1, Text),
        choice("boolValue", 2, Bool),
        choice("intValue", 3, Int64),
        choice("doubleValue", 4, Double),
        choice("arrayValue", 5, Sub(&ARRAY)),
        choice("kvlistValue", 6, Sub(&KEY_VALUE_LIST)),
        choice("bytesValue", 7, Bytes),
    ],
};

static ARRAY: Message = Message { fields: &[many("values", 1, Sub(&ANY_VALUE))] };

static KEY_VALUE_LIST: Message = Message { fields: &[many("values", 1, Sub(&KEY_VALUE))] };

static KEY_VALUE: Message = Message { fields: &[one("key", 1, Text), one("value", 2, Sub(&ANY_VALUE))] };

static SCOPE: Message = Message {
    fields: &[
        one("name", 1, Text),
        one("version", 2, Text),
        many("attributes", 3, Sub(&KEY_VALUE)),
        one("droppedAttributesCount", 4, Uint32),
    ],
};

static RESOURCE: Message = Message {
    fields: &[
        many("attributes", 1, Sub(&KEY_VALUE)),
        one("droppedAttributesCount", 2, Uint32),
        many("entityRefs", 3, Sub(&ENTITY_REF)),
    ],
};

static ENTITY_REF: Message = Message {
    fields: &[
        one("schemaUrl", 1, Text),
        one("type", 2, Text),
        many("idKeys", 3, Text),
        many("descriptionKeys", 4, Text),
    ],
};

// trace

static TRACES: Message = Message { fields: &[many("resourceSpans", 1, Sub(&RESOURCE_SPANS))] };

static RESOURCE_SPANS: Message = Message {
    fields: &[one("resource", 1, Sub(&RESOURCE)), many("scopeSpans", 2, Sub(&SCOPE_SPANS)), one("schemaUrl", 3, Text)],
};

static SCOPE_SPANS: Message =
    Message { fields: &[one("scope", 1, Sub(&SCOPE)), many("spans", 2, Sub(&SPAN)), one("schemaUrl", 3, Text)] };

static SPAN: Message = Message {
    fields: &[
        one("traceId", 1, TRACE_ID),
        one("spanId", 2, SPAN_ID),
        one("traceState", 3, Text),
        one("parentSpanId", 4, SPAN_ID),
        one("name", 5, Text),
        one("kind", 6, Enum(&SPAN_KIND)),
        one("startTimeUnixNano", 7, Fixed64),
        one("endTimeUnixNano", 8, Fixed64),
        many("attributes", 9, Sub(&KEY_VALUE)),
        one("droppedAttributesCount", 10, Uint32),
        many("events", 11, Sub(&EVENT)),
        one("droppedEventsCount", 12, Uint32),
        many("links", 13, Sub(&LINK)),
        one("droppedLinksCount", 14, Uint32),
        one("status", 15, Sub(&STATUS)),
        one("flags", 16, Fixed32),
    ],
};

static EVENT: Message = Message {
    fields: &[
        one("timeUnixNano", 1, Fixed64),
        one("name", 2, Text),
        many("attributes", 3, Sub(&KEY_VALUE)),
        one("droppedAttributesCount", 4, Uint32),
    ],
};

static LINK: Message = Message {
    fields: &[
        one("traceId", 1, TRACE_ID),
        one("spanId", 2, SPAN_ID),
        one("traceState", 3, Text),
        many("attributes", 4, Sub(&KEY_VALUE)),
        one("droppedAttributesCount", 5, Uint32),
        one("flags", 6, Fixed32),
    ],
};

static STATUS: Message = Message { fields: &[one("message", 2, Text), one("code", 3, Enum(&STATUS_CODE))] };

const SPAN_KIND: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

const STATUS_CODE: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

// metrics

static METRICS: Message = Message { fields: &[many("resourceMetrics", 1, Sub(&RESOURCE_METRICS))] };

static RESOURCE_METRICS: Message = Message {
    fields: &[
        one("resource", 1, Sub(&RESOURCE)),
        many("scopeMetrics", 2, Sub(&SCOPE_METRICS)),
        one("schemaUrl", 3, Text),
    ],
};

static SCOPE_METRICS: Message =
    Message { fields: &[one("scope", 1, Sub(&SCOPE)), many("metrics", 2, Sub(&METRIC)), one("schemaUrl", 3, Text)] };

static METRIC: Message = Message {
    fields: &[
        one("name", 1, Text),
        one("description", 2, Text),
        one("unit", 3, Text),
        choice("gauge", 5, Sub(&GAUGE)),
        choice("sum", 7, Sub(&SUM)),
        choice("histogram", 9, Sub(&HISTOGRAM)),
        choice("exponentialHistogram", 10, Sub(&EXPONENTIAL_HISTOGRAM)),
        choice("summary", 11, Sub(&SUMMARY)),
        many("metadata", 12, Sub(&KEY_VALUE)),
    ],
};

static GAUGE: Message = Message { fields: &[many("dataPoints", 1, Sub(&NUMBER_POINT))] };

static SUM: Message = Message {
    fields: &[
        many("dataPoints", 1, Sub(&NUMBER_POINT)),
        one("aggregationTemporality", 2, Enum(&TEMPORALITY)),
        one("isMonotonic", 3, Bool),
    ],
};

static HISTOGRAM: Message = Message {
    fields: &[many("dataPoints", 1, Sub(&HISTOGRAM_POINT)), one("aggregationTemporality", 2, Enum(&TEMPORALITY))],
};

static EXPONENTIAL_HISTOGRAM: Message = Message {
    fields: &[many("dataPoints", 1, Sub(&EXPONENTIAL_POINT)), one("aggregationTemporality", 2, Enum(&TEMPORALITY))],
};

static SUMMARY: Message = Message { fields: &[many("dataPoints", 1, Sub(&SUMMARY_POINT))] };

const TEMPORALITY: [&str; 3] =
    ["AGGREGATION_TEMPORALITY_UNSPECIFIED", "AGGREGATION_TEMPORALITY_DELTA", "AGGREGATION_TEMPORALITY_CUMULATIVE"];

static NUMBER_POINT: Message = Message {
    fields: &[
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        choice("asDouble", 4, Double),
        many("exemplars", 5, Sub(&EXEMPLAR)),
        choice("asInt", 6, Sfixed64),
        many("attributes", 7, Sub(&KEY_VALUE)),
        one("flags", 8, Uint32),
    ],
};

static HISTOGRAM_POINT: Message = Message {
    fields: &[
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        optional("sum", 5, Double),
        many("bucketCounts", 6, Fixed64),
        many("explicitBounds", 7, Double),
        many("exemplars", 8, Sub(&EXEMPLAR)),
        many("attributes", 9, Sub(&KEY_VALUE)),
        one("flags", 10, Uint32),
        optional("min", 11, Double),
        optional("max", 12, Double),
    ],
};

static EXPONENTIAL_POINT: Message = Message {
    fields: &[
        many("attributes", 1, Sub(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        optional("sum", 5, Double),
        one("scale", 6, Sint32),
        one("zeroCount", 7, Fixed64),
        one("positive", 8, Sub(&BUCKETS)),
        one("negative", 9, Sub(&BUCKETS)),
        one("flags", 10, Uint32),
        many("exemplars", 11, Sub(&EXEMPLAR)),
        optional("min", 12, Double),
        optional("max", 13, Double),
        one("zeroThreshold", 14, Double),
    ],
};

static BUCKETS: Message = Message { fields: &[one("offset", 1, Sint32), many("bucketCounts", 2, Uint64)] };

static SUMMARY_POINT: Message = Message {
    fields: &[
        one("startTimeUnixNano", 2, Fixed64),
        one("timeUnixNano", 3, Fixed64),
        one("count", 4, Fixed64),
        one("sum", 5, Double),
        many("quantileValues", 6, Sub(&QUANTILE)),
        many("attributes", 7, Sub(&KEY_VALUE)),
        one("flags", 8, Uint32),
    ],
};

static QUANTILE: Message = Message { fields: &[one("quantile", 1, Double), one("value", 2, Double)] };

static EXEMPLAR: Message = Message {
    fields: &[
        one("timeUnixNano", 2, Fixed64),
        choice("asDouble", 3, Double),
        one("spanId", 4, SPAN_ID),
        one("traceId", 5, TRACE_ID),
        choice("asInt", 6, Sfixed64),
        many("filteredAttributes", 7, Sub(&KEY_VALUE)),
    ],
};

// logs

static LOGS: Message = Message { fields: &[many("resourceLogs", 1, Sub(&RESOURCE_LOGS))] };

static RESOURCE_LOGS: Message = Message {
    fields: &[one("resource", 1, Sub(&RESOURCE)), many("scopeLogs", 2, Sub(&SCOPE_LOGS)), one("schemaUrl", 3, Text)],
};

static SCOPE_LOGS: Message = Message {
    fields: &[one("scope", 1, Sub(&SCOPE)), many("logRecords", 2, Sub(&LOG_RECORD)), one("schemaUrl", 3, Text)],
};

static LOG_RECORD: Message = Message {
    fields: &[
        one("timeUnixNano", 1, Fixed64),
        one("severityNumber", 2, Enum(&SEVERITY)),
        one("severityText", 3, Text),
        one("body", 5, Sub(&ANY_VALUE)),
        many("attributes", 6, Sub(&KEY_VALUE)),
        one("droppedAttributesCount", 7, Uint32),
        one("flags", 8, Fixed32),
        one("traceId", 9, TRACE_ID),
        one("spanId", 10, SPAN_ID),
        one("observedTimeUnixNano", 11, Fixed64),
        one("eventName", 12, Text),
    ],
};

const SEVERITY: [&str; 25] = [
    "SEVERITY_NUMBER_UNSPECIFIED",
    "SEVERITY_NUMBER_TRACE",
    "SEVERITY_NUMBER_TRACE2",
    "SEVERITY_NUMBER_TRACE3",
    "SEVERITY_NUMBER_TRACE4",
    "SEVERITY_NUMBER_DEBUG",
    "SEVERITY_NUMBER_DEBUG2",
    "SEVERITY_NUMBER_DEBUG3",
    "SEVERITY_NUMBER_DEBUG4",
    "SEVERITY_NUMBER_INFO",
    "SEVERITY_NUMBER_INFO2",
    "SEVERITY_NUMBER_INFO3",
    "SEVERITY_NUMBER_INFO4",
    "SEVERITY_NUMBER_WARN",
    "SEVERITY_NUMBER_WARN2",
    "SEVERITY_NUMBER_WARN3",
    "SEVERITY_NUMBER_WARN4",
    "SEVERITY_NUMBER_ERROR",
    "SEVERITY_NUMBER_ERROR2",
    "SEVERITY_NUMBER_ERROR3",
    "SEVERITY_NUMBER_ERROR4",
    "SEVERITY_NUMBER_FATAL",
    "SEVERITY_NUMBER_FATAL2",
    "SEVERITY_NUMBER_FATAL3",
    "SEVERITY_NUMBER_FATAL4",
];
