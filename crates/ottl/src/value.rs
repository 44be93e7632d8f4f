//! Values while an expression is evaluated: borrowed from the wire wherever they come from there.

use std::borrow::Cow;

use nyquist_core::wire::{AnyValue, Attributes, Field, Fields, KeyValue, Value as Wire};

use crate::eval::EvalError;

/// How deep values may nest when they are compared or written out; the ingress check allows 32.
pub(crate) const MAX_VALUE_DEPTH: usize = 64;

/// A value.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// Nothing: also what an attribute that is not there has.
    Nil,
    /// true or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Double(f64),
    /// A text; UTF-8 once past the ingress check.
    Text(Cow<'a, [u8]>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// The id of a trace.
    TraceId([u8; 16]),
    /// The id of a span.
    SpanId([u8; 8]),
    /// Nanoseconds since the Unix epoch.
    Time(i64),
    /// Nanoseconds.
    Duration(i64),
    /// A list.
    List(List<'a>),
    /// A map.
    Map(Map<'a>),
    /// The entries of a `tracestate` header.
    TraceState(&'a [u8]),
    /// Messages in this field of this message, such as the events of a span.
    Messages {
        /// The message that holds them.
        message: &'a [u8],
        /// The field's number.
        number: u32,
    },
}

/// A list of values.
#[derive(Debug, Clone)]
pub enum List<'a> {
    /// The bytes of an `ArrayValue`.
    Wire(&'a [u8]),
    /// Values of an expression.
    Made(Vec<Value<'a>>),
}

/// A map from texts to values.
#[derive(Debug, Clone)]
pub enum Map<'a> {
    /// `KeyValue`s in this field of this message.
    Wire {
        /// The message.
        message: &'a [u8],
        /// The field's number.
        number: u32,
    },
    /// `KeyValue`s in the field `inner` of each message in the field `outer` of this message, as the
    /// attributes of a resource stand in a `ResourceSpans`.
    Nested {
        /// The outer message.
        message: &'a [u8],
        /// The field's number in it.
        outer: u32,
        /// The number of the attributes' field.
        inner: u32,
    },
    /// Of an expression.
    Made(Vec<(Cow<'a, [u8]>, Value<'a>)>),
}

impl<'a> From<AnyValue<'a>> for Value<'a> {
    #[inline]
    fn from(value: AnyValue<'a>) -> Self {
        match value {
            AnyValue::Empty => Self::Nil,
            AnyValue::String(text) => Self::Text(Cow::Borrowed(text)),
            AnyValue::Bool(flag) => Self::Bool(flag),
            AnyValue::Int(number) => Self::Int(number),
            AnyValue::Double(number) => Self::Double(number),
            AnyValue::Array(array) => Self::List(List::Wire(array)),
            AnyValue::KvList(message) => Self::Map(Map::Wire { message, number: 1 }),
            AnyValue::Bytes(bytes) => Self::Bytes(Cow::Borrowed(bytes)),
        }
    }
}

impl<'a> Value<'a> {
    /// A text that is borrowed.
    #[inline]
    pub fn text(text: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self::Text(Cow::Borrowed(text.as_ref()))
    }

    /// A text of its own.
    pub(crate) fn owned_text(text: impl Into<Vec<u8>>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }

    /// For messages.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Double(_) => "a double",
            Self::Text(_) | Self::TraceState(_) => "a text",
            Self::Bytes(_) => "bytes",
            Self::TraceId(_) => "a trace id",
            Self::SpanId(_) => "a span id",
            Self::Time(_) => "a time",
            Self::Duration(_) => "a duration",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Messages { .. } => "a list of messages",
        }
    }

    /// The text that this is, if it is one.
    #[inline]
    pub(crate) fn as_text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text),
            Self::TraceState(header) => Some(header),
            _ => None,
        }
    }

    /// How many bytes there are to look through, at most.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Text(bytes) | Self::Bytes(bytes) => bytes.len(),
            Self::TraceState(bytes) | Self::List(List::Wire(bytes)) => bytes.len(),
            Self::Map(Map::Wire { message, .. } | Map::Nested { message, .. }) | Self::Messages { message, .. } => {
                message.len()
            }
            Self::List(List::Made(values)) => values.iter().map(|value| 1 + value.size()).sum(),
            Self::Map(Map::Made(entries)) => entries.iter().map(|(key, value)| 1 + key.len() + value.size()).sum(),
            _ => 0,
        }
    }

    /// The value at `key` of a map or a list.
    #[inline]
    pub(crate) fn index(self, key: &Value<'_>) -> Result<Value<'a>, EvalError> {
        match (self, key) {
            // What is in nothing is nothing.
            (Self::Nil, _) => Ok(Self::Nil),
            (Self::Map(map), Value::Text(key)) => Ok(map.get(key)),
            (Self::List(list), &Value::Int(index)) => list.get(index),
            (Self::TraceState(header), Value::Text(key)) => Ok(trace_state_entry(header, key)),
            (Self::Map(_), key) => Err(EvalError::new("a map is indexed by a text", key)),
            (Self::List(_), key) => Err(EvalError::new("a list is indexed by an integer", key)),
            (Self::TraceState(_), key) => Err(EvalError::new("trace_state is indexed by a text", key)),
            (value, _) => Err(EvalError::new("only maps and lists have keys", &value)),
        }
    }
}

