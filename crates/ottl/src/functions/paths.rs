//! `SliceToMap`: a list of maps as one map, by a value in each of them.

use std::borrow::Cow;

use super::text;
use crate::eval::EvalError;
use crate::value::{Map, Value};

/// The longest path.
const MAX_PATH: usize = 32;

pub(super) fn slice_to_map<'v>(
    target: &Value<'v>,
    key_path: &Value<'_>,
    value_path: &Value<'_>,
) -> Result<Value<'v>, EvalError> {
    let Value::List(list) = target else {
        return Err(EvalError::new("a list is expected", target));
    };
    let (key_path, value_path) = (path(key_path)?, path(value_path)?);
    let mut entries: Vec<(Cow<'v, [u8]>, Value<'v>)> = Vec::new();
    for (index, item) in list.iter().enumerate() {
        let key = match &key_path {
            None => Cow::Owned(index.to_string().into_bytes()),
            Some(path) => match walk(&item, path)? {
                Value::Text(key) => key,
                other => return Err(EvalError::new("the key of an item has to be a text", &other)),
            },
        };
        let value = match &value_path {
            None => item,
            Some(path) => walk(&item, path)?,
        };
        entries.push((key, value));
    }
    Ok(Value::Map(Map::by_key(entries)))
}

fn not_a_map(found: &Value<'_>) -> EvalError {
    EvalError::new("the items have to be maps where a path leads into them", found)
}

/// The texts of a path; none of nil.
fn path<'v>(value: &Value<'v>) -> Result<Option<Vec<Value<'v>>>, EvalError> {
    let parts: Vec<Value<'v>> = match value {
        Value::Nil => return Ok(None),
        Value::List(list) => list.iter().collect(),
        other => return Err(EvalError::new("a path is a list of texts", other)),
    };
    if parts.is_empty() || parts.len() > MAX_PATH {
        return Err(EvalError::plain("a path has 1 to 32 texts"));
    }
    for part in &parts {
        text::of(part)?;
    }
    Ok(Some(parts))
}

fn walk<'v>(item: &Value<'v>, path: &[Value<'_>]) -> Result<Value<'v>, EvalError> {
    let mut found = item.clone();
    for part in path {
        let Value::Map(map) = &found else { return Err(not_a_map(&found)) };
        let wanted = text::of(part)?;
        let Some((_, value)) = map.iter().find(|(key, _)| **key == *wanted) else {
            return Err(EvalError::plain("the path leads to nothing in an item"));
        };
        found = value;
    }
    Ok(found)
}
