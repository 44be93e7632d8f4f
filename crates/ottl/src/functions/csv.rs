//! `ParseCSV`: one row, after [RFC 4180](https://www.rfc-editor.org/rfc/rfc4180) with any delimiter of one character.

use std::borrow::Cow;

use super::text;
use crate::eval::EvalError;
use crate::value::{Map, Value};

/// The most fields of a row.
const MAX_FIELDS: usize = 1 << 12;

/// What quotes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A field is in quotes or has none.
    Strict,
    /// Quotes elsewhere are text.
    Lazy,
    /// Quotes are text.
    Ignore,
}

pub(super) fn parse(
    [target, headers, delimiter, header_delimiter, mode]: [Value<'_>; 5],
) -> Result<Value<'static>, EvalError> {
    let delimiter = one_character(&delimiter)?.unwrap_or(b",");
    let header_delimiter = one_character(&header_delimiter)?.unwrap_or(delimiter);
    let mode = match mode {
        Value::Nil => Mode::Strict,
        mode => match text::of(&mode)? {
            b"strict" => Mode::Strict,
            b"lazyQuotes" => Mode::Lazy,
            b"ignoreQuotes" => Mode::Ignore,
            _ => return Err(EvalError::plain("the mode is \"strict\", \"lazyQuotes\" or \"ignoreQuotes\"")),
        },
    };
    let headers = text::of(&headers)?;
    if headers.is_empty() {
        return Err(EvalError::plain("the headers are empty"));
    }
    let headers = fields(headers, header_delimiter, Mode::Ignore)?;
    let row = trimmed(text::of(&target)?);
    if row.is_empty() {
        return Err(EvalError::plain("the row is empty"));
    }
    let row = fields(row, delimiter, mode)?;
    if row.len() != headers.len() {
        return Err(EvalError::plain("the row has not as many fields as the headers"));
    }
    let entries = headers.into_iter().map(Cow::Owned).zip(row.into_iter().map(Value::owned_text));
    Ok(Value::Map(Map::by_key(entries.collect())))
}

/// The bytes of a single character; none of nil.
fn one_character<'x>(value: &'x Value<'_>) -> Result<Option<&'x [u8]>, EvalError> {
    if matches!(value, Value::Nil) {
        return Ok(None);
    }
    let delimiter = text::of(value)?;
    let is_one = std::str::from_utf8(delimiter).is_ok_and(|text| text.chars().count() == 1);
    let is_sound = is_one && !matches!(delimiter, b"\"" | b"\n" | b"\r");
    is_sound.then_some(Some(delimiter)).ok_or(EvalError::plain("a delimiter is a single character, and no quote"))
}

/// Without the newlines around it.
fn trimmed(row: &[u8]) -> &[u8] {
    let is_newline = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let begin = row.iter().position(|byte| !is_newline(byte)).unwrap_or(row.len());
    let end = row.iter().rposition(|byte| !is_newline(byte)).map_or(begin, |last| last + 1);
    row.get(begin..end).unwrap_or_default()
}

fn fields(row: &[u8], delimiter: &[u8], mode: Mode) -> Result<Vec<Vec<u8>>, EvalError> {
    let mut fields = Vec::new();
    let mut rest = Some(row);
    while let Some(row) = rest {
        if fields.len() == MAX_FIELDS {
            return Err(EvalError::plain("the row has more than 4096 fields"));
        }
        let (field, after) = match row.strip_prefix(b"\"") {
            Some(quoted) if mode != Mode::Ignore => in_quotes(quoted, delimiter, mode)?,
            _ => plain(row, delimiter, mode)?,
        };
        fields.push(field);
        rest = after;
    }
    Ok(fields)
}

/// A field, and what follows the delimiter after it, if there is one.
type Cut<'x> = (Vec<u8>, Option<&'x [u8]>);

fn plain<'x>(row: &'x [u8], delimiter: &[u8], mode: Mode) -> Result<Cut<'x>, EvalError> {
    let (field, rest) = match memchr::memmem::find(row, delimiter) {
        Some(end) => (row.get(..end), row.get(end + delimiter.len()..)),
        None => (Some(row), None),
    };
    let field = field.unwrap_or_default();
    if mode == Mode::Strict && field.contains(&b'"') {
        return Err(EvalError::plain("a quote stands in a field without quotes"));
    }
    Ok((field.to_vec(), rest))
}

/// `quoted` begins after the quote.
fn in_quotes<'x>(quoted: &'x [u8], delimiter: &[u8], mode: Mode) -> Result<Cut<'x>, EvalError> {
    let mut field = Vec::new();
    let mut rest = quoted;
    loop {
        let Some(quote) = memchr::memchr(b'"', rest) else {
            field.extend_from_slice(rest);
            return if mode == Mode::Lazy { Ok((field, None)) } else { Err(EvalError::plain("a quote is not closed")) };
        };
        field.extend_from_slice(rest.get(..quote).unwrap_or_default());
        rest = rest.get(quote + 1..).unwrap_or_default();
        if let Some(after) = rest.strip_prefix(b"\"") {
            field.push(b'"');
            rest = after;
        } else if let Some(after) = rest.strip_prefix(delimiter) {
            return Ok((field, Some(after)));
        } else if rest.is_empty() {
            return Ok((field, None));
        } else if mode == Mode::Lazy {
            field.push(b'"');
        } else {
            return Err(EvalError::plain("text stands behind a field in quotes"));
        }
    }
}
