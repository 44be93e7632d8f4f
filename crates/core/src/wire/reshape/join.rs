//! Joining values that were written in several pieces.
//!
//! Protobuf lets a sub-message come in pieces that merge. Views follow that, but for one case:
//! an [`AnyValue`](crate::wire::AnyValue) is a slice, so that a list of which every piece adds
//! some elements cannot be shown. The ingress check reports such requests (no known client
//! writes them), and they are rewritten here before they enter the pipeline.

use bytes::Bytes;

use super::raw_fields;
use crate::batch::Signal;
use crate::wire::cursor::{MAX_DEPTH, Value, put_len_field};

/// Rewrites a request so that each of its values is in one piece. Values that were replaced by a
/// later one disappear; everything else stays, unknown fields included.
#[must_use]
pub fn join_split_values(signal: Signal, bytes: &Bytes) -> Bytes {
    let mut out = Vec::with_capacity(bytes.len());
    rewrite(Kind::Request(signal), bytes, MAX_DEPTH, &mut out);
    out.into()
}

/// The messages on the way to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request(Signal),
    ResourceGroup(Signal),
    ScopeGroup(Signal),
    Resource,
    Scope,
    Span,
    Event,
    Link,
    LogRecord,
    Metric,
    /// `Gauge`, `Sum`, ... in this field of `Metric`.
    Data(u32),
    /// A data point of the data in this field of `Metric`.
    Point(u32),
    Exemplar,
    KeyValue,
    KeyValueList,
    ArrayValue,
    AnyValue,
}

impl Kind {
    fn child(self, number: u32) -> Option<Self> {
        let child = match (self, number) {
            (Self::Request(signal), 1) => Self::ResourceGroup(signal),
            (Self::ResourceGroup(_), 1) => Self::Resource,
            (Self::ResourceGroup(signal), 2) => Self::ScopeGroup(signal),
            (Self::ScopeGroup(_), 1) => Self::Scope,
            (Self::ScopeGroup(Signal::Traces), 2) => Self::Span,
            (Self::ScopeGroup(Signal::Metrics), 2) => Self::Metric,
            (Self::ScopeGroup(Signal::Logs), 2) => Self::LogRecord,
            (Self::Span, 11) => Self::Event,
            (Self::Span, 13) => Self::Link,
            (Self::Metric, 5 | 7 | 9 | 10 | 11) => Self::Data(number),
            (Self::Data(data), 1) => Self::Point(data),
            (Self::Point(5 | 7), 5) | (Self::Point(9), 8) | (Self::Point(10), 11) => Self::Exemplar,
            (Self::Resource, 1)
            | (Self::Scope, 3)
            | (Self::Span, 9)
            | (Self::Event, 3)
            | (Self::Link, 4)
            | (Self::LogRecord, 6)
            | (Self::Metric, 12)
            | (Self::Point(5 | 7), 7)
            | (Self::Point(9), 9)
            | (Self::Point(10), 1)
            | (Self::Point(11), 7)
            | (Self::Exemplar, 7)
            | (Self::KeyValueList, 1) => Self::KeyValue,
            (Self::KeyValue, 2) | (Self::LogRecord, 5) | (Self::ArrayValue, 1) => Self::AnyValue,
            (Self::AnyValue, 5) => Self::ArrayValue,
            (Self::AnyValue, 6) => Self::KeyValueList,
            _ => return None,
        };
        Some(child)
    }
}

/// Writes `message`. Stops looking for values at `depth`, which no checked request reaches.
fn rewrite(kind: Kind, message: &[u8], depth: u32, out: &mut Vec<u8>) {
    let Some(depth) = depth.checked_sub(1) else {
        out.extend_from_slice(message);
        return;
    };
    // The pieces of a single value, one after the other, are that value.
    let mut value: Option<(u32, Vec<u8>)> = None;
    for (range, field) in raw_fields(message) {
        match (kind.child(field.number), field.value) {
            (Some(Kind::AnyValue), Value::Len(piece)) if kind != Kind::ArrayValue => {
                let (_, pieces) = value.get_or_insert_with(|| (field.number, Vec::new()));
                pieces.extend_from_slice(piece);
            }
            (Some(child), Value::Len(content)) => {
                let mut rewritten = Vec::with_capacity(content.len());
                match child {
                    Kind::AnyValue => rewrite_value(content, depth, &mut rewritten),
                    _ => rewrite(child, content, depth, &mut rewritten),
                }
                put_len_field(out, field.number, &rewritten);
            }
            _ => out.extend_from_slice(message.get(range).unwrap_or_default()),
        }
    }
    if let Some((number, pieces)) = value {
        let mut rewritten = Vec::with_capacity(pieces.len());
        rewrite_value(&pieces, depth, &mut rewritten);
        put_len_field(out, number, &rewritten);
    }
}

/// Writes the `AnyValue` in `message` with the one member of the oneof that counts.
fn rewrite_value(message: &[u8], depth: u32, out: &mut Vec<u8>) {
    let mut member = 0;
    let mut scalar: &[u8] = &[];
    let mut pieces = Vec::new();
    for (range, field) in raw_fields(message) {
        let raw = message.get(range).unwrap_or_default();
        if !(1..=8).contains(&field.number) {
            out.extend_from_slice(raw);
            continue;
        }
        if member != field.number {
            pieces.clear();
        }
        member = field.number;
        scalar = raw;
        if let Value::Len(piece) = field.value {
            pieces.extend_from_slice(piece);
        }
    }
    match Kind::AnyValue.child(member) {
        Some(list) => {
            let mut rewritten = Vec::with_capacity(pieces.len());
            rewrite(list, &pieces, depth, &mut rewritten);
            put_len_field(out, member, &rewritten);
        }
        None => out.extend_from_slice(scalar),
    }
}
