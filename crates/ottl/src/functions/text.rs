//! Converters of texts. They work on bytes: a text from the wire is UTF-8 already.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::convert::to_text;
use crate::eval::EvalError;
use crate::value::{List, Value};

/// The longest text that a converter makes.
const MAX_MADE: usize = 1 << 20;
/// The most parts that a text is split into.
const MAX_PARTS: usize = 1 << 16;
/// The most characters that may be trimmed away.
const MAX_TRIMMED: usize = 64;

/// The text that `value` is.
#[inline]
pub(super) fn of<'x>(value: &'x Value<'_>) -> Result<&'x [u8], EvalError> {
    value.as_text().ok_or_else(|| EvalError::new("a text is expected", value))
}

pub(super) fn owned<'v>(value: Value<'v>) -> Result<Cow<'v, [u8]>, EvalError> {
    match value {
        Value::Text(text) => Ok(text),
        Value::TraceState(text) => Ok(Cow::Borrowed(text)),
        other => Err(EvalError::new("a text is expected", &other)),
    }
}

/// A part of `text`, without copying what is borrowed.
fn part(text: Cow<'_, [u8]>, range: Range<usize>) -> Value<'_> {
    match text {
        Cow::Borrowed(text) => Value::text(text.get(range).unwrap_or_default()),
        Cow::Owned(text) => Value::owned_text(text.get(range).unwrap_or_default()),
    }
}

pub(super) fn lower(value: Value<'_>) -> Result<Value<'_>, EvalError> {
    let text = owned(value)?;
    if text.iter().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return Ok(Value::Text(text));
    }
    Ok(Value::owned_text(String::from_utf8_lossy(&text).to_lowercase()))
}

pub(super) fn upper(value: Value<'_>) -> Result<Value<'_>, EvalError> {
    let text = owned(value)?;
    if text.iter().all(|byte| byte.is_ascii() && !byte.is_ascii_lowercase()) {
        return Ok(Value::Text(text));
    }
    Ok(Value::owned_text(String::from_utf8_lossy(&text).to_uppercase()))
}

pub(super) fn concat<'v>(values: &Value<'v>, delimiter: &Value<'_>) -> Result<Value<'v>, EvalError> {
    let Value::List(list) = values else {
        return Err(EvalError::new("a list of values is expected", values));
    };
    let delimiter = of(delimiter)?;
    let mut out = Vec::new();
    for (index, value) in list.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(delimiter);
        }
        // As in Go.
        out.extend_from_slice(to_text(value)?.as_deref().unwrap_or(b"<nil>"));
        check_made(out.len())?;
    }
    Ok(Value::owned_text(out))
}

/// An error if a text of this length is not made.
pub(super) fn check_made(length: usize) -> Result<(), EvalError> {
    if length > MAX_MADE { Err(EvalError::plain("the text would be longer than 1 MiB")) } else { Ok(()) }
}

pub(super) fn split<'v>(value: Value<'v>, delimiter: &Value<'_>) -> Result<Value<'v>, EvalError> {
    let (text, delimiter) = (owned(value)?, of(delimiter)?);
    let mut parts = Vec::new();
    let mut start = 0;
    while let Some(end) = end_of_part(&text, start, delimiter) {
        parts.push(piece(&text, start..end));
        start = end + delimiter.len();
        if parts.len() == MAX_PARTS {
            return Err(EvalError::plain("the text has more than 65536 parts"));
        }
    }
    if !delimiter.is_empty() {
        parts.push(piece(&text, start..text.len()));
    }
    Ok(Value::List(List::Made(parts)))
}

/// Where the part that begins at `start` ends, if a delimiter follows; with an empty one, after a
/// character.
fn end_of_part(text: &[u8], start: usize, delimiter: &[u8]) -> Option<usize> {
    let rest = text.get(start..)?;
    if delimiter.is_empty() {
        let (_, after) = rest.split_first()?;
        return Some(start + 1 + after.iter().take_while(|byte| **byte & 0xc0 == 0x80).count());
    }
    memchr::memmem::find(rest, delimiter).map(|found| start + found)
}

pub(super) fn piece<'v>(text: &Cow<'v, [u8]>, range: Range<usize>) -> Value<'v> {
    match text {
        Cow::Borrowed(text) => Value::text(text.get(range).unwrap_or_default()),
        Cow::Owned(text) => Value::owned_text(text.get(range).unwrap_or_default()),
    }
}

