//! Names written in another way: `ConvertCase`, `ToSnakeCase`, `ToCamelCase`. ASCII letters only, as in the
//! Collector, which leaves this to Go's `strcase`.

use super::text;
use crate::eval::EvalError;
use crate::value::Value;

pub(super) fn convert<'v>(value: Value<'v>, case: &Value<'_>) -> Result<Value<'v>, EvalError> {
    match text::of(case)? {
        b"lower" => text::lower(value),
        b"upper" => text::upper(value),
        b"snake" => snake(value),
        b"camel" => camel(value),
        _ => Err(EvalError::plain("the case is one of \"lower\", \"upper\", \"snake\", \"camel\"")),
    }
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'_' | b'-' | b'.')
}

/// What a byte is, where words are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Upper,
    Lower,
    Digit,
    Other,
}

impl Class {
    fn of(byte: u8) -> Self {
        match byte {
            b'A'..=b'Z' => Self::Upper,
            b'a'..=b'z' => Self::Lower,
            b'0'..=b'9' => Self::Digit,
            _ => Self::Other,
        }
    }
}

/// `someHTTPName2` becomes `some_http_name_2`.
pub(super) fn snake(value: Value<'_>) -> Result<Value<'_>, EvalError> {
    let name = text::of(&value)?.trim_ascii();
    let mut out = Vec::with_capacity(name.len() + 8);
    let mut before = Class::Other;
    for (index, &byte) in name.iter().enumerate() {
        let class = Class::of(byte);
        let after = name.get(index + 1).map_or(Class::Other, |&next| Class::of(next));
        // The last capital of several begins the next word.
        if (before, class, after) == (Class::Upper, Class::Upper, Class::Lower) {
            out.push(b'_');
        }
        out.push(if is_separator(byte) { b'_' } else { byte.to_ascii_lowercase() });
        let ends = matches!(
            (class, after),
            (Class::Lower, Class::Upper | Class::Digit)
                | (Class::Upper, Class::Digit)
                | (Class::Digit, Class::Upper | Class::Lower)
        );
        if ends {
            out.push(b'_');
        }
        before = class;
    }
    Ok(Value::owned_text(out))
}

/// `some_name` becomes `SomeName`.
pub(super) fn camel(value: Value<'_>) -> Result<Value<'_>, EvalError> {
    let name = text::of(&value)?.trim_ascii();
    let mut out = Vec::with_capacity(name.len());
    let (mut begins, mut before) = (true, Class::Other);
    for &byte in name {
        let class = Class::of(byte);
        match class {
            Class::Lower | Class::Upper => {
                out.push(match class {
                    Class::Lower if begins => byte.to_ascii_uppercase(),
                    Class::Upper if !begins && before == Class::Upper => byte.to_ascii_lowercase(),
                    _ => byte,
                });
                begins = false;
            }
            Class::Digit => {
                out.push(byte);
                begins = true;
            }
            Class::Other => begins = is_separator(byte),
        }
        before = class;
    }
    Ok(Value::owned_text(out))
}
