//! Expressions and what they have to come to.

mod hostile;
mod made;
mod problems;
mod readme;
mod semantics;
mod times;

use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValueKind;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use crate::traces::{SPAN, SPAN_EVENT, SpanContext};
use crate::{Condition, EvalError};

fn any(kind: AnyValueKind) -> AnyValue {
    AnyValue { value: Some(kind) }
}

fn attribute(key: &str, kind: AnyValueKind) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any(kind)), ..KeyValue::default() }
}

fn text(value: &str) -> AnyValueKind {
    AnyValueKind::StringValue(value.to_owned())
}

fn array(values: Vec<AnyValueKind>) -> AnyValueKind {
    AnyValueKind::ArrayValue(ArrayValue { values: values.into_iter().map(any).collect() })
}

fn map(values: Vec<KeyValue>) -> AnyValueKind {
    AnyValueKind::KvlistValue(KeyValueList { values })
}

/// The span that the tables ask about.
fn span() -> Span {
    Span {
        trace_id: (1..=16).collect(),
        span_id: vec![0xab; 8],
        trace_state: "vendor=x,ot=th:8".to_owned(),
        name: "GET /cart".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_001_500_000_000,
        attributes: vec![
            attribute("text", text("acme")),
            attribute("empty", text("")),
            attribute("int", AnyValueKind::IntValue(42)),
            attribute("negative", AnyValueKind::IntValue(-7)),
            attribute("double", AnyValueKind::DoubleValue(1.5)),
            attribute("yes", AnyValueKind::BoolValue(true)),
            attribute("no", AnyValueKind::BoolValue(false)),
            attribute("bytes", AnyValueKind::BytesValue(vec![1, 0xff])),
            attribute("digits", text("17")),
            attribute("ip", text("10.1.2.3")),
            attribute("list", array(vec![text("a"), AnyValueKind::IntValue(2), text("c")])),
            attribute(
                "map",
                map(vec![
                    attribute("a", AnyValueKind::IntValue(1)),
                    attribute("b", map(vec![attribute("c", text("deep"))])),
                ]),
            ),
            KeyValue { key: "unset".to_owned(), ..KeyValue::default() },
            attribute("twice", text("first")),
            attribute("twice", text("second")),
        ],
        dropped_attributes_count: 3,
        events: vec![
            Event { time_unix_nano: 5, name: "start".to_owned(), ..Event::default() },
            Event {
                time_unix_nano: 1_700_000_000_000_000_009,
                name: "exception".to_owned(),
                attributes: vec![attribute("exception.type", text("IOError"))],
                dropped_attributes_count: 1,
            },
        ],
        links: vec![Link::default()],
        dropped_events_count: 4,
        dropped_links_count: 5,
        status: Some(Status { message: "no".to_owned(), code: 2 }),
        flags: 0x101,
        ..Span::default()
    }
}

struct Bytes {
    span: Vec<u8>,
    resource_spans: Vec<u8>,
    scope_spans: Vec<u8>,
}

fn bytes(span: &Span) -> Bytes {
    let resource = Resource {
        attributes: vec![attribute("service.name", text("pay"))],
        dropped_attributes_count: 6,
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "lib".to_owned(),
        version: "1.2".to_owned(),
        attributes: vec![attribute("k", AnyValueKind::IntValue(9))],
        dropped_attributes_count: 7,
    };
    let resource_spans =
        ResourceSpans { resource: Some(resource), schema_url: "res".to_owned(), ..ResourceSpans::default() };
    let scope_spans = ScopeSpans { scope: Some(scope), schema_url: "sco".to_owned(), ..ScopeSpans::default() };
    Bytes {
        span: span.encode_to_vec(),
        resource_spans: resource_spans.encode_to_vec(),
        scope_spans: scope_spans.encode_to_vec(),
    }
}

impl Bytes {
    fn context(&self) -> SpanContext<'_> {
        SpanContext::new(&self.span, &self.resource_spans, &self.scope_spans)
    }
}

/// The answer on [`span`].
fn on_span(expression: &str) -> Result<bool, EvalError> {
    let condition = Condition::compile(expression, &SPAN).unwrap_or_else(|problem| panic!("{expression}\n{problem}"));
    condition.eval(&bytes(&span()).context())
}

/// The answers on the events of [`span`].
fn on_events(expression: &str) -> Vec<Result<bool, EvalError>> {
    let condition =
        Condition::compile(expression, &SPAN_EVENT).unwrap_or_else(|problem| panic!("{expression}\n{problem}"));
    let bytes = bytes(&span());
    bytes.context().events().map(|event| condition.eval(&event)).collect()
}

#[track_caller]
fn holds(expressions: &[&str]) {
    for expression in expressions {
        assert_eq!(on_span(expression), Ok(true), "{expression}");
    }
}

#[track_caller]
fn fails(expressions: &[(&str, &str)]) {
    for (expression, message) in expressions {
        assert_eq!(on_span(expression).map_err(|error| error.to_string()), Err((*message).to_owned()), "{expression}");
    }
}
