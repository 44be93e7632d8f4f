//! Spans and their events.

mod fields;

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};

use nyquist_core::wire::{Field as WireField, Fields, SpanFields, SpanView, Value as Wire, span_kind_text};

pub use fields::{SPAN, SPAN_EVENT, TraceField};

use crate::context::Context;
use crate::value::{Map, Value, len_fields};

/// A span, with what it stands in.
#[derive(Debug)]
pub struct SpanContext<'a> {
    span: &'a [u8],
    resource_spans: &'a [u8],
    scope_spans: &'a [u8],
    budget: Option<&'a Cell<usize>>,
    /// One scan finds them all, once one is asked for.
    fields: OnceCell<SpanFields<'a>>,
}

impl<'a> SpanContext<'a> {
    /// `span` is a `Span`. Of the `ResourceSpans` and the `ScopeSpans` that hold it, the fields that
    /// are not spans are enough: pass them without, as each look at the resource scans all.
    #[must_use]
    pub fn new(span: &'a [u8], resource_spans: &'a [u8], scope_spans: &'a [u8]) -> Self {
        Self { span, resource_spans, scope_spans, budget: None, fields: OnceCell::new() }
    }

    /// The same, reading at most `budget` bytes, which contexts may share: each look at a resource or
    /// at attributes takes their size from it. Once it is used up, conditions that read end with an
    /// error.
    #[must_use]
    pub fn with_budget(self, budget: &'a Cell<usize>) -> Self {
        Self { budget: Some(budget), ..self }
    }

    /// The span's events.
    pub fn events(&self) -> impl Iterator<Item = EventContext<'_, 'a>> {
        const EVENTS: u32 = 11;
        len_fields(self.span, EVENTS).enumerate().map(move |(index, event)| EventContext { span: self, event, index })
    }

    fn fields(&self) -> &SpanFields<'a> {
        self.fields.get_or_init(|| SpanView::new(self.span).fields())
    }
}

/// One event of a span.
#[derive(Debug)]
pub struct EventContext<'s, 'a> {
    span: &'s SpanContext<'a>,
    event: &'a [u8],
    index: usize,
}

impl Context for EventContext<'_, '_> {
    type Field = TraceField;

    #[inline]
    fn get(&self, field: TraceField) -> Value<'_> {
        match field {
            TraceField::EventName => text(self.event, 2),
            TraceField::EventAttributes => Value::Map(Map::Wire { message: self.event, number: 3 }),
            TraceField::EventUnixNano => Value::Int(fixed64(self.event, 1)),
            TraceField::EventTime => Value::Time(fixed64(self.event, 1)),
            TraceField::EventDroppedAttributes => count(self.event, 4),
            TraceField::EventIndex => Value::Int(i64::try_from(self.index).unwrap_or(i64::MAX)),
            field => self.span.get(field),
        }
    }

    fn cost(&self, field: TraceField) -> usize {
        match field {
            TraceField::EventName
            | TraceField::EventUnixNano
            | TraceField::EventTime
            | TraceField::EventDroppedAttributes => self.event.len(),
            field => self.span.cost(field),
        }
    }

    fn spend(&self, bytes: usize) -> bool {
        self.span.spend(bytes)
    }
}