pub(super) fn substring<'v>(
    value: Value<'v>,
    start: &Value<'_>,
    length: &Value<'_>,
    utf8_safe: &Value<'_>,
) -> Result<Value<'v>, EvalError> {
    let text = owned(value)?;
    let int = |value: &Value<'_>| match value {
        Value::Int(number) => Ok(usize::try_from(*number).ok()),
        other => Err(EvalError::new("start and length are integers", other)),
    };
    let range = match (int(start)?, int(length)?) {
        (Some(start), Some(length)) if length > 0 => start.checked_add(length).map(|end| start..end),
        _ => None,
    };
    let Some(range) = range.filter(|range| range.end <= text.len()) else {
        return Err(EvalError::plain("start and length lie outside of the text"));
    };
    match utf8_safe {
        Value::Nil | Value::Bool(false) => Ok(part(text, range)),
        Value::Bool(true) => {
            let is_inside = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
            let start = (range.start..range.end).find(|at| !is_inside(at)).unwrap_or(range.end);
            let end = (start..=range.end).rev().find(|at| !is_inside(at)).unwrap_or(start);
            Ok(part(text, start..end))
        }
        other => Err(EvalError::new("utf8_safe is a boolean", other)),
    }
}

pub(super) fn trim<'v>(value: Value<'v>, characters: &Value<'_>) -> Result<Value<'v>, EvalError> {
    let text = owned(value)?;
    let cut: Vec<char> = match characters {
        Value::Nil => vec![' '],
        other => String::from_utf8_lossy(of(other)?).chars().collect(),
    };
    if cut.len() > MAX_TRIMMED {
        return Err(EvalError::plain("at most 64 different characters are trimmed away"));
    }
    let Ok(whole) = std::str::from_utf8(&text) else {
        return Err(EvalError::plain("the text is not UTF-8"));
    };
    let front = whole.trim_start_matches(cut.as_slice());
    let start = whole.len() - front.len();
    let end = start + front.trim_end_matches(cut.as_slice()).len();
    Ok(part(text, start..end))
}

pub(super) fn trim_prefix<'v>(value: Value<'v>, prefix: &Value<'_>) -> Result<Value<'v>, EvalError> {
    let (text, prefix) = (owned(value)?, of(prefix)?);
    let start = if text.starts_with(prefix) { prefix.len() } else { 0 };
    let end = text.len();
    Ok(part(text, start..end))
}

pub(super) fn trim_suffix<'v>(value: Value<'v>, suffix: &Value<'_>) -> Result<Value<'v>, EvalError> {
    let (text, suffix) = (owned(value)?, of(suffix)?);
    let end = if text.ends_with(suffix) { text.len() - suffix.len() } else { text.len() };
    Ok(part(text, 0..end))
}

/// Numbers as eight bytes, big end first, as the Collector has it.
fn bytes_of<'x>(value: &'x Value<'_>) -> Result<Cow<'x, [u8]>, EvalError> {
    match value {
        Value::Text(bytes) | Value::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
        Value::TraceState(text) => Ok(Cow::Borrowed(text)),
        Value::TraceId(id) => Ok(Cow::Borrowed(id)),
        Value::SpanId(id) => Ok(Cow::Borrowed(id)),
        Value::Int(number) => Ok(Cow::Owned(number.to_be_bytes().to_vec())),
        Value::Double(number) => Ok(Cow::Owned(number.to_be_bytes().to_vec())),
        Value::Bool(flag) => Ok(Cow::Owned(vec![u8::from(*flag)])),
        other => Err(EvalError::new("this cannot be made bytes", other)),
    }
}

pub(super) fn hex(value: &Value<'_>) -> Result<Value<'static>, EvalError> {
    match value {
        Value::Nil => Ok(Value::Nil),
        value => Ok(Value::owned_text(hex::encode(bytes_of(value)?))),
    }
}

/// The variants of Base64 that the Collector knows.
fn base64_variant(name: &[u8]) -> Option<&'static GeneralPurpose> {
    match name {
        b"base64" => Some(&STANDARD),
        b"base64-raw" => Some(&STANDARD_NO_PAD),
        b"base64-url" => Some(&URL_SAFE),
        b"base64-raw-url" => Some(&URL_SAFE_NO_PAD),
        _ => None,
    }
}

pub(super) fn base64(value: &Value<'_>, variant: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let variant = match variant {
        Value::Nil => &STANDARD,
        named => base64_variant(of(named)?).ok_or(EvalError::plain(
            "the variant is one of \"base64\", \"base64-raw\", \"base64-url\", \"base64-raw-url\"",
        ))?,
    };
    Ok(Value::owned_text(variant.encode(bytes_of(value)?)))
}

