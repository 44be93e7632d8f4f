//! `ParseJSON`.

use serde_json::Value as Json;

use super::text;
use crate::eval::EvalError;
use crate::value::{List, Map, Value};

/// The longest text that is parsed: what is made of it may take some thirty times as much memory.
const MAX_TEXT: usize = 1 << 18;

/// A map or a list. All numbers become doubles, as in the Collector. (Texts that nest more than 128 deep are
/// refused by the parser.)
pub(super) fn parse(value: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let text = text::of(value)?;
    if text.len() > MAX_TEXT {
        return Err(EvalError::plain("this text is too long to be parsed as JSON: more than 256 KiB"));
    }
    match serde_json::from_slice(text) {
        Ok(json @ (Json::Object(_) | Json::Array(_))) => Ok(converted(json)),
        Ok(_) => Err(EvalError::plain("this JSON is neither an object nor an array")),
        Err(_) => Err(EvalError::plain("this text is not JSON")),
    }
}

fn converted(json: Json) -> Value<'static> {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(flag) => Value::Bool(flag),
        Json::Number(number) => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Value::owned_text(text),
        Json::Array(values) => Value::List(List::Made(values.into_iter().map(converted).collect())),
        Json::Object(entries) => {
            let entry = |(key, value): (String, Json)| (key.into_bytes().into(), converted(value));
            Value::Map(Map::Made(entries.into_iter().map(entry).collect()))
        }
    }
}
