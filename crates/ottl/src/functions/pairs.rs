//! `ParseKeyValue` and `ToKeyValueString`: `k1=v1 k2="a text"`.

use std::borrow::Cow;

use super::text;
use crate::convert::to_text;
use crate::eval::EvalError;
use crate::value::{Map, Value};

/// The most pairs that are read.
const MAX_PAIRS: usize = 1 << 12;

/// What stands between keys and values, and between pairs.
fn delimiters<'x>(delimiter: &'x Value<'_>, between: &'x Value<'_>) -> Result<(&'x [u8], &'x [u8]), EvalError> {
    let or = |value: &'x Value<'_>, default: &'static [u8]| match value {
        Value::Nil => Ok(default),
        value => text::of(value).map(|text| if text.is_empty() { default } else { text }),
    };
    let (delimiter, between) = (or(delimiter, b"=")?, or(between, b" ")?);
    if delimiter == between {
        return Err(EvalError::plain("pairs and their values need different delimiters"));
    }
    Ok((delimiter, between))
}

pub(super) fn parse(
    target: &Value<'_>,
    delimiter: &Value<'_>,
    between: &Value<'_>,
) -> Result<Value<'static>, EvalError> {
    let (delimiter, between) = delimiters(delimiter, between)?;
    let source = text::of(target)?;
    if source.is_empty() {
        return Err(EvalError::plain("the text is empty"));
    }
    let mut entries: Vec<(Cow<'static, [u8]>, Value<'static>)> = Vec::new();
    for pair in split(source, between)? {
        let Some(at) = memchr::memmem::find(&pair, delimiter) else {
            return Err(EvalError::plain("a pair has no delimiter"));
        };
        let (key, value) = pair.split_at(at);
        let value = value.get(delimiter.len()..).unwrap_or_default();
        entries.push((Cow::Owned(key.trim_ascii().to_vec()), Value::owned_text(value.trim_ascii())));
    }
    Ok(Value::Map(Map::by_key(entries)))
}

/// The pairs of `source`; in quotes of either kind delimiters are text, and the quotes go.
fn split(source: &[u8], between: &[u8]) -> Result<Vec<Vec<u8>>, EvalError> {
    let mut pairs = Vec::new();
    let mut pair = Vec::new();
    let mut quote = None;
    let mut rest = source;
    while let Some((&byte, after)) = rest.split_first() {
        if quote.is_none()
            && let Some(after) = rest.strip_prefix(between)
        {
            if !pair.is_empty() {
                pairs.push(std::mem::take(&mut pair));
            }
            if pairs.len() > MAX_PAIRS {
                return Err(EvalError::plain("the text has more than 4096 pairs"));
            }
            rest = after;
            continue;
        }
        match quote {
            None if byte == b'"' || byte == b'\'' => quote = Some(byte),
            Some(open) if open == byte => quote = None,
            _ => pair.push(byte),
        }
        rest = after;
    }
    if quote.is_some() {
        return Err(EvalError::plain("a quote is not closed"));
    }
    if !pair.is_empty() {
        pairs.push(pair);
    }
    Ok(pairs)
}

pub(super) fn write(
    target: &Value<'_>,
    delimiter: &Value<'_>,
    between: &Value<'_>,
    sorted: &Value<'_>,
) -> Result<Value<'static>, EvalError> {
    let (delimiter, between) = delimiters(delimiter, between)?;
    let Value::Map(map) = target else {
        return Err(EvalError::new("a map is expected", target));
    };
    let mut entries: Vec<_> = map.iter().collect();
    match sorted {
        Value::Nil | Value::Bool(false) => {}
        Value::Bool(true) => entries.sort_by(|one, other| one.0.cmp(&other.0)),
        other => return Err(EvalError::new("sort_output is a boolean", other)),
    }
    let mut out = Vec::new();
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(between);
        }
        put(&mut out, &key, delimiter, between);
        out.extend_from_slice(delimiter);
        put(&mut out, to_text(value)?.as_deref().unwrap_or_default(), delimiter, between);
        text::check_made(out.len())?;
    }
    Ok(Value::owned_text(out))
}

/// In quotes where it could not be told apart otherwise.
fn put(out: &mut Vec<u8>, text: &[u8], delimiter: &[u8], between: &[u8]) {
    let has = |what: &[u8]| memchr::memmem::find(text, what).is_some();
    if !has(delimiter) && !has(between) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for &byte in text {
        if byte == b'"' {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}
