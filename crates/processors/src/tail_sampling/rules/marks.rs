//! The values by which adaptive rates tell traces apart, folded to a mark of 64 bits per key.
//!
//! A mark is the union of masks of the distinct values, each a quarter of the bits, chosen by a hash:
//! it does not depend on the order of spans or on how often a value occurs, and two sets of a few
//! values practically never have the same. (A trace with a dozen values of one key has all bits set.)

use nyquist_core::wire::{AnyValue, Field, Fields, KeyValue, Value};

use super::random::{Fnv, finish};

/// Distinct keys of all rules together.
pub(super) const MAX_KEYS: usize = 8;

/// By key.
pub(crate) type Marks = [u64; MAX_KEYS];

/// What a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MarkKey {
    /// An attribute of a span or its resource.
    Attribute(Box<[u8]>),
    /// An attribute of the root span.
    RootAttribute(Box<[u8]>),
    SpanName,
    RootSpanName,
}

impl MarkKey {
    /// `span_name`, or an attribute; both may be restricted to the root span by `root.`
    pub(super) fn parse(text: &str) -> Self {
        match (text, text.strip_prefix("root.")) {
            ("span_name", _) => Self::SpanName,
            (_, Some("span_name")) => Self::RootSpanName,
            (_, Some(attribute)) => Self::RootAttribute(attribute.as_bytes().into()),
            (attribute, None) => Self::Attribute(attribute.as_bytes().into()),
        }
    }
}

/// Adds the marks of a resource.
pub(super) fn fold_resource(keys: &[MarkKey], resource: &[u8], marks: &mut Marks) {
    for field in Fields::new(resource) {
        if let Field { number: 1, value: Value::Len(attribute) } = field {
            fold_attribute(keys, attribute, false, marks);
        }
    }
}

/// Adds the marks of a span.
pub(super) fn fold_span(keys: &[MarkKey], span: &[u8], root: bool, marks: &mut Marks) {
    for field in Fields::new(span) {
        match (field.number, field.value) {
            (9, Value::Len(attribute)) => fold_attribute(keys, attribute, root, marks),
            (5, Value::Len(name)) => {
                for (key, mark) in keys.iter().zip(&mut *marks) {
                    if *key == MarkKey::SpanName || root && *key == MarkKey::RootSpanName {
                        *mark |= mask(name);
                    }
                }
            }
            _ => {}
        }
    }
}

fn fold_attribute(keys: &[MarkKey], attribute: &[u8], root: bool, marks: &mut Marks) {
    let attribute = KeyValue::new(attribute);
    for (key, mark) in keys.iter().zip(marks) {
        let wanted = match key {
            MarkKey::Attribute(name) => **name == *attribute.key,
            MarkKey::RootAttribute(name) => root && **name == *attribute.key,
            _ => false,
        };
        if wanted {
            *mark |= match attribute.value {
                AnyValue::String(bytes) | AnyValue::Bytes(bytes) | AnyValue::Array(bytes) | AnyValue::KvList(bytes) => {
                    mask(bytes)
                }
                AnyValue::Int(number) => mask(&number.to_le_bytes()),
                AnyValue::Double(number) => mask(&number.to_le_bytes()),
                AnyValue::Bool(flag) => mask(&[u8::from(flag)]),
                AnyValue::Empty => 0,
            };
        }
    }
}

fn mask(value: &[u8]) -> u64 {
    let hash = finish(Fnv::of(value).value());
    hash & finish(!hash)
}

/// One number for the marks of some keys; never 0.
pub(super) fn combine(keys: &[usize], marks: &Marks) -> u64 {
    let one = |hash: u64, &key: &usize| finish(hash.rotate_left(7) ^ marks.get(key).copied().unwrap_or(0));
    keys.iter().fold(1, one).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn sets_of_values_have_marks_of_their_own() {
        let single: Vec<u64> = (0..2000u32).map(|value| mask(&value.to_le_bytes())).collect();
        let mut seen: HashSet<u64> = single.iter().copied().collect();
        assert_eq!(seen.len(), 2000);
        seen.extend(single.iter().zip(single.iter().skip(1)).map(|(one, other)| one | other));
        assert_eq!(seen.len(), 3999);
        let mut marks = Marks::default();
        assert_ne!(combine(&[0, 1], &marks), 0);
        marks[1] = single[0];
        assert_ne!(combine(&[0, 1], &marks), combine(&[1, 0], &marks));
    }
}
