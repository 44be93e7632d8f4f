//! Converters of lists and maps.

use crate::ast::CompareOp;
use crate::compare::compare;
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
