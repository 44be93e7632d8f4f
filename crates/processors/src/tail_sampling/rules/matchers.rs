//! What a single value is compared with.

use std::collections::HashSet;

use nyquist_core::wire::AnyValue;
use regex::bytes::{Regex, RegexSet};

/// Tells whether text is one of the wanted ones.
#[derive(Debug)]
pub(super) enum TextMatcher {
    Few(Vec<Box<[u8]>>),
    Set(HashSet<Box<[u8]>, foldhash::fast::RandomState>),
    Prefix(Box<[u8]>),
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
            Self::Prefix(prefix) => text.starts_with(prefix),
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
    /// Text.
    Text(TextMatcher),
    /// An integer between two bounds, inclusive.
    IntRange(i64, i64),
    /// Any number between two bounds, inclusive.
    NumberRange(f64, f64),
    /// A boolean.
    Bool(bool),
    /// Any of several values of several types.
    Values { texts: TextMatcher, numbers: Vec<f64>, integers: Vec<i64>, yes: bool, no: bool },
    /// Anything at all.
    Exists,
    /// Anything that means yes.
    Truthy,
}

impl ValueMatcher {
    pub(super) fn matches(&self, value: AnyValue<'_>) -> bool {
        match (self, value) {
            (Self::NonEmptyText(matcher), AnyValue::String(text)) => !text.is_empty() && matcher.matches(text),
            (Self::Text(matcher), AnyValue::String(text)) => matcher.matches(text),
            (Self::IntRange(min, max), AnyValue::Int(number)) => (*min..=*max).contains(&number),
            (Self::NumberRange(min, max), AnyValue::Int(number)) => (*min..=*max).contains(&(number as f64)),
            (Self::NumberRange(min, max), AnyValue::Double(number)) => (*min..=*max).contains(&number),
            (Self::Bool(wanted), AnyValue::Bool(flag)) => *wanted == flag,
            (Self::Values { texts, .. }, AnyValue::String(text)) => texts.matches(text),
            (Self::Values { integers, numbers, .. }, AnyValue::Int(number)) => {
                integers.contains(&number) || numbers.contains(&(number as f64))
            }
            (Self::Values { integers, numbers, .. }, AnyValue::Double(number)) => {
                numbers.contains(&number) || integers.iter().any(|&integer| integer as f64 == number)
            }
            (Self::Values { yes, no, .. }, AnyValue::Bool(flag)) => {
                if flag {
                    *yes
                } else {
                    *no
                }
            }
            (Self::Exists, _) => true,
            (Self::Truthy, value) => truthy(value),
            _ => false,
        }
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