pub(super) fn base64_decode(value: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let decoded = STANDARD.decode(of(value)?);
    decoded.map(Value::owned_text).map_err(|_| EvalError::plain("the text is not Base64"))
}

/// `Decode`: Base64, and the encodings that UTF-8 includes.
pub(super) fn decode(value: &Value<'_>, encoding: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let bytes: &[u8] = match value {
        Value::Bytes(bytes) => bytes,
        other => of(other)?,
    };
    let encoding = of(encoding)?.to_ascii_lowercase();
    if let Some(variant) = base64_variant(&encoding) {
        let decoded = variant.decode(bytes).map_err(|_| EvalError::plain("the text is not Base64"))?;
        return Ok(Value::owned_text(decoded));
    }
    match encoding.as_slice() {
        b"utf-8" | b"utf8" if std::str::from_utf8(bytes).is_ok() => Ok(Value::owned_text(bytes)),
        b"us-ascii" | b"ascii" if bytes.is_ascii() => Ok(Value::owned_text(bytes)),
        b"utf-8" | b"utf8" | b"us-ascii" | b"ascii" => Err(EvalError::plain("the text is not in this encoding")),
        _ => Err(EvalError::plain("the encoding is one of \"base64\" and its variants, \"utf-8\", \"us-ascii\"")),
    }
}

/// Do the digits meet the checksum of credit cards?
pub(super) fn is_valid_luhn(value: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let digits = match value {
        Value::Int(number) => Cow::Owned(number.to_string().into_bytes()),
        other => Cow::Borrowed(of(other)?),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(EvalError::plain("the number has other characters than digits"));
    }
    let sum = digits.iter().rev().enumerate().fold(0, |sum, (place, digit)| {
        let digit = u32::from(digit - b'0') * if place % 2 == 1 { 2 } else { 1 };
        (sum + if digit > 9 { digit - 9 } else { digit }) % 10
    });
    Ok(Value::Bool(sum == 0))
}

pub(super) fn parse_int(value: &Value<'_>, base: &Value<'_>) -> Result<Value<'static>, EvalError> {
    const OTHER: EvalError = EvalError::plain("the text is not a number in this base");
    let text = std::str::from_utf8(of(value)?).map_err(|_| OTHER)?;
    let number = match base {
        Value::Int(base @ 2..=36) => i64::from_str_radix(text, *base as u32).ok(),
        Value::Int(0) => of_its_own_base(text),
        _ => return Err(EvalError::plain("the base is an integer from 2 to 36, or 0")),
    };
    number.map(Value::Int).ok_or(OTHER)
}

/// A number whose base stands before it, as Go writes integers: `0b`, `0o` or `0`, `0x`. A `_` may stand between
/// digits, and after what stands before them.
fn of_its_own_base(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { "-" } else { "" };
    let lower = unsigned.to_ascii_lowercase();
    let bases = [("0b", 2), ("0o", 8), ("0x", 16)];
    let (digits, base) = match bases.into_iter().find_map(|(prefix, base)| Some((lower.strip_prefix(prefix)?, base))) {
        Some((digits, base)) => (digits.strip_prefix('_').unwrap_or(digits), base),
        None if lower.len() > 1 && lower.starts_with('0') => (lower.get(1..)?.trim_start_matches('_'), 8),
        None => (lower.as_str(), 10),
    };
    let is_sound = !digits.starts_with(['_', '+', '-']) && !digits.ends_with('_') && !digits.contains("__");
    i64::from_str_radix(&format!("{sign}{}", digits.replace('_', "")), base).ok().filter(|_| is_sound)
}

/// FNV-1a with 64 bits, as a signed number.
pub(super) fn fnv(bytes: &[u8]) -> i64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix) as i64
}

/// An id: so many bytes, or twice as many hexadecimal digits.
pub(super) fn id<const N: usize>(value: &Value<'_>) -> Result<[u8; N], EvalError> {
    let id = match value {
        Value::Bytes(bytes) => <[u8; N]>::try_from(&**bytes).ok(),
        Value::Text(text) => hex::decode(&**text).ok().and_then(|bytes| <[u8; N]>::try_from(bytes).ok()),
        other => return Err(EvalError::new("an id is made of bytes, or of a text in hexadecimal", other)),
    };
    id.ok_or(EvalError::plain("a trace id has 16 bytes, a span id 8"))
}
