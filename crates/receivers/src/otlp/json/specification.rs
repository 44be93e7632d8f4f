//! What the OTLP specification (1.9, "JSON Protobuf Encoding" and "OTLP/HTTP Response") and protobuf's JSON mapping,
//! to which it refers, say of JSON: each sentence with what shows it.
//!
//! Where the Collector takes more than the specification allows, so does Nyquist: what works with one should work
//! with the other. These sentences are about senders, and marked "(lenient)".

use nyquist_core::proto::common::v1::any_value::Value as AnyKind;
use nyquist_core::proto::common::v1::{AnyValue, ArrayValue, KeyValue};
use nyquist_core::proto::trace::v1::span::{Event, Link};
use nyquist_core::proto::trace::v1::{Span, Status, TracesData};
use prost::Message;
use serde_json::{Value, json};

use super::{Accepted, Rejection, Signal, reply, status, to_wire};

/// The fields of a span in JSON, and what becomes of it; `None` if it is refused.
type Case = (&'static str, fn() -> Option<Span>);

fn span() -> Span {
    Span::default()
}

fn with_value(value: Option<AnyKind>) -> Option<Span> {
    let attribute = KeyValue { key: "k".to_owned(), value: Some(AnyValue { value }), ..KeyValue::default() };
    Some(Span { attributes: vec![attribute], ..span() })
}

fn double(value: f64) -> Option<Span> {
    with_value(Some(AnyKind::DoubleValue(value)))
}

fn bytes(value: &[u8]) -> Option<Span> {
    with_value(Some(AnyKind::BytesValue(value.to_vec())))
}

const ID: [u8; 16] = [0x5b, 0x8e, 0xff, 0xf7, 0x98, 0x03, 0x81, 0x03, 0xd2, 0x69, 0xb6, 0x33, 0x81, 0x3f, 0xc6, 0x0c];

fn identified() -> Option<Span> {
    Some(Span { trace_id: ID.to_vec(), ..span() })
}

fn refused() -> Option<Span> {
    None
}

fn empty() -> Option<Span> {
    Some(span())
}

const SENTENCES: &[(&str, &[Case])] = &[
    (
        "The traceId and spanId byte arrays are represented as case-insensitive hex-encoded strings",
        &[
            (r#""traceId": "5B8EFFF798038103D269B633813FC60C""#, identified),
            (r#""traceId": "5b8efff798038103d269b633813fc60c""#, identified),
            (r#""spanId": "EEE19B7EC3C1B174""#, || {
                Some(Span { span_id: vec![0xee, 0xe1, 0x9b, 0x7e, 0xc3, 0xc1, 0xb1, 0x74], ..span() })
            }),
            (r#""traceId": "", "parentSpanId": """#, empty),
        ],
    ),
    (
        "they are not base64-encoded as is defined in the standard Protobuf JSON Mapping",
        &[(r#""traceId": "W47/95gDgQPSabYzgT/GDA==""#, refused), (r#""spanId": "7uGbfsPBsXQ=""#, refused)],
    ),
    (
        "Hex encoding is used for traceId and spanId fields in all OTLP Protobuf messages, e.g. Link",
        &[(r#""links": [{"traceId": "5B8EFFF798038103D269B633813FC60C"}]"#, || {
            Some(Span { links: vec![Link { trace_id: ID.to_vec(), ..Link::default() }], ..span() })
        })],
    ),
    (
        "Values of enum fields MUST be encoded as integer values",
        &[
            (r#""kind": 2"#, || Some(Span { kind: 2, ..span() })),
            (r#""status": {"code": 2}"#, || {
                Some(Span { status: Some(Status { code: 2, ..Status::default() }), ..span() })
            }),
        ],
    ),
    (
        "only integer enum values are allowed; the enum name strings MUST NOT be used (lenient)",
        &[(r#""kind": "SPAN_KIND_SERVER""#, || Some(Span { kind: 2, ..span() })), (r#""kind": "SERVER""#, refused)],
    ),
    (
        "Parsers accept numeric values of enums that they do not know (protobuf)",
        &[(r#""kind": 77"#, || Some(Span { kind: 77, ..span() }))],
    ),
    (
        "receivers MUST ignore message fields with unknown names and unmarshal as if they were not present",
        &[
            (r#""unknown": {"kind": [1, "x", null, {"y": 2.5}]}"#, empty),
            (r#""unknown": "a", "kind": 3, "other": []"#, || Some(Span { kind: 3, ..span() })),
            (r#""status": {"unknown": 1}"#, || Some(Span { status: Some(Status::default()), ..span() })),
            (r#""attributes": [{"key": "k", "value": {"unknownValue": 1}}]"#, || with_value(None)),
        ],
    ),
    (
        "The keys of JSON objects are field names converted to lowerCamelCase",
        &[(r#""droppedAttributesCount": 123"#, || Some(Span { dropped_attributes_count: 123, ..span() }))],
    ),
    (
        "Original field names are not valid to use as keys (lenient)",
        &[
            (r#""dropped_attributes_count": 123"#, || Some(Span { dropped_attributes_count: 123, ..span() })),
            (r#""DroppedAttributesCount": 123, "droppedattributescount": 123"#, empty),
        ],
    ),
    (
        "64-bit integer numbers are encoded as decimal strings, and either numbers or strings are accepted",
        &[
            (r#""startTimeUnixNano": "1544712660000000001""#, || {
                Some(Span { start_time_unix_nano: 1_544_712_660_000_000_001, ..span() })
            }),
            (r#""startTimeUnixNano": 1544712660000000001"#, || {
                Some(Span { start_time_unix_nano: 1_544_712_660_000_000_001, ..span() })
            }),
            (r#""attributes": [{"key": "k", "value": {"intValue": "-9223372036854775808"}}]"#, || {
                with_value(Some(AnyKind::IntValue(i64::MIN)))
            }),
            (r#""endTimeUnixNano": "18446744073709551616""#, refused),
            (r#""endTimeUnixNano": -1"#, refused),
        ],
    ),
    (
        "32-bit integers are decimal numbers; either numbers or strings are accepted; empty strings are invalid (protobuf)",
        &[
            (r#""flags": 257"#, || Some(Span { flags: 257, ..span() })),
            (r#""flags": "257""#, || Some(Span { flags: 257, ..span() })),
            (r#""flags": 2.0"#, || Some(Span { flags: 2, ..span() })),
            (r#""flags": """#, refused),
            (r#""flags": 1.5"#, refused),
            (r#""flags": 4294967296"#, refused),
        ],
    ),
    (
        "A double is a number or one of the special string values NaN, Infinity and -Infinity; numbers or strings are \
         accepted; empty strings are invalid (protobuf)",
        &[
            (r#""attributes": [{"key": "k", "value": {"doubleValue": 1.5e3}}]"#, || double(1500.0)),
            (r#""attributes": [{"key": "k", "value": {"doubleValue": "1.5"}}]"#, || double(1.5)),
            (r#""attributes": [{"key": "k", "value": {"doubleValue": "Infinity"}}]"#, || double(f64::INFINITY)),
            (r#""attributes": [{"key": "k", "value": {"doubleValue": "-Infinity"}}]"#, || double(f64::NEG_INFINITY)),
            (r#""attributes": [{"key": "k", "value": {"doubleValue": ""}}]"#, refused),
            (r#""attributes": [{"key": "k", "value": {"doubleValue": "infinity"}}]"#, refused),
        ],
    ),
    (
        "bytes: either standard or URL-safe base64 encoding with/without paddings are accepted (protobuf)",
        &[
            (r#""attributes": [{"key": "k", "value": {"bytesValue": "+/8="}}]"#, || bytes(&[0xfb, 0xff])),
            (r#""attributes": [{"key": "k", "value": {"bytesValue": "+/8"}}]"#, || bytes(&[0xfb, 0xff])),
            (r#""attributes": [{"key": "k", "value": {"bytesValue": "-_8="}}]"#, || bytes(&[0xfb, 0xff])),
            (r#""attributes": [{"key": "k", "value": {"bytesValue": "-_8"}}]"#, || bytes(&[0xfb, 0xff])),
            (r#""attributes": [{"key": "k", "value": {"bytesValue": ""}}]"#, || bytes(&[])),
            (r#""attributes": [{"key": "k", "value": {"bytesValue": "-/8="}}]"#, refused),
            (r#""attributes": [{"key": "k", "value": {"bytesValue": [1]}}]"#, refused),
        ],
    ),
    (
        "bool is true or false, a string is a string (protobuf)",
        &[
            (r#""attributes": [{"key": "k", "value": {"boolValue": true}}]"#, || {
                with_value(Some(AnyKind::BoolValue(true)))
            }),
            (r#""attributes": [{"key": "k", "value": {"boolValue": "true"}}]"#, refused),
            (r#""attributes": [{"key": "k", "value": {"stringValue": 1}}]"#, refused),
            (r#""name": "\u00e9\ud83d\ude00""#, || Some(Span { name: "\u{e9}\u{1f600}".to_owned(), ..span() })),
        ],
    ),
    (
        "Absent fields have their default; a member of a oneof that is set is set, whatever its value (protobuf)",
        &[
            ("", empty),
            (r#""attributes": [{"key": "k", "value": {"stringValue": ""}}]"#, || {
                with_value(Some(AnyKind::StringValue(String::new())))
            }),
            (r#""attributes": [{"key": "k", "value": {"intValue": 0}}]"#, || with_value(Some(AnyKind::IntValue(0)))),
            (r#""attributes": [{"key": "k", "value": {}}]"#, || with_value(None)),
            (r#""attributes": [{"key": "k", "value": {"arrayValue": {"values": []}}}]"#, || {
                with_value(Some(AnyKind::ArrayValue(ArrayValue::default())))
            }),
        ],
    ),
    (
        "A repeated field is an array, null stands for an empty one (protobuf)",
        &[
            (r#""events": []"#, empty),
            (r#""events": null"#, empty),
            (r#""events": [{}]"#, || Some(Span { events: vec![Event::default()], ..span() })),
            (r#""events": {}"#, refused),
        ],
    ),
    (
        "null is an accepted value for all field types and treated as the default value (protobuf): for texts and \
         messages; for an id, an integer or an enum the Collector takes it for a mistake",
        &[
            (r#""name": null"#, empty),
            (r#""status": null"#, empty),
            (r#""traceId": null"#, refused),
            (r#""kind": null"#, refused),
            (r#""startTimeUnixNano": null"#, refused),
        ],
    ),
];

#[test]
fn each_sentence_on_requests_holds() {
    for (sentence, cases) in SENTENCES {
        for (fields, expected) in *cases {
            let document = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}}"#);
            let wire = to_wire(Signal::Traces, document.as_bytes(), 1 << 20).ok();
            let found = wire.map(|wire| {
                let data = TracesData::decode(&wire[..]).expect("what is written can be read");
                data.resource_spans[0].scope_spans[0].spans[0].clone()
            });
            assert_eq!(found, expected(), "{sentence}: {fields}");
        }
    }
}

#[test]
fn a_value_that_is_not_a_number_is_one() {
    let fields = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"value":{"doubleValue":"NaN"}}]}]}]}]}"#;
    let wire = to_wire(Signal::Traces, fields.as_bytes(), 1 << 20).expect("NaN is a special string value");
    let data = TracesData::decode(&wire[..]).expect("what is written can be read");
    let value = data.resource_spans[0].scope_spans[0].spans[0].attributes[0].value.clone().and_then(|any| any.value);
    assert!(matches!(value, Some(AnyKind::DoubleValue(value)) if value.is_nan()), "{value:?}");
}

/// "If the server receives an empty request the server SHOULD respond with success"
#[test]
fn empty_requests_are_requests() {
    for document in ["{}", r#"{"resourceSpans":[]}"#, r#"{"resourceSpans":null}"#] {
        assert_eq!(to_wire(Signal::Traces, document.as_bytes(), 1 << 20).expect("a request"), b"", "{document}");
    }
}

#[test]
fn each_sentence_on_responses_holds() {
    let parsed = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("JSON");
    // "The server MUST leave the partial_success field unset in case of a successful response."
    assert_eq!(parsed(&reply(Signal::Traces, Accepted { rejected: 0 })), json!({}));
    // "it MUST set the respective rejected_spans, rejected_data_points, rejected_log_records field": int64, so a string.
    for (signal, name) in [
        (Signal::Traces, "rejectedSpans"),
        (Signal::Metrics, "rejectedDataPoints"),
        (Signal::Logs, "rejectedLogRecords"),
    ] {
        let body = parsed(&reply(signal, Accepted { rejected: 3 }));
        assert_eq!(body["partialSuccess"][name], "3");
        // "The server SHOULD populate the error_message field with a human-readable error message in English."
        let message = body["partialSuccess"]["errorMessage"].as_str().expect("text");
        assert!(message.starts_with('3') && message.contains("without a valid trace or span id"), "{message}");
    }
    // "The response body for all HTTP 4xx and HTTP 5xx responses MUST be a Protobuf-encoded Status message."
    let rejection = Rejection::new(nyquist_core::batch::Code::InvalidArgument, "why");
    assert_eq!(parsed(&status(&rejection)), json!({"code": 3, "message": "why"}));
}
