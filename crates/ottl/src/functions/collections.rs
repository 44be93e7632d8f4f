//! Converters of lists and maps.

use std::cmp::Ordering;

use crate::ast::CompareOp;
use crate::compare::compare;
use crate::convert::to_text;
use crate::eval::EvalError;
use crate::value::{List, Value};

pub(super) fn contains_value(target: &Value<'_>, item: &Value<'_>) -> Result<Value<'static>, EvalError> {
    match target {
        Value::List(List::Made(values)) => {
            Ok(Value::Bool(values.iter().any(|value| compare(CompareOp::Equal, value, item))))
        }
        Value::List(list) => Ok(Value::Bool(list.iter().any(|value| compare(CompareOp::Equal, &value, item)))),
        other => Err(EvalError::new("a list is expected", other)),
    }
}

pub(super) fn coalesce(values: Value<'_>) -> Result<Value<'_>, EvalError> {
    let Value::List(list) = values else {
        return Err(EvalError::new("a list of values is expected", &values));
    };
    Ok(list.iter().find(|value| !matches!(value, Value::Nil)).unwrap_or(Value::Nil))
}

/// The place of a part of a text, in bytes, or of an item of a list; -1 if it is not there.
pub(super) fn index(target: &Value<'_>, wanted: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let found = match target {
        Value::Text(text) => {
            let wanted = super::text::of(wanted)?;
            memchr::memmem::find(text, wanted)
        }
        Value::List(list) => list.iter().position(|value| compare(CompareOp::Equal, &value, wanted)),
        other => return Err(EvalError::new("a text or a list is expected", other)),
    };
    Ok(Value::Int(found.and_then(|found| i64::try_from(found).ok()).unwrap_or(-1)))
}

pub(super) fn keys<'v>(target: &Value<'v>) -> Result<Value<'v>, EvalError> {
    match target {
        Value::Map(map) => Ok(Value::List(List::Made(map.iter().map(|(key, _)| Value::Text(key)).collect()))),
        other => Err(EvalError::new("a map is expected", other)),
    }
}

pub(super) fn values<'v>(target: &Value<'v>) -> Result<Value<'v>, EvalError> {
    match target {
        Value::Map(map) => Ok(Value::List(List::Made(map.iter().map(|(_, value)| value).collect()))),
        other => Err(EvalError::new("a map is expected", other)),
    }
}

/// In order, types kept: numbers as numbers, texts and booleans (and what they are mixed with) as texts.
pub(super) fn sort<'v>(target: Value<'v>, order: &Value<'_>) -> Result<Value<'v>, EvalError> {
    let Value::List(list) = &target else {
        return Err(EvalError::new("a list is expected", &target));
    };
    let is_reversed = match order {
        Value::Nil => false,
        order => match super::text::of(order)? {
            b"asc" => false,
            b"desc" => true,
            _ => return Err(EvalError::plain("the order is \"asc\" or \"desc\"")),
        },
    };
    let mut values: Vec<Value<'v>> = list.iter().collect();
    let is_number = |value: &Value<'_>| matches!(value, Value::Int(_) | Value::Double(_));
    let is_scalar = |value: &Value<'_>| is_number(value) || matches!(value, Value::Text(_) | Value::Bool(_));
    if let Some(other) = values.iter().find(|value| !is_scalar(value)) {
        return Err(EvalError::new("only numbers, texts and booleans have an order", other));
    }
    let ordered = |ordering: Ordering| if is_reversed { ordering.reverse() } else { ordering };
    if values.iter().all(is_number) {
        values.sort_by(|one, other| ordered(numbers(one, other)));
        return Ok(Value::List(List::Made(values)));
    }
    let mut texts = Vec::with_capacity(values.len());
    for value in values {
        texts.push((to_text(value.clone())?.unwrap_or_default(), value));
    }
    texts.sort_by(|one, other| ordered(one.0.cmp(&other.0)));
    Ok(Value::List(List::Made(texts.into_iter().map(|(_, value)| value).collect())))
}

fn numbers(one: &Value<'_>, other: &Value<'_>) -> Ordering {
    let double = |value: &Value<'_>| match value {
        Value::Int(number) => *number as f64,
        Value::Double(number) => *number,
        _ => 0.0,
    };
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => one.cmp(other),
        _ => double(one).total_cmp(&double(other)),
    }
}
