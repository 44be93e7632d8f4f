//! What a single value is compared with.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;

use memchr::memmem::Finder;
use nyquist_core::wire::AnyValue;
use regex::bytes::{Regex, RegexSet};

use super::lists::List;

/// Tells whether text is one of the wanted ones.
#[derive(Debug)]
pub(super) enum TextMatcher {
    Few(Vec<Box<[u8]>>),
    Set(HashSet<Box<[u8]>, foldhash::fast::RandomState>),
    File(Arc<List>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<Finder<'static>>),
    Regex(Regex),
    Regexes(RegexSet),
}

impl TextMatcher {
    /// Exactly one of `values`.
    pub(super) fn exact(values: impl IntoIterator<Item = String>) -> Self {
        // Comparing with a few costs less than hashing.
        const FEW: usize = 4;
        let set: HashSet<Box<[u8]>, _> =
            values.into_iter().map(|value| value.into_bytes().into_boxed_slice()).collect();
        if set.len() <= FEW { Self::Few(set.into_iter().collect()) } else { Self::Set(set) }
    }

    #[inline]
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Few(values) => values.iter().any(|value| **value == *text),
            Self::Set(values) => values.contains(text),
            Self::File(list) => list.contains(text),
            Self::Prefix(prefix) => text.starts_with(prefix),
            Self::Suffix(suffix) => text.ends_with(suffix),
            Self::Contains(part) => part.find(text).is_some(),
            Self::Regex(regex) => regex.is_match(text),
            Self::Regexes(set) => set.is_match(text),
        }
    }
}

/// Tells whether an attribute's value is a wanted one.
#[derive(Debug)]
pub(super) enum ValueMatcher {
    /// The Collector's `string_attribute`: text that is not empty.
    NonEmptyText(TextMatcher),
    /// Anything but text that is not empty: what a resource's attribute is to the Collector's `string_attribute` if it
    /// reads as "".
    EmptyText,
    /// Text.
    Text(TextMatcher),
    /// An integer between two bounds, inclusive.
    IntRange(i64, i64),
    /// The same, with other types as 0: the Collector's.
    IntOrZeroRange(i64, i64),
    /// Any number between two bounds, inclusive.
    NumberRange(f64, f64),
    /// A boolean.
    Bool(bool),
    /// The same, with other types as false: the Collector's.
    BoolOrFalse(bool),
    /// Any of several values of several types.
    Values(Values),
    /// A text, number or boolean that is none of several.
    NotValues(Values),
    /// A text, or a whole number in digits, that is a line of a file.
    Listed(Arc<List>),
    /// Anything at all.
    Exists,
    /// Anything that means yes.
    Truthy,
}

impl ValueMatcher {
    pub(super) fn matches(&self, value: AnyValue<'_>) -> bool {
        match (self, value) {
            (Self::NonEmptyText(matcher), AnyValue::String(text)) => !text.is_empty() && matcher.matches(text),
            (Self::EmptyText, AnyValue::String(text)) => text.is_empty(),
            (Self::EmptyText, _) => true,
            (Self::Text(matcher), AnyValue::String(text)) => matcher.matches(text),
            (Self::IntRange(min, max), AnyValue::Int(number)) => (*min..=*max).contains(&number),
            (Self::IntOrZeroRange(min, max), value) => {
                let number = if let AnyValue::Int(number) = value { number } else { 0 };
                (*min..=*max).contains(&number)
            }
            (Self::NumberRange(min, max), AnyValue::Int(number)) => (*min..=*max).contains(&(number as f64)),
            (Self::NumberRange(min, max), AnyValue::Double(number)) => (*min..=*max).contains(&number),
            (Self::Bool(wanted), AnyValue::Bool(flag)) => *wanted == flag,
            (Self::BoolOrFalse(wanted), value) => *wanted == matches!(value, AnyValue::Bool(true)),
            (Self::Values(values), value) => values.has(value).unwrap_or(false),
            (Self::NotValues(values), value) => !values.has(value).unwrap_or(true),
            (Self::Listed(list), AnyValue::String(text)) => list.contains(text),
            (Self::Listed(list), AnyValue::Int(number)) => {
                // As many bytes as the longest number has.
                let mut digits = [0; 20];
                let mut rest = &mut digits[..];
                let written = write!(rest, "{number}").map(|()| 20 - rest.len());
                written.is_ok_and(|len| digits.get(..len).is_some_and(|digits| list.contains(digits)))
            }
            (Self::Exists, _) => true,
            (Self::Truthy, value) => truthy(value),
            _ => false,
        }
    }
}

/// Values of several types. Text is equal to text only, numbers to numbers, booleans to booleans.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) texts: TextMatcher,
    pub(super) numbers: Vec<f64>,
    pub(super) integers: Vec<i64>,
    pub(super) yes: bool,
    pub(super) no: bool,
}

impl Values {
    /// Is `value` one of these? `None` if it is of a type that none of them can have.
    fn has(&self, value: AnyValue<'_>) -> Option<bool> {
        Some(match value {
            AnyValue::String(text) => self.texts.matches(text),
            AnyValue::Int(number) => self.integers.contains(&number) || self.numbers.contains(&(number as f64)),
            AnyValue::Double(number) => {
                self.numbers.contains(&number) || self.integers.iter().any(|&integer| integer as f64 == number)
            }
            AnyValue::Bool(true) => self.yes,
            AnyValue::Bool(false) => self.no,
            _ => return None,
        })
    }
}

fn truthy(value: AnyValue<'_>) -> bool {
    const FALSE: [&str; 4] = ["0", "false", "no", "off"];
    match value {
        AnyValue::Empty => false,
        AnyValue::Bool(flag) => flag,
        AnyValue::Int(number) => number != 0,
        AnyValue::Double(number) => number != 0.0,
        AnyValue::String(text) => {
            !text.is_empty() && !FALSE.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
        }
        AnyValue::Array(bytes) | AnyValue::KvList(bytes) | AnyValue::Bytes(bytes) => !bytes.is_empty(),
    }
}