impl Context for SpanContext<'_> {
    type Field = TraceField;

    fn cost(&self, field: TraceField) -> usize {
        match field {
            TraceField::DroppedAttributes | TraceField::DroppedEvents | TraceField::DroppedLinks => self.span.len(),
            TraceField::ResourceDroppedAttributes | TraceField::ResourceSchemaUrl => self.resource_spans.len(),
            TraceField::ScopeName
            | TraceField::ScopeVersion
            | TraceField::ScopeDroppedAttributes
            | TraceField::ScopeSchemaUrl => self.scope_spans.len(),
            // The first look finds them all, or it takes no time.
            _ => 0,
        }
    }

    fn spend(&self, bytes: usize) -> bool {
        let Some(budget) = self.budget else { return true };
        let left = budget.get().checked_sub(bytes);
        budget.set(left.unwrap_or(0));
        left.is_some()
    }

    #[inline]
    fn get(&self, field: TraceField) -> Value<'_> {
        const RESOURCE: u32 = 1;
        const SCOPE: u32 = 1;
        match field {
            TraceField::Attributes => Value::Map(Map::Wire { message: self.span, number: 9 }),
            TraceField::Name => Value::text(self.fields().name),
            TraceField::Kind => Value::Int(i64::from(self.fields().kind)),
            TraceField::KindText => Value::text(span_kind_text(self.fields().kind)),
            TraceField::KindDeprecatedText => Value::text(fields::kind_symbol(self.fields().kind)),
            TraceField::StatusCode => Value::Int(i64::from(self.fields().status_code)),
            TraceField::StatusMessage => Value::text(self.fields().status_message),
            TraceField::StartUnixNano => Value::Int(self.fields().start_time as i64),
            TraceField::EndUnixNano => Value::Int(self.fields().end_time as i64),
            TraceField::Start => Value::Time(self.fields().start_time as i64),
            TraceField::End => Value::Time(self.fields().end_time as i64),
            TraceField::TraceId => Value::TraceId(id(self.fields().trace_id)),
            TraceField::TraceIdText => hex_text(&id::<16>(self.fields().trace_id)),
            TraceField::SpanId => Value::SpanId(id(self.fields().span_id)),
            TraceField::SpanIdText => hex_text(&id::<8>(self.fields().span_id)),
            TraceField::ParentSpanId => Value::SpanId(id(self.fields().parent_span_id)),
            TraceField::ParentSpanIdText => hex_text(&id::<8>(self.fields().parent_span_id)),
            TraceField::IsRoot => Value::Bool(self.fields().parent_span_id.iter().all(|&byte| byte == 0)),
            TraceField::TraceState => Value::TraceState(self.fields().trace_state),
            TraceField::Flags => Value::Int(i64::from(self.fields().flags)),
            TraceField::DroppedAttributes => count(self.span, 10),
            TraceField::Events => Value::Messages { message: self.span, number: 11 },
            TraceField::DroppedEvents => count(self.span, 12),
            TraceField::Links => Value::Messages { message: self.span, number: 13 },
            TraceField::DroppedLinks => count(self.span, 14),
            TraceField::ResourceAttributes => {
                Value::Map(Map::Nested { message: self.resource_spans, outer: RESOURCE, inner: 1 })
            }
            TraceField::ResourceDroppedAttributes => nested_count(self.resource_spans, RESOURCE, 2),
            TraceField::ResourceSchemaUrl => text(self.resource_spans, 3),
            TraceField::ScopeName => nested_text(self.scope_spans, SCOPE, 1),
            TraceField::ScopeVersion => nested_text(self.scope_spans, SCOPE, 2),
            TraceField::ScopeAttributes => {
                Value::Map(Map::Nested { message: self.scope_spans, outer: SCOPE, inner: 3 })
            }
            TraceField::ScopeDroppedAttributes => nested_count(self.scope_spans, SCOPE, 4),
            TraceField::ScopeSchemaUrl => text(self.scope_spans, 3),
            // Of no event.
            TraceField::EventName
            | TraceField::EventAttributes
            | TraceField::EventUnixNano
            | TraceField::EventTime
            | TraceField::EventDroppedAttributes
            | TraceField::EventIndex => Value::Nil,
        }
    }
}

// What comes last counts, in whichever piece of a sub-message it stands.

fn text(message: &[u8], wanted: u32) -> Value<'_> {
    Value::text(len_fields(message, wanted).last().unwrap_or_default())
}

fn nested_text(message: &[u8], outer: u32, wanted: u32) -> Value<'_> {
    let texts = len_fields(message, outer).flat_map(|inner| len_fields(inner, wanted));
    Value::text(texts.last().unwrap_or_default())
}

fn counts(message: &[u8], wanted: u32) -> impl Iterator<Item = i64> {
    Fields::new(message).filter_map(move |WireField { number, value }| match value {
        Wire::Varint(value) if number == wanted => Some(i64::from(value as u32)),
        _ => None,
    })
}

fn count(message: &[u8], wanted: u32) -> Value<'_> {
    Value::Int(counts(message, wanted).last().unwrap_or(0))
}

fn nested_count(message: &[u8], outer: u32, wanted: u32) -> Value<'_> {
    Value::Int(len_fields(message, outer).flat_map(|inner| counts(inner, wanted)).last().unwrap_or(0))
}

fn fixed64(message: &[u8], wanted: u32) -> i64 {
    let numbers = Fields::new(message).filter_map(|WireField { number, value }| match value {
        Wire::Fixed64(value) if number == wanted => Some(value as i64),
        _ => None,
    });
    numbers.last().unwrap_or(0)
}

/// An id; zeros if the message has none, or not one of this length.
fn id<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}

fn hex_text(id: &[u8]) -> Value<'static> {
    Value::Text(Cow::Owned(hex::encode(id).into_bytes()))
}
