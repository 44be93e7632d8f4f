//! Converters with a part that is compiled once, at the start: a pattern, or the format of a time.

use std::borrow::Cow;

use regex::bytes::Regex;

use super::ctime::Format;
use super::{text, time};
use crate::convert::to_text;
use crate::eval::EvalError;
use crate::value::{Map, Value};

/// What is left to do on each value.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// `IsMatch`.
    Match(Regex),
    /// `ExtractPatterns`.
    Extract(Regex),
    /// `Time`.
    ReadTime(Format),
    /// `FormatTime`.
    WriteTime(Format),
}

impl Prepared {
    /// Is the result the same whenever it is asked for?
    pub(crate) fn is_pure(&self) -> bool {
        if let Self::ReadTime(format) = self { format.has_year() } else { true }
    }

    #[inline]
    pub(crate) fn apply<'v>(&'v self, target: Value<'v>) -> Result<Value<'v>, EvalError> {
        match self {
            Self::Match(pattern) => {
                let target = to_text(target)?;
                Ok(Value::Bool(target.is_some_and(|text| pattern.is_match(&text))))
            }
            Self::Extract(pattern) => extract(pattern, target),
            Self::ReadTime(format) => format.parse(text::of(&target)?, time::now()).map(Value::Time),
            Self::WriteTime(format) => match target {
                Value::Time(nanos) => Ok(Value::owned_text(format.write(nanos))),
                other => Err(time::expected(&other)),
            },
        }
    }
}

/// What the named groups of the first match have caught; groups that took no part have caught "", as in Go.
fn extract<'v>(pattern: &Regex, target: Value<'v>) -> Result<Value<'v>, EvalError> {
    let text = text::owned(target)?;
    let Some(found) = pattern.captures(&text) else {
        return Ok(Value::Map(Map::Made(Vec::new())));
    };
    let mut entries: Vec<(Cow<'v, [u8]>, Value<'v>)> = Vec::new();
    for (index, name) in pattern.capture_names().enumerate() {
        let Some(name) = name else { continue };
        let range = found.get(index).map_or(0..0, |group| group.range());
        entries.push((Cow::Owned(name.as_bytes().to_vec()), text::piece(&text, range)));
    }
    Ok(Value::Map(Map::Made(entries)))
}
