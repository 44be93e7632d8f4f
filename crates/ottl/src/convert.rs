//! Turning values into other types, as the Collector's getters do.

use std::borrow::Cow;
use std::io::Write as _;

use crate::eval::EvalError;
use crate::value::{MAX_VALUE_DEPTH, Value};

/// The value as a text; `None` for nil. Bytes are written in hexadecimal, lists and maps as JSON.
#[inline]
pub(crate) fn to_text<'v>(value: Value<'v>) -> Result<Option<Cow<'v, [u8]>>, EvalError> {
    match value {
        Value::Text(text) => Ok(Some(text)),
        Value::TraceState(header) => Ok(Some(Cow::Borrowed(header))),
        Value::Nil => Ok(None),
        other => converted(&other).map(Some),
    }
}

fn converted<'v>(value: &Value<'_>) -> Result<Cow<'v, [u8]>, EvalError> {
    let mut out = Vec::new();
    match value {
        Value::Bool(flag) => return Ok(Cow::Borrowed(if *flag { b"true" } else { b"false" })),
        Value::Int(number) => put(&mut out, format_args!("{number}")),
        Value::Double(number) => put_double(&mut out, *number),
        Value::Bytes(bytes) => out.extend_from_slice(hex::encode(bytes).as_bytes()),
        Value::List(_) | Value::Map(_) => put_json(&mut out, value, 0)?,
        other => return Err(EvalError::new("this has no form as a text", other)),
    }
    Ok(Cow::Owned(out))
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = out.write_fmt(text);
}

fn put_double(out: &mut Vec<u8>, number: f64) {
    if number.is_infinite() {
        out.extend_from_slice(if number > 0.0 { b"+Inf" } else { b"-Inf" });
    } else {
        put(out, format_args!("{number}"));
    }
}

fn put_json(out: &mut Vec<u8>, value: &Value<'_>, depth: usize) -> Result<(), EvalError> {
    if depth >= MAX_VALUE_DEPTH {
        return Err(EvalError::plain("the value nests too deep"));
    }
    match value {
        Value::Text(text) => put_json_text(out, text),
        Value::TraceState(text) => put_json_text(out, text),
        Value::Bool(flag) => put(out, format_args!("{flag}")),
        Value::Int(number) => put(out, format_args!("{number}")),
        Value::Double(number) if number.is_finite() => put(out, format_args!("{number}")),
        Value::Bytes(bytes) => put_json_text(out, hex::encode(bytes).as_bytes()),
        Value::List(list) => {
            out.push(b'[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                put_json(out, &item, depth + 1)?;
            }
            out.push(b']');
        }
        Value::Map(map) => {
            out.push(b'{');
            for (index, (key, item)) in map.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                put_json_text(out, &key);
                out.push(b':');
                put_json(out, &item, depth + 1)?;
            }
            out.push(b'}');
        }
        _ => out.extend_from_slice(b"null"),
    }
    Ok(())
}

fn put_json_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => put(out, format_args!("\\u{byte:04x}")),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// `Int`: nil where a text is not a number.
pub(crate) fn to_int(value: &Value<'_>) -> Result<Value<'static>, EvalError> {
    match value {
        Value::Int(number) => Ok(Value::Int(*number)),
        Value::Double(number) => Ok(Value::Int(*number as i64)),
        Value::Bool(flag) => Ok(Value::Int(i64::from(*flag))),
        Value::Text(text) => Ok(parsed::<i64>(text).map_or(Value::Nil, Value::Int)),
        Value::Nil => Ok(Value::Nil),
        other => Err(EvalError::new("this cannot be made an integer", other)),
    }
}

/// `Double`: nil where a text is not a number.
pub(crate) fn to_double(value: &Value<'_>) -> Result<Value<'static>, EvalError> {
    match value {
        Value::Int(number) => Ok(Value::Double(*number as f64)),
        Value::Double(number) => Ok(Value::Double(*number)),
        Value::Bool(flag) => Ok(Value::Double(if *flag { 1.0 } else { 0.0 })),
        Value::Text(text) => Ok(parsed::<f64>(text).map_or(Value::Nil, Value::Double)),
        Value::Nil => Ok(Value::Nil),
        other => Err(EvalError::new("this cannot be made a double", other)),
    }
}

/// `Bool`: texts as Go's `strconv.ParseBool` reads them.
pub(crate) fn to_bool(value: &Value<'_>) -> Result<Value<'static>, EvalError> {
    match value {
        Value::Bool(flag) => Ok(Value::Bool(*flag)),
        Value::Int(number) => Ok(Value::Bool(*number != 0)),
        Value::Double(number) => Ok(Value::Bool(*number != 0.0)),
        Value::Text(text) => match &**text {
            b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Ok(Value::Bool(true)),
            b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Ok(Value::Bool(false)),
            _ => Err(EvalError::plain("the text is not a boolean")),
        },
        Value::Nil => Ok(Value::Nil),
        other => Err(EvalError::new("this cannot be made a boolean", other)),
    }
}

fn parsed<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A duration in Go's notation: `1h30m`, `1.5s`, `-200ms`, `0`.
pub(crate) fn duration(text: &[u8]) -> Option<i64> {
    let (negative, mut rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if rest == b"0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: f64 = 0.0;
    let mut whole: i128 = 0;
    while !rest.is_empty() {
        let len = rest.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(len);
        let unit_len = after.iter().position(|byte| byte.is_ascii_digit() || *byte == b'.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        let nanos: i64 = match unit {
            b"ns" => 1,
            b"us" | b"\xc2\xb5s" | b"\xce\xbcs" => 1_000,
            b"ms" => 1_000_000,
            b"s" => 1_000_000_000,
            b"m" => 60_000_000_000,
            b"h" => 3_600_000_000_000,
            _ => return None,
        };
        let number = std::str::from_utf8(number).ok()?;
        let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
        if integer.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 30 {
            return None;
        }
        if !integer.is_empty() {
            whole = whole.checked_add(integer.parse::<i128>().ok()?.checked_mul(i128::from(nanos))?)?;
        }
        if !fraction.is_empty() {
            total += format!("0.{fraction}").parse::<f64>().ok()? * nanos as f64;
        }
        rest = next;
    }
    let nanos = whole.checked_add(total as i128)?;
    i64::try_from(if negative { -nanos } else { nanos }).ok()
}