impl<'a> List<'a> {
    /// The values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Value<'a>> {
        let (wire, made): (&'a [u8], Vec<Value<'a>>) = match self {
            Self::Wire(array) => (array, Vec::new()),
            Self::Made(values) => (&[], values.clone()),
        };
        let wire = len_fields(wire, 1).map(|value| Value::from(AnyValue::new(value)));
        wire.chain(made)
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Wire(array) => len_fields(array, 1).count(),
            Self::Made(values) => values.len(),
        }
    }

    fn get(self, index: i64) -> Result<Value<'a>, EvalError> {
        let found = usize::try_from(index).ok().and_then(|index| match self {
            Self::Wire(array) => len_fields(array, 1).nth(index).map(|value| Value::from(AnyValue::new(value))),
            Self::Made(values) => values.into_iter().nth(index),
        });
        found.ok_or_else(|| EvalError::new("the index lies outside of the list", &Value::Int(index)))
    }
}

impl<'a> Map<'a> {
    /// A map of `entries`, ordered by key. The last of equal keys counts.
    pub(crate) fn by_key(mut entries: Vec<(Cow<'a, [u8]>, Value<'a>)>) -> Self {
        entries.reverse();
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        entries.dedup_by(|later, kept| later.0 == kept.0);
        Self::Made(entries)
    }

    /// The value of the first entry `key`; nil if there is none.
    #[inline]
    pub(crate) fn get(self, key: &[u8]) -> Value<'a> {
        match self {
            Self::Wire { message, number } => find(message, number, key).unwrap_or(Value::Nil),
            Self::Nested { message, outer, inner } => {
                len_fields(message, outer).find_map(|message| find(message, inner, key)).unwrap_or(Value::Nil)
            }
            Self::Made(entries) => {
                entries.into_iter().find(|(known, _)| **known == *key).map_or(Value::Nil, |(_, value)| value)
            }
        }
    }

    /// The entries, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Cow<'a, [u8]>, Value<'a>)> {
        let (message, outer, inner, made) = match self {
            Self::Wire { message, number } => (*message, None, *number, Vec::new()),
            Self::Nested { message, outer, inner } => (*message, Some(*outer), *inner, Vec::new()),
            Self::Made(entries) => (&[][..], None, 1, entries.clone()),
        };
        let direct = if outer.is_none() { message } else { &[] };
        let nested = outer.map(|outer| len_fields(message, outer)).into_iter().flatten();
        let entries = std::iter::once(direct).chain(nested).flat_map(move |message| Attributes::new(message, inner));
        entries.map(|KeyValue { key, value }| (Cow::Borrowed(key), Value::from(value))).chain(made)
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Made(entries) => entries.len(),
            Self::Wire { message, number } => len_fields(message, *number).count(),
            Self::Nested { message, outer, inner } => {
                len_fields(message, *outer).map(|message| len_fields(message, *inner).count()).sum()
            }
        }
    }
}

#[inline]
fn find<'a>(message: &'a [u8], number: u32, key: &[u8]) -> Option<Value<'a>> {
    Attributes::new(message, number).get(key).map(Value::from)
}

/// The length-delimited fields `wanted` of `message`, in order.
pub(crate) fn len_fields(message: &[u8], wanted: u32) -> impl Iterator<Item = &[u8]> {
    Fields::new(message).filter_map(move |Field { number, value }| match value {
        Wire::Len(bytes) if number == wanted => Some(bytes),
        _ => None,
    })
}

/// The entry `key` of a W3C `tracestate` header: "" if it is not there, nil if the header is no such.
fn trace_state_entry<'a>(header: &'a [u8], key: &[u8]) -> Value<'a> {
    const MAX_MEMBERS: usize = 32;
    let mut found: &[u8] = b"";
    let mut members = 0;
    for member in header.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()) {
        members += 1;
        let Some(at) = member.iter().position(|&byte| byte == b'=') else {
            return Value::Nil;
        };
        let (name, value) = (member.get(..at).unwrap_or_default(), member.get(at + 1..).unwrap_or_default());
        if !valid_member(name, value) || members > MAX_MEMBERS {
            return Value::Nil;
        }
        if name == key {
            found = value;
        }
    }
    Value::text(found)
}

fn valid_member(name: &[u8], value: &[u8]) -> bool {
    let name_byte = |byte: &u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@')
    };
    let first = name.first().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    first
        && name.len() <= 256
        && name.iter().all(name_byte)
        && !value.is_empty()
        && value.len() <= 256
        && value.iter().all(|byte| matches!(byte, 0x20..=0x7e) && *byte != b'=')
}
