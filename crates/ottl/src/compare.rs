//! Comparing values: the table of the Collector's `LANGUAGE.md`, "Comparison Rules".
//!
//! Numbers compare as numbers, texts, bytes, booleans, times and durations with their like. Lists,
//! maps and ids are equal or not. Everything else is just different: `!=` holds and nothing else does.

use std::cmp::Ordering;

use crate::ast::CompareOp;
use crate::value::{List, MAX_VALUE_DEPTH, Map, Value};

/// Does `left op right` hold?
#[inline]
pub(crate) fn compare(op: CompareOp, left: &Value<'_>, right: &Value<'_>) -> bool {
    let ordering = match (left, right) {
        (Value::Text(left), Value::Text(right)) => return ordered(op, left.cmp(right)),
        (Value::Int(left), Value::Int(right))
        | (Value::Time(left), Value::Time(right))
        | (Value::Duration(left), Value::Duration(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Double(left), Value::Double(right)) => return doubles(op, *left, *right),
        (Value::Int(left), Value::Double(right)) => return doubles(op, *left as f64, *right),
        (Value::Double(left), Value::Int(right)) => return doubles(op, *left, *right as f64),
        (Value::Bytes(left), Value::Bytes(right)) => Some(left.cmp(right)),
        (Value::Nil, Value::Nil) => Some(Ordering::Equal),
        (Value::TraceState(_), _) | (_, Value::TraceState(_)) => match (left.as_text(), right.as_text()) {
            (Some(left), Some(right)) => Some(left.cmp(right)),
            _ => None,
        },
        _ => None,
    };
    match ordering {
        Some(ordering) => ordered(op, ordering),
        None => unordered(op, left, right),
    }
}

#[inline]
fn ordered(op: CompareOp, ordering: Ordering) -> bool {
    match op {
        CompareOp::Equal => ordering.is_eq(),
        CompareOp::NotEqual => ordering.is_ne(),
        CompareOp::Less => ordering.is_lt(),
        CompareOp::LessOrEqual => ordering.is_le(),
        CompareOp::Greater => ordering.is_gt(),
        CompareOp::GreaterOrEqual => ordering.is_ge(),
    }
}

/// As IEEE 754 has it: NaN is different from everything.
#[expect(clippy::float_cmp, reason = "equality of numbers is what was asked for")]
fn doubles(op: CompareOp, left: f64, right: f64) -> bool {
    match op {
        CompareOp::Equal => left == right,
        CompareOp::NotEqual => left != right,
        CompareOp::Less => left < right,
        CompareOp::LessOrEqual => left <= right,
        CompareOp::Greater => left > right,
        CompareOp::GreaterOrEqual => left >= right,
    }
}

fn unordered(op: CompareOp, left: &Value<'_>, right: &Value<'_>) -> bool {
    match op {
        CompareOp::Equal => same(left, right, 0),
        CompareOp::NotEqual => !same(left, right, 0),
        _ => false,
    }
}

/// Are they the same, types of numbers included? What nests too deep is not.
#[expect(clippy::float_cmp, reason = "equality of numbers is what was asked for")]
fn same(left: &Value<'_>, right: &Value<'_>, depth: usize) -> bool {
    match (left, right) {
        (Value::Nil, Value::Nil) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Int(left), Value::Int(right)) => left == right,
        (Value::Double(left), Value::Double(right)) => left == right,
        (Value::Text(left), Value::Text(right)) | (Value::Bytes(left), Value::Bytes(right)) => left == right,
        (Value::TraceId(left), Value::TraceId(right)) => left == right,
        (Value::SpanId(left), Value::SpanId(right)) => left == right,
        (Value::List(left), Value::List(right)) => same_lists(left, right, depth),
        (Value::Map(left), Value::Map(right)) => same_maps(left, right, depth),
        _ => false,
    }
}

fn same_lists(left: &List<'_>, right: &List<'_>, depth: usize) -> bool {
    depth < MAX_VALUE_DEPTH
        && left.len() == right.len()
        && left.iter().zip(right.iter()).all(|(left, right)| same(&left, &right, depth + 1))
}

/// Whatever the order. Sorted once, because a map may be large and hostile.
fn same_maps(left: &Map<'_>, right: &Map<'_>, depth: usize) -> bool {
    if depth >= MAX_VALUE_DEPTH || left.len() != right.len() {
        return false;
    }
    let mut left: Vec<_> = left.iter().collect();
    let mut right: Vec<_> = right.iter().collect();
    left.sort_by(|one, other| one.0.cmp(&other.0));
    right.sort_by(|one, other| one.0.cmp(&other.0));
    left.iter().zip(&right).all(|(left, right)| left.0 == right.0 && same(&left.1, &right.1, depth + 1))
}
